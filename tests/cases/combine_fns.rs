//! Aggregations of plugins against loops over the same rows: fixed windows, sliding ones (slices merge), sessions (windows merge), beside
//! aggregates of our own; shuffled, and spread over tasks.

use super::{Value, balanced, json_rows, root, sorted, summary};
use pelton_tests::pelton::run;
use serde_json::json;
use std::collections::BTreeMap;

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Key, event time in seconds, a positive number, a whole number or null.
type Row = (String, i64, f64, Option<i64>);

fn rows(numbers: &mut Numbers, count: usize) -> Vec<Row> {
    let mut row = || {
        let whole = numbers.below(30) as i64 - 10;
        let whole = (numbers.below(6) > 0).then_some(whole);
        (format!("k{}", numbers.below(12)), numbers.below(300) as i64, numbers.below(1_000) as f64 / 8.0 + 0.125, whole)
    };
    (0..count).map(|_| row()).collect()
}

fn pipeline(folder: &std::path::Path, windowing: &str) -> String {
    format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: ReadFromJson, config: {{path: '{0}/in-*.json'}}}}
    - {{type: AssignTimestamps, config: {{timestamp: t}}}}
    - type: Combine
      windowing: {windowing}
      config:
        group_by: k
        combine:
          geometric: {{value: x, fn: {{type: Geometric}}}}
          top: {{value: n, fn: {{type: Top, config: {{n: 3}}}}}}
          rows: {{value: x, fn: count}}
    - {{type: ExtractWindowingInfo, config: {{fields: {{end: window_end}}}}}}
    - {{type: WriteToJson, config: {{path: '{0}/out'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{1}'}}, transforms: {{Geometric: geometric-mean, Top: top-distinct, Positive: positive}}}}
",
        folder.display(),
        root().join("tests/.cache/components/stateful.wasm").display()
    )
}

/// The end of every window of some rows of a key, and the rows in it.
fn windows(kind: &str, rows: &[&Row]) -> BTreeMap<i64, Vec<Row>> {
    let mut windows: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    let mut put = |end: i64, row: &Row| windows.entry(end).or_default().push(row.clone());
    match kind {
        "fixed" => rows.iter().for_each(|row| put(row.1 / 60 * 60 + 60, row)),
        "sliding" => {
            for row in rows {
                (0..3).for_each(|slide| put(row.1 / 20 * 20 + 20 + slide * 20, row));
            }
        }
        _ => {
            let mut rows = rows.to_vec();
            rows.sort_by_key(|row| row.1);
            for session in rows.chunk_by(|a, b| b.1 - a.1 < 8) {
                session.iter().for_each(|row| put(session[session.len() - 1].1 + 8, row));
            }
        }
    }
    windows
}

fn check(kind: &str, windowing: &str) {
    let rows = rows(&mut Numbers(7), 900);
    let mut want = vec![];
    let mut by_key: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| by_key.entry(&row.0).or_default().push(row));
    for (key, rows) in by_key {
        for (end, rows) in windows(kind, &rows) {
            let product: f64 = rows.iter().map(|row| row.2.ln()).sum();
            let mut top: Vec<i64> = rows.iter().filter_map(|row| row.3).collect();
            top.sort_unstable_by(|a, b| b.cmp(a));
            top.dedup();
            top.truncate(3);
            let geometric = (product / rows.len() as f64).exp();
            let end = format!("1970-01-01T00:{:02}:{:02}Z", end / 60, end % 60);
            want.push((json!([key, end, top, rows.len()]).to_string(), geometric));
        }
    }
    want.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(want.len() >= 60);
    for (parallelism, files) in [("1", 1), ("2", 3), ("4", 7)] {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = Numbers(files as u64);
        let mut texts = vec![String::new(); files];
        let mut shuffled = rows.clone();
        (1..shuffled.len()).for_each(|place| shuffled.swap(place, numbers.below(place as u64 + 1) as usize));
        for (k, t, x, n) in &shuffled {
            texts[numbers.below(files as u64) as usize] += &format!("{}\n", json!({"k": k, "t": t, "x": x, "n": n}));
        }
        texts.iter().enumerate().for_each(|(file, text)| std::fs::write(folder.path().join(format!("in-{file}.json")), text).unwrap());
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, pipeline(folder.path(), windowing)).unwrap();
        balanced(&summary(&[file.to_str().unwrap(), "--parallelism", parallelism]));
        let mut got: Vec<(String, f64)> = json_rows(&folder.path().join("out"))
            .iter()
            .map(|row: &Value| (json!([row["k"], row["end"], row["top"], row["rows"]]).to_string(), row["geometric"].as_f64().unwrap()))
            .collect();
        got.sort_by(|a, b| a.0.cmp(&b.0));
        let texts = |rows: &[(String, f64)]| sorted(rows.iter().map(|(text, _)| text.clone()));
        let differ = got.iter().zip(&want).find(|(got, want)| got.0 != want.0);
        assert!(texts(&got) == texts(&want), "{kind}, parallelism {parallelism}: {} for {} panes, {differ:?}", got.len(), want.len());
        for ((text, got), (_, want)) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-9 * want.abs(), "{text}: {got} for {want}");
        }
    }
}

#[test]
fn aggregations_of_plugins_in_fixed_windows() {
    check("fixed", "{type: fixed, size: 60}");
}

#[test]
fn aggregations_of_plugins_in_sliding_windows() {
    check("sliding", "{type: sliding, size: 60, period: 20}");
}

#[test]
fn aggregations_of_plugins_in_sessions() {
    check("sessions", "{type: sessions, gap: 8}");
}

/// Also where rows are aggregated before they reach their grouping, and where the run has crashed and gone on.
#[test]
fn metrics_of_an_aggregation_count_every_value_once() {
    for parallelism in ["1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<String> =
            rows(&mut Numbers(5), 600).iter().map(|(k, t, _, n)| json!({"k": k, "t": t, "n": n.unwrap_or(7)}).to_string()).collect();
        std::fs::write(folder.path().join("in.json"), rows.join("\n") + "\n").unwrap();
        let text = format!(
            "pipeline:
  type: chain
  transforms:
    - {{type: ReadFromJson, config: {{path: '{0}/in.json'}}}}
    - {{type: AssignTimestamps, config: {{timestamp: t}}}}
    - {{type: Combine, name: Sums, windowing: {{type: fixed, size: 60}}, config: {{group_by: k, combine: {{sum: {{value: n, fn: {{type: Honest}}}}}}}}}}
    - {{type: WriteToJson, config: {{path: '{0}/out'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{1}'}}, transforms: {{Honest: sum}}}}
",
            folder.path().display(),
            root().join("tests/.cache/components/hostile-combine.wasm").display()
        );
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, text).unwrap();
        let summary = summary(&[file.to_str().unwrap(), "--parallelism", parallelism]);
        let sums = summary["transforms"].as_array().unwrap().iter().find(|node| node["name"] == "Sums").unwrap().clone();
        assert_eq!(sums["user"]["added"]["value"], json!(rows.len() as f64), "{sums}");
    }
}

#[test]
fn a_value_that_an_aggregation_refuses_stops_the_pipeline_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("in-0.json"),
        "{\"k\": \"a\", \"t\": 1, \"x\": 2.5, \"n\": 1}\n{\"k\": \"a\", \"t\": 2, \"x\": -3.5, \"n\": 1}\n",
    )
    .unwrap();
    let file = folder.path().join("pipeline.yaml");
    let text = pipeline(folder.path(), "{type: global}");
    std::fs::write(&file, &text).unwrap();
    let said = run(&["run", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("-3.5 has no logarithm") && said.err.contains("in-0.json"), "{}", said.err);
    for (wrong, message) in [("Positive", "`Positive` is no aggregation"), ("Geometrc", "did you mean `Geometric`?")] {
        std::fs::write(&file, text.replace("{type: Geometric}", &format!("{{type: {wrong}}}"))).unwrap();
        let said = run(&["lint", file.to_str().unwrap()]);
        assert!(said.code == 2 && (said.err + &said.out).contains(message), "{wrong}");
    }
}
