//! Typed columns of values by slot.

use crate::cells::Slot;
use crate::layout::{Kind, Value};

/// Number of a column in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnId(pub(crate) usize);

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

impl Column {
    /// Room for one more slot, with the initial value.
    pub(crate) fn grow(&mut self) {
        match self {
            Column::I64(values, initial) => values.push(*initial),
            Column::I128(values, initial) => values.push(*initial),
            Column::F64(values, initial) => values.push(*initial),
            Column::Bytes(values, initial) => values.push(initial.clone()),
        }
    }

    /// Gives slots the initial value.
    pub(crate) fn reset(&mut self, slots: impl Iterator<Item = Slot>) {
        let slots = slots.map(|slot| slot as usize);
        match self {
            Column::I64(values, initial) => slots.for_each(|slot| values[slot] = *initial),
            Column::I128(values, initial) => slots.for_each(|slot| values[slot] = *initial),
            Column::F64(values, initial) => slots.for_each(|slot| values[slot] = *initial),
            Column::Bytes(values, initial) => slots.for_each(|slot| values[slot].clone_from(initial)),
        }
    }

    /// Gives a slot the initial value and its memory back.
    pub(crate) fn release(&mut self, slot: Slot) {
        match self {
            Column::Bytes(values, initial) => values[slot as usize] = initial.clone(),
            _ => self.reset(std::iter::once(slot)),
        }
    }

    /// Bytes of a value in its place.
    pub(crate) fn width(&self) -> usize {
        match self {
            Column::I64(..) | Column::F64(..) => 8,
            Column::I128(..) => 16,
            Column::Bytes(..) => size_of::<Vec<u8>>(),
        }
    }

    /// Bytes that a value takes elsewhere.
    pub(crate) fn bytes_elsewhere(&self, slot: Slot) -> usize {
        match self {
            Column::Bytes(values, _) => values[slot as usize].capacity(),
            _ => 0,
        }
    }

    /// The type of its values.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Column::I64(..) => Kind::I64,
            Column::I128(..) => Kind::I128,
            Column::F64(..) => Kind::F64,
            Column::Bytes(..) => Kind::Bytes,
        }
    }

    /// Sets the value of a slot, if it is of the column's type.
    pub(crate) fn set(&mut self, slot: Slot, value: Value) {
        let slot = slot as usize;
        match (self, value) {
            (Column::I64(values, _), Value::I64(value)) => values[slot] = value,
            (Column::I128(values, _), Value::I128(value)) => values[slot] = value,
            (Column::F64(values, _), Value::F64(value)) => values[slot] = value,
            (Column::Bytes(values, _), Value::Bytes(value)) => values[slot] = value,
            _ => debug_assert!(false, "a layout reads values of its columns' types"),
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Column::I64(values, _) => values.len() * 8,
            Column::I128(values, _) => values.len() * 16,
            Column::F64(values, _) => values.len() * 8,
            Column::Bytes(values, _) => values.iter().map(|value| size_of::<Vec<u8>>() + value.capacity()).sum(),
        }
    }
}

/// The columns of cells that are marked as changed: see [`crate::Cells::touch`].
#[derive(Debug)]
pub struct Touched<'a> {
    pub(crate) columns: &'a mut [Column],
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

    /// Two columns of different types at once.
    pub fn pair<A: CellValue, B: CellValue>(&mut self, a: ColumnId, b: ColumnId) -> (&mut [A], &mut [B]) {
        let [a, b] = self.columns.get_disjoint_mut([a.0, b.0]).expect("the columns are different ones");
        let (a, b) = (A::of_mut(a), B::of_mut(b));
        (a.expect("the column was declared with this type"), b.expect("the column was declared with this type"))
    }

    /// Gives a column its initial value at touched slots.
    pub fn reset(&mut self, column: ColumnId, slots: &[Slot]) {
        self.columns[column.0].reset(slots.iter().copied());
    }
}
