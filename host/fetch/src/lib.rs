//! Requests that the host makes for plugins, by what they are granted.
//!
//! In reading order:
//! - [`Secrets`]: a grant's headers, read.
//! - [`Client`]: a request with its redirects, each judged by [`pelton_core::grants::http`].
//! - [`exchange`]: one request and its answer, of HTTP/1.1.
//! - [`connect`]: to an address that was judged, and to no other.
//!
//! Invariant: no connection is opened to an address that the grant does not reach, and no request is sent that no grant allows, whoever named
//! it: the plugin, a redirect or a resolver. Each request has a connection of its own, so that none carries what another grant allowed.

mod connect;
mod exchange;
mod secrets;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use exchange::Sent;
use openssl::ssl::SslConnector;
use pelton_core::grants::http::{HttpGrant, MAX_REDIRECTS, Url, allowed, may_set};

pub use secrets::Secrets;

/// Headers of a request, at most, and their bytes.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Name, in small letters, and value.
pub(crate) type Header = (String, String);
/// Of a request or an answer, in their order.
pub(crate) type Headers = Vec<Header>;

/// Makes requests, on a thread of its own.
pub struct Client {
    runtime: Option<tokio::runtime::Runtime>,
    tls: SslConnector,
}

/// What a plugin asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Absolute.
    pub url: String,
    /// Name and value.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// After redirects.
    pub status: u16,
    /// Name, in small letters, and value.
    pub headers: Vec<(String, String)>,
    /// At most as large as the grant says.
    pub body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// For programs.
    pub kind: FailedKind,
    /// A sentence for the user, without secrets.
    pub message: String,
}

/// See [`Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedKind {
    /// Not granted.
    Refused,
    /// A body.
    TooLarge,
    /// The grant's deadline.
    Timeout,
    /// The network or the server.
    Failed,
}

impl Failed {
    fn new(kind: FailedKind, message: impl Into<String>) -> Failed {
        Failed { kind, message: message.into() }
    }

    /// Not granted.
    pub fn refused(message: impl Into<String>) -> Failed {
        Failed::new(FailedKind::Refused, message)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Client {
    /// Starts the thread.
    pub fn start() -> Result<Client, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("pelton-fetch").enable_all().build();
        let tls = connect::tls().map_err(|error| format!("TLS cannot be used: {error}"))?;
        Ok(Client { runtime: Some(runtime.map_err(|error| error.to_string())?), tls })
    }

    /// Makes a request and gives the whole answer, of at most `most` bytes. Who drops the future ends the request.
    pub async fn send(&self, grants: Arc<Secrets>, request: Request, most: u64) -> Result<Response, Failed> {
        let Some(runtime) = &self.runtime else { return Err(Failed::new(FailedKind::Failed, "the host is ending")) };
        let tls = self.tls.clone();
        let mut task = Ended(runtime.spawn(async move { follow(&grants, &tls, request, most).await }));
        (&mut task.0).await.unwrap_or_else(|error| Err(Failed::new(FailedKind::Failed, format!("the request ended: {error}"))))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be dropped where nobody may wait.
            runtime.shutdown_background();
        }
    }
}

/// A task that ends with whoever waits for it.
struct Ended<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A request and where its redirects lead. The deadline of the first grant bounds all of it.
async fn follow(grants: &Secrets, tls: &SslConnector, request: Request, most: u64) -> Result<Response, Failed> {
    let url = Url::parse(&request.url).map_err(Failed::refused)?;
    let (grant, _) = grants.of(&request.method, &url)?;
    let time = Duration::from_micros(u64::try_from(grant.deadline.micros()).unwrap_or(0));
    let late = || {
        let message = format!("`{} {url}` was not answered within {} (`deadline` of the grant)", request.method, grant.deadline);
        Failed::new(FailedKind::Timeout, message)
    };
    tokio::time::timeout(time, redirected(grants, tls, &request, url.clone(), most)).await.unwrap_or_else(|_| Err(late()))
}

async fn redirected(grants: &Secrets, tls: &SslConnector, request: &Request, first: Url, most: u64) -> Result<Response, Failed> {
    let own = own_headers(&request.headers)?;
    let (mut url, mut method, mut body) = (first.clone(), request.method.as_str(), request.body.as_slice());
    for hop in 0..=MAX_REDIRECTS {
        let (grant, secrets) = grants.of(method, &url).map_err(|failed| match hop {
            0 => failed,
            _ => Failed::refused(format!("`{first}` redirects off the list: {}", failed.message)),
        })?;
        if body.len() as u64 > grant.request_bytes {
            let message =
                format!("the body of `{method} {url}` has {} bytes; `request_bytes` of the grant is {}", body.len(), grant.request_bytes);
            return Err(Failed::new(FailedKind::TooLarge, message));
        }
        // What the plugin set is for the server that it named.
        let mut headers = if url.origin() == first.origin() { own.clone() } else { Vec::new() };
        headers.retain(|(name, _)| secrets.iter().all(|(secret, _)| secret != name));
        headers.extend_from_slice(secrets);
        let sent = Sent { url: &url, method, headers: &headers, body };
        let answer = sent.exchange(grant, tls, most.min(grant.response_bytes)).await?;
        let location = answer.headers.iter().find(|(name, _)| name == "location").map(|(_, value)| value.clone());
        let Some(location) = location.filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308)) else { return Ok(answer) };
        url = url.join(&location).map_err(|why| Failed::refused(format!("`{url}` redirects off the list: {why}")))?;
        if answer.status == 303 && method != "HEAD" || matches!(answer.status, 301 | 302) && method == "POST" {
            (method, body) = ("GET", &[]);
        }
    }
    Err(Failed::new(FailedKind::Failed, format!("`{first}` redirects more than {MAX_REDIRECTS} times")))
}

/// What the plugin sets.
fn own_headers(named: &[(String, String)]) -> Result<Headers, Failed> {
    let bytes: usize = named.iter().map(|(name, value)| name.len() + value.len()).sum();
    if named.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Failed::refused(format!("a request has at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together")));
    }
    let checked = named.iter().map(|(name, value)| {
        if !may_set(name) {
            return Err(Failed::refused(format!("the header `{name}` is the host's to set")));
        }
        if !is_token(name) || !is_value(value) {
            let message = format!("`{name}` is no name of a header, or its value has characters that no header has");
            return Err(Failed::refused(message));
        }
        Ok((name.to_ascii_lowercase(), value.clone()))
    });
    checked.collect()
}

/// Whether a text can be the name of a header.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether a text can be the value of a header: no end of line gets into a request.
pub(crate) fn is_value(value: &str) -> bool {
    value.chars().all(|char| char == '\t' || !char.is_control())
}

impl Secrets {
    /// The grant of a request, and the headers that go with it.
    fn of(&self, method: &str, url: &Url) -> Result<(&HttpGrant, &[Header]), Failed> {
        let grant = allowed(&self.grants, method, url).map_err(Failed::refused)?;
        let at = self.grants.iter().position(|other| std::ptr::eq(other, grant)).unwrap_or_default();
        Ok((grant, &self.headers[at]))
    }
}
