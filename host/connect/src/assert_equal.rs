//! `AssertEqual`: the end of a branch whose rows must be exactly those that are written in the pipeline.
//!
//! Rows are compared as a multiset, each as the JSON that a sink would write of it: numbers by value (1 is 1.0), timestamps by
//! their RFC 3339 text. As in Beam null fields count as absent, unless `null_fields: keep` says otherwise; below the top level
//! they always do, since to Arrow a missing field of a nested row is a null one.
//!
//! With checkpoints it stages what is still missing, so that a restart counts no row twice.
//!
//! Invariant: what is kept is bounded by the elements that are written and a few unexpected rows; those that match go at once.

use crate::ConnectError;
use crate::commit::Staged;
use crate::format::json_write::JsonEncoder;
use crate::settings::Settings;
use crate::sink::{Sink, SinkContext, SinkSummary};
use async_trait::async_trait;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use pelton_core::{Batch, Epoch, Instant, RowError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What it says of itself.
pub static SPEC: ConnectorSpec = ConnectorSpec {
    name: "AssertEqual",
    role: Role::Sink,
    doc: "Fails the pipeline (exit code 1) unless its input is exactly the rows that are written here, in any order.",
    keys: &[
        KeySpec {
            name: "elements",
            required: true,
            doc: "The rows: a mapping is a row, any other value is a row with the column `element`.",
        },
        KeySpec {
            name: "null_fields",
            required: false,
            doc: "`drop` (default, as in Beam): a field that is null counts as absent, on both sides. `keep`: it must be written as null.",
        },
    ],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check,
};

/// Rows in the message, of each kind.
const MAX_SHOWN: usize = 20;

const NULL_FIELDS: [(&str, bool); 2] = [("drop", false), ("keep", true)];

fn check(config: &Value) -> Vec<ConfigFault> {
    let mut settings = Settings::new(config);
    settings.choice("null_fields", &NULL_FIELDS);
    if let Some(elements) = settings.get("elements")
        && !elements.is_array()
    {
        settings.fault("elements", "`elements` must be a list", "write the rows as a list: `elements: [{id: 1}, {id: 2}]`");
    }
    settings.into_faults()
}

/// Takes the rows.
pub async fn open(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let keep_nulls = Settings::new(&config).choice("null_fields", &NULL_FIELDS).unwrap_or(false);
    let elements = config.get("elements").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut sink = AssertEqual::new(elements, keep_nulls);
    if let Some(Staged(staged)) = ctx.exactly_once.and_then(|once| once.restored) {
        sink.seen = serde_json::from_slice(&staged).map_err(ConnectError::internal)?;
    }
    Ok(Box::new(sink))
}

struct AssertEqual {
    keep_nulls: bool,
    seen: Seen,
}

/// What the rows so far come to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    /// How often each row is still to come, by its normal form.
    missing: BTreeMap<String, usize>,
    unexpected: Vec<String>,
    /// Including those that are not kept.
    unexpected_count: u64,
    rows: u64,
}

impl AssertEqual {
    fn new(elements: &[Value], keep_nulls: bool) -> AssertEqual {
        let mut missing = BTreeMap::new();
        for element in elements {
            let row = match element {
                Value::Object(_) => element.clone(),
                scalar => json!({ "element": scalar }),
            };
            *missing.entry(normal(row, keep_nulls)).or_default() += 1;
        }
        AssertEqual { keep_nulls, seen: Seen { missing, ..Seen::default() } }
    }

    fn take(&mut self, row: Value) {
        let row = normal(row, self.keep_nulls);
        let Seen { missing, unexpected, unexpected_count, rows } = &mut self.seen;
        *rows += 1;
        match missing.get_mut(&row) {
            Some(1) => drop(missing.remove(&row)),
            Some(count) => *count -= 1,
            None => {
                *unexpected_count += 1;
                if unexpected.len() < MAX_SHOWN {
                    unexpected.push(row);
                }
            }
        }
    }

    /// What differs; `None` if nothing does.
    fn difference(&self) -> Option<String> {
        let Seen { missing: each_missing, unexpected, unexpected_count, .. } = &self.seen;
        let missing: usize = each_missing.values().sum();
        if missing == 0 && *unexpected_count == 0 {
            return None;
        }
        let mut lines = vec![format!("its rows are not the expected ones: {missing} missing (-), {unexpected_count} unexpected (+)")];
        let each = each_missing.iter().flat_map(|(row, count)| std::iter::repeat_n(row, *count));
        lines.extend(each.take(MAX_SHOWN).map(|row| format!("  - {row}")));
        lines.extend((missing > MAX_SHOWN).then(|| format!("  - … and {} more", missing - MAX_SHOWN)));
        let mut unexpected = unexpected.clone();
        unexpected.sort();
        lines.extend(unexpected.iter().map(|row| format!("  + {row}")));
        let more = unexpected_count - unexpected.len() as u64;
        lines.extend((more > 0).then(|| format!("  + … and {more} more")));
        Some(lines.join("\n"))
    }
}

/// One text for rows that are equal.
fn normal(row: Value, keep_nulls: bool) -> String {
    fn nested(value: Value) -> Value {
        match value {
            Value::Object(fields) => fields_of(fields, false),
            Value::Array(items) => Value::Array(items.into_iter().map(nested).collect()),
            // Doubles hold these whole numbers exactly, so that equal numbers have one text.
            Value::Number(number) => match number.as_f64() {
                Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => json!(value as i64),
                _ => Value::Number(number),
            },
            other => other,
        }
    }
    fn fields_of(fields: Map<String, Value>, keep_nulls: bool) -> Value {
        let sorted: BTreeMap<String, Value> = fields.into_iter().filter(|(_, value)| keep_nulls || !value.is_null()).collect();
        Value::Object(sorted.into_iter().map(|(name, value)| (name, nested(value))).collect())
    }
    match row {
        Value::Object(fields) => fields_of(fields, keep_nulls).to_string(),
        other => nested(other).to_string(),
    }
}

#[async_trait]
impl Sink for AssertEqual {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError> {
        let encoder = JsonEncoder::new(&batch.rows).map_err(|message| ConnectError::user(message, "leave that column out"))?;
        let (mut text, mut errors) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            text.clear();
            match encoder.write(row, &mut text) {
                Ok(()) => self.take(serde_json::from_slice(&text).map_err(ConnectError::internal)?),
                Err(message) => errors.push(RowError { row: row as u32, message, stack: String::new() }),
            }
        }
        Ok(errors)
    }

    async fn tick(&mut self, _now: Instant) -> Result<(), ConnectError> {
        Ok(())
    }

    async fn prepare(&mut self, _epoch: Epoch, last: bool) -> Result<Staged, ConnectError> {
        match self.difference().filter(|_| last) {
            Some(message) => Err(ConnectError::Data { message }),
            None => Ok(Staged(serde_json::to_vec(&self.seen).map_err(ConnectError::internal)?)),
        }
    }

    fn written(&self) -> SinkSummary {
        SinkSummary { rows: self.seen.rows, ..SinkSummary::default() }
    }

    async fn finish(self: Box<Self>) -> Result<SinkSummary, ConnectError> {
        match self.difference() {
            Some(message) => Err(ConnectError::Data { message }),
            None => Ok(self.written()),
        }
    }

    async fn abort(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: Value, rows: Value, keep_nulls: bool, difference: &[&str]) {
        let mut assert = AssertEqual::new(expected.as_array().unwrap(), keep_nulls);
        rows.as_array().unwrap().iter().for_each(|row| assert.take(row.clone()));
        let found = assert.difference().unwrap_or_default();
        assert_eq!(found.lines().skip(1).collect::<Vec<_>>(), difference);
    }

    #[test]
    fn rows_are_compared_as_a_multiset() {
        check(json!([{"a": 1, "b": "x"}, {"a": 2}]), json!([{"a": 2.0, "b": null}, {"b": "x", "a": 1}]), false, &[]);
        check(json!([{"a": 1}, {"a": 1}]), json!([{"a": 1}]), false, &[r#"  - {"a":1}"#]);
        check(json!([{"a": 1}]), json!([{"a": 1}, {"a": 1}]), false, &[r#"  + {"a":1}"#]);
        check(json!([3, {"a": {"b": null}}]), json!([{"element": 3}, {"a": {}}]), false, &[]);
        check(json!([{"a": [1, null]}]), json!([{"a": [1]}]), false, &[r#"  - {"a":[1,null]}"#, r#"  + {"a":[1]}"#]);
        check(json!([{"a": 1}]), json!([{"a": 1, "b": null}]), true, &[r#"  - {"a":1}"#, r#"  + {"a":1,"b":null}"#]);
        check(json!([]), json!([]), false, &[]);
    }

    #[test]
    fn the_message_is_bounded() {
        let many: Vec<Value> = (0..1_000).map(|number| json!({ "a": number })).collect();
        let mut assert = AssertEqual::new(&many, false);
        (1_000..3_000).for_each(|number| assert.take(json!({ "a": number })));
        let difference = assert.difference().unwrap();
        assert_eq!(difference.lines().count(), 1 + 2 * (MAX_SHOWN + 1));
        assert!(difference.ends_with("  + … and 1980 more"), "{difference}");
    }

    #[test]
    fn a_restart_goes_on_counting() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut first = AssertEqual::new(&[json!({"a": 1}), json!({"a": 1})], false);
        first.take(json!({"a": 1}));
        let staged = runtime.block_on(first.prepare(1, false)).unwrap();
        let restored = || AssertEqual { keep_nulls: false, seen: serde_json::from_slice(&staged.0).unwrap() };
        let mut second = restored();
        assert!(runtime.block_on(second.prepare(2, true)).unwrap_err().to_string().contains("1 missing"));
        let mut second = restored();
        second.take(json!({"a": 1}));
        runtime.block_on(second.prepare(2, true)).unwrap();
    }
}
