//! Rows: state as it is written. An address, and what became of it.
//!
//! An address is
//!
//! ```text
//! key group: u16, big-endian | canonical key | window: start and end, i64 big-endian with the sign flipped | part: u8 | item
//! ```
//!
//! so that bytes in order are key groups in order, and what belongs to a cell lies together. Canonical keys of one operator end
//! by themselves (none is the beginning of another), so addresses need no lengths to be told apart; a row has the length of
//! its key beside it, for those who want it back. Part 0 is the cell itself (columns, timers, holds); part n+1 is its n-th
//! set of items, and the item's key follows.
//!
//! Which row counts: of rows with one address the newest; and a row is gone if a newer [`Change::RemoveAll`] has an address that
//! its own begins with. [`newest`] applies that to any number of lists of rows, be it the writes of one epoch or the segments of
//! a checkpoint; there is no other place that does.

use pelton_core::key::{key_group, key_hash};
use pelton_core::{Instant, Window};

/// Bytes of a key group in an address.
pub const GROUP_BYTES: usize = 2;
/// Bytes of a window in an address.
pub const WINDOW_BYTES: usize = 16;
/// The part of the cell itself.
pub const CELL: u8 = 0;

/// What became of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It has this value.
    Put(&'a [u8]),
    /// It is gone.
    Remove,
    /// It is gone with everything whose address begins with it.
    RemoveAll,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// See the module.
    pub address: &'a [u8],
    /// Bytes of the key in it.
    pub key_len: u32,
    /// What became of it.
    pub change: Change<'a>,
}

impl<'a> Row<'a> {
    /// The key group.
    pub fn group(&self) -> u16 {
        self.address.first_chunk::<GROUP_BYTES>().map_or(0, |group| u16::from_be_bytes(*group))
    }

    /// The canonical key; `None`: the address is malformed.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.address.get(GROUP_BYTES..GROUP_BYTES + self.key_len as usize)
    }

    /// The window; `None`: the address is malformed.
    pub fn window(&self) -> Option<Window> {
        let at = GROUP_BYTES + self.key_len as usize;
        read_window(self.address.get(at..at + WINDOW_BYTES)?)
    }

    /// The part and what follows it; `None`: the row is about a whole cell.
    pub fn part(&self) -> Option<(u8, &'a [u8])> {
        self.address.get(GROUP_BYTES + self.key_len as usize + WINDOW_BYTES..)?.split_first().map(|(part, item)| (*part, item))
    }
}

fn read_window(bytes: &[u8]) -> Option<Window> {
    let (start, end) = bytes.split_first_chunk::<8>()?;
    let time = |bytes: [u8; 8]| Instant::from_micros_saturating((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64);
    Some(Window { start: time(*start), end: time(*end.first_chunk::<8>()?) })
}

/// Key and window in the address of a cell.
pub(crate) fn read_address(address: &[u8]) -> Option<(&[u8], Window)> {
    let (key, window) = address.get(GROUP_BYTES..)?.split_last_chunk::<WINDOW_BYTES>()?;
    Some((key, read_window(window)?))
}

/// Appends the address of a cell.
pub fn put_cell(key: &[u8], window: Window, address: &mut Vec<u8>) {
    address.extend_from_slice(&key_group(key_hash(key)).to_be_bytes());
    address.extend_from_slice(key);
    for time in [window.start, window.end] {
        address.extend_from_slice(&((time.micros() as u64) ^ (1 << 63)).to_be_bytes());
    }
}

/// Rows one after the other, in any order; later ones are newer.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    rows: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where the address begins; the value follows it.
    at: usize,
    address: u32,
    key: u32,
    /// [`REMOVE`], [`REMOVE_ALL`], or bytes of the value.
    value: u32,
}

const REMOVE: u32 = u32::MAX;
const REMOVE_ALL: u32 = u32::MAX - 1;
/// Longest value of a row, bytes.
pub const MAX_VALUE: usize = (u32::MAX - 2) as usize;

impl Rows {
    /// Appends a row. The value is at most [`MAX_VALUE`] long.
    pub fn push(&mut self, row: Row<'_>) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(row.address);
        let value = match row.change {
            Change::Put(value) => {
                assert!(value.len() <= MAX_VALUE, "a value of state is below 4 GiB");
                self.bytes.extend_from_slice(value);
                value.len() as u32
            }
            Change::Remove => REMOVE,
            Change::RemoveAll => REMOVE_ALL,
        };
        self.rows.push(Place { at, address: row.address.len() as u32, key: row.key_len, value });
    }

    /// Appends a row that puts a value, which is written by `write`.
    pub fn push_with(&mut self, address: &[u8], key_len: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(address);
        let from = self.bytes.len();
        write(&mut self.bytes);
        let value = self.bytes.len() - from;
        assert!(value <= MAX_VALUE, "a value of state is below 4 GiB");
        self.rows.push(Place { at, address: address.len() as u32, key: key_len, value: value as u32 });
    }

    /// Moves all rows of another list behind its own.
    pub fn append(&mut self, other: &mut Rows) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        let by = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.rows.extend(other.rows.drain(..).map(|place| Place { at: place.at + by, ..place }));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About how much memory they take, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<Place>()
    }

    /// Bytes of what is in them.
    pub fn used(&self) -> usize {
        self.bytes.len() + self.rows.len() * size_of::<Place>()
    }

    /// One of them.
    pub fn get(&self, number: usize) -> Row<'_> {
        let Place { at, address, key, value } = self.rows[number];
        let from = at + address as usize;
        let change = match value {
            REMOVE => Change::Remove,
            REMOVE_ALL => Change::RemoveAll,
            length => Change::Put(&self.bytes[from..from + length as usize]),
        };
        Row { address: &self.bytes[at..from], key_len: key, change }
    }

    /// In the order of appending.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|number| self.get(number))
    }

    /// Those that count, in order of address: the newest of each, and removals first. What is removed here may exist in older rows, so
    /// removals stay.
    pub fn sorted(&self) -> Rows {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        // Stable: of one address, older before newer.
        order.sort_by(|a, b| self.get(*a as usize).address.cmp(self.get(*b as usize).address));
        let mut sorted = Rows { bytes: Vec::with_capacity(self.bytes.len()), rows: Vec::with_capacity(self.rows.len()) };
        let ranked = order.into_iter().map(|number| (u64::from(number), self.get(number as usize)));
        newest(ranked, |row| sorted.push(row));
        sorted
    }
}

/// Passes on those of `rows` that count. They come in order of address, and those of one address from old to new; the number beside
/// each is greater the newer it is; rows of one sorted list have one number. A removal of everything is passed on before what was put below it since.
pub fn newest<'a>(rows: impl Iterator<Item = (u64, Row<'a>)>, mut give: impl FnMut(Row<'a>)) {
    let mut newest = Newest::default();
    let mut rows = rows.peekable();
    while let Some((_, first)) = rows.peek().copied() {
        newest.of_address(std::iter::from_fn(|| rows.next_if(|(_, row)| row.address == first.address)), &mut give);
    }
}

/// [`newest`] address by address, for rows that are not in memory all at once.
#[derive(Debug, Default)]
pub struct Newest {
    /// Removals of everything that the address at hand begins with.
    above: Vec<(u64, Vec<u8>)>,
}

impl Newest {
    /// The rows of the next address, from old to new, with their numbers.
    pub fn of_address<'a>(&mut self, rows: impl Iterator<Item = (u64, Row<'a>)>, mut give: impl FnMut(Row<'a>)) {
        let (mut removed, mut last) = (None, None);
        for (rank, row) in rows {
            if removed.is_none() && last.is_none() {
                while self.above.last().is_some_and(|(_, prefix)| !row.address.starts_with(prefix)) {
                    self.above.pop();
                }
            }
            match row.change {
                Change::RemoveAll => (removed, last) = (Some((rank, row)), None),
                _ => last = Some((rank, row)),
            }
        }
        let since = self.above.iter().map(|(rank, _)| *rank).max();
        let counts = |rank: u64| since.is_none_or(|since| rank >= since);
        if let Some((rank, row)) = removed.filter(|(rank, _)| counts(*rank)) {
            give(row);
            self.above.push((rank, row.address.to_vec()));
        }
        if let Some((_, row)) = last.filter(|(rank, _)| counts(*rank)) {
            // What was removed with everything else need not be removed again.
            if removed.is_none() || row.change != Change::Remove {
                give(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn apply(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, row: Row<'_>) {
        match row.change {
            Change::Put(value) => {
                model.insert(row.address.to_vec(), value.to_vec());
            }
            Change::Remove => {
                model.remove(row.address);
            }
            Change::RemoveAll => model.retain(|address, _| !address.starts_with(row.address)),
        }
    }

    fn change() -> impl Strategy<Value = (Vec<u8>, u8, u8)> {
        (proptest::collection::vec(0u8..2, 0..4), 0u8..4, any::<u8>())
    }

    proptest! {
        /// Writes one after the other against those that count, on top of anything older, in one list or cut into several.
        #[test]
        fn the_newest_rows_do_what_all_of_them_do(
            older in proptest::collection::vec(change(), 0..12),
            steps in proptest::collection::vec(change(), 0..30),
            cut in 0usize..30,
        ) {
            let push = |rows: &mut Rows, (address, action, value): &(Vec<u8>, u8, u8)| {
                let value = [*value];
                let change = match action { 0 | 1 => Change::Put(&value), 2 => Change::Remove, _ => Change::RemoveAll };
                rows.push(Row { address, key_len: 0, change });
            };
            let (mut before, mut all) = (Rows::default(), Rows::default());
            older.iter().for_each(|step| push(&mut before, step));
            steps.iter().for_each(|step| push(&mut all, step));
            let mut want = BTreeMap::new();
            before.iter().chain(all.iter()).for_each(|row| apply(&mut want, row));

            let mut found = BTreeMap::new();
            before.iter().for_each(|row| apply(&mut found, row));
            let sorted = all.sorted();
            prop_assert!(sorted.iter().zip(sorted.iter().skip(1)).all(|(a, b)| a.address <= b.address));
            sorted.iter().for_each(|row| apply(&mut found, row));
            prop_assert_eq!(&found, &want);

            // As segments: each sorted, then merged.
            let mut segments = vec![before];
            for part in [&steps[..cut.min(steps.len())], &steps[cut.min(steps.len())..]] {
                let mut rows = Rows::default();
                part.iter().for_each(|step| push(&mut rows, step));
                segments.push(rows);
            }
            let segments: Vec<Rows> = segments.iter().map(Rows::sorted).collect();
            let mut ranked: Vec<(u64, Row<'_>)> = Vec::new();
            for (rank, segment) in segments.iter().enumerate() {
                ranked.extend(segment.iter().map(|row| (rank as u64, row)));
            }
            ranked.sort_by(|(rank, a), (other, b)| (a.address, rank).cmp(&(b.address, other)));
            let mut merged = BTreeMap::new();
            newest(ranked.into_iter(), |row| apply(&mut merged, row));
            prop_assert_eq!(&merged, &want);
        }

        #[test]
        fn an_address_gives_back_its_key_and_window(key in proptest::collection::vec(any::<u8>(), 0..20), start in any::<i64>(), end in any::<i64>()) {
            let window = Window { start: Instant::from_micros_saturating(start), end: Instant::from_micros_saturating(end) };
            let mut address = Vec::new();
            put_cell(&key, window, &mut address);
            address.extend_from_slice(&[CELL, 7]);
            let row = Row { address: &address, key_len: key.len() as u32, change: Change::Remove };
            prop_assert_eq!((row.key(), row.window(), row.part()), (Some(&key[..]), Some(window), Some((CELL, &[7u8][..]))));
        }
    }
}
