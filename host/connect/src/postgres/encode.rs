//! Rows as tuples of a binary COPY.
//!
//! Types: integers go into integer columns of any width and `numeric`, floats into `real` (from 32 bits) and `double precision`, strings into
//! text types, `uuid` and `json`/`jsonb`, bytes into `bytea`, instants with a zone into `timestamptz` and without into `timestamp`, dates,
//! decimals into `numeric`, lists of such values into arrays, and rows, maps and lists into `json` and `jsonb`.
//!
//! A value that PostgreSQL would refuse ends the transaction with all its rows; so it is found here, and is an error of its row: U+0000 in text, numbers
//! and instants out of range, text that is too long or no UUID or JSON, null where a value is required, keys beyond an index's page.
//!
//! Invariant: a refused row leaves nothing in the output.

use super::load::{Load, Upsert};
use super::numeric;
use super::table::Plan;
use crate::ConnectError;
use crate::format::json_write::Cells;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use pelton_core::{Batch, RowError, RowKind};

/// COPY's signature, no flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A tuple of -1 columns.
pub const FOOTER: &[u8] = &[0xff, 0xff];
/// Bytes of a key that fit an entry of an index whatever they are: a third of a page is 2,704 bytes.
const MAX_KEY_BYTES: usize = 2_600;
/// From 1970 to 2000, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i64 = 10_957;
/// From 4714-11-24 BC on; before 294277-01-01 and 5874898-01-01.
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
const DAYS: std::ops::Range<i64> = -2_451_545..2_145_031_949;

/// A column of the table that is written.
#[derive(Clone, Debug)]
pub struct Column {
    /// Number of the column in the rows.
    pub index: usize,
    /// Name in both.
    pub name: String,
    /// Type in the table.
    pub kind: Kind,
    /// It takes no null.
    pub required: bool,
    /// It is one of `key`.
    pub key: bool,
}

/// A type of PostgreSQL that values of ours go into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric(numeric::Bounds),
    /// With the longest text in characters, and the type's number.
    Text(Option<usize>, u32),
    Uuid,
    Json,
    Jsonb,
    Bytea,
    TimestampTz,
    Timestamp,
    Date,
    Array(Box<Kind>),
}

impl Kind {
    /// From the catalogue's name and modifier; `None`: a type that nothing of ours goes into.
    pub fn of(name: &str, modifier: i32) -> Option<Kind> {
        let length = usize::try_from(modifier - 4).ok();
        Some(match name {
            "bool" => Kind::Bool,
            "int2" => Kind::Int2,
            "int4" => Kind::Int4,
            "int8" => Kind::Int8,
            "float4" => Kind::Float4,
            "float8" => Kind::Float8,
            "numeric" => match length {
                None => Kind::Numeric(None),
                Some(both) => {
                    let (precision, scale) = (both >> 16, both & 0x7ff);
                    Kind::Numeric(Some((precision.checked_sub(scale)?, scale)))
                }
            },
            "text" => Kind::Text(None, 25),
            "bpchar" => Kind::Text(length, 1042),
            "varchar" => Kind::Text(length, 1043),
            "uuid" => Kind::Uuid,
            "json" => Kind::Json,
            "jsonb" => Kind::Jsonb,
            "bytea" => Kind::Bytea,
            "timestamptz" => Kind::TimestampTz,
            "timestamp" => Kind::Timestamp,
            "date" => Kind::Date,
            _ => return None,
        })
    }

    /// The type's number in every database, for elements of arrays.
    fn oid(&self) -> u32 {
        match self {
            Kind::Bool => 16,
            Kind::Int2 => 21,
            Kind::Int4 => 23,
            Kind::Int8 => 20,
            Kind::Float4 => 700,
            Kind::Float8 => 701,
            Kind::Numeric(_) => 1700,
            Kind::Text(_, oid) => *oid,
            Kind::Uuid => 2950,
            Kind::Json => 114,
            Kind::Jsonb => 3802,
            Kind::Bytea => 17,
            Kind::TimestampTz => 1184,
            Kind::Timestamp => 1114,
            Kind::Date => 1082,
            Kind::Array(_) => 0,
        }
    }

    /// Whether columns of this type of ours go into it, single values aside.
    pub fn takes(&self, ours: &DataType) -> bool {
        use DataType::{
            Boolean, Date32, Date64, Decimal128, Dictionary, FixedSizeList, Float32, Float64, LargeList, List, ListView, Map, Null, Struct,
            Timestamp,
        };
        match (self, ours) {
            (_, Dictionary(_, value)) => self.takes(value),
            (_, Null) | (Kind::Bool, Boolean) | (Kind::Float4, Float32) | (Kind::Float8, Float32 | Float64) => true,
            (Kind::Int2 | Kind::Int4 | Kind::Int8, integer) => integer.is_integer(),
            (Kind::Numeric(_), Decimal128(..)) | (Kind::Date, Date32 | Date64) => true,
            (Kind::Numeric(_), integer) => integer.is_integer(),
            (Kind::TimestampTz, Timestamp(_, zone)) => zone.is_some(),
            (Kind::Timestamp, Timestamp(_, zone)) => zone.is_none(),
            (Kind::Text(..) | Kind::Uuid, ours) => is_text(ours),
            (Kind::Bytea, ours) => is_bytes(ours),
            (Kind::Json | Kind::Jsonb, Struct(_) | Map(..) | List(_) | LargeList(_) | ListView(_) | FixedSizeList(..)) => true,
            (Kind::Json | Kind::Jsonb, ours) => is_text(ours),
            (Kind::Array(element), List(item) | LargeList(item) | ListView(item) | FixedSizeList(item, _)) => {
                element.takes(item.data_type())
            }
            _ => false,
        }
    }
}

fn is_text(ours: &DataType) -> bool {
    matches!(ours, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(ours: &DataType) -> bool {
    matches!(ours, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// Writes tuples, batch after batch.
pub struct Encoder {
    plan: Plan,
    /// Number of the next row, which tells rows of a key apart by their order.
    next: i64,
}

/// What a batch has come to.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Rows that were written.
    pub rows: u64,
    /// Some of them delete.
    pub removes: bool,
    /// The others.
    pub errors: Vec<RowError>,
}

impl Encoder {
    /// For rows of the plan's columns.
    pub fn new(plan: Plan) -> Encoder {
        Encoder { plan, next: 0 }
    }

    /// Where the tuples go.
    pub fn load(&self) -> &Load {
        &self.plan.load
    }

    /// Appends the tuples of a batch.
    pub fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<Encoded, ConnectError> {
        let columns = self.plan.columns.iter().map(|column| Values::of(&batch.rows.columns()[column.index], &column.kind));
        let columns: Vec<Values> = columns.collect::<Result<_, _>>().map_err(ConnectError::internal)?;
        let kinds = self.plan.row_kind.map(|column| cast(&batch.rows.columns()[column], &DataType::Int64)).transpose();
        let kinds = kinds.map_err(|error| ConnectError::internal(format!("`row_kind` is no integer: {error}")))?;
        let mut encoded = Encoded::default();
        for row in 0..batch.num_rows() {
            let start = out.len();
            let written = row_kind(kinds.as_ref(), row).and_then(|kind| self.tuple(&columns, batch, row, kind, out).map(|()| kind));
            match written {
                Ok(kind) => {
                    encoded.rows += 1;
                    encoded.removes |= kind.removes();
                }
                Err(message) => {
                    out.truncate(start);
                    encoded.errors.push(RowError { row: row as u32, message, stack: String::new() });
                }
            }
        }
        Ok(encoded)
    }

    fn tuple(&mut self, columns: &[Values], batch: &Batch, row: usize, kind: RowKind, out: &mut Vec<u8>) -> Result<(), String> {
        let upsert = self.plan.load.upsert.as_ref();
        if upsert.is_none() && kind != RowKind::Insert {
            return Err("`mode: append` takes only inserts; this row's `row_kind` is another".into());
        }
        let extra = if upsert.is_some() { 4 } else { 0 };
        out.extend_from_slice(&((columns.len() + extra) as i16).to_be_bytes());
        let mut key_bytes = 0;
        for (column, values) in self.plan.columns.iter().zip(columns) {
            let start = out.len();
            if values.is_null(row) {
                if column.key || (column.required && !kind.removes()) {
                    return Err(format!("column `{}`: null where the table needs a value", column.name));
                }
                out.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            }
            values.write(row, &column.kind, out).map_err(|reason| format!("column `{}`: {reason}", column.name))?;
            key_bytes += if column.key { out.len() - start } else { 0 };
        }
        if key_bytes > MAX_KEY_BYTES {
            return Err(format!("a key of {key_bytes} bytes; at most {MAX_KEY_BYTES} fit an index"));
        }
        if let Some(upsert) = upsert {
            write_order(upsert, self.next, kind, batch, row, out);
            self.next += 1;
        }
        Ok(())
    }
}

fn row_kind(kinds: Option<&ArrayRef>, row: usize) -> Result<RowKind, String> {
    let Some(kinds) = kinds.filter(|kinds| !kinds.is_null(row)) else { return Ok(RowKind::Insert) };
    let number = kinds.as_primitive::<Int64Type>().value(row);
    RowKind::from_number(number).ok_or_else(|| format!("column `row_kind`: {number} is no kind of row, which are 0 to 3"))
}

/// Row, removes, window, pane.
fn write_order(upsert: &Upsert, number: i64, kind: RowKind, batch: &Batch, row: usize, out: &mut Vec<u8>) {
    write_sized(&number.to_be_bytes(), out);
    write_sized(&[u8::from(kind.removes())], out);
    let windows = batch.windows.as_ref().filter(|_| upsert.panes);
    let pane = windows.and_then(|windows| {
        // A session's or the global window may end after PostgreSQL's time.
        let end = windows.table[windows.index[row] as usize].end.micros().saturating_sub(EPOCH_MICROS);
        MICROS.contains(&end).then_some((end, windows.pane.index))
    });
    match pane {
        Some((end, index)) => {
            write_sized(&end.to_be_bytes(), out);
            write_sized(&index.to_be_bytes(), out);
        }
        None => (0..2).for_each(|_| out.extend_from_slice(&(-1i32).to_be_bytes())),
    }
}

fn write_sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A column with its type known.
struct Values {
    array: ArrayRef,
    data: Data,
}

enum Data {
    Null,
    Boolean,
    Signed(ScalarBuffer<i64>),
    Unsigned(ScalarBuffer<u64>),
    Float(ScalarBuffer<f32>),
    Double(ScalarBuffer<f64>),
    Text,
    Bytes,
    Micros(ScalarBuffer<i64>),
    Date(ScalarBuffer<i32>),
    Decimal(ScalarBuffer<i128>, i8),
    List(OffsetBuffer<i32>, Box<Values>),
    Json(Cells),
}

impl Values {
    fn of(column: &ArrayRef, kind: &Kind) -> Result<Values, String> {
        let data_type = column.data_type();
        if let DataType::Dictionary(_, value) = data_type {
            return Values::of(&to(column, value)?, kind);
        }
        if matches!(kind, Kind::Json | Kind::Jsonb) && !is_text(data_type) && *data_type != DataType::Null {
            return Ok(Values { array: column.clone(), data: Data::Json(Cells::of(column)?) });
        }
        // Narrow types go into the widest of their kind, so that one loop serves all.
        let wide = match data_type {
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::UInt64,
            integer if integer.is_integer() => DataType::Int64,
            text if is_text(text) => DataType::Utf8,
            bytes if is_bytes(bytes) => DataType::Binary,
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            DataType::Date64 => DataType::Date32,
            DataType::LargeList(item) | DataType::ListView(item) | DataType::FixedSizeList(item, _) => DataType::List(item.clone()),
            other => other.clone(),
        };
        let array = if wide == *data_type { column.clone() } else { to(column, &wide)? };
        let data = match (&wide, kind) {
            (DataType::Null, _) => Data::Null,
            (DataType::Boolean, _) => Data::Boolean,
            (DataType::Int64, _) => Data::Signed(array.as_primitive::<Int64Type>().values().clone()),
            (DataType::UInt64, _) => Data::Unsigned(array.as_primitive::<UInt64Type>().values().clone()),
            (DataType::Float32, _) => Data::Float(array.as_primitive::<Float32Type>().values().clone()),
            (DataType::Float64, _) => Data::Double(array.as_primitive::<Float64Type>().values().clone()),
            (DataType::Utf8, _) => Data::Text,
            (DataType::Binary, _) => Data::Bytes,
            (DataType::Timestamp(..), _) => Data::Micros(array.as_primitive::<TimestampMicrosecondType>().values().clone()),
            (DataType::Date32, _) => Data::Date(array.as_primitive::<Date32Type>().values().clone()),
            (DataType::Decimal128(_, scale), _) => Data::Decimal(array.as_primitive::<Decimal128Type>().values().clone(), *scale),
            (DataType::List(_), Kind::Array(element)) => {
                let list = array.as_list::<i32>();
                Data::List(list.offsets().clone(), Box::new(Values::of(list.values(), element)?))
            }
            (other, _) => return Err(format!("a column of type {other} got past the check of the table")),
        };
        Ok(Values { array, data })
    }

    fn is_null(&self, row: usize) -> bool {
        matches!(self.data, Data::Null) || self.array.is_null(row)
    }

    /// Appends length and value.
    fn write(&self, row: usize, kind: &Kind, out: &mut Vec<u8>) -> Result<(), String> {
        match &self.data {
            Data::Null => return Err("a null is no value".into()),
            Data::Boolean => write_sized(&[u8::from(self.array.as_boolean().value(row))], out),
            Data::Signed(values) => return write_integer(i128::from(values[row]), kind, out),
            Data::Unsigned(values) => return write_integer(i128::from(values[row]), kind, out),
            Data::Float(values) if *kind == Kind::Float4 => write_sized(&values[row].to_be_bytes(), out),
            Data::Float(values) => write_sized(&f64::from(values[row]).to_be_bytes(), out),
            Data::Double(values) => write_sized(&values[row].to_be_bytes(), out),
            Data::Text => return write_text(self.array.as_string::<i32>().value(row), kind, out),
            Data::Bytes => write_sized(self.array.as_binary::<i32>().value(row), out),
            Data::Micros(values) => {
                let micros = values[row].checked_sub(EPOCH_MICROS).filter(|micros| MICROS.contains(micros));
                write_sized(&micros.ok_or("an instant beyond the years that PostgreSQL has")?.to_be_bytes(), out);
            }
            Data::Date(values) => {
                let days = i64::from(values[row]) - EPOCH_DAYS;
                let days = i32::try_from(days).ok().filter(|_| DAYS.contains(&days));
                write_sized(&days.ok_or("a date beyond the years that PostgreSQL has")?.to_be_bytes(), out);
            }
            Data::Decimal(values, scale) => {
                let Kind::Numeric(bounds) = kind else { return Err("a decimal got past the check of the table".into()) };
                return numeric::write(values[row], *scale, *bounds, out);
            }
            Data::List(offsets, items) => return write_array(offsets[row] as usize..offsets[row + 1] as usize, items, kind, out),
            Data::Json(cells) => {
                let mut text = Vec::new();
                cells.write(row, &mut text)?;
                if has_escaped_nul(&text) {
                    return Err("text with the character U+0000, which PostgreSQL cannot hold".into());
                }
                write_json(&text, kind, out);
            }
        }
        Ok(())
    }
}

fn to(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    // Instants that do not fit become null instead of an error only where the cast is told so; the default refuses them.
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(column, data_type, &options).map_err(|error| error.to_string())
}

fn write_integer(value: i128, kind: &Kind, out: &mut Vec<u8>) -> Result<(), String> {
    let beyond = |type_name: &str| format!("{value} is out of range of {type_name}");
    match kind {
        Kind::Int2 => write_sized(&i16::try_from(value).map_err(|_| beyond("smallint"))?.to_be_bytes(), out),
        Kind::Int4 => write_sized(&i32::try_from(value).map_err(|_| beyond("integer"))?.to_be_bytes(), out),
        Kind::Int8 => write_sized(&i64::try_from(value).map_err(|_| beyond("bigint"))?.to_be_bytes(), out),
        Kind::Numeric(bounds) => return numeric::write(value, 0, *bounds, out),
        _ => return Err("an integer got past the check of the table".into()),
    }
    Ok(())
}

fn write_text(text: &str, kind: &Kind, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Kind::Uuid => write_sized(&parse_uuid(text).ok_or("text that is no UUID")?, out),
        Kind::Json | Kind::Jsonb => {
            check_json(text)?;
            write_json(text.as_bytes(), kind, out);
        }
        Kind::Text(longest, _) => {
            if text.contains('\0') {
                return Err("text with the character U+0000, which PostgreSQL cannot hold".into());
            }
            if let Some(longest) = longest.filter(|longest| text.len() > *longest && text.chars().count() > *longest) {
                return Err(format!("text of more than {longest} characters"));
            }
            write_sized(text.as_bytes(), out);
        }
        _ => return Err("a string got past the check of the table".into()),
    }
    Ok(())
}

fn write_json(text: &[u8], kind: &Kind, out: &mut Vec<u8>) {
    let version: &[u8] = if *kind == Kind::Jsonb { &[1] } else { &[] };
    out.extend_from_slice(&((text.len() + version.len()) as i32).to_be_bytes());
    out.extend_from_slice(version);
    out.extend_from_slice(text);
}

/// One dimension that begins at 1; none for an empty list.
fn write_array(items: std::ops::Range<usize>, values: &Values, kind: &Kind, out: &mut Vec<u8>) -> Result<(), String> {
    let Kind::Array(element) = kind else { return Err("a list got past the check of the table".into()) };
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let dimensions = i32::from(!items.is_empty());
    let has_null = i32::from(items.clone().any(|item| values.is_null(item)));
    for number in [dimensions, has_null, element.oid() as i32] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    if dimensions == 1 {
        out.extend_from_slice(&(items.len() as i32).to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
    }
    for item in items {
        match values.is_null(item) {
            true => out.extend_from_slice(&(-1i32).to_be_bytes()),
            false => values.write(item, element, out)?,
        }
    }
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// 32 hexadecimal digits, with hyphens after the 8th, 12th, 16th and 20th or without any.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let hyphens: &[usize] = if text.len() == 36 { &[8, 13, 18, 23] } else { &[] };
    let bytes = text.as_bytes();
    if hyphens.iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    let digits: Vec<u8> = bytes.iter().enumerate().filter(|(at, _)| !hyphens.contains(at)).map(|(_, byte)| *byte).collect();
    let mut uuid = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        let digit = |byte: u8| (byte as char).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(uuid)
}

/// What both the parser here and PostgreSQL's take: no U+0000, no half of a pair of surrogates, no number beyond its numerics.
fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| format!("text that is no JSON: {error}"))?;
    if has_escaped_nul(text.as_bytes()) {
        return Err("JSON with the character U+0000, which PostgreSQL cannot hold".into());
    }
    // Every second part stands between quotes; an escaped quote only moves text to the other side, where it is no number.
    let is_number = |part: &&str| part.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-')));
    match parts.filter(is_number).all(is_modest) {
        true => Ok(()),
        false => Err("JSON with a number of too many digits".into()),
    }
}

/// Whether a number has so few digits that every numeric holds it.
fn is_modest(number: &str) -> bool {
    const DIGITS: usize = 10_000;
    let exponent = number.rfind(['e', 'E']).map_or("0", |at| &number[at + 1..]);
    number.len() <= DIGITS && exponent.parse::<i64>().is_ok_and(|exponent| exponent.unsigned_abs() <= DIGITS as u64)
}

/// Whether JSON has the escape of U+0000: an escaped backslash may stand before `u0000`.
fn has_escaped_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        if rest[at..].starts_with(b"\\u0000") {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        let bytes = Some([0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0x00]);
        assert_eq!(parse_uuid("123e4567-e89b-12d3-a456-426614174000"), bytes);
        assert_eq!(parse_uuid("123E4567E89B12D3A456426614174000"), bytes);
        for wrong in
            ["", "123e4567-e89b-12d3-a456-42661417400", "123e4567-e89b-12d3-a4566426614174000", "ü23e4567-e89b-12d3-a456-4266141740"]
        {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn json_that_the_server_would_refuse() {
        for (text, right) in [
            (r#"{"a": [1, "x\\u0000"]}"#, true),
            (r#""a\u0000""#, false),
            (r#""\ud800""#, false),
            ("1e999", false),
            ("[1e-20000]", false),
            ("-1.5e-300", true),
            ("{", false),
            ("", false),
        ] {
            assert_eq!(check_json(text).is_ok(), right, "{text}");
        }
    }

    #[test]
    fn types_go_into_types_that_hold_them() {
        let numeric = |precision: i32, scale: i32| Kind::of("numeric", ((precision << 16) | scale) + 4);
        assert_eq!(numeric(10, 2), Some(Kind::Numeric(Some((8, 2)))));
        assert_eq!(numeric(3, 5), None);
        assert_eq!(Kind::of("varchar", 24), Some(Kind::Text(Some(20), 1043)));
        assert!(Kind::Int4.takes(&DataType::Int64) && !Kind::Float8.takes(&DataType::Int64) && !Kind::Float4.takes(&DataType::Float64));
        assert!(
            !Kind::Text(None, 25).takes(&DataType::Int64)
                && !Kind::Timestamp.takes(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        );
    }
}
