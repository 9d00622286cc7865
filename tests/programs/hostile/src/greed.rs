//! Transforms that take, ask for or leave too much. Where a name begins with `poison-`, only a row with a negative number makes them.

use crate::memory::MALICE;
use crate::poison::spin;
use crate::*;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;

pub const NAMES: &[&str] = &[
    "busy", "log-flood", "log-huge", "poison-copies", "poison-outputs", "poison-errors-huge", "close-panics", "close-loops", "grows-rudely",
    "allocates-beyond", "allocates-over", "frees-badly", "drop-loops", "drop-panics",
];

/// `None`: not a transform of this module.
pub fn process(transform: &str, rows: &Input) -> Option<Result<Outcome, Failure>> {
    if !NAMES.contains(&transform) {
        return None;
    }
    let n = rows.columns.rows;
    let poison = (0..n).find(|row| i64_at(&rows.columns.buffers[1], *row as usize) < 0);
    let whole = || outcome(vec![output(0, no_columns(n), None)]);
    Some(Ok(match (transform, poison) {
        // Some milliseconds of work.
        ("busy", _) => {
            (0..20_000_000u64).for_each(|turn| _ = black_box(turn));
            whole()
        }
        ("log-flood", _) => loop {
            log::write(log::Level::Info, &"flood ".repeat(1_000));
        },
        ("log-huge", _) => {
            log::write(log::Level::Info, &"x".repeat(8 << 20));
            whole()
        }
        // Four bytes of an origin for each copy of a row: sixteen million copies.
        ("poison-copies", Some(row)) => {
            let copies = 4 << 20;
            let origin = row.to_le_bytes().repeat(copies as usize);
            outcome(vec![Output { origin: Some(origin), ..output(0, no_columns(copies), None) }])
        }
        // All rows again and again, each time for the few bytes of an output.
        ("poison-outputs", Some(_)) => outcome((0..100_000).map(|_| output(0, no_columns(n), None)).collect()),
        ("poison-errors-huge", Some(row)) => {
            let errors = RowErrors { rows: u32s([row]), offsets: u32s([0, 8 << 20]), messages: vec![b'e'; 8 << 20] };
            Outcome { errors, ..outcome(vec![]) }
        }
        ("grows-rudely", _) => {
            std::mem::forget(black_box(vec![1u8; 70 << 20]));
            TRANSFORM.set("close-loops".into());
            whole()
        }
        ("allocates-beyond", _) => after_malice(1, n),
        ("allocates-over", _) => after_malice(3, n),
        ("frees-badly", _) => after_malice(2, n),
        ("drop-loops" | "drop-panics", Some(_)) => {
            let _bomb = Bomb { loops: transform == "drop-loops" };
            whole()
        }
        _ => whole(),
    }))
}

/// From here on the allocator does what it should not: the host meets it with the next call, or when it frees this one's answer.
fn after_malice(kind: u32, n: u32) -> Outcome {
    let answer = outcome(vec![Output { origin: Some(u32s(0..n)), ..output(0, no_columns(n), None) }]);
    MALICE.store(kind, Relaxed);
    answer
}

/// Goes off when it is dropped.
struct Bomb {
    loops: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.loops { spin() } else { panic!("a drop has no brakes") }
    }
}
