//! What a join by time gives out: rows of one input beside rows of the other, or beside nulls.

use crate::operator::{MAIN, Out};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use pelton_core::batch::MAX_ROWS;
use pelton_core::key_decode::KeyDecoder;
use pelton_core::{Batch, Instant, Positions};

/// Makes batches of the output.
pub(super) struct Pairs {
    /// Where each column comes from: an input, and a number among its columns.
    pub output: Vec<(usize, usize)>,
    pub schema: SchemaRef,
    pub decoders: [KeyDecoder; 2],
    /// Types of each input's columns.
    pub types: [Vec<DataType>; 2],
}

/// One side of rows that come out.
pub(super) enum Half<'a> {
    /// Rows of a batch, by number.
    Rows(&'a [ArrayRef], Vec<u32>),
    /// Rows from state.
    Kept(&'a Stack),
    /// Nothing: the other side has no partner.
    Nulls,
}

/// Rows from state, copied; a row may be missing.
#[derive(Default)]
pub(super) struct Stack {
    bytes: Vec<u8>,
    /// Where each row begins and ends; `None`: it is missing.
    spans: Vec<Option<(usize, usize)>>,
}

impl Stack {
    /// A row, or none.
    pub fn push(&mut self, row: Option<&[u8]>) {
        self.spans.push(row.map(|row| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(row);
            (start, self.bytes.len())
        }));
    }

    fn decode(&self, decoder: &KeyDecoder) -> Result<Vec<ArrayRef>, String> {
        let present = decoder.decode(self.spans.iter().flatten().map(|(start, end)| &self.bytes[*start..*end]))?;
        if self.spans.iter().all(Option::is_some) {
            return Ok(present);
        }
        let mut next = 0;
        let rows = self.spans.iter().map(|span| {
            span.map(|_| {
                next += 1;
                next - 1
            })
        });
        let rows: UInt32Array = rows.collect();
        present.iter().map(|column| take(column, &rows, None).map_err(|error| error.to_string())).collect()
    }
}

impl Pairs {
    /// Rows of a batch that have no partner.
    pub fn alone(&self, side: usize, columns: &[ArrayRef], times: &[i64], rows: Vec<u32>, out: &mut Out) -> Result<(), String> {
        for chunk in rows.chunks(MAX_ROWS) {
            let times = chunk.iter().map(|row| times[*row as usize]).collect();
            self.give(side, Half::Rows(columns, chunk.to_vec()), Half::Nulls, times, out)?;
        }
        Ok(())
    }

    /// Rows of a side beside those of the other, with their event times.
    pub fn give(&self, side: usize, own: Half<'_>, other: Half<'_>, times: Vec<i64>, out: &mut Out) -> Result<(), String> {
        if times.is_empty() {
            return Ok(());
        }
        let mut halves = [Vec::new(), Vec::new()];
        halves[side] = self.columns(side, own, times.len())?;
        halves[1 - side] = self.columns(1 - side, other, times.len())?;
        let columns = self.output.iter().map(|(side, column)| halves[*side][*column].clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(times.len()));
        let made = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| error.to_string())?;
        out.rows(MAIN, Batch::new(made, times.into(), Positions::None));
        Ok(())
    }

    fn columns(&self, side: usize, half: Half<'_>, length: usize) -> Result<Vec<ArrayRef>, String> {
        match half {
            Half::Nulls => Ok(self.types[side].iter().map(|data_type| new_null_array(data_type, length)).collect()),
            Half::Kept(stack) => stack.decode(&self.decoders[side]),
            Half::Rows(columns, rows) => {
                let rows = UInt32Array::from(rows);
                columns.iter().map(|column| take(column, &rows, None).map_err(|error| error.to_string())).collect()
            }
        }
    }
}

/// Pairs of a batch's rows with rows from state, until they are a batch themselves.
pub(super) struct Matches<'a> {
    pairs: &'a Pairs,
    side: usize,
    columns: &'a [ArrayRef],
    rows: Vec<u32>,
    kept: Stack,
    times: Vec<i64>,
}

impl<'a> Matches<'a> {
    /// None yet.
    pub fn new(pairs: &'a Pairs, side: usize, columns: &'a [ArrayRef]) -> Matches<'a> {
        Matches { pairs, side, columns, rows: Vec::new(), kept: Stack::default(), times: Vec::new() }
    }

    /// One more.
    pub fn push(&mut self, row: u32, kept: &[u8], time: Instant, out: &mut Out) -> Result<(), String> {
        if self.rows.len() == MAX_ROWS {
            self.flush(out)?;
        }
        self.rows.push(row);
        self.kept.push(Some(kept));
        self.times.push(time.micros());
        Ok(())
    }

    /// Gives out what there is.
    pub fn flush(&mut self, out: &mut Out) -> Result<(), String> {
        let (rows, kept, times) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.kept), std::mem::take(&mut self.times));
        self.pairs.give(self.side, Half::Rows(self.columns, rows), Half::Kept(&kept), times, out)
    }
}
