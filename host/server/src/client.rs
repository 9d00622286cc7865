//! The other side of the API, for the command line.

use openssl::ssl::{SslConnector, SslMethod};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A pipeline that is told to stop takes a last checkpoint first; nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(400);
/// Lines of an answer's header.
const MAX_HEADERS: usize = 64;

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Socket(PathBuf),
    /// `http://…` or `https://…`.
    Url {
        /// By TLS.
        secure: bool,
        /// The host's name.
        name: String,
        /// Its port.
        port: u16,
    },
}

impl Address {
    /// A URL, a socket, or a data folder with a socket in it.
    pub fn parse(text: &str) -> Result<Address, String> {
        if !text.contains("://") {
            let path = PathBuf::from(text.strip_prefix("unix:").unwrap_or(text));
            return Ok(Address::Socket(if path.is_dir() { path.join("pelton.sock") } else { path }));
        }
        let wrong = || format!("`{text}` is no address of a host: write http://127.0.0.1:8431, https://…, or the path of a Unix socket");
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().map_err(|_| wrong())?),
            _ => (rest, if secure { 443 } else { 80 }),
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
        match !name.is_empty() && name.chars().all(known) {
            true => Ok(Address::Url { secure, name: name.trim_matches(['[', ']']).into(), port }),
            false => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(path) => write!(f, "{}", path.display()),
            Address::Url { secure, name, port } => write!(f, "http{}://{name}:{port}", if *secure { "s" } else { "" }),
        }
    }
}

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("no host answers at {address}: {message}\n  next: start one with `pelton serve`, or name another with --host or PELTON_HOST")]
    Unreachable { address: String, message: String },
    /// The host says no.
    #[error("{message}")]
    Refused {
        /// Status of HTTP.
        status: u16,
        /// What is wrong, and what to do next.
        message: String,
        /// For programs.
        details: Value,
    },
}

/// Asks a host. Each request has a connection of its own.
pub struct Client {
    address: Address,
    token: Option<String>,
    tls: Option<SslConnector>,
    patience: Duration,
}

/// What can be spoken through.
trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Client {
    /// Of an address. `ca`: who has signed the certificate of the host, if the system does not know them.
    pub fn new(address: Address, token: Option<String>, ca: Option<&Path>) -> Result<Client, String> {
        let tls = match &address {
            Address::Url { secure: true, .. } => Some(tls(ca)?),
            _ => None,
        };
        Ok(Client { address, token, tls, patience: PATIENCE })
    }

    /// Waits so much longer for an answer.
    pub fn patient(self, longer: Duration) -> Client {
        Client { patience: self.patience + longer, ..self }
    }

    /// Whether it is on this machine, so that both know the same folders.
    pub fn is_local(&self) -> bool {
        matches!(self.address, Address::Socket(_))
    }

    /// What there is.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("GET", path, None, &[]).and_then(|bytes| self.value(&bytes))
    }

    /// What there is, as text.
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.ask("GET", path, None, &[])?).into_owned())
    }

    /// Asks for something to be done.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask("POST", path, Some("application/json"), body.to_string().as_bytes()).and_then(|bytes| self.value(&bytes))
    }

    /// Puts something at its place.
    pub fn put(&self, path: &str, value: &Value) -> Result<Value, ClientError> {
        self.ask("PUT", path, Some("application/json"), value.to_string().as_bytes()).and_then(|bytes| self.value(&bytes))
    }

    /// Asks for something to be gone.
    pub fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("DELETE", path, Some("application/json"), &[]).and_then(|bytes| self.value(&bytes))
    }

    /// Sends a component.
    pub fn put_component(&self, digest: &str, component: &[u8]) -> Result<Value, ClientError> {
        let path = format!("/v1/plugins/{digest}");
        self.ask("PUT", &path, Some("application/wasm"), component).and_then(|bytes| self.value(&bytes))
    }

    fn ask(&self, method: &str, path: &str, kind: Option<&str>, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let (status, bytes) = self.exchange(method, path, kind, body).map_err(|message| self.unreachable(&message))?;
        if (200..300).contains(&status) {
            return Ok(bytes);
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = answer["error"].as_str().map_or_else(|| format!("the host answers with {status}"), str::to_string);
        Err(ClientError::Refused { status, message, details: answer["details"].clone() })
    }

    fn value(&self, bytes: &[u8]) -> Result<Value, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable { address: self.address.to_string(), message: error.to_string() }
    }

    fn connect(&self) -> Result<(Box<dyn Connection>, String), String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        match &self.address {
            Address::Socket(socket) => {
                let stream = UnixStream::connect(socket).map_err(|error| failed(&error))?;
                stream.set_read_timeout(Some(self.patience)).map_err(|error| failed(&error))?;
                Ok((Box::new(stream), "localhost".into()))
            }
            Address::Url { name, port, .. } => {
                let stream = TcpStream::connect((name.as_str(), *port)).map_err(|error| failed(&error))?;
                stream.set_read_timeout(Some(self.patience)).map_err(|error| failed(&error))?;
                let host = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
                match &self.tls {
                    None => Ok((Box::new(stream), host)),
                    Some(tls) => Ok((Box::new(tls.connect(name, stream).map_err(|error| failed(&error))?), host)),
                }
            }
        }
    }

    fn exchange(&self, method: &str, path: &str, kind: Option<&str>, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let (mut stream, host) = self.connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if let Some(kind) = kind {
            head += &format!("Content-Type: {kind}\r\n");
        }
        // A token with a line break in it would be a header of its own.
        if let Some(token) = self.token.as_ref().filter(|token| !self.is_local() && token.bytes().all(|byte| byte.is_ascii_graphic())) {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        // A host that refuses may answer before it has all.
        let sent = stream.write_all((head + "\r\n").as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        match parsed(&answer) {
            Some(parsed) => Ok(parsed),
            None => Err(sent.err().or(read.err()).map_or("it does not speak HTTP".into(), |error| error.to_string())),
        }
    }
}

/// Status and body; `None`: it is not whole.
fn parsed(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(used) = response.parse(answer).ok()? else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let body = &answer[used..];
    match length {
        Some(length) => Some((response.code?, body.get(..length)?.to_vec())),
        None => Some((response.code?, body.to_vec())),
    }
}

fn tls(ca: Option<&Path>) -> Result<SslConnector, String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).map_err(|error| error.to_string())?;
    match ca {
        Some(path) => {
            let wrong = |error| format!("{}: {error}\n  next: give a PEM file with --ca", path.display());
            connector.set_ca_file(path).map_err(wrong)?;
        }
        None => {
            // OpenSSL is built in and does not know where this system has them.
            let found = openssl_probe::probe();
            if let Some(file) = found.cert_file {
                connector.set_ca_file(file).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(connector.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_or_paths() {
        let socket = |path: &str| Ok(Address::Socket(path.into()));
        assert_eq!(Address::parse("/x/pelton.sock"), socket("/x/pelton.sock"));
        assert_eq!(Address::parse("unix:/x/y"), socket("/x/y"));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Address::parse(folder.path().to_str().unwrap()), Ok(Address::Socket(folder.path().join("pelton.sock"))));
        let url = |secure, name: &str, port| Ok(Address::Url { secure, name: name.into(), port });
        assert_eq!(Address::parse("http://127.0.0.1:8431"), url(false, "127.0.0.1", 8431));
        assert_eq!(Address::parse("https://[::1]:8431/"), url(true, "::1", 8431));
        assert_eq!(Address::parse("https://[::1]"), url(true, "::1", 443));
        assert_eq!(Address::parse("https://pelton.example"), url(true, "pelton.example", 443));
        for bad in ["ftp://x", "http://", "://", "http://a b", "http://a:x", "http://a/b", "http://a\r\nX: y"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Some((200, b"ok".to_vec())));
        for half in [&b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"[..], b"HTTP/1.1 200 OK\r\n", b"", b"hello\r\n\r\n"] {
            assert_eq!(parsed(half), None);
        }
    }
}
