//! Row types: structs whose fields are columns. `#[derive(Row)]` implements both traits.

use crate::read::{Flat, Null, Place};
use crate::schema::Want;
use crate::wire::Field;
use crate::write::Buffers;

/// A struct that a transform can take as its row. Fields are found by name; other columns do not cross.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a row", label = "needs `#[derive(Row)]`")]
pub trait ReadRow<'a>: Sized {
    /// One reader a field.
    type Readers;
    fn wants() -> Vec<Want>;
    /// `first` is the place of the first column of the struct's level.
    fn readers(flat: Flat<'a>, first: Place) -> Self::Readers;
    fn read(readers: &Self::Readers, row: usize) -> Result<Self, Null>;
}

/// A struct that a transform can give out.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a row", label = "needs `#[derive(Row)]`")]
pub trait WriteRow: Sized {
    /// One writer a field.
    type Writers;
    fn fields(out: &mut Vec<Field>);
    fn writers(rows: usize) -> Self::Writers;
    fn write(self, writers: &mut Self::Writers);
    /// Writes what stands below a null struct.
    fn write_filler(writers: &mut Self::Writers);
    fn finish(writers: Self::Writers, out: &mut Buffers);
}

/// The row without new columns, which filters give out.
impl WriteRow for () {
    type Writers = ();
    fn fields(_: &mut Vec<Field>) {}
    fn writers(_: usize) {}
    fn write(self, _: &mut ()) {}
    fn write_filler(_: &mut ()) {}
    fn finish(_: (), _: &mut Buffers) {}
}
