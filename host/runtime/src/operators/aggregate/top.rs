//! The n largest or smallest values, best first.
//!
//! ```text
//! state = count u32, (length u32, value bytes)*      the worst value first, so that most rows meet one comparison
//! ```

use super::state::States;
use super::values::Ordered;
use super::{Accumulate, Rows};
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot, Touched};

/// Keeps the best values of each cell.
pub(super) struct Top {
    best: ColumnId,
    values: Ordered,
    n: usize,
    smallest: bool,
}

impl Top {
    pub fn new(states: &mut States<'_>, item: &DataType, n: usize, smallest: bool) -> Result<Top, String> {
        Ok(Top { best: states.bytes(), values: Ordered::new(item)?, n, smallest })
    }
}

const HEAD: usize = 4;

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

/// The value whose length stands at `at`.
fn entry(best: &[u8], at: usize) -> &[u8] {
    &best[at + 4..at + 4 + number(best, at)]
}

/// The values of a state, the worst first.
fn entries(best: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let mut all = Vec::new();
    let mut at = HEAD;
    while at < best.len() {
        let value = entry(best, at);
        all.push(value);
        at += 4 + value.len();
    }
    all.into_iter()
}

fn offer(best: &mut Vec<u8>, value: &[u8], n: usize, smallest: bool) {
    let beats = |other: &[u8]| if smallest { value < other } else { value > other };
    if best.is_empty() {
        best.extend_from_slice(&[0; HEAD]);
    }
    let count = number(best, 0);
    if count == n && !beats(entry(best, HEAD)) {
        return;
    }
    let mut at = HEAD;
    while at < best.len() && beats(entry(best, at)) {
        at += 4 + entry(best, at).len();
    }
    let length = (value.len() as u32).to_le_bytes();
    best.splice(at..at, length.into_iter().chain(value.iter().copied()));
    if count == n {
        let worst = 4 + entry(best, HEAD).len();
        best.drain(HEAD..HEAD + worst);
    } else {
        best[..HEAD].copy_from_slice(&(count as u32 + 1).to_le_bytes());
    }
}

impl Accumulate for Top {
    fn add(&mut self, cells: &mut Touched<'_>, rows: &Rows<'_>) -> Result<(), String> {
        let values = self.values.encode(rows.value());
        let bests = cells.column::<Vec<u8>>(self.best);
        rows.each(|row, slot| offer(&mut bests[slot], values.get(row), self.n, self.smallest));
        Ok(())
    }

    fn merge(&mut self, cells: &mut Touched<'_>, slots: &[Slot], partial: &[ArrayRef]) -> Result<(), String> {
        let bests = cells.column::<Vec<u8>>(self.best);
        for (slot, from) in slots.iter().zip(partial[0].as_binary::<i32>().iter().flatten()) {
            // The best first: the rest is then turned away by one comparison.
            entries(from).rev().for_each(|value| offer(&mut bests[*slot as usize], value, self.n, self.smallest));
        }
        Ok(())
    }

    fn extract(&self, cells: &Cells, slots: &[Slot]) -> Result<ArrayRef, String> {
        let bests = cells.column::<Vec<u8>>(self.best);
        let rows: Vec<Vec<&[u8]>> = slots.iter().map(|slot| entries(&bests[*slot as usize]).rev().collect()).collect();
        self.values.decode_lists(&rows)
    }
}
