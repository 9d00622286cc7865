//! An operator's cells. A cell is one key in one window; it has a dense slot, and its values lie in typed columns by slot.
//!
//! Why slots and columns: an aggregation finds the slots of a whole batch first ([`Cells::entries`]) and then runs down one
//! column at a time, and a checkpoint writes columns, not objects. Both are loops whose iterations do not wait for each
//! other, so that the processor overlaps their cache misses.
//!
//! Epochs. [`Cells::seal`] ends the current epoch in O(1). Every write names its slots ([`Cells::touch`]); the first write
//! to a slot in an epoch puts it on the epoch's dirty list, which is what a checkpoint has to persist. (Durability saves the
//! old value at that same place.)
//!
//! Invariants: a live slot belongs to one cell and is found by its key and window; a freed slot's columns hold the
//! column's initial value; a slot is on the dirty list of an epoch at most once.

use crate::columns::{CellValue, Column, ColumnId, Touched};
use crate::names::Names;
use hashbrown::HashTable;
use pelton_core::Window;
use pelton_core::key::{Keys, key_hash};

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

/// The cells of one operator over one range of key groups.
#[derive(Debug)]
pub struct Cells {
    index: HashTable<Indexed>,
    names: Names,
    /// By slot: the hash of the name.
    hashes: Vec<u64>,
    /// By slot: the epoch of the last write; 0 = never. One epoch a second would last 136 years.
    written: Vec<u32>,
    free: Vec<Slot>,
    columns: Vec<Column>,
    epoch: u32,
    dirty: Vec<Slot>,
    /// Hashes of the rows of [`Cells::entries`]; kept for its memory.
    scratch: Vec<u64>,
}

impl Default for Cells {
    fn default() -> Self {
        Cells {
            index: HashTable::new(),
            names: Names::default(),
            hashes: vec![],
            written: vec![],
            free: vec![],
            columns: vec![],
            epoch: 1,
            dirty: vec![],
            scratch: vec![],
        }
    }
}

impl Cells {
    /// Declares a column. All columns are declared before the first cell.
    pub fn declare<T: CellValue>(&mut self, initial: T) -> ColumnId {
        assert!(self.names.len() == 0, "columns are declared before cells");
        self.columns.push(T::column(initial));
        ColumnId(self.columns.len() - 1)
    }

    /// The slot of a cell, made if it does not exist. True: it is new.
    pub fn entry(&mut self, cell: CellKey<'_>) -> (Slot, bool) {
        let hash = key_hash(cell.key) ^ spread(cell.window);
        match self.indexed(hash, cell) {
            Some(slot) => (slot, false),
            None => (self.insert(hash, cell), true),
        }
    }

    /// The cells of many rows, made if they do not exist: row `i` has the key `keys[rows[i].0]` and the window
    /// `windows[rows[i].1]`. Their slots are appended to `slots`, those of them that are new to `new`, each once.
    pub fn entries(&mut self, keys: &Keys, rows: &[(u32, u32)], windows: &[Window], slots: &mut Vec<Slot>, new: &mut Vec<Slot>) {
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

    /// The slot of a cell, if it exists.
    pub fn find(&self, cell: CellKey<'_>) -> Option<Slot> {
        self.indexed(key_hash(cell.key) ^ spread(cell.window), cell)
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
            let written = &mut self.written[*slot as usize];
            if *written != self.epoch {
                *written = self.epoch;
                self.dirty.push(*slot);
            }
        }
        Touched { columns: &mut self.columns }
    }

    /// Drops a cell; its slot will be reused.
    pub fn remove(&mut self, slot: Slot) {
        assert!(self.names.is_live(slot), "the slot is live");
        if let Ok(entry) = self.index.find_entry(self.hashes[slot as usize], |indexed| indexed.slot == slot) {
            entry.remove();
        }
        self.touch(&[slot]);
        self.columns.iter_mut().for_each(|column| column.reset(std::iter::once(slot)));
        self.names.free(slot);
        self.free.push(slot);
    }

    /// Ends the epoch and gives what changed in it: slots that were written or freed, each once.
    pub fn seal(&mut self) -> (u64, Vec<Slot>) {
        self.epoch += 1;
        (u64::from(self.epoch - 1), std::mem::take(&mut self.dirty))
    }

    /// Live cells.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// No live cell.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Live slots, in no order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.index.iter().map(|indexed| indexed.slot)
    }

    /// About how much memory the cells take, bytes.
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::bytes).sum();
        // The index has a byte and an entry for each place, and an eighth of the places free at least.
        let index = self.index.capacity() * 8 / 7 * (1 + size_of::<Indexed>());
        columns + index + self.names.bytes() + self.names.len() * (size_of::<u64>() + size_of::<u32>())
    }

    fn indexed(&self, hash: u64, cell: CellKey<'_>) -> Option<Slot> {
        let same = |indexed: &Indexed| indexed.tag == tag(hash) && self.names.is(indexed.slot, cell);
        self.index.find(hash, same).map(|indexed| indexed.slot)
    }

    fn insert(&mut self, hash: u64, cell: CellKey<'_>) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.hashes[slot as usize] = hash;
                slot
            }
            None => {
                self.hashes.push(hash);
                self.written.push(0);
                self.columns.iter_mut().for_each(Column::grow);
                (self.hashes.len() - 1) as Slot
            }
        };
        self.names.set(slot, cell);
        let hashes = &self.hashes;
        self.index.insert_unique(hash, Indexed { tag: tag(hash), slot }, |indexed| hashes[indexed.slot as usize]);
        slot
    }
}

/// What a window adds to the hash of a key. Windows of one key differ in their start; a multiplication spreads it over the
/// high bits that the index uses.
fn spread(window: Window) -> u64 {
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
    use std::collections::{BTreeSet, HashMap};

    fn window(number: i64) -> Window {
        Window { start: Instant::from_micros_saturating(number * 10), end: Instant::from_micros_saturating(number * 10 + 10) }
    }

    proptest! {
        /// Sums by (key, window) with removals and seals, against a plain map.
        #[test]
        fn cells_do_what_a_map_does(steps in proptest::collection::vec((0u8..5, 0i64..4, 0u8..10, -9i64..9), 0..200)) {
            let mut cells = Cells::default();
            let sum = cells.declare(0i64);
            let mut model: HashMap<(u8, i64), i64> = HashMap::new();
            let mut changed = BTreeSet::new();
            for (key, number, action, value) in steps {
                // Short keys and long ones.
                let bytes = vec![key; 1 + 7 * key as usize];
                let cell = CellKey { key: &bytes, window: window(number) };
                match action {
                    0 => if let Some(slot) = cells.find(cell) {
                        cells.remove(slot);
                        changed.insert(slot);
                        model.remove(&(key, number));
                    },
                    1 => {
                        let (_, dirty) = cells.seal();
                        prop_assert_eq!(dirty.into_iter().collect::<BTreeSet<_>>(), std::mem::take(&mut changed));
                    }
                    _ => {
                        let (slot, new) = cells.entry(cell);
                        prop_assert_eq!(new, !model.contains_key(&(key, number)));
                        cells.write::<i64>(sum, &[slot])[slot as usize] += value;
                        changed.insert(slot);
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
