//! Variance and standard deviation, from the sums of values and of their squares in twice the digits of a double.
//!
//! Why not Welford's recurrence: sums of twice the digits merge by addition, so that the order of rows and merges does not
//! show in the result, and the cancellation that the recurrence avoids eats only digits that a double has not got: they
//! last until the mean is 10^8 standard deviations away from zero, where the result still has its double's digits.

use super::count::{add_counts, count_values, where_seen};
use super::float::compensate;
use super::state::States;
use super::{Accumulate, Rows};
use arrow::array::types::Float64Type;
use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// Sums, what rounding lost of them, and how many values they have.
pub(super) struct Moments {
    sum: ColumnId,
    sum_lost: ColumnId,
    squares: ColumnId,
    squares_lost: ColumnId,
    seen: ColumnId,
    population: bool,
    root: bool,
}

impl Moments {
    /// Of a sample (divided by n - 1, null for one value) or of the whole population; `root`: the standard deviation.
    pub fn new(states: &mut States<'_>, population: bool, root: bool) -> Moments {
        let [sum, sum_lost, squares, squares_lost] = [(); 4].map(|()| states.float());
        Moments { sum, sum_lost, squares, squares_lost, seen: states.whole(0), population, root }
    }

    fn columns(&self) -> [ColumnId; 4] {
        [self.sum, self.sum_lost, self.squares, self.squares_lost]
    }
}

impl Accumulate for Moments {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        count_values(cells, self.seen, rows);
        let values = cast(rows.value(), &DataType::Float64).map_err(|error| error.to_string())?;
        let values = values.as_primitive::<Float64Type>().values();
        let [sums, sums_lost, squares, squares_lost] = cells.columns::<f64, 4>(self.columns());
        rows.each(|row, slot| {
            compensate(&mut sums[slot], &mut sums_lost[slot], values[row]);
            let (square, rest) = product(values[row], values[row]);
            compensate(&mut squares[slot], &mut squares_lost[slot], square);
            squares_lost[slot] += rest;
        });
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        add_counts(cells, self.seen, slots, &partial[4]);
        let from = [0, 1, 2, 3].map(|column: usize| partial[column].as_primitive::<Float64Type>().values());
        let [sums, sums_lost, squares, squares_lost] = cells.columns::<f64, 4>(self.columns());
        for (row, slot) in slots.iter().enumerate() {
            let slot = *slot as usize;
            compensate(&mut sums[slot], &mut sums_lost[slot], from[0][row]);
            sums_lost[slot] += from[1][row];
            compensate(&mut squares[slot], &mut squares_lost[slot], from[2][row]);
            squares_lost[slot] += from[3][row];
        }
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let [sums, sums_lost, squares, squares_lost] = self.columns().map(|column| cells.column::<f64>(column));
        let seen = cells.column::<i64>(self.seen);
        let results = where_seen(cells, self.seen, slots, |slot| {
            let count = seen[slot] as f64;
            let divisor = if self.population { count } else { count - 1.0 };
            let deviations = deviations((sums[slot], sums_lost[slot]), (squares[slot], squares_lost[slot]), count);
            let variance = deviations / divisor;
            (divisor > 0.0).then(|| if self.root { variance.sqrt() } else { variance })
        });
        Ok(Arc::new(Float64Array::from_iter(results.map(Option::flatten))))
    }
}

/// The sum of squared deviations from the mean: squares - sum² / count.
fn deviations(sum: (f64, f64), squares: (f64, f64), count: f64) -> f64 {
    if !squares.0.is_finite() {
        return f64::NAN;
    }
    let (high, low) = (sum.0 + sum.1, (sum.0 - (sum.0 + sum.1)) + sum.1);
    let (square, rest) = product(high, high);
    let rest = rest + 2.0 * high * low;
    let quotient = square / count;
    let (back, back_rest) = product(quotient, count);
    let quotient_rest = ((square - back) - back_rest + rest) / count;
    ((squares.0 - quotient) + (squares.1 - quotient_rest)).max(0.0)
}

/// A product and what rounding lost of it (Dekker), exact where the halves neither overflow nor vanish.
fn product(a: f64, b: f64) -> (f64, f64) {
    /// 2^27 + 1 cuts a double in two halves of 26 bits.
    const SPLIT: f64 = 134_217_729.0;
    let halves = |value: f64| {
        let scaled = SPLIT * value;
        let high = scaled - (scaled - value);
        (high, value - high)
    };
    let whole = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
    let rest = ((a_high * b_high - whole) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (whole, if rest.is_finite() { rest } else { 0.0 })
}
