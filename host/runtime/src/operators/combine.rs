//! Combine: aggregates per key and window, and gives each window out when the watermark passes its end.
//!
//! A cell is one key in one window. Rows on time are added to their cell; at the end of the window all its cells fire. With
//! allowed lateness a cell stays, emptied, and each late row gives a pane of its own at once (Beam's default trigger,
//! discarding). Rows later than that go to the output `late`.
//!
//! Why the output watermark is the input's: whatever is still inside belongs to a window that ends after the watermark, and
//! its output time is that end less a microsecond.

use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::WindowCounts;
use crate::operator::{MAIN, Operator, Out, Port, Refusals};
use crate::windows;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use pelton_core::batch::{MAX_ROWS, PaneInfo, PaneTiming, RowWindows};
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::watermark::{Lateness, Watermark, closes_at, lateness};
use pelton_core::{Batch, Duration, Instant, Positions, Window, WindowingStrategy};
use pelton_expr::Expression;
use pelton_pipeline::graph::AggregateFunction;
use pelton_state::{CellKey, Cells, ColumnId, Slot, TimerTag, Timers};
use std::sync::Arc;

use super::aggregate::Aggregator;

const FIRE: TimerTag = TimerTag(0);
const CLOSE: TimerTag = TimerTag(1);
/// Batches between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;

/// What a Combine does; the same for all its tasks.
#[derive(Clone)]
pub struct CombinePlan {
    /// Key columns.
    pub group_by: Vec<Expression>,
    /// Their types.
    pub group_types: Vec<DataType>,
    /// Aggregates and what they are of.
    pub aggregates: Vec<(AggregateFunction, Option<Expression>)>,
    /// Columns of the output: keys, then aggregates.
    pub schema: SchemaRef,
    /// Columns of the output `late`.
    pub late_schema: SchemaRef,
    /// Its port.
    pub late_port: Port,
    /// Windows of the input and when they fire.
    pub strategy: WindowingStrategy,
    /// Bytes of state that this task may hold.
    pub state_limit: usize,
}

/// The operator.
pub struct Combine {
    plan: CombinePlan,
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    keys: Keys,
    cells: Cells,
    timers: Timers,
    /// Rows in a cell that has not fired.
    rows: ColumnId,
    /// Panes that a cell has given out.
    panes: ColumnId,
    aggregators: Vec<Aggregator>,
    watermark: Instant,
    batches: u32,
    counts: Arc<WindowCounts>,
    refusals: Refusals,
}

/// Columns of the output `late`: the row's, then its window and the watermark that had passed it.
pub fn late_schema(input: &Schema) -> SchemaRef {
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let added = ["window_start", "window_end", "watermark"].map(|name| Field::new(name, instant(), false));
    let kept =
        input.fields().iter().filter(|field| !added.iter().any(|new| new.name() == field.name())).map(|field| field.as_ref().clone());
    Arc::new(Schema::new(kept.chain(added.clone()).collect::<Vec<_>>()))
}

impl Combine {
    /// With no state.
    pub fn new(plan: CombinePlan, counts: Arc<WindowCounts>, refusals: Refusals) -> Result<Combine, Failure> {
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let mut cells = Cells::default();
        let (rows, panes) = (cells.declare(0i64), cells.declare(0i64));
        let aggregators = plan
            .aggregates
            .iter()
            .map(|(function, value)| Aggregator::new(function, value.as_ref().map(Expression::data_type), &mut cells));
        Ok(Combine {
            encoder: KeyEncoder::new(&plan.group_types).map_err(failed)?,
            decoder: KeyDecoder::new(&plan.group_types).map_err(failed)?,
            keys: Keys::default(),
            timers: Timers::default(),
            rows,
            panes,
            aggregators: aggregators.collect::<Result<_, _>>().map_err(failed)?,
            cells,
            watermark: Instant::MIN,
            batches: 0,
            counts,
            refusals,
            plan,
        })
    }

    /// Adds the rows `picked` of the batch (all of them if `None`) to their cells, whose slots are given.
    fn add(&mut self, slots: &[Slot], values: &[Option<ArrayRef>]) -> Result<(), Failure> {
        let rows = self.cells.write::<i64>(self.rows, slots);
        slots.iter().for_each(|slot| rows[*slot as usize] += 1);
        for (aggregator, value) in self.aggregators.iter_mut().zip(values) {
            aggregator
                .add(&mut self.cells, slots, value.as_ref())
                .map_err(|message| Failure::Aggregate { transform: self.refusals.transform.clone(), message })?;
        }
        Ok(())
    }

    /// The cell of a row, with its timers set when it is new.
    fn cell(&mut self, row: usize, window: Window) -> Slot {
        let (slot, new) = self.cells.entry(CellKey { key: self.keys.get(row), window });
        if new {
            if self.watermark < window.end {
                self.timers.set(slot, FIRE, window.end);
            }
            let close = closes_at(window, self.plan.strategy.allowed_lateness);
            if close > window.end {
                self.timers.set(slot, CLOSE, close);
            }
        }
        slot
    }

    /// Gives cells out as one pane each and empties them.
    fn fire(&mut self, slots: &[Slot], timing: PaneTiming, out: &mut Out) -> Result<(), Failure> {
        for slots in slots.chunks(MAX_ROWS) {
            let failed = |message: String| Failure::Internal { transform: self.refusals.transform.clone(), message };
            let mut columns = self.decoder.decode(slots.iter().map(|slot| self.cells.key(*slot).key)).map_err(failed)?;
            for aggregator in &self.aggregators {
                columns.push(aggregator.extract(&self.cells, slots).map_err(failed)?);
            }
            let mut table: Vec<Window> = Vec::new();
            let mut index = Vec::with_capacity(slots.len());
            for slot in slots {
                let window = self.cells.key(*slot).window;
                if table.last() != Some(&window) {
                    table.push(window);
                }
                index.push(table.len() as u32 - 1);
            }
            let rows = self.cells.column::<i64>(self.rows);
            for (slot, number) in slots.iter().zip(&index) {
                let inside = rows[*slot as usize] as u64;
                out.account.led += inside;
                self.counts.add(table[*number as usize].start.micros(), inside);
            }
            let times = index.iter().map(|number| table[*number as usize].max_timestamp().micros()).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
            let rows = RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options)
                .map_err(|error| failed(error.to_string()))?;
            let pane_index = self.cells.column::<i64>(self.panes)[slots[0] as usize];
            let pane = PaneInfo {
                timing,
                is_first: pane_index == 0,
                is_last: timing == PaneTiming::OnTime && self.plan.strategy.allowed_lateness == Duration::ZERO,
                index: pane_index,
                nonspeculative_index: pane_index,
            };
            let windows = RowWindows { index: index.into(), table: table.into(), pane };
            out.rows(MAIN, Batch { rows, times, windows: Some(windows), positions: Positions::None });
            let panes = self.cells.write::<i64>(self.panes, slots);
            slots.iter().for_each(|slot| panes[*slot as usize] += 1);
            let rows = self.cells.write::<i64>(self.rows, slots);
            slots.iter().for_each(|slot| rows[*slot as usize] = 0);
            for aggregator in &self.aggregators {
                aggregator.reset(&mut self.cells, slots);
            }
        }
        Ok(())
    }

    /// Fires and closes everything that is due, in order of time.
    fn advance(&mut self, out: &mut Out) -> Result<(), Failure> {
        while let Some((at, due)) = self.timers.due(self.watermark) {
            let fired: Vec<Slot> = due.iter().filter(|(_, tag)| *tag == FIRE).map(|(slot, _)| *slot).collect();
            if !fired.is_empty() {
                self.fire(&fired, PaneTiming::OnTime, out)?;
            }
            for (slot, tag) in due {
                let closes = tag == CLOSE || closes_at(self.cells.key(slot).window, self.plan.strategy.allowed_lateness) <= at;
                if closes {
                    self.timers.clear(slot, FIRE);
                    self.timers.clear(slot, CLOSE);
                    self.cells.remove(slot);
                }
            }
        }
        Ok(())
    }

    fn late(&mut self, batch: &Batch, rows: Vec<(u32, Window)>, out: &mut Out) {
        out.account.late += rows.len() as u64;
        let numbers = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
        let late = batch.take(&numbers);
        let instants = |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) };
        let columns = self.plan.late_schema.fields().iter().map(|field| match field.name().as_str() {
            "window_start" => instants(rows.iter().map(|(_, window)| window.start.micros()).collect()),
            "window_end" => instants(rows.iter().map(|(_, window)| window.end.micros()).collect()),
            "watermark" => instants(vec![self.watermark.micros(); rows.len()]),
            name => late.rows.column_by_name(name).expect("the late schema has the input's columns").clone(),
        });
        let made = RecordBatch::try_new(self.plan.late_schema.clone(), columns.collect()).expect("columns follow the late schema");
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

#[async_trait(?Send)]
impl Operator for Combine {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let groups = group_columns(&self.refusals.transform, &self.plan.group_by, &batch)?;
        let mut values = Vec::with_capacity(self.plan.aggregates.len());
        for (_, value) in &self.plan.aggregates {
            values.push(match value {
                None => None,
                Some(expression) => {
                    let evaluated = expression.evaluate(&batch.rows);
                    self.refusals.refuse(&batch, &evaluated.errors, out)?;
                    Some(evaluated.array)
                }
            });
        }
        encode(&self.encoder, &groups, batch.num_rows(), &mut self.keys);
        let mut placed: Vec<(u32, Window, Lateness)> = Vec::new();
        let (watermark, allowed) = (self.watermark, self.plan.strategy.allowed_lateness);
        let mut slots = Vec::with_capacity(batch.num_rows());
        let mut in_order: Vec<(usize, Window)> = Vec::with_capacity(batch.num_rows());
        windows::for_each(&batch, self.plan.strategy.window_fn, |row, window| match lateness(window, allowed, watermark) {
            Lateness::OnTime => in_order.push((row, window)),
            late => placed.push((row as u32, window, late)),
        });
        for (row, window) in &in_order {
            let slot = self.cell(*row, *window);
            slots.push(slot);
        }
        if placed.is_empty() {
            self.add(&slots, &values)?;
        } else {
            let rows = UInt32Array::from_iter_values(in_order.iter().map(|(row, _)| *row as u32));
            let picked = pick(&values, &rows);
            self.add(&slots, &picked)?;
            // Late rows are rare: one at a time, a pane each.
            let mut late = Vec::new();
            for (row, window, how) in placed {
                match how {
                    Lateness::Dropped => late.push((row, window)),
                    _ => {
                        let slot = self.cell(row as usize, window);
                        self.add(&[slot], &pick(&values, &UInt32Array::from(vec![row])))?;
                        self.fire(&[slot], PaneTiming::Late, out)?;
                    }
                }
            }
            if !late.is_empty() {
                self.late(&batch, late, out);
            }
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
        let rows = self.cells.column::<i64>(self.rows);
        self.cells.slots().map(|slot| rows[slot as usize] as u64).sum()
    }
}

fn pick(values: &[Option<ArrayRef>], rows: &UInt32Array) -> Vec<Option<ArrayRef>> {
    values
        .iter()
        .map(|value| value.as_ref().map(|value| arrow::compute::take(value, rows, None).expect("row numbers are in range")))
        .collect()
}
