//! What a host would give, in native tests: for each thread what its test has said.

use crate::http::{Error, ErrorKind, Request, Response};
use std::cell::RefCell;
use std::collections::BTreeMap;

type Answer = Box<dyn FnMut(&Request) -> Result<Response, Error>>;

#[derive(Default)]
struct Fakes {
    http: Option<Answer>,
    env: BTreeMap<String, String>,
    now: i64,
    random: u64,
}

thread_local! {
    static FAKES: RefCell<Fakes> = RefCell::default();
}

/// From now on requests of this thread are answered so.
pub fn fake_http(answer: impl FnMut(&Request) -> Result<Response, Error> + 'static) {
    FAKES.with_borrow_mut(|fakes| fakes.http = Some(Box::new(answer)));
}

/// From now on the environment has this value, for this thread.
pub fn fake_env(name: &str, value: &str) {
    FAKES.with_borrow_mut(|fakes| fakes.env.insert(name.into(), value.into()));
}

/// From now on it is this time, for this thread: microseconds since 1970-01-01T00:00:00Z.
pub fn fake_clock(micros: i64) {
    FAKES.with_borrow_mut(|fakes| fakes.now = micros);
}

pub(crate) fn send(request: &Request) -> Result<Response, Error> {
    // Taken out, so that the answer may ask in its turn.
    let answer = FAKES.with_borrow_mut(|fakes| fakes.http.take());
    let Some(mut answer) = answer else {
        let message = format!("`{} {}`: a test says with `testing::fake_http` what is answered", request.method, request.url);
        return Err(Error { kind: ErrorKind::Refused, message });
    };
    let told = answer(request);
    FAKES.with_borrow_mut(|fakes| {
        fakes.http.get_or_insert(answer);
    });
    told
}

pub(crate) fn var(name: &str) -> Option<String> {
    FAKES.with_borrow(|fakes| fakes.env.get(name).cloned())
}

pub(crate) fn now() -> i64 {
    FAKES.with_borrow(|fakes| fakes.now)
}

/// A weak but even sequence (splitmix64), the same for each thread.
pub(crate) fn random(count: usize) -> Vec<u8> {
    FAKES.with_borrow_mut(|fakes| {
        let mut next = || {
            fakes.random = fakes.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (fakes.random ^ fakes.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ mixed >> 31) as u8
        };
        (0..count).map(|_| next()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_what_the_host_gives() {
        assert!(crate::http::get("https://x/").unwrap_err().message.contains("fake_http"));
        fake_http(|request| Ok(Response { headers: vec![("x-a".into(), request.method.clone())], ..Response::new(201, "é") }));
        let answer = crate::http::get("https://x/").expect("answered");
        assert_eq!((answer.status, &*answer.text(), answer.header("X-A")), (201, "é", Some("GET")));
        fake_env("REGION", "eu");
        assert_eq!((crate::env::var("REGION").as_deref(), crate::env::var("HOME")), (Some("eu"), None));
        fake_clock(1_500_000);
        assert_eq!((crate::clock::now().0, crate::clock::monotonic().as_millis()), (1_500_000, 1_500));
        assert_eq!(crate::random::bytes(100_000).len(), 100_000);
        assert_ne!(crate::random::number(), crate::random::number());
    }
}
