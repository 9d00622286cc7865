//! Transforms that a row with a negative number kills.

use crate::*;
use std::hint::black_box;

pub const NAMES: &[&str] = &["poison-panic", "poison-loop", "poison-memory", "poison-stack", "loop", "panic", "silent-trap", "leaky"];

/// `None`: not a transform of this module.
pub fn process(transform: &str, rows: usize, number: impl Fn(usize) -> i64) -> Option<Result<Outcome, Failure>> {
    if !NAMES.contains(&transform) {
        return None;
    }
    let poison = (0..rows).find(|row| number(*row) < 0);
    match (transform, poison) {
        ("loop", _) => spin(),
        ("panic", _) => panic!("row 3 has no brakes"),
        ("silent-trap", _) => std::process::abort(),
        ("poison-loop", Some(_)) => spin(),
        ("poison-panic", Some(row)) => panic!("number {} is poison", number(row)),
        ("poison-memory", Some(_)) => hoard(),
        ("poison-stack", Some(row)) => {
            black_box(dig(row as u64));
        }
        // Fails in every second call of an instance, as a leak would: a fresh instance helps.
        ("leaky", _) => {
            thread_local! { static CALLS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) }; }
            CALLS.set(CALLS.get() + 1);
            assert!(CALLS.get() < 2, "this instance is worn out");
        }
        _ => {}
    }
    Some(Ok(outcome(vec![output(0, no_columns(rows as u32), None)])))
}

fn spin() {
    let mut turns = 0u64;
    while black_box(true) {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn hoard() {
    let mut hoard = vec![];
    loop {
        hoard.push(black_box(vec![1u8; 1 << 20]));
    }
}

fn dig(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    dig(frame[0] + 1) + frame[63]
}
