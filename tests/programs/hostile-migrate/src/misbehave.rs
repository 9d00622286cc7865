//! What versions do when they are to bring state over: before they answer, and to their answer.

use crate::pelton::plugin::bytes::BytesColumn;
use crate::pelton::plugin::{log, state};
use crate::{column, u32s, way};
use std::hint::black_box;

/// Panics as the SDK does: with words for the host.
pub fn trap(export: &str) -> ! {
    std::panic::set_hook(Box::new(|info| log::panicked(&info.to_string())));
    panic!("{export} has no brakes")
}

/// Traps, or does not come to its end, or fails.
pub fn before(items: usize, poison: bool) -> Result<(), String> {
    match way().as_str() {
        "migrate-traps" | "first-no-way-back" => trap("migrate"),
        "migrate-poison" if poison => trap("a poisoned value"),
        "migrate-aborts" => std::process::abort(),
        "migrate-loops" => spin(),
        "migrate-hoards" => hoard(),
        "migrate-recurses" => _ = black_box(dig(1)),
        "migrate-floods" => loop {
            log::write(log::Level::Info, &"flood ".repeat(1_000));
        },
        // State may be read in `process` alone.
        "migrate-reads" => drop(state::read(1, &u32s([0]), 10)),
        "migrate-fails" => return Err(format!("{items} items are too many")),
        "migrate-drop-traps" => drop(Bomb),
        _ => {}
    }
    Ok(())
}

/// An answer that is not one; `items` are honest.
pub fn answer(items: &[Vec<u8>]) -> BytesColumn {
    let honest = column(items);
    match way().as_str() {
        "migrate-few" => column(&items[1..]),
        "migrate-many" => column(&[items, &[vec![0; 8]]].concat()),
        "migrate-nothing" => BytesColumn { validity: vec![], offsets: vec![], data: vec![] },
        "migrate-offsets-down" => BytesColumn { offsets: u32s(std::iter::once(9).chain((0..items.len() as u32).rev())), ..honest },
        "migrate-offsets-beyond" => BytesColumn { offsets: u32s((0..items.len() as u32).chain([u32::MAX])), ..honest },
        "migrate-data-unused" => BytesColumn { data: [honest.data.clone(), vec![0]].concat(), ..honest },
        "migrate-validity-short" => BytesColumn { validity: vec![255; items.len() / 8 + 9], ..honest },
        "migrate-huge" => column(&items.iter().enumerate().map(|(at, item)| if at == 0 { vec![7; 2_000_000] } else { item.clone() }).collect::<Vec<_>>()),
        _ => honest,
    }
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

#[expect(unconditional_recursion, reason = "until the stack is at its end")]
fn dig(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    dig(frame[0] + 1) + frame[63]
}

/// Goes off when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        trap("a drop")
    }
}
