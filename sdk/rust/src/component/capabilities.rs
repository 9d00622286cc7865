//! What the host gives as it was granted. Each function is imported only by components that call it.

use super::bindings::pelton::plugin::{env, http, monotonic_clock, random as host_random, wall_clock};
use crate::http::{Error, ErrorKind, Request, Response};

pub fn send(request: Request) -> Result<Response, Error> {
    let header = |(name, value)| http::Header { name, value };
    let headers = request.headers.into_iter().map(header).collect();
    let asked = http::Request { method: request.method, url: request.url, headers, body: request.body };
    match http::send(&asked) {
        Ok(answer) => {
            let headers = answer.headers.into_iter().map(|header| (header.name, header.value)).collect();
            Ok(Response { status: answer.status, headers, body: answer.body })
        }
        Err(error) => Err(Error {
            kind: match error.kind {
                http::ErrorKind::Refused => ErrorKind::Refused,
                http::ErrorKind::TooLarge => ErrorKind::TooLarge,
                http::ErrorKind::Timeout => ErrorKind::Timeout,
                http::ErrorKind::Failed => ErrorKind::Failed,
            },
            message: error.message,
        }),
    }
}

pub fn var(name: &str) -> Option<String> {
    env::get(name)
}

pub fn now() -> i64 {
    wall_clock::now()
}

pub fn monotonic() -> u64 {
    monotonic_clock::now()
}

pub fn random(count: u32) -> Vec<u8> {
    host_random::get(count)
}
