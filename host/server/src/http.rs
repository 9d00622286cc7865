//! HTTP/1.1 as the API of a host needs it: one request a connection, read with bounds, answered and closed.
//!
//! Since a connection has one request, there is no state between requests that somebody could mix up. What is ambiguous is refused: two lengths, a length and
//! chunks, another coding of the body, two `Host`s. The header is parsed by `httparse`.
//!
//! Bounds: bytes and time of the header here; bytes and time of a body are its reader's.

use crate::refusal::{Refusal, Why};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A header is shorter.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Lines of a header.
const MAX_HEADERS: usize = 64;
/// The line with a chunk's size, and what may follow the last chunk.
const MAX_CHUNK_LINE: usize = 1 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// For an answer to be taken.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// What somebody may still send who has got an answer, before the connection is cut.
const LINGER_BYTES: usize = 64 << 20;
/// And for how long.
const LINGER: Duration = Duration::from_secs(2);

/// A request without its body.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `GET`, …
    pub method: String,
    /// Parts of the path, decoded one by one, so that a part may have a slash in it.
    pub path: Vec<String>,
    /// What follows `?`.
    pub query: String,
    headers: Vec<(String, String)>,
    length: Length,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    /// So many bytes.
    Bytes(u64),
    /// As the chunks say.
    Chunked,
    #[default]
    None,
}

impl Head {
    /// A header's value, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The length that a body claims to have.
    pub fn claimed(&self) -> Option<u64> {
        match self.length {
            Length::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Of the bytes of a header; `None`: it is not whole.
    fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
        let malformed = |what: &str| Refusal::new(Why::Malformed, format!("this is no request: {what}"));
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let used = match request.parse(bytes).map_err(|error| malformed(&error.to_string()))? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(used) => used,
        };
        let target = request.path.unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/').ok_or_else(|| malformed("a path begins with a slash"))?;
        let path: Option<Vec<String>> = path.split('/').map(decoded).collect();
        let mut head = Head {
            method: request.method.unwrap_or_default().into(),
            path: path.ok_or_else(|| malformed("the path is not coded as it should be"))?,
            query: query.into(),
            ..Head::default()
        };
        for header in request.headers.iter() {
            let value = std::str::from_utf8(header.value).map_err(|_| malformed("a header is no text"))?;
            head.headers.push((header.name.to_ascii_lowercase(), value.trim().into()));
        }
        for single in ["host", "origin", "authorization", "content-type", "content-length", "transfer-encoding"] {
            if head.headers.iter().filter(|(name, _)| name == single).count() > 1 {
                return Err(malformed(&format!("`{single}` is there twice")));
            }
        }
        head.length = match (head.header("content-length"), head.header("transfer-encoding")) {
            (None, None) => Length::None,
            (Some(bytes), None) if bytes.bytes().all(|byte| byte.is_ascii_digit()) => {
                Length::Bytes(bytes.parse().map_err(|_| malformed("its length is no number"))?)
            }
            (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Length::Chunked,
            _ => return Err(malformed("how long it is, is not said as it should be")),
        };
        Ok(Some((head, used)))
    }
}

/// A part of a path without its percent signs; `None`: it is coded wrongly.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Reads a header; `None`: the connection was closed before anything came.
pub async fn read_head(stream: &mut Box<dyn Stream>) -> Result<Option<(Head, Vec<u8>)>, Refusal> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, used)) = Head::parse(&bytes)? {
            return Ok(Some((head, bytes.split_off(used))));
        }
        if bytes.len() >= MAX_HEAD_BYTES {
            return Err(Refusal::new(Why::TooLarge, format!("a header may have {MAX_HEAD_BYTES} bytes at most")));
        }
        let read = (&mut *stream).take((MAX_HEAD_BYTES - bytes.len()) as u64).read_buf(&mut bytes).await;
        match read {
            Ok(0) if bytes.is_empty() => return Ok(None),
            Ok(0) => return Err(Refusal::new(Why::Malformed, "the request was cut off")),
            Ok(_) => {}
            Err(error) => return Err(Refusal::new(Why::Malformed, format!("the request did not arrive whole: {error}"))),
        }
    }
}

/// What follows a header.
pub struct Body<'a> {
    stream: &'a mut Box<dyn Stream>,
    /// Read and not given out.
    ready: Vec<u8>,
    length: Length,
    /// Of the chunk that is being read.
    chunk: u64,
    /// Somebody waits to be told that the body is wanted.
    asks: bool,
}

impl<'a> Body<'a> {
    /// Of a request, with what was read beyond its header.
    pub fn new(stream: &'a mut Box<dyn Stream>, head: &Head, ready: Vec<u8>) -> Body<'a> {
        let asks = head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        Body { stream, ready, length: head.length, chunk: 0, asks }
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if std::mem::take(&mut self.asks) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            self.stream.flush().await?;
        }
        match self.length {
            Length::None | Length::Bytes(0) => Ok(None),
            Length::Bytes(left) => {
                let bytes = self.some(left).await?;
                self.length = Length::Bytes(left - bytes.len() as u64);
                Ok(Some(bytes))
            }
            Length::Chunked => self.chunked().await,
        }
    }

    /// All of it, if it is not longer than this; `None`: it is.
    pub async fn all(&mut self, most: usize) -> io::Result<Option<Vec<u8>>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
            if all.len() > most {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    async fn chunked(&mut self) -> io::Result<Option<Vec<u8>>> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        if self.chunk == 0 {
            self.chunk = loop {
                match httparse::parse_chunk_size(&self.ready).map_err(|_| wrong("the size of a chunk is no number"))? {
                    httparse::Status::Complete((used, size)) => {
                        self.ready.drain(..used);
                        break size;
                    }
                    httparse::Status::Partial if self.ready.len() > MAX_CHUNK_LINE => return Err(wrong("the size of a chunk is too long")),
                    httparse::Status::Partial => self.more().await?,
                }
            };
            if self.chunk == 0 {
                // What may follow is of no use here, and is read away when the connection is closed.
                self.length = Length::None;
                return Ok(None);
            }
        }
        let bytes = self.some(self.chunk).await?;
        self.chunk -= bytes.len() as u64;
        if self.chunk == 0 {
            while self.ready.len() < 2 {
                self.more().await?;
            }
            if !self.ready.starts_with(b"\r\n") {
                return Err(wrong("a chunk is longer than it says"));
            }
            self.ready.drain(..2);
        }
        Ok(Some(bytes))
    }

    /// At least one byte, at most so many.
    async fn some(&mut self, most: u64) -> io::Result<Vec<u8>> {
        if self.ready.is_empty() {
            self.more().await?;
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.ready.len());
        let rest = self.ready.split_off(count);
        Ok(std::mem::replace(&mut self.ready, rest))
    }

    async fn more(&mut self) -> io::Result<()> {
        self.ready.reserve(READ_BYTES);
        match (&mut *self.stream).take(READ_BYTES as u64).read_buf(&mut self.ready).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Type of the body.
    pub kind: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// As it goes over the connection. Answers are for programs: no browser is to keep or to guess anything.
    fn bytes(&self) -> Vec<u8> {
        let ask = if self.status == 401 { "WWW-Authenticate: Bearer\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{ask}Connection: close\r\n\r\n{}",
            self.status,
            reason(self.status),
            self.kind,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

/// Answers and closes.
pub async fn finish(mut stream: Box<dyn Stream>, answer: &Answer) {
    let write = async {
        stream.write_all(&answer.bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if !matches!(tokio::time::timeout(WRITE_PATIENCE, write).await, Ok(Ok(()))) {
        return;
    }
    // Whoever still sends would lose the answer if the connection were cut now.
    let drain = async {
        let mut left = LINGER_BYTES;
        let mut bytes = vec![0; READ_BYTES];
        while let Ok(read) = stream.read(&mut bytes).await {
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Head>, Why> {
        Head::parse(text.as_bytes()).map(|found| found.map(|(head, _)| head)).map_err(|refusal| refusal.why)
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        let head = parse("GET /v1/a%2Fb/%C3%A4?x=1 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.path, head.query.as_str()), (vec!["v1".into(), "a/b".into(), "ä".into()], "x=1"));
        assert_eq!(head.length, Length::None);
        assert!(parse("GET /v1 HTTP/1.1\r\nHost: h\r\n").unwrap().is_none());
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let request = |lines: &str| format!("POST /x HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        for good in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert!(matches!(parse(&request(good)), Ok(Some(_))), "{good}");
        }
        for bad in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Host: other\r\n",
            "Authorization: a\r\nAuthorization: b\r\n",
            "X: a\r\n folded\r\n",
            "X : a\r\n",
            "X\0: a\r\n",
        ] {
            assert_eq!(parse(&request(bad)).map(drop), Err(Why::Malformed), "{bad}");
        }
        for bad in [
            "GET http://h/x HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET /%zz HTTP/1.1\r\n\r\n",
            "GET /%ff HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "\0\0\r\n\r\n",
        ] {
            assert_eq!(parse(bad).map(drop), Err(Why::Malformed), "{bad}");
        }
    }

    /// Reads a body that comes in pieces of so many bytes.
    fn body(head: &str, text: &'static str, piece: usize) -> io::Result<Option<Vec<u8>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut there, here) = tokio::io::duplex(piece);
            let sending = tokio::spawn(async move {
                let _ = there.write_all(text.as_bytes()).await;
            });
            let head = Head::parse(format!("POST /x HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).unwrap().unwrap().0;
            let mut stream: Box<dyn Stream> = Box::new(here);
            let all = Body::new(&mut stream, &head, Vec::new()).all(20).await;
            drop(stream);
            sending.await.unwrap();
            all
        })
    }

    #[test]
    fn bodies_come_by_length_or_in_chunks() {
        for piece in [1, 3, 1_000] {
            assert_eq!(body("Content-Length: 5", "hello, and more", piece).unwrap(), Some(b"hello".to_vec()));
            assert_eq!(
                body("Transfer-Encoding: chunked", "5\r\nhello\r\n2;x=y\r\n, \r\n0\r\n\r\n", piece).unwrap(),
                Some(b"hello, ".to_vec())
            );
            assert_eq!(body("Content-Length: 21", "0123456789012345678901", piece).unwrap(), None, "too long");
            assert_eq!(body("Transfer-Encoding: chunked", "15\r\n012345678901234567890\r\n0\r\n\r\n", piece).unwrap(), None);
            for wrong in ["", "5\r\nhel", "5\r\nhello7\r\n", "x\r\n", "fffffffffffffffff\r\n", "-1\r\n"] {
                assert!(body("Transfer-Encoding: chunked", wrong, piece).is_err(), "{wrong}");
            }
            assert!(body("Content-Length: 5", "hel", piece).is_err());
        }
    }
}
