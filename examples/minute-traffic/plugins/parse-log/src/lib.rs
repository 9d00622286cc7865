//! Parses the lines of a web access log, JSON objects, into typed columns. A line that is no such event is a row error that says why.

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
        ip: event.ip,
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
    use super::*;

    const GOOD: &str = r#"{"user_id":"u1","ip":"1.2.3.4","lat":52.5,"lng":13,"timestamp":"2026-01-02T03:04:05.678Z","http_request":"GET /a HTTP/1.1","http_response":200,"num_bytes":7,"user_agent":"a \"b\""}"#;

    #[test]
    fn a_good_line_becomes_columns() {
        let by_number = GOOD.replace(r#""u1""#, "17");
        let run = testing::run::<parse_log>([Line { line: GOOD }, Line { line: &by_number }]);
        let rows = run.rows::<CommonLog<'_>>("");
        assert!(run.errors.is_empty(), "{:?}", run.errors);
        assert_eq!((&*rows[0].user_id, &*rows[1].user_id), ("u1", "17"));
        assert_eq!((rows[0].lat, rows[0].lng, rows[0].http_response, rows[0].num_bytes), (52.5, 13.0, 200, 7));
        assert_eq!(rows[0].timestamp, Timestamp(1_767_323_045_678_000));
        assert_eq!(rows[0].user_agent, "a \"b\"");
    }

    #[test]
    fn a_bad_line_is_a_row_error_that_says_why() {
        let check = |line: &str, wanted: &str| {
            let run = testing::run::<parse_log>([Line { line }]);
            assert_eq!(run.errors.len(), 1, "{line}");
            assert!(run.errors[0].1.contains(wanted), "{}", run.errors[0].1);
        };
        check("", "not a web access event: EOF");
        check("nonsense", "not a web access event: expected");
        check(&GOOD.replace("\"lat\":52.5,", ""), "missing field `lat`");
        check(&GOOD.replace("200", "\"ok\""), "invalid type: string \"ok\", expected i64");
        check(&GOOD.replace("2026-01-02T03:04:05.678Z", "yesterday"), "field `timestamp`: `yesterday` is not an RFC 3339 instant");
        check(&GOOD[..GOOD.len() / 2], "EOF");
    }
}
