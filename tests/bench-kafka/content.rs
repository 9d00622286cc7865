//! What outputs must hold, computed from the input by serde_json and the standard library, regardless of order.

use serde_json::Value;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// About as many bytes as three fields of a record take as JSON.
pub const CUT: usize = 90;

/// How many records, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub records: u64,
    sum: u64,
}

impl Content {
    pub fn of(hashes: impl Iterator<Item = u64>) -> Content {
        let mut content = Content::default();
        hashes.for_each(|hash| content.add(hash));
        content
    }

    pub fn add(&mut self, hash: u64) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(hash);
    }
}

impl fmt::Display for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "hash {:016x}", self.sum)
    }
}

pub fn first_lines(path: &Path, count: usize) -> Vec<String> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<String> = BufReader::new(file).lines().take(count).map(|line| line.expect("text")).collect();
    assert_eq!(lines.len(), count, "{} has too few lines", path.display());
    lines
}

pub fn whole(line: &str) -> u64 {
    bytes(line.as_bytes())
}

pub fn cut(line: &str) -> u64 {
    bytes(&line.as_bytes()[..CUT.min(line.len())])
}

pub fn bytes(bytes: &[u8]) -> u64 {
    hash(&bytes)
}

/// The whole event; users' numbers have become texts.
pub fn event_of_line(line: &str) -> u64 {
    let mut event: Value = serde_json::from_str(line).expect("the input is JSON");
    event["user_id"] = Value::String(event["user_id"].to_string());
    event_of(&event)
}

pub fn event_of_row(row: &[u8]) -> u64 {
    event_of(&serde_json::from_slice(row).expect("a row is JSON"))
}

fn event_of(event: &Value) -> u64 {
    let texts = ["user_id", "ip", "http_request", "user_agent"].map(|name| event[name].as_str().expect("a text"));
    let doubles = ["lat", "lng"].map(|name| event[name].as_f64().expect("a number").to_bits());
    let integers = ["http_response", "num_bytes"].map(|name| event[name].as_i64().expect("an integer"));
    assert_eq!(event.as_object().map(|fields| fields.len()), Some(9));
    hash(&(texts, doubles, integers, instant(event)))
}

/// Time, path and response.
pub fn request_of_line(line: &str) -> u64 {
    let event: Value = serde_json::from_str(line).expect("the input is JSON");
    let path = event["http_request"].as_str().and_then(|request| request.split(' ').nth(1)).expect("a request has a path");
    hash(&(instant(&event), path, event["http_response"].as_i64()))
}

pub fn request_of_row(row: &[u8]) -> u64 {
    let row: Value = serde_json::from_slice(row).expect("a row is JSON");
    hash(&(instant(&row), row["path"].as_str().expect("a path"), row["http_response"].as_i64()))
}

/// The time without zeros that mean nothing: `….120Z` and `….12Z` are one instant.
fn instant(event: &Value) -> &str {
    let text = event["timestamp"].as_str().and_then(|text| text.strip_suffix('Z')).expect("a time in UTC");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
