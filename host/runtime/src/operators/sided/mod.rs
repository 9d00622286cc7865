//! Side inputs: rows of other inputs that a transform looks at beside each of its own (decision 0013).
//!
//! In reading order:
//! - [`clock`]: how far an input has come.
//! - [`table`]: the rows of a side input.
//! - [`waiting`]: rows whose side inputs are not ready.
//!
//! The operator stands around another: what that one reads of side inputs has become columns of its rows before it sees them, and what it
//! gives out of its rows as they were has lost those columns again. So expressions and plugins need to know nothing of side inputs.
//!
//! A row looks, in each side input, into the window that [`WindowFn::beside`] says. It waits until all of them are ready, and holds the output
//! watermark meanwhile; nobody stops reading. A row whose window in a side input has been dropped goes to the output `late`.
//!
//! Invariants: a row is handed on once, when all it looks into is ready; the watermark that is handed on is no further than a row that waits;
//! a window of a side input is there until no row that is not late can look into it.

pub mod clock;
pub mod table;
#[cfg(test)]
mod tests;
pub mod waiting;

use self::clock::Clock;
use self::table::{Shape, SidePlan, Table, Wanted};
use self::waiting::{Waiting, key_of_task, pick};
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message, SplitEvent};
use crate::metrics::{NodeMetrics, UserMetric, UserMetrics};
use crate::operator::{MAIN, Operator, Out, Port, Refusals, Renewed};
use crate::operators::late::late_batch;
use crate::swap::NewVersion;
use crate::unkeyed;
use crate::windows;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StructArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use pelton_core::evolution::Book;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::watermark::{Lateness, Watermark, lateness};
use pelton_core::{Batch, Duration, Instant, RowError, Window, WindowFn};
use pelton_expr::Expression;
use pelton_state::{Cells, Scratch, Slot};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// Messages between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;
/// Copies of iterables in one batch, bytes: rows beyond it go in another.
const MAX_COPIED_BYTES: usize = 4 << 20;
/// Partitions of the unkeyed state: the watermark that was handed on, and the rows of a side input, by its name.
const HANDED_ON: &str = "handed on";
const SIDE: &str = "side input ";
/// The metric of rows of side inputs that came when nobody could look into their window any more.
pub const LATE_SIDE_ROWS: &str = "late_side_rows";

/// What the side inputs of a transform are; the same for all its tasks.
#[derive(Clone)]
pub struct SidedPlan {
    /// In the order of the transform's inputs after the first.
    pub sides: Vec<SidePlan>,
    /// What is looked up.
    pub probes: Vec<Probe>,
    /// The columns of the transform's own rows.
    pub own: SchemaRef,
    /// The same, then what is looked up, in the order of the probes.
    pub schema: SchemaRef,
    /// Key of a transform that keeps state, and its types: rows that wait belong to the task that owns it.
    pub key: Vec<Expression>,
    pub key_types: Vec<DataType>,
    /// Windows of its own rows.
    pub window_fn: WindowFn,
    /// How late those may be.
    pub allowed_lateness: Duration,
    /// Whether the main output is rows as they came in.
    pub gives_own: bool,
    /// Columns of the output `late`.
    pub late_schema: SchemaRef,
    /// Its port.
    pub late_port: Port,
    /// Bytes of state that a task may hold.
    pub state_limit: usize,
}

/// One key in one side input.
#[derive(Clone)]
pub struct Probe {
    /// Which side input.
    pub side: usize,
    /// What is looked up, and its type.
    pub key: Option<(Expression, DataType)>,
    /// Columns that rows get.
    pub wanted: Vec<Wanted>,
}

/// The operator.
pub struct Sided {
    plan: Arc<SidedPlan>,
    inner: Box<dyn Operator>,
    /// Which logical input each channel of the task feeds.
    inputs: Vec<usize>,
    main: Clock,
    tables: Vec<Table>,
    waiting: Waiting,
    encoder: KeyEncoder,
    /// Key of rows that wait, where the transform has none itself.
    own_key: Vec<u8>,
    /// The last watermark that was handed on.
    given: Option<Watermark>,
    /// The largest one.
    highest: Instant,
    messages: u32,
    metrics: Arc<NodeMetrics>,
    refusals: Refusals,
}

/// What becomes of a row, by its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ready,
    Waits,
    /// With the window that it missed.
    Late(Window),
}

impl Sided {
    /// With no state. `inputs[i]` is the logical input that channel i of the task feeds; `task`: which it is, and of how many.
    pub fn new(
        plan: Arc<SidedPlan>,
        inner: Box<dyn Operator>,
        inputs: Vec<usize>,
        task: (usize, usize),
        metrics: Arc<NodeMetrics>,
        refusals: Refusals,
    ) -> Result<Sided, Failure> {
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let channels = |logical: usize| -> Vec<usize> { (0..inputs.len()).filter(|channel| inputs[*channel] == logical).collect() };
        let tables = plan.sides.iter().enumerate().map(|(number, side)| Table::new(side.clone(), &channels(number + 1)));
        let tables = tables.collect::<Result<Vec<Table>, String>>().map_err(failed)?;
        let waiting = Waiting::new(plan.own.clone()).map_err(failed)?;
        let encoder = KeyEncoder::new(&plan.key_types).map_err(failed)?;
        let main = Clock::new(&channels(0));
        let (given, highest) = (None, Instant::MIN);
        let own_key = key_of_task(task.0, task.1);
        Ok(Sided { plan, inner, inputs, main, tables, waiting, encoder, own_key, given, highest, messages: 0, metrics, refusals })
    }

    fn internal(&self, message: String) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message }
    }

    /// Whether all side inputs are in the global window: then it is no matter in which window a row is.
    fn is_global(&self) -> bool {
        self.plan.sides.iter().all(|side| side.window_fn == WindowFn::Global)
    }

    /// Sorts rows: those that are ready go on, others wait or are late.
    async fn rows(&mut self, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let merges = self.plan.window_fn.merges();
        // A row in several windows looks into several of the side input's, and becomes as many rows.
        let explodes = !self.is_global() && !self.plan.window_fn.is_single() && !merges;
        let batch = if explodes { windows::fixed(batch, self.plan.window_fn, &mut out.account) } else { batch };
        let windows = self.windows(&batch);
        let mut verdicts: HashMap<Window, Verdict> = HashMap::new();
        let (mut ready, mut waits, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for (row, window) in windows.iter().enumerate() {
            let verdict = *verdicts.entry(*window).or_insert_with(|| self.verdict(*window));
            match verdict {
                Verdict::Ready => ready.push(row as u32),
                Verdict::Waits => waits.push(row as u32),
                Verdict::Late(missed) => late.push((row as u32, missed)),
            }
        }
        if !late.is_empty() {
            out.account.late += late.len() as u64;
            out.rows(self.plan.late_port, late_batch(&batch, &late, self.highest, &self.plan.late_schema));
        }
        if !waits.is_empty() {
            let windows: Vec<Window> = waits.iter().map(|row| windows[*row as usize]).collect();
            self.wait(&pick(&batch, &waits), &windows)?;
        }
        if !ready.is_empty() {
            self.hand_on(pick(&batch, &ready), out).await?;
        }
        Ok(())
    }

    fn wait(&mut self, batch: &Batch, windows: &[Window]) -> Result<(), Failure> {
        if self.plan.key.is_empty() {
            self.waiting.push(batch, |_| &self.own_key, windows);
            return Ok(());
        }
        let columns = group_columns(&self.refusals.transform, &self.plan.key, batch)?;
        let mut keys = Keys::default();
        encode(&self.encoder, &columns, batch.num_rows(), &mut keys);
        self.waiting.push(batch, |row| keys.get(row), windows);
        Ok(())
    }

    /// The window of each row, as far as that matters.
    fn windows(&self, batch: &Batch) -> Vec<Window> {
        if self.is_global() {
            return vec![Window::GLOBAL; batch.num_rows()];
        }
        let mut found = Vec::with_capacity(batch.num_rows());
        windows::for_each(batch, self.plan.window_fn, |_, window| found.push(window));
        found
    }

    /// The windows that rows of a window look into, one for each side input.
    fn looked_into(&self, window: Window) -> impl Iterator<Item = (&Table, Window)> {
        self.tables.iter().map(move |table| (table, table.plan.window_fn.beside(window)))
    }

    fn verdict(&self, window: Window) -> Verdict {
        let is_gone = |(table, window): &(&Table, Window)| {
            *window != Window::GLOBAL && lateness(*window, table.plan.allowed_lateness, self.highest) == Lateness::Dropped
        };
        if let Some((_, missed)) = self.looked_into(window).find(is_gone) {
            return Verdict::Late(missed);
        }
        if self.is_ready(window) { Verdict::Ready } else { Verdict::Waits }
    }

    fn is_ready(&self, window: Window) -> bool {
        let main = self.main.watermark();
        self.looked_into(window).all(|(table, window)| table.is_ready(window, main))
    }

    /// Gives rows that are ready to the transform, with what they look up.
    async fn hand_on(&mut self, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let (keys, errors) = self.keys(&batch);
        self.refusals.refuse(&batch, &errors, out)?;
        let (batch, keys) = without(batch, keys, &errors);
        let of_rows = self.windows(&batch);
        let mut found: Vec<Vec<Option<Slot>>> = Vec::with_capacity(self.plan.probes.len());
        let mut errors: BTreeMap<u32, RowError> = BTreeMap::new();
        for (probe, keys) in self.plan.probes.iter().zip(&keys) {
            let table = &self.tables[probe.side];
            let windows: Vec<Window> = beside(table.plan.window_fn, &of_rows);
            let key_type = probe.key.as_ref().map_or(DataType::Null, |(_, key_type)| key_type.clone());
            let slots = table.find(keys.as_ref(), &key_type, &windows).map_err(|message| self.internal(message))?;
            if table.plan.shape == (Shape::Singleton { required: true }) {
                for row in (0..batch.num_rows()).filter(|row| slots[*row].is_none()) {
                    let message = nothing_in(&table.plan.tag, windows[row]);
                    errors.entry(row as u32).or_insert(RowError { row: row as u32, message, stack: String::new() });
                }
            }
            found.push(slots);
        }
        let errors: Vec<RowError> = errors.into_values().collect();
        self.refusals.refuse(&batch, &errors, out)?;
        let kept = others(batch.num_rows(), &errors);
        let batch = if errors.is_empty() { batch } else { pick(&batch, &kept) };
        if !errors.is_empty() {
            found.iter_mut().for_each(|slots| *slots = kept.iter().map(|row| slots[*row as usize]).collect());
        }
        for rows in self.pieces(batch.num_rows(), &found)? {
            let extended = self.extended(&batch, rows, &found)?;
            let before = out.messages.len();
            self.inner.data(0, extended, out).await?;
            self.take_back(before, out)?;
        }
        Ok(())
    }

    /// The keys that rows look up, and the rows for which one cannot be computed.
    fn keys(&self, batch: &Batch) -> (Vec<Option<ArrayRef>>, Vec<RowError>) {
        let mut errors: BTreeMap<u32, RowError> = BTreeMap::new();
        let keys = self.plan.probes.iter().map(|probe| {
            probe.key.as_ref().map(|(key, _)| {
                let evaluated = key.evaluate(&batch.rows);
                for error in evaluated.errors {
                    errors.entry(error.row).or_insert(error);
                }
                evaluated.array
            })
        });
        let keys = keys.collect();
        (keys, errors.into_values().collect())
    }

    /// Cuts rows so that copies of iterables stay within bounds.
    fn pieces(&self, rows: usize, found: &[Vec<Option<Slot>>]) -> Result<Vec<Range<usize>>, Failure> {
        let mut weight = 0;
        for (probe, slots) in self.plan.probes.iter().zip(found) {
            let table = &self.tables[probe.side];
            let own = table.weight(slots);
            if let Some(message) = table.too_large(own) {
                return Err(Failure::Aggregate { transform: self.refusals.transform.clone(), message });
            }
            weight += own;
        }
        let size = MAX_COPIED_BYTES.checked_div(weight).unwrap_or(rows).max(1);
        Ok((0..rows).step_by(size).map(|start| start..rows.min(start + size)).collect())
    }

    fn extended(&self, batch: &Batch, rows: Range<usize>, found: &[Vec<Option<Slot>>]) -> Result<Batch, Failure> {
        let batch = if rows.len() == batch.num_rows() { batch.clone() } else { batch.slice(rows.start, rows.len()) };
        let mut columns = batch.rows.columns().to_vec();
        for (probe, slots) in self.plan.probes.iter().zip(found) {
            let added = self.tables[probe.side].columns(&slots[rows.clone()], &probe.wanted);
            columns.extend(added.map_err(|message| self.internal(message))?);
        }
        let made = with_rows(self.plan.schema.clone(), columns, rows.len()).map_err(|message| self.internal(message))?;
        Ok(batch.with_columns(made))
    }

    /// Takes what was looked up away from rows that are given out as they came in.
    fn take_back(&self, from: usize, out: &mut Out) -> Result<(), Failure> {
        for (port, message) in &mut out.messages[from..] {
            let (Some(port), Message::Data(batch)) = (port, message) else { continue };
            let rows = if Some(*port) == self.refusals.port {
                of_element(&batch.rows, self.plan.own.fields().len())
            } else if *port == MAIN && self.plan.gives_own {
                let columns = batch.rows.columns()[..self.plan.own.fields().len()].to_vec();
                with_rows(self.plan.own.clone(), columns, batch.num_rows())
            } else {
                continue;
            };
            *batch = batch.with_columns(rows.map_err(|message| self.internal(message))?);
        }
        Ok(())
    }

    /// Does all that has become possible.
    async fn advance(&mut self, out: &mut Out) -> Result<(), Failure> {
        let (tables, main) = (&self.tables, self.main.watermark());
        let is_ready = |window: Window| tables.iter().all(|table| table.is_ready(table.plan.window_fn.beside(window), main));
        let released = self.waiting.take(is_ready).map_err(|message| self.internal(message))?;
        for batch in released {
            self.hand_on(batch, out).await?;
        }
        self.tell(out).await?;
        let highest = self.highest;
        self.tables.iter_mut().for_each(|table| table.expire(highest));
        Ok(())
    }

    /// Hands the watermark on as far as no row that waits holds it.
    async fn tell(&mut self, out: &mut Out) -> Result<(), Failure> {
        let watermark = match self.waiting.hold() {
            None if self.main.is_idle() => Watermark::Idle,
            // A late row that waits cannot take back what has been told.
            hold => Watermark::Active(hold.map_or(self.main.watermark(), |hold| hold.min(self.main.watermark())).max(self.highest)),
        };
        let first = self.given.is_none() && watermark == Watermark::Active(Instant::MIN);
        if self.given == Some(watermark) || first {
            return Ok(());
        }
        if let Watermark::Active(at) = watermark {
            self.highest = at;
        }
        self.given = Some(watermark);
        let before = out.messages.len();
        self.inner.watermark(watermark, out).await?;
        self.take_back(before, out)
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.messages = self.messages.wrapping_add(1);
        if !self.messages.is_multiple_of(MEASURE_EVERY) {
            return Ok(());
        }
        let held = self.waiting.bytes() + self.tables.iter().map(Table::bytes).sum::<usize>();
        let limit = self.plan.state_limit;
        if held > limit {
            let mib = |bytes: usize| bytes / (1 << 20);
            return Err(Failure::State { transform: self.refusals.transform.clone(), held: mib(held), limit: mib(limit) });
        }
        Ok(())
    }

    fn count_late(&self, rows: u64) {
        if rows > 0 {
            let mut user = self.metrics.user.lock().unwrap_or_else(PoisonError::into_inner);
            if let UserMetric::Counter { value } = user.entry(LATE_SIDE_ROWS.into()).or_insert(UserMetric::Counter { value: 0.0 }) {
                *value += rows as f64;
            }
        }
    }
}

/// The windows of a side input that rows look into. Neighbours mostly share one.
fn beside(window_fn: WindowFn, windows: &[Window]) -> Vec<Window> {
    let mut last: Option<(Window, Window)> = None;
    let each = windows.iter().map(|window| match last {
        Some((known, found)) if known == *window => found,
        _ => {
            let found = window_fn.beside(*window);
            last = Some((*window, found));
            found
        }
    });
    each.collect()
}

fn nothing_in(tag: &str, window: Window) -> String {
    match window == Window::GLOBAL {
        true => format!("the side input `{tag}` has no row, and no `default`"),
        false => format!("the side input `{tag}` has no row from {} to {}, and no `default`", window.start, window.end),
    }
}

/// Rows that are not refused.
fn others(rows: usize, errors: &[RowError]) -> Vec<u32> {
    let mut refused = errors.iter().map(|error| error.row).peekable();
    (0..rows as u32).filter(|row| refused.next_if_eq(row).is_none()).collect()
}

fn without(batch: Batch, keys: Vec<Option<ArrayRef>>, errors: &[RowError]) -> (Batch, Vec<Option<ArrayRef>>) {
    if errors.is_empty() {
        return (batch, keys);
    }
    let kept = others(batch.num_rows(), errors);
    let numbers = UInt32Array::from(kept.clone());
    let take = |key: ArrayRef| arrow::compute::take(&key, &numbers, None).expect("row numbers are in range");
    (pick(&batch, &kept), keys.into_iter().map(|key| key.map(take)).collect())
}

fn with_rows(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())
}

/// Error rows, whose element, the first column, keeps its first columns only.
fn of_element(errors: &RecordBatch, columns: usize) -> Result<RecordBatch, String> {
    let element = errors.column(0).as_struct();
    if element.num_columns() == columns {
        return Ok(errors.clone());
    }
    let fields: Vec<_> = element.fields().iter().take(columns).cloned().collect();
    let cut =
        StructArray::try_new_with_length(fields.into(), element.columns()[..columns].to_vec(), element.nulls().cloned(), element.len());
    let cut: ArrayRef = Arc::new(cut.map_err(|error| error.to_string())?);
    let schema = pelton_core::fault::error_schema(cut.data_type().clone());
    with_rows(schema, std::iter::once(cut).chain(errors.columns()[1..].iter().cloned()).collect(), errors.num_rows())
}

#[async_trait(?Send)]
impl Operator for Sided {
    async fn data(&mut self, input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        match self.inputs[input] {
            0 => self.rows(batch, out).await?,
            // Nobody is left to look.
            _ if self.main.has_ended() && self.waiting.is_empty() => {}
            side => {
                let table = &mut self.tables[side - 1];
                let late = table.insert(&self.refusals.transform, &batch, self.highest, out.now)?;
                let begun = table.plan.from_first_row && !self.waiting.is_empty();
                self.count_late(late);
                if begun {
                    self.advance(out).await?;
                }
            }
        }
        self.measure()
    }

    /// What counts is how far each input has come for itself.
    async fn watermark(&mut self, _watermark: Watermark, _out: &mut Out) -> Result<(), Failure> {
        Ok(())
    }

    async fn input_watermark(&mut self, input: usize, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        match self.inputs[input] {
            0 => self.main.moved(input, watermark),
            side => self.tables[side - 1].clock.moved(input, watermark),
        }
        self.advance(out).await
    }

    async fn input_end(&mut self, input: usize, end: End, out: &mut Out) -> Result<(), Failure> {
        match self.inputs[input] {
            0 => self.main.ended(input, end),
            side => {
                let table = &mut self.tables[side - 1];
                table.clock.ended(input, end);
                table.refresh(out.now);
            }
        }
        self.advance(out).await
    }

    fn is_side(&self, input: usize) -> bool {
        self.inputs[input] > 0
    }

    async fn split(&mut self, event: SplitEvent, out: &mut Out) -> Result<(), Failure> {
        self.inner.split(event, out).await
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        let now = out.now;
        let refreshed = self.tables.iter_mut().filter_map(|table| table.refresh(now).then_some(())).count();
        if refreshed > 0 {
            self.advance(out).await?;
        }
        let before = out.messages.len();
        self.inner.tick(out).await?;
        self.take_back(before, out)
    }

    async fn end(&mut self, end: End, out: &mut Out) -> Result<(), Failure> {
        let before = out.messages.len();
        self.inner.end(end, out).await?;
        self.take_back(before, out)
    }

    async fn abort(&mut self) {
        self.inner.abort().await;
    }

    fn heaviest(&self) -> Vec<(String, u64)> {
        self.inner.heaviest()
    }

    fn held(&self) -> u64 {
        self.waiting.len() + self.inner.held()
    }

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        visit("waiting_for_side_inputs", self.waiting.cells());
        self.inner.visit_cells(visit);
    }

    fn evict_to(&mut self, scratch: &Scratch) -> Result<(), Failure> {
        self.inner.evict_to(scratch)
    }

    fn make_room(&mut self) -> Result<(), Failure> {
        self.inner.make_room()
    }

    async fn renew(&mut self, version: &NewVersion) -> Result<Renewed, Failure> {
        if self.inner.renew(version).await? == Renewed::Replace {
            self.inner = version.operator()?;
        }
        Ok(Renewed::Itself)
    }

    fn counted(&self) -> Option<&UserMetrics> {
        self.inner.counted()
    }

    fn book(&self) -> Option<Arc<Book>> {
        self.inner.book()
    }

    fn is_settling(&self) -> bool {
        self.inner.is_settling()
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        self.inner.settle().await
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        let (_, watermark) = unkeyed::of_watermark(self.highest);
        let tables = self.tables.iter().map(|table| (format!("{SIDE}{}", table.plan.tag), table.written()));
        self.inner.unkeyed().into_iter().chain([(HANDED_ON.to_string(), watermark)]).chain(tables).collect()
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        let (mut inner, mut handed_on) = (Vec::new(), Vec::new());
        for (partition, bytes) in unkeyed {
            if let Some(tag) = partition.strip_prefix(SIDE) {
                // One that the pipeline no longer has is forgotten.
                if let Some(table) = self.tables.iter_mut().find(|table| table.plan.tag == tag) {
                    table.restore(bytes).ok_or_else(|| unkeyed::damaged("a side input, or what is read of it,"))?;
                }
            } else if partition == HANDED_ON {
                handed_on.push((unkeyed::TASK.to_string(), bytes.clone()));
            } else {
                inner.push((partition.clone(), bytes.clone()));
            }
        }
        self.highest = unkeyed::earliest_watermark(&handed_on)?;
        self.inner.restore(&inner)
    }
}
