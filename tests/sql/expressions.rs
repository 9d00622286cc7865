//! Random expressions over random rows, row by row.

use crate::numbers::Numbers;
use crate::oracle::Oracle;
use crate::{Tally, grammar, known, rows};
use pelton_expr::{Expression, Language};
use serde_json::Value as Json;

/// Expressions that share their rows: a request to DuckDB.
const TOGETHER: usize = 50;
const ROWS: usize = 16;

pub fn run(oracle: &mut Oracle, count: usize, seed: u64, tally: &mut Tally, verbose: bool) {
    let mut numbers = Numbers::new(seed);
    let mut left = count;
    while left > 0 {
        let (batch, table) = rows::random(&mut numbers, ROWS);
        let pairs: Vec<grammar::Pair> = (0..left.min(TOGETHER)).map(|_| grammar::any(&mut numbers)).collect();
        left -= pairs.len();
        let theirs = oracle.expressions(&table, &pairs.iter().map(|pair| pair.theirs.clone()).collect::<Vec<_>>());
        for (pair, theirs) in pairs.iter().zip(theirs) {
            if verbose {
                println!("{}", pair.ours);
            }
            tally.expressions += 1;
            let expression = match Expression::compile(Language::Sql, &pair.ours, &batch.schema()) {
                Ok(expression) => expression,
                Err(error) => {
                    tally.wrong(&format!("{}\n  refused: {}", pair.ours, error.message));
                    continue;
                }
            };
            let ours = expression.evaluate(&batch);
            let (mut differs, mut unknown) = (false, None);
            for (row, theirs) in theirs.iter().enumerate() {
                let failed = ours.errors.iter().find(|error| error.row as usize == row).map(|error| error.message.as_str());
                let mine = rows::value(&ours.array, row);
                let equal = match failed {
                    Some(_) => theirs["error"].is_string(),
                    None => !theirs["error"].is_string() && rows::same(&mine, theirs),
                };
                if !equal {
                    differs = true;
                    if !known::row(pair, failed, theirs) {
                        unknown.get_or_insert((row, failed.map_or(mine, |message| Json::String(format!("!{message}"))), theirs.clone()));
                    }
                }
            }
            match unknown {
                Some((row, mine, theirs)) => {
                    let shown = rows_shown(&table.columns, &table.rows[row]);
                    tally.wrong(&format!("{}\n  in DuckDB: {}\n  ours {mine}, DuckDB's {theirs}\n  row: {shown}", pair.ours, pair.theirs));
                }
                None if differs => tally.known += 1,
                None => tally.equal += 1,
            }
        }
    }
}

fn rows_shown(columns: &[String], row: &[Json]) -> String {
    let shown = columns.iter().zip(row).map(|(column, value)| format!("{}={value}", column.split(' ').next().unwrap_or_default()));
    shown.collect::<Vec<_>>().join(" ")
}
