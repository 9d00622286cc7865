//! How many different values, exactly: a set of canonical bytes in each cell.
//!
//! A set is a hash table inside the cell's bytes, so that it is found, changed and moved without being taken apart:
//!
//! ```text
//! state = count u32, size u32 (a power of two), size × (position of an entry u32, 0 = free), (length u32, value bytes)*
//! ```

use super::state::States;
use super::values::Values;
use super::{Accumulate, Rows};
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::DataType;
use pelton_core::key::key_hash;
use pelton_state::{Cells, ColumnId, Slot, Touched};
use std::sync::Arc;

/// Keeps the different values of each cell.
pub(super) struct CountDistinct {
    set: ColumnId,
    values: Values,
}

impl CountDistinct {
    pub fn new(states: &mut States<'_>, value: &DataType) -> Result<CountDistinct, String> {
        Ok(CountDistinct { set: states.bytes(), values: Values::new(value)? })
    }
}

impl Accumulate for CountDistinct {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let keys = self.values.encode(rows.value());
        let sets = cells.column::<Vec<u8>>(self.set);
        let mut full = false;
        rows.each(|row, slot| full |= !insert(&mut sets[slot], keys.get(row)));
        if full { Err(FULL.into()) } else { Ok(()) }
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        let sets = cells.column::<Vec<u8>>(self.set);
        let mut full = false;
        for (slot, from) in slots.iter().zip(partial[0].as_binary::<i32>().iter().flatten()) {
            entries(from).for_each(|value| full |= !insert(&mut sets[*slot as usize], value));
        }
        if full { Err(FULL.into()) } else { Ok(()) }
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let sets = cells.column::<Vec<u8>>(self.set);
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| {
            let set = &sets[*slot as usize];
            if set.is_empty() { 0 } else { number(set, 0) as i64 }
        }))))
    }
}

/// Positions are 32-bit.
const MAX_BYTES: usize = u32::MAX as usize;
const FULL: &str = "the different values of one key and window take more than 4 GiB; use approx_count_distinct";
/// Count and size.
const HEAD: usize = 8;
/// Places of the first table.
const FIRST_SIZE: usize = 8;

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn put(bytes: &mut [u8], at: usize, number: usize) {
    bytes[at..at + 4].copy_from_slice(&(number as u32).to_le_bytes());
}

fn entry(set: &[u8], at: usize) -> &[u8] {
    &set[at + 4..at + 4 + number(set, at)]
}

fn entries(set: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = if set.is_empty() { 0 } else { HEAD + 4 * number(set, 4) };
    std::iter::from_fn(move || {
        let value = (at < set.len()).then(|| entry(set, at))?;
        at += 4 + value.len();
        Some(value)
    })
}

/// Adds a value. False: there is no room for it.
fn insert(set: &mut Vec<u8>, value: &[u8]) -> bool {
    if set.is_empty() {
        set.resize(HEAD + 4 * FIRST_SIZE, 0);
        put(set, 4, FIRST_SIZE);
    }
    let Some(place) = free_place(set, value) else { return true };
    let at = set.len();
    if at + 4 + value.len() > MAX_BYTES {
        return false;
    }
    put(set, place, at);
    set.extend_from_slice(&(value.len() as u32).to_le_bytes());
    set.extend_from_slice(value);
    let (count, size) = (number(set, 0) + 1, number(set, 4));
    put(set, 0, count);
    // At most three quarters full.
    if 4 * count > 3 * size {
        grow(set, 2 * size);
    }
    true
}

/// Where a value's position would stand; `None`: the set has it.
fn free_place(set: &[u8], value: &[u8]) -> Option<usize> {
    let mask = number(set, 4) - 1;
    let mut place = key_hash(value) as usize & mask;
    loop {
        match number(set, HEAD + 4 * place) {
            0 => return Some(HEAD + 4 * place),
            at if entry(set, at) == value => return None,
            _ => place = (place + 1) & mask,
        }
    }
}

fn grow(set: &mut Vec<u8>, size: usize) {
    let mut larger = vec![0; HEAD + 4 * size];
    larger.reserve(set.len());
    put(&mut larger, 0, number(set, 0));
    put(&mut larger, 4, size);
    for value in entries(set) {
        let place = free_place(&larger, value).expect("a set has each value once");
        let at = larger.len();
        put(&mut larger, place, at);
        larger.extend_from_slice(&(value.len() as u32).to_le_bytes());
        larger.extend_from_slice(value);
    }
    *set = larger;
}
