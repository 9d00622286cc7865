//! The cells in a checkpoint or a savepoint, and what is kept by partition, for people: shown one by one, or written to a file.
//!
//! Invariant: there may be more of them than fit into memory.

use super::inspect::{Trouble, look};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_connect::ParquetFile;
use pelton_core::key::KEY_GROUPS;
use pelton_state::durable::{Snapshot, StateEntry};
use pelton_state::layout::{CellState, Value};
use pelton_state::rows::CELL;
use pelton_state::{Change, Clock, Layout, Row};
use serde::Serialize;
use std::cell::Cell as Counter;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of a Parquet file that are in memory.
const ROWS_AT_ONCE: usize = 1_024;

/// Which cells are wanted; by default all, and what is kept by partition.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those whose key begins so, hexadecimal.
    pub key: Option<String>,
    /// Those of the window that starts then, RFC 3339.
    pub window: Option<String>,
}

/// A line of what is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Shown {
    /// What is kept by key.
    Cell(Box<Cell>),
    /// What is kept by partition.
    Part(Part),
}

/// A cell, in words that JSON has. Items are cells of their own, with `item`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The state of the operator.
    pub state: String,
    /// The canonical key, hexadecimal.
    pub key: String,
    /// Its texts.
    pub key_text: String,
    /// When its window begins, RFC 3339.
    pub window_start: String,
    /// When it ends.
    pub window_end: String,
    /// Of an item: its set, and its key, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<(u8, String)>,
    /// Of a cell of a plugin: the era of the types that it was written in (`pelton state ls`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub era: Option<u32>,
    /// By column: numbers, and hexadecimal bytes.
    pub values: Vec<serde_json::Value>,
    /// Pending timers: clock, tag, time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<(String, u8, String)>,
    /// Event times that it keeps the watermark from passing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
}

/// A partition of a state that is not kept by key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The state of the operator.
    pub state: String,
    /// The task that has written it, and what it calls it.
    pub partition: String,
    /// Its bytes, hexadecimal.
    pub value: String,
}

/// Whoever takes what is shown.
type Each<'a> = &'a mut dyn FnMut(Shown) -> Result<(), String>;

/// All that is wanted of an operator's state, in the order in which it is stored.
pub async fn show(place: &str, uid: &str, wanted: &Wanted, each: Each<'_>) -> Result<(), String> {
    let begun = Counter::new(false);
    let mut each = |shown| {
        begun.set(true);
        each(shown)
    };
    look(place, async |snapshot: &Snapshot| read(snapshot, uid, wanted, &mut each).await, || !begun.get()).await
}

/// Writes it to a file: Parquet if its name says so, JSON lines otherwise. Gives the number of lines or rows.
pub async fn export(place: &str, uid: &str, wanted: &Wanted, file: &Path) -> Result<usize, String> {
    let export = async |snapshot: &Snapshot| {
        // The file gets its name when it is whole.
        let mut sheet = Sheet::create(file)?;
        read(snapshot, uid, wanted, &mut |shown| sheet.push(shown)).await?;
        Ok(sheet.finish(file)?)
    };
    look(place, export, || true).await
}

async fn read(snapshot: &Snapshot, uid: &str, wanted: &Wanted, each: Each<'_>) -> Result<(), Trouble> {
    let operators = &snapshot.manifest().contents.operators;
    let Some(operator) = operators.iter().find(|operator| operator.uid == uid) else {
        let known: Vec<&str> = operators.iter().map(|operator| operator.uid.as_str()).collect();
        return Err(Trouble::Other(format!("there is no operator with the uid `{uid}`; there are: {}", known.join(", "))));
    };
    let all = wanted.key.is_none() && wanted.window.is_none();
    for state in &operator.states {
        match state.unkeyed {
            false => keyed(snapshot, uid, state, wanted, &mut *each).await?,
            true if all => {
                for (partition, bytes) in snapshot.parts(uid, &state.name).await? {
                    each(Shown::Part(Part { state: state.name.clone(), partition, value: hex(&bytes) }))?;
                }
            }
            true => {}
        }
    }
    Ok(())
}

async fn keyed(snapshot: &Snapshot, uid: &str, state: &StateEntry, wanted: &Wanted, each: Each<'_>) -> Result<(), Trouble> {
    let layout = Layout::parse(&state.layout).ok_or_else(|| format!("the layout `{}` is of a newer version", state.layout))?;
    let key = wanted.key.as_ref().map(|key| key.to_lowercase());
    let mut rows = snapshot.rows(uid, &state.name, 0..KEY_GROUPS).await?;
    while let Some(chunk) = rows.next().await? {
        for row in chunk.iter() {
            let Some(cell) = cell(&state.name, &layout, &row, key.as_deref(), wanted.window.as_deref())? else { continue };
            each(Shown::Cell(Box::new(cell)))?;
        }
    }
    Ok(())
}

/// `None`: it is not wanted.
fn cell(state: &str, layout: &Layout, row: &Row<'_>, prefix: Option<&str>, start: Option<&str>) -> Result<Option<Cell>, String> {
    let (Change::Put(bytes), Some(key), Some(window), Some((part, item))) = (row.change, row.key(), row.window(), row.part()) else {
        return Ok(None);
    };
    let (text, window_start) = (hex(key), window.start.to_string());
    if prefix.is_some_and(|prefix| !text.starts_with(prefix)) || start.is_some_and(|start| start != window_start) {
        return Ok(None);
    }
    let mut cell = Cell {
        state: state.into(),
        key: text,
        key_text: String::from_utf8_lossy(key).chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect(),
        window_start,
        window_end: window.end.to_string(),
        item: None,
        era: None,
        values: Vec::new(),
        timers: Vec::new(),
        holds: Vec::new(),
    };
    match part {
        CELL => fill(&mut cell, layout, bytes)?,
        set => (cell.item, cell.values) = (Some((set - 1, hex(item))), vec![hex(bytes).into()]),
    }
    Ok(Some(cell))
}

fn fill(cell: &mut Cell, layout: &Layout, bytes: &[u8]) -> Result<(), String> {
    let mut state = CellState::default();
    layout.decode(bytes, &mut state).map_err(|error| error.to_string())?;
    cell.era = state.era;
    cell.values = state.values.iter().map(json).collect();
    let clock = |clock: &Clock| if *clock == Clock::Event { "event" } else { "processing" };
    cell.timers = state.timers.iter().map(|(on, tag, at)| (clock(on).to_string(), tag.0, at.to_string())).collect();
    cell.holds = state.holds.iter().map(|(_, at)| at.to_string()).collect();
    Ok(())
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::I64(number) => (*number).into(),
        Value::I128(number) => number.to_string().into(),
        Value::F64(number) => (*number).into(),
        Value::Bytes(bytes) => hex(bytes).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that is being written, under another name.
struct Sheet {
    temporary: PathBuf,
    out: Out,
    count: usize,
}

#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Out {
    Lines(BufWriter<File>),
    Parquet { file: Box<ParquetFile>, schema: SchemaRef, rows: Vec<[String; COLUMNS.len()]> },
}

/// Of the Parquet file; `cell` is all of it as JSON. What is kept by partition has its name as `key_text`, and no key and window.
const COLUMNS: [&str; 6] = ["state", "key", "key_text", "window_start", "window_end", "cell"];

impl Sheet {
    fn create(file: &Path) -> Result<Sheet, String> {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".part");
        let temporary = file.with_file_name(name);
        let out = match file.extension().is_some_and(|extension| extension == "parquet") {
            false => File::create(&temporary).map(|file| Out::Lines(BufWriter::new(file))).map_err(|error| error.to_string()),
            true => {
                let fields: Vec<Field> = COLUMNS.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect();
                let schema = Arc::new(Schema::new(fields));
                ParquetFile::create(&temporary, schema.clone()).map(|file| Out::Parquet { file: Box::new(file), schema, rows: Vec::new() })
            }
        };
        let out = out.map_err(|error| format!("cannot write {}: {error}", temporary.display()))?;
        Ok(Sheet { temporary, out, count: 0 })
    }

    fn push(&mut self, shown: Shown) -> Result<(), String> {
        let line = serde_json::to_string(&shown).map_err(|error| error.to_string())?;
        let pushed = match &mut self.out {
            Out::Lines(out) => writeln!(out, "{line}").map_err(|error| error.to_string()),
            Out::Parquet { file, schema, rows } => {
                rows.push(match shown {
                    Shown::Cell(cell) => [cell.state, cell.key, cell.key_text, cell.window_start, cell.window_end, line],
                    Shown::Part(part) => [part.state, String::new(), part.partition, String::new(), String::new(), line],
                });
                if rows.len() < ROWS_AT_ONCE { Ok(()) } else { write(file, schema, rows) }
            }
        };
        self.count += 1;
        pushed.map_err(|error| format!("cannot write {}: {error}", self.temporary.display()))
    }

    fn finish(self, file: &Path) -> Result<usize, String> {
        let written = match self.out {
            Out::Lines(mut out) => out.flush().map_err(|error| error.to_string()),
            Out::Parquet { file: mut out, schema, mut rows } => write(&mut out, &schema, &mut rows).and_then(|()| out.close()),
        };
        let named = written.and_then(|()| std::fs::rename(&self.temporary, file).map_err(|error| error.to_string()));
        named.map(|()| self.count).map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

fn write(file: &mut ParquetFile, schema: &SchemaRef, rows: &mut Vec<[String; COLUMNS.len()]>) -> Result<(), String> {
    let rows = std::mem::take(rows);
    let column = |number: usize| Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[number]))) as ArrayRef;
    let batch = RecordBatch::try_new(schema.clone(), (0..COLUMNS.len()).map(column).collect());
    file.write(&batch.map_err(|error| error.to_string())?)
}
