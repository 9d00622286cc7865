//! Watermarks, windows and triggers through `pelton run`, against loops over the same rows.

use pelton_tests::pelton::{json_rows, summary};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Rows (time in seconds, key, whether it is a marker) out of order, the same every time.
fn rows(count: i64) -> Vec<(i64, i64, bool)> {
    (0..count).map(|row| (1_000 + row + (row * 7919) % 41, row * 31 % 5, row % 17 == 16)).collect()
}

fn write(folder: &Path, rows: &[(i64, i64, bool)]) -> String {
    let path = folder.join("in.json");
    let lines = rows.iter().map(|(time, key, marker)| json!({"t": time, "k": key, "m": marker}).to_string());
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    path.display().to_string()
}

fn run(folder: &Path, middle: &str) -> (Vec<Value>, Vec<Value>, Value) {
    let pipeline = folder.join("pipeline.yaml");
    let text = format!(
        "pipeline:\n  transforms:\n    - {{type: ReadFromJson, name: Read, config: {{path: {input}}}}}\n    - {{type: AssignTimestamps, input: Read, config: {{timestamp: t}}}}\n{middle}\n    - {{type: WriteToJson, name: Out, input: Shown, config: {{path: {out}}}}}\n    - {{type: WriteToJson, name: Late, input: Counts.late, config: {{path: {late}}}}}\n",
        input = folder.join("in.json").display(),
        out = folder.join("out.json").display(),
        late = folder.join("late.json").display(),
    );
    std::fs::write(&pipeline, text).unwrap();
    let summary = summary(&[pipeline.to_str().unwrap(), "--parallelism", "1"]);
    (json_rows(&folder.join("out.json")), json_rows(&folder.join("late.json")), summary)
}

#[test]
fn a_marker_row_says_what_is_late() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(400);
    write(folder.path(), &rows);
    let middle = "    - {type: SetWatermark, input: AssignTimestamps, config: {policy: {type: punctuated, marker: m}}}\n    - {type: Combine, name: Counts, input: SetWatermark, windowing: {type: fixed, size: 10s}, config: {group_by: k, combine: {n: count}}}\n    - {type: ExtractWindowingInfo, name: Shown, input: Counts, config: {fields: [window_start, pane_info]}}";
    let (out, late, _) = run(folder.path(), middle);
    // All rows came in one batch or in several; each row is either counted or late, and a late one was behind a marker.
    let counted: i64 = out.iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(counted as usize + late.len(), rows.len());
    let markers: BTreeSet<i64> = rows.iter().filter(|row| row.2).map(|row| row.0).collect();
    for row in &late {
        let watermark = row["watermark"].as_str().unwrap();
        let seconds = seconds(watermark);
        assert!(markers.contains(&seconds), "{row}: the watermark is a marker's time");
        assert!(row["t"].as_i64().unwrap() / 10 * 10 + 10 <= seconds, "{row}: its window had ended");
    }
}

/// Seconds since the epoch of a time in the first day of 1970.
fn seconds(time: &str) -> i64 {
    let clock = time.strip_prefix("1970-01-01T").and_then(|rest| rest.strip_suffix('Z')).unwrap_or_else(|| panic!("{time}"));
    clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap())
}

#[test]
fn ingestion_time_is_the_time_of_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(50);
    write(folder.path(), &rows);
    let middle = "    - {type: SetWatermark, input: AssignTimestamps, config: {policy: {type: processing_time}, time: ingestion}}\n    - {type: Combine, name: Counts, input: SetWatermark, windowing: {type: fixed, size: 1h}, config: {group_by: k, combine: {n: count}}}\n    - {type: ExtractWindowingInfo, name: Shown, input: Counts, config: {fields: [window_start, window_end]}}";
    let before = now();
    let (out, late, _) = run(folder.path(), middle);
    let after = now();
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(out.iter().map(|row| row["n"].as_i64().unwrap()).sum::<i64>(), rows.len() as i64);
    for row in &out {
        let hour = |micros: i64| micros / 3_600_000_000;
        let start = pelton_core::Instant::parse_rfc3339(row["window_start"].as_str().unwrap()).unwrap();
        assert!((hour(before)..=hour(after)).contains(&hour(start.micros())), "{row}");
    }
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Sliding windows, sessions and calendar windows of bounded input, by loops over all rows.
#[test]
fn windows_of_every_kind_hold_what_a_loop_puts_into_them() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(600);
    write(folder.path(), &rows);
    let with = |windowing: &str| {
        let middle = format!(
            "    - {{type: WindowIntoWithTriggers, input: AssignTimestamps, config: {{windowing: {windowing}}}}}\n    - {{type: Combine, name: Counts, input: WindowIntoWithTriggers, config: {{group_by: k, combine: {{n: count}}}}}}\n    - {{type: ExtractWindowingInfo, name: Shown, input: Counts, config: {{fields: [window_start]}}}}"
        );
        let (out, late, summary) = run(folder.path(), &middle);
        assert!(late.is_empty());
        for node in summary["transforms"].as_array().unwrap() {
            let number = |name: &str| node[name].as_i64().unwrap();
            assert_eq!(
                number("rows_in"),
                number("led") + number("filtered") + number("errors") + number("late") + number("held"),
                "{node}"
            );
        }
        let row = |row: &Value| (row["k"].as_i64().unwrap(), seconds(row["window_start"].as_str().unwrap()), row["n"].as_i64().unwrap());
        out.iter().map(row).collect::<BTreeSet<_>>()
    };
    let mut sliding: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for (time, key, _) in &rows {
        (*time - 19..=*time)
            .filter(|start| start % 5 == 0 && time - start < 20)
            .for_each(|start| *sliding.entry((*key, start)).or_default() += 1);
    }
    let want: BTreeSet<_> = sliding.into_iter().map(|((key, start), count)| (key, start, count)).collect();
    assert_eq!(with("{type: sliding, size: 20s, period: 5s}"), want);
    let mut by_key: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    rows.iter().for_each(|(time, key, _)| by_key.entry(*key).or_default().push(*time));
    let mut sessions = BTreeSet::new();
    for (key, mut times) in by_key {
        times.sort();
        for session in times.chunk_by(|a, b| b - a < 6) {
            sessions.insert((key, session[0], session.len() as i64));
        }
    }
    assert_eq!(with("{type: sessions, gap: 6s}"), sessions);
    let mut days: BTreeMap<i64, i64> = BTreeMap::new();
    rows.iter().for_each(|(_, key, _)| *days.entry(*key).or_default() += 1);
    assert_eq!(with("{type: calendar, unit: days}"), days.into_iter().map(|(key, count)| (key, 0, count)).collect());
}

/// Early panes by count, then the pane of the watermark: discarding ones add up to all rows, accumulating ones hold them all.
#[test]
fn early_panes_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(300);
    write(folder.path(), &rows);
    let with = |mode: &str| {
        let middle = format!(
            "    - {{type: WindowIntoWithTriggers, input: AssignTimestamps, config: {{windowing: {{type: fixed, size: 100s}}, accumulation_mode: {mode}, trigger: {{type: after_watermark, early: {{type: after_count, count: 7}}}}}}}}\n    - {{type: Combine, name: Counts, input: WindowIntoWithTriggers, config: {{group_by: k, combine: {{n: count}}}}}}\n    - {{type: ExtractWindowingInfo, name: Shown, input: Counts, config: {{fields: [window_start, pane_info]}}}}"
        );
        run(folder.path(), &middle).0
    };
    let mut want: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    rows.iter().for_each(|(time, key, _)| *want.entry((*key, time / 100 * 100)).or_default() += 1);
    let cell = |row: &Value| (row["k"].as_i64().unwrap(), seconds(row["window_start"].as_str().unwrap()));
    let (mut sums, mut early) = (BTreeMap::new(), 0);
    for row in with("discarding") {
        *sums.entry(cell(&row)).or_default() += row["n"].as_i64().unwrap();
        if row["pane_info"]["timing"] == "EARLY" {
            early += 1;
            assert_eq!(row["n"], 7, "{row}");
        }
    }
    assert_eq!(sums, want);
    assert!(early > 10, "{early} early panes");
    let mut last: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    for row in with("accumulating") {
        let pane = (row["pane_info"]["index"].as_i64().unwrap(), row["n"].as_i64().unwrap());
        let newest = last.entry(cell(&row)).or_insert(pane);
        *newest = pane.max(*newest);
    }
    assert_eq!(last.into_iter().map(|(cell, (_, count))| (cell, count)).collect::<BTreeMap<_, _>>(), want);
}

/// Minutes, ten minutes and the hour: each level against a loop over all rows.
#[test]
fn a_roll_up_counts_each_level() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(3_000);
    let input = write(folder.path(), &rows);
    let out = |level: &str| folder.path().join(format!("{level}.json"));
    let sinks: String = ["1m", "10m", "1h"]
        .iter()
        .map(|level| {
            format!(
                "    - {{type: ExtractWindowingInfo, name: Shown{level}, input: Levels.{level}, config: {{fields: [window_start, window_end]}}}}\n    - {{type: WriteToJson, name: Out{level}, input: Shown{level}, config: {{path: {}}}}}\n",
                out(level).display()
            )
        })
        .collect();
    let pipeline = folder.path().join("pipeline.yaml");
    let text = format!(
        "pipeline:\n  transforms:\n    - {{type: ReadFromJson, name: Read, config: {{path: {input}}}}}\n    - {{type: AssignTimestamps, input: Read, config: {{timestamp: t}}}}\n    - {{type: RollUp, name: Levels, input: AssignTimestamps, config: {{group_by: k, combine: {{n: count, latest: {{value: t, fn: max}}}}, levels: [1m, 10m, 1h]}}}}\n{sinks}"
    );
    std::fs::write(&pipeline, text).unwrap();
    for parallelism in ["1", "2"] {
        summary(&[pipeline.to_str().unwrap(), "--parallelism", parallelism]);
        for (level, size) in [("1m", 60), ("10m", 600), ("1h", 3_600)] {
            let mut want: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
            for (time, key, _) in &rows {
                let cell = want.entry((*key, time / size * size)).or_default();
                *cell = (cell.0 + 1, cell.1.max(*time));
            }
            let mut got = BTreeMap::new();
            for row in json_rows(&out(level)) {
                let (start, end) = (seconds(row["window_start"].as_str().unwrap()), seconds(row["window_end"].as_str().unwrap()));
                assert_eq!(end - start, size);
                let cell = (row["n"].as_i64().unwrap(), row["latest"].as_i64().unwrap());
                assert_eq!(got.insert((row["k"].as_i64().unwrap(), start), cell), None, "{row} came twice");
            }
            assert_eq!(got, want, "{level} at parallelism {parallelism}");
        }
    }
}
