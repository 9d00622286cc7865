//! Every aggregate against brute force: rows in batches split anywhere, in cells that are merged afterwards, and as partial
//! results of other tasks. All three must give the same.

use super::*;
use arrow::array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow::array::{AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray, UInt32Array};
use arrow::compute::take;
use pelton_core::{Instant, Window};
use pelton_state::CellKey;
use proptest::prelude::*;
use serde_json::json;
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
        let aggregator = Aggregator::new(&function, Some(value.data_type()), &mut cells).expect("the function takes the type");
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
        self.aggregator.add(&mut self.cells.touch(&slots), &slots, &times, Some(&values)).expect("in range");
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
            let got = shown(&results, key as usize);
            let want = expected(&own);
            prop_assert!(alike(&got, &want), "{how} {function:?}: got {got:?}, not {want:?}, for rows {own:?}");
        }
        let slots: Vec<Slot> = (0..KEYS).map(|key| task.slot(key, 0)).collect();
        task.aggregator.reset(&mut task.cells, &slots);
        let emptied = task.results();
        for key in 0..KEYS as usize {
            let nothing = expected(&[]);
            prop_assert!(alike(&shown(&emptied, key), &nothing), "{how} {function:?} after reset");
        }
    }
    Ok(())
}

/// A value in the words of JSON; `None` is null.
fn shown(array: &ArrayRef, row: usize) -> Option<serde_json::Value> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|item| shown(&items, item).unwrap_or_default()).collect();
            serde_json::Value::Array(items)
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        other => panic!("no test makes a {other}"),
    })
}

fn alike(a: &Option<serde_json::Value>, b: &Option<serde_json::Value>) -> bool {
    match (a, b) {
        (Some(serde_json::Value::Number(a)), Some(serde_json::Value::Number(b))) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().expect("a double"), b.as_f64().expect("a double"));
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
        }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn truths(rows in rows(), cut in 1usize..70) {
        use AggregateFunction::*;
        let truth = |row: &Row| row.3.map(|value| value % 3 != 0);
        let some = |own: &[usize]| own.iter().filter_map(|row| truth(&rows[*row])).collect::<Vec<_>>();
        let any = |own: &[usize]| Some(some(own)).filter(|own| !own.is_empty()).map(|own| own.contains(&true).into());
        let all = |own: &[usize]| Some(some(own)).filter(|own| !own.is_empty()).map(|own| (!own.contains(&false)).into());
        let booleans: ArrayRef = Arc::new(BooleanArray::from(rows.iter().map(truth).collect::<Vec<_>>()));
        let numbers: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3.map(|value| value % 3)).collect::<Vec<_>>()));
        let text = |row: &Row| truth(row).map(|truth| if truth { "x" } else { "" });
        let texts: ArrayRef = Arc::new(StringArray::from(rows.iter().map(text).collect::<Vec<_>>()));
        for values in [booleans, numbers, texts] {
            check(Any, &rows, cut, values.clone(), any)?;
            check(All, &rows, cut, values, all)?;
        }
    }

    /// Times tie often: there are five of them. Numbers and texts, whose order of canonical bytes is theirs.
    #[test]
    fn first_and_last(rows in rows(), cut in 1usize..70) {
        use AggregateFunction::*;
        let values: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
        let timed = |own: &[usize]| own.iter().filter_map(|row| Some((rows[*row].2, rows[*row].3?))).collect::<Vec<_>>();
        check(First, &rows, cut, values.clone(), |own| timed(own).into_iter().min().map(|(_, value)| value.into()))?;
        check(Last, &rows, cut, values, |own| timed(own).into_iter().max().map(|(_, value)| value.into()))?;
        let text = |value: i64| "ab".repeat(value.unsigned_abs() as usize % 3);
        let texts: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| row.3.map(text)).collect::<Vec<_>>()));
        let timed = |own: &[usize]| own.iter().filter_map(|row| Some((rows[*row].2, text(rows[*row].3?)))).collect::<Vec<_>>();
        check(First, &rows, cut, texts.clone(), |own| timed(own).into_iter().min().map(|(_, value)| value.into()))?;
        check(Last, &rows, cut, texts, |own| timed(own).into_iter().max().map(|(_, value)| value.into()))?;
    }

    #[test]
    fn top(rows in rows(), cut in 1usize..70, n in 1usize..6) {
        use AggregateFunction::Top;
        let values: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
        let array = Decimal128Array::from(rows.iter().map(|row| row.3.map(|value| i128::from(value) * 10)).collect::<Vec<_>>());
        let decimals: ArrayRef = Arc::new(array.with_precision_and_scale(10, 1).expect("fits"));
        let sorted = |own: &[usize]| {
            let mut own: Vec<i64> = own.iter().filter_map(|row| rows[*row].3).collect();
            own.sort_unstable();
            own
        };
        let largest = |own: &[usize]| sorted(own).into_iter().rev().take(n).collect::<Vec<_>>();
        let smallest = |own: &[usize]| sorted(own).into_iter().take(n).collect::<Vec<_>>();
        let list = |best: Vec<i64>| (!best.is_empty()).then(|| json!(best));
        let points = |best: Vec<i64>| (!best.is_empty()).then(|| best.iter().map(|value| format!("{value}.0")).collect());
        check(Top { n, smallest: false }, &rows, cut, values.clone(), |own| list(largest(own)))?;
        check(Top { n, smallest: true }, &rows, cut, values, |own| list(smallest(own)))?;
        check(Top { n, smallest: false }, &rows, cut, decimals.clone(), |own| points(largest(own)))?;
        check(Top { n, smallest: true }, &rows, cut, decimals, |own| points(smallest(own)))?;
    }

    /// Distinct counts: exact ones of few values and of many; estimates that are exact for so few.
    #[test]
    fn distinct(rows in rows(), cut in 1usize..70) {
        use AggregateFunction::*;
        let values: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
        let texts: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| row.3.map(|value| value.to_string())).collect::<Vec<_>>()));
        let count = |own: &[usize]| {
            let different: std::collections::HashSet<i64> = own.iter().filter_map(|row| rows[*row].3).collect();
            Some(different.len().into())
        };
        for values in [values, texts] {
            check(CountDistinct, &rows, cut, values.clone(), count)?;
            check(ApproxCountDistinct { precision: 12 }, &rows, cut, values, count)?;
        }
    }

    #[test]
    fn spread(rows in rows(), cut in 1usize..70, far in 0..2i64) {
        use AggregateFunction::*;
        // A mean of 10^9 and deviations of tens: one pass in doubles would lose them all.
        let far = far * 1_000_000_000;
        let value = |row: &Row| row.3.map(|value| far + value);
        let values: ArrayRef = Arc::new(Float64Array::from(rows.iter().map(|row| value(row).map(|value| value as f64)).collect::<Vec<_>>()));
        // Exact in integers up to one division.
        let variance = |own: &[usize], population: bool| {
            let own: Vec<i128> = own.iter().filter_map(|row| value(&rows[*row])).map(i128::from).collect();
            let (n, sum, squares) = (own.len() as i128, own.iter().sum::<i128>(), own.iter().map(|value| value * value).sum::<i128>());
            let divisor = n * if population { n } else { n - 1 };
            (divisor > 0).then(|| (n * squares - sum * sum) as f64 / divisor as f64)
        };
        for population in [false, true] {
            check(Variance { population }, &rows, cut, values.clone(), |own| variance(own, population).map(Into::into))?;
            check(StdDev { population }, &rows, cut, values.clone(), |own| variance(own, population).map(|variance| variance.sqrt().into()))?;
        }
    }
}

/// Lists have no promised order: sorted before they are compared.
fn sorted_lists(task: &mut Task, key: u8) -> Option<Vec<String>> {
    let lists = task.results();
    let mut list: Vec<String> = shown(&lists, key as usize)?.as_array()?.iter().map(ToString::to_string).collect();
    list.sort();
    Some(list)
}

proptest! {
    /// Nulls are elements of a group; null lists add nothing to a concat; an empty list makes it a list.
    #[test]
    fn lists(rows in rows(), cut in 1usize..70) {
        let values: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
        let list = |row: &Row| row.3.map(|value| (0..value.unsigned_abs() as i64 % 4).map(|item| Some(value + item)).collect::<Vec<_>>());
        let listed: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(list)));
        let texts: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| row.3.map(|value| format!("ä{value}"))).collect::<Vec<_>>()));
        let strings = |values: Vec<serde_json::Value>| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let group = |row: &Row| Some(strings(vec![row.3.map_or(json!(null), |value| json!(value))]));
        let concat = |row: &Row| list(row).map(|list| strings(list.into_iter().map(|item| json!(item)).collect()));
        let characters = |row: &Row| row.3.map(|value| strings(format!("ä{value}").chars().map(|c| json!(c.to_string())).collect()));
        type Elements<'a> = &'a dyn Fn(&Row) -> Option<Vec<String>>;
        let cases: [(AggregateFunction, &ArrayRef, Elements<'_>); 3] = [
            (AggregateFunction::Group, &values, &group),
            (AggregateFunction::Concat, &listed, &concat),
            (AggregateFunction::Concat, &texts, &characters),
        ];
        for (function, values, elements) in cases {
            let mut task = Task::new(function.clone(), values);
            let numbers: Vec<u32> = (0..rows.len() as u32).collect();
            numbers.chunks(cut).for_each(|batch| task.add(&rows, batch, values, |row| row.1 + 1));
            for key in 0..KEYS {
                let into = task.slot(key, 0);
                let from: Vec<Slot> = (1..=PARTS).map(|part| task.slot(key, part)).collect();
                task.aggregator.merge_into(&mut task.cells, into, &from).expect("merges");
                let own: Vec<Vec<String>> = rows.iter().filter(|row| row.0 == key).filter_map(elements).collect();
                let mut want = own.concat();
                want.sort();
                prop_assert_eq!(sorted_lists(&mut task, key), (!own.is_empty()).then_some(want), "{:?} of key {}", function, key);
            }
        }
    }
}

/// Sketches of many values, in one cell or merged from three: within their errors, and for distinct counts the same.
#[test]
fn sketches_of_many_values() {
    const ROWS: i64 = 60_000;
    let rows: Vec<Row> = (0..ROWS).map(|row| (0, row % PARTS, 0, Some(row * 7919 % 20_000))).collect();
    let values: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
    let numbers: Vec<u32> = (0..ROWS as u32).collect();
    let quantiles = AggregateFunction::Quantiles(vec![0.0, 0.01, 0.5, 0.99, 1.0]);
    let mut counts = Vec::new();
    for merged in [false, true] {
        for function in [AggregateFunction::ApproxCountDistinct { precision: 12 }, AggregateFunction::CountDistinct, quantiles.clone()] {
            let mut task = Task::new(function.clone(), &values);
            numbers.chunks(1000).for_each(|batch| task.add(&rows, batch, &values, |row| if merged { row.1 + 1 } else { 0 }));
            let into = task.slot(0, 0);
            let from: Vec<Slot> = if merged { (1..=PARTS).map(|part| task.slot(0, part)).collect() } else { vec![] };
            task.aggregator.merge_into(&mut task.cells, into, &from).expect("merges");
            let result = shown(&task.results(), 0).expect("a result");
            match function {
                AggregateFunction::CountDistinct => assert_eq!(result, 20_000),
                AggregateFunction::Quantiles(_) => {
                    for (got, want) in result.as_array().expect("a list").iter().zip([0.0, 200.0, 10_000.0, 19_800.0, 19_999.0]) {
                        assert!((got.as_f64().expect("a double") - want).abs() <= 100.0, "{got} is not about {want}");
                    }
                }
                _ => counts.push(result.as_f64().expect("a number")),
            }
        }
    }
    assert!(counts.iter().all(|count| (count / 20_000.0 - 1.0).abs() < 0.05), "{counts:?}");
    assert_eq!(counts[0], counts[1], "the estimate does not depend on merges");
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
        assert!(task.aggregator.add(&mut task.cells.touch(&[slot]), &[slot, slot], &[0, 0], Some(&values)).is_err());
    }
}
