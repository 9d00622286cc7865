//! Every shape of transform that the Rust SDK has, one each, for the tests of the host and of the SDK.

use std::collections::BTreeMap;

use pelton_sdk::prelude::*;

static SEEN: Counter = Counter::new("seen");
static LENGTHS: Distribution = Distribution::with_unit("lengths", "By");
static LAST: Gauge = Gauge::new("last");

#[derive(Row)]
pub struct Line<'a> {
    pub line: &'a str,
}

#[derive(Row, Debug, PartialEq)]
pub struct Word {
    pub word: String,
}

#[derive(Row, Debug, PartialEq)]
pub struct Length {
    pub length: i64,
}

/// A filter: keeps lines that are not empty.
#[transform]
pub fn keep(row: Line<'_>) -> bool {
    !row.line.is_empty()
}

/// One row in, one row out, or a row error. Panics at `panic`.
#[transform(metrics(SEEN, LENGTHS, LAST))]
pub fn parse(row: Line<'_>) -> Result<Length, std::num::ParseIntError> {
    SEEN.add(1);
    LENGTHS.observe(row.line.len() as f64);
    if row.line == "panic" {
        panic!("a line says panic");
    }
    let length = row.line.parse()?;
    LAST.set(length as f64);
    Ok(Length { length })
}

/// A flat-map by iterator.
#[transform]
pub fn split(row: Line<'_>) -> impl Iterator<Item = Word> {
    row.line.split_whitespace().map(|word| Word { word: word.to_owned() })
}

/// A flat-map by list, which may fail.
#[transform]
pub fn letters(row: Line<'_>) -> Result<Vec<Word>, &'static str> {
    if row.line.contains('!') {
        return Err("no shouting");
    }
    Ok(row.line.chars().map(|letter| Word { word: letter.into() }).collect())
}

/// None or one.
#[transform]
pub fn first_word(row: Line<'_>) -> Option<Word> {
    row.line.split_whitespace().next().map(|word| Word { word: word.to_owned() })
}

#[derive(Outputs)]
pub enum Routed {
    #[output(main)]
    Number(Length),
    Other(Word),
    Empty,
}

/// Tagged outputs: numbers to the main one, empty lines as they came to `empty`, the rest to `other`.
#[transform]
pub fn route(row: Line<'_>) -> Routed {
    match (row.line, row.line.parse()) {
        ("", _) => Routed::Empty,
        (_, Ok(length)) => Routed::Number(Length { length }),
        (line, _) => Routed::Other(Word { word: line.to_owned() }),
    }
}

#[derive(Config)]
pub struct Truncate {
    /// How many bytes are kept.
    pub limit: u32,
    /// What stands for the rest.
    #[config(default = "...")]
    pub mark: String,
    pub case: Option<Case>,
}

#[derive(Config)]
pub enum Case {
    Upper,
    Lower,
}

/// With a config; replaces the column `line` and passes the others.
#[transform(append)]
pub fn truncate(config: &Truncate, row: Line<'_>) -> Cut {
    let mut line: String = row.line.chars().take(config.limit as usize).collect();
    if line.len() < row.line.len() {
        line.push_str(&config.mark);
    }
    Cut {
        line: match config.case {
            Some(Case::Upper) => line.to_uppercase(),
            Some(Case::Lower) => line.to_lowercase(),
            None => line,
        },
    }
}

#[derive(Row, Debug, PartialEq)]
pub struct Cut {
    pub line: String,
}

/// Reads the event time and sets a later one.
#[transform(append)]
pub fn an_hour_later(_row: Line<'_>, time: EventTime) -> At<Length> {
    let EventTime(Timestamp(micros)) = time;
    At(Timestamp(micros + 3_600_000_000), Length { length: micros })
}

#[derive(Row, Debug, Clone, PartialEq)]
pub struct Point {
    pub x: f64,
    pub label: Option<String>,
}

/// A column of every type.
#[derive(Row, Debug, Clone, PartialEq)]
pub struct Everything {
    pub flag: bool,
    pub tiny: i8,
    pub small: i16,
    pub medium: i32,
    pub large: i64,
    pub unsigned: u32,
    pub single: f32,
    pub double: f64,
    pub text: String,
    pub bytes: Vec<u8>,
    pub at: Timestamp,
    pub day: Date,
    pub price: Decimal<12, 2>,
    pub maybe: Option<i64>,
    pub maybe_text: Option<String>,
    pub maybe_flag: Option<bool>,
    pub list: Vec<i64>,
    pub maybe_list: Option<Vec<String>>,
    pub map: BTreeMap<String, i64>,
    pub pairs: Vec<(i64, String)>,
    pub point: Point,
    pub maybe_point: Option<Point>,
    #[row(name = "odd-name")]
    pub odd_name: i64,
}

/// Gives back what it takes, through every reader and writer.
#[transform]
pub fn everything(row: Everything) -> Everything {
    row
}

/// A whole batch at a time.
#[transform(columns, append)]
pub fn measure(input: &ColumnsOf<'_, Line<'_>>, out: &mut Emit<Length>) {
    let lines = input.column::<&str>("line");
    for row in 0..input.len() {
        match lines.get(row) {
            Ok(line) => out.row(row, Length { length: line.len() as i64 }),
            Err(null) => out.error(row, &null),
        }
    }
}

/// A purchase and what the pipeline looks up beside it: a dict `profiles`, a singleton `rate` and an iterable `blocked`.
#[derive(Row)]
pub struct Purchase<'a> {
    pub user: Option<&'a str>,
    pub amount: i64,
    #[row(name = "profiles.segment")]
    pub segment: Option<&'a str>,
    #[row(name = "rate.value")]
    pub rate: i64,
    #[row(name = "blocked.user")]
    pub blocked: Vec<Option<&'a str>>,
}

#[derive(Row, Debug, PartialEq)]
pub struct Priced {
    pub segment: String,
    pub price: i64,
}

/// Reads three side inputs, and lets the input's columns pass.
#[transform(append)]
pub fn price(row: Purchase<'_>) -> Result<Priced, String> {
    match row.user {
        Some(user) if row.blocked.contains(&Some(user)) => Err(format!("{user} is blocked")),
        _ => Ok(Priced { segment: row.segment.unwrap_or("unknown").to_owned(), price: row.amount * row.rate }),
    }
}

plugin!(keep, parse, split, letters, first_word, route, truncate, an_hour_later, everything, measure, price);

#[cfg(test)]
mod tests;
