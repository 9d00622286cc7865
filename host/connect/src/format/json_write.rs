//! Rows as JSON objects, one by one.
//!
//! How types are written: timestamps as RFC 3339 with `Z` (without, where the column has no zone), dates as `YYYY-MM-DD`, decimals
//! as numbers with all their digits, bytes as base64, maps as objects, nulls as `null`. JSON has no NaN and no infinities: such a
//! row is refused.
//!
//! Invariant: a refused row leaves nothing in the output.

use super::{schema, text};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use pelton_core::Instant;

/// Writes rows of one batch; made once a batch, since it finds out the types of the columns.
pub struct JsonEncoder {
    columns: Vec<(Vec<u8>, Cells)>,
}

impl JsonEncoder {
    /// An encoder of the batch's rows; types that JSON cannot say are refused.
    pub fn new(batch: &RecordBatch) -> Result<JsonEncoder, String> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns.map(|(field, column)| Ok((key(field.name()), Cells::of(column)?))).collect::<Result<_, String>>()?;
        Ok(JsonEncoder { columns })
    }

    /// Appends the row's object, without a line end.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        write_object(&self.columns, row, out).inspect_err(|_| out.truncate(start))
    }
}

/// Appends one row of a batch. For many rows make a [`JsonEncoder`].
pub fn write_row(batch: &RecordBatch, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    JsonEncoder::new(batch)?.write(row, out)
}

fn key(name: &str) -> Vec<u8> {
    let mut written = Vec::with_capacity(name.len() + 3);
    write_string(name, &mut written);
    written.push(b':');
    written
}

fn write_object(columns: &[(Vec<u8>, Cells)], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    out.push(b'{');
    for (position, (key, cells)) in columns.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        cells
            .write(row, out)
            .map_err(|reason| format!("field {}: {reason}", String::from_utf8_lossy(&key[..key.len() - 1]).replace('"', "`")))?;
    }
    out.push(b'}');
    Ok(())
}

/// A column with its type known.
pub(crate) struct Cells {
    array: ArrayRef,
    nullable: bool,
    kind: Kind,
}

enum Kind {
    Null,
    Boolean,
    Signed(ScalarBuffer<i64>),
    Unsigned(ScalarBuffer<u64>),
    Float(ScalarBuffer<f32>),
    Double(ScalarBuffer<f64>),
    Text,
    Bytes,
    Instant { values: ScalarBuffer<i64>, unit: TimeUnit, zoned: bool },
    Date(ScalarBuffer<i32>),
    Decimal(ScalarBuffer<i128>, i8),
    List(OffsetBuffer<i32>, Box<Cells>),
    Struct(Vec<(Vec<u8>, Cells)>),
    Map(OffsetBuffer<i32>, Box<Cells>, Box<Cells>),
}

impl Cells {
    pub(crate) fn of(column: &ArrayRef) -> Result<Cells, String> {
        let unreadable = || format!("a {} cannot be written", schema::name(column.data_type()));
        // Layouts that say the same as a plainer one are cast to it, so that one loop serves them.
        let plain = match column.data_type() {
            DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Some(DataType::Binary),
            DataType::Date64 => Some(DataType::Date32),
            DataType::Dictionary(_, value) => Some((**value).clone()),
            DataType::LargeList(item) | DataType::ListView(item) | DataType::FixedSizeList(item, _) => Some(DataType::List(item.clone())),
            _ => None,
        };
        if let Some(plain) = plain {
            return Cells::of(&cast(column, &plain).map_err(|_| unreadable())?);
        }
        let kind = match column.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 => Kind::Signed(column.as_primitive::<Int8Type>().values().iter().map(|value| i64::from(*value)).collect()),
            DataType::Int16 => Kind::Signed(column.as_primitive::<Int16Type>().values().iter().map(|value| i64::from(*value)).collect()),
            DataType::Int32 => Kind::Signed(column.as_primitive::<Int32Type>().values().iter().map(|value| i64::from(*value)).collect()),
            DataType::Int64 => Kind::Signed(column.as_primitive::<Int64Type>().values().clone()),
            DataType::UInt8 => Kind::Unsigned(column.as_primitive::<UInt8Type>().values().iter().map(|value| u64::from(*value)).collect()),
            DataType::UInt16 => {
                Kind::Unsigned(column.as_primitive::<UInt16Type>().values().iter().map(|value| u64::from(*value)).collect())
            }
            DataType::UInt32 => {
                Kind::Unsigned(column.as_primitive::<UInt32Type>().values().iter().map(|value| u64::from(*value)).collect())
            }
            DataType::UInt64 => Kind::Unsigned(column.as_primitive::<UInt64Type>().values().clone()),
            DataType::Float32 => Kind::Float(column.as_primitive::<Float32Type>().values().clone()),
            DataType::Float64 => Kind::Double(column.as_primitive::<Float64Type>().values().clone()),
            DataType::Utf8 => Kind::Text,
            DataType::Binary => Kind::Bytes,
            DataType::Timestamp(unit, zone) => {
                let values = match unit {
                    TimeUnit::Second => column.as_primitive::<TimestampSecondType>().values(),
                    TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().values(),
                    TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().values(),
                    TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().values(),
                };
                Kind::Instant { values: values.clone(), unit: *unit, zoned: zone.is_some() }
            }
            DataType::Date32 => Kind::Date(column.as_primitive::<Date32Type>().values().clone()),
            DataType::Decimal128(_, scale) => Kind::Decimal(column.as_primitive::<Decimal128Type>().values().clone(), *scale),
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                Kind::List(list.offsets().clone(), Box::new(Cells::of(list.values())?))
            }
            DataType::Struct(_) => Kind::Struct(children(column.as_struct())?),
            DataType::Map(..) => {
                let map = column.as_map();
                Kind::Map(map.offsets().clone(), Box::new(Cells::of(map.keys())?), Box::new(Cells::of(map.values())?))
            }
            _ => return Err(unreadable()),
        };
        Ok(Cells { nullable: column.null_count() > 0, array: column.clone(), kind })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        matches!(self.kind, Kind::Null) || (self.nullable && self.array.is_null(row))
    }

    /// The string of a row, for columns that have strings: what CSV and text write without JSON's quotes.
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        matches!(self.kind, Kind::Text).then(|| self.array.as_string::<i32>().value(row))
    }

    /// The value is written as a JSON string, and would stand bare elsewhere.
    pub(crate) fn is_quoted(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Bytes | Kind::Instant { .. } | Kind::Date(_))
    }

    /// NaN and infinities, which JSON lacks.
    pub(crate) fn special_number(&self, row: usize) -> Option<f64> {
        match &self.kind {
            Kind::Double(values) => Some(values[row]).filter(|value| !value.is_finite()),
            Kind::Float(values) => Some(f64::from(values[row])).filter(|value| !value.is_finite()),
            _ => None,
        }
    }

    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.kind {
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::Boolean => out.extend_from_slice(if self.array.as_boolean().value(row) { b"true" } else { b"false" }),
            Kind::Signed(values) => out.extend_from_slice(itoa::Buffer::new().format(values[row]).as_bytes()),
            Kind::Unsigned(values) => out.extend_from_slice(itoa::Buffer::new().format(values[row]).as_bytes()),
            Kind::Float(values) if values[row].is_finite() => {
                out.extend_from_slice(ryu::Buffer::new().format_finite(values[row]).as_bytes());
            }
            Kind::Double(values) if values[row].is_finite() => {
                out.extend_from_slice(ryu::Buffer::new().format_finite(values[row]).as_bytes());
            }
            Kind::Float(_) | Kind::Double(_) => {
                let value = self.special_number(row).unwrap_or(f64::NAN);
                return Err(format!("{value} cannot be written as JSON"));
            }
            Kind::Text => write_string(self.array.as_string::<i32>().value(row), out),
            Kind::Bytes => {
                out.push(b'"');
                text::write_base64(self.array.as_binary::<i32>().value(row), out);
                out.push(b'"');
            }
            Kind::Instant { values, unit, zoned } => {
                out.push(b'"');
                write_instant(values[row], *unit, *zoned, out)?;
                out.push(b'"');
            }
            Kind::Date(values) => {
                out.push(b'"');
                text::write_date(i64::from(values[row]), out);
                out.push(b'"');
            }
            Kind::Decimal(values, scale) => text::write_decimal(values[row], *scale, out),
            Kind::List(offsets, items) => {
                out.push(b'[');
                for (position, item) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    items.write(item as usize, out)?;
                }
                out.push(b']');
            }
            Kind::Struct(children) => write_object(children, row, out)?,
            Kind::Map(offsets, keys, values) => {
                out.push(b'{');
                for (position, entry) in (offsets[row]..offsets[row + 1]).enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    write_key(keys, entry as usize, out)?;
                    out.push(b':');
                    values.write(entry as usize, out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

fn children(array: &StructArray) -> Result<Vec<(Vec<u8>, Cells)>, String> {
    let fields = array.fields().iter().zip(array.columns());
    fields.map(|(field, column)| Ok((key(field.name()), Cells::of(column)?))).collect()
}

/// A map's key: JSON has strings only, so other types are quoted as they are written.
fn write_key(keys: &Cells, entry: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if keys.is_quoted() {
        return keys.write(entry, out);
    }
    let mut bare = Vec::new();
    keys.write(entry, &mut bare)?;
    write_string(&String::from_utf8_lossy(&bare), out);
    Ok(())
}

fn write_instant(value: i64, unit: TimeUnit, zoned: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let instant = match unit {
        TimeUnit::Second => Instant::from_units(value, 1_000_000),
        TimeUnit::Millisecond => Instant::from_units(value, 1_000),
        TimeUnit::Microsecond => Instant::from_micros(value),
        TimeUnit::Nanosecond => Ok(Instant::from_nanos(value)),
    };
    let mut written = String::with_capacity(27);
    instant.map_err(|error| error.to_string())?.write_rfc3339(&mut written);
    let length = if zoned { written.len() } else { written.len() - 1 };
    out.extend_from_slice(&written.as_bytes()[..length]);
    Ok(())
}

/// Appends a JSON string. Most strings need no escape; they are copied in one piece.
pub fn write_string(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = value.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match escape {
            b'u' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            short => out.extend_from_slice(&[b'\\', short]),
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// For each byte what follows the backslash; 0: no escape.
const ESCAPES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0;
    while byte < 32 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[8] = b'b';
    table[12] = b'f';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};
