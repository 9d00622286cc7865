//! First and last by event time. Of values with the same time the first is the one with the smallest canonical bytes and the
//! last the one with the largest, so that the order in which rows arrive never matters.

use super::state::States;
use super::values::Values;
use super::{Accumulate, Rows};
use arrow::array::types::Int64Type;
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};

/// The first value, or the last.
pub(super) struct Timed {
    time: ColumnId,
    /// Canonical bytes; none before the first value.
    value: ColumnId,
    values: Values,
    last: bool,
}

impl Timed {
    pub fn new(states: &mut States<'_>, output: &DataType, last: bool) -> Result<Timed, String> {
        let time = states.whole(if last { i64::MIN } else { i64::MAX });
        Ok(Timed { time, value: states.bytes(), values: Values::new(output)?, last })
    }
}

fn offer(best: (&mut i64, &mut Vec<u8>), time: i64, value: &[u8], last: bool) {
    let better = if last { (time, value) > (*best.0, best.1.as_slice()) } else { (time, value) < (*best.0, best.1.as_slice()) };
    if better || best.1.is_empty() {
        *best.0 = time;
        best.1.clear();
        best.1.extend_from_slice(value);
    }
}

impl Accumulate for Timed {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let keys = self.values.encode(rows.value());
        let (times, values) = cells.pair::<i64, Vec<u8>>(self.time, self.value);
        rows.each(|row, slot| offer((&mut times[slot], &mut values[slot]), rows.times[row], keys.get(row), self.last));
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        let (times, values) = cells.pair::<i64, Vec<u8>>(self.time, self.value);
        let (from_times, from) = (partial[0].as_primitive::<Int64Type>().values(), partial[1].as_binary::<i32>());
        for (row, slot) in slots.iter().enumerate() {
            let slot = *slot as usize;
            if !from.value(row).is_empty() {
                offer((&mut times[slot], &mut values[slot]), from_times[row], from.value(row), self.last);
            }
        }
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let values = cells.column::<Vec<u8>>(self.value);
        self.values.decode(slots.iter().map(|slot| values[*slot as usize].as_slice()))
    }
}
