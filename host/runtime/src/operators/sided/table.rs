//! One side input: its rows by window, and by key if it is a dict.
//!
//! Of a dict and a singleton the newest row of a cell counts: that of the highest pane, of one pane the latest in event time, of one time the
//! one with the largest bytes (`KeyEncoder::for_rows`). So what is found does not depend on the order in which rows came, nor on the number
//! of tasks. An iterable keeps all rows, and gives them out in the order of time and bytes.
//!
//! Every task has all rows: a side input is repeated to each of them. So a checkpoint has a copy of each task, as unkeyed state, and after a
//! restart each task takes what any of them had: one may have dropped windows that another still needs.
//!
//! ```text
//! copy = length of the columns: varint | their names and types, as text | cell*
//! cell = length of the key: varint | key | start, end of the window: signed varints | time, pane: signed varints | length: varint | row
//! ```

use super::clock::Clock;
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::operators::timed_join::rows::{each, push};
use crate::windows;
use arrow::array::{Array, ArrayRef, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field};
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::watermark::closes_at;
use pelton_core::{Batch, Duration, Instant, Window, WindowFn, varint};
use pelton_expr::Expression;
use pelton_state::{CellKey, Cells, Clock as By, ColumnId, Slot, TimerTag};
use std::collections::HashMap;
use std::sync::Arc;

const CLOSE: TimerTag = TimerTag(0);
/// Bytes of one iterable. Each row that looks into it gets a copy, so a larger one belongs into a join.
const MAX_ITERABLE_BYTES: usize = 1 << 20;

/// How a side input is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The newest row; with `required` a row that finds none is refused.
    Singleton { required: bool },
    /// All rows, as a list a column.
    Iterable,
    /// The newest row of each key.
    Dict,
}

/// What a side input is; the same for all tasks.
#[derive(Clone)]
pub struct SidePlan {
    /// What it is called.
    pub tag: String,
    /// How it is read.
    pub shape: Shape,
    /// The key of a dict, of the side input's rows.
    pub key: Vec<Expression>,
    /// Its type.
    pub key_types: Vec<DataType>,
    /// Its columns that are read.
    pub columns: Vec<String>,
    /// Their types.
    pub types: Vec<DataType>,
    /// Its windows.
    pub window_fn: WindowFn,
    /// How long after its end a window can still be looked into.
    pub allowed_lateness: Duration,
    /// Whether it can be read from its first row on.
    pub from_first_row: bool,
    /// How often what is seen of it changes.
    pub refresh: Option<Duration>,
}

/// A column that a row gets from a side input.
#[derive(Clone)]
pub struct Wanted {
    /// Number among the side input's columns.
    pub column: usize,
    /// One row: what stands there where nothing is found.
    pub missing: ArrayRef,
}

/// The rows of a side input.
pub struct Table {
    pub plan: SidePlan,
    /// How far it has come.
    pub clock: Clock,
    encoder: KeyEncoder,
    rows: KeyEncoder,
    decoder: KeyDecoder,
    cells: Cells,
    time: ColumnId,
    pane: ColumnId,
    /// The row, or all rows of an iterable.
    row: ColumnId,
    /// With `refresh`: cells that are not seen yet, and when they will be.
    coming: Vec<Slot>,
    refresh_at: Option<Instant>,
}

/// The first byte of the key of a cell that is not seen yet, and of the one that says that a window has had a row. Canonical keys begin with
/// neither.
const COMING: u8 = 0xFE;
const SEEN: u8 = 0xFF;

/// A row on its way into a cell.
struct Incoming<'a> {
    time: i64,
    pane: i64,
    row: &'a [u8],
}

impl Table {
    /// Empty. `channels` of the task feed it.
    pub fn new(plan: SidePlan, channels: &[usize]) -> Result<Table, String> {
        let mut cells = Cells::default();
        let (time, pane, row) = (cells.declare(0i64), cells.declare(0i64), cells.declare(Vec::<u8>::new()));
        Ok(Table {
            encoder: KeyEncoder::new(&plan.key_types)?,
            rows: KeyEncoder::for_rows(&plan.types)?,
            decoder: KeyDecoder::new(&plan.types)?,
            clock: Clock::new(channels),
            cells,
            time,
            pane,
            row,
            coming: Vec::new(),
            refresh_at: None,
            plan,
        })
    }

    /// Takes rows. Those of windows that nobody will look into any more are dropped, and counted in what is given back.
    pub fn insert(&mut self, transform: &str, batch: &Batch, passed: Instant, now: Instant) -> Result<u64, Failure> {
        let keys = group_columns(transform, &self.plan.key, batch)?;
        let nulls: Vec<_> = keys.iter().filter_map(|key| key.logical_nulls()).collect();
        let column = |name: &String| batch.rows.column_by_name(name).expect("the column was there when the plan was bound").clone();
        let columns: Vec<ArrayRef> = self.plan.columns.iter().map(column).collect();
        let (mut key_bytes, mut row_bytes) = (Keys::default(), Keys::default());
        encode(&self.encoder, &keys, batch.num_rows(), &mut key_bytes);
        encode(&self.rows, &columns, batch.num_rows(), &mut row_bytes);
        let pane = batch.windows.as_ref().map_or(0, |windows| windows.pane.index);
        let (window_fn, allowed, waits) = (self.plan.window_fn, self.plan.allowed_lateness, self.plan.refresh.is_some());
        let (mut late, mut coming) = (0, Vec::new());
        windows::for_each(batch, window_fn, |row, window| {
            if window != Window::GLOBAL && closes_at(window, allowed) <= passed {
                late += 1;
                return;
            }
            // Null equals nothing, so nobody finds such a row; that the side input has begun can be seen all the same.
            if !nulls.iter().any(|nulls| nulls.is_null(row)) {
                let incoming = Incoming { time: batch.times[row], pane, row: row_bytes.get(row) };
                match waits {
                    false => self.put(CellKey { key: key_bytes.get(row), window }, &incoming),
                    true => {
                        coming.clear();
                        coming.push(COMING);
                        coming.extend_from_slice(key_bytes.get(row));
                        self.put(CellKey { key: &coming, window }, &incoming);
                    }
                }
            }
            if !waits {
                self.cell(CellKey { key: &[SEEN], window });
            }
        });
        self.refresh_later(now);
        Ok(late)
    }

    /// The cell of a key, which goes when its window does.
    fn cell(&mut self, key: CellKey<'_>) -> (Slot, bool) {
        let (slot, new) = self.cells.entry(key);
        if new && key.window != Window::GLOBAL {
            self.cells.set_timer(By::Event, slot, CLOSE, closes_at(key.window, self.plan.allowed_lateness));
        }
        if new && key.key.first() == Some(&COMING) {
            self.coming.push(slot);
        }
        (slot, new)
    }

    /// Takes a row in, where it is newer than the one that is there.
    fn put(&mut self, key: CellKey<'_>, incoming: &Incoming<'_>) {
        let (slot, new) = self.cell(key);
        let at = slot as usize;
        if self.plan.shape == Shape::Iterable {
            let time = Instant::from_micros_saturating(incoming.time);
            return push(&mut self.cells.write::<Vec<u8>>(self.row, &[slot])[at], time, false, incoming.row);
        }
        let there = (self.cells.column::<i64>(self.pane)[at], self.cells.column::<i64>(self.time)[at]);
        let row = self.cells.column::<Vec<u8>>(self.row)[at].as_slice();
        if new || (there, row) < ((incoming.pane, incoming.time), incoming.row) {
            self.set(slot, incoming);
        }
    }

    fn set(&mut self, slot: Slot, incoming: &Incoming<'_>) {
        let mut touched = self.cells.touch(&[slot]);
        let [times, panes] = touched.columns::<i64, 2>([self.time, self.pane]);
        (times[slot as usize], panes[slot as usize]) = (incoming.time, incoming.pane);
        let row = &mut touched.column::<Vec<u8>>(self.row)[slot as usize];
        row.clear();
        row.extend_from_slice(incoming.row);
    }

    fn refresh_later(&mut self, now: Instant) {
        if let (Some(period), None, false) = (self.plan.refresh, self.refresh_at, self.coming.is_empty()) {
            self.refresh_at = Some(now.saturating_add(period));
        }
    }

    /// Lets rows be seen that were held back until now, if it is time or nothing follows. Says whether there were any.
    pub fn refresh(&mut self, now: Instant) -> bool {
        // After a restart nobody has said when.
        self.refresh_later(now);
        let due = self.clock.has_ended() || self.refresh_at.is_some_and(|at| at <= now);
        if self.coming.is_empty() || !due {
            return false;
        }
        self.refresh_at = None;
        for slot in std::mem::take(&mut self.coming) {
            let at = slot as usize;
            let key = self.cells.key(slot).key[1..].to_vec();
            let row = self.cells.column::<Vec<u8>>(self.row)[at].clone();
            let incoming =
                Incoming { time: self.cells.column::<i64>(self.time)[at], pane: self.cells.column::<i64>(self.pane)[at], row: &row };
            self.put(CellKey { key: &key, window: Window::GLOBAL }, &incoming);
            self.cells.remove(slot);
        }
        self.cell(CellKey { key: &[SEEN], window: Window::GLOBAL });
        true
    }

    /// Whether rows can look into a window. `main`: how far event time has come where they are from, which a side input that is idle does
    /// not hold up.
    pub fn is_ready(&self, window: Window, main: Instant) -> bool {
        let seen = || self.cells.find(CellKey { key: &[SEEN], window }).is_some();
        let idle = self.clock.is_idle() && (self.plan.from_first_row || main >= window.end);
        self.clock.has_ended() || self.clock.watermark() >= window.end || idle || (self.plan.from_first_row && seen())
    }

    /// Drops windows that nobody looks into any more, when the watermark of the rows that do has passed here.
    pub fn expire(&mut self, passed: Instant) {
        while let Some((_, due)) = self.cells.due_timers(By::Event, passed) {
            due.into_iter().for_each(|(slot, _)| self.cells.remove(slot));
        }
    }

    /// The cells that rows look into; `keys` are absent where there is one row a window, and null keys find nothing.
    pub fn find(&self, keys: Option<&ArrayRef>, key_type: &DataType, windows: &[Window]) -> Result<Vec<Option<Slot>>, String> {
        let cells = &self.cells;
        let Some(keys) = keys else {
            // Neighbours mostly look into one window.
            let mut last: Option<(Window, Option<Slot>)> = None;
            let find = |window: &Window| match last {
                Some((known, slot)) if known == *window => slot,
                _ => {
                    let slot = cells.find(CellKey { key: &[], window: *window });
                    last = Some((*window, slot));
                    slot
                }
            };
            return Ok(windows.iter().map(find).collect());
        };
        let mut bytes = Keys::default();
        let nulls = keys.logical_nulls();
        encode(&KeyEncoder::new(std::slice::from_ref(key_type))?, std::slice::from_ref(keys), windows.len(), &mut bytes);
        let find = |(row, window): (usize, &Window)| match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            true => None,
            false => cells.find(CellKey { key: bytes.get(row), window: *window }),
        };
        Ok(windows.iter().enumerate().map(find).collect())
    }

    /// How large what one row finds is at most, bytes, where that matters.
    pub fn weight(&self, slots: &[Option<Slot>]) -> usize {
        match self.plan.shape {
            Shape::Iterable => {
                let rows = self.cells.column::<Vec<u8>>(self.row);
                slots.iter().flatten().map(|slot| rows[*slot as usize].len()).max().unwrap_or(0)
            }
            Shape::Singleton { .. } | Shape::Dict => 0,
        }
    }

    /// Why an iterable is too large, if it is.
    pub fn too_large(&self, weight: usize) -> Option<String> {
        (weight > MAX_ITERABLE_BYTES).then(|| {
            format!(
                "the side input `{}` has {} KiB in one window, and an iterable may have {}: each row gets a copy. Read it `as: dict`, or use `Join`",
                self.plan.tag,
                weight >> 10,
                MAX_ITERABLE_BYTES >> 10
            )
        })
    }

    /// The columns that rows get from the cells they found.
    pub fn columns(&self, slots: &[Option<Slot>], wanted: &[Wanted]) -> Result<Vec<ArrayRef>, String> {
        // Rows mostly share cells: each is decoded once.
        let mut numbers: HashMap<Slot, u32> = HashMap::new();
        let mut distinct: Vec<Slot> = Vec::new();
        let picked: Vec<Option<u32>> = slots
            .iter()
            .map(|slot| {
                slot.map(|slot| {
                    *numbers.entry(slot).or_insert_with(|| {
                        distinct.push(slot);
                        distinct.len() as u32 - 1
                    })
                })
            })
            .collect();
        let decoded = self.decode(&distinct)?;
        let picked = UInt32Array::from_iter_values(picked.into_iter().map(|number| number.unwrap_or(distinct.len() as u32)));
        let column = |wanted: &Wanted| {
            let with_missing = concat(&[decoded[wanted.column].as_ref(), wanted.missing.as_ref()]);
            with_missing.and_then(|column| take(&column, &picked, None)).map_err(|error| error.to_string())
        };
        wanted.iter().map(column).collect()
    }

    /// All columns of cells, one row a cell.
    fn decode(&self, slots: &[Slot]) -> Result<Vec<ArrayRef>, String> {
        let rows = self.cells.column::<Vec<u8>>(self.row);
        let of = |slot: &Slot| rows[*slot as usize].as_slice();
        if self.plan.shape != Shape::Iterable {
            return self.decoder.decode(slots.iter().map(of));
        }
        let mut offsets = vec![0i32];
        let mut items: Vec<&[u8]> = Vec::new();
        for slot in slots {
            let mut kept: Vec<_> = each(of(slot)).map(|kept| (kept.time, kept.row)).collect();
            kept.sort_unstable();
            items.extend(kept.iter().map(|(_, row)| row));
            // A cell is at most MAX_ITERABLE_BYTES long.
            offsets.push(items.len() as i32);
        }
        let offsets = OffsetBuffer::new(offsets.into());
        let values = self.decoder.decode(items.into_iter())?;
        let list = |values: ArrayRef| -> Result<ArrayRef, String> {
            let item = Arc::new(item(values.data_type()));
            Ok(Arc::new(ListArray::try_new(item, offsets.clone(), values, None).map_err(|error| error.to_string())?))
        };
        values.into_iter().map(list).collect()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.cells.bytes()
    }

    /// All that it has, for a checkpoint.
    pub fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let columns = self.columns_in_words();
        varint::write(&mut out, columns.len() as u64);
        out.extend_from_slice(columns.as_bytes());
        for slot in self.cells.slots() {
            let (CellKey { key, window }, at) = (self.cells.key(slot), slot as usize);
            varint::write(&mut out, key.len() as u64);
            out.extend_from_slice(key);
            let (time, pane) = (self.cells.column::<i64>(self.time)[at], self.cells.column::<i64>(self.pane)[at]);
            [window.start.micros(), window.end.micros(), time, pane].iter().for_each(|number| varint::write_signed(&mut out, *number));
            let row = &self.cells.column::<Vec<u8>>(self.row)[at];
            varint::write(&mut out, row.len() as u64);
            out.extend_from_slice(row);
        }
        out
    }

    fn columns_in_words(&self) -> String {
        let Table { plan, .. } = self;
        let column = |(name, data_type): (&String, &DataType)| format!("{name} {data_type}");
        let columns: Vec<String> = plan.columns.iter().zip(&plan.types).map(column).collect();
        format!("{:?} by {:?}: {}", plan.shape, plan.key_types, columns.join(", "))
    }

    /// Takes what a former task had; `None`: it is damaged, or of other columns.
    pub fn restore(&mut self, mut written: &[u8]) -> Option<()> {
        let rest = &mut written;
        if bytes(rest)? != self.columns_in_words().as_bytes() {
            return None;
        }
        while !rest.is_empty() {
            let key = bytes(rest)?;
            let mut number = || varint::read_signed(rest);
            let window = Window { start: Instant::from_micros(number()?).ok()?, end: Instant::from_micros(number()?).ok()? };
            let (time, pane) = (number()?, number()?);
            let incoming = Incoming { time, pane, row: bytes(rest)? };
            let key = CellKey { key, window };
            if self.plan.shape != Shape::Iterable {
                self.put(key, &incoming);
                continue;
            }
            // Copies of one cell are alike, but for tasks that had begun to drop it.
            let (slot, _) = self.cell(key);
            if self.cells.column::<Vec<u8>>(self.row)[slot as usize].len() < incoming.row.len() {
                self.set(slot, &incoming);
            }
        }
        Some(())
    }
}

/// The item of an iterable's column.
pub fn item(data_type: &DataType) -> Field {
    Field::new("item", data_type.clone(), true)
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::read(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}
