//! HTTP by hand: what no client would send, and what a server answers to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// A port of 127.0.0.1.
    Port(u16),
}

/// A connection.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status; 0 if the connection was closed without one.
    pub status: u16,
    /// Its header.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body, which is JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Place {
    /// Connects. Nothing is waited for longer than five minutes: compilations come after all else.
    pub fn connect(&self) -> Box<dyn Connection> {
        let patience = Some(Duration::from_secs(300));
        match self {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).expect("the socket answers");
                stream.set_read_timeout(patience).expect("a timeout is set");
                Box::new(stream)
            }
            Place::Port(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port)).expect("the port answers");
                stream.set_read_timeout(patience).expect("a timeout is set");
                Box::new(stream)
            }
        }
    }

    /// What a client sends as `Host`.
    pub fn host(&self) -> String {
        match self {
            Place::Socket(_) => "localhost".into(),
            Place::Port(port) => format!("127.0.0.1:{port}"),
        }
    }

    /// Sends a request and waits for the answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut connection = self.connect();
        let _ = connection.write_all(&self.request(method, path, headers, body));
        read_answer(&mut *connection)
    }

    /// The bytes of a request; a header that is given takes the place of the usual one.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let given = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !given("Host") {
            text += &format!("Host: {}\r\n", self.host());
        }
        if !given("Content-Length") && method != "GET" {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        // A header without a value is left out.
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (text + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Asks with JSON.
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.ask("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }
}

/// Until the connection is closed.
pub fn read_answer(connection: &mut dyn Connection) -> Answer {
    let mut bytes = Vec::new();
    // A server that refuses may close before all was sent.
    let _ = connection.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.into(), body: body.into() }
}
