//! SQL here and on DuckDB: random expressions over random rows, random queries and joins per window.
//!
//! ```text
//! cargo xtask sql-diff                         1,000 expressions, 60 queries and joins
//! cargo xtask sql-diff --random N --seed S     so many expressions, from a seed
//! cargo xtask sql-diff --queries N             so many queries and joins
//! ```
//!
//! Deliberate differences stand in `known`, each for a rule of `docs/reference/sql-expressions.md`. Any other difference is
//! wrong, is printed, and fails the suite.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

mod expressions;
mod grammar;
mod known;
mod numbers;
mod oracle;
mod queries;
mod rows;

use oracle::Oracle;

/// Expressions of a run that asks for nothing else.
const RANDOM: usize = 1_000;
/// Queries and joins.
const QUERIES: usize = 60;
const SEED: u64 = 55;
/// Wrong answers that are shown.
const SHOWN: usize = 25;

/// How many fared how.
#[derive(Debug, Default)]
pub struct Tally {
    pub expressions: usize,
    pub queries: usize,
    pub joins: usize,
    pub equal: usize,
    pub known: usize,
    wrong: usize,
}

impl Tally {
    pub fn wrong(&mut self, what: &str) {
        self.wrong += 1;
        if self.wrong <= SHOWN {
            println!("WRONG {what}\n");
        }
    }
}

fn main() {
    let (mut random, mut queries, mut seed, mut verbose) = (RANDOM, QUERIES, SEED, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{word} needs a number"));
        match word.as_str() {
            "--random" => random = value(),
            "--queries" => queries = value(),
            "--seed" => seed = value() as u64,
            "--verbose" => verbose = true,
            // What runners of tests ask of any test.
            "--list" => return,
            _ => {}
        }
    }
    let mut oracle = Oracle::start();
    let mut tally = Tally::default();
    expressions::run(&mut oracle, random, seed, &mut tally, verbose);
    queries::run(&mut oracle, queries, seed, &mut tally, verbose);
    let Tally { expressions, queries, joins, equal, known, wrong } = tally;
    println!("expressions={expressions} queries={queries} joins={joins} equal={equal} known_differences={known} wrong={wrong}");
    if wrong > 0 {
        std::process::exit(1);
    }
}
