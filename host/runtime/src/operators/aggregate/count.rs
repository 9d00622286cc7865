//! Counts of rows.

use super::state::States;
use super::{Accumulate, Rows};
use arrow::array::types::Int64Type;
use arrow::array::{ArrayRef, AsArray, Int64Array};
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// All rows, with a value or without.
pub(super) struct Count {
    rows: ColumnId,
}

impl Count {
    pub fn new(states: &mut States<'_>) -> Count {
        Count { rows: states.whole(0) }
    }
}

impl Accumulate for Count {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let counts = cells.column::<i64>(self.rows);
        rows.slots.iter().for_each(|slot| counts[*slot as usize] += 1);
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.rows, slots, &partial[0]);
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let counts = cells.column::<i64>(self.rows);
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| counts[*slot as usize]))))
    }
}

/// Counts the rows that have a value.
pub(super) fn count_values(cells: &mut Touched<'_>, seen: ColumnId, rows: &Rows<'_>) {
    let seen = cells.column::<i64>(seen);
    rows.each(|_, slot| seen[slot] += 1);
}

/// Adds a column of counts to cells.
pub(super) fn add_counts(cells: &mut Touched<'_>, seen: ColumnId, slots: &[Slot], partial: &ArrayRef) {
    let seen = cells.column::<i64>(seen);
    let partial = partial.as_primitive::<Int64Type>().values();
    slots.iter().zip(partial).for_each(|(slot, count)| seen[*slot as usize] += count);
}

/// Results of cells, null where nothing was seen.
pub(super) fn where_seen<T>(cells: &Cells, seen: ColumnId, slots: &[Slot], value: impl Fn(usize) -> T) -> impl Iterator<Item = Option<T>> {
    let seen = cells.column::<i64>(seen);
    slots.iter().map(move |slot| (seen[*slot as usize] > 0).then(|| value(*slot as usize)))
}
