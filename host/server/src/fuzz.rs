//! Fuzz targets of the API: requests of any bytes, and bodies of every endpoint against the OpenAPI document. Under `cargo test` they explore for a
//! moment; `cargo xtask fuzz` explores on. No pipeline runs: what is sent names none that there is, or is none.

use crate::api::endpoints::{Body, ENDPOINTS, Endpoint};
use crate::api::{Access, App, Peer, handle, openapi, operations, refuse};
use crate::host::{Host, HostOptions};
use crate::http::{self, Answer, Stream};
use crate::logs::Logs;
use crate::origin::Arrival;
use pelton_plugin::{Engine, EngineOptions};
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

/// A host with nothing in it, below a folder of its own.
struct Empty {
    folder: tempfile::TempDir,
    app: Arc<App>,
    runtime: tokio::runtime::Runtime,
}

static EMPTY: LazyLock<Mutex<Empty>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let (data, base_dir) = (folder.path().join("data"), folder.path().into());
    let host = Host::open(HostOptions { data, base_dir, logs: Logs::default(), engine, trust: None }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(host.begin());
    Mutex::new(Empty { folder, app: App::new(host, Access::Everybody), runtime })
});

impl Empty {
    /// What comes back for these bytes; `None`: there were none.
    fn ask(&self, bytes: &[u8]) -> Option<Answer> {
        self.runtime.block_on(async {
            let (mut there, here) = tokio::io::duplex(bytes.len() + 4_096);
            there.write_all(bytes).await.unwrap();
            there.shutdown().await.unwrap();
            let mut stream: Box<dyn Stream> = Box::new(here);
            match http::read_head(&mut stream).await {
                Ok(None) => None,
                Err(refusal) => Some(refuse(refusal)),
                Ok(Some((head, ready))) => {
                    let body = http::Body::new(&mut stream, &head, ready);
                    Some(handle(&self.app, Peer { arrival: Arrival::Socket, uid: Some(0) }, &head, body).await)
                }
            }
        })
    }

    /// Whatever was asked: an answer that says what is wrong, and nothing on the disk but the host's own.
    fn check(&self, bytes: &[u8]) -> u16 {
        let Some(answer) = self.ask(bytes) else {
            assert!(bytes.is_empty());
            return 0;
        };
        assert!([200, 400, 401, 403, 404, 405, 409, 413, 415, 422].contains(&answer.status), "{answer:?}");
        if answer.status != 200 {
            let body: Value = serde_json::from_str(&answer.body).expect("a refusal is JSON");
            assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer:?}");
        }
        let names = |path: &str| {
            let entries = std::fs::read_dir(self.folder.path().join(path)).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!((names(""), names("data/pipelines")), (vec!["data".to_string()], vec![]));
        assert!(
            names("data/plugins").iter().all(|name| name.starts_with("sha256-") && name.ends_with(".sig")),
            "{:?}",
            names("data/plugins")
        );
        answer.status
    }
}

/// Any bytes, and any bytes behind the beginning of a request.
#[test]
fn fuzz_requests() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(2_048).for_each(|bytes: &[u8]| {
        let empty = EMPTY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        empty.check(bytes);
        let Some((first, rest)) = bytes.split_first() else { return };
        let endpoint = &ENDPOINTS[usize::from(*first) % ENDPOINTS.len()];
        let path = path_of(endpoint);
        let kind = if endpoint.body == Body::Component { "application/wasm" } else { "application/json" };
        let begins = format!("{} {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n", endpoint.method);
        empty.check(&[begins.as_bytes(), rest].concat());
        let sized = format!("{begins}Content-Length: {}\r\n\r\n", rest.len());
        empty.check(&[sized.as_bytes(), rest].concat());
    });
}

/// Bodies that are made of what bodies are made of: understood if, and only if, they are what the document says.
#[test]
fn fuzz_bodies() {
    let document = openapi::document();
    let bodies: Vec<(&Endpoint, &str)> = ENDPOINTS
        .iter()
        .filter_map(|endpoint| match endpoint.body {
            Body::Optional(schema) | Body::Json(schema) => Some((endpoint, schema)),
            Body::None | Body::Component => None,
        })
        .collect();
    bolero::check!().with_test_time(TEST_TIME).with_max_len(256).for_each(|bytes: &[u8]| {
        let Some((first, rest)) = bytes.split_first() else { return };
        let (endpoint, schema) = bodies[usize::from(*first) % bodies.len()];
        let described = &document["components"]["schemas"][schema];
        let body = object(&mut rest.iter().copied(), &document, described);
        let fits = fits(&body, described, &document);
        assert_eq!(operations::is_understood(schema, &body), fits, "{schema}: {body}");
        let (path, text) = (path_of(endpoint), body.to_string());
        let head = format!(
            "{} {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            endpoint.method,
            text.len()
        );
        let empty = EMPTY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let status = empty.check(&[head.as_bytes(), text.as_bytes()].concat());
        assert!(fits || (400..500).contains(&status), "{status}, {schema}: {body}");
    });
}

/// A path of this endpoint that leads to nothing.
fn path_of(endpoint: &Endpoint) -> String {
    endpoint.path.replace("{name}", "nobody").replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
}

/// An object with some of these keys, of which most have values as they should be.
fn object(bytes: &mut impl Iterator<Item = u8>, document: &Value, schema: &Value) -> Value {
    let mut all = Map::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        match bytes.next().unwrap_or(1) % 8 {
            0 => {}
            7 => drop(all.insert(key.clone(), any(bytes))),
            _ => drop(all.insert(key.clone(), good(bytes, property, document))),
        }
    }
    if bytes.next().is_some_and(|byte| byte % 8 == 0) {
        all.insert("unknown".into(), any(bytes));
    }
    Value::Object(all)
}

/// Any small value. Lists of what fields of objects hold are among them: serde takes those for objects, the document does not.
fn any(bytes: &mut impl Iterator<Item = u8>) -> Value {
    match bytes.next().unwrap_or(0) % 12 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(3),
        3 => json!(0.5),
        4 => json!(u64::MAX),
        5 => json!("../x"),
        6 => json!(-1),
        7 => json!({"a": any(bytes)}),
        8 => json!([]),
        9 => json!(["a", any(bytes)]),
        10 => json!([["a", "b", any(bytes)]]),
        _ => json!({}),
    }
}

/// A value of a schema.
fn good(bytes: &mut impl Iterator<Item = u8>, schema: &Value, document: &Value) -> Value {
    let schema = resolved(schema, document);
    if let Some(choices) = schema["anyOf"].as_array() {
        let chosen = usize::from(bytes.next().unwrap_or(0)) % choices.len();
        return good(bytes, &choices[chosen], document);
    }
    match schema["type"].as_str() {
        Some("integer") => json!(bytes.next().unwrap_or(0)),
        Some("number") => json!(0.25),
        Some("boolean") => json!(bytes.next().is_some_and(|byte| byte % 2 == 0)),
        Some("array") => json!([good(bytes, &schema["items"], document)]),
        Some("object") => object(bytes, document, schema),
        Some("string") => schema["enum"].get(usize::from(bytes.next().unwrap_or(0)) % 3).cloned().unwrap_or(json!("text")),
        _ => Value::Null,
    }
}

fn resolved<'d>(schema: &'d Value, document: &'d Value) -> &'d Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#")) {
        Some(pointer) => document.pointer(pointer).expect("a reference leads somewhere"),
        None => schema,
    }
}

/// Whether a value is what the document says, and has nothing besides. What is null is as if it were not there.
fn fits(value: &Value, schema: &Value, document: &Value) -> bool {
    let schema = resolved(schema, document);
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().any(|choice| fits(value, choice, document));
    }
    match (schema["type"].as_str(), value) {
        (None, _) => true,
        (Some("null"), Value::Null) | (Some("boolean"), Value::Bool(_)) => true,
        (Some("string"), Value::String(_)) => schema["enum"].as_array().is_none_or(|choices| choices.contains(value)),
        (Some("number"), Value::Number(_)) => true,
        (Some("integer"), Value::Number(number)) => number.is_u64(),
        (Some("array"), Value::Array(values)) => values.iter().all(|value| fits(value, &schema["items"], document)),
        (Some("object"), Value::Object(entries)) => {
            let required = schema["required"].as_array().into_iter().flatten();
            let has_all = required.filter_map(Value::as_str).all(|key| entries.get(key).is_some_and(|value| !value.is_null()));
            has_all && entries.iter().all(|(key, value)| value.is_null() || fits_property(key, value, schema, document))
        }
        _ => false,
    }
}

fn fits_property(key: &str, value: &Value, schema: &Value, document: &Value) -> bool {
    match (schema["properties"].get(key), &schema["additionalProperties"]) {
        (Some(property), _) => fits(value, property, document),
        (None, Value::Object(_)) => fits(value, &schema["additionalProperties"], document),
        // An object of which nothing is said holds anything.
        (None, Value::Null) => schema.get("properties").is_none(),
        (None, _) => false,
    }
}
