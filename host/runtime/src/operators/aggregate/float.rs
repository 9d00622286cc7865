//! Sums and means of numbers as doubles, compensated (Neumaier), so that the order of rows hardly matters.

use super::count::{add_counts, count_values, where_seen};
use super::state::States;
use super::{Accumulate, Rows};
use arrow::array::types::Float64Type;
use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// What is made of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Sum,
    Mean,
}

/// A sum, what rounding lost of it, and how many values it has.
pub(super) struct FloatSum {
    sum: ColumnId,
    lost: ColumnId,
    seen: ColumnId,
    gives: Gives,
}

impl FloatSum {
    pub fn new(states: &mut States<'_>, gives: Gives) -> FloatSum {
        FloatSum { sum: states.float(), lost: states.float(), seen: states.whole(0), gives }
    }
}

impl Accumulate for FloatSum {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        count_values(cells, self.seen, rows);
        let values = cast(rows.value(), &DataType::Float64).map_err(|error| error.to_string())?;
        let values = values.as_primitive::<Float64Type>().values();
        let [sums, losses] = cells.columns::<f64, 2>([self.sum, self.lost]);
        rows.each(|row, slot| compensate(&mut sums[slot], &mut losses[slot], values[row]));
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.seen, slots, &partial[2]);
        let values = [0, 1].map(|column: usize| partial[column].as_primitive::<Float64Type>().values());
        let [sums, losses] = cells.columns::<f64, 2>([self.sum, self.lost]);
        for (row, slot) in slots.iter().enumerate() {
            let slot = *slot as usize;
            compensate(&mut sums[slot], &mut losses[slot], values[0][row]);
            losses[slot] += values[1][row];
        }
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let (sums, losses) = (cells.column::<f64>(self.sum), cells.column::<f64>(self.lost));
        let seen = cells.column::<i64>(self.seen);
        let results = where_seen(cells, self.seen, slots, |slot| {
            let sum = settle(sums[slot], losses[slot]);
            if self.gives == Gives::Mean { sum / seen[slot] as f64 } else { sum }
        });
        Ok(Arc::new(Float64Array::from_iter(results)))
    }
}

/// Adds a value to a sum and what rounding lost to its losses.
#[inline]
pub(super) fn compensate(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    let rest = if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    *sum = total;
    // Infinities have no rest; theirs would make a NaN of the losses.
    *lost += if rest.is_finite() { rest } else { 0.0 };
}

/// The sum with its losses.
pub(super) fn settle(sum: f64, lost: f64) -> f64 {
    if sum.is_finite() { sum + lost } else { sum }
}
