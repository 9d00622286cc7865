//! What counts as the same answer: equal multisets of rows.
//!
//! Integers and floats are told apart, floats agree within 1e-9, instants have been cut to milliseconds. What else is let
//! through is in `beam-differences.md`, under the identifier that stands at the rule here.

use super::value::{Captured, Pane, Value};
use std::collections::BTreeMap;

/// Relative error of floats: sums are added up in different orders.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// Rows that a difference shows at most.
const SHOWN: usize = 6;

/// Identifiers of the differences that every comparison lets through.
pub const EVERYWHERE: &[&str] = &["error-rows", "last-pane", "milliseconds", "order-in-lists", "window-of-no-time"];

/// What to compare loosely.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// The order in lists depends on the order of rows (`order-in-lists`).
    pub any_order_in_lists: bool,
}

/// `None`: equal. Otherwise what each side has alone.
pub fn difference(ours: &[Captured], beams: &[Captured], rules: Rules) -> Option<String> {
    let same = |one: &Captured, other: &Captured| {
        let windows = one.window == other.window || (no_time(one) && no_time(other));
        times_equal(one, other) && panes_equal(&one.pane, &other.pane) && windows && rows_equal(&one.row, &other.row, rules)
    };
    unmatched(ours, beams, same)
}

/// The same for rows of files, which have no windows.
pub fn difference_of_rows(ours: &[Value], beams: &[Value], rules: Rules) -> Option<String> {
    unmatched(ours, beams, |one, other| rows_equal(one, other, rules))
}

/// `window-of-no-time`: fixed windows at the beginning of time are cut to the range of instants; Beam's begin before it.
fn no_time(captured: &Captured) -> bool {
    captured.time <= super::value::millis(pelton_core::Instant::MIN.micros()) + 1
}

/// `milliseconds`: what a window gives out has its last instant, which is 1 µs before the end for us and 1 ms for Beam.
fn times_equal(ours: &Captured, beams: &Captured) -> bool {
    let at_the_end = |(_, end): (i64, i64)| ours.time == end && beams.time == end - 1;
    ours.time == beams.time || ours.window.is_some_and(at_the_end)
}

/// `last-pane`: Beam's runner does not say of a window's pane that it is the last.
fn panes_equal(ours: &Pane, beams: &Pane) -> bool {
    *ours == *beams || *ours == Pane { is_last: true, ..beams.clone() }
}

fn unmatched<T: std::fmt::Display>(ours: &[T], beams: &[T], same: impl Fn(&T, &T) -> bool) -> Option<String> {
    let mut left: Vec<&T> = beams.iter().collect();
    let mut only_ours = Vec::new();
    for row in ours {
        match left.iter().position(|other| same(row, other)) {
            Some(at) => drop(left.swap_remove(at)),
            None => only_ours.push(row),
        }
    }
    if left.is_empty() && only_ours.is_empty() {
        return None;
    }
    let show = |who: &str, rows: &[&T]| -> String {
        let mut lines: Vec<String> = rows.iter().take(SHOWN).map(|row| format!("\n      {who} {row}")).collect();
        lines.sort();
        if rows.len() > SHOWN {
            lines.push(format!("\n      {who} … {} more", rows.len() - SHOWN));
        }
        lines.concat()
    };
    Some(format!("{} rows against Beam's {}:{}{}", ours.len(), beams.len(), show("ours", &only_ours), show("Beam", &left)))
}

fn rows_equal(one: &Value, other: &Value, rules: Rules) -> bool {
    match (one, other) {
        // `error-rows`: messages are our own, and ours say more.
        (Value::Row(one), Value::Row(other)) if is_error(one) && is_error(other) => equal(&one["element"], &other["element"], rules),
        _ => equal(one, other, rules),
    }
}

fn is_error(row: &BTreeMap<String, Value>) -> bool {
    ["element", "msg", "stack"].iter().all(|name| row.contains_key(*name))
}

fn equal(one: &Value, other: &Value, rules: Rules) -> bool {
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => floats_equal(*one, *other),
        (Value::List(one), Value::List(other)) if one.len() == other.len() => {
            one.iter().zip(other).all(|(one, other)| equal(one, other, rules))
                || (rules.any_order_in_lists && same_items(one, other, rules))
        }
        (Value::Row(ours), Value::Row(beams)) if is_pane(ours) && is_pane(beams) => {
            let said = |name: &str| beams[name] == Value::Bool(false) && name == "is_last";
            ours.iter().all(|(name, value)| beams.get(name) == Some(value) || said(name))
        }
        (Value::Row(one), Value::Row(other)) => {
            one.len() == other.len() && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| equal(value, other, rules)))
        }
        _ => one == other,
    }
}

/// What ExtractWindowingInfo makes of a pane.
fn is_pane(row: &BTreeMap<String, Value>) -> bool {
    row.len() == 5 && row.contains_key("is_last") && row.contains_key("nonspeculative_index")
}

fn same_items(one: &[Value], other: &[Value], rules: Rules) -> bool {
    let mut left: Vec<&Value> = other.iter().collect();
    one.iter().all(|value| left.iter().position(|other| equal(value, other, rules)).map(|at| left.swap_remove(at)).is_some())
}

fn floats_equal(one: f64, other: f64) -> bool {
    let (distance, size) = ((one - other).abs(), one.abs().max(other.abs()));
    one == other || (one.is_nan() && other.is_nan()) || distance <= FLOAT_TOLERANCE * size.max(f64::MIN_POSITIVE)
}
