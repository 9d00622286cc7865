//! Combiner lifting: rows are aggregated where they are made, and partial results cross the exchange to their grouping.
//!
//! It must not be seen in any result. The invariant that makes it so (decision 0009): **a partial result reaches its grouping
//! before a watermark that passes the end of its window.** The grouping's watermark is the least of what its producers have
//! sent; so a row whose window ends after the last watermark that went through this exchange is on time at the grouping, now
//! and until the next watermark, and no verdict about lateness is left to make about it. All other rows go through as they
//! are, and the grouping judges them.
//!
//! - Only groupings with the default trigger and one window a row are lifted: what they give out does not depend on which
//!   rows came together.
//! - A producer that was idle no longer holds the grouping's watermark, which may have passed it since. It sends rows as they
//!   are for the rest of the run.
//! - A partial result carries how many rows are in it, so that the counts of the run still add up.
//!
//! What is held here lies in [`Cells`] and is gone before a watermark that concerns it, before a barrier and before the end; nothing of it is ever in a
//! checkpoint, but for what plugins have counted. So a plugin's aggregate is swapped here where the barrier passes, when no accumulator of its former
//! version is left.

use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::metrics::{NodeMetrics, UserMetrics};
use crate::operator::{Out, Refusals};
use crate::operators::combine::{Aggregate, CombinePlan, renewed};
use crate::swap::Cut;
use crate::windows;
use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_core::batch::{MAX_ROWS, PaneInfo, RowWindows};
use pelton_core::key::{KeyEncoder, Keys, group_owner, key_group, key_hash};
use pelton_core::lifting::Lifting;
use pelton_core::pane::PaneRule;
use pelton_core::{Batch, Instant, Positions, Window};
use pelton_state::{Cells, ColumnId, Slot};
use std::sync::Arc;

/// Cells that wait at most where each takes a fixed amount of memory: a few MiB.
const MAX_CELLS: usize = 1 << 16;
/// Cells that wait at most where one may hold a sketch or a list: 24 MiB of sketches.
const MAX_LARGE_CELLS: usize = 1 << 12;

/// Aggregates the rows of one producer for one grouping.
pub struct Lift {
    plan: CombinePlan,
    encoder: KeyEncoder,
    keys: Keys,
    cells: Cells,
    rows: ColumnId,
    aggregates: Vec<Aggregate>,
    /// The node of the grouping.
    pub node: usize,
    /// For the metrics of plugins' aggregates.
    pub metrics: Option<Arc<NodeMetrics>>,
    /// Of these what was counted here.
    pub counted: UserMetrics,
    schema: SchemaRef,
    /// The last watermark that went through the exchange.
    watermark: Instant,
    /// Not after the producer was idle.
    trusted: bool,
    /// `None`: it always pays, the pipeline says.
    lifting: Option<Lifting>,
    limit: usize,
    refusals: Refusals,
}

/// Which partial results are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Those of windows that end at or before this watermark.
    By(Instant),
    /// All.
    All,
}

/// Whether rows for a grouping may be aggregated before they get there.
pub fn can_lift(plan: &CombinePlan) -> bool {
    PaneRule::new(&plan.strategy).is_default()
        && plan.levels.is_empty()
        && plan.strategy.window_fn.is_single()
        && plan.aggregates.iter().all(|(function, _)| function.condenses())
}

impl Lift {
    /// For a grouping that [`can_lift`].
    pub fn new(plan: &CombinePlan, transform: &str) -> Result<Lift, Failure> {
        let refusals = Refusals { transform: transform.into(), plugin: None, port: None };
        let failed = |message: String| Failure::Internal { transform: transform.into(), message };
        let mut cells = Cells::default();
        let rows = cells.declare(0i64);
        let aggregates = Aggregate::all(plan, transform, &mut cells)?;
        let mut fields = vec![Field::new("key", DataType::Binary, false), Field::new("rows", DataType::Int64, false)];
        let types: Vec<DataType> = aggregates.iter().flat_map(Aggregate::partial_types).collect();
        let large = types.contains(&DataType::Binary);
        fields.extend(types.into_iter().enumerate().map(|(number, data_type)| Field::new(format!("state{number}"), data_type, false)));
        Ok(Lift {
            encoder: KeyEncoder::new(&plan.group_types).map_err(failed)?,
            plan: plan.clone(),
            keys: Keys::default(),
            cells,
            rows,
            aggregates,
            node: 0,
            metrics: None,
            counted: UserMetrics::new(),
            schema: Arc::new(Schema::new(fields)),
            watermark: Instant::MIN,
            trusted: true,
            lifting: (!plan.spread).then(Lifting::default),
            limit: if large { MAX_LARGE_CELLS } else { MAX_CELLS },
            refusals,
        })
    }

    /// A watermark goes through the exchange, after what is due by it.
    pub fn passed(&mut self, watermark: Instant) {
        self.watermark = self.watermark.max(watermark);
    }

    /// The producer is idle: the grouping no longer waits for it.
    pub fn idled(&mut self) {
        self.trusted = false;
    }

    /// At a cut, when nothing is held: what comes from now on is aggregated by the new version of the grouping, if it has one.
    pub fn renew(&mut self, cut: &Cut) -> Result<(), Failure> {
        match cut.version(self.node) {
            Some(version) => renewed(version, &mut self.plan, &mut self.aggregates),
            None => Ok(()),
        }
    }

    /// Whether partial results must be sent to make room.
    pub fn is_full(&self) -> bool {
        self.cells.len() >= self.limit
    }

    /// Takes the rows that are certainly on time and gives the others back.
    pub async fn take(&mut self, batch: Batch) -> Result<Option<Batch>, Failure> {
        if let Some(metrics) = &self.metrics {
            metrics.sample.offer(&batch);
        }
        let pays = self.lifting.as_mut().is_none_or(|lifting| lifting.tries(batch.num_rows() as u64));
        if !self.trusted || !pays {
            return Ok(Some(batch));
        }
        let (mut taken, mut left, mut table) = (Vec::with_capacity(batch.num_rows()), Vec::new(), Vec::new());
        let watermark = self.watermark;
        windows::for_each(&batch, self.plan.strategy.window_fn, |row, window| {
            if window.end <= watermark {
                left.push(row as u32);
                return;
            }
            if table.last() != Some(&window) {
                table.push(window);
            }
            taken.push((row as u32, table.len() as u32 - 1));
        });
        self.add(&batch, &taken, &table).await?;
        Ok(match left.len() {
            0 => None,
            all if all == batch.num_rows() => Some(batch),
            _ => Some(batch.take(&UInt32Array::from(left))),
        })
    }

    async fn add(&mut self, batch: &Batch, rows: &[(u32, u32)], table: &[Window]) -> Result<(), Failure> {
        let some: Batch;
        let (batch, numbers): (&Batch, Vec<(u32, u32)>) = if rows.len() == batch.num_rows() {
            (batch, rows.to_vec())
        } else {
            some = batch.take(&UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row)));
            (&some, rows.iter().enumerate().map(|(number, (_, window))| (number as u32, *window)).collect())
        };
        let columns = group_columns(&self.refusals.transform, &self.plan.group_by, batch)?;
        encode(&self.encoder, &columns, batch.num_rows(), &mut self.keys);
        let (mut slots, mut new) = (Vec::with_capacity(rows.len()), Vec::new());
        self.cells.entries(&self.keys, &numbers, table, &mut slots, &mut new);
        if let Some(lifting) = &mut self.lifting {
            lifting.observe(rows.len() as u64, new.len() as u64);
        }
        let mut cells = self.cells.touch(&slots);
        let counts = cells.column::<i64>(self.rows);
        slots.iter().for_each(|slot| counts[*slot as usize] += 1);
        let mut values: Vec<Option<ArrayRef>> = Vec::with_capacity(self.aggregates.len());
        for (aggregate, (_, value)) in self.aggregates.iter_mut().zip(&self.plan.aggregates) {
            let value: Option<ArrayRef> = match value {
                None => None,
                Some(expression) => {
                    let evaluated = expression.evaluate(&batch.rows);
                    self.refusals.refuse(batch, &evaluated.errors, &mut Out::new(Instant::MIN))?;
                    Some(evaluated.array)
                }
            };
            if let Aggregate::Own(own) = aggregate {
                let added = own.add(&mut cells, &slots, &batch.times, value.as_ref());
                added.map_err(|message| Failure::Aggregate { transform: self.refusals.transform.clone(), message })?;
            }
            values.push(value);
        }
        for (aggregate, value) in self.aggregates.iter_mut().zip(&values) {
            if let (Aggregate::Plugin(plugin), Some(value)) = (aggregate, value) {
                let metrics = self.metrics.as_deref().map(|metrics| (metrics, &mut self.counted));
                plugin.add(&mut self.cells, &slots, value, (batch, None), metrics, &self.refusals).await?;
            }
        }
        Ok(())
    }

    /// Takes out what is due, for each of `targets` tasks of the grouping.
    pub fn flush(&mut self, due: Due, targets: usize) -> Result<Vec<(usize, Batch)>, Failure> {
        if self.cells.is_empty() {
            return Ok(Vec::new());
        }
        let mut slots: Vec<Vec<Slot>> = vec![Vec::new(); targets];
        for slot in self.cells.slots() {
            let cell = self.cells.key(slot);
            if due == Due::All || matches!(due, Due::By(watermark) if cell.window.end <= watermark) {
                slots[group_owner(key_group(key_hash(cell.key)), targets)].push(slot);
            }
        }
        let mut batches = Vec::new();
        for (target, mut slots) in slots.into_iter().enumerate() {
            // In the order in which they came, so that neighbours share windows.
            slots.sort_unstable();
            for slots in slots.chunks(MAX_ROWS) {
                batches.push((target, self.partial(slots)?));
            }
            slots.into_iter().for_each(|slot| self.cells.remove(slot));
        }
        Ok(batches)
    }

    fn partial(&self, slots: &[Slot]) -> Result<Batch, Failure> {
        let counts = self.cells.column::<i64>(self.rows);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(BinaryArray::from_iter_values(slots.iter().map(|slot| self.cells.key(*slot).key))),
            Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| counts[*slot as usize]))),
        ];
        columns.extend(self.aggregates.iter().flat_map(|aggregate| aggregate.partial(&self.cells, slots)));
        let rows = RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| Failure::Internal { transform: self.refusals.transform.clone(), message: error.to_string() })?;
        let mut table: Vec<Window> = Vec::new();
        let mut index = Vec::with_capacity(slots.len());
        for slot in slots {
            let window = self.cells.key(*slot).window;
            if table.last() != Some(&window) {
                table.push(window);
            }
            index.push(table.len() as u32 - 1);
        }
        let times = index.iter().map(|number| table[*number as usize].max_timestamp().micros()).collect();
        let windows = RowWindows { index: index.into(), table: table.into(), pane: PaneInfo::UNWINDOWED };
        Ok(Batch { rows, times, windows: Some(windows), positions: Positions::None })
    }
}

#[cfg(test)]
mod tests;
