//! Against servers of our own on loopback.

use super::*;
use pelton_core::grants::Value;
use pelton_core::grants::http::{Header, Network};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// A server that answers each connection once, and keeps what it was sent.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

/// With a function from the head of a request to the whole answer; none: it says nothing.
fn server(answer: impl Fn(&str, u16) -> Option<String> + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = heads.clone();
    let serve = move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let told = answer(&head, port);
            kept.lock().expect("no panic").push(head);
            match told {
                Some(told) => drop(stream.write_all(told.as_bytes())),
                None => silent.push(stream),
            }
        }
    };
    std::thread::Builder::new().spawn(serve).expect("a thread");
    Server { port, heads }
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-y: z\r\n\r\n{body}", body.len()))
}

fn redirect(to: &str) -> Option<String> {
    Some(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))
}

fn grant(text: &str) -> HttpGrant {
    HttpGrant { private: vec![Network::parse("127.0.0.1").unwrap()], ..HttpGrant::parse(text).unwrap() }
}

fn send(grants: &[HttpGrant], method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Response, Failed> {
    let secrets = Secrets::read(grants, &|name| (name == "TOKEN").then(|| "tops3cret".to_string())).expect("the token is there");
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let request = Request { method: method.into(), url: url.into(), headers, body: Vec::new() };
    let client = Client::start().expect("starts");
    // As a worker has it: neither network nor timers.
    let worker = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    worker.block_on(client.send(Arc::new(secrets), request, 1 << 20))
}

fn refused(answer: Result<Response, Failed>, kind: FailedKind, words: &str) {
    let failed = answer.expect_err(words);
    assert_eq!(failed.kind, kind, "{failed}");
    assert!(failed.message.contains(words), "{failed}");
}

#[test]
fn a_granted_request_is_answered_and_has_the_secret() {
    let server = server(|_, _| ok("hello"));
    let at = format!("http://127.0.0.1:{}/v1", server.port);
    let secret = Header { name: "authorization".into(), prefix: "Bearer ".into(), value: Value::Env("TOKEN".into()) };
    let grants = [HttpGrant { headers: vec![secret], ..grant(&format!("GET {at}")) }];
    let answer = send(&grants, "GET", &format!("{at}/a?b=c"), &[("Authorization", "mine"), ("X-Own", "1")]).expect("answers");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
    assert!(answer.headers.contains(&("x-y".into(), "z".into())));
    let head = server.heads.lock().unwrap().remove(0);
    assert!(head.starts_with("GET /v1/a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer tops3cret\r\n") && head.contains("x-own: 1\r\n") && !head.contains("mine"), "{head}");
    assert!(!format!("{:?}", Secrets::read(&grants, &|_| Some("tops3cret".into()))).contains("tops3cret"));
    refused(send(&grants, "POST", &at, &[]), FailedKind::Refused, "this method");
    refused(send(&grants, "GET", &format!("http://127.0.0.1:{}/v2", server.port), &[]), FailedKind::Refused, "this URL");
    refused(send(&grants, "GET", &at, &[("Host", "x")]), FailedKind::Refused, "is the host's to set");
    assert!(server.heads.lock().unwrap().is_empty(), "nothing of that was sent");
    let missing = Secrets::read(&grants, &|_| None).expect_err("no token");
    assert!(missing.contains("no `TOKEN`"), "{missing}");
}

#[test]
fn a_name_or_address_that_is_not_public_is_refused_unless_it_is_named() {
    let server = server(|_, _| ok(""));
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", server.port);
        let public = HttpGrant::parse(&format!("GET {url}")).unwrap();
        refused(send(std::slice::from_ref(&public), "GET", &url, &[]), FailedKind::Refused, "not public");
        assert!(server.heads.lock().unwrap().is_empty());
        let named = ["127.0.0.0/8", "::1"].map(|network| Network::parse(network).unwrap());
        assert_eq!(send(&[HttpGrant { private: named.into(), ..public }], "GET", &url, &[]).map(|answer| answer.status), Ok(200), "{url}");
        server.heads.lock().unwrap().clear();
    }
}

#[test]
fn redirects_are_followed_on_the_list_and_carry_nothing_elsewhere() {
    let elsewhere = server(|_, _| ok("there"));
    let other = format!("http://127.0.0.1:{}/there", elsewhere.port);
    let to = other.clone();
    let server = server(move |head, port| match head.split(' ').nth(1).unwrap_or_default() {
        "/in/loop" => redirect("/in/loop"),
        "/in/near" => redirect("end"),
        "/in/end" => ok("near"),
        "/in/up" => redirect("/out"),
        "/in/dots" => redirect("../out"),
        "/in/metadata" => redirect(&format!("http://169.254.169.254:{port}/")),
        _ => redirect(&to),
    });
    let at = |path: &str| format!("http://127.0.0.1:{}/in/{path}", server.port);
    let secret = Header { name: "x-key".into(), prefix: String::new(), value: Value::Env("TOKEN".into()) };
    let only = HttpGrant { headers: vec![secret], ..grant(&format!("GET {}", at(""))) };
    let only = std::slice::from_ref(&only);
    assert_eq!(send(only, "GET", &at("near"), &[]).map(|answer| answer.body), Ok(b"near".to_vec()));
    refused(send(only, "GET", &at("loop"), &[]), FailedKind::Failed, "more than 5 times");
    for path in ["up", "dots", "metadata", "away"] {
        refused(send(only, "GET", &at(path), &[]), FailedKind::Refused, "redirects off the list");
    }
    assert!(elsewhere.heads.lock().unwrap().is_empty());
    let both = [only[0].clone(), grant(&format!("GET {other}"))];
    assert_eq!(send(&both, "GET", &at("away"), &[("x-own", "1")]).map(|answer| answer.body), Ok(b"there".to_vec()));
    let head = elsewhere.heads.lock().unwrap().remove(0);
    assert!(!head.contains("x-key") && !head.contains("x-own"), "{head}");
    let first = server.heads.lock().unwrap().pop().unwrap_or_default();
    assert!(first.contains("x-key: tops3cret") && first.contains("x-own: 1"), "{first}");
}

#[test]
fn bodies_and_time_are_bounded() {
    let server = server(|head, _| match head.split(' ').nth(1).unwrap_or_default() {
        "/silent" => None,
        // It says nothing of its length, and less than it has.
        "/endless" => Some(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5_000))),
        "/chunked" => Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n".into()),
        "/chunks" => Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\nabc".into()),
        "/twice" => Some("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into()),
        "/short" => Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".into()),
        "/head" => Some(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(200_000))),
        _ => ok(&"x".repeat(1_000)),
    });
    let at = |path: &str| format!("http://127.0.0.1:{}/{path}", server.port);
    let small = HttpGrant {
        response_bytes: 1_000,
        request_bytes: 0,
        deadline: pelton_core::Duration::from_micros(3_000_000),
        ..grant(&format!("GET,POST {}", at("")))
    };
    let small = std::slice::from_ref(&small);
    assert_eq!(send(small, "GET", &at("fits"), &[]).map(|answer| answer.body.len()), Ok(1_000));
    refused(send(small, "GET", &at("endless"), &[]), FailedKind::TooLarge, "more than 1000 bytes");
    assert_eq!(send(small, "GET", &at("head"), &[]).expect_err("a head of 200 kB").kind, FailedKind::Failed);
    assert_eq!(send(small, "GET", &at("chunked"), &[]).map(|answer| answer.body), Ok(b"abcde".to_vec()));
    refused(send(small, "GET", &at("chunks"), &[]), FailedKind::TooLarge, "more than 1000 bytes");
    refused(send(small, "GET", &at("twice"), &[]), FailedKind::Failed, "how long it is");
    refused(send(small, "GET", &at("short"), &[]), FailedKind::Failed, "ends before its length");
    refused(send(small, "GET", &at("silent"), &[]), FailedKind::Timeout, "not answered within");
    let secrets = Arc::new(Secrets::read(small, &|_| None).unwrap());
    let request = Request { method: "POST".into(), url: at("x"), headers: vec![], body: vec![0] };
    let worker = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let client = Client::start().unwrap();
    refused(worker.block_on(client.send(secrets, request, 10)), FailedKind::TooLarge, "`request_bytes`");
}
