//! One source, a branch through a grouping and a direct one, together again: more batches than a channel holds messages, so that a
//! join that left its direct input unread until the other speaks would stop the source. Nobody may wait for ever. The same with a side input
//! that is a minute behind the rows that look into it.
//!
//! `memory` bounds the state, in which a run without a watermark holds all rows; channels have bounds of their own.

use crate::rows::{Numbers, pipeline, write};
use pelton_tests::pelton::{json_rows, pelton, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Child, Stdio};

/// Over 20 full batches; a channel holds 16 messages.
const ROWS: i64 = 200_000;
const SIZE: i64 = 10;
/// A run takes a few seconds; one that stands still never ends.
const BOUND_S: u64 = 900;

/// Times go on with the rows, and no row is more than three seconds behind.
fn rows() -> Vec<Value> {
    let mut numbers = Numbers(5);
    let mut row = |id: i64| {
        let key = numbers.below(7);
        let key = if key == 6 { Value::Null } else { json!(format!("k{key}")) };
        json!({"id": id, "t": 10 + id / 500 - numbers.below(4) as i64, "k": key, "v": id, "f": null, "b": null, "l": []})
    };
    (0..ROWS).map(&mut row).collect()
}

/// Ends with the test, also when that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already when all is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ends(pipeline: &str, parallelism: &str) {
    let mut run = Running(pelton(&["run", pipeline, "--parallelism", parallelism, "--quiet"]).stdout(Stdio::null()).spawn().unwrap());
    let status = wait_for(&format!("the end at parallelism {parallelism}"), BOUND_S, || run.0.try_wait().unwrap());
    assert!(status.success(), "{status} at parallelism {parallelism}");
}

#[test]
fn two_ways_from_one_source_meet_again() {
    let rows = rows();
    let transforms = format!(
        "
    - {{type: WindowInto, name: W, input: T, windowing: {{type: fixed, size: {SIZE}s}}}}
    - {{type: Combine, name: Counts, input: W, config: {{group_by: k, combine: {{n: count}}}}}}
    - {{type: Reshuffle, name: Direct, input: W}}
    - {{type: Join, name: Joined, input: {{a: Direct, b: Counts}}, config: {{type: inner, equalities: k, fields: {{a: [k, id], b: [n]}}}}}}
    - {{type: Combine, name: OfJoined, input: Joined, config: {{group_by: k, combine: {{rows: count, total: {{value: n, fn: sum}}}}}}}}
    - {{type: MapToFields, name: Ones, input: Direct, config: {{fields: {{k: k, x: 1}}}}}}
    - {{type: MapToFields, name: Sums, input: Counts, config: {{fields: {{k: k, x: n}}}}}}
    - {{type: Flatten, name: Both, input: [Ones, Sums]}}
    - {{type: Combine, name: OfBoth, input: Both, config: {{group_by: k, combine: {{rows: count, total: {{value: x, fn: sum}}}}}}}}
"
    );
    let mut cells: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for row in &rows {
        *cells.entry((row["k"].to_string(), row["t"].as_i64().unwrap() / SIZE)).or_default() += 1;
    }
    // A null joins nothing; a cell of n rows has n pairs of n, or n ones and one n.
    let mut joined: Vec<_> = cells.iter().filter(|(cell, _)| cell.0 != "null").map(|(cell, n)| (cell.0.clone(), *n, n * n)).collect();
    let mut both: Vec<_> = cells.iter().map(|(cell, n)| (cell.0.clone(), n + 1, n * 2)).collect();
    joined.sort();
    both.sort();
    // Without a watermark all is held to the end; with one it goes on while the source reads.
    for watermark in ["", ", watermark: {delay: 5s}"] {
        for parallelism in ["1", "2"] {
            let folder = tempfile::tempdir().unwrap();
            let parts: Vec<Vec<Value>> = (0..3).map(|part| rows.iter().skip(part).step_by(3).cloned().collect()).collect();
            write(folder.path(), "in", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let options = format!("options: {{pelton: {{memory: 64MiB{watermark}}}}}\n");
            ends(&pipeline(folder.path(), &transforms, &["OfJoined", "OfBoth"], &options), parallelism);
            for (output, want) in [("OfJoined", &joined), ("OfBoth", &both)] {
                let number = |row: &Value, name: &str| row[name].as_i64().unwrap();
                let rows = json_rows(&folder.path().join(output));
                let mut got: Vec<_> = rows.iter().map(|row| (row["k"].to_string(), number(row, "rows"), number(row, "total"))).collect();
                got.sort();
                assert_eq!(&got, want, "{output} at parallelism {parallelism}{watermark}");
            }
        }
    }
}

/// Each row waits for the counts of its minute, which come when the minute is over.
#[test]
fn a_side_input_that_is_late_by_a_minute_holds_nobody_up() {
    const MINUTE: i64 = 60;
    let rows = rows();
    let transforms = format!(
        "
    - {{type: WindowInto, name: W, input: T, windowing: {{type: fixed, size: {MINUTE}s}}}}
    - {{type: Combine, name: Counts, input: W, config: {{group_by: k, combine: {{n: count}}}}}}
    - {{type: Combine, name: Total, input: W, config: {{group_by: [], combine: {{n: count}}}}}}
    - type: MapToFields
      name: Beside
      input: {{main: W, counts: Counts, total: Total}}
      config:
        language: sql
        side_inputs: {{counts: {{as: dict, key: k, default: {{n: 0}}}}, total: {{as: singleton}}}}
        fields: {{k: k, n: \"lookup('counts', k).n\", total: lookup('total').n}}
    - type: Combine
      name: OfBeside
      input: Beside
      config: {{group_by: k, combine: {{rows: count, n: {{value: n, fn: sum}}, total: {{value: total, fn: sum}}}}}}
"
    );
    let mut cells: BTreeMap<(String, i64), i64> = BTreeMap::new();
    let mut minutes: BTreeMap<i64, i64> = BTreeMap::new();
    for row in &rows {
        let minute = row["t"].as_i64().unwrap() / MINUTE;
        *cells.entry((row["k"].to_string(), minute)).or_default() += 1;
        *minutes.entry(minute).or_default() += 1;
    }
    // A null is the key of a group, and finds nothing.
    let found = |(key, minute): &(String, i64), n: i64| (key.clone(), n, if key == "null" { 0 } else { n * n }, n * minutes[minute]);
    let mut want: Vec<_> = cells.iter().map(|(cell, n)| found(cell, *n)).collect();
    want.sort();
    for watermark in ["", ", watermark: {delay: 5s}"] {
        for parallelism in ["1", "2", "4"] {
            let folder = tempfile::tempdir().unwrap();
            let parts: Vec<Vec<Value>> = (0..3).map(|part| rows.iter().skip(part).step_by(3).cloned().collect()).collect();
            write(folder.path(), "in", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let options = format!("options: {{pelton: {{memory: 512MiB{watermark}}}}}\n");
            ends(&pipeline(folder.path(), &transforms, &["OfBeside"], &options), parallelism);
            let number = |row: &Value, name: &str| row[name].as_i64().unwrap();
            let rows = json_rows(&folder.path().join("OfBeside"));
            let of = |row: &Value| (row["k"].to_string(), number(row, "rows"), number(row, "n"), number(row, "total"));
            let mut got: Vec<_> = rows.iter().map(of).collect();
            got.sort();
            assert_eq!(got, want, "at parallelism {parallelism}{watermark}");
        }
    }
}
