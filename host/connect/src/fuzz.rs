//! Fuzz targets of the unsafe code that makes strings of bytes without looking again: files in lines, CSV records, growing columns.
//! Under `cargo test` they explore for a moment; `cargo xtask fuzz` explores on. The Kafka target is in `kafka::fuzz`.

use crate::file::blocks::{Piece, read_bytes, read_lines};
use crate::file::chunk::Chunk;
use crate::file::compression::Compression;
use crate::file::decode::{CsvDecode, Decode, LineDecode};
use crate::format::column::Column;
use crate::format::csv_read::{CsvDecoder, CsvFormat};
use crate::format::json_read::JsonDecoder;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::Split;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

/// Rows with their offsets, and offsets of what was refused.
#[derive(Debug, Default, PartialEq)]
struct Found {
    rows: Vec<(i64, Vec<Option<String>>)>,
    refused: Vec<i64>,
}

impl Found {
    fn take(&mut self, decoder: &mut impl Decode) {
        let decoded = decoder.take();
        for column in decoded.rows.columns() {
            column.to_data().validate_full().expect("only valid arrays come out");
        }
        assert_eq!(decoded.offsets.len(), decoded.rows.num_rows());
        self.rows.extend((0..decoded.offsets.len()).map(|row| (decoded.offsets[row], strings(&decoded.rows, row))));
        self.refused.extend(decoded.errors.iter().map(|error| error.offset));
    }
}

fn strings(rows: &RecordBatch, row: usize) -> Vec<Option<String>> {
    let cell = |column: &Arc<dyn Array>| (!column.is_null(row)).then(|| column.as_string::<i32>().value(row).to_owned());
    rows.columns().iter().map(cell).collect()
}

/// The whole of a file through its reader and a decoder, which is asked for its rows after each piece if `often`.
fn decode(path: &Path, mut decoder: impl Decode, in_lines: bool, often: bool) -> Found {
    let split = Arc::new(Split::File { path: path.display().to_string(), start: 0 });
    let chunk =
        Chunk { split, path: path.into(), compression: Compression::None, range: 0..u64::MAX, skip_lines: 0, number: 0, resume: None };
    let mut found = Found::default();
    decoder.begin(path.into());
    let mut feed = |piece: Piece| {
        let mut at = 0;
        // An empty piece needs a look as well.
        loop {
            at = decoder.feed(&piece, at).expect("the header fits");
            if often || decoder.is_full() {
                found.take(&mut decoder);
            }
            if at >= piece.len() {
                return true;
            }
        }
    };
    if in_lines { read_lines(&chunk, &mut feed) } else { read_bytes(&chunk, &mut feed) }.expect("reads");
    decoder.end().expect("ends");
    found.take(&mut decoder);
    found
}

/// Text of the pieces that a format looks for; every other time with bytes between them that are no text.
fn made_of(pieces: &[&str], bytes: &[u8]) -> Vec<u8> {
    let (mode, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let raw = |byte: &u8| mode % 2 == 1 && *byte >= 240;
    let piece = |byte: &u8| if raw(byte) { vec![*byte] } else { pieces[usize::from(*byte) % pieces.len()].as_bytes().to_vec() };
    bytes.iter().flat_map(piece).collect()
}

/// Lines with their offsets, cut by the standard library. The file's byte order mark is no part of its first line.
fn lines_of(text: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let mut at = if text.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let mut lines = Vec::new();
    for line in text[at as usize..].split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(line);
        lines.push((at, bare.to_vec()));
        at += line.len() as i64;
    }
    lines
}

/// A line is a row if the standard library takes it for text, and is refused otherwise.
#[test]
fn fuzz_lines_of_any_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lines");
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let text = made_of(&["a", "\n", "\r\n", "\r", "é", "😀", " "], bytes);
        std::fs::write(&path, &text).expect("writes");
        let mut expected = Found::default();
        for (at, line) in lines_of(&text) {
            match String::from_utf8(line) {
                Ok(line) => expected.rows.push((at, vec![Some(line)])),
                Err(_) => expected.refused.push(at),
            }
        }
        assert_eq!(decode(&path, LineDecode::text(None), true, bytes.len().is_multiple_of(2)), expected, "{text:?}");
    });
}

/// The same with JSON in the lines: a row is what serde_json reads as an object whose field is a string.
#[test]
fn fuzz_json_lines_against_serde_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("json");
    let schema = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
    bolero::check!().with_test_time(TEST_TIME).with_max_len(256).for_each(|bytes: &[u8]| {
        const PARTS: [&[u8]; 14] = [
            b"{\"a\":\"",
            b"\"}\n",
            b"\"}\n",
            b"{\"a\":\"",
            b"\\n",
            b"\\u00e9",
            b"\\ud83d",
            "é".as_bytes(),
            b"\xf0",
            b"{\"b\":1}\n",
            b"\n",
            b"null",
            b"\",\"a\":\"",
            b"x",
        ];
        let text: Vec<u8> = bytes.iter().flat_map(|byte| PARTS[usize::from(*byte) % PARTS.len()]).copied().collect();
        std::fs::write(&path, &text).expect("writes");
        let mut expected = Found::default();
        for (at, line) in lines_of(&text) {
            if std::str::from_utf8(&line).is_ok_and(|line| line.trim_ascii().is_empty()) {
                continue;
            }
            match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line).ok().map(|object| object.get("a").cloned()) {
                Some(None | Some(serde_json::Value::Null)) => expected.rows.push((at, vec![None])),
                Some(Some(serde_json::Value::String(text))) => expected.rows.push((at, vec![Some(text)])),
                _ => expected.refused.push(at),
            }
        }
        let decoder = JsonDecoder::new(&schema, None).expect("a schema");
        assert_eq!(
            decode(&path, LineDecode::json(decoder), true, bytes.len().is_multiple_of(2)),
            expected,
            "{}",
            String::from_utf8_lossy(&text)
        );
    });
}

/// A record is what the csv crate makes of the bytes; it is a row if it has two fields of text.
#[test]
fn fuzz_csv_against_the_csv_crate() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("csv");
    let schema = Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)]);
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let text = [b"a,b\n".to_vec(), made_of(&["x", ",", "x,é\n", "\"", "\"\"", "\n", "\r\n", "é", "y,"], bytes)].concat();
        std::fs::write(&path, &text).expect("writes");
        let mut rows = Vec::new();
        let mut refused = 0;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&text[..]);
        for record in reader.byte_records() {
            let record = record.expect("bytes cannot be wrong");
            let cells = record.iter().map(|cell| std::str::from_utf8(cell).map(|cell| (!cell.is_empty()).then(|| cell.to_owned())));
            match cells.collect::<Result<Vec<_>, _>>() {
                Ok(cells) if cells.len() == 2 => rows.push(cells),
                _ => refused += 1,
            }
        }
        let decoder = CsvDecoder::new(&schema, None).expect("a schema");
        let found = decode(&path, CsvDecode::new(CsvFormat::default(), decoder, None), false, bytes.len().is_multiple_of(2));
        assert_eq!(found.rows.into_iter().map(|(_, cells)| cells).collect::<Vec<_>>(), rows, "{}", String::from_utf8_lossy(&text));
        assert_eq!(found.refused.len(), refused);
    });
}

/// What checkpoints say of files and outboxes, and numbers as text: an error, or a value.
#[test]
fn fuzz_positions_and_text() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        if let Ok(plan) = crate::file::restart::Plan::from_bytes(bytes) {
            assert!(crate::file::restart::Plan::from_bytes(&plan.to_bytes()).is_ok());
        }
        let _ = crate::postgres::outbox::read_staged(&crate::Staged(bytes.to_vec()));
        let text = made_of(&["0", "1", "-", "+", ".", "e", "9", "12", "31", "2024", " "], bytes);
        let text = String::from_utf8_lossy(&text);
        let _ = crate::format::text::parse_date(&text);
        if let Some(value) = crate::format::text::parse_decimal(&text, 10, 2) {
            assert!(value.abs() < 10i128.pow(10), "{text}");
        }
    });
}

/// What is done to a column, one after the other.
#[derive(Debug, bolero::TypeGenerator)]
enum Step {
    Text(String),
    Null,
    /// Of what kind no column of strings takes.
    Wrong(f64),
    /// Takes back down to about this part of the rows.
    Truncate(u8),
    Finish,
}

/// A column of strings is what a vector of them would be.
#[test]
fn fuzz_columns_against_vectors() {
    bolero::check!().with_test_time(TEST_TIME).with_type::<(bool, Vec<Step>)>().for_each(|(required, steps): &(bool, Vec<Step>)| {
        let mut column = Column::new(&Field::new("c", DataType::Utf8, !required)).expect("a column of strings");
        let mut model: Vec<Option<&str>> = Vec::new();
        for step in steps.iter().chain([&Step::Finish]) {
            match step {
                Step::Text(text) => {
                    assert!(column.push_string(text));
                    model.push(Some(text));
                }
                Step::Null if column.push_null().is_ok() => model.push(None),
                Step::Null => assert!(required),
                Step::Wrong(value) => assert!(!column.push_double(*value) && !column.push_boolean(true) && !column.push_integer(1)),
                Step::Truncate(part) => {
                    let rows = model.len() * usize::from(*part) / 200;
                    column.truncate(rows);
                    model.truncate(rows);
                }
                Step::Finish => {
                    let array = column.finish();
                    array.to_data().validate_full().expect("valid");
                    assert!(array.as_string::<i32>().iter().eq(model.drain(..)));
                }
            }
            assert_eq!(column.len(), model.len());
        }
    });
}
