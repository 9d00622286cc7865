use super::*;
use pelton_sdk::testing::{Value, combine, stateful};

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn config(text: &str) -> Value {
    text.parse().unwrap()
}

#[test]
fn a_value_lives_as_long_as_it_is_told_to() {
    let mut test = stateful::<Dedup>(Value::Null);
    for (time, kept) in [(0, 1), (59, 0), (60, 1), (61, 0), (119, 0), (120, 1)] {
        test.row("a", at(time), Event { number: time });
        assert_eq!(test.take::<Nothing>("").len(), kept, "{time}");
    }
    test.row("b", at(0), Event { number: 1 });
    assert_eq!(test.take::<Nothing>("").len(), 1);
    // The watermark is later than the row.
    test.watermark(at(200));
    test.row("b", at(1), Event { number: 1 });
    assert_eq!(test.take::<Nothing>("").len(), 1);
}

/// A filter adds no columns.
#[derive(Row)]
struct Nothing {}

#[test]
fn a_gap_timer_ends_a_session() {
    let mut test = stateful::<Sessions>(config(r#"{"seconds": 10}"#));
    for (key, time, number) in [("a", 1, 5), ("b", 2, 1), ("a", 9, 7), ("b", 20, 2)] {
        test.row(key, at(time), Event { number });
    }
    // The row at 20 ended the session of b.
    assert_eq!(test.take::<Summary>(""), [("b".to_owned(), Summary { first: at(2), last: at(2), rows: 1, sum: 1, largest: 1 })]);
    test.watermark(at(19));
    assert_eq!(test.take::<Summary>(""), [("a".to_owned(), Summary { first: at(1), last: at(9), rows: 2, sum: 12, largest: 7 })]);
    assert_eq!(test.cells(), 1);
    test.watermark(Timestamp::MAX);
    assert_eq!((test.take::<Summary>("").len(), test.cells()), (1, 0));
}

#[test]
fn lists_and_maps_end_with_their_window() {
    let mut test = stateful::<Collect>(Value::Null).with_windows(Duration::from_secs(10));
    for (time, number) in [(1, 4), (2, 5), (3, 4), (12, 6), (4, -5)] {
        test.row("a", at(time), Event { number });
    }
    test.watermark(at(10));
    let first = Collected { order: vec![4, 5, 4], counts: BTreeMap::from([(4, 2)]), start: at(0) };
    assert_eq!(test.take::<Collected>(""), [("a".to_owned(), first)]);
    test.row("a", at(9), Event { number: 1 });
    assert_eq!(test.errors, [("a".to_owned(), "late: the window has closed".to_owned())]);
    assert_eq!(test.cells(), 1);
}

#[test]
fn a_refused_row_is_undone() {
    let mut test = stateful::<Picky>(Value::Null);
    let mut totals = vec![];
    for number in [1, 5, 2, 10, 15, 3] {
        test.row("a", at(number), Event { number });
        totals.extend(test.take::<Total>("").into_iter().map(|(_, total)| (total.total, total.listed, total.mapped)));
    }
    assert_eq!(totals, [(1, 1, 1), (3, 2, 2), (6, 3, 3)]);
    assert_eq!(test.errors.len(), 3);
    // The timer that a refused row set never fires.
    test.watermark(Timestamp::MAX);
    assert!(test.take::<Total>("").is_empty());
}

#[test]
fn timers_follow_their_clocks() {
    let mut test = stateful::<Alarm>(Value::Null);
    test.row("a", at(100), Event { number: -5 });
    test.row("b", at(100), Event { number: 1 });
    test.time(at(5));
    let fired: Vec<_> = test.take::<Fired>("").into_iter().map(|(key, fired)| (key, fired.what, fired.at)).collect();
    assert_eq!(fired, [("a".to_owned(), "processing".to_owned(), at(100))]);
    test.watermark(at(108));
    let fired: Vec<_> = test.take::<Fired>("").into_iter().map(|(_, fired)| (fired.at, fired.rows)).collect();
    assert_eq!(fired, [(at(101), 1), (at(108), 2)]);
}

#[test]
fn aggregations_merge() {
    let numbers = [1.0, 4.0, -1.0, 16.0, 2.0, 8.0];
    let (mean, errors) = combine::<GeometricMean, f64>(Value::Null, numbers.map(|value| Number { value }));
    assert!((mean - 4.0).abs() < 1e-12, "{mean}");
    assert_eq!(errors, [(2, "-1 has no logarithm".to_owned())]);
    let whole = [3, 9, 9, 1, 7, 9, 3].map(|value| Whole { value });
    assert_eq!(combine::<TopDistinct, Vec<i64>>(config(r#"{"n": 3}"#), whole).0, [9, 7, 3]);
}

#[test]
fn a_side_input_is_a_column_of_the_row() {
    let mut test = stateful::<Spending>(Value::Null);
    for (key, number, rate) in [("a", 2, Some(10)), ("b", 3, None), ("a", 1, Some(20))] {
        test.row(key, at(0), Rated { number, rate });
    }
    let so_far = test.take::<SoFar>("").into_iter().map(|(key, SoFar { so_far })| (key, so_far)).collect::<Vec<_>>();
    assert_eq!(so_far, [("a".to_owned(), 20), ("b".to_owned(), 3), ("a".to_owned(), 40)]);
}
