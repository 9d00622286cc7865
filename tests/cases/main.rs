//! The examples and small pipelines, end to end, against results that are computed here by other means.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod checked;
mod columnar;
mod combine_fns;
mod corpus;
mod event_time;
mod examples;
mod joins;
mod lifecycle;
mod side_inputs;
mod stateful;

use pelton_tests::pelton::{json_rows, root, run, shards, sorted, summary};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// `--set` arguments.
fn sets(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().flat_map(|(_, value)| ["--set", value.as_str()]).collect()
}

fn set(name: &str, value: impl std::fmt::Display) -> (String, String) {
    (name.into(), format!("{name}={value}"))
}

/// Writes generated web-access lines with lag and malformed ones to one file per part, and gives them.
fn generate(folder: &Path, count: usize) -> Vec<String> {
    let pipeline = folder.join("generate.yaml");
    std::fs::write(
        &pipeline,
        format!(
            "pipeline:\n  type: chain\n  transforms:\n    - type: GenerateEvents\n      config: {{kind: web_access, count: {count}, seed: 7, start: \"2026-01-01T00:00:00Z\", interval: 100ms, lag: {{offline_share: 0.2, offline_duration: 90s, malformed: 0.01, duplicates: 0.02}}}}\n    - type: WriteToText\n      config: {{path: {}}}\n",
            folder.join("events.jsonl").display()
        ),
    )
    .unwrap();
    summary(&[pipeline.to_str().unwrap()]);
    shards(&folder.join("events.jsonl")).iter().flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()).collect()
}

/// Minutes since the epoch of an RFC 3339 time in UTC, by way of its text alone.
fn minute(timestamp: &str) -> String {
    format!("{}:00Z", &timestamp[..16])
}

/// A time without the zeros that end its fraction: spellings differ, instants do not.
fn instant(timestamp: &str) -> String {
    let text = timestamp.trim_end_matches('Z');
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text.into() }
}

#[test]
fn minute_traffic_on_files_counts_what_a_loop_counts() {
    let folder = tempfile::tempdir().unwrap();
    let lines = generate(folder.path(), 20_000);
    let (mut views, mut users, mut malformed) = (BTreeMap::<String, u64>::new(), Vec::new(), 0);
    for line in &lines {
        match serde_json::from_str::<Value>(line) {
            Ok(event) if event["timestamp"].is_string() && event["http_response"].is_i64() => {
                *views.entry(minute(event["timestamp"].as_str().unwrap())).or_default() += 1;
                users.push(instant(event["timestamp"].as_str().unwrap()));
            }
            _ => malformed += 1,
        }
    }
    assert!(malformed > 100 && views.len() > 30, "the input exercises little: {malformed} malformed, {} minutes", views.len());
    for parallelism in ["1", "2", "4"] {
        let out = |name: &str| folder.path().join(format!("{name}-{parallelism}.json"));
        let pairs = [
            set("input", folder.path().join("events.jsonl-*").display()),
            set("raw", out("raw").display()),
            set("windowed", out("windowed").display()),
            set("errors", out("errors").display()),
            set("window_duration", "60s"),
        ];
        let mut arguments = vec!["examples/minute-traffic/files.yaml", "--parallelism", parallelism];
        arguments.extend(sets(&pairs));
        let run = summary(&arguments);
        balanced(&run);
        let windowed: BTreeMap<String, u64> = json_rows(&out("windowed"))
            .iter()
            .map(|row| (row["timestamp"].as_str().unwrap().to_string(), row["page_views"].as_u64().unwrap()))
            .collect();
        assert_eq!(windowed, views, "at parallelism {parallelism}");
        let raw = json_rows(&out("raw"));
        assert_eq!(raw.len(), lines.len() - malformed);
        assert_eq!(sorted(raw.iter().map(|row| instant(row["event_timestamp"].as_str().unwrap()))), sorted(users.clone()));
        assert!(raw.iter().all(|row| row["processing_timestamp"].as_str().unwrap() > "2026-01-01"));
        let errors = json_rows(&out("errors"));
        assert_eq!(errors.len(), malformed);
        for error in &errors {
            assert_eq!(error["transform"], "Parse");
            assert!(error["plugin"].as_str().unwrap().starts_with("sha256:"), "{error}");
            // The position leads back to the line that was refused.
            let position = &error["position"];
            let text = std::fs::read_to_string(position["source"].as_str().unwrap()).unwrap();
            let line = text.lines().nth(position["line"].as_u64().unwrap() as usize - 1).unwrap();
            assert_eq!(error["element"]["line"], line);
            assert!(text[position["offset"].as_u64().unwrap() as usize..].starts_with(line));
        }
    }
}

/// Every transform accounts for every row.
fn balanced(run: &Value) {
    for node in run["transforms"].as_array().unwrap() {
        let figure = |name: &str| node[name].as_u64().unwrap();
        let accounted = figure("led") + figure("filtered") + figure("errors") + figure("late") + figure("held");
        assert_eq!(figure("rows_in"), accounted, "{node}");
    }
}

#[test]
fn batch_etl_types_and_sorts_out_as_a_loop_does() {
    let (mut good, mut bad) = (Vec::new(), 0);
    for day in 1..=3 {
        let text = std::fs::read_to_string(root().join(format!("examples/batch-etl/transactions/day-{day}.csv"))).unwrap();
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let date = cells[4].split('-').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
            match (cells[1].parse::<i64>(), cells[3].parse::<f64>(), date[1] <= 12) {
                (Ok(customer), Ok(amount), true) => {
                    if !cells[0].is_empty() && amount > 0.0 {
                        good.push(format!("{}|{customer}|{}|{amount}|{}", cells[0], cells[2], cells[4]));
                    }
                }
                _ => bad += 1,
            }
        }
    }
    for parallelism in ["1", "4"] {
        let folder = tempfile::tempdir().unwrap();
        let pairs =
            [set("output", folder.path().join("transactions.csv").display()), set("errors", folder.path().join("errors.json").display())];
        let mut arguments = vec!["examples/batch-etl/pipeline.yaml", "--parallelism", parallelism];
        arguments.extend(sets(&pairs));
        balanced(&summary(&arguments));
        let mut rows = Vec::new();
        for shard in shards(&folder.path().join("transactions.csv")) {
            let mut lines = shard.lines();
            let header: Vec<&str> = lines.next().unwrap().split(',').collect();
            let at = |name: &str| header.iter().position(|column| *column == name).unwrap();
            for line in lines {
                let cells: Vec<&str> = line.split(',').collect();
                assert!(cells[at("processed_timestamp")].starts_with("20"));
                let amount: f64 = cells[at("amount")].parse().unwrap();
                rows.push(format!(
                    "{}|{}|{}|{amount}|{}",
                    cells[at("transaction_id")],
                    cells[at("customer_id")],
                    cells[at("product_id")],
                    cells[at("transaction_date")]
                ));
            }
        }
        assert_eq!(sorted(rows), sorted(good.clone()));
        let errors = json_rows(&folder.path().join("errors.json"));
        assert_eq!(errors.len(), bad);
        assert!(errors.iter().all(|error| error["position"]["line"].as_u64().unwrap() > 1 && !error["msg"].as_str().unwrap().is_empty()));
    }
}

/// Runs a pipeline whose text may say `{out}` for a folder, and gives the rows of `{out}/rows`.
fn rows_of(pipeline: &str, parallelism: &str) -> (Vec<Value>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, pipeline.replace("{out}", folder.path().to_str().unwrap())).unwrap();
    let run = summary(&[file.to_str().unwrap(), "--parallelism", parallelism]);
    balanced(&run);
    (json_rows(&folder.path().join("rows")), run)
}

const NUMBERS: &str =
    "[{k: a, n: 1, t: 5}, {k: b, n: 2, t: 12}, {k: a, n: 3, t: 19}, {k: a, n: 5, t: 21}, {k: b, n: 8, t: 3}, {k: a, n: 13, t: 9}]";

#[test]
fn aggregates_per_key_and_window_equal_those_of_a_loop() {
    let pipeline = format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: Create, config: {{elements: {NUMBERS}}}}}
    - {{type: AssignTimestamps, config: {{timestamp: t}}}}
    - type: Combine
      windowing: {{type: fixed, size: 10}}
      config:
        group_by: k
        combine: {{count: {{value: n, fn: count}}, sum: {{value: n, fn: sum}}, min: {{value: n, fn: min}}, max: {{value: n, fn: max}}, mean: {{value: n, fn: mean}}}}
    - {{type: ExtractWindowingInfo, config: {{fields: {{start: window_string, at: timestamp}}}}}}
    - {{type: WriteToJson, config: {{path: '{{out}}/rows'}}}}
"
    );
    let want = [
        json!({"k": "a", "count": 2, "sum": 14, "min": 1, "max": 13, "mean": 7.0, "start": "[0.0, 10.0)", "at": "1970-01-01T00:00:09.999999Z"}),
        json!({"k": "a", "count": 1, "sum": 3, "min": 3, "max": 3, "mean": 3.0, "start": "[10.0, 20.0)", "at": "1970-01-01T00:00:19.999999Z"}),
        json!({"k": "a", "count": 1, "sum": 5, "min": 5, "max": 5, "mean": 5.0, "start": "[20.0, 30.0)", "at": "1970-01-01T00:00:29.999999Z"}),
        json!({"k": "b", "count": 1, "sum": 8, "min": 8, "max": 8, "mean": 8.0, "start": "[0.0, 10.0)", "at": "1970-01-01T00:00:09.999999Z"}),
        json!({"k": "b", "count": 1, "sum": 2, "min": 2, "max": 2, "mean": 2.0, "start": "[10.0, 20.0)", "at": "1970-01-01T00:00:19.999999Z"}),
    ];
    for parallelism in ["1", "2", "4"] {
        let (rows, _) = rows_of(&pipeline, parallelism);
        assert_eq!(sorted(rows), sorted(want.clone()), "at parallelism {parallelism}");
    }
}

#[test]
fn rows_late_by_the_policy_go_to_the_output_late() {
    // One split in order of elements: the watermark is 100 s - 5 s when `t: 3` comes, and its window has closed.
    let elements: Vec<String> = [1, 2, 100, 3, 101].iter().map(|t| format!("{{t: {t}}}")).collect();
    let pipeline = |lateness: &str| {
        format!(
            "pipeline:
  transforms:
    - {{type: ReadFromJson, name: Read, config: {{path: '{{out}}/in.jsonl'}}}}
    - {{type: AssignTimestamps, name: Time, input: Read, config: {{timestamp: t}}}}
    - {{type: Combine, name: Count, input: Time, windowing: {{type: fixed, size: 10}}, config: {{group_by: [], combine: {{n: count}}}}}}
    - {{type: WriteToJson, name: Rows, input: Count, config: {{path: '{{out}}/rows'}}}}
    - {{type: WriteToJson, name: Late, input: Count.late, config: {{path: '{{out}}/late'}}}}
options: {{pelton: {{watermark: {{delay: 5s{lateness}}}}}}}
# {}",
            elements.len()
        )
    };
    for (lateness, rows, late) in [("", vec![2, 10_001], 1), (", allowed_lateness: 10m", vec![1, 2, 10_001], 0)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        // More than a batch of rows between the late row and the one that moves the watermark, so that it has moved.
        let filler = "{\"t\": 100}\n".repeat(10_000);
        std::fs::write(folder.path().join("in.jsonl"), format!("{{\"t\": 1}}\n{{\"t\": 2}}\n{filler}{{\"t\": 3}}\n{{\"t\": 101}}\n"))
            .unwrap();
        let file = folder.path().join("pipeline.yaml");
        std::fs::write(&file, pipeline(lateness).replace("{out}", out)).unwrap();
        let run = summary(&[file.to_str().unwrap(), "--parallelism", "1"]);
        balanced(&run);
        let mut counts: Vec<u64> = json_rows(&folder.path().join("rows")).iter().map(|row| row["n"].as_u64().unwrap()).collect();
        counts.sort();
        assert_eq!(counts, rows, "{lateness}");
        let late_rows: Vec<Value> = shards(&folder.path().join("late"))
            .iter()
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
            .collect();
        assert_eq!(late_rows.len(), late);
        if late == 1 {
            assert_eq!(
                late_rows[0],
                json!({"t": 3, "window_start": "1970-01-01T00:00:00Z", "window_end": "1970-01-01T00:00:10Z", "watermark": "1970-01-01T00:01:35Z"})
            );
        }
    }
}

#[test]
fn every_row_is_accounted_for_with_a_branch_a_flat_map_and_a_window() {
    let folder = tempfile::tempdir().unwrap();
    let lines = generate(folder.path(), 5_000);
    let plugin = root().join("tests/.cache/components/sdk.wasm");
    assert!(plugin.exists(), "{} is missing: run `cargo xtask setup`", plugin.display());
    let file = folder.path().join("pipeline.yaml");
    let text = format!(
        "pipeline:
  transforms:
    - {{type: ReadFromText, name: Read, config: {{path: '{0}/events.jsonl-*'}}}}
    - {{type: Words, name: Words, input: Read}}
    - {{type: Filter, name: Long, input: Words, config: {{language: sql, keep: \"length(word) > 6\"}}}}
    - {{type: Combine, name: Count, input: Long, windowing: {{type: fixed, size: 60}}, config: {{group_by: word, combine: {{n: count}}}}}}
    - {{type: WriteToJson, name: WriteCounts, input: Count, config: {{path: '{0}/rows'}}}}
    - {{type: WriteToText, name: WriteLines, input: Read, config: {{path: '{0}/lines'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{1}'}}, transforms: {{Words: split}}}}
",
        folder.path().display(),
        plugin.display()
    );
    std::fs::write(&file, text).unwrap();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in &lines {
        for word in line.split_whitespace().filter(|word| word.chars().count() > 6) {
            *counts.entry(word.to_string()).or_default() += 1;
        }
    }
    for parallelism in ["1", "2", "4"] {
        let run = summary(&[file.to_str().unwrap(), "--parallelism", parallelism]);
        balanced(&run);
        let got: BTreeMap<String, u64> = json_rows(&folder.path().join("rows"))
            .iter()
            .map(|row| (row["word"].as_str().unwrap().to_string(), row["n"].as_u64().unwrap()))
            .collect();
        assert_eq!(got, counts);
        let node = |name: &str| run["transforms"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap().clone();
        assert_eq!(node("Words")["rows_in"].as_u64().unwrap(), lines.len() as u64);
        assert_eq!(
            node("Words")["rows_out"][0][1].as_u64().unwrap(),
            lines.iter().map(|line| line.split_whitespace().count() as u64).sum::<u64>()
        );
        assert_eq!(sorted(shards(&folder.path().join("lines")).concat().lines()), sorted(&lines));
    }
}

#[test]
fn partition_flatten_and_dead_letters_keep_every_row() {
    let pipeline = "pipeline:
  transforms:
    - {type: Create, name: In, config: {elements: [{n: 1, d: 1}, {n: 2, d: 0}, {n: 3, d: 3}, {n: 4, d: 2}]}}
    - {type: MapToFields, name: Divide, input: In, config: {language: sql, append: true, fields: {q: 'n / d'}, error_handling: {output: bad}}}
    - {type: Partition, name: Split, input: Divide, config: {language: sql, by: \"CASE WHEN q > 1 THEN 'big' ELSE 'small' END\", outputs: [big, small]}}
    - {type: StripErrorMetadata, name: Again, input: Divide.bad}
    - {type: Flatten, name: All, input: [Split.big, Split.small, Again]}
    - {type: WriteToJson, name: Out, input: All, config: {path: '{out}/rows'}}
";
    let (rows, _) = rows_of(pipeline, "2");
    let want = [
        json!({"n": 1, "d": 1, "q": 1}),
        json!({"n": 2, "d": 0, "q": null}),
        json!({"n": 3, "d": 3, "q": 1}),
        json!({"n": 4, "d": 2, "q": 2}),
    ];
    assert_eq!(sorted(rows), sorted(want));
}

#[test]
fn a_row_error_without_handling_fails_with_its_position() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.jsonl"), "{\"d\": 1}\n{\"d\": 0}\n").unwrap();
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, format!("pipeline:\n  type: chain\n  transforms:\n    - {{type: ReadFromJson, config: {{path: '{0}/in.jsonl'}}}}\n    - {{type: MapToFields, name: Divide, config: {{language: sql, fields: {{q: '1 / d'}}}}}}\n    - {{type: WriteToJson, config: {{path: '{0}/rows'}}}}\n", folder.path().display())).unwrap();
    let said = run(&["run", file.to_str().unwrap(), "--quiet"]);
    assert_eq!(said.code, 1, "{said:?}");
    for part in ["Divide", "in.jsonl:2", "{\"d\":0}", "error_handling"] {
        assert!(said.err.contains(part), "{part} is not in\n{}", said.err);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "a failed run left {left:?}");
}

#[test]
fn unread_columns_are_not_parsed_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The columns that the plugin reads come last, so that pruning moves them.
    let lines: String =
        (0..100).map(|n| format!("{{\"a\": {n}, \"b\": [\"x\"], \"c\": {{\"d\": 1}}, \"line\": \"w{n} w{n}\", \"z\": null}}\n")).collect();
    std::fs::write(folder.path().join("in.jsonl"), lines).unwrap();
    let plugin = root().join("tests/.cache/components/sdk.wasm");
    let file = folder.path().join("pipeline.yaml");
    let text = format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: ReadFromJson, config: {{path: '{0}/in.jsonl'}}}}
    - {{type: Words}}
    - {{type: Combine, config: {{group_by: word, combine: {{n: count}}}}}}
    - {{type: WriteToJson, config: {{path: '{0}/rows'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{1}'}}, transforms: {{Words: split}}}}
",
        folder.path().display(),
        plugin.display()
    );
    std::fs::write(&file, text).unwrap();
    balanced(&summary(&[file.to_str().unwrap()]));
    let want: Vec<Value> = (0..100).map(|n| json!({"word": format!("w{n}"), "n": 2})).collect();
    assert_eq!(sorted(json_rows(&folder.path().join("rows"))), sorted(want));
}

#[test]
fn poison_rows_become_dead_letters_and_the_others_pass() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = root().join("tests/.cache/components/hostile.wasm");
    let poison = |number: i64| number % 1_000 == 17;
    let numbers = 0..10_000;
    let lines: String = numbers.clone().map(|n| format!("{{\"number\": {}}}\n", if poison(n) { -n } else { n })).collect();
    std::fs::write(folder.path().join("in.jsonl"), lines).unwrap();
    // Each endless row costs its deadline as often as its batch is halved; filling memory takes longer on a busy machine.
    for (transform, deadline, words) in [
        ("poison-panic", "10s", "is poison"),
        ("poison-loop", "20ms", "deadline"),
        ("poison-memory", "10s", "memory"),
        ("poison-stack", "10s", "recursion"),
    ] {
        let file = folder.path().join("pipeline.yaml");
        let text = format!(
            "pipeline:
  transforms:
    - {{type: ReadFromJson, name: Read, config: {{path: '{0}/in.jsonl'}}}}
    - {{type: Poison, name: Poison, input: Read, config: {{error_handling: {{output: bad}}}}}}
    - {{type: WriteToJson, name: Good, input: Poison, config: {{path: '{0}/good'}}}}
    - {{type: WriteToJson, name: Bad, input: Poison.bad, config: {{path: '{0}/bad'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{1}'}}, transforms: {{Poison: {transform}}}}}
options: {{pelton: {{limits: {{call_deadline: {deadline}, memory_bytes: 4MiB, batch_calls: 1000, batch_time: 60s}}}}}}
",
            folder.path().display(),
            plugin.display()
        );
        std::fs::write(&file, text).unwrap();
        balanced(&summary(&[file.to_str().unwrap(), "--parallelism", "2"]));
        let good = sorted(json_rows(&folder.path().join("good")));
        assert_eq!(good, sorted(numbers.clone().filter(|n| !poison(*n)).map(|n| json!({"number": n}))), "{transform}");
        let bad = json_rows(&folder.path().join("bad"));
        assert_eq!(bad.len(), 10, "{transform}");
        for row in &bad {
            let number = -row["element"]["number"].as_i64().unwrap();
            // Line n + 1 of the file holds the number n.
            assert_eq!((poison(number), row["position"]["line"].as_i64()), (true, Some(number + 1)), "{row}");
            assert!(row["msg"].as_str().unwrap().contains(words) && row["transform"] == "Poison", "{row}");
        }
    }
}
