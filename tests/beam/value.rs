//! Rows of both sides in one form: values with their types, and what windowing knows of a row.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;

/// A value with its type. Rows are compared by name, so that the order of fields does not matter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Milliseconds since the epoch.
    Time(i64),
    List(Vec<Value>),
    Row(BTreeMap<String, Value>),
    /// Something that only Python has.
    Other(String),
}

/// A row and what windowing knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    pub row: Value,
    /// Event time in milliseconds.
    pub time: i64,
    /// Start and end in milliseconds; `None` is the global window.
    pub window: Option<(i64, i64)>,
    pub pane: Pane,
}

/// Which firing of its window a row comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pane {
    pub is_first: bool,
    pub is_last: bool,
    pub timing: String,
    pub index: i64,
    pub nonspeculative_index: i64,
}

/// Beam's Fn API carries instants in milliseconds, so both sides are cut to them: towards zero, as there.
pub fn millis(micros: i64) -> i64 {
    micros / 1_000
}

impl Captured {
    /// From an answer of the oracle.
    pub fn from_json(json: &Json) -> Captured {
        // Windows at the beginning of time begin before the first instant there is.
        let micros =
            |json: &Json| json.as_i64().or(json.as_f64().map(|micros| micros as i64)).unwrap_or_else(|| panic!("no instant: {json}"));
        let pane = &json["pane"];
        Captured {
            row: Value::from_json(&json["row"]),
            time: millis(micros(&json["time"])),
            window: json["window"].as_array().map(|window| (millis(micros(&window[0])), millis(micros(&window[1])))),
            pane: Pane {
                is_first: pane[0] == true,
                is_last: pane[1] == true,
                timing: pane[2].as_str().unwrap_or_default().into(),
                index: micros(&pane[3]),
                nonspeculative_index: micros(&pane[4]),
            },
        }
    }
}

impl Value {
    /// From the oracle's encoding, or from plain JSON.
    pub fn from_json(json: &Json) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Value::Int(value.into()),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(values) => Value::List(values.iter().map(Value::from_json).collect()),
            Json::Object(object) => match object.iter().next() {
                Some((tag, inner)) if object.len() == 1 => Value::tagged(tag, inner).unwrap_or_else(|| Value::row(object)),
                _ => Value::row(object),
            },
        }
    }

    fn row(object: &serde_json::Map<String, Json>) -> Value {
        Value::Row(object.iter().map(|(name, value)| (name.clone(), Value::from_json(value))).collect())
    }

    fn tagged(tag: &str, inner: &Json) -> Option<Value> {
        Some(match (tag, inner) {
            ("r", Json::Object(fields)) => Value::row(fields),
            ("f", Json::String(text)) => Value::Float(text.parse().ok()?),
            ("i", Json::String(text)) => Value::Int(text.parse().ok()?),
            ("t", inner) => Value::Time(millis(inner.as_i64()?)),
            ("b", Json::String(hex)) => {
                Value::Bytes((0..hex.len() / 2).map(|byte| u8::from_str_radix(&hex[2 * byte..2 * byte + 2], 16).unwrap_or(0)).collect())
            }
            ("o", Json::String(text)) => Value::Other(text.clone()),
            _ => return None,
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => write!(f, "null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value:?}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Bytes(bytes) => write!(f, "b{:?}", String::from_utf8_lossy(bytes)),
            Value::Time(millis) => write!(f, "@{millis}ms"),
            Value::Other(text) => write!(f, "<{text}>"),
            Value::List(values) => {
                write!(f, "[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index > 0 { ", " } else { "" })?;
                }
                write!(f, "]")
            }
            Value::Row(fields) => {
                write!(f, "{{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if index > 0 { ", " } else { "" })?;
                }
                write!(f, "}}")
            }
        }
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.row, self.time)?;
        match self.window {
            None => write!(f, " global")?,
            Some((start, end)) => write!(f, " in [{start}, {end})")?,
        }
        let Pane { is_first, is_last, timing, index, nonspeculative_index } = &self.pane;
        write!(f, " {timing} first={is_first} last={is_last} {index}/{nonspeculative_index}")
    }
}
