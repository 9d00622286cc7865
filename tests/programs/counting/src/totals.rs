use pelton_sdk::prelude::*;

#[derive(Row)]
pub struct Event {
    pub number: i64,
}

#[derive(State)]
pub struct Totals {
    rows: Value<i64>,
    sum: Value<i64>,
}

#[derive(Row, Debug, PartialEq)]
pub struct Total {
    pub rows: i64,
    pub sum: i64,
    pub version: i64,
}

#[derive(Config)]
pub struct Settings {
    /// Added to each number: a change of config that can be seen.
    #[config(default = 0_i64)]
    pub plus: i64,
}

pub struct Counting;

/// The rows of a key so far, their sum, and which version has made this row.
#[stateful(append)]
impl Counting {
    fn process(config: &Settings, row: Event, state: &mut Totals) -> Result<Total, String> {
        let (rows, sum) = (state.rows.get_or(0) + 1, state.sum.get_or(0) + row.number + config.plus);
        state.rows.set(rows);
        state.sum.set(sum);
        Ok(Total { rows, sum, version: VERSION })
    }
}

/// Which version a row has met.
#[derive(Row, Debug, PartialEq)]
pub struct Marked {
    pub marked: i64,
}

/// Says which version it is.
#[transform(append)]
pub fn mark(_row: Event) -> Marked {
    Marked { marked: VERSION }
}

#[derive(Row)]
pub struct Measured {
    pub value: i64,
}

#[derive(StateValue, Clone)]
pub struct Tallies {
    sum: i64,
    /// Values that the first version has added, and the second.
    first: i64,
    second: i64,
}

pub struct Tally;

/// The sum of values, and how many of them each version has added.
#[combine]
impl CombineFn for Tally {
    type Config = Settings;
    type Row<'a> = Measured;
    type Accumulator = Tallies;
    type Output = String;

    fn create(_: &Settings) -> Tallies {
        Tallies { sum: 0, first: 0, second: 0 }
    }

    fn add(config: &Settings, tallies: &mut Tallies, row: Measured) -> Result<(), String> {
        tallies.sum += row.value + config.plus;
        if VERSION == 1 { tallies.first += 1 } else { tallies.second += 1 }
        Ok(())
    }

    fn merge(_: &Settings, into: &mut Tallies, from: Tallies) {
        into.sum += from.sum;
        into.first += from.first;
        into.second += from.second;
    }

    fn extract(_: &Settings, tallies: &Tallies) -> String {
        format!("{} {} {} 0", tallies.sum, tallies.first, tallies.second)
    }
}

plugin!(Counting, mark, Tally);
