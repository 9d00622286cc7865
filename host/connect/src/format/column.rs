//! Columns that grow value by value, and that can take the values of a refused row back.
//!
//! Arrow's own builders cannot shorten again; a decoder needs that, since a row may turn out to be wrong in its last field.
//!
//! Invariant: after `truncate(n)` a column is as it was when it had `n` values.

use super::{schema, text};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, MapArray, NullArray, NullBufferBuilder, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use std::sync::Arc;

/// A growing column.
pub struct Column {
    pub(crate) data: Data,
    validity: NullBufferBuilder,
    /// Null is refused.
    pub(crate) required: bool,
}

/// Values by how they are kept: integers of every width as i64 until the end, which keeps decoders small.
pub(crate) enum Data {
    Null(usize),
    Boolean(BooleanBufferBuilder),
    Integer(DataType, Vec<i64>),
    Double(DataType, Vec<f64>),
    Text(Bytes),
    Binary(Bytes),
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
    Decimal(u8, i8, Vec<i128>),
    List(FieldRef, Vec<i32>, Box<Column>),
    Struct(Fields, usize, Vec<Column>),
    Map(FieldRef, bool, Vec<i32>, Box<Column>, Box<Column>),
}

/// Values of varying length, end to end.
pub(crate) struct Bytes {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    fn new() -> Bytes {
        Bytes { offsets: vec![0], bytes: Vec::new() }
    }

    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.offsets.push(self.bytes.len() as i32);
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.bytes.truncate(self.offsets.last().map_or(0, |end| *end as usize));
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Vec<u8>) {
        let (rows, length) = (self.offsets.len(), self.bytes.len());
        let mut next = Vec::with_capacity(rows);
        next.push(0);
        let offsets = std::mem::replace(&mut self.offsets, next);
        (OffsetBuffer::new(offsets.into()), std::mem::replace(&mut self.bytes, Vec::with_capacity(length)))
    }
}

impl Column {
    /// A column of this type; types that no row can have are refused by name.
    pub fn new(field: &Field) -> Result<Column, String> {
        let data = match field.data_type() {
            DataType::Null => Data::Null(0),
            DataType::Boolean => Data::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Data::Integer(field.data_type().clone(), Vec::new()),
            DataType::Float32 | DataType::Float64 => Data::Double(field.data_type().clone(), Vec::new()),
            DataType::Utf8 => Data::Text(Bytes::new()),
            DataType::Binary => Data::Binary(Bytes::new()),
            data_type if *data_type == schema::timestamp() => Data::Timestamp(Vec::new()),
            DataType::Date32 => Data::Date(Vec::new()),
            DataType::Decimal128(precision, scale) => Data::Decimal(*precision, *scale, Vec::new()),
            DataType::List(item) => {
                let kept = Field::new(item.name(), schema::nullable_type(item.data_type()), true);
                Data::List(Arc::new(kept), vec![0], Box::new(Column::new(item)?))
            }
            DataType::Struct(fields) => {
                let children = fields.iter().map(|field| Column::new(field)).collect::<Result<_, _>>()?;
                match schema::nullable_type(field.data_type()) {
                    DataType::Struct(fields) => Data::Struct(fields, 0, children),
                    _ => return Err("a struct stays a struct".into()),
                }
            }
            DataType::Map(entries, sorted) => match entries.data_type() {
                DataType::Struct(pair) if *pair[0].data_type() == DataType::Utf8 => {
                    let DataType::Map(kept, _) = schema::nullable_type(field.data_type()) else { return Err("a map stays a map".into()) };
                    Data::Map(kept, *sorted, vec![0], Box::new(Column::new(&pair[0])?), Box::new(Column::new(&pair[1])?))
                }
                _ => return Err(format!("field `{}`: only maps from strings can be read", field.name())),
            },
            other => return Err(format!("field `{}`: a {} cannot be read", field.name(), schema::name(other))),
        };
        Ok(Column { data, validity: NullBufferBuilder::new(0), required: !field.is_nullable() })
    }

    /// Values so far.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Null(rows) | Data::Struct(_, rows, _) => *rows,
            Data::Boolean(values) => values.len(),
            Data::Integer(_, values) | Data::Timestamp(values) => values.len(),
            Data::Double(_, values) => values.len(),
            Data::Text(bytes) | Data::Binary(bytes) => bytes.offsets.len() - 1,
            Data::Date(values) => values.len(),
            Data::Decimal(_, _, values) => values.len(),
            Data::List(_, offsets, _) | Data::Map(_, _, offsets, _, _) => offsets.len() - 1,
        }
    }

    /// No values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes the values take.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::Null(_) => 0,
            Data::Boolean(values) => values.len() / 8,
            Data::Integer(_, values) | Data::Timestamp(values) => 8 * values.len(),
            Data::Double(_, values) => 8 * values.len(),
            Data::Text(bytes) | Data::Binary(bytes) => bytes.bytes.len() + 4 * bytes.offsets.len(),
            Data::Date(values) => 4 * values.len(),
            Data::Decimal(_, _, values) => 16 * values.len(),
            Data::List(_, offsets, child) => 4 * offsets.len() + child.bytes(),
            Data::Struct(_, _, children) => children.iter().map(Column::bytes).sum(),
            Data::Map(_, _, offsets, keys, values) => 4 * offsets.len() + keys.bytes() + values.bytes(),
        }
    }

    /// Takes back every value from `rows` on; also those of a nested value that was left half done.
    pub fn truncate(&mut self, rows: usize) {
        match &mut self.data {
            Data::Null(kept) => *kept = (*kept).min(rows),
            Data::Boolean(values) => values.truncate(rows.min(values.len())),
            Data::Integer(_, values) | Data::Timestamp(values) => values.truncate(rows),
            Data::Double(_, values) => values.truncate(rows),
            Data::Text(bytes) | Data::Binary(bytes) => bytes.truncate(rows),
            Data::Date(values) => values.truncate(rows),
            Data::Decimal(_, _, values) => values.truncate(rows),
            Data::List(_, offsets, child) => {
                offsets.truncate(rows + 1);
                child.truncate(last(offsets));
            }
            Data::Struct(_, kept, children) => {
                *kept = (*kept).min(rows);
                children.iter_mut().for_each(|child| child.truncate(rows));
            }
            Data::Map(_, _, offsets, keys, values) => {
                offsets.truncate(rows + 1);
                keys.truncate(last(offsets));
                values.truncate(last(offsets));
            }
        }
        if self.validity.len() > rows {
            self.validity.truncate(rows);
        }
    }

    /// Adds a null; an error where one is refused.
    pub fn push_null(&mut self) -> Result<(), &'static str> {
        if self.required {
            return Err("a value is required");
        }
        match &mut self.data {
            Data::Null(rows) => *rows += 1,
            Data::Boolean(values) => values.append(false),
            Data::Integer(_, values) | Data::Timestamp(values) => values.push(0),
            Data::Double(_, values) => values.push(0.0),
            Data::Text(bytes) | Data::Binary(bytes) => bytes.push(&[]),
            Data::Date(values) => values.push(0),
            Data::Decimal(_, _, values) => values.push(0),
            Data::List(_, offsets, _) | Data::Map(_, _, offsets, _, _) => offsets.push(last(offsets) as i32),
            Data::Struct(_, rows, children) => {
                *rows += 1;
                for child in children {
                    // Below a null nothing is required: the slot is never looked at.
                    let required = std::mem::replace(&mut child.required, false);
                    child.push_null()?;
                    child.required = required;
                }
            }
        }
        self.validity.append_null();
        Ok(())
    }

    /// Marks the value that was just added as being there.
    pub(crate) fn set_valid(&mut self) {
        self.validity.append_non_null();
    }

    pub(crate) fn push_boolean(&mut self, value: bool) -> bool {
        match &mut self.data {
            Data::Boolean(values) => values.append(value),
            _ => return false,
        }
        self.set_valid();
        true
    }

    /// Adds an integer where it fits: to integers of every width, doubles, decimals, and as seconds to timestamps.
    pub(crate) fn push_integer(&mut self, value: i64) -> bool {
        let fits = match &mut self.data {
            Data::Integer(width, values) => {
                values.push(value);
                match width {
                    DataType::Int8 => i8::try_from(value).is_ok(),
                    DataType::Int16 => i16::try_from(value).is_ok(),
                    DataType::Int32 => i32::try_from(value).is_ok(),
                    _ => true,
                }
            }
            Data::Double(_, values) => {
                values.push(value as f64);
                true
            }
            Data::Timestamp(values) => match pelton_core::Instant::from_units(value, 1_000_000) {
                Ok(instant) => {
                    values.push(instant.micros());
                    true
                }
                Err(_) => false,
            },
            _ => return false,
        };
        self.set_valid();
        fits
    }

    /// Adds a double: to doubles, to integers where it is a whole number, and as seconds to timestamps.
    pub(crate) fn push_double(&mut self, value: f64) -> bool {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match &mut self.data {
            Data::Double(_, values) => values.push(value),
            Data::Integer(..) if value.fract() == 0.0 && value.abs() <= EXACT => return self.push_integer(value as i64),
            Data::Timestamp(values) => match pelton_core::Instant::from_seconds(value) {
                Ok(instant) => values.push(instant.micros()),
                Err(_) => return false,
            },
            _ => return false,
        }
        self.set_valid();
        true
    }

    /// Adds what a string says: to strings as it is; to bytes from base64; timestamps, dates and decimals in their written form.
    pub(crate) fn push_string(&mut self, value: &str) -> bool {
        match &mut self.data {
            Data::Text(bytes) => bytes.push(value.as_bytes()),
            Data::Binary(bytes) => match text::from_base64(value) {
                Some(decoded) => bytes.push(&decoded),
                None => return false,
            },
            Data::Timestamp(values) => match pelton_core::Instant::parse_rfc3339(value) {
                Ok(instant) => values.push(instant.micros()),
                Err(_) => return false,
            },
            Data::Date(values) => match text::parse_date(value) {
                Some(days) => values.push(days),
                None => return false,
            },
            Data::Decimal(precision, scale, values) => match text::parse_decimal(value, *precision, *scale) {
                Some(decimal) => values.push(decimal),
                None => return false,
            },
            _ => return false,
        }
        self.set_valid();
        true
    }

    /// Ends a list or map: everything added to its children since the last one.
    pub(crate) fn close_items(&mut self) {
        match &mut self.data {
            Data::List(_, offsets, child) => offsets.push(child.len() as i32),
            Data::Map(_, _, offsets, keys, _) => offsets.push(keys.len() as i32),
            Data::Struct(_, rows, _) => *rows += 1,
            _ => {}
        }
        self.set_valid();
    }

    /// The type of the values, in the words of a message.
    pub(crate) fn type_name(&self) -> String {
        match &self.data {
            Data::Null(_) => "null".into(),
            Data::Boolean(_) => "boolean".into(),
            Data::Integer(data_type, _) | Data::Double(data_type, _) => schema::name(data_type),
            Data::Text(_) => "string".into(),
            Data::Binary(_) => "bytes (base64)".into(),
            Data::Timestamp(_) => "timestamp (RFC 3339, or seconds)".into(),
            Data::Date(_) => "date (YYYY-MM-DD)".into(),
            Data::Decimal(precision, scale, _) => format!("decimal({precision},{scale})"),
            Data::List(..) => "list".into(),
            Data::Struct(..) => "row".into(),
            Data::Map(..) => "map".into(),
        }
    }

    /// The values as an array; the column is empty again.
    pub fn finish(&mut self) -> ArrayRef {
        let nulls = self.validity.finish();
        match &mut self.data {
            Data::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Data::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Integer(data_type, values) => {
                let values = renew(values);
                match data_type {
                    DataType::Int8 => Arc::new(Int8Array::new(values.into_iter().map(|value| value as i8).collect(), nulls)),
                    DataType::Int16 => Arc::new(Int16Array::new(values.into_iter().map(|value| value as i16).collect(), nulls)),
                    DataType::Int32 => Arc::new(Int32Array::new(values.into_iter().map(|value| value as i32).collect(), nulls)),
                    _ => Arc::new(Int64Array::new(values.into(), nulls)),
                }
            }
            Data::Double(DataType::Float32, values) => {
                Arc::new(Float32Array::new(renew(values).into_iter().map(|value| value as f32).collect::<ScalarBuffer<f32>>(), nulls))
            }
            Data::Double(_, values) => Arc::new(Float64Array::new(renew(values).into(), nulls)),
            Data::Text(bytes) => {
                let (offsets, values) = bytes.take();
                // SAFETY: `push_string` is the only way in, and takes a `str`; offsets lie between whole values.
                Arc::new(unsafe { StringArray::new_unchecked(offsets, values.into(), nulls) })
            }
            Data::Binary(bytes) => {
                let (offsets, values) = bytes.take();
                Arc::new(BinaryArray::new(offsets, values.into(), nulls))
            }
            Data::Timestamp(values) => Arc::new(TimestampMicrosecondArray::new(renew(values).into(), nulls).with_timezone("UTC")),
            Data::Date(values) => Arc::new(Date32Array::new(renew(values).into(), nulls)),
            Data::Decimal(precision, scale, values) => {
                Arc::new(Decimal128Array::new(renew(values).into(), nulls).with_data_type(DataType::Decimal128(*precision, *scale)))
            }
            Data::List(item, offsets, child) => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::new(item.clone(), offsets, child.finish(), nulls))
            }
            Data::Struct(fields, rows, children) => {
                let rows = std::mem::take(rows);
                let columns: Vec<ArrayRef> = children.iter_mut().map(Column::finish).collect();
                match columns.is_empty() {
                    true => Arc::new(StructArray::new_empty_fields(rows, nulls)),
                    false => Arc::new(StructArray::new(fields.clone(), columns, nulls)),
                }
            }
            Data::Map(entries, sorted, offsets, keys, values) => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let DataType::Struct(pair) = entries.data_type() else { unreachable!("a map's entries are a struct") };
                let pairs = StructArray::new(pair.clone(), vec![keys.finish(), values.finish()], None);
                Arc::new(MapArray::new(entries.clone(), offsets, pairs, nulls, *sorted))
            }
        }
    }
}

/// The values; what comes next has room for as many.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len());
    std::mem::replace(values, room)
}

fn last(offsets: &[i32]) -> usize {
    offsets.last().map_or(0, |end| *end as usize)
}
