//! An aggregation of a plugin: accumulators as bytes in a column of state, and one call of the guest for all the cells of a batch.
//!
//! A cell without an accumulator has no bytes; else a byte 1 stands before it, because an accumulator may be empty.

use crate::failure::Failure;
use crate::metrics::{NodeMetrics, UserMetrics};
use crate::operator::{Out, Refusals};
use crate::operators::plugin::count;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, UInt32Array};
use arrow::compute::{concat, take};
use pelton_core::{Batch, Instant, RowError};
use pelton_plugin::{CombineBinding, CombineInstance, MetricSpec, MigrateError, PluginError};
use pelton_state::{Cells, ColumnId, Slot};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Accumulators of one call; their bytes are bounded by what a row may have ([`parts`]).
const MAX_MERGED: usize = 4_096;

/// One aggregation and its column of state.
pub struct PluginAggregate {
    instance: CombineInstance,
    column: ColumnId,
    metrics: Arc<[MetricSpec]>,
    /// Of the accumulators of one call.
    max_bytes: usize,
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
            max_bytes: binding.base.limits.max_row_bytes,
        })
    }

    /// Goes on with another guest, and gives the one before.
    pub fn renew(&mut self, binding: &CombineBinding, guest: CombineInstance) -> CombineInstance {
        self.metrics = binding.base.metrics.clone().into();
        self.max_bytes = binding.base.limits.max_row_bytes;
        std::mem::replace(&mut self.instance, guest)
    }

    /// Adds values to their cells; nulls are skipped. A value that is refused fails the pipeline, as a grouping has no error output: `rows`
    /// are the batch and, if only some of its rows are here, which.
    pub async fn add(
        &mut self,
        cells: &mut Cells,
        slots: &[Slot],
        value: &ArrayRef,
        (batch, picked): (&Batch, Option<&UInt32Array>),
        metrics: Option<(&NodeMetrics, &mut UserMetrics)>,
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
        if let Some((metrics, counted)) = metrics {
            count(metrics, counted, &self.metrics, &processed.metrics);
        }
        Ok(())
    }

    /// Adds what cell `from[i]` holds to cell `into[i]`.
    pub async fn merge(&mut self, cells: &mut Cells, into: &[Slot], from: &[Slot]) -> Result<(), PluginError> {
        let column = cells.column::<Vec<u8>>(self.column);
        // Two or more may go into one cell, which then grows with each call.
        let sizes = into.iter().zip(from).map(|(into, from)| column[*into as usize].len() + column[*from as usize].len());
        for range in parts(sizes, self.max_bytes) {
            let column = cells.column::<Vec<u8>>(self.column);
            let pairs = into[range.clone()].iter().zip(&from[range]);
            let held = pairs.filter_map(|(into, from)| Some((*into, accumulator(&column[*from as usize])?.to_vec())));
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
        let column = cells.column::<Vec<u8>>(self.column);
        let sizes = slots.iter().zip(0..).map(|(slot, entry)| column[*slot as usize].len() + partial.value(entry).len());
        for range in parts(sizes, self.max_bytes) {
            let held = range.filter_map(|entry| Some((slots[entry], accumulator(partial.value(entry))?.to_vec())));
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

    /// Takes what a cell holds; it is empty then.
    pub fn take(&self, cells: &mut Cells, slot: Slot) -> Option<Vec<u8>> {
        let taken = accumulator(&cells.column::<Vec<u8>>(self.column)[slot as usize])?.to_vec();
        self.reset(cells, &[slot]);
        Some(taken)
    }

    /// Gives a cell what it holds from now on.
    pub fn put(&self, cells: &mut Cells, slot: Slot, accumulator: Vec<u8>) {
        self.keep(cells, &[slot], std::iter::once(accumulator));
    }

    /// Has the plugin bring accumulators of another version to today's, and gives them to their cells.
    pub async fn migrate(&mut self, cells: &mut Cells, version: u32, old: &[(Slot, Vec<u8>)]) -> Result<(), (Slot, MigrateError)> {
        for range in parts(old.iter().map(|(_, held)| held.len()), self.max_bytes) {
            let part = &old[range];
            let sent: Vec<Vec<u8>> = part.iter().map(|(_, held)| held.clone()).collect();
            let new = self.instance.migrate(version, &sent).await.map_err(|error| match error {
                MigrateError::Item { number, .. } => (part[number].0, error),
                MigrateError::Plugin(_) => (part[0].0, error),
            })?;
            for ((slot, _), new) in part.iter().zip(new) {
                if let Some(new) = new {
                    self.put(cells, *slot, new);
                }
            }
        }
        Ok(())
    }

    /// The results of cells.
    pub async fn extract(&mut self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, PluginError> {
        let column = cells.column::<Vec<u8>>(self.column);
        let held: Vec<Option<&[u8]>> = slots.iter().map(|slot| accumulator(&column[*slot as usize])).collect();
        let mut extracted = Vec::new();
        for range in parts(held.iter().map(|held| held.map_or(0, <[u8]>::len)), self.max_bytes) {
            extracted.push(self.instance.extract(&held[range]).await?);
        }
        match extracted.as_slice() {
            [] => self.instance.extract(&[]).await,
            [one] => Ok(one.clone()),
            many => Ok(concat(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>()).expect("all parts have the output's type")),
        }
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

/// Cuts accumulators of these sizes into calls of at most [`MAX_MERGED`] and `max_bytes`; a larger one has a call of its own.
fn parts(sizes: impl Iterator<Item = usize>, max_bytes: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (number, size) in sizes.enumerate() {
        bytes += size;
        match parts.last_mut() {
            Some(part) if part.len() < MAX_MERGED && bytes <= max_bytes => part.end = number + 1,
            _ => {
                parts.push(number..number + 1);
                bytes = size;
            }
        }
    }
    parts
}

fn accumulator(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().map(|(_, accumulator)| accumulator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bounded_in_number_and_bytes() {
        assert!(parts(std::iter::empty(), 10).is_empty());
        assert_eq!(parts([4, 6, 1, 30, 0, 10, 1].into_iter(), 10), [0..2, 2..3, 3..4, 4..6, 6..7]);
        assert_eq!(parts(std::iter::repeat_n(1, MAX_MERGED + 1), usize::MAX), vec![0..MAX_MERGED, MAX_MERGED..MAX_MERGED + 1]);
    }
}
