//! Cells into rows and back: what a checkpoint takes, and what a restart gives.
//!
//! Epochs. A cell that is written for the first time in an epoch comes onto its dirty list. [`Cells::seal`] ends the epoch in O(1) by taking
//! the list away; [`Cells::persist`] then encodes its cells bit by bit, between other work. A cell that is written before its turn is encoded
//! first, as it was: each slot carries the epoch of its last write, so it is known whether it was sealed and has not been encoded.
//!
//! What comes out are rows (see [`crate::rows`]): of a live cell its value ([`crate::layout`]); of an item its expiry (i64, little-endian,
//! microseconds) and its value; and removals. Items and removals are logged when they happen, and stand before the cells' values, so that
//! of a cell that went and came back what counts is what came back.
//!
//! Without [`Cells::record`] nothing is kept for a checkpoint: a run without any must not collect changes for nobody.
//!
//! Invariants: rows of the epochs up to N, merged with [`crate::rows::newest`], are the state at the N-th seal; a slot is on the dirty list
//! of an epoch at most once; one epoch is persisted before the next is sealed.

use crate::cells::{CellKey, Cells, ItemsId, Slot};
use crate::layout::{CellState, Layout, StateError, encode};
use crate::rows::{CELL, Change, Row, Rows, put_cell};
use crate::timers::Clock;
use pelton_core::Instant;

/// `written` of a slot that was not written since it was encoded, and the epoch of cells that do not record.
const CLEAN: u32 = 0;
/// `sealing` when nothing is.
const NOTHING: u32 = u32::MAX;

/// What cells keep for checkpoints.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The current epoch; [`CLEAN`]: nothing is recorded. One epoch a second would last 136 years.
    epoch: u32,
    /// By slot: the epoch of the last write.
    written: Vec<u32>,
    /// By slot: the epoch in which its cell was made.
    born: Vec<u32>,
    /// Slots that were written or freed in this epoch.
    dirty: Vec<Slot>,
    /// Items and removals of this epoch.
    log: Rows,
    /// The epoch that is being persisted.
    sealing: u32,
    /// Its dirty slots, and how many of them have had their turn.
    sealed: Vec<Slot>,
    next: usize,
    /// Its rows that nobody has taken yet.
    rows: Rows,
    /// Kept for its memory.
    scratch: Vec<u8>,
}

impl Default for Capture {
    fn default() -> Self {
        Capture {
            epoch: CLEAN,
            written: vec![],
            born: vec![],
            dirty: vec![],
            log: Rows::default(),
            sealing: NOTHING,
            sealed: vec![],
            next: 0,
            rows: Rows::default(),
            scratch: vec![],
        }
    }
}

impl Capture {
    /// Whether a slot is to be marked, and then whether it is to be encoded first.
    #[inline]
    pub(crate) fn mark(&mut self, slot: Slot) -> bool {
        let written = &mut self.written[slot as usize];
        if *written == self.epoch {
            return false;
        }
        let before = std::mem::replace(written, self.epoch);
        self.dirty.push(slot);
        before == self.sealing
    }

    /// Room for one more slot, which has just been made.
    #[inline]
    pub(crate) fn grow(&mut self) {
        if self.epoch != CLEAN {
            self.dirty.push(self.written.len() as Slot);
        }
        self.written.push(self.epoch);
        self.born.push(self.epoch);
    }

    /// A slot that has been marked is a new cell.
    pub(crate) fn begin(&mut self, slot: Slot) {
        self.born[slot as usize] = self.epoch;
    }

    pub(crate) fn bytes(&self) -> usize {
        let slots = self.written.len() + self.born.len() + self.dirty.capacity() + self.sealed.capacity();
        slots * size_of::<u32>() + self.log.bytes() + self.rows.bytes()
    }
}

impl Cells {
    /// From here on changes are kept for [`Cells::seal`]. To be called before the first cell, or right after [`Cells::restore`].
    pub fn record(&mut self) {
        self.capture.epoch = self.capture.epoch.max(CLEAN + 1);
    }

    /// Ends the epoch: what changed in it waits for [`Cells::persist`], which has to be done with the epoch before.
    pub fn seal(&mut self) {
        let capture = &mut self.capture;
        assert!(capture.sealing == NOTHING, "an epoch is persisted before the next one is sealed");
        if capture.epoch == CLEAN {
            return;
        }
        capture.sealing = capture.epoch;
        capture.epoch += 1;
        std::mem::swap(&mut capture.dirty, &mut capture.sealed);
        capture.rows.append(&mut capture.log);
    }

    /// Bytes of rows that wait for [`Cells::persist`].
    pub fn captured(&self) -> usize {
        self.capture.log.used() + self.capture.rows.used()
    }

    /// Encodes up to so many cells of the sealed epoch, and moves all rows that are ready to `out`. True: those were the last.
    pub fn persist(&mut self, budget: usize, out: &mut Rows) -> bool {
        for _ in 0..budget {
            let Some(slot) = self.capture.sealed.get(self.capture.next).copied() else { break };
            self.capture.next += 1;
            let written = &mut self.capture.written[slot as usize];
            // Else it was written again since, and encoded before that.
            if *written == self.capture.sealing {
                *written = CLEAN;
                self.encode_sealed(slot);
            }
        }
        out.append(&mut self.capture.rows);
        let done = self.capture.next == self.capture.sealed.len();
        if done {
            self.capture.sealing = NOTHING;
            self.capture.sealed.clear();
            self.capture.next = 0;
        }
        done
    }

    /// Puts the row of a cell to those of the sealed epoch, unless it was gone by then.
    #[cold]
    pub(crate) fn encode_sealed(&mut self, slot: Slot) {
        if self.names.is_live(slot) {
            let mut rows = std::mem::take(&mut self.capture.rows);
            self.push_row(slot, &mut rows);
            self.capture.rows = rows;
        }
    }

    fn push_row(&mut self, slot: Slot, rows: &mut Rows) {
        let mut address = std::mem::take(&mut self.capture.scratch);
        address.clear();
        let key_len = self.put_address(slot, &mut address);
        address.push(CELL);
        rows.push_with(&address, key_len, |value| self.encode_cell(slot, value));
        self.capture.scratch = address;
    }

    /// Appends the rows of one cell as a checkpoint would have them now; for [`Cells::adopt`].
    pub fn copy(&mut self, slot: Slot, rows: &mut Rows) {
        self.push_row(slot, rows);
        let mut address = Vec::new();
        for (number, items) in self.items.iter().enumerate() {
            for (key, value, expires) in items.after(slot, None) {
                address.clear();
                let key_len = self.put_address(slot, &mut address);
                address.push(number as u8 + 1);
                address.extend_from_slice(key);
                rows.push_with(&address, key_len, |bytes| put_item(expires, value, bytes));
            }
        }
    }

    /// Takes a cell over from other cells of the same operator, of this era or an earlier one: as if all of it were written now. It is not there.
    pub fn adopt(&mut self, rows: &Rows) -> Result<Option<Slot>, StateError> {
        let (layout, mut cell, mut adopted) = (self.layout(), CellState::default(), None);
        for row in rows.iter() {
            let (Change::Put(value), Some(key), Some(window), Some((part, item))) = (row.change, row.key(), row.window(), row.part())
            else {
                return Err(StateError::Damaged("a row without an address"));
            };
            match (part, adopted) {
                (CELL, _) => {
                    layout.decode(value, &mut cell)?;
                    let (slot, _) = self.entry(CellKey { key, window });
                    self.fill(slot, &mut cell);
                    let is_old = self.is_old(slot);
                    self.eras.iter_mut().for_each(|eras| eras.old += usize::from(is_old));
                    adopted = Some(slot);
                }
                (_, Some(slot)) => {
                    let (expires, value) = value.split_first_chunk::<8>().ok_or(StateError::Damaged("an item is cut off"))?;
                    let expires = Instant::from_micros_saturating(i64::from_le_bytes(*expires));
                    self.put_item(ItemsId(part as usize - 1), slot, item, value, expires);
                }
                (_, None) => return Err(StateError::Damaged("an item without a cell")),
            }
        }
        Ok(adopted)
    }

    /// Appends the bytes of a cell.
    pub(crate) fn encode_cell(&self, slot: Slot, out: &mut Vec<u8>) {
        let columns = self.columns.iter().map(|column| (column, slot as usize));
        let of = |clock: Clock| self.timers[clock as usize].pending_of(slot).map(move |(tag, at)| (clock, tag, at));
        let timers = Clock::ALL.into_iter().flat_map(of);
        let holds = self.holds.iter().enumerate().filter_map(|(number, holds)| Some((number, holds.get(slot)?)));
        let era = self.eras.as_ref().map(|eras| eras.of[slot as usize]);
        encode(era, columns, timers, holds, out);
    }

    /// Notes what a cell is before it leaves memory ([`crate::evicted`]): for the sealed epoch if it has not had its turn, for the current one if it
    /// has changed in it; what it becomes when it is back counts more than this.
    pub(crate) fn capture_leaving(&mut self, slot: Slot) {
        let written = std::mem::replace(&mut self.capture.written[slot as usize], CLEAN);
        if written == self.capture.sealing {
            self.encode_sealed(slot);
        } else if written != CLEAN && written == self.capture.epoch {
            let mut log = std::mem::take(&mut self.capture.log);
            self.push_row(slot, &mut log);
            self.capture.log = log;
        }
    }

    /// A new cell of which nothing is to be captured: it is as it was.
    pub(crate) fn insert_clean(&mut self, hash: u64, cell: CellKey<'_>) -> Slot {
        let epoch = std::mem::replace(&mut self.capture.epoch, CLEAN);
        let slot = self.insert(hash, cell);
        self.capture.epoch = epoch;
        slot
    }

    /// Gives a new cell what was read.
    pub(crate) fn fill(&mut self, slot: Slot, cell: &mut CellState) {
        if let Some(eras) = &mut self.eras {
            eras.of[slot as usize] = cell.era.unwrap_or(0);
        }
        self.columns.iter_mut().zip(cell.values.drain(..)).for_each(|(column, value)| column.set(slot, value));
        cell.timers.iter().for_each(|(clock, tag, at)| self.timers[*clock as usize].set(slot, *tag, *at));
        cell.holds.iter().for_each(|(number, at)| self.holds[*number].set(slot, Some(*at)));
    }

    /// Notes that a cell goes. It has been marked, and has its items.
    pub(crate) fn log_removal(&mut self, slot: Slot) {
        let older = self.capture.born[slot as usize] != self.capture.epoch;
        // A cell of this epoch has left nothing but items.
        if self.capture.epoch != CLEAN && (older || self.items.iter().any(|items| !items.is_empty(slot))) {
            let mut address = std::mem::take(&mut self.capture.scratch);
            address.clear();
            let key_len = self.put_address(slot, &mut address);
            self.capture.log.push(Row { address: &address, key_len, change: Change::RemoveAll });
            self.capture.scratch = address;
        }
    }

    /// Notes what became of an item, or with [`Change::RemoveAll`] of all items of a set. A value is put together from two parts.
    pub(crate) fn log_item(&mut self, number: usize, slot: Slot, key: &[u8], change: ItemChange<'_>) {
        if self.capture.epoch == CLEAN {
            return;
        }
        let mut address = std::mem::take(&mut self.capture.scratch);
        address.clear();
        let key_len = self.put_address(slot, &mut address);
        address.push(number as u8 + 1);
        address.extend_from_slice(key);
        let log = &mut self.capture.log;
        match change {
            ItemChange::Put(value, expires) => log.push_with(&address, key_len, |bytes| put_item(expires, value, bytes)),
            ItemChange::Remove => log.push(Row { address: &address, key_len, change: Change::Remove }),
            ItemChange::Clear => log.push(Row { address: &address, key_len, change: Change::RemoveAll }),
        }
        self.capture.scratch = address;
    }

    fn put_address(&self, slot: Slot, address: &mut Vec<u8>) -> u32 {
        let CellKey { key, window } = self.names.get(slot);
        put_cell(key, window, address);
        key.len() as u32
    }

    /// What its cells are made of.
    pub fn layout(&self) -> Layout {
        Layout { columns: self.columns.iter().map(|column| column.kind()).collect(), holds: self.holds.len(), items: self.items.len() }
    }

    /// Whether rows that were written by cells of a layout ([`Layout`]'s words) can be restored here.
    pub fn check_layout(&self, found: &str) -> Result<(), StateError> {
        let layout = self.layout();
        let expected = layout.to_string();
        let grows =
            || self.eras.as_ref().is_some_and(|eras| eras.grow) && Layout::parse(found).is_some_and(|found| found.grows_to(&layout));
        match expected == found || grows() {
            true => Ok(()),
            false => Err(StateError::OtherLayout { expected, found: found.into() }),
        }
    }

    /// Adds the cells of rows that are in order of address and of which no two have the same one; removals among them mean nothing. Nothing of
    /// it is recorded. May be called again with the rows that follow.
    pub fn restore<'a>(&mut self, rows: impl Iterator<Item = Row<'a>>) -> Result<(), StateError> {
        let epoch = std::mem::replace(&mut self.capture.epoch, CLEAN);
        let layout = self.layout();
        let mut cell = CellState::default();
        let mut restored = Ok(());
        for row in rows {
            restored = self.restore_row(&layout, row, &mut cell);
            if restored.is_err() {
                break;
            }
        }
        self.capture.epoch = epoch;
        restored
    }

    fn restore_row(&mut self, layout: &Layout, row: Row<'_>, cell: &mut CellState) -> Result<(), StateError> {
        let Change::Put(value) = row.change else { return Ok(()) };
        let (Some(key), Some(window), Some((part, item))) = (row.key(), row.window(), row.part()) else {
            return Err(StateError::Damaged("a row without an address"));
        };
        let name = CellKey { key, window };
        if part == CELL {
            layout.decode(value, cell)?;
            let (slot, new) = self.entry(name);
            if !new {
                return Err(StateError::Damaged("a cell that is there twice"));
            }
            self.fill(slot, cell);
            let is_old = self.is_old(slot);
            if let Some(eras) = &mut self.eras {
                eras.old += usize::from(is_old);
            }
            self.note_arrival(slot);
            return Ok(());
        }
        let slot = self.find_or_bring(name).ok_or(StateError::Damaged("an item without a cell"))?;
        let items = self.items.get_mut(part as usize - 1).ok_or(StateError::Damaged("items that nobody declared"))?;
        let (expires, value) = value.split_first_chunk::<8>().ok_or(StateError::Damaged("an item is cut off"))?;
        let expires = Instant::from_micros(i64::from_le_bytes(*expires)).map_err(|_| StateError::Damaged("a time out of range"))?;
        items.put(slot, item, value, expires);
        Ok(())
    }
}

fn put_item(expires: Instant, value: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&expires.micros().to_le_bytes());
    bytes.extend_from_slice(value);
}

/// What became of an item.
pub(crate) enum ItemChange<'a> {
    /// It has this value and expires then.
    Put(&'a [u8], Instant),
    /// It is gone.
    Remove,
    /// All of its set are gone; it has no key.
    Clear,
}

#[cfg(test)]
mod tests;
