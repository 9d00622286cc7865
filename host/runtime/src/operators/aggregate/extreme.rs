//! Min and max. Whole numbers, instants and doubles are compared as 64-bit integers, decimals as 128-bit ones, everything
//! else by canonical bytes, whose order is the order of values (nulls aside; a decimal's bytes are not in order).

use super::count::{add_counts, count_values, where_seen};
use super::state::States;
use super::values::Values;
use super::{Accumulate, Rows};
use arrow::array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Int64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use pelton_state::columns::CellValue;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::marker::PhantomData;
use std::sync::Arc;

/// The smallest value, or the largest.
pub(super) fn extreme(states: &mut States<'_>, output: DataType, largest: bool) -> Result<Box<dyn Accumulate>, String> {
    Ok(match &output {
        DataType::Decimal128(..) => {
            let best = states.wide(if largest { i128::MIN } else { i128::MAX });
            Box::new(Extreme::<Decimal128Type> { best, seen: states.whole(0), largest, output, held: PhantomData })
        }
        whole if ordered(whole) => {
            let best = states.whole(if largest { i64::MIN } else { i64::MAX });
            Box::new(Extreme::<Int64Type> { best, seen: states.whole(0), largest, output, held: PhantomData })
        }
        other => Box::new(OtherExtreme { best: states.bytes(), largest, values: Values::new(other)? }),
    })
}

/// Whole numbers in cells, and values of other types as such numbers.
trait Held: Sized + ArrowPrimitiveType<Native: Ord + CellValue> {
    /// Numbers in the order of the values.
    fn of(values: &ArrayRef) -> Result<PrimitiveArray<Self>, String>;

    /// The values of a type that they stand for.
    fn back(numbers: PrimitiveArray<Self>, output: &DataType) -> Result<ArrayRef, String>;
}

impl Held for Int64Type {
    fn of(values: &ArrayRef) -> Result<Int64Array, String> {
        to_ordered(values)
    }

    fn back(numbers: Int64Array, output: &DataType) -> Result<ArrayRef, String> {
        from_ordered(&numbers, output)
    }
}

impl Held for Decimal128Type {
    fn of(values: &ArrayRef) -> Result<PrimitiveArray<Self>, String> {
        Ok(values.as_primitive::<Decimal128Type>().clone())
    }

    fn back(numbers: PrimitiveArray<Self>, output: &DataType) -> Result<ArrayRef, String> {
        Ok(Arc::new(numbers.with_data_type(output.clone())))
    }
}

/// The best number; it says nothing while none was seen.
struct Extreme<H> {
    best: ColumnId,
    seen: ColumnId,
    largest: bool,
    output: DataType,
    held: PhantomData<H>,
}

impl<H: Held> Accumulate for Extreme<H> {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        count_values(cells, self.seen, rows);
        let values = H::of(rows.value())?;
        let values = values.values();
        let bests = cells.column::<H::Native>(self.best);
        if self.largest {
            rows.each(|row, slot| bests[slot] = bests[slot].max(values[row]));
        } else {
            rows.each(|row, slot| bests[slot] = bests[slot].min(values[row]));
        }
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.seen, slots, &partial[1]);
        let values = partial[0].as_primitive::<H>().values();
        let bests = cells.column::<H::Native>(self.best);
        for (slot, value) in slots.iter().zip(values) {
            let best = &mut bests[*slot as usize];
            *best = if self.largest { (*best).max(*value) } else { (*best).min(*value) };
        }
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let bests = cells.column::<H::Native>(self.best);
        H::back(PrimitiveArray::from_iter(where_seen(cells, self.seen, slots, |slot| bests[slot])), &self.output)
    }
}

/// The best value's canonical bytes; none before the first.
struct OtherExtreme {
    best: ColumnId,
    largest: bool,
    values: Values,
}

fn improve(best: &mut Vec<u8>, value: &[u8], largest: bool) {
    if best.is_empty() || (if largest { value > best.as_slice() } else { value < best.as_slice() }) {
        best.clear();
        best.extend_from_slice(value);
    }
}

impl Accumulate for OtherExtreme {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let keys = self.values.encode(rows.value());
        let bests = cells.column::<Vec<u8>>(self.best);
        rows.each(|row, slot| improve(&mut bests[slot], keys.get(row), self.largest));
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        let bests = cells.column::<Vec<u8>>(self.best);
        for (slot, value) in slots.iter().zip(partial[0].as_binary::<i32>().iter().flatten()) {
            if !value.is_empty() {
                improve(&mut bests[*slot as usize], value, self.largest);
            }
        }
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let bests = cells.column::<Vec<u8>>(self.best);
        self.values.decode(slots.iter().map(|slot| bests[*slot as usize].as_slice()))
    }
}

/// Whether values of a type have an order-preserving 64-bit integer.
fn ordered(data_type: &DataType) -> bool {
    (data_type.is_integer() && *data_type != DataType::UInt64)
        || matches!(data_type, DataType::Date32 | DataType::Timestamp(..) | DataType::Float32 | DataType::Float64)
}

/// 64-bit integers in the order of the values.
fn to_ordered(array: &ArrayRef) -> Result<Int64Array, String> {
    let wide = match array.data_type() {
        DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, &DataType::Int64)),
        DataType::Float32 | DataType::Float64 => cast(array, &DataType::Float64)
            .map(|doubles| Arc::new(doubles.as_primitive::<Float64Type>().unary::<_, Int64Type>(double_to_ordered)) as ArrayRef),
        _ => cast(array, &DataType::Int64),
    };
    wide.map(|wide| wide.as_primitive::<Int64Type>().clone()).map_err(|error| error.to_string())
}

fn from_ordered(array: &Int64Array, output: &DataType) -> Result<ArrayRef, String> {
    match output {
        DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, output)),
        DataType::Float32 | DataType::Float64 => {
            let doubles: Float64Array = array.unary(ordered_to_double);
            cast(&doubles, output)
        }
        _ => cast(array, output),
    }
    .map_err(|error| error.to_string())
}

/// As canonical keys have it: -0.0 is 0.0, there is one NaN, and it is the largest.
fn double_to_ordered(value: f64) -> i64 {
    let value = if value.is_nan() { f64::NAN.abs() } else { value + 0.0 };
    flip(value.to_bits() as i64)
}

fn ordered_to_double(ordered: i64) -> f64 {
    f64::from_bits(flip(ordered) as u64)
}

/// Turns around the order of negative doubles, whose bits grow as they fall; its own inverse.
fn flip(bits: i64) -> i64 {
    if bits < 0 { bits ^ i64::MAX } else { bits }
}
