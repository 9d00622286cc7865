//! Rows that wait for their side inputs, by window and, where the transform keeps state by key, by that key; in a cell in the order in which
//! they came.
//!
//! ```text
//! row = the columns, then [`CARRIED`]: all that a batch knows of a row (`KeyEncoder::for_rows`)
//! ```
//!
//! Where there is no such key, all rows of a task have a key of its own, whose key group it owns: so no two tasks ever write one address in a
//! checkpoint, and after a restart the rows are where the key group is.
//!
//! Invariant: a row comes out as it came in, but for the batch that it is in.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use pelton_core::batch::{MAX_ROWS, PaneInfo, PaneTiming, RowWindows};
use pelton_core::key::{KeyEncoder, Keys, group_owner, key_group, key_hash};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::{Batch, Instant, Positions, Split, Window};
use pelton_state::{CellKey, Cells, ColumnId, HoldsId, Slot};
use std::collections::HashMap;
use std::sync::Arc;

/// What is kept of a row besides its columns: event time; start and end of its window and its pane (index, index among those that are not
/// early, timing, flags), null before windows are fixed; its split's id and its offset there, null without a position.
const CARRIED: [DataType; 9] = {
    const I: DataType = DataType::Int64;
    [I, I, I, I, I, I, I, DataType::Utf8, I]
};

/// The rows.
pub struct Waiting {
    schema: SchemaRef,
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    cells: Cells,
    rows: ColumnId,
    count: ColumnId,
    holds: HoldsId,
    bytes: Keys,
}

/// The types of what is kept of rows with these columns.
pub fn kept_types(schema: &SchemaRef) -> Vec<DataType> {
    schema.fields().iter().map(|field| field.data_type().clone()).chain(CARRIED).collect()
}

/// The key of the rows of a task, of so many, whose transform has none itself.
pub fn key_of_task(task: usize, tasks: usize) -> Vec<u8> {
    let owned = |key: &[u8; 4]| group_owner(key_group(key_hash(key)), tasks) == task;
    // Keys spread over all groups.
    (0u32..).map(u32::to_be_bytes).find(owned).expect("every task owns a key group").to_vec()
}

impl Waiting {
    /// None.
    pub fn new(schema: SchemaRef) -> Result<Waiting, String> {
        let types = kept_types(&schema);
        let mut cells = Cells::default();
        let (rows, count) = (cells.declare(Vec::<u8>::new()), cells.declare(0i64));
        let holds = cells.declare_holds();
        let (encoder, decoder) = (KeyEncoder::for_rows(&types)?, KeyDecoder::new(&types)?);
        Ok(Waiting { schema, encoder, decoder, cells, rows, count, holds, bytes: Keys::default() })
    }

    /// Keeps the rows of a batch, by their keys and windows.
    pub fn push<'k>(&mut self, batch: &Batch, key: impl Fn(usize) -> &'k [u8], windows: &[Window]) {
        let columns: Vec<ArrayRef> = batch.rows.columns().iter().cloned().chain(carried(batch)).collect();
        self.encoder.encode(&columns, &mut self.bytes);
        for (row, window) in windows.iter().enumerate() {
            let (slot, _) = self.cells.entry(CellKey { key: key(row), window: *window });
            let mut touched = self.cells.touch(&[slot]);
            touched.column::<Vec<u8>>(self.rows)[slot as usize].extend_from_slice(self.bytes.get(row));
            touched.column::<i64>(self.count)[slot as usize] += 1;
            let time = Instant::from_micros_saturating(batch.times[row]);
            let hold = self.cells.hold(self.holds, slot).map_or(time, |hold| hold.min(time));
            self.cells.set_hold(self.holds, slot, Some(hold));
        }
    }

    /// Takes the rows out whose windows are ready.
    pub fn take(&mut self, ready: impl Fn(Window) -> bool) -> Result<Vec<Batch>, String> {
        let mut known: HashMap<Window, bool> = HashMap::new();
        let mut is_ready = |window: Window| *known.entry(window).or_insert_with(|| ready(window));
        let mut slots: Vec<Slot> = self.cells.slots().filter(|slot| is_ready(self.cells.key(*slot).window)).collect();
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        // What came first in time comes out first; which slots there are says nothing.
        slots.sort_by_key(|slot| {
            let CellKey { key, window } = self.cells.key(*slot);
            (self.cells.hold(self.holds, *slot), window, key.to_vec())
        });
        let (rows, counts) = (self.cells.column::<Vec<u8>>(self.rows), self.cells.column::<i64>(self.count));
        let pieces = slots.iter().map(|slot| (rows[*slot as usize].as_slice(), counts[*slot as usize] as usize));
        let columns = self.decoder.decode_rows(pieces.clone())?;
        let mut batches = Vec::new();
        self.batches(&columns, pieces.map(|(_, count)| count).sum(), &mut batches)?;
        slots.into_iter().for_each(|slot| self.cells.remove(slot));
        Ok(batches)
    }

    /// Cuts rows into batches of one split and one pane each.
    fn batches(&self, columns: &[ArrayRef], count: usize, out: &mut Vec<Batch>) -> Result<(), String> {
        let own = self.schema.fields().len();
        let carried = Carried::of(&columns[own..]);
        let mut start = 0;
        while start < count {
            let alike = (start + 1..count.min(start + MAX_ROWS)).find(|row| !carried.alike(start, *row));
            let end = alike.unwrap_or(count.min(start + MAX_ROWS));
            let options = RecordBatchOptions::new().with_row_count(Some(end - start));
            let rows = columns[..own].iter().map(|column| column.slice(start, end - start)).collect();
            let rows = RecordBatch::try_new_with_options(self.schema.clone(), rows, &options).map_err(|error| error.to_string())?;
            out.push(carried.batch(rows, start, end));
            start = end;
        }
        Ok(())
    }

    /// The earliest event time of a row that waits.
    pub fn hold(&self) -> Option<Instant> {
        self.cells.earliest_hold(self.holds)
    }

    /// Rows that wait.
    pub fn len(&self) -> u64 {
        let counts = self.cells.column::<i64>(self.count);
        self.cells.slots().map(|slot| counts[slot as usize] as u64).sum()
    }

    /// None wait.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The rows, to be kept for good.
    pub fn cells(&mut self) -> &mut Cells {
        &mut self.cells
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.cells.bytes()
    }
}

/// The columns of [`CARRIED`] for a batch.
fn carried(batch: &Batch) -> [ArrayRef; 9] {
    let rows = batch.num_rows();
    let nothing = || new_null_array(&DataType::Int64, rows);
    let same = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value; rows])) };
    let times: ArrayRef = Arc::new(Int64Array::new(batch.times.clone(), None));
    let [start, end, index, nonspeculative, timing, flags] = match &batch.windows {
        None => [(); 6].map(|()| nothing()),
        Some(windows) => {
            let at = |instant: fn(&Window) -> Instant| -> ArrayRef {
                let values = windows.index.iter().map(|number| instant(&windows.table[*number as usize]).micros());
                Arc::new(Int64Array::from_iter_values(values))
            };
            let pane = windows.pane;
            let timing = TIMINGS.iter().position(|timing| *timing == pane.timing).expect("all are listed") as i64;
            let flags = i64::from(pane.is_first) | i64::from(pane.is_last) << 1;
            let (start, end) = (at(|window| window.start), at(|window| window.end));
            [start, end, same(pane.index), same(pane.nonspeculative_index), same(timing), same(flags)]
        }
    };
    let (split, offsets): (ArrayRef, ArrayRef) = match &batch.positions {
        Positions::None => (new_null_array(&DataType::Utf8, rows), nothing()),
        Positions::At { split, offsets } => {
            let id = split.id();
            (Arc::new(StringArray::from(vec![id.as_str(); rows])), Arc::new(Int64Array::new(offsets.clone(), None)))
        }
    };
    [times, start, end, index, nonspeculative, timing, flags, split, offsets]
}

const TIMINGS: [PaneTiming; 4] = [PaneTiming::Early, PaneTiming::OnTime, PaneTiming::Late, PaneTiming::Unknown];

/// The columns of [`CARRIED`], to read.
struct Carried<'a> {
    numbers: Vec<Option<&'a Int64Array>>,
    splits: &'a StringArray,
}

const TIME: usize = 0;
const START: usize = 1;
const END: usize = 2;
const PANE: usize = 3;
const SPLIT: usize = 7;
const OFFSET: usize = 8;

impl<'a> Carried<'a> {
    fn of(columns: &'a [ArrayRef]) -> Carried<'a> {
        let numbers = columns.iter().map(|column| column.as_primitive_opt::<Int64Type>()).collect();
        Carried { numbers, splits: columns[SPLIT].as_string() }
    }

    fn number(&self, column: usize, row: usize) -> Option<i64> {
        self.numbers[column].filter(|numbers| numbers.is_valid(row)).map(|numbers| numbers.value(row))
    }

    fn split(&self, row: usize) -> Option<&str> {
        self.splits.is_valid(row).then(|| self.splits.value(row))
    }

    /// Whether two rows can be in one batch.
    fn alike(&self, a: usize, b: usize) -> bool {
        let same = |column: usize| self.number(column, a) == self.number(column, b);
        (PANE..SPLIT).all(same) && self.split(a) == self.split(b) && self.number(START, a).is_some() == self.number(START, b).is_some()
    }

    /// Rows that are alike, with all that is known of them.
    fn batch(&self, rows: RecordBatch, start: usize, end: usize) -> Batch {
        let all = |column: usize| (start..end).map(move |row| self.number(column, row).unwrap_or_default());
        let at = |column: usize, row: usize| Instant::from_micros_saturating(self.number(column, row).unwrap_or_default());
        let windows = self.number(START, start).map(|_| {
            let mut table: Vec<Window> = Vec::new();
            let index = (start..end).map(|row| {
                let window = Window { start: at(START, row), end: at(END, row) };
                if table.last() != Some(&window) {
                    table.push(window);
                }
                table.len() as u32 - 1
            });
            let index: Vec<u32> = index.collect();
            let [pane, nonspeculative, timing, flags] = [0, 1, 2, 3].map(|next| self.number(PANE + next, start).unwrap_or_default());
            let timing = TIMINGS.get(timing as usize).copied().unwrap_or(PaneTiming::Unknown);
            let (is_first, is_last) = (flags & 1 != 0, flags & 2 != 0);
            let pane = PaneInfo { timing, is_first, is_last, index: pane, nonspeculative_index: nonspeculative };
            RowWindows { index: index.into(), table: table.into(), pane }
        });
        let split = self.split(start).and_then(Split::from_id);
        let positions = match split {
            None => Positions::None,
            Some(split) => Positions::At { split: Arc::new(split), offsets: all(OFFSET).collect() },
        };
        Batch { rows, times: all(TIME).collect(), windows, positions }
    }
}

/// Rows of a batch by number.
pub fn pick(batch: &Batch, rows: &[u32]) -> Batch {
    if rows.len() == batch.num_rows() { batch.clone() } else { batch.take(&UInt32Array::from(rows.to_vec())) }
}
