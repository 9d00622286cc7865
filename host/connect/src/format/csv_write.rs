//! Rows as CSV (RFC 4180): a header, lines that end in `\n`, quotes only where they are needed.
//!
//! Null is blank; an empty string is `""`, so that the two differ. NaN and infinities are `NaN`, `inf`, `-inf`. Lists, rows and maps
//! are JSON text. Everything else is written as in JSON, without its quotes.

use super::json_write::Cells;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

/// Writes rows of one batch.
pub struct CsvEncoder {
    columns: Vec<Cells>,
    delimiter: u8,
}

impl CsvEncoder {
    /// An encoder of the batch's rows.
    pub fn new(batch: &RecordBatch, delimiter: u8) -> Result<CsvEncoder, String> {
        Ok(CsvEncoder { columns: batch.columns().iter().map(Cells::of).collect::<Result<_, _>>()?, delimiter })
    }

    /// Appends a row with its line end; a refused row leaves nothing.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        for (position, cells) in self.columns.iter().enumerate() {
            if position > 0 {
                out.push(self.delimiter);
            }
            write_value(cells, row, Some(self.delimiter), out).inspect_err(|_| out.truncate(start))?;
        }
        // A blank line would be no record to any reader.
        if out.len() == start && self.columns.len() == 1 {
            out.extend_from_slice(b"\"\"");
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Appends the line of column names.
pub fn write_header(schema: &Schema, delimiter: u8, out: &mut Vec<u8>) {
    for (position, field) in schema.fields().iter().enumerate() {
        if position > 0 {
            out.push(delimiter);
        }
        write_field(field.name().as_bytes(), delimiter, out);
    }
    out.push(b'\n');
}

/// Appends one value: as a CSV field where there is a delimiter, else as plain text.
pub(crate) fn write_value(cells: &Cells, row: usize, delimiter: Option<u8>, out: &mut Vec<u8>) -> Result<(), String> {
    if cells.is_null(row) {
        return Ok(());
    }
    if let Some(text) = cells.text(row) {
        match delimiter {
            Some(delimiter) => write_field(text.as_bytes(), delimiter, out),
            None => out.extend_from_slice(text.as_bytes()),
        }
        return Ok(());
    }
    if let Some(number) = cells.special_number(row) {
        out.extend_from_slice(number.to_string().as_bytes());
        return Ok(());
    }
    let start = out.len();
    cells.write(row, out)?;
    if cells.is_quoted() {
        // Dates, instants and base64 hold nothing that JSON escapes.
        out.pop();
        out.remove(start);
    }
    if let Some(delimiter) = delimiter
        && needs_quotes(&out[start..], delimiter)
    {
        let text = out.split_off(start);
        write_field(&text, delimiter, out);
    }
    Ok(())
}

fn needs_quotes(text: &[u8], delimiter: u8) -> bool {
    text.is_empty() || text.iter().any(|byte| *byte == delimiter || matches!(byte, b'"' | b'\n' | b'\r'))
}

fn write_field(text: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    if !needs_quotes(text, delimiter) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
