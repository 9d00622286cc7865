//! The fast way: a transform of whole batches, for those who want loops over columns.
//!
//! ```
//! use pelton_sdk::prelude::*;
//! #[derive(Row)] struct Reading { celsius: f64 }
//! #[derive(Row)] struct Converted { fahrenheit: f64 }
//! #[transform(columns, append)]
//! fn convert(input: &ColumnsOf<'_, Reading>, out: &mut Emit<Converted>) {
//!     let celsius = input.column::<f64>("celsius");
//!     for row in 0..input.len() {
//!         match celsius.get(row) {
//!             Ok(celsius) => out.row(row, Converted { fahrenheit: celsius * 1.8 + 32.0 }),
//!             Err(null) => out.error(row, &null),
//!         }
//!     }
//! }
//! ```

use std::fmt;
use std::marker::PhantomData;

use crate::answer::Outputs;
use crate::read::{Flat, Null, Read, read_field};
use crate::row::ReadRow;
use crate::transform::event_time;
use crate::values::EventTime;
use crate::wire::{Output, RowErrors};

/// The columns of a batch; the row type says which ones.
pub struct ColumnsOf<'a, I> {
    flat: Flat<'a>,
    event_times: &'a [u8],
    row: PhantomData<fn() -> I>,
}

impl<'a, I: ReadRow<'a>> ColumnsOf<'a, I> {
    pub(crate) fn new(flat: Flat<'a>, event_times: &'a [u8]) -> ColumnsOf<'a, I> {
        ColumnsOf { flat, event_times, row: PhantomData }
    }

    /// How many rows there are.
    #[allow(clippy::len_without_is_empty)] // Loops run to it; nobody asks.
    pub fn len(&self) -> usize {
        self.flat.columns.rows as usize
    }

    /// A view of one column, of a field's type. Panics when the row type has no such field or it is of another type.
    pub fn column<T: Read<'a>>(&self, name: &'static str) -> Column<'a, T> {
        let wants = I::wants();
        assert!(wants.iter().any(|want| want.name == name), "the row type has no field `{name}`");
        let (place, number) = self.flat.numbered(name);
        if let Err(mismatch) = T::check(self.flat.fields, number) {
            panic!("{}", mismatch.below(name));
        }
        Column { reader: T::reader(self.flat, place), name }
    }

    /// All cells of a row.
    pub fn row(&self, readers: &I::Readers, row: usize) -> Result<I, Null> {
        I::read(readers, row)
    }

    /// The readers that [`ColumnsOf::row`] takes; made once a batch.
    pub fn readers(&self) -> I::Readers {
        I::readers(self.flat, Flat::TOP)
    }

    /// The row's event time; the transform must ask with `#[transform(columns, event_time)]`.
    pub fn event_time(&self, row: usize) -> EventTime {
        event_time(self.event_times, row)
    }
}

/// A view of one column.
pub struct Column<'a, T: Read<'a>> {
    reader: T::Reader,
    name: &'static str,
}

impl<'a, T: Read<'a>> Column<'a, T> {
    /// The cell of a row; an error when it is null and `T` is no `Option`.
    #[inline(always)]
    pub fn get(&self, row: usize) -> Result<T, Null> {
        read_field(&self.reader, row, self.name)
    }
}

impl fmt::Display for Null {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "column `{}` is null, and the transform does not take nulls in it", self.0)
    }
}

/// Takes what a batch transform gives out. A row may have outputs or an error, not both.
pub struct Emit<O: Outputs> {
    ports: O::Ports,
    errors: RowErrors,
}

impl<O: Outputs> Emit<O> {
    pub(crate) fn new(rows: usize) -> Emit<O> {
        Emit { ports: O::ports(rows), errors: RowErrors::default() }
    }

    /// Gives out an element that comes from an input row.
    #[inline(always)]
    pub fn row(&mut self, origin: usize, element: O) {
        element.emit(&mut self.ports, origin as u32);
    }

    /// Refuses an input row. Rows are refused in ascending order, each at most once.
    pub fn error(&mut self, row: usize, message: &impl fmt::Display) {
        self.errors.push(row as u32, &message.to_string());
    }

    pub(crate) fn finish(self, rows: u32) -> (Vec<Output>, RowErrors) {
        let mut outputs = vec![];
        O::finish(self.ports, rows, &mut outputs);
        (outputs, self.errors)
    }
}
