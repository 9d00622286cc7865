//! The columns of state that an aggregate declares, and how they travel.
//!
//! A partial result is the columns of state as they are: numbers as Arrow numbers, everything else as bytes in a format of
//! the family that wrote them. Those of cells lie in checkpoints, too: what a family reads it has to read for ever.

use arrow::array::{ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use pelton_state::{Cells, ColumnId, Slot};
use std::sync::Arc;

/// A column of state.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Its number.
    pub column: ColumnId,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Whole,
    Wide,
    Float,
    Bytes,
}

/// Declares columns of state one by one.
pub(super) struct States<'a> {
    cells: &'a mut Cells,
    declared: Vec<State>,
}

impl<'a> States<'a> {
    /// None yet.
    pub fn of(cells: &'a mut Cells) -> States<'a> {
        States { cells, declared: Vec::new() }
    }

    /// 64-bit integers, and what a cell begins with.
    pub fn whole(&mut self, initial: i64) -> ColumnId {
        let column = self.cells.declare(initial);
        self.push(column, Kind::Whole)
    }

    /// 128-bit integers, and what a cell begins with.
    pub fn wide(&mut self, initial: i128) -> ColumnId {
        let column = self.cells.declare(initial);
        self.push(column, Kind::Wide)
    }

    /// Doubles, from 0.
    pub fn float(&mut self) -> ColumnId {
        let column = self.cells.declare(0f64);
        self.push(column, Kind::Float)
    }

    /// Bytes, from none.
    pub fn bytes(&mut self) -> ColumnId {
        let column = self.cells.declare(Vec::<u8>::new());
        self.push(column, Kind::Bytes)
    }

    /// What was declared, in order.
    pub fn declared(self) -> Vec<State> {
        self.declared
    }

    fn push(&mut self, column: ColumnId, kind: Kind) -> ColumnId {
        self.declared.push(State { column, kind });
        column
    }
}

impl State {
    /// The type of the column in a partial result.
    pub fn data_type(&self) -> DataType {
        match self.kind {
            Kind::Whole => DataType::Int64,
            Kind::Wide => DataType::Decimal128(38, 0),
            Kind::Float => DataType::Float64,
            Kind::Bytes => DataType::Binary,
        }
    }

    /// The values of cells.
    pub fn gather(&self, cells: &Cells, slots: &[Slot]) -> ArrayRef {
        let slots = slots.iter().map(|slot| *slot as usize);
        match self.kind {
            Kind::Whole => {
                let values = cells.column::<i64>(self.column);
                Arc::new(Int64Array::from_iter_values(slots.map(|slot| values[slot])))
            }
            Kind::Wide => {
                let values = cells.column::<i128>(self.column);
                let array = Decimal128Array::from_iter_values(slots.map(|slot| values[slot]));
                Arc::new(array.with_data_type(self.data_type()))
            }
            Kind::Float => {
                let values = cells.column::<f64>(self.column);
                Arc::new(Float64Array::from_iter_values(slots.map(|slot| values[slot])))
            }
            Kind::Bytes => {
                let values = cells.column::<Vec<u8>>(self.column);
                Arc::new(BinaryArray::from_iter_values(slots.map(|slot| values[slot].as_slice())))
            }
        }
    }
}
