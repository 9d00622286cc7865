//! CSV records from blocks of bytes, and their values into columns.
//!
//! The state machine of the `csv` crate (`csv-core`) is fed directly: bytes come in blocks from another thread, and a record may
//! begin in one and end in the next, also inside quotes.
//!
//! Values: blank is null, as in pandas. (Unlike pandas, a column of integers with a blank stays one of integers, and `NA` is a
//! string.) A value that is not of its column's type refuses the record, and so does a record of another length than the header.

use super::column::{Column, Data};
use super::schema;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use csv_core::ReadRecordResult;
use pelton_core::batch::MAX_ROW_BYTES;

/// How records are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsvFormat {
    /// Between fields.
    pub delimiter: u8,
    /// Lines that begin with it are no records.
    pub comment: Option<u8>,
}

impl Default for CsvFormat {
    fn default() -> CsvFormat {
        CsvFormat { delimiter: b',', comment: None }
    }
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The input is used up.
    NeedInput,
    /// A record is complete: see `CsvRecords::fields`.
    Record,
    /// A record larger than a row may be has been skipped.
    TooLong,
    /// The input has ended and there is no record any more.
    End,
}

/// Cuts bytes into records.
pub struct CsvRecords {
    core: csv_core::Reader,
    comment: Option<u8>,
    output: Vec<u8>,
    written: usize,
    ends: Vec<usize>,
    ended: usize,
    between: bool,
    in_comment: bool,
    too_long: bool,
    at: i64,
    start: i64,
}

impl CsvRecords {
    /// Records from byte `start` of a file on.
    pub fn new(format: CsvFormat, start: i64) -> CsvRecords {
        CsvRecords {
            core: csv_core::ReaderBuilder::new().delimiter(format.delimiter).build(),
            comment: format.comment,
            output: vec![0; 4_096],
            written: 0,
            ends: vec![0; 64],
            ended: 0,
            between: true,
            in_comment: false,
            too_long: false,
            at: start,
            start,
        }
    }

    /// Takes input up to the end of a record; how much was used. Empty input says that the file has ended.
    pub fn step(&mut self, input: &[u8]) -> (usize, Step) {
        let mut used = 0;
        if self.between && !input.is_empty() {
            used = self.skip_to_record(input);
            self.at += used as i64;
            if used == input.len() {
                return (used, Step::NeedInput);
            }
            (self.between, self.too_long, self.written, self.ended, self.start) = (false, false, 0, 0, self.at);
        }
        loop {
            let (result, read, written, ended) =
                self.core.read_record(&input[used..], &mut self.output[self.written..], &mut self.ends[self.ended..]);
            used += read;
            self.at += read as i64;
            self.written += written;
            self.ended += ended;
            match result {
                ReadRecordResult::InputEmpty => return (used, Step::NeedInput),
                // Beyond the limit the text is written over: only the record's end still matters.
                ReadRecordResult::OutputFull if self.output.len() > MAX_ROW_BYTES => (self.written, self.too_long) = (0, true),
                ReadRecordResult::OutputFull => self.output.resize(self.output.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() > MAX_ROW_BYTES => (self.ended, self.too_long) = (0, true),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.between = true;
                    return (used, if self.too_long { Step::TooLong } else { Step::Record });
                }
                ReadRecordResult::End => return (used, Step::End),
            }
        }
    }

    /// Blank lines and comments lie between records; the offset of a record is that of its first byte.
    fn skip_to_record(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while let Some(byte) = input.get(used) {
            if self.in_comment {
                match memchr::memchr(b'\n', &input[used..]) {
                    Some(end) => (used, self.in_comment) = (used + end + 1, false),
                    None => return input.len(),
                }
            } else if matches!(byte, b'\n' | b'\r') {
                used += 1;
            } else if self.comment == Some(*byte) {
                self.in_comment = true;
            } else {
                break;
            }
        }
        used
    }

    /// Fields of the last record.
    pub fn len(&self) -> usize {
        self.ended
    }

    /// No fields.
    pub fn is_empty(&self) -> bool {
        self.ended == 0
    }

    /// One field of the last record, unquoted.
    pub fn field(&self, position: usize) -> &[u8] {
        let start = if position == 0 { 0 } else { self.ends[position - 1] };
        &self.output[start..self.ends[position]]
    }

    /// Offset of the next byte.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// The next input comes from this offset: where it was, or where a record starts.
    pub fn go_to(&mut self, at: i64) {
        self.at = at;
    }

    /// Offset of the last record's first byte.
    pub fn start(&self) -> i64 {
        self.start
    }

    fn is_ascii(&self) -> bool {
        self.output[..self.written].is_ascii()
    }
}

/// Collects records into batches.
pub struct CsvDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// For each field of the header the column that it fills.
    places: Vec<Option<usize>>,
    /// Columns that the file lacks.
    absent: Vec<usize>,
    rows: usize,
}

impl CsvDecoder {
    /// A decoder of the fields of `schema`, or of those that `projection` names.
    pub fn new(schema: &Schema, projection: Option<&[String]>) -> Result<CsvDecoder, String> {
        let wanted = |name: &String| projection.is_none_or(|names| names.contains(name));
        let fields: Fields = schema.fields().iter().filter(|field| wanted(field.name())).cloned().collect();
        if let Some(field) = fields.iter().find(|field| field.data_type().is_nested()) {
            return Err(format!("field `{}`: CSV has no {}", field.name(), schema::name(field.data_type())));
        }
        let columns = fields.iter().map(|field| Column::new(field)).collect::<Result<Vec<_>, _>>()?;
        Ok(CsvDecoder { schema: schema::nullable(&Schema::new(fields)), columns, places: Vec::new(), absent: Vec::new(), rows: 0 })
    }

    /// Takes a file's header: which field is which column.
    pub fn set_header(&mut self, names: &[String]) {
        let find = |name: &String| self.schema.fields().iter().position(|field| field.name() == name);
        self.places = names.iter().map(find).collect();
        self.absent = (0..self.columns.len()).filter(|column| !self.places.contains(&Some(*column))).collect();
    }

    /// Rows since the last batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes those rows take.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// Schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Adds the last record; the reason if it is refused.
    pub fn push(&mut self, record: &CsvRecords) -> Result<(), String> {
        let result = self.fill(record);
        match result {
            Ok(()) => self.rows += 1,
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.rows)),
        }
        result
    }

    fn fill(&mut self, record: &CsvRecords) -> Result<(), String> {
        if record.len() != self.places.len() {
            return Err(format!("the record has {} fields and the header {}", record.len(), self.places.len()));
        }
        let ascii = record.is_ascii();
        for (position, place) in self.places.iter().enumerate() {
            let bytes = record.field(position);
            let refuse = |reason: String| format!("field {}: {reason}", position + 1);
            let value = match ascii {
                // SAFETY: the whole record is ASCII, so each part of it is UTF-8.
                true => unsafe { std::str::from_utf8_unchecked(bytes) },
                false => std::str::from_utf8(bytes).map_err(|_| refuse("not UTF-8".into()))?,
            };
            if let Some(place) = place {
                let name = self.schema.field(*place).name();
                fill_value(&mut self.columns[*place], value).map_err(|reason| format!("field `{name}`: {reason}"))?;
            }
        }
        for column in &self.absent {
            let name = self.schema.field(*column).name();
            self.columns[*column].push_null().map_err(|reason| format!("field `{name}`: {reason}"))?;
        }
        Ok(())
    }

    /// The rows since the last batch.
    pub fn finish(&mut self) -> RecordBatch {
        let rows = std::mem::take(&mut self.rows);
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
            .expect("the columns were made from the schema")
    }
}

fn fill_value(column: &mut Column, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return column.push_null().map_err(str::to_owned);
    }
    let fits = match &column.data {
        Data::Text(_) => column.push_string(value),
        Data::Integer(..) => value.trim().parse().is_ok_and(|number| column.push_integer(number)),
        Data::Double(..) => value.trim().parse().is_ok_and(|number| column.push_double(number)),
        Data::Boolean(_) => parse_boolean(value).is_some_and(|truth| column.push_boolean(truth)),
        Data::Timestamp(_) => {
            column.push_string(value)
                || value.parse().is_ok_and(|number: i64| column.push_integer(number))
                || value.parse().is_ok_and(|number: f64| column.push_double(number))
        }
        _ => column.push_string(value),
    };
    let shown: String = value.chars().take(40).collect();
    if fits { Ok(()) } else { Err(format!("`{shown}` is no {}", column.type_name())) }
}

fn parse_boolean(value: &str) -> Option<bool> {
    match value {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// What the values of a column have in common.
#[derive(Clone, Copy, Debug)]
pub struct CsvShape {
    seen: bool,
    boolean: bool,
    integer: bool,
    double: bool,
}

impl Default for CsvShape {
    fn default() -> CsvShape {
        CsvShape { seen: false, boolean: true, integer: true, double: true }
    }
}

impl CsvShape {
    /// Looks at a value; blanks say nothing.
    pub fn see(&mut self, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.seen = true;
        let text = std::str::from_utf8(value).unwrap_or("?").trim();
        let whole = text.trim_start_matches(['-', '+']);
        let digits = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
        let integer = text.parse::<i64>().is_ok();
        self.boolean &= parse_boolean(text).is_some();
        self.integer &= integer;
        // More digits than an int64 holds would lose some as a double: those columns are strings.
        self.double &= text.parse::<f64>().is_ok() && (!digits || integer);
    }

    /// The narrowest type that takes every value seen; a column of blanks is one of strings.
    pub fn data_type(self) -> DataType {
        match self {
            CsvShape { seen: false, .. } => DataType::Utf8,
            CsvShape { boolean: true, .. } => DataType::Boolean,
            CsvShape { integer: true, .. } => DataType::Int64,
            CsvShape { double: true, .. } => DataType::Float64,
            _ => DataType::Utf8,
        }
    }
}

/// Columns from names and what their values have in common.
pub fn inferred_schema(columns: &[(String, CsvShape)]) -> Schema {
    Schema::new(columns.iter().map(|(name, shape)| Field::new(name, shape.data_type(), true)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(input: &[u8], cut: usize) -> Vec<(i64, Vec<Vec<u8>>)> {
        let mut records = CsvRecords::new(CsvFormat::default(), 0);
        let mut found = Vec::new();
        let mut take = |block: &[u8]| {
            let mut from = 0;
            loop {
                let (used, step) = records.step(&block[from..]);
                from += used;
                match step {
                    Step::Record => found.push((records.start(), (0..records.len()).map(|field| records.field(field).to_vec()).collect())),
                    Step::NeedInput | Step::End => break,
                    Step::TooLong => panic!("nothing here is long"),
                }
                if from == block.len() && !block.is_empty() {
                    break;
                }
            }
        };
        for block in input.chunks(cut.max(1)) {
            take(block);
        }
        take(&[]);
        found
    }

    #[test]
    fn offsets_are_those_of_first_bytes() {
        let found = records(b"a,b\r\n\r\n1,\"x\ny\"\n\n2,z", 3);
        assert_eq!(found.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [0, 7, 16]);
        assert_eq!(found[1].1[1], b"x\ny");
    }

    #[test]
    fn types_of_columns() {
        for (values, expected) in [
            (vec!["1", "", "-3"], DataType::Int64),
            (vec!["1", "2.5"], DataType::Float64),
            (vec!["true", "False"], DataType::Boolean),
            (vec!["1", "x"], DataType::Utf8),
            (vec!["", ""], DataType::Utf8),
            (vec!["99999999999999999999"], DataType::Utf8),
        ] {
            let mut shape = CsvShape::default();
            values.iter().for_each(|value| shape.see(value.as_bytes()));
            assert_eq!(shape.data_type(), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_as_the_csv_crate_does(input in proptest::collection::vec(prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'\r'), Just(b'a'), Just(b'b')], 0..60), cut in 1usize..20) {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&input[..]);
            let expected: Vec<Vec<Vec<u8>>> = reader.byte_records().map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect()).collect();
            let found: Vec<Vec<Vec<u8>>> = records(&input, cut).into_iter().map(|(_, fields)| fields).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
