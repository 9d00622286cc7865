//! Sums of integers and decimals: exact, and an error where they leave their range.

use super::count::{add_counts, count_values, where_seen};
use super::state::States;
use super::{Accumulate, Rows};
use arrow::array::types::{Decimal128Type, Int64Type};
use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// The largest unscaled number of 38 digits, which is what Arrow's decimals hold.
const MAX_DECIMAL: u128 = 10u128.pow(38) - 1;

/// A 64-bit sum of integers of any width.
pub(super) struct WholeSum {
    sum: ColumnId,
    seen: ColumnId,
}

impl WholeSum {
    pub fn new(states: &mut States<'_>) -> WholeSum {
        WholeSum { sum: states.whole(0), seen: states.whole(0) }
    }
}

impl Accumulate for WholeSum {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        count_values(cells, self.seen, rows);
        let values = cast(rows.value(), &DataType::Int64).map_err(|error| error.to_string())?;
        let values = values.as_primitive::<Int64Type>().values();
        let sums = cells.column::<i64>(self.sum);
        let mut overflowed = false;
        rows.each(|row, slot| {
            let (sum, over) = sums[slot].overflowing_add(values[row]);
            sums[slot] = sum;
            overflowed |= over;
        });
        whole_in_range(overflowed)
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.seen, slots, &partial[1]);
        let values = partial[0].as_primitive::<Int64Type>().values();
        let sums = cells.column::<i64>(self.sum);
        let mut overflowed = false;
        for (slot, value) in slots.iter().zip(values) {
            let (sum, over) = sums[*slot as usize].overflowing_add(*value);
            sums[*slot as usize] = sum;
            overflowed |= over;
        }
        whole_in_range(overflowed)
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let sums = cells.column::<i64>(self.sum);
        Ok(Arc::new(Int64Array::from_iter(where_seen(cells, self.seen, slots, |slot| sums[slot]))))
    }
}

fn whole_in_range(overflowed: bool) -> Result<(), String> {
    if overflowed { Err("a sum of integers left the range of 64 bits; sum a double or a decimal instead".into()) } else { Ok(()) }
}

/// A sum of decimals of one scale.
pub(super) struct DecimalSum {
    sum: ColumnId,
    seen: ColumnId,
    output: DataType,
}

impl DecimalSum {
    pub fn new(states: &mut States<'_>, output: DataType) -> DecimalSum {
        DecimalSum { sum: states.wide(0), seen: states.whole(0), output }
    }

    fn add_values(&self, cells: &mut Touched<'_>, pairs: impl Iterator<Item = (usize, i128)>) -> Result<(), String> {
        let sums = cells.column::<i128>(self.sum);
        for (slot, value) in pairs {
            match sums[slot].checked_add(value) {
                Some(sum) if sum.unsigned_abs() <= MAX_DECIMAL => sums[slot] = sum,
                _ => return Err("a sum of decimals left the range of 38 digits".into()),
            }
        }
        Ok(())
    }
}

impl Accumulate for DecimalSum {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        count_values(cells, self.seen, rows);
        let values = rows.value().as_primitive::<Decimal128Type>().values();
        let mut pairs = Vec::with_capacity(rows.slots.len());
        rows.each(|row, slot| pairs.push((slot, values[row])));
        self.add_values(cells, pairs.into_iter())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.seen, slots, &partial[1]);
        let values = partial[0].as_primitive::<Decimal128Type>().values();
        self.add_values(cells, slots.iter().zip(values).map(|(slot, value)| (*slot as usize, *value)))
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let sums = cells.column::<i128>(self.sum);
        let array = Decimal128Array::from_iter(where_seen(cells, self.seen, slots, |slot| sums[slot]));
        Ok(Arc::new(array.with_data_type(self.output.clone())))
    }
}
