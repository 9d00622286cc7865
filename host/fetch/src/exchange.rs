//! One request and its answer, of HTTP/1.1, on a connection that ends with it.
//!
//! The server is as little trusted as the plugin: an answer's head and body are bounded while they are read, and an answer that says its length
//! in two ways is none.

use openssl::ssl::SslConnector;
use pelton_core::grants::http::{HttpGrant, Url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::{Stream, connect};
use crate::{Failed, FailedKind, Headers, Response};

/// Bytes of an answer's first line and headers, at most.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Headers of an answer, at most.
const MAX_HEADERS: usize = 200;
/// A line that says how long a chunk is, at most.
const MAX_CHUNK_LINE: usize = 256;
/// Bytes that are read at once.
const PART: usize = 16 * 1024;

/// A request that was judged.
pub(crate) struct Sent<'r> {
    pub(crate) url: &'r Url,
    pub(crate) method: &'r str,
    pub(crate) headers: &'r [(String, String)],
    pub(crate) body: &'r [u8],
}

/// What was read and not yet used.
struct Reader {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// Why an answer cannot be read.
enum Unread {
    /// Its body has more bytes than are allowed.
    TooLarge,
    Wrong(String),
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Unread {
        Unread::Wrong(error.to_string())
    }
}

impl Sent<'_> {
    /// Sends it and reads the whole answer, with at most `most` bytes of body.
    pub(crate) async fn exchange(&self, grant: &HttpGrant, tls: &SslConnector, most: u64) -> Result<Response, Failed> {
        let Sent { url, method, .. } = self;
        let mut stream = connect(grant, tls, url).await?;
        let failed = |why: String| Failed::new(FailedKind::Failed, format!("`{method} {url}` failed: {why}"));
        let head = self.head();
        // A server may answer, and close, before it has read everything.
        let sent = async {
            stream.write_all(&[head.as_bytes(), self.body].concat()).await?;
            stream.flush().await
        }
        .await;
        let mut reader = Reader { stream, buffer: Vec::new() };
        match reader.answer(method, usize::try_from(most).unwrap_or(usize::MAX)).await {
            Ok(response) => Ok(response),
            Err(Unread::TooLarge) => {
                let message = format!(
                    "the answer to `{method} {url}` has more than {most} bytes (`response_bytes` of the grant, or limits.host_call_bytes)"
                );
                Err(Failed::new(FailedKind::TooLarge, message))
            }
            Err(Unread::Wrong(why)) => Err(failed(sent.err().map_or(why, |error| error.to_string()))),
        }
    }

    fn head(&self) -> String {
        let Sent { url, method, headers, body } = self;
        let mut head = format!("{method} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", url.target(), url.authority());
        let says = |name: &str| headers.iter().any(|(said, _)| said == name);
        if !says("user-agent") {
            head += concat!("user-agent: pelton/", env!("CARGO_PKG_VERSION"), "\r\n");
        }
        if !body.is_empty() && !says("content-type") {
            head += "content-type: application/octet-stream\r\n";
        }
        if !body.is_empty() || matches!(*method, "POST" | "PUT" | "PATCH") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head + "\r\n"
    }
}

impl Reader {
    async fn answer(&mut self, method: &str, most: usize) -> Result<Response, Unread> {
        loop {
            let (status, headers) = self.head().await?;
            // Others come after those.
            if !(100..200).contains(&status) || status == 101 {
                let body = if method == "HEAD" || matches!(status, 204 | 304) { Vec::new() } else { self.body(&headers, most).await? };
                return Ok(Response { status, headers, body });
            }
        }
    }

    async fn head(&mut self) -> Result<(u16, Headers), Unread> {
        let wrong = |why: &str| Unread::Wrong(format!("the answer is no HTTP: {why}"));
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut parsed = httparse::Response::new(&mut headers);
            match parsed.parse(&self.buffer) {
                Ok(httparse::Status::Complete(used)) => {
                    let status = parsed.code.ok_or_else(|| wrong("it has no status"))?;
                    let named = parsed.headers.iter().filter_map(|header| {
                        Some((header.name.to_ascii_lowercase(), std::str::from_utf8(header.value).ok()?.trim().to_string()))
                    });
                    let named = named.collect();
                    self.buffer.drain(..used);
                    return Ok((status, named));
                }
                Ok(httparse::Status::Partial) if self.buffer.len() > MAX_HEAD_BYTES => {
                    return Err(wrong("its head has more than 64 KiB"));
                }
                Ok(httparse::Status::Partial) => {}
                Err(error) => return Err(wrong(&error.to_string())),
            }
            if self.more().await? == 0 {
                return Err(wrong("it ends before its body"));
            }
        }
    }

    async fn body(&mut self, headers: &Headers, most: usize) -> Result<Vec<u8>, Unread> {
        let values = |of: &'static str| headers.iter().filter(move |(name, _)| name == of).map(|(_, value)| value.as_str());
        let lengths: Vec<&str> = values("content-length").collect();
        let encodings: Vec<&str> = values("transfer-encoding").collect();
        let wrong = |why: &str| Unread::Wrong(format!("the answer is no HTTP: {why}"));
        match (lengths.as_slice(), encodings.as_slice()) {
            ([], []) => self.rest(most).await,
            ([], [encoding]) if encoding.eq_ignore_ascii_case("chunked") => self.chunks(most).await,
            ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().ok().filter(|length| *length <= most).ok_or(Unread::TooLarge)?;
                let mut body = Vec::new();
                self.take(length, &mut body).await?;
                Ok(body)
            }
            _ => Err(wrong("it does not say once how long it is")),
        }
    }

    /// A body that ends with the connection.
    async fn rest(&mut self, most: usize) -> Result<Vec<u8>, Unread> {
        while self.buffer.len() <= most {
            if self.more().await? == 0 {
                return Ok(std::mem::take(&mut self.buffer));
            }
        }
        Err(Unread::TooLarge)
    }

    async fn chunks(&mut self, most: usize) -> Result<Vec<u8>, Unread> {
        let wrong = || Unread::Wrong("the answer is no HTTP: its chunks are wrong".into());
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            let size = usize::from_str_radix(size, 16).map_err(|_| Unread::TooLarge)?;
            if size == 0 {
                // What may follow tells nothing of the body.
                return Ok(body);
            }
            if size > most - body.len() {
                return Err(Unread::TooLarge);
            }
            self.take(size, &mut body).await?;
            if !self.line().await?.is_empty() {
                return Err(wrong());
            }
        }
    }

    async fn line(&mut self) -> Result<String, Unread> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_string());
            }
            if self.buffer.len() > MAX_CHUNK_LINE || self.more().await? == 0 {
                return Err(Unread::Wrong("the answer is no HTTP: its chunks are wrong".into()));
            }
        }
    }

    /// Exactly so many bytes.
    async fn take(&mut self, mut count: usize, body: &mut Vec<u8>) -> Result<(), Unread> {
        loop {
            let here = count.min(self.buffer.len());
            body.extend(self.buffer.drain(..here));
            count -= here;
            if count == 0 {
                return Ok(());
            }
            if self.more().await? == 0 {
                return Err(Unread::Wrong("the answer ends before its length".into()));
            }
        }
    }

    /// Reads some more; 0 at the end.
    async fn more(&mut self) -> Result<usize, Unread> {
        let before = self.buffer.len();
        self.buffer.resize(before + PART, 0);
        let read = self.stream.read(&mut self.buffer[before..]).await;
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        Ok(read?)
    }
}
