//! Cases of a plugin: rows that are written as JSON, and what a transform must give of them.
//!
//! A file holds one case or several, one after the other, each a JSON object:
//!
//! ```text
//! {"name": "counts words", "transform": "count", "config": {…}, "key": ["user"],
//!  "schema": {"line": "string"}, "timestamp": "at",
//!  "windowing": {"type": "fixed", "size": "60s"}, "allowed_lateness": "10s",
//!  "input": [{"line": "to be"}, {"$watermark": "2026-01-01T00:01:00Z"}, {"$now": "2026-01-01T00:00:05Z"}],
//!  "expected": [{"words": 2}], "outputs": {"long": []}, "errors": ["the line is empty"], "late": []}
//! ```

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use pelton_connect::format::json_infer::Shape;
use pelton_connect::format::json_read::JsonDecoder;
use pelton_connect::format::json_write::write_row;
use pelton_connect::format::schema;
use pelton_core::batch::{MAX_ROWS, Positions};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, WindowFn};
use pelton_plugin::{Limits, Plugin};
use pelton_runtime::lab::{ERRORS, LATE, Lab, Setup, Step};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a transform is given, and what it must give.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// By default the number of the case in its file.
    #[serde(default)]
    pub name: Option<String>,
    /// By default the only transform of the plugin.
    #[serde(default)]
    pub transform: Option<String>,
    #[serde(default)]
    config: Option<Value>,
    /// Key columns of a stateful transform.
    #[serde(default)]
    key: Vec<String>,
    /// Types of the columns; without it they follow from the rows.
    #[serde(default)]
    schema: Option<Value>,
    /// The column that has the event time, RFC 3339; without it all rows are of the beginning of 1970.
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    windowing: Option<Windowing>,
    #[serde(default)]
    allowed_lateness: Option<String>,
    /// Rows, and between them `{"$watermark": TIME}` and `{"$now": TIME}`.
    pub input: Vec<Value>,
    /// Rows of the main output.
    #[serde(default)]
    expected: Vec<Value>,
    /// Rows of the others.
    #[serde(default)]
    outputs: BTreeMap<String, Vec<Value>>,
    /// Each a part of the message, or an object of columns.
    #[serde(default)]
    errors: Vec<Value>,
    /// Each an object of columns.
    #[serde(default)]
    late: Vec<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Windowing {
    Global,
    Fixed { size: String },
    Sliding { size: String, period: String },
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// Empty: the main one.
    pub output: String,
    /// Number of the row in it, from 0.
    pub row: usize,
    /// `None`: it should not be there.
    pub expected: Option<Value>,
    /// `None`: it is missing.
    pub got: Option<Value>,
}

/// The cases of a file, or of all `*.json` and `*.jsonl` files of a folder in the order of their names; each with its name.
pub fn read(place: &Path) -> Result<Vec<(String, Case)>> {
    let mut cases = Vec::new();
    for file in files(place, &["json", "jsonl"])? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read the cases in {}", file.display()))?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (number, case) in serde_json::Deserializer::from_str(&text).into_iter::<Case>().enumerate() {
            let case = case.with_context(|| format!("{}: case {} is wrong", file.display(), number + 1))?;
            let name = case.name.clone().unwrap_or_else(|| (number + 1).to_string());
            cases.push((format!("{stem}/{name}"), case));
        }
    }
    Ok(cases)
}

/// A file, or the files of a folder with one of these endings, by name.
pub fn files(place: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.into()]);
    }
    let entries = std::fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let ends = |path: &PathBuf| path.extension().is_some_and(|ending| endings.contains(&&*ending.to_string_lossy()));
    let mut found: Vec<PathBuf> = paths.filter(ends).collect();
    found.sort();
    Ok(found)
}

impl Case {
    /// The transform that it is about.
    pub fn transform<'a>(&'a self, plugin: &'a Plugin) -> Result<&'a str> {
        only(plugin, self.transform.as_deref())
    }

    /// Runs it, and tells what is not as it must be.
    pub fn run(&self, plugin: &Arc<Plugin>) -> Result<Vec<Difference>> {
        let (mut lab, steps) = self.open(plugin)?;
        let mut got: BTreeMap<String, Vec<Value>> = lab.outputs().iter().map(|output| (output.clone(), Vec::new())).collect();
        for (step, now) in steps {
            let names = lab.outputs().to_vec();
            for (port, batch) in lab.feed(step, now)? {
                got.entry(names[port].clone()).or_default().extend(values(&batch.rows)?);
            }
        }
        let mut wanted = self.outputs.clone();
        wanted.insert(String::new(), self.expected.clone());
        wanted.insert(ERRORS.into(), self.errors.clone());
        wanted.insert(LATE.into(), self.late.clone());
        let mut missing = wanted.keys().filter(|output| !got.contains_key(*output) && !wanted[*output].is_empty());
        if let Some(output) = missing.next() {
            bail!("the transform has no output `{output}`");
        }
        Ok(got.iter().flat_map(|(output, got)| compare(output, wanted.get(output).map_or(&[], Vec::as_slice), got)).collect())
    }

    /// The transform on the bench, and what comes to it, with the time.
    pub fn open(&self, plugin: &Arc<Plugin>) -> Result<(Lab, Vec<(Step, Instant)>)> {
        let rows: Vec<&Value> = self.input.iter().filter(|row| order(row).is_none()).collect();
        let input = self.columns(&rows)?;
        let lab = Lab::new(Setup {
            plugin: plugin.clone(),
            transform: self.transform(plugin)?.into(),
            config: self.config.clone().unwrap_or_else(|| serde_json::json!({})),
            input: input.clone(),
            key: self.key.clone(),
            window_fn: self.windowing.as_ref().map_or(Ok(WindowFn::Global), Windowing::window_fn)?,
            allowed_lateness: self.allowed_lateness.as_deref().map_or(Ok(Duration::ZERO), duration)?,
            limits: Limits::default(),
            restored: None,
        });
        let lab = lab.map_err(anyhow::Error::msg)?;
        Ok((lab, self.steps(&input)?))
    }

    fn columns(&self, rows: &[&Value]) -> Result<SchemaRef> {
        if let Some(written) = &self.schema {
            let told = |faults: Vec<pelton_core::catalog::ConfigFault>| {
                anyhow::anyhow!("`schema`: {}", faults.iter().map(|fault| fault.message.clone()).collect::<Vec<_>>().join("; "))
            };
            return Ok(schema::nullable(&schema::parse(written).map_err(told)?));
        }
        let mut shape = Shape::default();
        rows.iter().for_each(|row| shape.see(row));
        Ok(Arc::new(shape.schema().unwrap_or_else(Schema::empty)))
    }

    fn steps(&self, input: &SchemaRef) -> Result<Vec<(Step, Instant)>> {
        let (mut steps, mut now) = (Vec::new(), Instant::from_micros_saturating(0));
        let mut waiting: Vec<&Value> = Vec::new();
        for row in &self.input {
            let Some((order, time)) = order(row) else {
                waiting.push(row);
                continue;
            };
            self.give(input, &mut waiting, now, &mut steps)?;
            match order {
                "$now" => {
                    now = instant(time)?;
                    steps.push((Step::Tick, now));
                }
                "$watermark" => steps.push((Step::Watermark(Watermark::Active(instant(time)?)), now)),
                other => bail!("`{other}` is no step: write $watermark or $now"),
            }
        }
        self.give(input, &mut waiting, now, &mut steps)?;
        steps.push((Step::End, now));
        Ok(steps)
    }

    fn give(&self, input: &SchemaRef, waiting: &mut Vec<&Value>, now: Instant, steps: &mut Vec<(Step, Instant)>) -> Result<()> {
        for rows in std::mem::take(waiting).chunks(MAX_ROWS) {
            let mut decoder = JsonDecoder::new(input, None).map_err(anyhow::Error::msg)?;
            let mut times = Vec::new();
            for row in rows {
                decoder.push_text(&row.to_string()).map_err(|message| anyhow::anyhow!("the input row {row}: {message}"))?;
                let time = self.timestamp.as_ref().map_or(Ok(0), |column| instant(&row[column]).map(Instant::micros));
                times.push(time.with_context(|| format!("the event time of the input row {row}"))?);
            }
            steps.push((Step::Rows(Batch::new(decoder.finish(), times.into(), Positions::None)), now));
        }
        Ok(())
    }
}

impl Windowing {
    fn window_fn(&self) -> Result<WindowFn> {
        Ok(match self {
            Windowing::Global => WindowFn::Global,
            Windowing::Fixed { size } => WindowFn::Fixed { size: length(size)?, offset: Duration::ZERO },
            Windowing::Sliding { size, period } => {
                WindowFn::Sliding { size: length(size)?, period: length(period)?, offset: Duration::ZERO }
            }
        })
    }
}

/// The transform that is named, or the only one.
pub fn only<'a>(plugin: &'a Plugin, named: Option<&'a str>) -> Result<&'a str> {
    let transforms = &plugin.descriptor().transforms;
    match (named, transforms.as_slice()) {
        (Some(named), _) => Ok(named),
        (None, [only]) => Ok(&only.name),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|spec| spec.name.as_str()).collect();
            bail!("the plugin has {} transforms, so name one: {}", names.len(), names.join(", "))
        }
    }
}

fn length(text: &str) -> Result<Duration> {
    match duration(text)? {
        length if length.micros() > 0 => Ok(length),
        _ => bail!("a window is longer than {text}"),
    }
}

fn duration(text: &str) -> Result<Duration> {
    Duration::parse(text).map_err(|error| anyhow::anyhow!("`{text}` is no duration: {error}"))
}

/// A step that is no row.
fn order(row: &Value) -> Option<(&str, &Value)> {
    let object = row.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| key.starts_with('$'))
}

fn instant(value: &Value) -> Result<Instant> {
    let text = value.as_str().with_context(|| format!("{value} is no time; write RFC 3339, as \"2026-01-01T00:00:00Z\""))?;
    Instant::parse_rfc3339(text).map_err(|error| anyhow::anyhow!("`{text}` is no time: {error}"))
}

/// Rows as JSON, as a sink writes them.
pub fn values(rows: &RecordBatch) -> Result<Vec<Value>> {
    let value = |row: usize| {
        let mut text = Vec::new();
        write_row(rows, row, &mut text).map_err(anyhow::Error::msg)?;
        Ok(serde_json::from_slice(&text)?)
    };
    (0..rows.num_rows()).map(value).collect()
}

/// What differs, row by row. Of errors and late rows only the columns that are named count, and texts of errors are parts of what must be there.
pub fn compare(output: &str, expected: &[Value], got: &[Value]) -> Vec<Difference> {
    let alike = |want: &Value, got: &Value| match output {
        ERRORS => match want {
            Value::String(part) => contains(&got["msg"], part),
            Value::Object(columns) => columns.iter().all(|(column, want)| match (column.as_str(), want) {
                ("msg" | "stack", Value::String(part)) => contains(&got[column], part),
                _ => same(want, &got[column]),
            }),
            _ => false,
        },
        LATE => want.as_object().is_some_and(|columns| columns.iter().all(|(column, want)| same(want, &got[column]))),
        _ => same(want, got),
    };
    let rows = 0..expected.len().max(got.len());
    let differs = |row: usize| match (expected.get(row), got.get(row)) {
        (Some(want), Some(got)) if alike(want, got) => None,
        (want, got) => Some(Difference { output: output.into(), row, expected: want.cloned(), got: got.cloned() }),
    };
    rows.filter_map(differs).collect()
}

fn contains(text: &Value, part: &str) -> bool {
    text.as_str().is_some_and(|text| text.contains(part))
}

/// Equal as rows: what is null counts as absent, and 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let within = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
            };
            within(a, b) && within(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

/// Differences as a table; of many the first.
pub fn table(differences: &[Difference]) -> String {
    const SHOWN: usize = 20;
    let cell = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
    let name = |output: &str| if output.is_empty() { "(main)".to_string() } else { output.to_string() };
    let mut lines = vec![["output".into(), "row".into(), "expected".into(), "got".into()]];
    lines.extend(
        differences
            .iter()
            .take(SHOWN)
            .map(|difference| [name(&difference.output), difference.row.to_string(), cell(&difference.expected), cell(&difference.got)]),
    );
    let width = |column: usize| lines.iter().map(|line: &[String; 4]| line[column].chars().count()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    let line = |[output, row, expected, got]: &[String; 4]| {
        format!("  {output:first$}  {row:second$}  {expected:third$}  {got}\n").trim_end().to_string() + "\n"
    };
    let mut text: String = lines.iter().map(line).collect();
    if differences.len() > SHOWN {
        text += &format!("  and {} more\n", differences.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_equal_by_value_and_nulls_are_absent() {
        for (a, b, equal) in [
            (json!({"a": 1, "b": null}), json!({"a": 1.0}), true),
            (json!({"a": [1, {"b": null}]}), json!({"a": [1, {}]}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": 1}), json!({"a": 1, "b": 0}), false),
            (json!([1]), json!([1, 2]), false),
        ] {
            assert_eq!(same(&a, &b), equal, "{a} and {b}");
            assert_eq!(same(&b, &a), equal, "{b} and {a}");
        }
    }

    #[test]
    fn differences_name_what_is_missing_and_what_is_too_much() {
        let found = compare("", &[json!({"a": 1}), json!({"a": 2})], &[json!({"a": 1}), json!({"a": 3}), json!({"a": 4})]);
        let rows: Vec<usize> = found.iter().map(|difference| difference.row).collect();
        assert_eq!((rows, &found[1].expected), (vec![1, 2], &None));
        assert!(table(&found).contains("{\"a\":2}") && table(&found).contains("(main)"));
        let error = json!({"msg": "the line is empty", "stack": "count::count at src/lib.rs:7", "element": {"line": ""}});
        for (wanted, count) in [
            (json!("is empty"), 0),
            (json!({"stack": "lib.rs:7"}), 0),
            (json!({"element": {"line": ""}}), 0),
            (json!("is full"), 1),
            (json!({"element": {"line": "x"}}), 1),
        ] {
            assert_eq!(compare(ERRORS, &[wanted], std::slice::from_ref(&error)).len(), count);
        }
    }
}
