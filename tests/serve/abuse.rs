//! Requests that mean harm: names that are paths, bodies that are too large, clients that are too slow or too many.

use pelton_tests::http::{Place, read_answer};
use pelton_tests::serve::{Host, deployment};
use serde_json::json;
use std::io::Write;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn no_name_leads_to_another_folder() {
    let host = Host::start(&[]);
    let place = host.socket();
    let before = std::fs::read_dir(host.path("")).unwrap().count();
    let names = ["..", "%2e%2e", "..%2f..%2fetc", "%2fetc%2fpasswd", "a%2f..%2fb", ".", ".hidden", "a%00b", "a%20b", "%c3%a4", "a\\..\\b"];
    for name in names {
        for (method, rest) in [
            ("GET", ""),
            ("GET", "/logs"),
            ("GET", "/history"),
            ("GET", "/versions/1"),
            ("POST", "/pause"),
            ("POST", "/stop"),
            ("DELETE", ""),
        ] {
            let answer = place.ask(method, &format!("/v1/pipelines/{name}{rest}"), &[JSON], b"");
            assert!((400..=404).contains(&answer.status), "{method} {name}{rest}: {answer:?}");
        }
    }
    for digest in [
        "..%2fx",
        "sha256:..%2f..%2fx",
        "sha256:00",
        "sha256-00",
        &format!("sha256:{}", "G".repeat(64)),
        &format!("SHA256:{}", "0".repeat(64)),
    ] {
        let answer = place.ask("PUT", &format!("/v1/plugins/{digest}"), &[("Content-Type", "application/wasm")], b"x");
        assert_eq!(answer.status, 400, "{digest}: {answer:?}");
    }
    for version in ["0", "..%2f1", "-1", "1.json", "99999999999999999999999"] {
        let answer = place.get(&format!("/v1/pipelines/nobody/versions/{version}"));
        assert!([400, 404].contains(&answer.status), "{version}: {answer:?}");
    }
    // Neither the name in a file nor what it includes leads anywhere.
    let named = deployment("pipeline: {transforms: []}\noptions: {pelton: {name: ../../evil}}");
    assert_eq!(place.post("/v1/pipelines", &named).status, 422);
    let stem = json!({"file": "/tmp/a b/../x y.yaml", "text": "pipeline: {type: chain, transforms: [{type: Create, config: {elements: [1]}}, {type: LogForTesting}]}"});
    let answer = place.post("/v1/pipelines", &stem);
    assert!(answer.status == 422 && answer.body.contains("options.pelton.name"), "{answer:?}");
    for include in ["/etc/hostname", "../../../../../../etc/hostname"] {
        let answer = place.post("/v1/pipelines", &deployment(&format!("{{% include '{include}' %}}")));
        assert!(answer.status == 422 && answer.body.contains("include"), "{answer:?}");
    }
    let plugin = "pipeline: {type: chain, transforms: [{type: Create, config: {elements: [1]}}, {type: X}]}\nproviders: [{type: wasm, config: {plugin: /bin/sh}, transforms: {X: x}}]";
    assert_eq!(place.post("/v1/pipelines", &deployment(plugin)).status, 422);
    let digests = json!({"file": "p.yaml", "text": plugin, "plugins": {"/bin/sh": "../../../bin/sh"}});
    assert_eq!(place.post("/v1/pipelines", &digests).status, 409);
    assert_eq!(std::fs::read_dir(host.path("")).unwrap().count(), before, "nothing was made beside the data");
    assert_eq!(std::fs::read_dir(host.data().join("pipelines")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(host.data().join("plugins")).unwrap().count(), 0);
}

#[test]
fn what_is_no_request_is_refused() {
    let host = Host::start(&[]);
    let place = host.socket();
    for (body, status) in [
        (&b""[..], 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\"x\"", 400),
        (b"null", 400),
        (b"{\"file\": \"a\"}", 400),
        (b"{\"file\": 3, \"text\": \"x\"}", 400),
        (b"{\"file\": \"a\", \"text\": \"x\", \"unknown\": 1}", 400),
        (b"\xff\xfe", 400),
        (b"{\"file\": \"a\", \"text\": \"x\"}", 422),
        (b"{\"file\": \"a\", \"text\": \"x\", \"parallelism\": 0}", 422),
        (b"{\"file\": \"a\", \"text\": \"x\", \"parallelism\": 100000}", 422),
    ] {
        let answer = place.ask("POST", "/v1/pipelines", &[JSON], body);
        assert_eq!(answer.status, status, "{}: {answer:?}", String::from_utf8_lossy(body));
        assert!(answer.json()["error"].is_string(), "{answer:?}");
    }
    // Nested so deeply that a careless reader would fall off its stack.
    let deep = format!("{{\"file\": \"a\", \"text\": \"x\", \"variables\": {{\"v\": {}{}}}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(place.ask("POST", "/v1/pipelines", &[JSON], deep.as_bytes()).status, 400);
    for query in ["limit=x", "limit=-1", "after", "limit=99999999999999999999"] {
        assert_eq!(place.get(&format!("/v1/pipelines/a/logs?{query}")).status, 400, "{query}");
    }
    assert_eq!(place.get("/healthz").status, 200);
}

#[test]
fn large_bodies_are_cut_off() {
    let host = Host::start(&[]);
    let place = host.socket();
    let large = vec![b' '; 5 << 20];
    assert_eq!(place.ask("POST", "/v1/pipelines", &[JSON], &large).status, 413);
    // Without a length that could be looked at.
    let chunked = [JSON, ("Transfer-Encoding", "chunked"), ("Content-Length", "")];
    let mut connection = place.connect();
    connection.write_all(&place.request("POST", "/v1/pipelines", &chunked, b"")).unwrap();
    let chunk = [b"100000\r\n", &vec![b' '; 1 << 20][..], b"\r\n"].concat();
    // It is closed before all of it is sent.
    let _ = (0..64).try_for_each(|_| connection.write_all(&chunk));
    assert_eq!(read_answer(&mut *connection).status, 413);
    let digest = format!("/v1/plugins/sha256:{}", "0".repeat(64));
    let claimed = [("Content-Type", "application/wasm"), ("Content-Length", "999999999999")];
    assert_eq!(place.ask("PUT", &digest, &claimed, b"x").status, 413);
    let long = "x".repeat(200 << 10);
    let answer = place.ask("GET", "/v1/pipelines", &[("X-Long", &long)], b"");
    assert!(answer.status == 413 || answer.status == 0, "{answer:?}");
    let answer = place.get(&format!("/v1/pipelines/{long}"));
    assert!((400..=431).contains(&answer.status) || answer.status == 0, "{answer:?}");
    assert_eq!(place.get("/healthz").status, 200);
}

#[test]
fn slow_clients_are_sent_away_and_hold_nobody_up() {
    let host = Host::start(&["--listen", "127.0.0.1:0", "--no-token"]);
    let started = Instant::now();
    let place = host.tcp();
    let mut slow: Vec<_> = (0..200)
        .map(|number| {
            let mut connection = connect(&place);
            let request = place.request("POST", "/v1/pipelines", &[JSON, ("Content-Length", "100")], b"{");
            // Half of them in the header, half of them in the body.
            let part = if number % 2 == 0 { &request[..20] } else { &request[..] };
            connection.write_all(part).unwrap();
            connection
        })
        .collect();
    let asked = Instant::now();
    for _ in 0..100 {
        assert_eq!(place.get("/v1/pipelines").status, 200);
    }
    let meanwhile = asked.elapsed();
    for connection in &mut slow {
        let answer = read_answer(&mut **connection);
        assert!([0, 408].contains(&answer.status), "{answer:?}");
    }
    let took = started.elapsed();
    println!("slow={} asked_meanwhile=100 in={meanwhile:?} all_gone_after={took:?}", slow.len());
    assert!(meanwhile < Duration::from_secs(60) && took < Duration::from_secs(180), "{meanwhile:?} {took:?}");
}

#[test]
fn a_thousand_requests_at_once_are_all_answered() {
    let host = Host::start(&["--listen", "127.0.0.1:0", "--no-token"]);
    const REQUESTS: usize = 1_000;
    let all_there = Barrier::new(REQUESTS);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let (place, barrier) = (if number % 2 == 0 { host.tcp() } else { host.socket() }, &all_there);
                let ask = move || {
                    barrier.wait();
                    let mut connection = connect(&place);
                    let path = ["/v1/pipelines", "/metrics", "/v1/host", "/openapi.json"][number / 2 % 4];
                    connection.write_all(&place.request("GET", path, &[], b"")).unwrap();
                    read_answer(&mut *connection).status
                };
                std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, ask).unwrap()
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(good, REQUESTS, "{:?}", statuses.iter().find(|status| **status != 200));
}

/// The queue of a listening socket may be full for a moment.
fn connect(place: &Place) -> Box<dyn pelton_tests::http::Connection> {
    pelton_tests::pelton::wait_for("a connection", 60, || {
        let place = place.clone();
        std::panic::catch_unwind(move || place.connect()).ok()
    })
}
