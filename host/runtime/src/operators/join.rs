//! Join: rows of two inputs side by side where their keys are equal, per window, as Beam's CoGroupByKey has it.
//!
//! A cell is one key in one window and holds the rows of both inputs: of each row the columns that come out, as bytes
//! (`KeyEncoder::for_rows`), one after the other in one value an input. When the watermark passes the end of the window, every
//! row of one input is given out with every row of the other; where there is none, it is given out beside nulls if its input is
//! kept (`left`, `right`, `outer`), and filtered if not. With allowed lateness a cell stays, emptied, and a late row gives a pane
//! of its own at once: it meets no row of an earlier pane (Beam's default trigger, discarding). Rows later than that go to the
//! output `late`.
//!
//! Sessions: a row that touches several sessions of its key makes one of them, whichever input it is of; the first one's cell takes
//! over what the others hold, and keeps what it has grown to in two columns.
//!
//! Null equals nothing (SQL): rows with a null in their key never meet, and those that must come out wait for the end of their
//! window in a cell of their own, marked as lonely.

use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::WindowCounts;
use crate::operator::{MAIN, Operator, Out, Port, Refusals};
use crate::operators::flatten::align;
use crate::unkeyed;
use crate::windows;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use pelton_core::batch::{MAX_ROWS, PaneInfo, PaneTiming, RowWindows};
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::watermark::{Lateness, Watermark, closes_at, lateness};
use pelton_core::{Batch, Duration, Instant, Positions, Window, WindowFn};
use pelton_expr::Expression;
use pelton_state::{CellKey, Cells, Clock, ColumnId, Slot, Spans, TimerTag};
use std::sync::Arc;

const FIRE: TimerTag = TimerTag(0);
const CLOSE: TimerTag = TimerTag(1);
/// Batches between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;

/// What a Join does; the same for all its tasks.
#[derive(Clone)]
pub struct JoinPlan {
    /// The inputs.
    pub sides: [JoinSide; 2],
    /// Where each column of the output comes from: an input, and a number among its columns.
    pub output: Vec<(usize, usize)>,
    /// Columns of the output.
    pub schema: SchemaRef,
    /// Columns of the output `late`; `None`: nobody reads it.
    pub late_schema: Option<SchemaRef>,
    /// Its port.
    pub late_port: Port,
    /// Windows of both inputs.
    pub window_fn: WindowFn,
    /// How long after its end a window takes rows.
    pub allowed_lateness: Duration,
    /// Bytes of state that this task may hold.
    pub state_limit: usize,
}

/// One input of a Join.
#[derive(Clone)]
pub struct JoinSide {
    /// What must be equal to the other input's.
    pub keys: Vec<Expression>,
    /// Their types.
    pub key_types: Vec<DataType>,
    /// Columns that come out.
    pub columns: Vec<String>,
    /// Their types.
    pub types: Vec<DataType>,
    /// Whether its rows come out without a partner.
    pub kept: bool,
}

/// One input in one task.
struct Side {
    keys: KeyEncoder,
    rows: KeyEncoder,
    decoder: KeyDecoder,
    /// Rows in a cell that has not fired.
    count: ColumnId,
    /// Those rows.
    bytes: ColumnId,
}

/// The operator.
pub struct Join {
    plan: JoinPlan,
    /// Which side each input of the task feeds.
    inputs: Vec<usize>,
    sides: [Side; 2],
    keys: Keys,
    rows: Keys,
    cells: Cells,
    /// 1: the key has a null, so that no row meets another.
    lonely: ColumnId,
    /// Panes that a cell has given out.
    panes: ColumnId,
    /// What a session has grown to.
    start: ColumnId,
    end: ColumnId,
    spans: Spans,
    watermark: Instant,
    batches: u32,
    counts: Arc<WindowCounts>,
    refusals: Refusals,
}

impl Join {
    /// With no state. `inputs[i]` is the side that input i of the task feeds.
    pub fn new(plan: JoinPlan, inputs: Vec<usize>, counts: Arc<WindowCounts>, refusals: Refusals) -> Result<Join, Failure> {
        let mut cells = Cells::default();
        let mut side = |side: &JoinSide| -> Result<Side, String> {
            Ok(Side {
                keys: KeyEncoder::new(&side.key_types)?,
                rows: KeyEncoder::for_rows(&side.types)?,
                decoder: KeyDecoder::new(&side.types)?,
                count: cells.declare(0i64),
                bytes: cells.declare(Vec::<u8>::new()),
            })
        };
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let sides = [side(&plan.sides[0]).map_err(failed)?, side(&plan.sides[1]).map_err(failed)?];
        let (lonely, panes) = (cells.declare(0i64), cells.declare(0i64));
        let (start, end) = (cells.declare(0i64), cells.declare(0i64));
        Ok(Join {
            plan,
            inputs,
            sides,
            keys: Keys::default(),
            rows: Keys::default(),
            cells,
            lonely,
            panes,
            start,
            end,
            spans: Spans::default(),
            watermark: Instant::MIN,
            batches: 0,
            counts,
            refusals,
        })
    }

    /// Puts a row of the batch whose keys and rows were encoded last into its cell.
    fn add(&mut self, side: usize, row: usize, window: Window, lonely: bool) -> Slot {
        let slot = match self.plan.window_fn.merges() {
            true => self.session(row, window),
            false => {
                let (slot, new) = self.cells.entry(CellKey { key: self.keys.get(row), window });
                if new {
                    self.set_timers(slot, window);
                }
                slot
            }
        };
        let Side { count, bytes, .. } = &self.sides[side];
        let at = slot as usize;
        if lonely {
            self.cells.write::<i64>(self.lonely, &[slot])[at] = 1;
        }
        self.cells.write::<i64>(*count, &[slot])[at] += 1;
        self.cells.write::<Vec<u8>>(*bytes, &[slot])[at].extend_from_slice(self.rows.get(row));
        slot
    }

    fn set_timers(&mut self, slot: Slot, window: Window) {
        if self.watermark < window.end {
            self.cells.set_timer(Clock::Event, slot, FIRE, window.end);
        }
        let close = closes_at(window, self.plan.allowed_lateness);
        if close > window.end {
            self.cells.set_timer(Clock::Event, slot, CLOSE, close);
        }
    }

    /// The session of a row, grown to hold it.
    fn session(&mut self, row: usize, window: Window) -> Slot {
        let mut met = Vec::new();
        self.spans.take_overlapping(self.keys.get(row), window, &mut met);
        let grown = met.iter().fold(window, |grown, (span, _)| grown.span(*span));
        let slot = match met.first() {
            Some((_, slot)) => *slot,
            None => self.cells.entry(CellKey { key: self.keys.get(row), window }).0,
        };
        for (_, other) in met.iter().skip(1) {
            self.take_over(slot, *other);
        }
        self.cells.write::<i64>(self.start, &[slot])[slot as usize] = grown.start.micros();
        self.cells.write::<i64>(self.end, &[slot])[slot as usize] = grown.end.micros();
        self.set_timers(slot, grown);
        self.spans.insert(self.keys.get(row), grown, slot);
        slot
    }

    /// Moves what a cell holds to another of the same key, and drops it.
    fn take_over(&mut self, into: Slot, from: Slot) {
        let (to, at) = (into as usize, from as usize);
        for side in 0..2 {
            let (count, bytes) = (self.sides[side].count, self.sides[side].bytes);
            let rows = self.cells.column::<i64>(count)[at];
            let held = self.cells.column::<Vec<u8>>(bytes)[at].clone();
            self.cells.write::<i64>(count, &[into])[to] += rows;
            self.cells.write::<Vec<u8>>(bytes, &[into])[to].extend(held);
        }
        for column in [self.lonely, self.panes] {
            let other = self.cells.column::<i64>(column)[at];
            let own = &mut self.cells.write::<i64>(column, &[into])[to];
            *own = other.max(*own);
        }
        self.cells.remove(from);
    }

    fn window(&self, slot: Slot) -> Window {
        if !self.plan.window_fn.merges() {
            return self.cells.key(slot).window;
        }
        let at = |column| Instant::from_micros_saturating(self.cells.column::<i64>(column)[slot as usize]);
        Window { start: at(self.start), end: at(self.end) }
    }

    fn count(&self, side: usize, slot: Slot) -> usize {
        self.cells.column::<i64>(self.sides[side].count)[slot as usize] as usize
    }

    /// Gives cells out as one pane each and empties them. A batch has one pane number.
    fn fire(&mut self, slots: &[Slot], timing: PaneTiming, out: &mut Out) -> Result<(), Failure> {
        let panes = self.cells.column::<i64>(self.panes);
        let number = |slot: &Slot| panes[*slot as usize];
        let mut slots = slots.to_vec();
        slots.sort_by_key(number);
        let same: Vec<(i64, &[Slot])> = slots.chunk_by(|a, b| number(a) == number(b)).map(|slots| (number(&slots[0]), slots)).collect();
        for (first, slots) in same.into_iter().flat_map(|(first, slots)| slots.chunks(MAX_ROWS).map(move |slots| (first, slots))) {
            let pane = PaneInfo {
                timing,
                is_first: first == 0,
                is_last: timing == PaneTiming::OnTime && self.plan.allowed_lateness == Duration::ZERO,
                index: first,
                nonspeculative_index: first,
            };
            self.pair(slots, pane, out)?;
            for side in &self.sides {
                let counts = self.cells.write::<i64>(side.count, slots);
                slots.iter().for_each(|slot| counts[*slot as usize] = 0);
                let bytes = self.cells.write::<Vec<u8>>(side.bytes, slots);
                slots.iter().for_each(|slot| bytes[*slot as usize] = Vec::new());
            }
            let panes = self.cells.write::<i64>(self.panes, slots);
            slots.iter().for_each(|slot| panes[*slot as usize] += 1);
        }
        Ok(())
    }

    fn pair(&self, slots: &[Slot], pane: PaneInfo, out: &mut Out) -> Result<(), Failure> {
        let mut pairs =
            Pairs { plan: &self.plan, pane, columns: [self.rows_of(0, slots)?, self.rows_of(1, slots)?], ..Pairs::empty(&self.plan) };
        let mut start = [0, 0];
        for slot in slots {
            let rows = [self.count(0, *slot), self.count(1, *slot)];
            let window = self.window(*slot);
            let meets = rows[0] > 0 && rows[1] > 0 && self.cells.column::<i64>(self.lonely)[*slot as usize] == 0;
            let of = |side: usize| (start[side] as u32)..(start[side] + rows[side]) as u32;
            let mut led = 0;
            if meets {
                led = rows[0] + rows[1];
                for left in of(0) {
                    for right in of(1) {
                        pairs.push(Some(left), Some(right), window, out).map_err(|message| self.internal(message))?;
                    }
                }
            } else {
                for side in (0..2).filter(|side| self.plan.sides[*side].kept) {
                    led += rows[side];
                    for row in of(side) {
                        let (left, right) = if side == 0 { (Some(row), None) } else { (None, Some(row)) };
                        pairs.push(left, right, window, out).map_err(|message| self.internal(message))?;
                    }
                }
            }
            out.account.led += led as u64;
            out.account.filtered += (rows[0] + rows[1] - led) as u64;
            self.counts.add(window.start.micros(), led as u64);
            start = [start[0] + rows[0], start[1] + rows[1]];
        }
        pairs.flush(out).map_err(|message| self.internal(message))
    }

    /// The rows of cells, cell after cell.
    fn rows_of(&self, side: usize, slots: &[Slot]) -> Result<Vec<ArrayRef>, Failure> {
        let bytes = self.cells.column::<Vec<u8>>(self.sides[side].bytes);
        let pieces = slots.iter().map(|slot| (bytes[*slot as usize].as_slice(), self.count(side, *slot)));
        self.sides[side].decoder.decode_rows(pieces).map_err(|message| self.internal(message))
    }

    fn internal(&self, message: String) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message }
    }

    /// Fires and closes everything that is due, in order of time.
    fn advance(&mut self, out: &mut Out) -> Result<(), Failure> {
        while let Some((at, due)) = self.cells.due_timers(Clock::Event, self.watermark) {
            let fired: Vec<Slot> = due.iter().filter(|(_, tag)| *tag == FIRE).map(|(slot, _)| *slot).collect();
            if !fired.is_empty() {
                self.fire(&fired, PaneTiming::OnTime, out)?;
            }
            for (slot, tag) in due {
                if tag == CLOSE || closes_at(self.window(slot), self.plan.allowed_lateness) <= at {
                    self.spans.remove(self.cells.key(slot).key, slot);
                    self.cells.remove(slot);
                }
            }
        }
        Ok(())
    }

    fn late(&self, batch: &Batch, rows: &[(u32, Window)], out: &mut Out) {
        out.account.late += rows.len() as u64;
        let Some(schema) = &self.plan.late_schema else { return };
        let numbers = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
        let late = batch.take(&numbers);
        let instants = |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) };
        let inputs: Vec<usize> = (0..schema.fields().len() - LATE_COLUMNS.len()).collect();
        let aligned = align(&late.rows, &Arc::new(schema.project(&inputs).expect("the first columns are the inputs'")));
        let mut columns = aligned.columns().to_vec();
        columns.push(instants(rows.iter().map(|(_, window)| window.start.micros()).collect()));
        columns.push(instants(rows.iter().map(|(_, window)| window.end.micros()).collect()));
        columns.push(instants(vec![self.watermark.micros(); rows.len()]));
        let made = RecordBatch::try_new(schema.clone(), columns).expect("columns follow the late schema");
        out.rows(self.plan.late_port, late.with_columns(made));
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.batches = self.batches.wrapping_add(1);
        if !self.batches.is_multiple_of(MEASURE_EVERY) {
            return Ok(());
        }
        let held = self.cells.bytes();
        if held > self.plan.state_limit {
            let mib = |bytes: usize| bytes / (1 << 20);
            return Err(Failure::State { transform: self.refusals.transform.clone(), held: mib(held), limit: mib(self.plan.state_limit) });
        }
        Ok(())
    }
}

/// Columns that the output `late` has after those of the inputs, in this order.
pub const LATE_COLUMNS: [&str; 3] = ["window_start", "window_end", "watermark"];

/// Pairs of row numbers until they are a batch.
struct Pairs<'p> {
    plan: &'p JoinPlan,
    columns: [Vec<ArrayRef>; 2],
    pane: PaneInfo,
    rows: [Vec<Option<u32>>; 2],
    index: Vec<u32>,
    table: Vec<Window>,
}

impl<'p> Pairs<'p> {
    fn empty(plan: &'p JoinPlan) -> Pairs<'p> {
        Pairs { plan, columns: [vec![], vec![]], pane: PaneInfo::UNWINDOWED, rows: [vec![], vec![]], index: vec![], table: vec![] }
    }

    fn push(&mut self, left: Option<u32>, right: Option<u32>, window: Window, out: &mut Out) -> Result<(), String> {
        if self.index.len() == MAX_ROWS {
            self.flush(out)?;
        }
        if self.table.last() != Some(&window) {
            self.table.push(window);
        }
        self.index.push(self.table.len() as u32 - 1);
        self.rows[0].push(left);
        self.rows[1].push(right);
        Ok(())
    }

    fn flush(&mut self, out: &mut Out) -> Result<(), String> {
        let index = std::mem::take(&mut self.index);
        let table = std::mem::take(&mut self.table);
        let rows = std::mem::take(&mut self.rows).map(UInt32Array::from);
        let columns = self.plan.output.iter().map(|(side, column)| take(&self.columns[*side][*column], &rows[*side], None));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let options = RecordBatchOptions::new().with_row_count(Some(index.len()));
        let made = RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options).map_err(|error| error.to_string())?;
        let times = index.iter().map(|number| table[*number as usize].max_timestamp().micros()).collect();
        let windows = RowWindows { index: index.into(), table: table.into(), pane: self.pane };
        out.rows(MAIN, Batch { rows: made, times, windows: Some(windows), positions: Positions::None });
        Ok(())
    }
}

#[async_trait(?Send)]
impl Operator for Join {
    async fn data(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let side = self.inputs[input];
        let plan = &self.plan.sides[side];
        let kept = plan.kept;
        let keys = group_columns(&self.refusals.transform, &plan.keys, &batch)?;
        let nulls: Vec<_> = keys.iter().filter_map(|key| key.logical_nulls()).collect();
        let column = |name: &String| batch.rows.column_by_name(name).expect("the column was there when the plan was bound").clone();
        let columns: Vec<ArrayRef> = plan.columns.iter().map(column).collect();
        encode(&self.sides[side].keys, &keys, batch.num_rows(), &mut self.keys);
        encode(&self.sides[side].rows, &columns, batch.num_rows(), &mut self.rows);
        let (watermark, allowed) = (self.watermark, self.plan.allowed_lateness);
        let mut placed: Vec<(usize, Window, Lateness)> = Vec::with_capacity(batch.num_rows());
        windows::for_each(&batch, self.plan.window_fn, |row, window| placed.push((row, window, lateness(window, allowed, watermark))));
        let origin: Vec<u32> = placed.iter().map(|(row, ..)| *row as u32).collect();
        out.account.assigned(batch.num_rows(), &origin);
        let mut late = Vec::new();
        for (row, window, how) in placed {
            let lonely = nulls.iter().any(|nulls| nulls.is_null(row));
            match how {
                Lateness::Dropped => late.push((row as u32, window)),
                _ if lonely && !kept => out.account.filtered += 1,
                Lateness::OnTime => drop(self.add(side, row, window, lonely)),
                Lateness::Allowed => {
                    let slot = self.add(side, row, window, lonely);
                    // A late row may have come into a session that has not ended.
                    if self.window(slot).end <= self.watermark {
                        self.fire(&[slot], PaneTiming::Late, out)?;
                    }
                }
            }
        }
        if !late.is_empty() {
            self.late(&batch, &late, out);
        }
        self.measure()
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        if let Watermark::Active(at) = watermark {
            self.watermark = self.watermark.max(at);
            self.advance(out)?;
        }
        out.control(Message::Watermark(watermark));
        Ok(())
    }

    async fn end(&mut self, end: End, out: &mut Out) -> Result<(), Failure> {
        if end == End::Drained {
            self.watermark = Instant::MAX;
            self.advance(out)?;
        }
        Ok(())
    }

    fn held(&self) -> u64 {
        self.cells.slots().map(|slot| (self.count(0, slot) + self.count(1, slot)) as u64).sum()
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        visit("cells", &mut self.cells);
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        vec![unkeyed::of_watermark(self.watermark)]
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.watermark = unkeyed::earliest_watermark(unkeyed)?;
        if self.plan.window_fn.merges() {
            for slot in self.cells.slots() {
                self.spans.insert(self.cells.key(slot).key, self.window(slot), slot);
            }
        }
        Ok(())
    }
}
