//! A recording as a file: one line of JSON, then Arrow IPC streams one after the other.
//!
//! ```text
//! {"pelton_recording": 1, "transform": …, "steps": […], "sections": [{"name": "input", "bytes": 4096}, …]}\n
//! <input: the rows of all steps, a batch each, with $time and the windows>
//! <output NAME: likewise, what they gave>
//! <state: rows of the checkpoint>
//! ```

use super::Taped;
use crate::lab::Step;
use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_connect::ipc::{read_ipc, write_ipc};
use pelton_core::batch::{PaneInfo, PaneTiming, Positions, RowWindows};
use pelton_core::evolution::Book;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant, Window};
use pelton_state::Rows;
use pelton_state::rows::{Change, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Version of the file.
const VERSION: u32 = 1;
const TIME: &str = "$time";
const WINDOW_START: &str = "$window_start";
const WINDOW_END: &str = "$window_end";
const INPUT: &str = "input";
const OUTPUT: &str = "output ";
const STATE: &str = "state";

/// What was recorded of a transform.
#[derive(Debug)]
pub struct Recording {
    /// What it was.
    pub about: About,
    /// Columns of its input.
    pub input: SchemaRef,
    /// In order within each task; ports are numbers in `about.outputs`.
    pub steps: Vec<Taped>,
    /// Its state at the beginning, of all tasks: name and rows in order of address.
    pub state: Vec<(String, Rows)>,
}

/// What was recorded, and how it was set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Version of the file.
    pub pelton_recording: u32,
    /// Name of the transform in the pipeline.
    pub transform: String,
    /// The same in the plugin.
    pub plugin_transform: String,
    /// Digest of the plugin.
    pub plugin: String,
    /// Its config.
    pub config: Value,
    /// Key columns of a stateful transform.
    pub key: Vec<String>,
    /// How long after its end a window takes rows.
    pub allowed_lateness_micros: i64,
    /// Tasks of the transform.
    pub tasks: usize,
    /// Names of its outputs, as [`crate::lab::Lab::outputs`] has them.
    pub outputs: Vec<String>,
    /// What its state is made of.
    pub book: Option<Book>,
    /// Layouts of its cells by name.
    pub layouts: BTreeMap<String, String>,
    /// Its unkeyed state, by task and part.
    pub unkeyed: Vec<(String, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    about: About,
    steps: Vec<StepHead>,
    sections: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
struct Section {
    name: String,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct StepHead {
    task: usize,
    /// Processing time, microseconds.
    now: i64,
    what: What,
    /// Outputs that have gained a batch, in order.
    given: Vec<(usize, Option<Pane>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum What {
    Rows(Option<Pane>),
    /// Microseconds; none: the input is idle.
    Watermark(Option<i64>),
    Tick,
    End,
}

/// Timing, first, last, index, index among those that are not early.
type Pane = (u8, bool, bool, i64, i64);

const TIMINGS: [PaneTiming; 4] = [PaneTiming::Early, PaneTiming::OnTime, PaneTiming::Late, PaneTiming::Unknown];

impl About {
    /// With the version of the file that is written now.
    pub fn version() -> u32 {
        VERSION
    }
}

impl Recording {
    /// As it is written to a file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut input = Vec::new();
        let mut outputs: Vec<Vec<RecordBatch>> = self.about.outputs.iter().map(|_| Vec::new()).collect();
        let mut steps = Vec::new();
        for taped in &self.steps {
            let what = match &taped.step {
                Step::Rows(batch) => {
                    input.push(marked(batch)?);
                    What::Rows(pane_of(batch))
                }
                Step::Watermark(Watermark::Active(at)) => What::Watermark(Some(at.micros())),
                Step::Watermark(Watermark::Idle) => What::Watermark(None),
                Step::Tick => What::Tick,
                Step::End => What::End,
            };
            let mut given = Vec::new();
            for (port, batch) in &taped.given {
                outputs.get_mut(*port).ok_or("an output without a name")?.push(marked(batch)?);
                given.push((*port, pane_of(batch)));
            }
            steps.push(StepHead { task: taped.task, now: taped.now.micros(), what, given });
        }
        let mut sections = vec![(INPUT.to_string(), ipc(input, &self.input)?)];
        for (name, batches) in self.about.outputs.iter().zip(outputs) {
            sections.push((format!("{OUTPUT}{name}"), ipc(batches, &Schema::empty())?));
        }
        let state = state_batch(&self.state)?;
        sections.push((STATE.into(), write_ipc(&state.schema(), &[state])?));
        let heads = sections.iter().map(|(name, bytes)| Section { name: name.clone(), bytes: bytes.len() }).collect();
        let head = Head { about: self.about.clone(), steps, sections: heads };
        let mut all = serde_json::to_vec(&head).map_err(|error| error.to_string())?;
        all.push(b'\n');
        sections.into_iter().for_each(|(_, bytes)| all.extend(bytes));
        Ok(all)
    }

    /// Reads it. Errors are sentences.
    pub fn from_bytes(bytes: &[u8]) -> Result<Recording, String> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it is no recording: it has no header")?;
        let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|error| format!("it is no recording: {error}"))?;
        if head.about.pelton_recording != VERSION {
            return Err(format!("it is a recording of version {}, and this Pelton reads {VERSION}", head.about.pelton_recording));
        }
        let (mut at, mut read) = (end + 1, BTreeMap::new());
        for Section { name, bytes: length } in &head.sections {
            let section = at.checked_add(*length).and_then(|end| bytes.get(at..end)).ok_or("it ends in the middle: it was cut off")?;
            read.insert(name.clone(), read_ipc(section)?.into_iter());
            at += length;
        }
        let input = read.get(INPUT).and_then(|batches| batches.as_slice().first()).map(|batch| own_schema(&batch.schema()));
        let mut next = |name: &str| -> Result<RecordBatch, String> {
            read.get_mut(name).and_then(Iterator::next).ok_or_else(|| format!("it has too few batches of `{name}`"))
        };
        let mut steps = Vec::new();
        for StepHead { task, now, what, given } in head.steps {
            let step = match what {
                What::Rows(pane) => Step::Rows(unmarked(&next(INPUT)?, pane)?),
                What::Watermark(at) => {
                    Step::Watermark(at.map_or(Watermark::Idle, |at| Watermark::Active(Instant::from_micros_saturating(at))))
                }
                What::Tick => Step::Tick,
                What::End => Step::End,
            };
            let batch = |(port, pane): (usize, Option<Pane>)| {
                let name = head.about.outputs.get(port).ok_or("it names an output that it has not got")?;
                Ok((port, unmarked(&next(&format!("{OUTPUT}{name}"))?, pane)?))
            };
            let given = given.into_iter().map(batch).collect::<Result<_, String>>()?;
            steps.push(Taped { task, step, now: Instant::from_micros_saturating(now), given });
        }
        let state = next(STATE).map_or(Ok(Vec::new()), |batch| state_rows(&batch))?;
        let input = input.ok_or("no rows came while it was recorded")?;
        Ok(Recording { about: head.about, input, steps, state })
    }
}

fn ipc(batches: Vec<RecordBatch>, none: &Schema) -> Result<Vec<u8>, String> {
    let schema = batches.first().map_or_else(|| Arc::new(none.clone()), RecordBatch::schema);
    write_ipc(&schema, &batches)
}

/// A batch with its event times and windows as columns.
fn marked(batch: &Batch) -> Result<RecordBatch, String> {
    let window = |end: fn(&Window) -> Instant| -> ArrayRef {
        Arc::new(match &batch.windows {
            Some(windows) => {
                Int64Array::from_iter_values(windows.index.iter().map(|number| end(&windows.table[*number as usize]).micros()))
            }
            None => Int64Array::new_null(batch.num_rows()),
        })
    };
    let times: ArrayRef = Arc::new(Int64Array::new(batch.times.clone(), None));
    let added = [(TIME, times), (WINDOW_START, window(|window| window.start)), (WINDOW_END, window(|window| window.end))];
    let fields = added.iter().map(|(name, _)| Arc::new(Field::new(*name, DataType::Int64, true)));
    let fields: Vec<_> = batch.rows.schema().fields().iter().cloned().chain(fields).collect();
    let columns = batch.rows.columns().iter().cloned().chain(added.iter().map(|(_, column)| column.clone())).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
}

fn own_schema(marked: &Schema) -> SchemaRef {
    let own = marked.fields().len().saturating_sub(3);
    Arc::new(Schema::new(marked.fields()[..own].to_vec()))
}

fn unmarked(rows: &RecordBatch, pane: Option<Pane>) -> Result<Batch, String> {
    let numbers = |name: &str| -> Result<Int64Array, String> {
        let column = rows.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        column.cloned().ok_or_else(|| format!("a batch has no column `{name}`"))
    };
    let (times, starts, ends) = (numbers(TIME)?, numbers(WINDOW_START)?, numbers(WINDOW_END)?);
    let own: Vec<usize> = (0..rows.num_columns().saturating_sub(3)).collect();
    let mut batch = Batch::new(rows.project(&own).map_err(|error| error.to_string())?, times.values().clone(), Positions::None);
    if let Some((timing, is_first, is_last, index, nonspeculative_index)) = pane {
        let mut table: Vec<Window> = Vec::new();
        let mut places = Vec::with_capacity(rows.num_rows());
        for (start, end) in starts.values().iter().zip(ends.values()) {
            let window = Window { start: Instant::from_micros_saturating(*start), end: Instant::from_micros_saturating(*end) };
            if table.last() != Some(&window) {
                table.push(window);
            }
            places.push(table.len() as u32 - 1);
        }
        let timing = *TIMINGS.get(usize::from(timing)).ok_or("a pane has no timing")?;
        let pane = PaneInfo { timing, is_first, is_last, index, nonspeculative_index };
        batch.windows = Some(RowWindows { index: places.into(), table: table.into(), pane });
    }
    Ok(batch)
}

fn pane_of(batch: &Batch) -> Option<Pane> {
    let pane = batch.windows.as_ref()?.pane;
    let timing = TIMINGS.iter().position(|timing| *timing == pane.timing)? as u8;
    Some((timing, pane.is_first, pane.is_last, pane.index, pane.nonspeculative_index))
}

/// Rows of state as columns: name, address, length of its key, value.
fn state_batch(state: &[(String, Rows)]) -> Result<RecordBatch, String> {
    let mut all: Vec<(&str, Row<'_>, &[u8])> = Vec::new();
    for (name, rows) in state {
        for row in rows.iter() {
            if let Change::Put(value) = row.change {
                all.push((name, row, value));
            }
        }
    }
    let columns: [(&str, ArrayRef); 4] = [
        ("name", Arc::new(StringArray::from_iter_values(all.iter().map(|(name, ..)| name)))),
        ("address", Arc::new(BinaryArray::from_iter_values(all.iter().map(|(_, row, _)| row.address)))),
        ("key", Arc::new(UInt32Array::from_iter_values(all.iter().map(|(_, row, _)| row.key_len)))),
        ("value", Arc::new(BinaryArray::from_iter_values(all.iter().map(|(.., value)| value)))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())
}

fn state_rows(batch: &RecordBatch) -> Result<Vec<(String, Rows)>, String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("the state has no column `{name}`"));
    let wrong = "the state has a column of another type";
    let names = column("name")?.as_any().downcast_ref::<StringArray>().ok_or(wrong)?;
    let addresses = column("address")?.as_any().downcast_ref::<BinaryArray>().ok_or(wrong)?;
    let keys = column("key")?.as_any().downcast_ref::<UInt32Array>().ok_or(wrong)?;
    let values = column("value")?.as_any().downcast_ref::<BinaryArray>().ok_or(wrong)?;
    let mut state: Vec<(String, Rows)> = Vec::new();
    for row in 0..batch.num_rows() {
        if state.last().is_none_or(|(name, _)| name != names.value(row)) {
            state.push((names.value(row).into(), Rows::default()));
        }
        let (_, rows) = state.last_mut().ok_or(wrong)?;
        rows.push(Row { address: addresses.value(row), key_len: keys.value(row), change: Change::Put(values.value(row)) });
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_core::WindowFn;

    fn batch(times: &[i64]) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(times.iter().copied()));
        let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let batch = Batch::new(rows, times.to_vec().into(), Positions::None);
        let window_fn = WindowFn::Fixed { size: pelton_core::Duration::from_micros(10), offset: pelton_core::Duration::ZERO };
        crate::windows::fixed(batch, window_fn, &mut Default::default())
    }

    fn recording() -> Recording {
        let mut rows = Rows::default();
        rows.push(Row { address: b"address", key_len: 3, change: Change::Put(b"value") });
        let taped = |step, given| Taped { task: 1, step, now: Instant::from_micros_saturating(7), given };
        let about = About {
            pelton_recording: About::version(),
            transform: "T".into(),
            plugin_transform: "t".into(),
            plugin: "sha256:1".into(),
            config: serde_json::json!({"a": 1}),
            key: vec!["n".into()],
            allowed_lateness_micros: 5,
            tasks: 2,
            outputs: vec![String::new(), "errors".into()],
            book: None,
            layouts: BTreeMap::from([("cells".into(), "i64".into())]),
            unkeyed: vec![("0/".into(), vec![1, 2])],
        };
        let steps = vec![
            taped(Step::Rows(batch(&[1, 12, 13])), vec![(0, batch(&[1])), (1, batch(&[12]))]),
            taped(Step::Watermark(Watermark::Active(Instant::from_micros_saturating(20))), vec![]),
            taped(Step::Watermark(Watermark::Idle), vec![]),
            taped(Step::Tick, vec![(0, batch(&[3, 4]))]),
        ];
        Recording { about, input: batch(&[1]).schema(), steps, state: vec![("cells".into(), rows)] }
    }

    #[test]
    fn what_is_written_is_read() {
        let written = recording();
        let read = Recording::from_bytes(&written.to_bytes().unwrap()).unwrap();
        assert_eq!(format!("{:?}", read.steps), format!("{:?}", written.steps));
        assert_eq!(format!("{:?}{:?}", read.about, read.input), format!("{:?}{:?}", written.about, written.input));
        let state: Vec<Vec<Row<'_>>> = [&read, &written].map(|recording| recording.state[0].1.iter().collect()).into();
        assert_eq!(state[0], state[1]);
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let bytes = recording().to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(Recording::from_bytes(&bytes[..length]).is_err(), "cut off after {length} bytes");
        }
        let text = String::from_utf8_lossy(&bytes[..bytes.len() / 4]).into_owned();
        let other = text.lines().next().unwrap_or_default().replace("\"pelton_recording\":1", "\"pelton_recording\":9");
        assert!(Recording::from_bytes(format!("{other}\n").as_bytes()).unwrap_err().contains("version 9"));
    }
}
