//! Pieces of files to rows, on the worker's side.

use super::blocks::Piece;
use crate::ConnectError;
use crate::batch_rows::BatchRows;
use crate::format::csv_read::{CsvDecoder, CsvFormat, CsvRecords, Step};
use crate::format::json_read::JsonDecoder;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_core::batch::{MAX_ROW_BYTES, TARGET_BYTES};
use pelton_core::fault::{FormatError, MAX_ELEMENT_BYTES};
use std::path::PathBuf;
use std::sync::Arc;

/// Sizes of columns are asked for at every so many rows, since that visits all of them, and after each row that is itself large.
const ROWS_A_LOOK: usize = 64;
const LARGE_ROW_BYTES: usize = 4 * 1024;

/// Rows, the offset of each, and what could not be decoded.
pub struct Decoded {
    /// The wanted columns.
    pub rows: RecordBatch,
    /// Offset of each row.
    pub offsets: Vec<i64>,
    /// Records that were refused.
    pub errors: Vec<FormatError>,
}

/// Decodes the pieces of one chunk after the other.
pub trait Decode: Send {
    /// A new chunk begins.
    fn begin(&mut self, path: PathBuf);

    /// Decodes from a position in a piece until it is used up or the batch is full; the position after that.
    fn feed(&mut self, piece: &Piece, from: usize) -> Result<usize, ConnectError>;

    /// The batch should go on its way.
    fn is_full(&self) -> bool;

    /// The chunk has ended.
    fn end(&mut self) -> Result<(), ConnectError>;

    /// The batch so far.
    fn take(&mut self) -> Decoded;

    /// Where the file's header ends, where it has one that later records need.
    fn header_end(&self) -> u64 {
        0
    }
}

/// Offsets, errors and the question whether a batch is full: the same for all formats.
#[derive(Default)]
struct Tally {
    offsets: Vec<i64>,
    errors: Vec<FormatError>,
    error_bytes: usize,
    full: bool,
    rows: BatchRows,
}

impl Tally {
    fn row(&mut self, offset: i64, length: usize, bytes: impl FnOnce() -> usize) {
        self.offsets.push(offset);
        self.full |= self.offsets.len() >= self.rows.most;
        if self.offsets.len().is_multiple_of(ROWS_A_LOOK) || length > LARGE_ROW_BYTES {
            self.full |= bytes() >= TARGET_BYTES;
        }
    }

    fn error(&mut self, element: &[u8], message: String, offset: i64) {
        let element = element[..element.len().min(MAX_ELEMENT_BYTES)].to_vec();
        self.error_bytes += element.len() + message.len();
        self.errors.push(FormatError { element, message, offset, time: None });
        self.full |= self.errors.len() >= self.rows.most || self.error_bytes >= TARGET_BYTES;
    }

    fn take(&mut self) -> (Vec<i64>, Vec<FormatError>) {
        let next = Tally { rows: self.rows.next(), ..Tally::default() };
        let taken = std::mem::replace(self, next);
        (taken.offsets, taken.errors)
    }
}

fn too_long() -> String {
    format!("the record is longer than {} MiB", MAX_ROW_BYTES >> 20)
}

/// What is made of a line.
enum LineFormat {
    Text { wanted: bool, schema: SchemaRef, lines: StringBuilder, rows: usize },
    Json(JsonDecoder),
}

impl LineFormat {
    /// Adds a line; false if it is none (a blank one, for JSON).
    fn push(&mut self, line: &str) -> Result<bool, String> {
        match self {
            LineFormat::Text { wanted, lines, rows, .. } => {
                if *wanted {
                    lines.append_value(line);
                }
                *rows += 1;
                Ok(true)
            }
            LineFormat::Json(_) if line.trim_ascii().is_empty() => Ok(false),
            LineFormat::Json(decoder) => decoder.push_text(line).map(|()| true),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            LineFormat::Text { lines, .. } => lines.values_slice().len(),
            LineFormat::Json(decoder) => decoder.bytes(),
        }
    }

    fn finish(&mut self) -> RecordBatch {
        match self {
            LineFormat::Text { wanted, schema, lines, rows } => {
                let columns: Vec<ArrayRef> = if *wanted { vec![Arc::new(lines.finish())] } else { Vec::new() };
                let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(rows)));
                RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("one string for the one column")
            }
            LineFormat::Json(decoder) => decoder.finish(),
        }
    }
}

/// A record is a line.
pub struct LineDecode {
    format: LineFormat,
    tally: Tally,
}

impl LineDecode {
    /// The column `line`.
    pub fn text(projection: Option<&[String]>) -> LineDecode {
        let wanted = projection.is_none_or(|names| names.iter().any(|name| name == "line"));
        let schema = if wanted { text_schema() } else { Arc::new(Schema::empty()) };
        LineDecode { format: LineFormat::Text { wanted, schema, lines: StringBuilder::new(), rows: 0 }, tally: Tally::default() }
    }

    /// One JSON object a line; blank lines are passed over.
    pub fn json(decoder: JsonDecoder) -> LineDecode {
        LineDecode { format: LineFormat::Json(decoder), tally: Tally::default() }
    }

    fn line(&mut self, line: &[u8], offset: i64, utf8: bool) {
        let line = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        if line.len() > MAX_ROW_BYTES {
            return self.tally.error(line, too_long(), offset);
        }
        let text = match utf8 {
            // SAFETY: the whole block is UTF-8, and cutting at ASCII line ends keeps it so.
            true => unsafe { std::str::from_utf8_unchecked(line) },
            false => match simdutf8::basic::from_utf8(line) {
                Ok(text) => text,
                Err(_) => return self.tally.error(line, "not UTF-8".into(), offset),
            },
        };
        match self.format.push(text) {
            Ok(true) => self.tally.row(offset, line.len(), || self.format.bytes()),
            Ok(false) => {}
            Err(message) => self.tally.error(line, message, offset),
        }
    }
}

/// The one column of text files.
pub fn text_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8, true)]))
}

impl Decode for LineDecode {
    fn begin(&mut self, _path: PathBuf) {}

    fn feed(&mut self, piece: &Piece, from: usize) -> Result<usize, ConnectError> {
        let (start, bytes, utf8) = match piece {
            Piece::TooLong { start, beginning, .. } => {
                self.tally.error(beginning, too_long(), *start as i64);
                return Ok(beginning.len());
            }
            Piece::Block { start, bytes, utf8 } => (*start, bytes, *utf8),
        };
        let mut at = from;
        while at < bytes.len() && !self.tally.full {
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end + 1);
            self.line(&bytes[at..end], start as i64 + at as i64, utf8);
            at = end;
        }
        Ok(at)
    }

    fn is_full(&self) -> bool {
        self.tally.full
    }

    fn end(&mut self) -> Result<(), ConnectError> {
        Ok(())
    }

    fn take(&mut self) -> Decoded {
        let (offsets, errors) = self.tally.take();
        Decoded { rows: self.format.finish(), offsets, errors }
    }
}

/// A record is what CSV says it is. Each file begins with its header.
pub struct CsvDecode {
    format: CsvFormat,
    decoder: CsvDecoder,
    /// Names that the source knows; a header with others is an error, unless the schema was given.
    known: Option<Vec<String>>,
    path: PathBuf,
    records: CsvRecords,
    started: bool,
    has_header: bool,
    header_end: u64,
    /// The record's text from earlier blocks, for its error.
    begun: Vec<u8>,
    tally: Tally,
}

impl CsvDecode {
    /// Decodes with this schema; `known` are the columns found by looking at the first files.
    pub fn new(format: CsvFormat, decoder: CsvDecoder, known: Option<Vec<String>>) -> CsvDecode {
        CsvDecode {
            format,
            decoder,
            known,
            path: PathBuf::new(),
            records: CsvRecords::new(format, 0),
            started: false,
            has_header: false,
            header_end: 0,
            begun: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn record(&mut self, text: &[u8], step: Step) -> Result<(), ConnectError> {
        let begun = std::mem::take(&mut self.begun);
        let start = self.records.start();
        if step == Step::Record && !self.has_header {
            return self.header();
        }
        let refused = match step {
            Step::TooLong => Err(too_long()),
            _ => self.decoder.push(&self.records),
        };
        match refused {
            Ok(()) => self.tally.row(start, text.len(), || self.decoder.bytes()),
            Err(message) => {
                let whole = [begun, text.to_vec()].concat();
                self.tally.error(whole.trim_ascii(), message, start);
            }
        }
        Ok(())
    }

    fn header(&mut self) -> Result<(), ConnectError> {
        let names = header_names(&self.records);
        let unknown = self.known.as_ref().and_then(|known| names.iter().find(|name| !known.contains(name)));
        if let Some(name) = unknown {
            return Err(ConnectError::user(
                format!("{} has the column `{name}`, which the first files have not", self.path.display()),
                "give `schema`, so that the columns are known before all files are read",
            ));
        }
        self.decoder.set_header(&names);
        self.has_header = true;
        self.header_end = self.records.at().unsigned_abs();
        Ok(())
    }

    /// Keeps the text of an unfinished record, as far as an error would show it.
    fn keep(&mut self, text: &[u8]) {
        let room = MAX_ELEMENT_BYTES.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&text[..text.len().min(room)]);
    }
}

/// The names in a header; a blank one is named after its place, and a repeated one gets a number, as in pandas.
pub fn header_names(records: &CsvRecords) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(records.len());
    for position in 0..records.len() {
        let name = match String::from_utf8_lossy(records.field(position)).into_owned() {
            name if name.is_empty() => format!("Unnamed: {position}"),
            name => name,
        };
        let mut unique = name.clone();
        let mut number = 0;
        while names.contains(&unique) {
            number += 1;
            unique = format!("{name}.{number}");
        }
        names.push(unique);
    }
    names
}

impl Decode for CsvDecode {
    fn begin(&mut self, path: PathBuf) {
        self.path = path;
        (self.started, self.has_header, self.header_end) = (false, false, 0);
        self.begun.clear();
    }

    fn feed(&mut self, piece: &Piece, from: usize) -> Result<usize, ConnectError> {
        let Piece::Block { start, bytes, .. } = piece else {
            return Err(ConnectError::internal("CSV is not read in lines"));
        };
        if !self.started {
            self.records = CsvRecords::new(self.format, *start as i64);
            self.started = true;
        } else if from == 0 {
            // After the header comes what was not read before.
            self.records.go_to(*start as i64);
        }
        let mut at = from;
        while at < bytes.len() && !self.tally.full {
            let (used, step) = self.records.step(&bytes[at..]);
            let text = &bytes[at..at + used];
            at += used;
            match step {
                Step::Record | Step::TooLong => self.record(text, step)?,
                Step::NeedInput | Step::End => self.keep(text),
            }
        }
        Ok(at)
    }

    fn is_full(&self) -> bool {
        self.tally.full
    }

    fn end(&mut self) -> Result<(), ConnectError> {
        while self.started {
            match self.records.step(&[]) {
                (_, step @ (Step::Record | Step::TooLong)) => self.record(&[], step)?,
                _ => self.started = false,
            }
        }
        Ok(())
    }

    fn header_end(&self) -> u64 {
        self.header_end
    }

    fn take(&mut self) -> Decoded {
        let (offsets, errors) = self.tally.take();
        Decoded { rows: self.decoder.finish(), offsets, errors }
    }
}
