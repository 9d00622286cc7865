//! What a plugin may do as it is granted, and what it is refused: `tests/programs/granted` asks for all of it.

use crate::*;
use pelton_core::grants::http::{Header, Network};
use pelton_core::grants::{Grants, HttpGrant, Random, Value};
use pelton_plugin::Effects;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

static GRANTED: LazyLock<Arc<Plugin>> = LazyLock::new(|| ENGINE.load_bytes("granted.wasm", &component_of("granted")).unwrap());

/// Nothing but what is imported, each with the least.
fn grants() -> Grants {
    Grants {
        http: vec![HttpGrant::parse("GET https://host.example/").unwrap()],
        env: vec!["PATH".into(), "PELTON_ABSENT".into()],
        wall_clock: true,
        monotonic_clock: true,
        random: Some(Random::Seed(7)),
        wasi: false,
    }
}

/// What it tells of each question, or the error.
pub(crate) fn ask_with(plugin: &Arc<Plugin>, effects: Effects, limits: &Limits, asked: &[&str]) -> Vec<Result<String, String>> {
    let schema = Arc::new(Schema::new(vec![Field::new("what", DataType::Utf8, false)]));
    let mut binding = plugin.bind("ask", &serde_json::json!({}), &schema, limits).unwrap();
    binding.effects = effects;
    let rows = RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(asked.to_vec()))]).unwrap();
    let offsets = (0..asked.len() as i64).collect();
    let split = Arc::new(Split::File { path: "in.csv".into(), start: 0 });
    let batch = Batch::new(rows, vec![0; asked.len()].into_iter().collect(), Positions::At { split, offsets });
    let mut instance = binding.open().unwrap();
    let processed = block_on(instance.process(&batch)).unwrap();
    let mut told: Vec<Result<String, String>> = asked.iter().map(|_| Err("nothing".into())).collect();
    processed.errors.into_iter().for_each(|error| told[error.row as usize] = Err(error.message));
    let rows: Vec<String> = processed.outputs.iter().flat_map(|(_, batch)| texts(batch)).collect();
    let answered: Vec<usize> = (0..told.len()).filter(|row| told[*row] == Err("nothing".into())).collect();
    answered.into_iter().zip(rows).for_each(|(row, text)| told[row] = Ok(text));
    told
}

fn ask(grants: &Grants, asked: &[&str]) -> Vec<Result<String, String>> {
    ask_with(&GRANTED.granted(grants).unwrap(), Effects::Granted, &Limits::default(), asked)
}

fn texts(batch: &Batch) -> Vec<String> {
    let column = batch.rows.column_by_name("told").unwrap().as_any().downcast_ref::<StringArray>().unwrap().clone();
    column.iter().flatten().map(str::to_owned).collect()
}

#[test]
fn what_is_not_granted_is_refused_with_the_lines_that_grant_it() {
    let schema = Arc::new(Schema::new(vec![Field::new("what", DataType::Utf8, false)]));
    let refused = GRANTED.bind("ask", &serde_json::json!({}), &schema, &Limits::default()).err().unwrap().to_string();
    for wanted in [
        "granted.wasm imports",
        "`pelton:plugin/env@0.1.0`",
        "which are not granted",
        "grants:\n  http:\n    - GET https://HOST/PATH/\n  env: [NAME]\n  wall_clock: true\n  monotonic_clock: true\n  random: true",
    ] {
        assert!(refused.contains(wanted), "{wanted} is not in:\n{refused}");
    }
    let refused = GRANTED.granted(&Grants { random: None, ..grants() }).err().unwrap().to_string();
    assert!(
        refused.contains("imports `pelton:plugin/random@0.1.0`, which is not granted") && refused.ends_with("grants:\n  random: true"),
        "{refused}"
    );
    assert_eq!(GRANTED.needs().unwrap().lines().count(), 7);
    assert_eq!(HOSTILE.needs(), None);
}

#[test]
fn values_clocks_and_random_bytes_are_those_that_are_granted() {
    let told = ask(&grants(), &["env PATH", "env HOME", "env PELTON_ABSENT", "random 5", "random 3", "clock", "monotonic", "monotonic"]);
    let told: Vec<String> = told.into_iter().map(Result::unwrap).collect();
    assert_eq!(told[0], std::env::var("PATH").unwrap());
    assert_eq!(told[1..3], ["absent", "absent"]);
    assert_eq!((told[3].len(), told[4].len()), (10, 6));
    let again = ask(&grants(), &["random 8"]);
    assert_eq!(again, [Ok(format!("{}{}", told[3], told[4]))], "the same seed gives the same bytes");
    assert_ne!(ask(&Grants { random: Some(Random::Seed(8)), ..grants() }, &["random 8"]), again);
    let system = Grants { random: Some(Random::System), ..grants() };
    assert_ne!(ask(&system, &["random 32"]), ask(&system, &["random 32"]));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    assert!((told[5].parse::<i64>().unwrap() - now).abs() < 60_000_000);
    assert!(told[6].parse::<u64>().unwrap() < told[7].parse::<u64>().unwrap());
}

/// A server that answers `answer` to all, and keeps heads of requests; with none it never answers.
fn server(answer: Option<&'static str>) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, heads) = (format!("http://{}/", listener.local_addr().unwrap()), Arc::new(Mutex::new(String::new())));
    let kept = heads.clone();
    let serve = move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&head));
            match answer {
                Some(answer) => drop(write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())),
                None => silent.push(stream),
            }
        }
    };
    std::thread::Builder::new().spawn(serve).unwrap();
    (url, heads)
}

fn granting(url: &str) -> Grants {
    let header = Header { name: "authorization".into(), prefix: "Key ".into(), value: Value::Text("tops3cret".into()) };
    let private = vec![Network::parse("127.0.0.1").unwrap()];
    let request = HttpGrant { headers: vec![header], private, response_bytes: 10, ..HttpGrant::parse(&format!("GET {url}")).unwrap() };
    Grants { http: vec![request], ..grants() }
}

#[test]
fn a_request_is_made_as_granted_and_its_secret_is_for_the_server_alone() {
    let (url, heads) = server(Some("hello"));
    let (get, post, other) = (format!("GET {url}x"), format!("POST {url}x"), "GET https://other.example/".to_string());
    let told = ask(&granting(&url), &[&get, &post, &other, "env authorization"]);
    assert_eq!(told[0], Ok("200 hello".into()));
    assert!(told[1].as_ref().unwrap_err().contains("has this method"), "{told:?}");
    assert!(told[2].as_ref().unwrap_err().contains("has this URL"), "{told:?}");
    let heads = heads.lock().unwrap();
    assert_eq!(heads.matches("HTTP/1.1").count(), 1, "what is refused is not sent: {heads}");
    assert!(heads.contains("authorization: Key tops3cret\r\n") && heads.contains("x-own: 1\r\n") && !heads.contains("my own"), "{heads}");
    assert!(!format!("{told:?}").contains("tops3cret"));
    let public = Grants { http: vec![HttpGrant::parse(&format!("GET {url}")).unwrap()], ..grants() };
    assert!(ask(&public, &[&get])[0].as_ref().unwrap_err().contains("not public"));
}

#[test]
fn effects_are_refused_where_a_run_is_not_the_real_one() {
    let (url, heads) = server(Some("hello"));
    let get = format!("GET {url}x?key=1");
    let plugin = GRANTED.granted(&granting(&url)).unwrap();
    let told = ask_with(&plugin, Effects::Refused("the trial of a swap"), &Limits::default(), &[&get, "clock"]);
    let refused = told[0].as_ref().unwrap_err();
    assert!(refused.contains("effects are refused in the trial of a swap") && !refused.contains("key=1"), "{refused}");
    assert!(told[1].is_ok());
    let told = ask_with(&GRANTED.harmless("a test"), Effects::Refused("a test"), &Limits::default(), &[&get, "random 4", "env PATH"]);
    assert!(told[0].as_ref().unwrap_err().contains("effects are refused in a test"), "{told:?}");
    assert_eq!(told[2], Ok("absent".into()));
    assert!(heads.lock().unwrap().is_empty());
}

#[test]
fn an_answer_is_bounded_in_bytes_and_in_time() {
    let (url, _) = server(Some("more than ten bytes"));
    assert!(ask(&granting(&url), &[&format!("GET {url}")])[0].as_ref().unwrap_err().contains("more than 10 bytes"));
    let (url, _) = server(None);
    let mut slow = granting(&url);
    slow.http[0].deadline = pelton_core::Duration::from_micros(100_000);
    assert!(ask(&slow, &[&format!("GET {url}")])[0].as_ref().unwrap_err().contains("Timeout"));
    // The call's own deadline ends it too, and the row is found.
    let limits = Limits { wall_deadline: Duration::from_millis(200), ..Limits::default() };
    let told = ask_with(&GRANTED.granted(&granting(&url)).unwrap(), Effects::Granted, &limits, &[&format!("GET {url}"), "clock"]);
    assert!(told[0].as_ref().unwrap_err().contains("limits.wall_deadline"), "{told:?}");
    assert!(told[1].is_ok(), "{told:?}");
}
