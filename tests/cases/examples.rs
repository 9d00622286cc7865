//! The examples against answers that a Python program beside each of them computed (`model.py`).

use pelton_tests::pelton::{json_rows, root, summary};
use serde_json::Value;

/// Runs an example and compares each output with its file of expected rows.
fn check(name: &str, outputs: &[(&str, &str)], others: &[&str]) {
    check_file(name, "pipeline.yaml", outputs, others);
}

fn check_file(name: &str, file: &str, outputs: &[(&str, &str)], others: &[&str]) {
    for parallelism in ["1", "2"] {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = format!("examples/{name}/{file}");
        let mut arguments: Vec<String> = vec![pipeline, "--parallelism".into(), parallelism.into()];
        for output in outputs.iter().map(|(output, _)| *output).chain(others.iter().copied()) {
            arguments.extend(["--set".into(), format!("{output}={}", folder.path().join(output).display())]);
        }
        summary(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        for (output, expected) in outputs {
            let path = root().join(format!("examples/{name}/{expected}"));
            let text = std::fs::read_to_string(&path).unwrap();
            let mut want: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let mut got = json_rows(&folder.path().join(output));
            assert_eq!(got.len(), want.len(), "{name}: rows of {output}");
            // By everything but fractions, which may differ in their last digits.
            let order = |row: &Value| {
                row.as_object()
                    .unwrap()
                    .iter()
                    .filter(|(_, value)| !value.is_f64())
                    .map(|(key, value)| format!("{key}{value}"))
                    .collect::<std::collections::BTreeSet<_>>()
            };
            got.sort_by_key(order);
            want.sort_by_key(order);
            for (got, want) in got.iter().zip(&want) {
                assert!(same(got, want), "{name}: {output} has {got}, expected {want}");
            }
        }
    }
}

fn same(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            let present = |row: &serde_json::Map<String, Value>| row.iter().filter(|(_, value)| !value.is_null()).count();
            present(got) == present(want) && want.iter().all(|(key, want)| same(got.get(key).unwrap_or(&Value::Null), want))
        }
        (Value::Number(got), Value::Number(want)) => {
            let (got, want) = (got.as_f64().unwrap(), want.as_f64().unwrap());
            got == want || (got - want).abs() <= 1e-9 * want.abs()
        }
        (got, want) => got == want,
    }
}

#[test]
fn page_views() {
    check("page-views", &[("output", "expected.json")], &["errors", "late"]);
}

#[test]
fn sensor_windows() {
    let outputs = [("means", "expected-means.json"), ("counts", "expected-counts.json"), ("sessions", "expected-sessions.json")];
    check("sensor-windows", &outputs, &[]);
}

#[test]
fn iot_alerts() {
    check("iot-alerts", &[("output", "expected.json"), ("stored", "input.json")], &[]);
}

#[test]
fn spending_alerts() {
    check("spending-alerts", &[("output", "expected.json")], &[]);
}

#[test]
fn enrichment() {
    let outputs = [("output", "expected.json"), ("segments", "expected-segments.json")];
    check("enrichment", &outputs, &[]);
    check_file("enrichment", "side-input.yaml", &outputs, &[]);
}
