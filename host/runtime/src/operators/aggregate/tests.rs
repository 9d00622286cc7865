//! Every aggregate against brute force: rows in batches split anywhere, in cells that are merged afterwards, and as partial
//! results of other tasks. All three must give the same.

use super::*;
use arrow::array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow::array::{AsArray, Decimal128Array, Float64Array, Int64Array, StringArray, UInt32Array};
use arrow::compute::take;
use pelton_core::{Instant, Window};
use pelton_state::CellKey;
use proptest::prelude::*;
use std::sync::Arc;

/// Keys of the rows that tests make.
const KEYS: u8 = 3;
/// Parts that rows are divided among before they are merged.
const PARTS: i64 = 3;

/// A row: its key, the part that sees it first, its event time, its value.
type Row = (u8, i64, i64, Option<i64>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    proptest::collection::vec((0..KEYS, 0..PARTS, 0i64..5, proptest::option::weighted(0.8, -50i64..50)), 0..60)
}

struct Task {
    cells: Cells,
    aggregator: Aggregator,
}

impl Task {
    fn new(function: AggregateFunction, value: &ArrayRef) -> Task {
        let mut cells = Cells::default();
        let aggregator = Aggregator::new(function, Some(value.data_type()), &mut cells).expect("the function takes the type");
        Task { cells, aggregator }
    }

    fn slot(&mut self, key: u8, part: i64) -> Slot {
        let window = Window { start: Instant::from_micros_saturating(part), end: Instant::from_micros_saturating(part + 1) };
        self.cells.entry(CellKey { key: &[key], window }).0
    }

    /// Adds rows by number, each to the cell of its key and the part that `part` says.
    fn add(&mut self, rows: &[Row], numbers: &[u32], values: &ArrayRef, part: impl Fn(&Row) -> i64) {
        let slots: Vec<Slot> = numbers.iter().map(|number| self.slot(rows[*number as usize].0, part(&rows[*number as usize]))).collect();
        let times: Vec<i64> = numbers.iter().map(|number| rows[*number as usize].2).collect();
        let values = take(values, &UInt32Array::from(numbers.to_vec()), None).expect("in range");
        self.aggregator.add_rows(&mut self.cells, &slots, &times, Some(&values)).expect("in range");
        self.cells.seal();
    }

    fn results(&mut self) -> ArrayRef {
        let slots: Vec<Slot> = (0..KEYS).map(|key| self.slot(key, 0)).collect();
        self.aggregator.extract(&self.cells, &slots).expect("extracts")
    }
}

/// Checks a function over `values`, one a row; `expected` computes the result of each key from the numbers of its rows.
fn check(
    function: AggregateFunction,
    rows: &[Row],
    cut: usize,
    values: ArrayRef,
    expected: impl Fn(&[usize]) -> Option<serde_json::Value>,
) -> Result<(), TestCaseError> {
    let numbers: Vec<u32> = (0..rows.len() as u32).collect();
    let batches = || numbers.chunks(cut.max(1));
    let mut direct = Task::new(function.clone(), &values);
    batches().for_each(|batch| direct.add(rows, batch, &values, |_| 0));
    let mut merged = Task::new(function.clone(), &values);
    batches().for_each(|batch| merged.add(rows, batch, &values, |row| row.1 + 1));
    for key in 0..KEYS {
        let into = merged.slot(key, 0);
        let from: Vec<Slot> = (1..=PARTS).map(|part| merged.slot(key, part)).collect();
        merged.aggregator.merge_into(&mut merged.cells, into, &from).expect("merges");
    }
    let mut lifted = Task::new(function.clone(), &values);
    for part in 0..PARTS {
        let mut before = Task::new(function.clone(), &values);
        for batch in batches() {
            let own: Vec<u32> = batch.iter().copied().filter(|number| rows[*number as usize].1 == part).collect();
            before.add(rows, &own, &values, |_| 0);
        }
        let from: Vec<Slot> = (0..KEYS).map(|key| before.slot(key, 0)).collect();
        let into: Vec<Slot> = (0..KEYS).map(|key| lifted.slot(key, 0)).collect();
        let partial = before.aggregator.partial(&before.cells, &from);
        prop_assert_eq!(partial.iter().map(|column| column.data_type().clone()).collect::<Vec<_>>(), before.aggregator.partial_types());
        lifted.aggregator.add_partial(&mut lifted.cells, &into, &partial).expect("merges");
    }
    for (how, task) in [("direct", &mut direct), ("merged", &mut merged), ("lifted", &mut lifted)] {
        let results = task.results();
        for key in 0..KEYS {
            let own: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].0 == key).collect();
            let got = json(&results, key as usize);
            let want = expected(&own);
            prop_assert!(alike(&got, &want), "{how} {function:?}: got {got:?}, not {want:?}, for rows {own:?}");
        }
        let slots: Vec<Slot> = (0..KEYS).map(|key| task.slot(key, 0)).collect();
        task.aggregator.reset(&mut task.cells, &slots);
        let emptied = task.results();
        for key in 0..KEYS as usize {
            let nothing = expected(&[]);
            prop_assert!(alike(&json(&emptied, key), &nothing), "{how} {function:?} after reset");
        }
    }
    Ok(())
}

/// A value in the words of JSON; `None` is null.
fn json(array: &ArrayRef, row: usize) -> Option<serde_json::Value> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        other => panic!("no test makes a {other}"),
    })
}

fn alike(a: &Option<serde_json::Value>, b: &Option<serde_json::Value>) -> bool {
    match (a.as_ref().and_then(|a| a.as_f64()), b.as_ref().and_then(|b| b.as_f64())) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3),
        _ => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whole_numbers(rows in rows(), cut in 1usize..70) {
        use AggregateFunction::*;
        let values: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
        let some = |own: &[usize]| own.iter().filter_map(|row| rows[*row].3).collect::<Vec<_>>();
        check(Count, &rows, cut, values.clone(), |own| Some(own.len().into()))?;
        check(Sum, &rows, cut, values.clone(), |own| Some(some(own)).filter(|own| !own.is_empty()).map(|own| own.iter().sum::<i64>().into()))?;
        check(Min, &rows, cut, values.clone(), |own| some(own).into_iter().min().map(Into::into))?;
        check(Max, &rows, cut, values.clone(), |own| some(own).into_iter().max().map(Into::into))?;
        check(Mean, &rows, cut, values, |own| {
            let own = some(own);
            (!own.is_empty()).then(|| (own.iter().sum::<i64>() as f64 / own.len() as f64).into())
        })?;
    }

    /// Doubles of which naive sums lose everything: large ones that cancel, beside small ones.
    #[test]
    fn doubles(rows in rows(), cut in 1usize..70) {
        use AggregateFunction::*;
        let value = |row: &Row| row.3.map(|value| if value % 2 == 0 { value as f64 * 2f64.powi(60) } else { value as f64 / 8.0 });
        let values: ArrayRef = Arc::new(Float64Array::from(rows.iter().map(value).collect::<Vec<_>>()));
        // Exact: every value is a whole number of eighths, below 2^70.
        let sum = |own: &[usize]| {
            let own: Vec<i128> = own.iter().filter_map(|row| value(&rows[*row])).map(|value| (value * 8.0) as i128).collect();
            (!own.is_empty()).then(|| (own.iter().sum::<i128>() as f64 / 8.0, own.len()))
        };
        check(Sum, &rows, cut, values.clone(), |own| sum(own).map(|(sum, _)| sum.into()))?;
        check(Mean, &rows, cut, values.clone(), |own| sum(own).map(|(sum, count)| (sum / count as f64).into()))?;
        let some = |own: &[usize]| own.iter().filter_map(|row| value(&rows[*row])).collect::<Vec<_>>();
        check(Min, &rows, cut, values.clone(), |own| some(own).into_iter().min_by(f64::total_cmp).map(Into::into))?;
        check(Max, &rows, cut, values, |own| some(own).into_iter().max_by(f64::total_cmp).map(Into::into))?;
    }

    #[test]
    fn texts_and_decimals(rows in rows(), cut in 1usize..70) {
        use AggregateFunction::*;
        let text = |row: &Row| row.3.map(|value| "\0ab".repeat(value.unsigned_abs() as usize % 4) + &value.to_string());
        let texts: ArrayRef = Arc::new(StringArray::from(rows.iter().map(text).collect::<Vec<_>>()));
        check(Min, &rows, cut, texts.clone(), |own| own.iter().filter_map(|row| text(&rows[*row])).min().map(Into::into))?;
        check(Max, &rows, cut, texts, |own| own.iter().filter_map(|row| text(&rows[*row])).max().map(Into::into))?;
        let array = Decimal128Array::from(rows.iter().map(|row| row.3.map(i128::from)).collect::<Vec<_>>());
        let decimals: ArrayRef = Arc::new(array.with_precision_and_scale(10, 1).expect("fits"));
        let shown = |tenths: i64| format!("{}{}.{}", if tenths < 0 { "-" } else { "" }, tenths.abs() / 10, tenths.abs() % 10);
        let some = |own: &[usize]| own.iter().filter_map(|row| rows[*row].3).collect::<Vec<_>>();
        check(Min, &rows, cut, decimals.clone(), |own| some(own).into_iter().min().map(|best| shown(best).into()))?;
        check(Max, &rows, cut, decimals.clone(), |own| some(own).into_iter().max().map(|best| shown(best).into()))?;
        check(Sum, &rows, cut, decimals, |own| Some(some(own)).filter(|own| !own.is_empty()).map(|own| shown(own.iter().sum()).into()))?;
    }
}

/// An error, not a wrong sum.
#[test]
fn sums_that_leave_their_range() {
    for values in [
        Arc::new(Int64Array::from(vec![i64::MAX, 1])) as ArrayRef,
        Arc::new(Decimal128Array::from(vec![10i128.pow(38) - 1, 1]).with_precision_and_scale(38, 0).expect("fits")),
    ] {
        let mut task = Task::new(AggregateFunction::Sum, &values);
        let slot = task.slot(0, 0);
        assert!(task.aggregator.add_rows(&mut task.cells, &[slot, slot], &[0, 0], Some(&values)).is_err());
    }
}
