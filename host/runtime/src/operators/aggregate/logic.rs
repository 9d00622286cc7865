//! Any and all. What counts as true is what Beam's Python counts: a number that is not zero, a text that is not empty.

use super::count::{add_counts, count_values, where_seen};
use super::state::States;
use super::{Accumulate, Rows};
use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// Whether any value is true, or whether all are.
pub(super) struct Logic {
    /// 1 or 0.
    holds: ColumnId,
    seen: ColumnId,
    any: bool,
}

impl Logic {
    pub fn new(states: &mut States<'_>, any: bool) -> Logic {
        Logic { holds: states.whole(i64::from(!any)), seen: states.whole(0), any }
    }

    fn add_truths(&self, cells: &mut Touched<'_>, slot: usize, truth: i64) {
        let holds = cells.column::<i64>(self.holds);
        holds[slot] = if self.any { holds[slot] | truth } else { holds[slot] & truth };
    }
}

/// Whether a type has values that are true or false.
pub(super) fn has_truth(value: &DataType) -> bool {
    matches!(value, DataType::Boolean | DataType::Utf8) || value.is_numeric()
}

fn truths(value: &ArrayRef) -> Result<BooleanArray, String> {
    match value.data_type() {
        DataType::Utf8 => {
            let texts = value.as_string::<i32>();
            Ok((0..texts.len()).map(|row| Some(texts.value_length(row) > 0)).collect())
        }
        DataType::Decimal128(..) => {
            let numbers = value.as_primitive::<arrow::array::types::Decimal128Type>();
            Ok(numbers.values().iter().map(|number| Some(*number != 0)).collect())
        }
        _ => cast(value, &DataType::Boolean).map(|truths| truths.as_boolean().clone()).map_err(|error| error.to_string()),
    }
}

impl Accumulate for Logic {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        count_values(cells, self.seen, rows);
        let truths = truths(rows.value())?;
        rows.each(|row, slot| self.add_truths(cells, slot, i64::from(truths.value(row))));
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.seen, slots, &partial[1]);
        let holds = partial[0].as_primitive::<Int64Type>().values();
        // A cell without values holds what a new one does, which changes nothing.
        slots.iter().zip(holds).for_each(|(slot, holds)| self.add_truths(cells, *slot as usize, *holds));
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let holds = cells.column::<i64>(self.holds);
        Ok(Arc::new(BooleanArray::from_iter(where_seen(cells, self.seen, slots, |slot| holds[slot] != 0))))
    }
}
