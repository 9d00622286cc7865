//! An operator's cells. A cell is one key in one window; it has a dense slot, and its values lie in typed columns by slot.
//!
//! Why slots and columns: an aggregation finds the slots of a whole batch first ([`Cells::entries`]) and then runs down one
//! column at a time, and a checkpoint writes columns, not objects. Both are loops whose iterations do not wait for each
//! other, so that the processor overlaps their cache misses.
//!
//! A cell owns its columns, its timers, its holds and its items. Whatever changes it goes through a method here that first marks its slot
//! ([`Cells::touch`]), so that one place ([`crate::capture`]) knows what changed in an epoch, and how it was before.
//!
//! Cells may lie on disk: [`crate::evicted`]. Slots are those of cells in memory; they hold until [`Cells::make_room`].
//!
//! Invariants: a live slot belongs to one cell and is found by its key and window; a freed slot's columns hold the
//! column's initial value, and it has no timers, holds or items.

use crate::capture::{Capture, ItemChange};
use crate::columns::{CellValue, Column, ColumnId, Touched};
use crate::evicted::Evicted;
use crate::holds::Holds;
use crate::items::Items;
use crate::names::Names;
use crate::timers::{Clock, TimerTag, Timers};
use hashbrown::HashTable;
use pelton_core::key::{Keys, key_hash};
use pelton_core::{Instant, Window};

/// Dense number of a cell inside its operator; reused after the cell is freed.
pub type Slot = u32;

/// What identifies a cell inside an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellKey<'a> {
    /// Canonical key bytes.
    pub key: &'a [u8],
    /// The window.
    pub window: Window,
}

/// An entry of the index. The upper half of the hash tells other cells apart without looking at them.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    tag: u32,
    slot: Slot,
}

/// Number of a set of holds in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldsId(usize);

/// Number of a set of items in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemsId(pub(crate) usize);

/// Sets of items that an operator can have: a row tells them apart by a byte, and 0 is the cell itself.
pub const MAX_ITEMS: usize = 255;

/// By which schema cells were written last: see `pelton_core::evolution`.
#[derive(Debug)]
pub(crate) struct Eras {
    current: u32,
    /// Columns and sets that are declared later may be missing in older cells.
    pub(crate) grow: bool,
    /// By slot.
    pub(crate) of: Vec<u32>,
    /// Cells of other eras, those on disk too.
    pub(crate) old: usize,
}

/// The cells of one operator over one range of key groups.
#[derive(Debug, Default)]
pub struct Cells {
    index: HashTable<Indexed>,
    pub(crate) names: Names,
    /// By slot: the hash of the name.
    hashes: Vec<u64>,
    free: Vec<Slot>,
    pub(crate) columns: Vec<Column>,
    /// By clock.
    pub(crate) timers: [Timers; 2],
    pub(crate) holds: Vec<Holds>,
    pub(crate) items: Vec<Items>,
    pub(crate) capture: Capture,
    pub(crate) eras: Option<Eras>,
    /// Hashes of the rows of [`Cells::entries`]; kept for its memory.
    scratch: Vec<u64>,
    /// Where cells may lie on disk.
    pub(crate) evicted: Option<Box<Evicted>>,
}

impl Cells {
    /// Declares a column. All columns are declared before the first cell.
    pub fn declare<T: CellValue>(&mut self, initial: T) -> ColumnId {
        self.assert_no_cell();
        self.columns.push(T::column(initial));
        ColumnId(self.columns.len() - 1)
    }

    /// Declares a column while there are cells; in each of them it has the initial value. What was sealed has been encoded before, and no cell is on disk.
    pub fn add_column<T: CellValue>(&mut self, initial: T) -> ColumnId {
        let mut column = T::column(initial);
        self.hashes.iter().for_each(|_| column.grow());
        self.columns.push(column);
        ColumnId(self.columns.len() - 1)
    }

    /// Likewise a set of holds.
    pub fn add_holds(&mut self) -> HoldsId {
        self.holds.push(Holds::default());
        HoldsId(self.holds.len() - 1)
    }

    /// Likewise a set of items.
    pub fn add_items(&mut self) -> ItemsId {
        assert!(self.items.len() < MAX_ITEMS, "sets of items have a number of one byte");
        self.items.push(Items::default());
        ItemsId(self.items.len() - 1)
    }

    /// From here on this is the current era; the cells that are there are of the one in which they were. No cell is on disk.
    pub fn begin_era(&mut self, current: u32) {
        let Some(eras) = &mut self.eras else { return };
        if eras.current != current {
            eras.current = current;
            let old = self.slots().filter(|slot| self.is_old(*slot)).count();
            self.eras.iter_mut().for_each(|eras| eras.old = old);
        }
    }

    /// Declares a set of holds, before the first cell.
    pub fn declare_holds(&mut self) -> HoldsId {
        self.assert_no_cell();
        self.holds.push(Holds::default());
        HoldsId(self.holds.len() - 1)
    }

    /// Declares a set of items, before the first cell; there are at most [`MAX_ITEMS`].
    pub fn declare_items(&mut self) -> ItemsId {
        self.assert_no_cell();
        assert!(self.items.len() < MAX_ITEMS, "sets of items have a number of one byte");
        self.items.push(Items::default());
        ItemsId(self.items.len() - 1)
    }

    /// From here on each cell knows the era in which it was made or brought up to date ([`Cells::renew`]); before the first cell.
    pub fn keep_eras(&mut self, current: u32) {
        self.assert_no_cell();
        self.eras = Some(Eras { current, grow: false, of: Vec::new(), old: 0 });
    }

    /// The same, and cells of earlier eras may have fewer columns and sets than are declared.
    pub fn keep_growing_eras(&mut self, current: u32) {
        self.keep_eras(current);
        self.eras.iter_mut().for_each(|eras| eras.grow = true);
    }

    /// The era of a cell; 0 where none are kept.
    pub fn era(&self, slot: Slot) -> u32 {
        self.eras.as_ref().map_or(0, |eras| eras.of[slot as usize])
    }

    /// Whether a cell is of another era than the current one.
    pub fn is_old(&self, slot: Slot) -> bool {
        self.eras.as_ref().is_some_and(|eras| eras.of[slot as usize] != eras.current)
    }

    /// How many cells are.
    pub fn old(&self) -> usize {
        self.eras.as_ref().map_or(0, |eras| eras.old)
    }

    /// A cell's values are those of the current era now.
    pub fn renew(&mut self, slot: Slot) {
        self.mark(slot);
        self.no_longer_old(slot);
    }

    fn no_longer_old(&mut self, slot: Slot) {
        let is_old = self.is_old(slot);
        if let Some(eras) = &mut self.eras {
            eras.old -= usize::from(is_old);
            eras.of[slot as usize] = eras.current;
        }
    }

    fn assert_no_cell(&self) {
        assert!(self.names.len() == 0, "what a cell has is declared before the first one");
    }

    /// The slot of a cell, made if it does not exist. True: it is new.
    pub fn entry(&mut self, cell: CellKey<'_>) -> (Slot, bool) {
        let hash = cell_hash(cell);
        let (slot, new) = match self.indexed(hash, cell) {
            Some(slot) => (slot, false),
            None => match self.bring(hash, cell) {
                Some(slot) => (slot, false),
                None => (self.insert(hash, cell), true),
            },
        };
        self.used(slot);
        (slot, new)
    }

    /// Notes that a cell is used that was found by other means than its key.
    #[inline]
    pub fn used(&mut self, slot: Slot) {
        if let Some(evicted) = &mut self.evicted {
            evicted.touch(slot);
        }
    }

    /// The cells of many rows, made if they do not exist: row `i` has the key `keys[rows[i].0]` and the window
    /// `windows[rows[i].1]`. Their slots are appended to `slots`, those of them that are new to `new`, each once.
    pub fn entries(&mut self, keys: &Keys, rows: &[(u32, u32)], windows: &[Window], slots: &mut Vec<Slot>, new: &mut Vec<Slot>) {
        if self.evicted.is_some() {
            for (row, window) in rows {
                let (slot, is_new) = self.entry(CellKey { key: keys.get(*row as usize), window: windows[*window as usize] });
                slots.push(slot);
                new.extend(is_new.then_some(slot));
            }
            return;
        }
        let spreads: Vec<u64> = windows.iter().map(|window| spread(*window)).collect();
        let mut hashes = std::mem::take(&mut self.scratch);
        hashes.clear();
        hashes.extend(rows.iter().map(|(row, window)| key_hash(keys.get(*row as usize)) ^ spreads[*window as usize]));
        let first = slots.len();
        for ((row, window), hash) in rows.iter().zip(&hashes) {
            let found = self.index.find(*hash, |indexed| indexed.tag == tag(*hash));
            slots.push(match found {
                Some(indexed) => indexed.slot,
                None => {
                    let slot = self.insert(*hash, CellKey { key: keys.get(*row as usize), window: windows[*window as usize] });
                    new.push(slot);
                    slot
                }
            });
        }
        // A tag is almost always the cell's own. Asking the cells in a loop of its own overlaps their cache misses.
        for (((row, window), slot), hash) in rows.iter().zip(&mut slots[first..]).zip(&hashes) {
            let cell = CellKey { key: keys.get(*row as usize), window: windows[*window as usize] };
            if !self.names.is(*slot, cell) {
                *slot = self.indexed(*hash, cell).unwrap_or_else(|| {
                    let slot = self.insert(*hash, cell);
                    new.push(slot);
                    slot
                });
            }
        }
        self.scratch = hashes;
    }

    /// The slot of a cell, if it exists and is in memory, where all are unless they may be evicted.
    pub fn find(&self, cell: CellKey<'_>) -> Option<Slot> {
        self.indexed(cell_hash(cell), cell)
    }

    /// The slot of a cell, if it exists.
    pub(crate) fn find_or_bring(&mut self, cell: CellKey<'_>) -> Option<Slot> {
        let hash = cell_hash(cell);
        let slot = self.indexed(hash, cell).or_else(|| self.bring(hash, cell))?;
        self.used(slot);
        Some(slot)
    }

    /// The slot of a cell of the same key as `of`, if it exists.
    pub fn find_beside(&mut self, of: Slot, window: Window) -> Option<Slot> {
        let cell = CellKey { key: self.names.get(of).key, window };
        match self.evicted {
            None => self.find(cell),
            Some(_) => {
                let key = cell.key.to_vec();
                self.find_or_bring(CellKey { key: &key, window })
            }
        }
    }

    /// Whether a slot belongs to a cell.
    pub fn is_live(&self, slot: Slot) -> bool {
        (slot as usize) < self.hashes.len() && self.names.is_live(slot)
    }

    /// Which cell a slot is. The slot is live.
    pub fn key(&self, slot: Slot) -> CellKey<'_> {
        debug_assert!(self.names.is_live(slot), "the slot is live");
        self.names.get(slot)
    }

    /// A column, to read by slot.
    pub fn column<T: CellValue>(&self, column: ColumnId) -> &[T] {
        T::of(&self.columns[column.0]).expect("the column was declared with this type")
    }

    /// A column, to write at `slots` only; they are marked as changed in this epoch.
    pub fn write<T: CellValue>(&mut self, column: ColumnId, slots: &[Slot]) -> &mut [T] {
        self.touch(slots);
        T::of_mut(&mut self.columns[column.0]).expect("the column was declared with this type")
    }

    /// Marks `slots` as changed in this epoch and lends all columns, to write at those slots only.
    pub fn touch(&mut self, slots: &[Slot]) -> Touched<'_> {
        for slot in slots {
            self.mark(*slot);
        }
        Touched { columns: &mut self.columns }
    }

    #[inline]
    fn mark(&mut self, slot: Slot) {
        if self.capture.mark(slot) {
            self.encode_sealed(slot);
        }
    }

    /// The hash of a cell: the same wherever it lies.
    pub fn hash(&self, slot: Slot) -> u64 {
        self.hashes[slot as usize]
    }

    /// Sets or moves a timer of a cell.
    pub fn set_timer(&mut self, clock: Clock, slot: Slot, tag: TimerTag, at: Instant) {
        self.mark(slot);
        self.timers[clock as usize].set(slot, tag, at);
    }

    /// Forgets a timer of a cell, if it has it.
    pub fn clear_timer(&mut self, clock: Clock, slot: Slot, tag: TimerTag) {
        if self.pending_timer(clock, slot, tag).is_some() {
            self.mark(slot);
            self.timers[clock as usize].clear(slot, tag);
        }
    }

    /// When a timer of a cell fires.
    pub fn pending_timer(&self, clock: Clock, slot: Slot, tag: TimerTag) -> Option<Instant> {
        self.timers[clock as usize].pending(slot, tag)
    }

    /// Takes the timers of the earliest time that is at or before `now`, in the order of slots.
    pub fn due_timers(&mut self, clock: Clock, now: Instant) -> Option<(Instant, Vec<(Slot, TimerTag)>)> {
        if self.evicted.is_some() {
            return self.due_with_evicted(clock, now);
        }
        let (at, due) = self.timers[clock as usize].take_bucket(now)?;
        for (slot, tag) in &due {
            self.mark(*slot);
            self.timers[clock as usize].clear(*slot, *tag);
        }
        Some((at, due))
    }

    /// The earliest time at which a timer may be due: a lower bound, for waiting.
    pub fn next_timer(&self, clock: Clock) -> Option<Instant> {
        let on_disk = self.evicted.as_ref().and_then(|evicted| evicted.first(clock as usize));
        self.timers[clock as usize].next().into_iter().chain(on_disk).min()
    }

    /// Sets, moves or drops a hold of a cell.
    pub fn set_hold(&mut self, holds: HoldsId, slot: Slot, hold: Option<Instant>) {
        if self.hold(holds, slot) != hold {
            self.mark(slot);
            self.holds[holds.0].set(slot, hold);
        }
    }

    /// A hold of a cell.
    pub fn hold(&self, holds: HoldsId, slot: Slot) -> Option<Instant> {
        self.holds[holds.0].get(slot)
    }

    /// The smallest hold of any cell.
    pub fn earliest_hold(&self, holds: HoldsId) -> Option<Instant> {
        let on_disk = self.evicted.as_ref().and_then(|evicted| evicted.earliest_hold(holds.0));
        self.holds[holds.0].earliest().into_iter().chain(on_disk).min()
    }

    /// A set of items, to read.
    pub fn items(&self, items: ItemsId) -> &Items {
        &self.items[items.0]
    }

    /// Sets the value at a key; [`Instant::MAX`] never expires.
    pub fn put_item(&mut self, items: ItemsId, slot: Slot, key: &[u8], value: &[u8], expires: Instant) {
        self.log_item(items.0, slot, key, ItemChange::Put(value, expires));
        self.items[items.0].put(slot, key, value, expires);
    }

    /// Puts an item after the last one of a list.
    pub fn append_item(&mut self, items: ItemsId, slot: Slot, value: &[u8], expires: Instant) {
        let key = self.items[items.0].next_key(slot);
        self.put_item(items, slot, &key, value, expires);
    }

    /// Removes the item at a key, if it is there.
    pub fn remove_item(&mut self, items: ItemsId, slot: Slot, key: &[u8]) {
        if self.items[items.0].remove(slot, key) {
            self.log_item(items.0, slot, key, ItemChange::Remove);
        }
    }

    /// Removes all items of a cell's set.
    pub fn clear_items(&mut self, items: ItemsId, slot: Slot) {
        if !self.items[items.0].is_empty(slot) {
            self.log_item(items.0, slot, &[], ItemChange::Clear);
            self.items[items.0].clear(slot);
        }
    }

    /// Drops what has expired, and gives the earliest expiry of what is left.
    pub fn sweep_items(&mut self, items: ItemsId, slot: Slot, now: Instant) -> Option<Instant> {
        for key in self.items[items.0].expired(slot, now) {
            self.remove_item(items, slot, &key);
        }
        self.items[items.0].next_expiry(slot)
    }

    /// Drops a cell with all that it has; its slot will be reused.
    pub fn remove(&mut self, slot: Slot) {
        assert!(self.names.is_live(slot), "the slot is live");
        self.mark(slot);
        self.log_removal(slot);
        self.no_longer_old(slot);
        self.forget(slot);
        self.vacate(slot);
    }

    /// Frees the slot of a cell.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        if let Ok(entry) = self.index.find_entry(self.hashes[slot as usize], |indexed| indexed.slot == slot) {
            entry.remove();
        }
        self.columns.iter_mut().for_each(|column| column.reset(std::iter::once(slot)));
        self.timers.iter_mut().for_each(|timers| timers.clear_all(slot));
        self.holds.iter_mut().for_each(|holds| holds.set(slot, None));
        self.items.iter_mut().for_each(|items| items.clear(slot));
        self.names.free(slot);
        self.free.push(slot);
    }

    /// Live cells, those on disk too.
    pub fn len(&self) -> usize {
        self.index.len() + self.evicted.as_ref().map_or(0, |evicted| evicted.cells)
    }

    /// No live cell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live slots, in no order: of the cells that are in memory.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.index.iter().map(|indexed| indexed.slot)
    }

    /// About how much memory the cells take, bytes.
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::bytes).sum();
        // The index has a byte and an entry for each place, and an eighth of the places free at least.
        let index = self.index.capacity() * 8 / 7 * (1 + size_of::<Indexed>());
        let timers: usize = self.timers.iter().map(Timers::bytes).sum();
        let holds: usize = self.holds.iter().map(Holds::bytes).sum();
        let items: usize = self.items.iter().map(Items::bytes).sum();
        let slots = self.names.bytes() + self.names.len() * size_of::<u64>();
        let eras = self.eras.as_ref().map_or(0, |eras| eras.of.len() * size_of::<u32>());
        columns + timers + holds + items + index + slots + eras + self.capture.bytes()
    }

    /// Bytes of a slot, whatever its columns.
    pub(crate) const SLOT_BYTES: usize = 2 * size_of::<u64>() + 2 * size_of::<Indexed>() + Names::SLOT_BYTES;

    /// Bytes that a cell takes besides its slot.
    pub(crate) fn bytes_elsewhere(&self, slot: Slot) -> usize {
        let columns: usize = self.columns.iter().map(|column| column.bytes_elsewhere(slot)).sum();
        let items: usize = self.items.iter().map(|items| items.bytes_of(slot)).sum();
        columns + items + self.names.bytes_elsewhere(slot)
    }

    pub(crate) fn indexed(&self, hash: u64, cell: CellKey<'_>) -> Option<Slot> {
        let same = |indexed: &Indexed| indexed.tag == tag(hash) && self.names.is(indexed.slot, cell);
        self.index.find(hash, same).map(|indexed| indexed.slot)
    }

    pub(crate) fn insert(&mut self, hash: u64, cell: CellKey<'_>) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.hashes[slot as usize] = hash;
                // Who had it may be sealed; it is not live, so that nothing is encoded now.
                self.mark(slot);
                self.capture.begin(slot);
                slot
            }
            None => {
                self.hashes.push(hash);
                self.capture.grow();
                self.columns.iter_mut().for_each(Column::grow);
                (self.hashes.len() - 1) as Slot
            }
        };
        if let Some(eras) = &mut self.eras {
            eras.of.resize(self.hashes.len(), eras.current);
            eras.of[slot as usize] = eras.current;
        }
        self.names.set(slot, cell);
        let hashes = &self.hashes;
        self.index.insert_unique(hash, Indexed { tag: tag(hash), slot }, |indexed| hashes[indexed.slot as usize]);
        slot
    }
}

/// The hash of a cell's name.
pub fn cell_hash(cell: CellKey<'_>) -> u64 {
    key_hash(cell.key) ^ spread(cell.window)
}

/// What a window adds to the hash of a key. Windows of one key differ in their start; a multiplication spreads it over the
/// high bits that the index uses.
pub(crate) fn spread(window: Window) -> u64 {
    (window.start.micros() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (window.end.micros() as u64).rotate_left(32)
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_core::Instant;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn window(number: i64) -> Window {
        Window { start: Instant::from_micros_saturating(number * 10), end: Instant::from_micros_saturating(number * 10 + 10) }
    }

    proptest! {
        /// Sums by (key, window) with removals, against a plain map.
        #[test]
        fn cells_do_what_a_map_does(steps in proptest::collection::vec((0u8..5, 0i64..4, 0u8..10, -9i64..9), 0..200)) {
            let mut cells = Cells::default();
            let sum = cells.declare(0i64);
            let mut model: HashMap<(u8, i64), i64> = HashMap::new();
            for (key, number, action, value) in steps {
                // Short keys and long ones.
                let bytes = vec![key; 1 + 7 * key as usize];
                let cell = CellKey { key: &bytes, window: window(number) };
                match action {
                    0 => if let Some(slot) = cells.find(cell) {
                        cells.remove(slot);
                        model.remove(&(key, number));
                    },
                    _ => {
                        let (slot, new) = cells.entry(cell);
                        prop_assert_eq!(new, !model.contains_key(&(key, number)));
                        cells.write::<i64>(sum, &[slot])[slot as usize] += value;
                        *model.entry((key, number)).or_default() += value;
                    }
                }
                prop_assert_eq!(cells.len(), model.len());
            }
            for slot in cells.slots() {
                let cell = cells.key(slot);
                prop_assert_eq!(model.get(&(cell.key[0], cell.window.start.micros() / 10)), Some(&cells.column::<i64>(sum)[slot as usize]));
            }
        }

        /// Many rows at once against one at a time, and against slots that others freed.
        #[test]
        fn entries_are_those_of_single_rows(batches in proptest::collection::vec(proptest::collection::vec((0u8..20, 0u32..3), 0..40), 0..6)) {
            let (mut many, mut single) = (Cells::default(), Cells::default());
            let windows: Vec<Window> = (0..3).map(window).collect();
            for batch in batches {
                let mut keys = Keys { bytes: vec![], offsets: vec![0] };
                for (key, _) in &batch {
                    keys.bytes.resize(keys.bytes.len() + 1 + *key as usize, *key);
                    keys.offsets.push(keys.bytes.len() as u32);
                }
                let rows: Vec<(u32, u32)> = batch.iter().enumerate().map(|(row, (_, window))| (row as u32, *window)).collect();
                let (mut slots, mut new) = (vec![], vec![]);
                many.entries(&keys, &rows, &windows, &mut slots, &mut new);
                let mut expected_new = vec![];
                for ((row, window), slot) in rows.iter().zip(&slots) {
                    let cell = CellKey { key: keys.get(*row as usize), window: windows[*window as usize] };
                    let (expected, is_new) = single.entry(cell);
                    prop_assert_eq!(*slot, expected);
                    prop_assert_eq!(many.key(*slot), cell);
                    prop_assert_eq!(many.find(cell), Some(*slot));
                    if is_new {
                        expected_new.push(expected);
                    }
                }
                prop_assert_eq!(new, expected_new);
                if let Some(slot) = slots.first() {
                    many.remove(*slot);
                    single.remove(*slot);
                }
            }
        }
    }

    /// Long keys that come and go do not fill the arena.
    #[test]
    fn removed_keys_give_their_memory_back() {
        let mut cells = Cells::default();
        let mut most = 0;
        for round in 0..200u32 {
            let slots: Vec<Slot> = (0..100u32)
                .map(|number| {
                    let key: Vec<u8> = [round.to_le_bytes(), number.to_le_bytes()].concat().repeat(20);
                    let (slot, _) = cells.entry(CellKey { key: &key, window: window(0) });
                    assert_eq!(cells.key(slot).key, key);
                    slot
                })
                .collect();
            most = most.max(cells.bytes());
            slots.into_iter().for_each(|slot| cells.remove(slot));
        }
        assert!(most < 400_000, "200 rounds of 16 kB keep {most} bytes");
    }
}
