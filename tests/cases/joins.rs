//! Joins against loops over the same rows: every kind, two and three inputs, several parallelisms, nulls in keys, late rows.

use super::{Value, balanced, json_rows, sorted, summary};
use pelton_tests::pelton;
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

/// Rows of a window that a grouping gave out were added to every sliding window that holds the window's last instant.
#[test]
fn rows_behind_a_join_stay_in_their_sliding_window() {
    let mut numbers = Numbers(17);
    let (a, b) = (rows(&mut numbers, 80, 6), rows(&mut numbers, 80, 6));
    let transforms = "    - {type: Join, name: J, input: {a: A, b: B}, windowing: {type: sliding, size: 10, period: 5}, config: {equalities: k, fields: {a: [k], b: {w: v}}}}
    - {type: Combine, name: Count, input: J, config: {group_by: k, combine: {n: count}}}
    - {type: ExtractWindowingInfo, name: Window, input: Count, config: {fields: {at: window_string}}}
    - {type: MapToFields, name: Out, input: Window, config: {fields: {k: k, n: n, at: at}}}";
    let mut want: std::collections::BTreeMap<(u64, i64), u64> = Default::default();
    for start in (-5..50).step_by(5) {
        let inside = |row: &&Row| (start..start + 10).contains(&(row.time as i64));
        for a in a.iter().filter(inside) {
            let partners = b.iter().filter(inside).filter(|b| a.key.is_some() && b.key == a.key).count() as u64;
            if partners > 0 {
                *want.entry((a.key.unwrap(), start)).or_default() += partners;
            }
        }
    }
    let want = want.iter().map(|((k, start), n)| json!({"k": k, "n": n, "at": format!("[{start}.0, {}.0)", start + 10)}));
    let want = sorted(want);
    assert!(want.len() > 40, "exercises little: {}", want.len());
    for parallelism in ["1", "3"] {
        assert_eq!(sorted(run(&a, &b, transforms, "", parallelism)), want, "at parallelism {parallelism}");
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

/// Pairs of rows with equal keys whose times are near enough, and rows without one where they are kept.
fn near(a: &[Row], b: &[Row], kept: (bool, bool), meets: impl Fn(&Row, &Row) -> bool) -> Vec<Value> {
    let meets = |a: &Row, b: &Row| a.key.is_some() && a.key == b.key && meets(a, b);
    let row = |a: Option<&Row>, b: Option<&Row>, time: u64| {
        let time = format!("1970-01-01T00:00:{time:02}Z");
        json!({"av": a.map(|row| row.value), "bv": b.map(|row| row.value), "time": time})
    };
    let mut out = Vec::new();
    for a in a {
        let partners = b.iter().filter(|b| meets(a, b));
        out.extend(partners.clone().map(|b| row(Some(a), Some(b), a.time.max(b.time))));
        if kept.0 && partners.count() == 0 {
            out.push(row(Some(a), None, a.time));
        }
    }
    if kept.1 {
        out.extend(b.iter().filter(|b| !a.iter().any(|a| meets(a, b))).map(|b| row(None, Some(b), b.time)));
    }
    out
}

/// All times are within 50 s, so that with this delay the watermark goes on and no row is late.
const SLOW: &str = "options: {pelton: {watermark: {delay: 50s}}}\n";
const TIMES: &str = "    - {type: ExtractWindowingInfo, name: Out, input: J, config: {fields: {time: timestamp}}}";

#[test]
fn interval_joins_equal_a_loop() {
    let mut numbers = Numbers(13);
    let (a, b) = (rows(&mut numbers, 300, 20), rows(&mut numbers, 200, 24));
    for (kind, kept) in [("inner", (false, false)), ("left", (true, false)), ("right", (false, true)), ("outer", (true, true))] {
        let transforms = format!(
            "    - {{type: IntervalJoin, name: J, input: {{right: B, left: A}}, config: {{type: {kind}, equalities: k, before: 3s, after: 2s, fields: {{left: {{av: v}}, right: {{bv: v}}}}}}}}\n{TIMES}"
        );
        let want = near(&a, &b, kept, |a, b| a.time <= b.time + 3 && b.time <= a.time + 2);
        assert!(want.len() > 200, "{kind} exercises little: {}", want.len());
        for (parallelism, options) in [("1", ""), ("2", SLOW)] {
            assert_eq!(sorted(run(&a, &b, &transforms, options, parallelism)), sorted(&want), "{kind} at parallelism {parallelism}");
        }
    }
}

#[test]
fn as_of_joins_equal_a_loop() {
    let mut numbers = Numbers(17);
    let (a, b) = (rows(&mut numbers, 300, 20), rows(&mut numbers, 200, 24));
    // Of versions of one time the largest counts.
    let newest = |a: &Row| b.iter().filter(|b| b.key == a.key && b.time <= a.time).max_by_key(|b| (b.time, b.value)).cloned();
    for (kind, kept) in [("left", true), ("inner", false)] {
        let transforms = format!(
            "    - {{type: AsOfJoin, name: J, input: {{left: A, right: B}}, config: {{type: {kind}, equalities: [{{left: k, right: k}}], tolerance: 6s, fields: {{left: {{av: v}}, right: {{bv: v}}}}}}}}\n{TIMES}"
        );
        let want = near(&a, &b, (kept, false), |a, b| newest(a).is_some_and(|newest| newest.value == b.value && a.time <= b.time + 6));
        assert!(want.len() > 100, "{kind} exercises little: {}", want.len());
        for (parallelism, options) in [("1", ""), ("2", SLOW)] {
            assert_eq!(sorted(run(&a, &b, &transforms, options, parallelism)), sorted(&want), "{kind} at parallelism {parallelism}");
        }
    }
}

/// What is later than allowed has an output of its own.
#[test]
fn rows_too_late_for_an_interval_join_go_to_the_output_late() {
    let row = |value: u64, time: u64| Row { key: Some(1), value, time };
    let mut all = vec![row(0, 1)];
    // Several batches between the row that moves the watermark and the late one, so that it has moved.
    all.extend((0..40_000).map(|value| Row { key: None, value, time: 100 + value / 1_000 }));
    all.extend([row(77, 3), row(78, 150)]);
    let join = |lateness: &str, output: &str| {
        format!(
            "    - {{type: IntervalJoin, name: J, input: {{left: A, right: A}}, config: {{equalities: k, before: 10s{lateness}, fields: {{left: [v], right: {{w: v}}}}}}}}
    - {{type: Filter, name: Out, input: {output}, config: {{language: sql, keep: \"v IN (0, 77, 78)\"}}}}\n"
        )
    };
    let options = "options: {pelton: {watermark: {delay: 5s}}}\n";
    // The same row at both inputs: it pairs with itself, and the late one with the first where it is allowed.
    let late = run(&all, &[row(9, 9)], &join("", "J.late"), options, "1");
    assert_eq!(sorted(late.iter().map(|row| row["v"].clone())), sorted([json!(77), json!(77)]));
    let pair = |v: u64, w: u64| json!({"v": v, "w": w});
    let rows = run(&all, &[row(9, 9)], &join("", "J"), options, "1");
    assert_eq!(sorted(rows), sorted([pair(0, 0), pair(78, 78)]));
    let rows = run(&all, &[row(9, 9)], &join(", allowed_lateness: 10m", "J"), options, "1");
    assert_eq!(sorted(rows), sorted([pair(0, 0), pair(77, 77), pair(77, 0), pair(78, 78)]));
}

/// The examples of the book check their own results.
#[test]
fn the_examples_of_the_page_hold() {
    let page = std::fs::read_to_string(super::root().join("docs/book/src/joins.md")).unwrap();
    let whole = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).filter(|text| text.starts_with("pipeline:"));
    let mut checked = 0;
    for example in whole {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, example).unwrap();
        for parallelism in ["1", "2"] {
            let run = summary(&[file.to_str().unwrap(), "--parallelism", parallelism]);
            balanced(&run);
            assert!(example.contains("type: AssertEqual"), "an example without a check:\n{example}");
        }
        checked += 1;
    }
    assert!(checked >= 3, "only {checked} examples were found");
}

#[test]
fn lookup_joins_equal_a_loop() {
    let mut numbers = Numbers(19);
    let (a, b) = (rows(&mut numbers, 300, 40), rows(&mut numbers, 1, 1));
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.csv");
    std::fs::write(&table, (0..30).map(|id| format!("{id},name {id}\n")).fold("id,name\n".to_string(), |text, line| text + &line)).unwrap();
    for (kind, kept) in [("left", true), ("inner", false)] {
        let default = if kept { ", default: {n: none}" } else { "" };
        let transforms = format!(
            "    - {{type: LookupJoin, name: J, input: A, config: {{type: {kind}, table: {{type: ReadFromCsv, config: {{path: '{}'}}}}, on: {{k: id}}, fields: {{n: name}}{default}}}}}\n    - {{type: MapToFields, name: Out, input: J, config: {{fields: {{v: v, n: n}}}}}}",
            table.display()
        );
        let found = |row: &Row| row.key.filter(|key| *key < 30).map(|key| format!("name {key}"));
        let name = |row: &Row| found(row).or(kept.then(|| "none".to_string()));
        let want: Vec<Value> = a.iter().filter_map(|row| name(row).map(|n| json!({"v": row.value, "n": n}))).collect();
        assert!(want.len() > 100 && a.iter().any(|row| found(row).is_none()), "{kind} exercises little: {}", want.len());
        for parallelism in ["1", "2"] {
            assert_eq!(sorted(run(&a, &b, &transforms, "", parallelism)), sorted(&want), "{kind} at parallelism {parallelism}");
        }
    }
}

/// What is found once columns are known: where it stands, and what to do.
#[test]
fn joins_that_do_not_fit_their_columns_are_refused_with_the_place() {
    let check = |transform: &str, code: i32, fragments: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.yaml");
        let text = format!(
            "pipeline:\n  transforms:\n    - {{type: Create, name: A, config: {{elements: [{{k: 1, s: x}}]}}}}\n    - {transform}\n    - {{type: WriteToJson, input: J, config: {{path: '{}/rows'}}}}\n",
            folder.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let said = pelton::run(&["run", file.to_str().unwrap(), "--quiet"]);
        assert_eq!(said.code, code, "{said:?}");
        for fragment in fragments {
            assert!(said.err.contains(fragment), "`{fragment}` is not in\n{}", said.err);
        }
    };
    let interval = "{type: IntervalJoin, name: J, input: {left: A, right: A}, config: {after: 5s, equalities: ";
    check(&format!("{interval}[{{left: k, right: s}}]}}}}"), 2, &[":4:", "`left.k` is Int64 and `right.s` is Utf8", "CAST"]);
    check(&format!("{interval}k, fields: {{left: [kk]}}}}}}"), 2, &[":4:", "the input `left` has no column `kk`", "did you mean `k`?"]);
    let lookup = "{type: LookupJoin, name: J, input: A, config: {table: {type: Create, config: {elements: [{id: 1, t: a}, {id: 2, t: b}, {id: 1, t: c}]}}, ";
    check(&format!("{lookup}on: {{k: idd}}}}}}"), 2, &[":4:", "the table has no column `idd`", "did you mean `id`?"]);
    check(&format!("{lookup}on: {{s: id}}}}}}"), 2, &["`s` is Utf8 and `id` of the table is Int64"]);
    check(&format!("{lookup}on: {{k: id}}, fields: {{s: t}}}}}}"), 2, &["the output would have two columns `s`"]);
    check(&format!("{lookup}on: {{k: id}}, default: {{t: [1]}}}}}}"), 2, &["`default` of `t`, which is Utf8"]);
    check(&format!("{lookup}on: {{k: id}}, default: {{x: 1}}}}}}"), 2, &["`default` names `x`", "added are t"]);
    check(&format!("{lookup}on: {{k: id}}}}}}"), 1, &["two rows of one key", "{\"id\":1,\"t\":\"a\"} and {\"id\":1,\"t\":\"c\"}"]);
}
