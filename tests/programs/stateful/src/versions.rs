//! One transform in several versions, as if a plugin was changed: what the state of one becomes with the next.

use pelton_sdk::prelude::*;

use crate::Event;

#[derive(Row, Debug, PartialEq, Clone)]
pub struct Figures {
    pub version: i64,
    pub count: i64,
    pub sum: i64,
    /// Of all numbers.
    pub recent: i64,
    pub even: i64,
    pub first: i64,
}

#[derive(StateValue, Clone, Default)]
pub struct Tally1 {
    count: i32,
    scratch: String,
    sum: i32,
    first: Option<i64>,
}

#[derive(State)]
pub struct State1 {
    tally: Value<Tally1>,
    recent: List<i32>,
    parity: Map<i64, i32>,
}

pub struct FiguresOne;

/// The first version.
#[stateful]
impl FiguresOne {
    fn process(row: Event, state: &mut State1) -> Figures {
        let mut tally = state.tally.get_or(Tally1::default());
        tally.count += 1;
        tally.sum += row.number as i32;
        tally.scratch.push('x');
        tally.first.get_or_insert(row.number);
        state.tally.set(tally.clone());
        state.recent.push(row.number as i32);
        let even = row.number.rem_euclid(2);
        let before = state.parity.get(&even).copied().unwrap_or_default();
        state.parity.insert(&even, before + 1);
        Figures {
            version: 1,
            count: tally.count.into(),
            sum: tally.sum.into(),
            recent: state.recent.iter().map(|number| i64::from(*number)).sum(),
            even: state.parity.get(&0).copied().unwrap_or_default().into(),
            first: tally.first.unwrap_or_default(),
        }
    }
}

/// Fields in another order, wider, one gone, two new.
#[derive(StateValue, Clone)]
pub struct Tally2 {
    sum: i64,
    first: Option<i64>,
    #[state(default = 100)]
    base: i64,
    note: Option<String>,
    count: i64,
}

#[derive(State)]
pub struct State2 {
    /// New.
    seen: Value<bool>,
    parity: Map<i64, i64>,
    recent: List<i64>,
    tally: Value<Tally2>,
}

pub struct FiguresTwo;

/// The second: the host converts the state of the first.
#[stateful]
impl FiguresTwo {
    fn process(row: Event, state: &mut State2) -> Figures {
        let new = Tally2 { sum: 0, first: None, base: 100, note: None, count: 0 };
        let mut tally = state.tally.get_or(new);
        assert_eq!((tally.base, &tally.note), (100, &None), "what a new field is");
        tally.count += 1;
        tally.sum += row.number;
        tally.first.get_or_insert(row.number);
        state.tally.set(tally.clone());
        state.recent.push(row.number);
        state.seen.set(true);
        let even = row.number.rem_euclid(2);
        let before = state.parity.get(&even).copied().unwrap_or_default();
        state.parity.insert(&even, before + 1);
        Figures {
            version: 2,
            count: tally.count,
            sum: tally.sum,
            recent: state.recent.iter().sum(),
            even: state.parity.get(&0).copied().unwrap_or_default(),
            first: tally.first.unwrap_or_default(),
        }
    }
}

/// What the migrations of the third version take: of the first and of the second version, for the host brings either to this.
#[derive(StateValue)]
pub struct Before3 {
    count: i64,
    sum: i64,
    first: Option<i64>,
}

/// Numbers as texts.
#[derive(StateValue, Clone)]
pub struct Tally3 {
    count: String,
    sum: String,
    first: String,
}

#[derive(State)]
pub struct State3 {
    #[state(version = 2, migrate(1 = tally_of))]
    tally: Value<Tally3>,
    #[state(version = 2, migrate(1 = text_of))]
    recent: List<String>,
    #[state(version = 2, migrate(1 = parity_of))]
    parity: Map<String, i64>,
}

/// A negative number cannot be brought over: it stands for what a plugin has not thought of.
fn tally_of(old: Before3) -> Result<Tally3, String> {
    match old.first.unwrap_or_default() {
        first if first < 0 => Err(format!("{first} is negative")),
        first => Ok(Tally3 { count: old.count.to_string(), sum: old.sum.to_string(), first: first.to_string() }),
    }
}

fn text_of(number: i64) -> String {
    number.to_string()
}

/// Other keys; odd numbers are not counted any more.
fn parity_of((even, count): (i64, i64)) -> Option<(String, i64)> {
    (even == 0).then(|| ("even".to_owned(), count))
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number was written")
}

pub struct FiguresThree;

/// The third: the plugin migrates the state of the others.
#[stateful]
impl FiguresThree {
    fn process(row: Event, state: &mut State3) -> Figures {
        let new = Tally3 { count: "0".to_owned(), sum: "0".to_owned(), first: row.number.to_string() };
        let Tally3 { count, sum, first } = state.tally.get_or(new);
        let tally = Tally3 { count: (number(&count) + 1).to_string(), sum: (number(&sum) + row.number).to_string(), first };
        state.tally.set(tally.clone());
        state.recent.push(row.number.to_string());
        let even = "even".to_owned();
        let before = state.parity.get(&even).copied().unwrap_or_default();
        state.parity.insert(&even, before + i64::from(row.number.rem_euclid(2) == 0));
        Figures {
            version: 3,
            count: number(&tally.count),
            sum: number(&tally.sum),
            recent: state.recent.iter().map(|text| number(text)).sum(),
            even: state.parity.get(&even).copied().unwrap_or_default(),
            first: number(&tally.first),
        }
    }
}

#[derive(State)]
pub struct State4 {
    tally: Value<String>,
}

pub struct FiguresFour;

/// The fourth: its state has nothing to do with that of the others.
#[stateful]
impl FiguresFour {
    fn process(row: Event, state: &mut State4) -> Figures {
        let tally = state.tally.get_or(String::new()) + "x";
        let count = tally.len() as i64;
        state.tally.set(tally);
        Figures { version: 4, count, sum: row.number, recent: 0, even: 0, first: 0 }
    }
}

/// A number of a row, as an aggregation is given it.
#[derive(Row)]
pub struct Added {
    pub value: i64,
}

/// Makes an aggregation of sums whose accumulator is of its own.
macro_rules! total {
    ($(#[$option:meta])* $name:ident, $kept:ident, $create:expr, |$into:ident, $value:ident| $add:expr, |$of:ident| $sum:expr) => {
        pub struct $name;

        $(#[$option])*
        impl CombineFn for $name {
            type Config = ();
            type Row<'a> = Added;
            type Accumulator = $kept;
            type Output = i64;

            fn create(_: &()) -> $kept {
                $create
            }
            fn add(_: &(), $into: &mut $kept, row: Added) -> Result<(), String> {
                let $value = row.value;
                $add;
                Ok(())
            }
            fn merge(_: &(), $into: &mut $kept, $of: $kept) {
                let $of = &$of;
                let $value: i64 = $sum;
                $add;
            }
            fn extract(_: &(), $of: &$kept) -> i64 {
                $sum
            }
        }
    };
}

#[derive(StateValue)]
pub struct Sum1 {
    note: String,
    sum: i32,
}

total! {
    /// The first version of a sum.
    #[combine]
    TotalOne, Sum1, Sum1 { note: "of the first".to_owned(), sum: 0 }, |into, value| into.sum += value as i32, |of| of.sum.into()
}

/// Wider, with a new field and without another.
#[derive(StateValue)]
pub struct Sum2 {
    #[state(default = 7)]
    seven: i64,
    sum: i64,
}

total! {
    /// The second: the host converts the accumulators of the first.
    #[combine]
    TotalTwo, Sum2, Sum2 { seven: 7, sum: 0 }, |into, value| { assert_eq!(into.seven, 7); into.sum += value }, |of| of.sum
}

/// What the migration of the third takes: of either before.
#[derive(StateValue)]
pub struct SumBefore3 {
    sum: i64,
}

/// A negative sum cannot be brought over.
fn sum_of(old: SumBefore3) -> Result<String, String> {
    if old.sum < 0 { Err(format!("{} is negative", old.sum)) } else { Ok(old.sum.to_string()) }
}

total! {
    /// The third: a text, to which the plugin brings those of the others.
    #[combine(version = 2, migrate(1 = sum_of))]
    TotalThree, String, "0".to_owned(), |into, value| *into = (number(into) + value).to_string(), |of| number(of)
}
