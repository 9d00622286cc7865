//! The next version of minute traffic's `parse-log`: the same columns, but the last part of each address is masked.

use std::borrow::Cow;
use std::fmt;

use pelton_sdk::prelude::*;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

#[derive(Row)]
pub struct Line<'a> {
    pub line: &'a str,
}

/// One request that the server answered.
#[derive(Row, Debug, PartialEq)]
pub struct CommonLog<'a> {
    pub user_id: Cow<'a, str>,
    pub ip: Cow<'a, str>,
    pub lat: f64,
    pub lng: f64,
    pub timestamp: Timestamp,
    pub http_request: Cow<'a, str>,
    pub http_response: i64,
    pub num_bytes: i64,
    pub user_agent: Cow<'a, str>,
}

/// The event as it is written. Texts borrow from the line unless they have escapes.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, deserialize_with = "text_or_number")]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    ip: Cow<'a, str>,
    lat: f64,
    lng: f64,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    http_request: Cow<'a, str>,
    http_response: i64,
    num_bytes: i64,
    #[serde(borrow)]
    user_agent: Cow<'a, str>,
}

/// Parses a line of the access log.
#[transform]
pub fn parse_log(row: Line<'_>) -> Result<CommonLog<'_>, String> {
    let event: Event<'_> = serde_json::from_str(row.line).map_err(|error| format!("not a web access event: {error}"))?;
    let timestamp = Timestamp::parse(&event.timestamp).map_err(|error| format!("field `timestamp`: {error}"))?;
    Ok(CommonLog {
        user_id: event.user_id,
        ip: masked(&event.ip).into(),
        lat: event.lat,
        lng: event.lng,
        timestamp,
        http_request: event.http_request,
        http_response: event.http_response,
        num_bytes: event.num_bytes,
        user_agent: event.user_agent,
    })
}

plugin!(parse_log);

/// `1.2.3.4` becomes `1.2.3.0`.
fn masked(ip: &str) -> String {
    match ip.rsplit_once('.') {
        Some((network, _)) => format!("{network}.0"),
        None => String::new(),
    }
}

/// Older servers write the user's number, newer ones a text.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct TextOrNumber;

    impl<'de> Visitor<'de> for TextOrNumber {
        type Value = Cow<'de, str>;
        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a text or a whole number")
        }
        fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(text.into())
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.to_owned().into())
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(number.to_string().into())
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            Ok(number.to_string().into())
        }
    }

    deserializer.deserialize_any(TextOrNumber)
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn the_last_part_is_masked() {
        assert_eq!((masked("1.2.3.4"), masked("none")), ("1.2.3.0".to_owned(), String::new()));
    }
}
