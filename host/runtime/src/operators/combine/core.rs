//! What every way of grouping has: keys, cells with their aggregates, panes on their way out, and rows that came too late.

use super::CombinePlan;
use super::plugin::PluginAggregate;
use crate::failure::Failure;
use crate::metrics::{NodeMetrics, UserMetrics, WindowCounts};
use crate::operator::{Out, Port, Refusals};
use crate::operators::aggregate::Aggregator;
use crate::operators::evolving::Evolving;
use crate::operators::late::late_batch;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::DataType;
use pelton_core::batch::{MAX_ROWS, PaneInfo, RowWindows};
use pelton_core::evolution::Evolved;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::{Batch, Instant, Positions, Window};
use pelton_expr::Expression;
use pelton_pipeline::graph::AggregateFunction;
use pelton_plugin::PluginError;
use pelton_state::{CellKey, Cells, Clock, ColumnId, Indexes, Slot, TimerTag};
use std::sync::Arc;

/// Timers that are due, and their moment.
pub type DueTimers = (Instant, Vec<(Slot, TimerTag)>);

/// The state of a Combine and what can be done with it.
pub struct Core {
    /// What was bound.
    pub plan: CombinePlan,
    /// Keys to bytes.
    pub encoder: KeyEncoder,
    pub(super) decoder: KeyDecoder,
    /// The keys of the batch at hand.
    pub keys: Keys,
    /// All state.
    pub cells: Cells,
    /// Rows in a cell that no pane has held.
    pub rows: ColumnId,
    pub(super) aggregates: Vec<Aggregate>,
    /// How accumulators of plugins are brought to the present.
    pub(in crate::operators) evolving: Evolving,
    /// For the metrics of plugins' aggregates.
    pub metrics: Option<Arc<NodeMetrics>>,
    /// Of these what this task has counted.
    pub counted: UserMetrics,
    /// How far event time has come.
    pub watermark: Instant,
    counts: Arc<WindowCounts>,
    pub(super) refusals: Refusals,
}

/// A column of results and its state.
pub(crate) enum Aggregate {
    Own(Aggregator),
    Plugin(Box<PluginAggregate>),
}

impl Aggregate {
    /// All aggregates of a plan, with their columns declared in `cells`.
    pub(crate) fn all(plan: &CombinePlan, transform: &str, cells: &mut Cells) -> Result<Vec<Aggregate>, Failure> {
        let one = |(number, (function, value)): (usize, &(AggregateFunction, Option<Expression>))| {
            Ok(match plan.plugins.get(number).and_then(Option::as_ref) {
                Some(binding) => {
                    let opened = PluginAggregate::new(binding, cells);
                    Aggregate::Plugin(Box::new(opened.map_err(|error| Failure::Plugin { transform: transform.into(), error })?))
                }
                None => {
                    let opened = Aggregator::new(function, value.as_ref().map(Expression::data_type), cells);
                    Aggregate::Own(opened.map_err(|message| Failure::Internal { transform: transform.into(), message })?)
                }
            })
        };
        plan.aggregates.iter().enumerate().map(one).collect()
    }

    /// The types of the columns of [`Aggregate::partial`].
    pub(crate) fn partial_types(&self) -> Vec<DataType> {
        match self {
            Aggregate::Own(own) => own.partial_types(),
            Aggregate::Plugin(_) => vec![DataType::Binary],
        }
    }

    /// What cells hold, as columns that another task can merge.
    pub(crate) fn partial(&self, cells: &Cells, slots: &[Slot]) -> Vec<ArrayRef> {
        match self {
            Aggregate::Own(own) => own.partial(cells, slots),
            Aggregate::Plugin(plugin) => vec![plugin.partial(cells, slots)],
        }
    }
}

/// A batch whose values have been computed; its keys are in [`Core::keys`].
pub struct Incoming {
    /// The rows.
    pub batch: Batch,
    /// What each aggregate is of.
    pub values: Vec<Option<ArrayRef>>,
}

/// A cell that gives out a pane.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The cell.
    pub slot: Slot,
    /// The pane's window.
    pub window: Window,
    /// Which of the window's panes.
    pub pane: PaneInfo,
    /// Event time of the row that comes out.
    pub time: Instant,
}

impl Core {
    /// With no state. Columns that a way needs for itself are declared in `cells` before the first cell.
    pub fn new(plan: CombinePlan, counts: Arc<WindowCounts>, refusals: Refusals) -> Result<Core, Failure> {
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let mut cells = Cells::default();
        let rows = cells.declare(0i64);
        let aggregates = Aggregate::all(&plan, &refusals.transform, &mut cells)?;
        let evolved = Evolved::new(&plan.declared());
        if plan.has_plugins() {
            cells.keep_eras(evolved.book.present().number);
        }
        Ok(Core {
            evolving: Evolving::new(&evolved),
            encoder: KeyEncoder::new(&plan.group_types).map_err(failed)?,
            decoder: KeyDecoder::new(&plan.group_types).map_err(failed)?,
            keys: Keys::default(),
            rows,
            aggregates,
            metrics: None,
            counted: UserMetrics::new(),
            cells,
            watermark: Instant::MIN,
            counts,
            refusals,
            plan,
        })
    }

    /// Lets cells leave memory that do not fit.
    pub fn make_room(&mut self, indexes: &mut dyn Indexes) -> Result<(), Failure> {
        let made = self.cells.make_room(indexes);
        made.map_err(|error| Failure::Scratch { transform: self.refusals.transform.clone(), error })
    }

    /// The next timers of event time, for those that keep nothing by slot meanwhile.
    pub fn due(&mut self) -> Result<Option<DueTimers>, Failure> {
        self.make_room(&mut ())?;
        Ok(self.cells.due_timers(Clock::Event, self.watermark))
    }

    /// Adds up something of all cells, which is made of the window and columns of numbers.
    pub fn sum(&self, of: impl Fn(Window, &dyn Fn(ColumnId) -> i64) -> u64) -> u64 {
        let here = |slot: Slot| of(self.cells.key(slot).window, &|column| self.cells.column::<i64>(column)[slot as usize]);
        let mut sum: u64 = self.cells.slots().map(here).sum();
        let read = self.cells.visit_evicted(|cell, state| sum += of(cell.window, &|column| state.number(column)));
        if let Err(error) = read {
            tracing::warn!(%error, "what is inside was not counted");
        }
        sum
    }

    /// A fault of ours.
    pub fn internal(&self, message: impl Into<String>) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message: message.into() }
    }

    pub(super) fn plugin(&self, error: PluginError) -> Failure {
        Failure::Plugin { transform: self.refusals.transform.clone(), error }
    }

    fn aggregate(&self, message: String) -> Failure {
        Failure::Aggregate { transform: self.refusals.transform.clone(), message }
    }

    /// The cell of a row's key in a window. True: it is new.
    pub fn cell(&mut self, row: usize, window: Window) -> (Slot, bool) {
        self.cells.entry(CellKey { key: self.keys.get(row), window })
    }

    /// The cells of rows of this batch, each with its number in `windows`, and those that are new.
    pub fn cells_of(&mut self, rows: &[(u32, u32)], windows: &[Window]) -> (Vec<Slot>, Vec<Slot>) {
        let (mut slots, mut new) = (Vec::with_capacity(rows.len()), Vec::new());
        self.cells.entries(&self.keys, rows, windows, &mut slots, &mut new);
        (slots, new)
    }

    /// Adds rows to cells: `slots[i]` is that of row `i`, or of row `picked[i]`.
    pub async fn add(&mut self, slots: &[Slot], incoming: &Incoming, picked: Option<&UInt32Array>) -> Result<(), Failure> {
        self.bring(slots).await?;
        let mut cells = self.cells.touch(slots);
        let rows = cells.column::<i64>(self.rows);
        slots.iter().for_each(|slot| rows[*slot as usize] += 1);
        let some: Vec<i64>;
        let times: &[i64] = match picked {
            None => &incoming.batch.times,
            Some(picked) => {
                some = picked.values().iter().map(|row| incoming.batch.times[*row as usize]).collect();
                &some
            }
        };
        let pick = |value: &ArrayRef| match picked {
            Some(picked) => arrow::compute::take(value, picked, None).expect("row numbers are in range"),
            None => value.clone(),
        };
        let values: Vec<Option<ArrayRef>> = incoming.values.iter().map(|value| value.as_ref().map(pick)).collect();
        for (aggregate, value) in self.aggregates.iter_mut().zip(&values) {
            if let Aggregate::Own(own) = aggregate {
                let added = own.add(&mut cells, slots, times, value.as_ref());
                added.map_err(|message| Failure::Aggregate { transform: self.refusals.transform.clone(), message })?;
            }
        }
        for (aggregate, value) in self.aggregates.iter_mut().zip(&values) {
            if let Aggregate::Plugin(plugin) = aggregate {
                let value = value.as_ref().expect("only a count goes without a value");
                let rows = (&incoming.batch, picked);
                let metrics = self.metrics.as_deref().map(|metrics| (metrics, &mut self.counted));
                plugin.add(&mut self.cells, slots, value, rows, metrics, &self.refusals).await?;
            }
        }
        Ok(())
    }

    /// Adds what cell `from[i]` holds to cell `into[i]`; none is on both sides.
    pub async fn merge(&mut self, into: &[Slot], from: &[Slot]) -> Result<(), Failure> {
        if into.is_empty() {
            return Ok(());
        }
        self.bring(into).await?;
        self.bring(from).await?;
        let held: Vec<i64> = from.iter().map(|slot| self.cells.column::<i64>(self.rows)[*slot as usize]).collect();
        let rows = self.cells.write::<i64>(self.rows, into);
        into.iter().zip(held).for_each(|(slot, held)| rows[*slot as usize] += held);
        for number in 0..self.aggregates.len() {
            match &mut self.aggregates[number] {
                Aggregate::Own(own) => {
                    let merged = own.merge_pairs(&mut self.cells, into, from);
                    merged.map_err(|message| self.aggregate(message))?;
                }
                Aggregate::Plugin(plugin) => {
                    let merged = plugin.merge(&mut self.cells, into, from).await;
                    merged.map_err(|error| self.plugin(error))?;
                }
            }
        }
        Ok(())
    }

    /// Adds partial results to cells: row `i` of the columns, which hold `counts[i]` rows, to `slots[i]`.
    pub async fn add_partial(&mut self, slots: &[Slot], counts: &[i64], columns: &[ArrayRef]) -> Result<(), Failure> {
        self.bring(slots).await?;
        let rows = self.cells.write::<i64>(self.rows, slots);
        slots.iter().zip(counts).for_each(|(slot, count)| rows[*slot as usize] += count);
        let mut rest = columns;
        for number in 0..self.aggregates.len() {
            let (columns, others) = rest.split_at(self.aggregates[number].partial_types().len());
            match &mut self.aggregates[number] {
                Aggregate::Own(own) => {
                    let added = own.add_partial(&mut self.cells, slots, columns);
                    added.map_err(|message| self.aggregate(message))?;
                }
                Aggregate::Plugin(plugin) => {
                    let added = plugin.add_partial(&mut self.cells, slots, &columns[0]).await;
                    added.map_err(|error| self.plugin(error))?;
                }
            }
            rest = others;
        }
        Ok(())
    }

    /// Empties cells.
    pub fn clear(&mut self, slots: &[Slot]) {
        let rows = self.cells.write::<i64>(self.rows, slots);
        slots.iter().for_each(|slot| rows[*slot as usize] = 0);
        for aggregate in &self.aggregates {
            match aggregate {
                Aggregate::Own(own) => own.reset(&mut self.cells, slots),
                Aggregate::Plugin(plugin) => plugin.reset(&mut self.cells, slots),
            }
        }
    }

    /// Gives panes out, in batches of one pane info each. The cells stay as they are, except that their rows have led to something.
    pub async fn emit(&mut self, given: &[Given], port: Port, out: &mut Out) -> Result<(), Failure> {
        let mut rest: Vec<Given> = given.to_vec();
        while let Some(first) = rest.first().map(|given| given.pane) {
            let (same, others): (Vec<Given>, Vec<Given>) = rest.into_iter().partition(|given| given.pane == first);
            for chunk in same.chunks(MAX_ROWS) {
                self.emit_same(chunk, first, port, out).await?;
            }
            rest = others;
        }
        Ok(())
    }

    async fn emit_same(&mut self, given: &[Given], pane: PaneInfo, port: Port, out: &mut Out) -> Result<(), Failure> {
        let slots: Vec<Slot> = given.iter().map(|given| given.slot).collect();
        self.bring(&slots).await?;
        let keys = slots.iter().map(|slot| self.cells.key(*slot).key);
        let mut columns = self.decoder.decode(keys).map_err(|message| self.internal(message))?;
        for number in 0..self.aggregates.len() {
            columns.push(match &mut self.aggregates[number] {
                Aggregate::Own(own) => own.extract(&self.cells, &slots).map_err(|message| self.aggregate(message))?,
                Aggregate::Plugin(plugin) => {
                    let extracted = plugin.extract(&self.cells, &slots).await;
                    extracted.map_err(|error| self.plugin(error))?
                }
            });
        }
        let mut table: Vec<Window> = Vec::new();
        let mut index = Vec::with_capacity(given.len());
        let rows = self.cells.write::<i64>(self.rows, &slots);
        for Given { slot, window, .. } in given {
            if table.last() != Some(window) {
                table.push(*window);
            }
            index.push(table.len() as u32 - 1);
            let inside = std::mem::take(&mut rows[*slot as usize]) as u64;
            out.account.led += inside;
            if inside > 0 {
                self.counts.add(window.start.micros(), inside);
            }
        }
        let times = given.iter().map(|given| given.time.micros()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(given.len()));
        let rows = RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options)
            .map_err(|error| self.internal(error.to_string()))?;
        let windows = RowWindows { index: index.into(), table: table.into(), pane };
        out.rows(port, Batch { rows, times, windows: Some(windows), positions: Positions::None });
        Ok(())
    }

    /// Rows that came after their window had closed.
    pub fn late(&self, batch: &Batch, rows: &[(u32, Window)], out: &mut Out) {
        if !rows.is_empty() {
            out.account.late += rows.len() as u64;
            out.rows(self.plan.late_port, late_batch(batch, rows, self.watermark, &self.plan.late_schema));
        }
    }
}
