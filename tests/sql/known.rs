//! Differences between our SQL and DuckDB's that are meant to be; docs/reference/sql-expressions.md has the rules.
//!
//! All are of one kind: which operands are evaluated at all. We evaluate what the order of evaluation says, on every row; DuckDB
//! folds constants, leaves out what a constant null makes irrelevant, and evaluates both sides of AND and all items of IN.
//! One rule differs besides: the smallest integer % -1 is 0 (DuckDB: an overflow).
//! Where the rules of values differ otherwise, the grammar spells DuckDB's text so that it says ours (a cast to an integer cuts: `trunc`).

use crate::grammar::Pair;
use serde_json::Value as Json;

/// Whether a row may differ. `failed`: our error.
pub fn row(pair: &Pair, failed: Option<&str>, theirs: &Json) -> bool {
    match failed {
        // DuckDB did not evaluate what fails: the whole is null either way, or a constant beside AND or OR decides.
        Some(_) => theirs.is_null() || [" AND ", " OR "].iter().any(|form| pair.ours.contains(form)),
        // The remainder by -1 is 0, also where the quotient would overflow.
        None if pair.ours.contains('%') && theirs["error"].as_str().is_some_and(|error| error.contains("Overflow in division")) => true,
        // DuckDB evaluated what does not matter: it stands to the right of what decides.
        None => {
            theirs["error"].is_string()
                && [" AND ", " OR ", " IN (", "CASE ", "coalesce", "BETWEEN"].iter().any(|form| pair.ours.contains(form))
        }
    }
}
