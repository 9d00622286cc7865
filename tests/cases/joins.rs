//! Joins against loops over the same rows: every kind, two and three inputs, several parallelisms, nulls in keys, late rows.

use super::{Value, balanced, json_rows, sorted, summary};
use serde_json::json;

/// A stream of numbers that is the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Clone, Debug)]
struct Row {
    key: Option<u64>,
    value: u64,
    time: u64,
}

/// Rows of one input: a key in eight is null, keys repeat, times cover a few windows.
fn rows(numbers: &mut Numbers, count: u64, keys: u64) -> Vec<Row> {
    let mut key = || (numbers.below(8) > 0).then(|| numbers.below(keys));
    let keys: Vec<Option<u64>> = (0..count).map(|_| key()).collect();
    keys.into_iter().enumerate().map(|(value, key)| Row { key, value: value as u64, time: numbers.below(50) }).collect()
}

fn written(rows: &[Row]) -> String {
    rows.iter().map(|row| format!("{}\n", json!({"k": row.key, "v": row.value, "t": row.time}))).collect()
}

/// What a join of two lists gives, pair by pair; `window` is the length of windows.
fn joined(left: &[Row], right: &[Row], kept: (bool, bool), window: u64) -> Vec<(Option<Row>, Option<Row>)> {
    joined_if(left, right, kept, |a, b| a.time / window == b.time / window)
}

/// The same, where a row meets the rows of its key that `together` says.
fn joined_if(left: &[Row], right: &[Row], kept: (bool, bool), together: impl Fn(&Row, &Row) -> bool) -> Vec<(Option<Row>, Option<Row>)> {
    let meets = |a: &Row, b: &Row| a.key.is_some() && a.key == b.key && together(a, b);
    let mut out = Vec::new();
    for a in left {
        let partners = right.iter().filter(|b| meets(a, b));
        out.extend(partners.clone().map(|b| (Some(a.clone()), Some(b.clone()))));
        if kept.0 && partners.count() == 0 {
            out.push((Some(a.clone()), None));
        }
    }
    if kept.1 {
        out.extend(right.iter().filter(|b| !left.iter().any(|a| meets(a, b))).map(|b| (None, Some(b.clone()))));
    }
    out
}

const INPUTS: &str = "
    - {type: ReadFromJson, name: ReadA, config: {path: '{out}/a.jsonl'}}
    - {type: ReadFromJson, name: ReadB, config: {path: '{out}/b.jsonl'}}
    - {type: AssignTimestamps, name: A, input: ReadA, config: {timestamp: t}}
    - {type: AssignTimestamps, name: B, input: ReadB, config: {timestamp: t}}
";

/// Runs transforms after two inputs `A` and `B` of rows `k, v, t`, and gives the rows of `{out}/rows`.
fn run(a: &[Row], b: &[Row], transforms: &str, options: &str, parallelism: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jsonl"), written(a)).unwrap();
    std::fs::write(folder.path().join("b.jsonl"), written(b)).unwrap();
    let file = folder.path().join("pipeline.yaml");
    let text = format!(
        "pipeline:\n  transforms:\n{INPUTS}{transforms}\n    - {{type: WriteToJson, input: Out, config: {{path: '{{out}}/rows'}}}}\n{options}"
    );
    std::fs::write(&file, text.replace("{out}", folder.path().to_str().unwrap())).unwrap();
    balanced(&summary(&[file.to_str().unwrap(), "--parallelism", parallelism]));
    json_rows(&folder.path().join("rows"))
}

#[test]
fn every_kind_of_join_equals_a_loop() {
    let mut numbers = Numbers(7);
    let (a, b) = (rows(&mut numbers, 300, 20), rows(&mut numbers, 200, 24));
    for (kind, kept) in [("inner", (false, false)), ("left", (true, false)), ("right", (false, true)), ("outer", (true, true))] {
        let transforms = format!(
            "    - {{type: Join, name: Out, input: {{a: A, b: B}}, windowing: {{type: fixed, size: 10}}, config: {{type: {kind}, equalities: [{{a: k, b: k}}], fields: {{a: {{ak: k, av: v}}, b: {{bk: k, bv: v}}}}}}}}"
        );
        let of = |row: &Option<Row>| (row.as_ref().and_then(|row| row.key), row.as_ref().map(|row| row.value));
        let want: Vec<Value> =
            joined(&a, &b, kept, 10).iter().map(|(a, b)| json!({"ak": of(a).0, "av": of(a).1, "bk": of(b).0, "bv": of(b).1})).collect();
        assert!(want.len() > 100, "{kind} exercises little: {}", want.len());
        for parallelism in ["1", "2", "4"] {
            assert_eq!(sorted(run(&a, &b, &transforms, "", parallelism)), sorted(&want), "{kind} at parallelism {parallelism}");
        }
    }
}

/// The third input is joined to what comes of the first two, so a row that found no partner there has no key for it.
#[test]
fn three_inputs_are_joined_one_after_the_other() {
    let mut numbers = Numbers(11);
    let (a, b) = (rows(&mut numbers, 60, 6), rows(&mut numbers, 40, 6));
    let transforms = "    - {type: Join, name: Out, input: {x: A, y: B, z: A}, config: {type: {outer: [x]}, equalities: [{x: k, y: k}, {y: v, z: v}], fields: {x: [v], y: {w: v}, z: {u: v, zk: k}}}}";
    let mut want = Vec::new();
    for (x, y) in joined(&a, &b, (true, false), 1_000) {
        // `z` comes after `y`, and neither is in `outer`.
        for z in a.iter().filter(|z| y.as_ref().is_some_and(|y| y.value == z.value)) {
            let x = x.as_ref().unwrap();
            want.push(json!({"v": x.value, "w": y.as_ref().unwrap().value, "u": z.value, "zk": z.key}));
        }
    }
    assert!(want.len() > 30, "exercises little: {}", want.len());
    for parallelism in ["1", "3"] {
        assert_eq!(sorted(run(&a, &b, transforms, "", parallelism)), sorted(&want));
    }
}

/// Sessions of a key are made of the rows of both inputs.
#[test]
fn sessions_hold_the_rows_of_both_inputs() {
    const GAP: u64 = 3;
    let mut numbers = Numbers(13);
    let (a, b) = (rows(&mut numbers, 60, 12), rows(&mut numbers, 60, 12));
    let session = |row: &Row| {
        let mut times: Vec<u64> = a.iter().chain(&b).filter(|other| other.key == row.key).map(|other| other.time).collect();
        times.sort();
        let mut start = times[0];
        for pair in times.windows(2).take_while(|pair| pair[1] <= row.time) {
            start = if pair[1] - pair[0] < GAP { start } else { pair[1] };
        }
        start
    };
    let transforms = "    - {type: Join, name: Out, input: {a: A, b: B}, windowing: {type: sessions, gap: 3}, config: {type: outer, equalities: k, fields: {a: [v], b: {w: v}}}}";
    let value = |row: &Option<Row>| row.as_ref().map(|row| row.value);
    let want: Vec<Value> = joined_if(&a, &b, (true, true), |a, b| session(a) == session(b))
        .iter()
        .map(|(a, b)| json!({"v": value(a), "w": value(b)}))
        .collect();
    assert!(want.iter().filter(|row| row["v"].is_u64() && row["w"].is_u64()).count() > 20, "exercises little");
    for parallelism in ["1", "3"] {
        assert_eq!(sorted(run(&a, &b, transforms, "", parallelism)), sorted(&want), "at parallelism {parallelism}");
    }
}

/// A window that has fired takes rows while lateness allows it, each a pane of its own that meets nothing of an earlier pane.
#[test]
fn late_rows_meet_no_earlier_pane_and_later_ones_go_to_the_output_late() {
    // Both inputs are parts of one file, so that its order says what is late for both.
    let row = |key: u64, value: u64, time: u64| Row { key: Some(key), value, time };
    let mut all = vec![row(1, 0, 1), row(1, 1_000_005, 2)];
    // Several batches between the row that moves the watermark and the late one, so that it has moved.
    all.extend((0..40_000).map(|value| row(2, value, 100 + value / 1_000)));
    all.extend([row(1, 77, 3), row(2, 78, 150)]);
    let join = "    - {type: Filter, name: P, input: A, config: {language: sql, keep: \"v < 1000000\"}}
    - {type: Filter, name: Q, input: A, config: {language: sql, keep: \"v > 1000000\"}}
    - {type: Join, name: J, input: {a: P, b: Q}, windowing: {type: fixed, size: 10}, config: {type: left, equalities: [{a: k, b: k}], fields: {a: [v], b: {w: v}}}}\n";
    let options = |lateness: &str| format!("options: {{pelton: {{watermark: {{delay: 5s{lateness}}}}}}}\n");
    let kept =
        format!("{join}    - {{type: Filter, name: Out, input: J, config: {{language: sql, keep: \"w IS NOT NULL OR v IN (77, 78)\"}}}}");
    let rows = run(&all, &[row(9, 9, 9)], &kept, &options(", allowed_lateness: 10m"), "1");
    // 77 and 78 of the filler met nobody either.
    let alone = |value: u64| json!({"v": value, "w": null});
    assert_eq!(sorted(rows), sorted([json!({"v": 0, "w": 1_000_005}), alone(77), alone(77), alone(78), alone(78)]));
    let late = format!("{join}    - {{type: Filter, name: Out, input: J.late, config: {{language: sql, keep: \"TRUE\"}}}}");
    let rows = run(&all, &[row(9, 9, 9)], &late, &options(""), "1");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["v"], &rows[0]["window_end"]), (&json!(77), &json!("1970-01-01T00:00:10Z")));
}
