//! The rows of several segments as if they were one: in order of address, the newest only.
//!
//! Memory is bounded by the number of segments, not by their size.

use super::StoreError;
use super::segment::SegmentCursor;
use crate::rows::Newest;
use crate::{Change, Row, Rows};

/// About this many bytes of rows are given at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What becomes of removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removals {
    /// They are passed on: there are older rows that they remove.
    Keep,
    /// They have done their work: nothing is older.
    Drop,
}

/// See the module.
pub struct Merge {
    /// What is not at its end, from old to new, with its age.
    cursors: Vec<(u64, SegmentCursor)>,
    newest: Newest,
    removals: Removals,
    /// A cursor may be at the end of what it has read.
    hungry: bool,
    address: Vec<u8>,
    at_address: Vec<AtAddress>,
}

/// What a cursor has at the address at hand.
struct AtAddress {
    cursor: usize,
    /// It removes everything there; bytes of the key.
    removes: Option<u32>,
    /// It stands at a value or a removal.
    last: bool,
}

impl Merge {
    /// Merges cursors that are given from old to new.
    pub fn new(cursors: Vec<SegmentCursor>, removals: Removals) -> Merge {
        let cursors = (0..).zip(cursors).collect();
        Merge { cursors, newest: Newest::default(), removals, hungry: true, address: Vec::new(), at_address: Vec::new() }
    }

    /// Gives the next rows, some hundred KiB of them. False: there were no more.
    pub async fn chunk(&mut self, mut give: impl FnMut(Row<'_>) + Send) -> Result<bool, StoreError> {
        let mut given = 0;
        while given < CHUNK_BYTES {
            if self.hungry {
                self.fill().await?;
            }
            if self.cursors.is_empty() {
                return Ok(given > 0);
            }
            given += self.step(&mut give)?;
        }
        Ok(true)
    }

    /// The next rows. `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<Rows>, StoreError> {
        let mut rows = Rows::default();
        while self.chunk(|row| rows.push(row)).await? {
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// Brings every cursor to a row, and forgets those that have none left.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let mut at = 0;
        while let Some((_, cursor)) = self.cursors.get_mut(at) {
            if cursor.fill().await? {
                at += 1;
            } else {
                self.cursors.remove(at);
            }
        }
        self.hungry = false;
        Ok(())
    }

    /// Gives what counts of the lowest address, and goes on behind it. Returns about how many bytes were looked at.
    fn step(&mut self, give: &mut impl FnMut(Row<'_>)) -> Result<usize, StoreError> {
        let Merge { cursors, newest, removals, hungry, address, at_address } = self;
        let lowest = cursors.iter().filter_map(|(_, cursor)| cursor.row().map(|row| row.address)).min();
        address.clear();
        address.extend_from_slice(lowest.unwrap_or_default());
        at_address.clear();
        let mut bytes = address.len();
        for (number, (_, cursor)) in cursors.iter_mut().enumerate() {
            let Some(row) = cursor.row().filter(|row| row.address == address.as_slice()) else { continue };
            let removes = (row.change == Change::RemoveAll).then_some(row.key_len);
            if removes.is_some() {
                cursor.advance()?;
                *hungry |= cursor.row().is_none();
            }
            let last = cursor.row().filter(|row| row.address == address.as_slice());
            if let Some(Change::Put(value)) = last.map(|row| row.change) {
                bytes += value.len();
            }
            at_address.push(AtAddress { cursor: number, removes, last: last.is_some() });
        }
        let rows = at_address.iter().flat_map(|at| {
            let (rank, cursor) = &cursors[at.cursor];
            let removal = at.removes.map(|key_len| Row { address: &address[..], key_len, change: Change::RemoveAll });
            let last = cursor.row().filter(|_| at.last);
            removal.into_iter().chain(last).map(|row| (*rank, row))
        });
        newest.of_address(rows, |row| {
            if *removals == Removals::Keep || matches!(row.change, Change::Put(_)) {
                give(row);
            }
        });
        for at in at_address.iter().filter(|at| at.last) {
            let (_, cursor) = &mut cursors[at.cursor];
            cursor.advance()?;
            *hungry |= cursor.row().is_none();
        }
        Ok(bytes + 16)
    }
}
