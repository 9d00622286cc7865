//! Rows behind the watermark: none is lost, none counts twice, and each verdict agrees with the watermark it was given by.

use crate::rows::{Numbers, pipeline, run, write};
use pelton_core::Instant;
use pelton_tests::pelton::json_rows;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const DELAY: i64 = 2;
const SIZE: i64 = 5;
/// Several batches a file, since a source says its watermark behind each.
const ROWS: i64 = 30_000;

/// Times go on by five seconds in a thousand rows; one row in eight is up to 30 s behind.
fn rows() -> Vec<Value> {
    let mut numbers = Numbers(77);
    let row = |id: i64| {
        let behind = if numbers.below(8) == 0 { numbers.below(30) as i64 } else { 0 };
        json!({"id": id, "t": 1_000 + id / 200 - behind, "k": format!("k{}", numbers.below(4)), "v": null, "f": null, "b": null, "l": []})
    };
    (0..ROWS).map(row).collect()
}

fn seconds(value: &Value) -> i64 {
    Instant::parse_rfc3339(value.as_str().unwrap()).unwrap().micros() / 1_000_000
}

struct Ran {
    panes: Vec<Value>,
    late: Vec<Value>,
}

/// Counts `rows`, dealt out to files one by one, so that all files go through the same times.
fn counted(rows: &[Value], files: usize, lateness: i64, parallelism: &str, columns: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let parts: Vec<Vec<Value>> = (0..files).map(|file| rows.iter().skip(file).step_by(files).cloned().collect()).collect();
    write(folder.path(), "in", &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let transforms = format!(
        "    - {{type: Combine, name: Counts, input: T, windowing: {{type: fixed, size: {SIZE}s}}, config: {{group_by: k, combine: {{{columns}}}}}}}
    - {{type: ExtractWindowingInfo, name: Panes, input: Counts, config: {{fields: [window_start, window_end, pane_info]}}}}
    - {{type: MapToFields, name: Late, input: Counts.late, config: {{append: true, fields: {{}}}}}}"
    );
    let options = format!("options: {{pelton: {{watermark: {{delay: {DELAY}s, allowed_lateness: {lateness}s}}}}}}\n");
    let summary = run(&pipeline(folder.path(), &transforms, &["Panes", "Late"], &options), parallelism);
    let (panes, late) = (json_rows(&folder.path().join("Panes")), json_rows(&folder.path().join("Late")));
    let counts = summary["transforms"].as_array().unwrap().iter().find(|node| node["name"] == "Counts").unwrap();
    assert_eq!(counts["late"].as_u64().unwrap(), late.len() as u64, "{counts}");
    let on_time: i64 = panes.iter().map(|pane| pane["n"].as_i64().unwrap()).sum();
    assert_eq!(on_time as usize + late.len(), rows.len(), "on time and late; {files} files, {lateness} s, parallelism {parallelism}");
    Ran { panes, late }
}

/// A late row's window had ended, and its watermark is one that these rows can make.
fn check_late(late: &[Value], rows: &[Value], lateness: i64) {
    let newest = rows.iter().map(|row| row["t"].as_i64().unwrap()).max().unwrap();
    for row in late {
        let (time, start, end) = (row["t"].as_i64().unwrap(), seconds(&row["window_start"]), seconds(&row["window_end"]));
        assert_eq!((start, end), (time / SIZE * SIZE, time / SIZE * SIZE + SIZE), "{row}: its window");
        let watermark = seconds(&row["watermark"]);
        assert!(end + lateness <= watermark, "{row}: it was not late");
        assert!(watermark <= newest - DELAY, "{row}: no row has moved the watermark there");
    }
}

/// Panes of a window are numbered, one at most is on time, and late ones need lateness.
fn check_panes(panes: &[Value], lateness: i64) {
    let mut cells: BTreeMap<(String, i64), Vec<(i64, String)>> = BTreeMap::new();
    for pane in panes {
        let info = &pane["pane_info"];
        let cell = (pane["k"].as_str().unwrap().to_string(), seconds(&pane["window_start"]));
        cells.entry(cell).or_default().push((info["index"].as_i64().unwrap(), info["timing"].as_str().unwrap().to_string()));
    }
    for (cell, mut panes) in cells {
        panes.sort();
        assert!(panes.iter().map(|pane| pane.0).eq(0..panes.len() as i64), "{cell:?}: {panes:?}");
        for (index, timing) in &panes {
            assert!(timing == "ON_TIME" && *index == 0 || timing == "LATE" && lateness > 0, "{cell:?}: {panes:?}");
        }
    }
}

/// Rows of one file come in their order, so that those before a row say what its watermark can be at most, and late rows before
/// it what it is at least.
fn check_verdicts(ran: &Ran, rows: &[Value], lateness: i64) {
    let id = |row: &Value| row["id"].as_i64().unwrap();
    let late: BTreeMap<i64, i64> = ran.late.iter().map(|row| (id(row), seconds(&row["watermark"]))).collect();
    let ids = ran.panes.iter().flat_map(|pane| pane["ids"].as_array().unwrap()).map(|id| id.as_i64().unwrap());
    let on_time: BTreeSet<i64> = ids.collect();
    assert_eq!(on_time.len() + late.len(), rows.len(), "every row once");
    let (mut newest, mut watermark) = (i64::MIN, i64::MIN);
    for row in rows {
        let time = row["t"].as_i64().unwrap();
        match late.get(&id(row)) {
            Some(at) => {
                assert!(*at >= watermark, "{row}: the watermark went back from {watermark} to {at}");
                assert!(*at <= newest - DELAY, "{row}: the watermark {at} was ahead of the rows before");
                watermark = *at;
            }
            None => assert!(time / SIZE * SIZE + SIZE + lateness > watermark, "{row}: counted, though behind {watermark}"),
        }
        newest = newest.max(time);
    }
}

#[test]
fn every_row_is_counted_or_late() {
    let rows = rows();
    for lateness in [0, 5] {
        // With `ids` the values of a cell are a list, without they are aggregated before the exchange.
        for (files, parallelism, columns) in [
            (1, "1", "n: count, ids: {value: id, fn: group}"),
            (1, "2", "n: count"),
            (3, "1", "n: count"),
            (4, "2", "n: count, ids: {value: id, fn: group}"),
            (5, "4", "n: count, newest: {value: t, fn: max}"),
        ] {
            let ran = counted(&rows, files, lateness, parallelism, columns);
            check_late(&ran.late, &rows, lateness);
            check_panes(&ran.panes, lateness);
            println!("{files} files, {lateness} s, parallelism {parallelism}: {} panes, {} late", ran.panes.len(), ran.late.len());
            if (files, parallelism) == (1, "1") {
                assert!(ran.late.len() > 100, "{} late rows with {lateness} s exercise little", ran.late.len());
                check_verdicts(&ran, &rows, lateness);
            }
        }
    }
}
