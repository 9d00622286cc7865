//! Rows in a cell, one after the other in one value:
//!
//! ```text
//! row = time: i64, little-endian | led: 00 or 01 | length: u32, little-endian | the columns that come out (`KeyEncoder::for_rows`)
//! ```
//!
//! `led` says whether something has come of the row. They lie in the order in which they came.

use pelton_core::Instant;

const LED: usize = 8;
const LENGTH: usize = 9;
const HEADER: usize = 13;

/// One row of a cell.
#[derive(Clone, Copy, Debug)]
pub(in crate::operators) struct Kept<'a> {
    /// Where it begins in the cell.
    pub at: usize,
    /// Event time.
    pub time: Instant,
    /// Whether something has come of it.
    pub led: bool,
    /// Its columns.
    pub row: &'a [u8],
}

/// Appends a row.
pub(in crate::operators) fn push(cell: &mut Vec<u8>, time: Instant, led: bool, row: &[u8]) {
    cell.extend_from_slice(&time.micros().to_le_bytes());
    cell.push(u8::from(led));
    // A row is at most MAX_ROW_BYTES long, so its bytes are far from 4 GiB.
    cell.extend_from_slice(&(row.len() as u32).to_le_bytes());
    cell.extend_from_slice(row);
}

/// Notes that something has come of the row that begins here.
pub(super) fn mark(cell: &mut [u8], at: usize) {
    cell[at + LED] = 1;
}

/// The rows of a cell.
pub(in crate::operators) fn each(cell: &[u8]) -> impl Iterator<Item = Kept<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = at;
        let header = cell.get(here..here + HEADER)?;
        let time = i64::from_le_bytes(header[..LED].try_into().expect("eight bytes"));
        let length = u32::from_le_bytes(header[LENGTH..].try_into().expect("four bytes")) as usize;
        at = here + HEADER + length;
        let row = cell.get(here + HEADER..at)?;
        Some(Kept { at: here, time: Instant::from_micros_saturating(time), led: header[LED] != 0, row })
    })
}
