//! Requests that the host makes, as the pipeline grants them (`grants: {http: [GET https://…]}`). A plugin that calls nothing here imports nothing.
//!
//! ```
//! use pelton_sdk::{http, testing};
//!
//! testing::fake_http(|request| Ok(http::Response::new(200, request.url.as_bytes())));
//! let answer = http::get("https://geo.example.com/v1/10").unwrap();
//! assert_eq!((answer.status, answer.text()), (200, "https://geo.example.com/v1/10".into()));
//! ```
//!
//! A request stays made when the batch that made it comes again after a failure: ask for what may be asked for twice.

use std::borrow::Cow;
use std::fmt;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// In capitals, such as `GET`.
    pub method: String,
    /// Absolute, of `https` or `http`.
    pub url: String,
    /// Name and value. Secrets are added by the host.
    pub headers: Vec<(String, String)>,
    /// May be empty.
    pub body: Vec<u8>,
}

/// What came back, with any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// After redirects.
    pub status: u16,
    /// Name, in small letters, and value.
    pub headers: Vec<(String, String)>,
    /// The whole of it.
    pub body: Vec<u8>,
}

/// Why nothing came back. `?` in a transform makes the row an error of these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// For programs.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

/// See [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not granted, or effects are refused in this run.
    Refused,
    /// A body.
    TooLarge,
    /// The grant's deadline has passed.
    Timeout,
    /// The network, or the server.
    Failed,
}

/// Asks with `GET`.
pub fn get(url: &str) -> Result<Response, Error> {
    request(Request { method: "GET".into(), url: url.into(), ..Request::default() })
}

/// Makes a request and waits for the whole answer; natively, that of [`crate::testing::fake_http`].
pub fn request(request: Request) -> Result<Response, Error> {
    #[cfg(target_arch = "wasm32")]
    return crate::component::capabilities::send(request);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::fakes::send(&request)
}

impl Response {
    /// Without headers.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { status, headers: Vec::new(), body: body.into() }
    }

    /// The body as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The first header of a name, in whatever letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
