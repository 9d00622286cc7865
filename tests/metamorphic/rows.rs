//! Seeded rows, runs of pipelines over them, and multisets of what comes out.

use pelton_tests::pelton::{json_rows, summary};
use serde_json::{Value, json};
use std::path::Path;

/// A stream of numbers that is the same every time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// Keys that differ in case, script, normal form and length; one is empty.
const KEYS: [&str; 8] = ["a", "A", "", "straße", "日本語", "🦀🦀", "e\u{301}", "é"];

/// The columns of [`rows`].
const SCHEMA: &str = "{type: object, properties: {id: {type: integer}, t: {type: integer}, k: {type: string}, v: {type: integer}, f: {type: number}, b: {type: boolean}, l: {type: array, items: {type: integer}}}}";

/// Rows with nulls, unicode keys, lists that may be empty, and times of which many are equal.
pub fn rows(seed: u64, count: u64) -> Vec<Value> {
    let mut numbers = Numbers(seed);
    let row = |id| {
        let mut some = |of: u64, value: Value| if numbers.below(of) == 0 { Value::Null } else { value };
        let (key, v, f, b) = (some(9, json!(0)), some(7, json!(0)), some(6, json!(0)), some(5, json!(0)));
        let key = if key.is_null() { key } else { json!(KEYS[numbers.below(8) as usize]) };
        let v = if v.is_null() { v } else { json!(numbers.below(1_000) as i64 - 300) };
        let f = if f.is_null() { f } else { json!((numbers.below(2_000_000) as f64 - 1e6) / 7.0) };
        let b = if b.is_null() { b } else { json!(numbers.below(3) == 0) };
        let list: Vec<u64> = (0..numbers.below(4)).map(|_| numbers.below(6)).collect();
        json!({"id": id, "t": numbers.below(120), "k": key, "v": v, "f": f, "b": b, "l": list})
    };
    (0..count).map(row).collect()
}

/// Writes rows as `NAME-<part>.json`, one file a part.
pub fn write(folder: &Path, name: &str, parts: &[&[Value]]) {
    for (number, part) in parts.iter().enumerate() {
        let lines: String = part.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(folder.join(format!("{name}-{number:02}.json")), lines).unwrap();
    }
}

/// A pipeline over the files `in-*.json`, whose rows have their event time at `T`; each of `outputs` is written.
pub fn pipeline(folder: &Path, transforms: &str, outputs: &[&str], options: &str) -> String {
    let at = folder.display();
    let mut text = format!(
        "pipeline:\n  transforms:\n    - {{type: ReadFromJson, name: Read, config: {{path: '{at}/in-*.json', schema: {SCHEMA}}}}}\n    - {{type: AssignTimestamps, name: T, input: Read, config: {{timestamp: t}}}}\n{transforms}\n"
    );
    for output in outputs {
        text += &format!("    - {{type: WriteToJson, name: 'Write {output}', input: {output}, config: {{path: '{at}/{output}'}}}}\n");
    }
    let file = folder.join("pipeline.yaml");
    std::fs::write(&file, text + options).unwrap();
    file.display().to_string()
}

/// Runs a pipeline and gives its summary; of every transform the rows in are all accounted for.
pub fn run(pipeline: &str, parallelism: &str) -> Value {
    let summary = summary(&[pipeline, "--parallelism", parallelism]);
    for node in summary["transforms"].as_array().unwrap() {
        let number = |name: &str| node[name].as_i64().unwrap();
        let ended = ["led", "filtered", "errors", "late", "held"].map(number).iter().sum::<i64>();
        assert_eq!(number("rows_in"), ended, "{node}");
    }
    summary
}

/// What an output holds, in an order that depends on the rows alone. Lists in columns named `group…` have no order.
pub fn multiset(folder: &Path, output: &str) -> Vec<Value> {
    let mut rows = json_rows(&folder.join(output));
    for column in rows.iter_mut().filter_map(Value::as_object_mut).flatten() {
        if let (true, Some(list)) = (column.0.starts_with("group"), column.1.as_array_mut()) {
            list.sort_by_cached_key(Value::to_string);
        }
    }
    rows.sort_by_cached_key(rounded);
    rows
}

/// A row as text, its fractions cut to what is the same whatever the order of sums, after the rest.
fn rounded(row: &Value) -> (String, String) {
    let (mut exact, mut fractions) = (String::new(), String::new());
    for (name, value) in row.as_object().unwrap() {
        match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) => fractions += &format!("{name}={number:.5e};"),
            None => exact += &format!("{name}={value};"),
        }
    }
    (exact, fractions)
}

/// Equal, but for the last digits of fractions.
pub fn same(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            got.len() == want.len() && want.iter().all(|(key, want)| got.get(key).is_some_and(|got| same(got, want)))
        }
        (Value::Array(got), Value::Array(want)) => got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same(got, want)),
        (Value::Number(one), Value::Number(other)) if got.is_f64() || want.is_f64() => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
        }
        (got, want) => got == want,
    }
}
