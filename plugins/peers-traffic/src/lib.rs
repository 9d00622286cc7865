//! The transform of the comparison with other stream processors: from a JSON line of web traffic to the three columns that the job uses.
//!
//! The same work as the hand-written program that all are compared with: the whole line is checked to be JSON, three fields are taken. The
//! SDK's parser does it at 16 bytes a step.

use std::borrow::Cow;

use pelton_sdk::json;
use pelton_sdk::prelude::*;

#[derive(Row)]
pub struct Line<'a> {
    pub line: &'a str,
}

#[derive(Row, Debug, PartialEq)]
pub struct Request<'a> {
    pub timestamp: Timestamp,
    pub path: Cow<'a, str>,
    pub http_response: i64,
}

/// Parses a line of web traffic.
#[transform]
pub fn parse(row: Line<'_>) -> Result<Request<'_>, String> {
    let (mut timestamp, mut request, mut response) = (None, None, None);
    let parsed = json::fields(row.line, |name, value| {
        match name {
            "timestamp" => timestamp = Some(value.text()?),
            "http_request" => request = Some(value.text()?),
            "http_response" => response = Some(value.integer()?),
            _ => {}
        }
        Ok(())
    });
    parsed.map_err(|error| error.to_string())?;
    let timestamp = timestamp.ok_or("field `timestamp` is missing")?;
    Ok(Request {
        timestamp: Timestamp::parse(&timestamp).map_err(|error| error.to_string())?,
        path: path_of(request.ok_or("field `http_request` is missing")?)?,
        http_response: response.ok_or("field `http_response` is missing")?,
    })
}

/// The columns that the host has parsed for `map`.
#[derive(Row)]
pub struct Event<'a> {
    pub timestamp: &'a str,
    pub http_request: &'a str,
    pub http_response: i64,
}

/// The same from columns: the host parses the JSON, only the fields used.
#[transform]
pub fn map(row: Event<'_>) -> Result<Request<'_>, String> {
    let timestamp = Timestamp::parse(row.timestamp).map_err(|error| error.to_string())?;
    Ok(Request { timestamp, path: path_of(row.http_request.into())?, http_response: row.http_response })
}

/// The second word of a request such as `GET /a HTTP/1.1`.
fn path_of(request: Cow<'_, str>) -> Result<Cow<'_, str>, &'static str> {
    let path = match request {
        Cow::Borrowed(request) => request.split(' ').nth(1).map(Cow::Borrowed),
        Cow::Owned(request) => request.split(' ').nth(1).map(|path| path.to_owned().into()),
    };
    path.ok_or("field `http_request` has no path")
}

plugin!(parse, map);

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"user_id":"u1","timestamp":"2026-01-02T03:04:05.678Z","http_request":"GET /a/b HTTP/1.1","http_response":404}"#;

    #[test]
    fn a_line_becomes_three_columns() {
        let run = testing::run::<parse>([Line { line: GOOD }]);
        let wanted = Request { timestamp: Timestamp(1_767_323_045_678_000), path: "/a/b".into(), http_response: 404 };
        assert_eq!(run.rows::<Request<'_>>(""), [wanted]);
    }

    #[test]
    fn columns_give_the_same_as_their_line() {
        let event = Event { timestamp: "2026-01-02T03:04:05.678Z", http_request: "GET /a/b HTTP/1.1", http_response: 404 };
        let (mapped, parsed) = (testing::run::<map>([event]), testing::run::<parse>([Line { line: GOOD }]));
        assert_eq!(mapped.rows::<Request<'_>>(""), parsed.rows::<Request<'_>>(""));
    }

    #[test]
    fn a_bad_line_is_a_row_error() {
        for line in ["", "{", &GOOD[1..], &GOOD.replace("404", "x"), &GOOD.replace("GET /a/b HTTP/1.1", "GET"), &GOOD.replace("03:04", "3:4")] {
            assert_eq!(testing::run::<parse>([Line { line }]).errors.len(), 1, "{line}");
        }
    }
}
