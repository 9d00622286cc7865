//! A version of `counting` whose state is far from that of the others: the sum is a text, a negative one cannot be brought over, and there is no way back.

use pelton_sdk::prelude::*;

#[derive(Row)]
pub struct Event {
    pub number: i64,
}

#[derive(State)]
pub struct Totals {
    rows: Value<i64>,
    #[state(version = 2, migrate(1 = text_of))]
    sum: Value<String>,
}

fn text_of(sum: i64) -> Result<String, String> {
    if sum < 0 { Err(format!("{sum} is negative")) } else { Ok(sum.to_string()) }
}

#[derive(Row, Debug, PartialEq)]
pub struct Total {
    pub rows: i64,
    pub sum: i64,
    pub version: i64,
}

#[derive(Config)]
pub struct Settings {
    #[config(default = 0_i64)]
    pub plus: i64,
}

pub struct Counting;

/// The rows of a key so far and their sum.
#[stateful(append)]
impl Counting {
    fn process(config: &Settings, row: Event, state: &mut Totals) -> Result<Total, String> {
        let before: i64 = state.sum.get_or("0".to_owned()).parse().map_err(|_| "no number was kept".to_owned())?;
        let (rows, sum) = (state.rows.get_or(0) + 1, before + row.number + config.plus);
        state.rows.set(rows);
        state.sum.set(sum.to_string());
        Ok(Total { rows, sum, version: 3 })
    }
}

#[derive(Row)]
pub struct Measured {
    pub value: i64,
}

#[derive(StateValue)]
pub struct Tallies {
    sum: i64,
    first: i64,
    second: i64,
}

/// As a text; a negative sum cannot be brought over.
fn tallies_of(old: Tallies) -> Result<String, String> {
    if old.sum < 0 { Err(format!("{} is negative", old.sum)) } else { Ok(told([old.sum, old.first, old.second, 0])) }
}

fn told(numbers: [i64; 4]) -> String {
    numbers.map(|number| number.to_string()).join(" ")
}

fn read(text: &str) -> [i64; 4] {
    let mut numbers = text.split(' ').map(|number| number.parse().expect("a number was written"));
    [(); 4].map(|()| numbers.next().expect("four numbers were written"))
}

pub struct Tally;

/// The sum of values, and how many of them each version has added.
#[combine(version = 2, migrate(1 = tallies_of))]
impl CombineFn for Tally {
    type Config = Settings;
    type Row<'a> = Measured;
    type Accumulator = String;
    type Output = String;

    fn create(_: &Settings) -> String {
        told([0; 4])
    }

    fn add(config: &Settings, text: &mut String, row: Measured) -> Result<(), String> {
        let [sum, first, second, third] = read(text);
        *text = told([sum + row.value + config.plus, first, second, third + 1]);
        Ok(())
    }

    fn merge(_: &Settings, into: &mut String, from: String) {
        let (own, other) = (read(into), read(&from));
        *into = told([0, 1, 2, 3].map(|place| own[place] + other[place]));
    }

    fn extract(_: &Settings, text: &String) -> String {
        text.clone()
    }
}

plugin!(Counting, Tally);
