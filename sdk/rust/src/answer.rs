//! What a transform may return, and how it becomes outputs.
//!
//! [`Outputs`] is one element given out: a row for the main output, or a variant of an enum of tagged outputs. [`Answer`] is what the
//! function returns for one input row: one element, none, several, an error, or for a filter a bool.
//!
//! Invariant: an answer is written only when it is known to be no error, so a row that fails leaves nothing to undo.

use std::fmt::Display;

use crate::row::WriteRow;
use crate::values::{At, Timestamp};
use crate::wire::{Columns, Field, Output};
use crate::write::Buffers;

/// One output of a transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `""` is the main output.
    pub tag: &'static str,
    /// The columns that it adds; none for a row that passes as it came.
    pub adds: Vec<Field>,
}

impl Shape {
    /// The output that carries rows of type `R`.
    pub fn of<R: WriteRow>(tag: &'static str) -> Shape {
        let mut adds = vec![];
        R::fields(&mut adds);
        Shape { tag, adds }
    }
}

/// Rows on their way to one output.
pub struct Port<R: WriteRow> {
    writers: R::Writers,
    rows: u32,
    /// Input row of each output row; empty as long as output row i comes from input row i.
    origin: Vec<u8>,
    /// One a row when rows are `At`, else empty.
    event_times: Vec<u8>,
}

impl<R: WriteRow> Port<R> {
    /// `rows` is how many are expected.
    pub fn new(rows: usize) -> Port<R> {
        Port { writers: R::writers(rows), rows: 0, origin: vec![], event_times: vec![] }
    }

    #[inline(always)]
    pub fn push(&mut self, row: R, origin: u32) {
        row.write(&mut self.writers);
        if !self.origin.is_empty() || origin != self.rows {
            self.push_origin(origin);
        }
        self.rows += 1;
    }

    fn push_at(&mut self, row: R, origin: u32, time: Timestamp) {
        self.event_times.extend_from_slice(&time.0.to_le_bytes());
        self.push(row, origin);
    }

    #[inline]
    fn push_origin(&mut self, origin: u32) {
        if self.origin.is_empty() {
            self.spell_out_origin();
        }
        self.origin.extend_from_slice(&origin.to_le_bytes());
    }

    fn spell_out_origin(&mut self) {
        self.origin = (0..self.rows).flat_map(u32::to_le_bytes).collect();
    }

    /// `input_rows` tells whether every row gave one, which needs no origins. An output without rows is left out.
    pub fn finish(mut self, number: u32, input_rows: u32, outputs: &mut Vec<Output>) {
        if self.rows == 0 {
            return;
        }
        if self.origin.is_empty() && self.rows != input_rows {
            self.spell_out_origin();
        }
        let mut buffers = Buffers::default();
        R::finish(self.writers, &mut buffers);
        outputs.push(Output {
            port: number,
            columns: Columns { rows: self.rows, nodes: buffers.nodes, buffers: buffers.buffers },
            origin: (!self.origin.is_empty()).then_some(self.origin),
            event_times: (!self.event_times.is_empty()).then_some(self.event_times),
        });
    }
}

/// One element given out. Rows are; an enum is with `#[derive(Outputs)]`, a variant an output.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be given out by a transform",
    note = "a transform returns a struct with `#[derive(Row)]`, an enum with `#[derive(Outputs)]`, a bool, or an `Option`, `Vec` or \
            `Result` of these"
)]
pub trait Outputs: Sized {
    /// One [`Port`] an output.
    type Ports;
    fn shapes() -> Vec<Shape>;
    fn ports(rows: usize) -> Self::Ports;
    fn emit(self, ports: &mut Self::Ports, origin: u32);
    fn finish(ports: Self::Ports, input_rows: u32, outputs: &mut Vec<Output>);
}

impl<R: WriteRow> Outputs for R {
    type Ports = Port<R>;
    fn shapes() -> Vec<Shape> {
        vec![Shape::of::<R>("")]
    }
    fn ports(rows: usize) -> Port<R> {
        Port::new(rows)
    }
    #[inline(always)]
    fn emit(self, port: &mut Port<R>, origin: u32) {
        port.push(self, origin);
    }
    fn finish(port: Port<R>, input_rows: u32, outputs: &mut Vec<Output>) {
        port.finish(0, input_rows, outputs);
    }
}

impl<R: WriteRow> Outputs for At<R> {
    type Ports = Port<R>;
    fn shapes() -> Vec<Shape> {
        vec![Shape::of::<R>("")]
    }
    fn ports(rows: usize) -> Port<R> {
        Port::new(rows)
    }
    #[inline(always)]
    fn emit(self, port: &mut Port<R>, origin: u32) {
        port.push_at(self.1, origin, self.0);
    }
    fn finish(port: Port<R>, input_rows: u32, outputs: &mut Vec<Output>) {
        port.finish(0, input_rows, outputs);
    }
}

/// What a transform returns for one row.
#[diagnostic::on_unimplemented(
    message = "a transform cannot return `{Self}`",
    note = "it returns a struct with `#[derive(Row)]`, an enum with `#[derive(Outputs)]`, a bool, or an `Option`, `Vec` or `Result` of these; \
            or `impl Iterator`"
)]
pub trait Answer: Sized {
    type Element: Outputs;
    /// Writes the answer, or says why there is none.
    fn give(self, ports: &mut <Self::Element as Outputs>::Ports, row: u32) -> Result<(), String>;
}

impl<T: Outputs> Answer for T {
    type Element = T;
    #[inline(always)]
    fn give(self, ports: &mut T::Ports, row: u32) -> Result<(), String> {
        self.emit(ports, row);
        Ok(())
    }
}

/// A filter: the row passes as it came, or is dropped.
impl Answer for bool {
    type Element = ();
    #[inline(always)]
    fn give(self, port: &mut Port<()>, row: u32) -> Result<(), String> {
        if self {
            port.push((), row);
        }
        Ok(())
    }
}

impl<T: Outputs> Answer for Option<T> {
    type Element = T;
    #[inline(always)]
    fn give(self, ports: &mut T::Ports, row: u32) -> Result<(), String> {
        if let Some(element) = self {
            element.emit(ports, row);
        }
        Ok(())
    }
}

impl<T: Outputs> Answer for Vec<T> {
    type Element = T;
    fn give(self, ports: &mut T::Ports, row: u32) -> Result<(), String> {
        Many(self.into_iter()).give(ports, row)
    }
}

/// A returned `impl Iterator`; the macro wraps it, since a trait cannot be implemented for iterators and rows both.
pub struct Many<I>(pub I);

impl<I: Iterator<Item: Outputs>> Answer for Many<I> {
    type Element = I::Item;
    fn give(self, ports: &mut <I::Item as Outputs>::Ports, row: u32) -> Result<(), String> {
        self.0.for_each(|element| element.emit(ports, row));
        Ok(())
    }
}

/// The error's text is the row error's message.
impl<A: Answer, E: Display> Answer for Result<A, E> {
    type Element = A::Element;
    #[inline(always)]
    fn give(self, ports: &mut <A::Element as Outputs>::Ports, row: u32) -> Result<(), String> {
        match self {
            Ok(answer) => answer.give(ports, row),
            Err(error) => Err(error.to_string()),
        }
    }
}
