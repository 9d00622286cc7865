//! Files that pipelines of both sides wrote, read back as rows; and Parquet files for them to read.
//!
//! Names of shards are ours or Beam's; only what they begin with is compared.

use super::ours::{parquet_files, rows};
use super::value::Value;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of a folder whose names begin so, in order.
pub fn beginning_with(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = paths.filter(|path| path.file_name().unwrap_or_default().to_string_lossy().starts_with(prefix)).collect();
    found.sort();
    found
}

/// The rows of all shards of `name`: JSON as values, CSV as rows of texts, other text as lines.
pub fn written(folder: &Path, name: &str) -> Vec<Value> {
    if name.ends_with(".parquet") {
        return parquet_files(folder, name).iter().flat_map(rows).collect();
    }
    let texts = beginning_with(folder, name);
    let texts = texts.iter().map(|path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    texts.flat_map(|text| if name.ends_with(".csv") { csv(&text) } else { lines(&text, name.ends_with(".json")) }).collect()
}

fn lines(text: &str, json: bool) -> Vec<Value> {
    let value = |line: &str| match json {
        true => Value::from_json(&serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON: {line}: {error}"))),
        false => Value::Text(line.into()),
    };
    text.lines().map(value).collect()
}

/// Each line under the header's names; quoted fields stay whole, since no case writes line ends or commas within quotes.
fn csv(text: &str) -> Vec<Value> {
    let mut lines = text.lines();
    let Some(header) = lines.next() else { return Vec::new() };
    let row =
        |line: &str| Value::Row(header.split(',').map(String::from).zip(line.split(',').map(|cell| Value::Text(cell.into()))).collect());
    lines.map(row).collect()
}

/// Writes rows of numbers, booleans and texts as a Parquet file for a case to read. The first row names the columns and has no nulls.
pub fn write_parquet(path: &Path, rows: &str) {
    let rows: Vec<Json> = serde_json::from_str(rows).expect("rows are a list of JSON objects");
    let first = rows.first().and_then(Json::as_object).expect("there is a row");
    let columns = first.iter().map(|(name, value)| {
        let cells = || rows.iter().map(|row| &row[name]);
        let column: ArrayRef = match value {
            Json::Bool(_) => Arc::new(cells().map(Json::as_bool).collect::<BooleanArray>()),
            Json::Number(number) if number.is_i64() => Arc::new(cells().map(Json::as_i64).collect::<Int64Array>()),
            Json::Number(_) => Arc::new(cells().map(Json::as_f64).collect::<Float64Array>()),
            _ => Arc::new(cells().map(Json::as_str).collect::<StringArray>()),
        };
        (name, column, true)
    });
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length");
    let file = std::fs::File::create(path).expect("a file of a case");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).and_then(|()| writer.close()).expect("a Parquet file");
}
