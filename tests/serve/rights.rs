//! Who may do what, from where.

use pelton_tests::http::Place;
use pelton_tests::pelton::{pelton, run, wait_for};
use pelton_tests::serve::{Host, counting, deployment};
use serde_json::Value;
use std::process::Command;

/// Makes a token in a file.
fn token(host_folder: &std::path::Path, name: &str, role: &str) -> String {
    let file = host_folder.join("tokens");
    let said = run(&["token", name, "--role", role, "--tokens", file.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    said.out.trim().to_string()
}

/// A host with three tokens: viewer, operator, admin.
fn guarded() -> (Host, [String; 3], tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tokens = ["viewer", "operator", "admin"].map(|role| token(folder.path(), &format!("a-{role}"), role));
    let file = folder.path().join("tokens");
    let host = Host::start(&["--listen", "127.0.0.1:0", "--tokens", file.to_str().unwrap()]);
    (host, tokens, folder)
}

/// Every endpoint of the document: method, path with values for its parameters, role, and the type of what is sent.
fn endpoints(document: &Value) -> Vec<(String, String, Option<String>, String)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let filled = path.replace("{name}", "nobody").replace("{version}", "1").replace("{digest}", &digest);
        for (method, operation) in methods.as_object().unwrap() {
            let kind = match operation["requestBody"]["content"].as_object() {
                Some(content) => content.keys().next().unwrap().clone(),
                None => "application/json".into(),
            };
            all.push((method.to_uppercase(), filled.clone(), operation["x-role"].as_str().map(str::to_string), kind));
        }
    }
    all
}

#[test]
fn every_endpoint_wants_the_right_token() {
    let (host, tokens, _folder) = guarded();
    let place = host.tcp();
    let document = host.socket().get("/openapi.json").json();
    let all = endpoints(&document);
    assert_eq!(all.len(), 27, "{all:?}");
    let bearer = |token: &str| format!("Bearer {token}");
    let (mut refused, mut passed) = (0, 0);
    for (method, path, role, kind) in &all {
        let ask = |authorization: &str| place.ask(method, path, &[("Content-Type", kind), ("Authorization", authorization)], b"").status;
        let Some(role) = role else {
            assert_eq!(ask(""), 200, "{method} {path} is for anybody");
            continue;
        };
        let wrong = format!("Bearer pelton_{}", "0".repeat(64));
        for nobody in [
            "",
            &wrong,
            "Bearer",
            "Bearer ",
            &format!("Basic {}", tokens[2]),
            &bearer(&tokens[2][1..]),
            &bearer(&(tokens[2].clone() + "0")),
        ] {
            assert_eq!(ask(nobody), 401, "{method} {path} with {nobody:?}");
            refused += 1;
        }
        let needs = ["viewer", "operator", "admin"].iter().position(|name| name == role).unwrap();
        for (rights, token) in tokens.iter().enumerate() {
            let status = ask(&bearer(token));
            match rights < needs {
                true => assert_eq!(status, 403, "{method} {path} as {rights}"),
                // There is nothing of these names; but whoever asks may know.
                false => assert!(![401, 403, 405, 500].contains(&status), "{method} {path} as {rights}: {status}"),
            }
            passed += 1;
        }
    }
    println!("endpoints={} without_a_right_token={refused} with_a_token={passed}", all.len());
    // The socket's owner needs none, and the document lists everything that there is.
    assert_eq!(host.socket().get("/v1/host").json()["role"], "admin");
    for path in ["/", "/v1", "/v2/pipelines", "/v1/pipelines/a/b/c", "/metrics/x", "/openapi.yaml"] {
        assert_eq!(host.socket().get(path).status, 404, "{path}");
    }
    assert_eq!(host.socket().ask("PATCH", "/v1/pipelines", &[("Content-Type", "application/json")], b"{}").status, 405);
    // Refusals of somebody known are written down, with who it was.
    let audit = host.audit();
    assert!(audit.iter().any(|line| line["who"] == "a-viewer" && line["action"] == "deploy" && line["result"] == "refused"), "{audit:?}");
}

#[test]
fn an_operator_runs_what_is_there_and_brings_nothing() {
    let (host, [viewer, operator, admin], _folder) = guarded();
    let out = host.path("out");
    let text = counting("orders", &out, 1_000_000, Some(2_000));
    let place = host.tcp();
    let ask = |method: &str, path: &str, token: &str, body: &Value| {
        let authorization = format!("Bearer {token}");
        let headers = [("Content-Type", "application/json"), ("Authorization", authorization.as_str())];
        place.ask(method, path, &headers, body.to_string().as_bytes())
    };
    let empty = serde_json::json!({});
    assert_eq!(ask("POST", "/v1/pipelines", &operator, &deployment(&text)).status, 403);
    let deployed = ask("POST", "/v1/pipelines", &admin, &deployment(&text));
    assert_eq!(deployed.status, 200, "{deployed:?}");
    assert_eq!(ask("GET", "/v1/pipelines/orders", &viewer, &empty).json()["state"], "running");
    assert_eq!(ask("POST", "/v1/pipelines/orders/pause", &viewer, &empty).status, 403);
    // A place outside the host's folder is for admins.
    host.wait_for_epoch("orders");
    for place in ["/tmp/elsewhere", "../elsewhere", "..", "a/b", "file:///tmp/x"] {
        let answer = ask("POST", "/v1/pipelines/orders/savepoint", &operator, &serde_json::json!({ "place": place }));
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    let saved = ask("POST", "/v1/pipelines/orders/savepoint", &operator, &serde_json::json!({"place": "before"}));
    assert_eq!(saved.status, 200, "{saved:?}");
    assert!(host.data().join("pipelines/orders/savepoints/before").is_dir());
    assert_eq!(ask("POST", "/v1/pipelines/orders/stop", &operator, &empty).status, 200);
    assert_eq!(ask("DELETE", "/v1/pipelines/orders", &operator, &empty).status, 403);
    assert_eq!(ask("DELETE", "/v1/pipelines/orders", &admin, &empty).status, 200);
    assert_eq!(ask("GET", "/v1/pipelines/orders", &viewer, &empty).status, 404);
}

#[test]
fn pages_of_others_are_refused_on_the_loopback() {
    let host = Host::start(&["--listen", "127.0.0.1:0", "--no-token"]);
    let Place::Port(port) = host.tcp() else { panic!("it is a port") };
    let own = format!("http://127.0.0.1:{port}");
    let evil = format!("evil.example:{port}");
    let json = ("Content-Type", "application/json");
    let body = deployment("pipeline: {transforms: []}").to_string();
    let table: [(&[(&str, &str)], bool); 12] = [
        (&[json], true),
        (&[json, ("Host", "localhost")], true),
        (&[json, ("Origin", &own)], true),
        // Another name that leads to this address.
        (&[json, ("Host", &evil)], false),
        (&[json, ("Host", &evil), ("Origin", &format!("http://{evil}"))], false),
        (&[json, ("Origin", "http://evil.example")], false),
        (&[json, ("Origin", "null")], false),
        (&[json, ("Sec-Fetch-Site", "cross-site")], false),
        // What a form of a page may send without asking.
        (&[("Content-Type", "text/plain")], false),
        (&[("Content-Type", "application/x-www-form-urlencoded")], false),
        (&[("Content-Type", "multipart/form-data; boundary=x")], false),
        (&[("Content-Type", "")], false),
    ];
    for (headers, passes) in table {
        let answer = host.tcp().ask("POST", "/v1/pipelines", headers, body.as_bytes());
        // What passes is understood, and wrong.
        let expected = if passes { &[422][..] } else { &[403, 415] };
        assert!(expected.contains(&answer.status), "{headers:?}: {answer:?}");
    }
    for (headers, status) in [(&[("Host", evil.as_str())][..], 403), (&[("Origin", "http://evil.example")], 403), (&[], 200)] {
        let answer = host.tcp().ask("GET", "/v1/pipelines", headers, b"");
        assert_eq!(answer.status, status, "{headers:?}");
        // No page is told that it may read anything.
        assert!(!answer.head.to_lowercase().contains("access-control"), "{}", answer.head);
        assert!(!answer.head.to_lowercase().contains("set-cookie"), "{}", answer.head);
    }
    // A page asks first; nobody says yes.
    let asked = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")];
    let answer = host.tcp().ask("OPTIONS", "/v1/pipelines", &asked, b"");
    assert!(answer.status >= 400 && !answer.head.to_lowercase().contains("access-control"), "{answer:?}");
}

#[test]
fn other_addresses_want_tls_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    token(dir, "ci", "admin");
    std::fs::write(dir.join("none"), "# nobody\n").unwrap();
    let data = dir.join("data");
    let path = |name: &str| dir.join(name).to_str().unwrap().to_string();
    let (tokens, none) = (path("tokens"), path("none"));
    let table: [(&[&str], &str); 6] = [
        (&["--listen", "0.0.0.0:0"], "neither TLS nor tokens"),
        (&["--listen", "0.0.0.0:0", "--no-token"], "neither TLS nor tokens"),
        (&["--listen", "0.0.0.0:0", "--tokens", &tokens], "TLS is not given"),
        (&["--listen", "[::]:0", "--tokens", &tokens], "TLS is not given"),
        (&["--listen", "127.0.0.1:0"], "wants tokens"),
        (&["--listen", "127.0.0.1:0", "--tokens", &none], "has no tokens"),
    ];
    for (arguments, part) in table {
        let said = run(&[&["serve", "--data", data.to_str().unwrap()], arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(said.err.contains(part) && said.err.contains("next:"), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn with_tls_and_tokens_another_address_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]);
    assert!(openssl.current_dir(dir).output().unwrap().status.success(), "openssl makes a certificate");
    let admin = token(dir, "ci", "admin");
    let path = |name: &str| dir.join(name).to_str().unwrap().to_string();
    let (certificate, key, tokens, secret) = (path("cert.pem"), path("key.pem"), path("tokens"), path("secret"));
    std::fs::write(&secret, format!("{admin}\n")).unwrap();
    let host = Host::start(&["--listen", "0.0.0.0:0", "--tls-cert", &certificate, "--tls-key", &key, "--tokens", &tokens]);
    let address = format!("https://localhost:{}", host.port.unwrap());
    let good = run(&["list", "--host", &address, "--ca", &certificate, "--token-file", &secret, "--output", "json"]);
    assert_eq!((good.code, good.out.trim()), (0, "[]"), "{good:?}");
    let nobody = run(&["list", "--host", &address, "--ca", &certificate]);
    assert!(nobody.code == 2 && nobody.err.contains("token"), "{nobody:?}");
    // A certificate that nobody vouches for, and no TLS at all.
    let unknown = run(&["list", "--host", &address, "--token-file", &secret]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
    let plain = host.tcp().get("/healthz");
    assert_ne!(plain.status, 200, "{plain:?}");
}

#[test]
fn without_a_host_the_commands_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pelton.sock");
    for command in [
        &["list"][..],
        &["status", "a"],
        &["logs", "a"],
        &["top"],
        &["history", "a"],
        &["pause", "a"],
        &["resume", "a"],
        &["drain", "a"],
        &["stop", "a"],
        &["savepoint", "a"],
        &["rollback", "a"],
    ] {
        let said: pelton_tests::pelton::Said = pelton(command).env("PELTON_HOST", &socket).output().unwrap().into();
        assert_eq!(said.code, 3, "{command:?}: {said:?}");
        assert!(said.err.contains("pelton serve") && said.err.contains(socket.to_str().unwrap()), "{}", said.err);
    }
    // Only one host has a folder.
    let host = Host::start(&[]);
    let data = host.data();
    let second = run(&["serve", "--data", data.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    assert!(second.code == 2 && second.err.contains("another host"), "{second:?}");
    wait_for("the first goes on", 60, || (host.socket().get("/healthz").status == 200).then_some(()));
}

#[test]
fn the_reference_is_that_of_the_document() {
    let said = run(&["reference", "api"]);
    let written = std::fs::read_to_string(pelton_tests::pelton::root().join("docs/reference/host-api.md")).unwrap();
    assert!(said.out == written, "make it anew: pelton reference api > docs/reference/host-api.md");
}
