//! An aggregation of a plugin: accumulators as bytes in a column of state, and one call of the guest for all the cells of a batch.
//!
//! A cell without an accumulator has no bytes; else a byte 1 stands before it, because an accumulator may be empty.

use crate::failure::Failure;
use crate::metrics::NodeMetrics;
use crate::operator::{Out, Refusals};
use crate::operators::plugin::count;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, UInt32Array};
use arrow::compute::take;
use pelton_core::{Batch, Instant, RowError};
use pelton_plugin::{CombineBinding, CombineInstance, MetricSpec, PluginError};
use pelton_state::{Cells, ColumnId, Slot};
use std::collections::HashMap;
use std::sync::Arc;

/// Accumulators of one call.
const MAX_MERGED: usize = 4_096;

/// One aggregation and its column of state.
pub struct PluginAggregate {
    instance: CombineInstance,
    column: ColumnId,
    metrics: Arc<[MetricSpec]>,
}

/// Cells, each once, and the number of each row's.
struct Groups {
    slots: Vec<Slot>,
    numbers: Vec<u32>,
}

impl Groups {
    fn of(slots: impl Iterator<Item = Slot>) -> Groups {
        let (mut known, mut distinct) = (HashMap::new(), Vec::new());
        let numbers = slots.map(|slot| {
            *known.entry(slot).or_insert_with(|| {
                distinct.push(slot);
                distinct.len() as u32 - 1
            })
        });
        let numbers = numbers.collect();
        Groups { slots: distinct, numbers }
    }
}

impl PluginAggregate {
    /// Opens the guest and declares the column.
    pub fn new(binding: &CombineBinding, cells: &mut Cells) -> Result<PluginAggregate, PluginError> {
        Ok(PluginAggregate {
            instance: binding.open()?,
            column: cells.declare(Vec::<u8>::new()),
            metrics: binding.base.metrics.clone().into(),
        })
    }

    /// Adds values to their cells; nulls are skipped. A value that is refused fails the pipeline, as a grouping has no error output: `rows`
    /// are the batch and, if only some of its rows are here, which.
    pub async fn add(
        &mut self,
        cells: &mut Cells,
        slots: &[Slot],
        value: &ArrayRef,
        (batch, picked): (&Batch, Option<&UInt32Array>),
        metrics: Option<&NodeMetrics>,
        refusals: &Refusals,
    ) -> Result<(), Failure> {
        let present: Option<UInt32Array> =
            value.logical_nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.valid_indices().map(|row| row as u32).collect());
        let (values, groups) = match &present {
            None => (value.clone(), Groups::of(slots.iter().copied())),
            Some(rows) => {
                let values = take(value, rows, None).expect("row numbers are in range");
                (values, Groups::of(rows.values().iter().map(|row| slots[*row as usize])))
            }
        };
        let column = cells.column::<Vec<u8>>(self.column);
        let mut kept: Vec<Option<Vec<u8>>> =
            groups.slots.iter().map(|slot| accumulator(&column[*slot as usize]).map(<[u8]>::to_vec)).collect();
        let processed = self.instance.add(&values, &groups.numbers, &mut kept).await;
        let processed = processed.map_err(|error| Failure::Plugin { transform: refusals.transform.clone(), error })?;
        let row_of = |row: u32| {
            let row = present.as_ref().map_or(row, |rows| rows.value(row as usize));
            picked.map_or(row, |picked| picked.value(row as usize))
        };
        let errors: Vec<RowError> = processed.errors.into_iter().map(|error| RowError { row: row_of(error.row), ..error }).collect();
        refusals.refuse(batch, &errors, &mut Out::new(Instant::MIN))?;
        self.keep(cells, &groups.slots, kept.into_iter().flatten());
        if let Some(metrics) = metrics {
            count(metrics, &self.metrics, &processed.metrics);
        }
        Ok(())
    }

    /// Adds what cell `from[i]` holds to cell `into[i]`.
    pub async fn merge(&mut self, cells: &mut Cells, into: &[Slot], from: &[Slot]) -> Result<(), PluginError> {
        let pairs: Vec<(Slot, Slot)> = into.iter().copied().zip(from.iter().copied()).collect();
        for pairs in pairs.chunks(MAX_MERGED) {
            let column = cells.column::<Vec<u8>>(self.column);
            let held = pairs.iter().filter_map(|(into, from)| Some((*into, accumulator(&column[*from as usize])?.to_vec())));
            let held: Vec<_> = held.collect();
            self.add_held(cells, &held).await?;
        }
        Ok(())
    }

    /// What cells hold, for another task to merge.
    pub fn partial(&self, cells: &Cells, slots: &[Slot]) -> ArrayRef {
        let column = cells.column::<Vec<u8>>(self.column);
        Arc::new(BinaryArray::from_iter_values(slots.iter().map(|slot| column[*slot as usize].as_slice())))
    }

    /// Adds what cells of another task held: entry `i` to `slots[i]`.
    pub async fn add_partial(&mut self, cells: &mut Cells, slots: &[Slot], partial: &ArrayRef) -> Result<(), PluginError> {
        let partial = partial.as_binary::<i32>();
        let pairs: Vec<(Slot, usize)> = slots.iter().copied().zip(0..).collect();
        for pairs in pairs.chunks(MAX_MERGED) {
            let held = pairs.iter().filter_map(|(slot, entry)| Some((*slot, accumulator(partial.value(*entry))?.to_vec())));
            let held: Vec<_> = held.collect();
            self.add_held(cells, &held).await?;
        }
        Ok(())
    }

    /// Merges accumulators into those of their cells.
    async fn add_held(&mut self, cells: &mut Cells, held: &[(Slot, Vec<u8>)]) -> Result<(), PluginError> {
        if held.is_empty() {
            return Ok(());
        }
        let groups = Groups::of(held.iter().map(|(slot, _)| *slot));
        let column = cells.column::<Vec<u8>>(self.column);
        let own = groups.slots.iter().zip(0..).filter_map(|(slot, group)| Some((accumulator(&column[*slot as usize])?, group)));
        let added = held.iter().zip(&groups.numbers).map(|((_, bytes), group)| (bytes.as_slice(), *group));
        let (bytes, numbers): (Vec<&[u8]>, Vec<u32>) = own.chain(added).unzip();
        let merged = self.instance.merge(&bytes, &numbers, groups.slots.len() as u32).await?;
        self.keep(cells, &groups.slots, merged.into_iter());
        Ok(())
    }

    /// The results of cells.
    pub async fn extract(&mut self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, PluginError> {
        let column = cells.column::<Vec<u8>>(self.column);
        let held: Vec<Option<&[u8]>> = slots.iter().map(|slot| accumulator(&column[*slot as usize])).collect();
        self.instance.extract(&held).await
    }

    /// Empties cells.
    pub fn reset(&self, cells: &mut Cells, slots: &[Slot]) {
        let column = cells.write::<Vec<u8>>(self.column, slots);
        slots.iter().for_each(|slot| column[*slot as usize] = Vec::new());
    }

    fn keep(&self, cells: &mut Cells, slots: &[Slot], accumulators: impl Iterator<Item = Vec<u8>>) {
        let column = cells.write::<Vec<u8>>(self.column, slots);
        for (slot, accumulator) in slots.iter().zip(accumulators) {
            let place = &mut column[*slot as usize];
            place.clear();
            place.push(1);
            place.extend_from_slice(&accumulator);
        }
    }
}

fn accumulator(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().map(|(_, accumulator)| accumulator)
}
