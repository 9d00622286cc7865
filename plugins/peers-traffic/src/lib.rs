//! The transform of the comparison with other stream processors: from a JSON line of web traffic to the three columns that the job uses.
//!
//! The same work as the hand-written program that all are compared with: serde_json into a struct of three borrowed fields.

use pelton_sdk::prelude::*;
use serde::Deserialize;

#[derive(Row)]
pub struct Line<'a> {
    pub line: &'a str,
}

#[derive(Row, Debug, PartialEq)]
pub struct Request<'a> {
    pub timestamp: Timestamp,
    pub path: &'a str,
    pub http_response: i64,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    timestamp: &'a str,
    #[serde(borrow)]
    http_request: &'a str,
    http_response: u16,
}

/// Parses a line of web traffic.
#[transform]
pub fn parse(row: Line<'_>) -> Result<Request<'_>, String> {
    let event: Event<'_> = serde_json::from_str(row.line).map_err(|error| error.to_string())?;
    let timestamp = Timestamp::parse(event.timestamp).map_err(|error| error.to_string())?;
    let path = event.http_request.split(' ').nth(1).ok_or("the request has no path")?;
    Ok(Request { timestamp, path, http_response: i64::from(event.http_response) })
}

plugin!(parse);

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"user_id":"u1","timestamp":"2026-01-02T03:04:05.678Z","http_request":"GET /a/b HTTP/1.1","http_response":404}"#;

    #[test]
    fn a_line_becomes_three_columns() {
        let run = testing::run::<parse>([Line { line: GOOD }]);
        let wanted = Request { timestamp: Timestamp(1_767_323_045_678_000), path: "/a/b", http_response: 404 };
        assert_eq!(run.rows::<Request<'_>>(""), [wanted]);
    }

    #[test]
    fn a_bad_line_is_a_row_error() {
        for line in ["", "{", &GOOD[1..], &GOOD.replace("404", "x"), &GOOD.replace("GET /a/b HTTP/1.1", "GET"), &GOOD.replace("03:04", "3:4")] {
            assert_eq!(testing::run::<parse>([Line { line }]).errors.len(), 1, "{line}");
        }
    }
}
