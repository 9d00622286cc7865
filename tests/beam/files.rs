//! Files that pipelines of both sides wrote, read back as rows.
//!
//! Names of shards are ours or Beam's; only what they begin with is compared.

use super::ours::{parquet_files, rows};
use super::value::Value;
use std::path::{Path, PathBuf};

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
