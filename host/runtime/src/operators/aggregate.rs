//! Built-in aggregates over columns of state: count, sum, min, max, mean.
//!
//! Nulls are skipped, as in SQL (Beam raises an error for a null in a sum); an aggregate of nothing but nulls is null, a
//! count counts rows. Sums of integers are 64-bit and checked; sums and means of floats are compensated (Neumaier), so that
//! the order of rows hardly matters.

use arrow::array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_pipeline::graph::AggregateFunction;
use pelton_state::{Cells, ColumnId, Slot};
use std::sync::Arc;

/// One aggregate and its columns of state.
pub struct Aggregator {
    kind: Kind,
    /// Rows with a value, so that "nothing" is told from zero.
    seen: ColumnId,
    output: DataType,
}

enum Kind {
    Count,
    SumWhole { sum: ColumnId },
    SumDecimal { sum: ColumnId },
    SumFloat { sum: ColumnId, lost: ColumnId },
    Mean { sum: ColumnId, lost: ColumnId },
    ExtremeWhole { best: ColumnId, sign: i64 },
    ExtremeOther { best: ColumnId, larger: bool, encoder: KeyEncoder, decoder: KeyDecoder, keys: Keys },
}

/// The type of an aggregate over values of a type (`None`: a count without a value).
pub fn output_type(function: AggregateFunction, value: Option<&DataType>) -> Result<DataType, String> {
    use AggregateFunction::*;
    let Some(value) = value else {
        return if function == Count { Ok(DataType::Int64) } else { Err("needs a value".into()) };
    };
    let number = value.is_numeric();
    match function {
        Count => Ok(DataType::Int64),
        Sum if value.is_integer() => Ok(DataType::Int64),
        Sum if matches!(value, DataType::Decimal128(_, scale) if *scale >= 0) => {
            let DataType::Decimal128(_, scale) = value else { unreachable!("matched just now") };
            Ok(DataType::Decimal128(38, *scale))
        }
        Sum if value.is_floating() => Ok(DataType::Float64),
        Mean if number => Ok(DataType::Float64),
        Min | Max if KeyEncoder::new(std::slice::from_ref(value)).is_ok() && !value.is_nested() => Ok(value.clone()),
        _ => Err(format!("cannot be taken of values of type {value}")),
    }
}

impl Aggregator {
    /// Declares the columns of an aggregate whose `output_type` has been checked.
    pub fn new(function: AggregateFunction, value: Option<&DataType>, cells: &mut Cells) -> Result<Aggregator, String> {
        use AggregateFunction::*;
        let output = output_type(function, value)?;
        let kind = match function {
            Count => Kind::Count,
            Sum if output == DataType::Int64 => Kind::SumWhole { sum: cells.declare(0i64) },
            Sum if output == DataType::Float64 => Kind::SumFloat { sum: cells.declare(0f64), lost: cells.declare(0f64) },
            Sum => Kind::SumDecimal { sum: cells.declare(0i128) },
            Mean => Kind::Mean { sum: cells.declare(0f64), lost: cells.declare(0f64) },
            Min | Max if whole(&output) => {
                let sign = if function == Max { 1 } else { -1 };
                Kind::ExtremeWhole { best: cells.declare(0i64), sign }
            }
            Min | Max => Kind::ExtremeOther {
                best: cells.declare(Vec::<u8>::new()),
                larger: function == Max,
                encoder: KeyEncoder::new(std::slice::from_ref(&output))?,
                decoder: KeyDecoder::new(std::slice::from_ref(&output))?,
                keys: Keys::default(),
            },
        };
        Ok(Aggregator { kind, seen: cells.declare(0i64), output })
    }

    /// Adds rows to their cells: `slots[i]` is row i's.
    pub fn add(&mut self, cells: &mut Cells, slots: &[Slot], value: Option<&ArrayRef>) -> Result<(), String> {
        let nulls = value.and_then(|value| value.logical_nulls());
        let present = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let seen = cells.write::<i64>(self.seen, slots);
        match &self.kind {
            Kind::Count => slots.iter().for_each(|slot| seen[*slot as usize] += 1),
            Kind::ExtremeWhole { .. } | Kind::ExtremeOther { .. } => {}
            _ => slots.iter().enumerate().filter(|(row, _)| present(*row)).for_each(|(_, slot)| seen[*slot as usize] += 1),
        }
        let Some(value) = value else { return Ok(()) };
        let rows = || slots.iter().enumerate().filter(|(row, _)| present(*row)).map(|(row, slot)| (row, *slot as usize));
        match &mut self.kind {
            Kind::Count => {}
            Kind::SumWhole { sum } => {
                let values = cast(value, &DataType::Int64).map_err(|error| error.to_string())?;
                let values = values.as_primitive::<Int64Type>();
                let sums = cells.write::<i64>(*sum, slots);
                for (row, slot) in rows() {
                    sums[slot] = sums[slot]
                        .checked_add(values.value(row))
                        .ok_or("a sum of integers left the range of 64 bits; sum a double or a decimal instead")?;
                }
            }
            Kind::SumDecimal { sum } => {
                let values = value.as_primitive::<Decimal128Type>();
                let sums = cells.write::<i128>(*sum, slots);
                for (row, slot) in rows() {
                    sums[slot] = sums[slot].checked_add(values.value(row)).ok_or("a sum of decimals left the range of 38 digits")?;
                }
            }
            Kind::SumFloat { sum, lost } | Kind::Mean { sum, lost } => {
                let values = cast(value, &DataType::Float64).map_err(|error| error.to_string())?;
                let values = values.as_primitive::<Float64Type>();
                let mut sums: Vec<(usize, f64, f64)> = Vec::with_capacity(slots.len());
                {
                    let (s, l) = (*sum, *lost);
                    for (row, slot) in rows() {
                        sums.push((slot, values.value(row), 0.0));
                    }
                    for (slot, value, error) in &mut sums {
                        let sum = &mut cells.write::<f64>(s, &[*slot as Slot])[*slot];
                        let (total, rest) = two_sum(*sum, *value);
                        *sum = total;
                        *error = rest;
                    }
                    let losses = cells.write::<f64>(l, slots);
                    for (slot, _, error) in sums {
                        losses[slot] += error;
                    }
                }
            }
            Kind::ExtremeWhole { best, sign } => {
                let values = as_whole(value);
                let mut seen = cells.column::<i64>(self.seen).to_vec_of(slots);
                let bests = cells.write::<i64>(*best, slots);
                for (row, slot) in rows() {
                    let value = values.value(row);
                    let first = seen.first(slot);
                    if first || (value > bests[slot]) == (*sign > 0) && value != bests[slot] {
                        bests[slot] = value;
                    }
                }
                let counts = cells.write::<i64>(self.seen, slots);
                rows().for_each(|(_, slot)| counts[slot] += 1);
            }
            Kind::ExtremeOther { best, larger, encoder, keys, .. } => {
                encoder.encode(std::slice::from_ref(value), keys);
                let bests = cells.write::<Vec<u8>>(*best, slots);
                for (row, slot) in rows() {
                    let value = keys.get(row);
                    // An empty accumulator holds nothing yet: no key is empty.
                    if bests[slot].is_empty() || (value > bests[slot].as_slice()) == *larger && value != bests[slot].as_slice() {
                        bests[slot] = value.to_vec();
                    }
                }
                let counts = cells.write::<i64>(self.seen, slots);
                rows().for_each(|(_, slot)| counts[slot] += 1);
            }
        }
        Ok(())
    }

    /// The results of cells, in the order of `slots`.
    pub fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let seen = cells.column::<i64>(self.seen);
        let some = |slot: &Slot| seen[*slot as usize] > 0;
        let made: ArrayRef = match &self.kind {
            Kind::Count => Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| seen[*slot as usize]))),
            Kind::SumWhole { sum } => {
                let sums = cells.column::<i64>(*sum);
                Arc::new(Int64Array::from_iter(slots.iter().map(|slot| some(slot).then(|| sums[*slot as usize]))))
            }
            Kind::SumDecimal { sum } => {
                let sums = cells.column::<i128>(*sum);
                let DataType::Decimal128(precision, scale) = self.output else { unreachable!("a decimal sum is a decimal") };
                let array = Decimal128Array::from_iter(slots.iter().map(|slot| some(slot).then(|| sums[*slot as usize])));
                Arc::new(array.with_precision_and_scale(precision, scale).map_err(|error| error.to_string())?)
            }
            Kind::SumFloat { sum, lost } => {
                let (sums, losses) = (cells.column::<f64>(*sum), cells.column::<f64>(*lost));
                Arc::new(Float64Array::from_iter(
                    slots.iter().map(|slot| some(slot).then(|| settle(sums[*slot as usize], losses[*slot as usize]))),
                ))
            }
            Kind::Mean { sum, lost } => {
                let (sums, losses) = (cells.column::<f64>(*sum), cells.column::<f64>(*lost));
                let mean = |slot: &Slot| settle(sums[*slot as usize], losses[*slot as usize]) / seen[*slot as usize] as f64;
                Arc::new(Float64Array::from_iter(slots.iter().map(|slot| some(slot).then(|| mean(slot)))))
            }
            Kind::ExtremeWhole { best, .. } => {
                let bests = cells.column::<i64>(*best);
                let array = Int64Array::from_iter(slots.iter().map(|slot| some(slot).then(|| bests[*slot as usize])));
                from_whole(&array, &self.output)?
            }
            Kind::ExtremeOther { best, decoder, .. } => {
                let bests = cells.column::<Vec<u8>>(*best);
                let null = decoder.null_key();
                let keys = slots.iter().map(|slot| if some(slot) { bests[*slot as usize].as_slice() } else { null.as_slice() });
                decoder.decode(keys)?.remove(0)
            }
        };
        Ok(made)
    }

    /// Empties cells (discarding panes).
    pub fn reset(&self, cells: &mut Cells, slots: &[Slot]) {
        let zero = |cells: &mut Cells, column: ColumnId| {
            let values = cells.write::<i64>(column, slots);
            slots.iter().for_each(|slot| values[*slot as usize] = 0);
        };
        zero(cells, self.seen);
        match &self.kind {
            Kind::Count => {}
            Kind::SumWhole { sum: column } | Kind::ExtremeWhole { best: column, .. } => zero(cells, *column),
            Kind::SumDecimal { sum } => {
                let values = cells.write::<i128>(*sum, slots);
                slots.iter().for_each(|slot| values[*slot as usize] = 0);
            }
            Kind::SumFloat { sum, lost } | Kind::Mean { sum, lost } => {
                for column in [*sum, *lost] {
                    let values = cells.write::<f64>(column, slots);
                    slots.iter().for_each(|slot| values[*slot as usize] = 0.0);
                }
            }
            Kind::ExtremeOther { best, .. } => {
                let values = cells.write::<Vec<u8>>(*best, slots);
                slots.iter().for_each(|slot| values[*slot as usize].clear());
            }
        }
    }
}

/// Which cells have had no value before a batch, and have not had one in it.
trait FirstValues {
    fn to_vec_of(&self, slots: &[Slot]) -> Firsts;
}

struct Firsts(std::collections::HashSet<usize>);

impl FirstValues for [i64] {
    fn to_vec_of(&self, slots: &[Slot]) -> Firsts {
        Firsts(slots.iter().map(|slot| *slot as usize).filter(|slot| self[*slot] == 0).collect())
    }
}

impl Firsts {
    fn first(&mut self, slot: usize) -> bool {
        !self.0.is_empty() && self.0.remove(&slot)
    }
}

/// A sum and what rounding lost of it.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let lost = if a.abs() >= b.abs() { (a - sum) + b } else { (b - sum) + a };
    (sum, if lost.is_finite() { lost } else { 0.0 })
}

fn settle(sum: f64, lost: f64) -> f64 {
    if sum.is_finite() { sum + lost } else { sum }
}

fn whole(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..))
}

fn as_whole(array: &ArrayRef) -> Int64Array {
    let wide = match array.data_type() {
        DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, &DataType::Int64)),
        _ => cast(array, &DataType::Int64),
    };
    wide.expect("whole types widen to 64 bits").as_primitive::<Int64Type>().clone()
}

fn from_whole(array: &Int64Array, output: &DataType) -> Result<ArrayRef, String> {
    match output {
        DataType::Date32 => cast(array, &DataType::Int32).and_then(|days| cast(&days, output)),
        _ => cast(array, output),
    }
    .map_err(|error| error.to_string())
}
