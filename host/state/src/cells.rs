//! An operator's cells. A cell is one key in one window; it has a dense slot, and its values lie in typed columns by slot.
//!
//! Why slots and columns: an aggregation finds the slots of a whole batch first and then runs down one column at a time,
//! and a checkpoint writes columns, not objects.
//!
//! Epochs. [`Cells::seal`] ends the current epoch in O(1). Every write names its slots ([`Cells::write`]); the first write
//! to a slot in an epoch puts it on the epoch's dirty list, which is what a checkpoint has to persist. (Durability saves the
//! old value at that same place.)
//!
//! Invariants: a live slot belongs to one cell and is found by its key and window; a freed slot's columns hold the
//! column's initial value; a slot is on the dirty list of an epoch at most once.

use hashbrown::HashTable;
use pelton_core::{Window, key};

/// Dense number of a cell inside its operator; reused after the cell is freed.
pub type Slot = u32;

/// Number of a column in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnId(usize);

/// What identifies a cell inside an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellKey<'a> {
    /// Canonical key bytes.
    pub key: &'a [u8],
    /// The window.
    pub window: Window,
}

/// A value that a column can hold: plain numbers, and bytes for the rest.
pub trait CellValue: Clone + Default + Send + 'static {
    /// The column's values, if it is of this type.
    fn of(column: &Column) -> Option<&Vec<Self>>;
    /// The same, to write.
    fn of_mut(column: &mut Column) -> Option<&mut Vec<Self>>;
    /// A column of this type.
    fn column(initial: Self) -> Column;
}

/// The values of one column, by slot.
#[derive(Debug)]
pub enum Column {
    /// Signed numbers and their initial value.
    I64(Vec<i64>, i64),
    /// Decimals, unscaled, and their initial value.
    I128(Vec<i128>, i128),
    /// Floating-point numbers and their initial value.
    F64(Vec<f64>, f64),
    /// Anything else, encoded by its operator; starts empty.
    Bytes(Vec<Vec<u8>>, Vec<u8>),
}

macro_rules! cell_value {
    ($type:ty, $variant:ident) => {
        impl CellValue for $type {
            fn of(column: &Column) -> Option<&Vec<Self>> {
                match column {
                    Column::$variant(values, _) => Some(values),
                    _ => None,
                }
            }
            fn of_mut(column: &mut Column) -> Option<&mut Vec<Self>> {
                match column {
                    Column::$variant(values, _) => Some(values),
                    _ => None,
                }
            }
            fn column(initial: Self) -> Column {
                Column::$variant(Vec::new(), initial)
            }
        }
    };
}
cell_value!(i64, I64);
cell_value!(i128, I128);
cell_value!(f64, F64);
cell_value!(Vec<u8>, Bytes);

#[derive(Debug)]
struct Cell {
    hash: u64,
    key: Box<[u8]>,
    window: Window,
    /// Epoch of the last write; 0 = never.
    written: u64,
}

/// The cells of one operator over one range of key groups.
#[derive(Debug)]
pub struct Cells {
    index: HashTable<Slot>,
    cells: Vec<Option<Cell>>,
    free: Vec<Slot>,
    columns: Vec<Column>,
    epoch: u64,
    dirty: Vec<Slot>,
    key_bytes: usize,
}

impl Default for Cells {
    fn default() -> Self {
        Cells { index: HashTable::new(), cells: vec![], free: vec![], columns: vec![], epoch: 1, dirty: vec![], key_bytes: 0 }
    }
}

/// The columns of cells that are marked as changed: see [`Cells::touch`].
#[derive(Debug)]
pub struct Touched<'a> {
    columns: &'a mut [Column],
}

impl Touched<'_> {
    /// A column, to write at the touched slots.
    pub fn column<T: CellValue>(&mut self, column: ColumnId) -> &mut [T] {
        T::of_mut(&mut self.columns[column.0]).expect("the column was declared with this type")
    }

    /// Several columns of one type at once; they are different ones.
    pub fn columns<T: CellValue, const N: usize>(&mut self, columns: [ColumnId; N]) -> [&mut [T]; N] {
        let columns = self.columns.get_disjoint_mut(columns.map(|column| column.0)).expect("the columns are different ones");
        columns.map(|column| T::of_mut(column).expect("the column was declared with this type").as_mut_slice())
    }

    /// Gives a column its initial value at touched slots.
    pub fn reset(&mut self, column: ColumnId, slots: &[Slot]) {
        let slots = slots.iter().map(|slot| *slot as usize);
        match &mut self.columns[column.0] {
            Column::I64(values, initial) => slots.for_each(|slot| values[slot] = *initial),
            Column::I128(values, initial) => slots.for_each(|slot| values[slot] = *initial),
            Column::F64(values, initial) => slots.for_each(|slot| values[slot] = *initial),
            Column::Bytes(values, initial) => slots.for_each(|slot| values[slot].clone_from(initial)),
        }
    }
}

/// A cell's own bytes besides its key and its columns: an estimate for the memory budget.
const CELL_OVERHEAD_BYTES: usize = 96;

impl Cells {
    /// Declares a column. All columns are declared before the first cell.
    pub fn declare<T: CellValue>(&mut self, initial: T) -> ColumnId {
        assert!(self.cells.is_empty(), "columns are declared before cells");
        self.columns.push(T::column(initial));
        ColumnId(self.columns.len() - 1)
    }

    /// The slot of a cell, made if it does not exist. True: it is new.
    pub fn entry(&mut self, cell: CellKey<'_>) -> (Slot, bool) {
        let hash = hash(cell);
        let cells = &self.cells;
        if let Some(slot) = self.index.find(hash, |slot| same(&cells[*slot as usize], hash, cell)) {
            return (*slot, false);
        }
        let made = Cell { hash, key: cell.key.into(), window: cell.window, written: 0 };
        self.key_bytes += made.key.len();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.cells[slot as usize] = Some(made);
                slot
            }
            None => {
                self.cells.push(Some(made));
                for column in &mut self.columns {
                    match column {
                        Column::I64(values, initial) => values.push(*initial),
                        Column::I128(values, initial) => values.push(*initial),
                        Column::F64(values, initial) => values.push(*initial),
                        Column::Bytes(values, initial) => values.push(initial.clone()),
                    }
                }
                (self.cells.len() - 1) as Slot
            }
        };
        let cells = &self.cells;
        self.index.insert_unique(hash, slot, |slot| cells[*slot as usize].as_ref().map_or(0, |cell| cell.hash));
        (slot, true)
    }

    /// The slot of a cell, if it exists.
    pub fn find(&self, cell: CellKey<'_>) -> Option<Slot> {
        let hash = hash(cell);
        self.index.find(hash, |slot| same(&self.cells[*slot as usize], hash, cell)).copied()
    }

    /// Which cell a slot is. The slot is live.
    pub fn key(&self, slot: Slot) -> CellKey<'_> {
        let cell = self.cells[slot as usize].as_ref().expect("the slot is live");
        CellKey { key: &cell.key, window: cell.window }
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
            let cell = self.cells[*slot as usize].as_mut().expect("the slot is live");
            if cell.written != self.epoch {
                cell.written = self.epoch;
                self.dirty.push(*slot);
            }
        }
        Touched { columns: &mut self.columns }
    }

    /// Drops a cell; its slot will be reused.
    pub fn remove(&mut self, slot: Slot) {
        let cell = self.cells[slot as usize].take().expect("the slot is live");
        self.key_bytes -= cell.key.len();
        if let Ok(entry) = self.index.find_entry(cell.hash, |other| *other == slot) {
            entry.remove();
        }
        for column in &mut self.columns {
            match column {
                Column::I64(values, initial) => values[slot as usize] = *initial,
                Column::I128(values, initial) => values[slot as usize] = *initial,
                Column::F64(values, initial) => values[slot as usize] = *initial,
                Column::Bytes(values, initial) => values[slot as usize].clone_from(initial),
            }
        }
        if cell.written != self.epoch {
            self.dirty.push(slot);
        }
        self.free.push(slot);
    }

    /// Ends the epoch and gives what changed in it: slots that were written or freed, each once unless it was reused.
    pub fn seal(&mut self) -> (u64, Vec<Slot>) {
        self.epoch += 1;
        (self.epoch - 1, std::mem::take(&mut self.dirty))
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
        self.index.iter().copied()
    }

    /// About how much memory the cells take, bytes.
    pub fn bytes(&self) -> usize {
        let columns: usize = self
            .columns
            .iter()
            .map(|column| match column {
                Column::I64(values, _) => values.len() * 8,
                Column::I128(values, _) => values.len() * 16,
                Column::F64(values, _) => values.len() * 8,
                Column::Bytes(values, _) => values.iter().map(|value| 24 + value.capacity()).sum(),
            })
            .sum();
        columns + self.key_bytes + self.cells.len() * CELL_OVERHEAD_BYTES
    }
}

fn hash(cell: CellKey<'_>) -> u64 {
    // Windows of one key differ in their start; a multiplication spreads it over the high bits that the table uses.
    key::key_hash(cell.key)
        ^ (cell.window.start.micros() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (cell.window.end.micros() as u64).rotate_left(32)
}

fn same(cell: &Option<Cell>, hash: u64, wanted: CellKey<'_>) -> bool {
    cell.as_ref().is_some_and(|cell| cell.hash == hash && cell.window == wanted.window && *cell.key == *wanted.key)
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
                let cell = CellKey { key: &[key], window: window(number) };
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
    }
}
