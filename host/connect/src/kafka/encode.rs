//! A row becomes key, value, headers and partition of a record.
//!
//! The columns are found once, when the sink opens; a column of a wrong type is the author's fault and ends the run there.

use super::configs::{Format, PAYLOAD, WriteConfig};
use crate::ConnectError;
use crate::format::json_write::JsonEncoder;
use crate::format::schema::name;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int8Type, Int16Type, Int32Type, Int64Type, Schema};
use rdkafka::message::{Header, OwnedHeaders};

/// Which columns become what.
#[derive(Clone, Debug)]
pub struct Layout {
    format: Format,
    key: Option<usize>,
    headers: Option<usize>,
    partition: Option<usize>,
    value: Vec<usize>,
}

/// The record of a row, without its time.
#[derive(Debug, Default)]
pub struct Encoded {
    /// `None`: a tombstone.
    pub value: Option<std::ops::Range<usize>>,
    /// Headers, where the row has them.
    pub headers: Option<OwnedHeaders>,
    /// Bytes of the headers.
    pub headers_bytes: usize,
    /// Partition, where the row names one.
    pub partition: Option<i32>,
}

impl Layout {
    /// Finds the columns of a config in a schema.
    pub fn new(config: &WriteConfig, schema: &Schema) -> Result<Layout, ConnectError> {
        let find = |key: &str, column: &Option<String>, fits: fn(&DataType) -> bool, needed: &str| match column {
            None => Ok(None),
            Some(column) => find(schema, key, column, fits, needed).map(Some),
        };
        let key = find("key", &config.key, is_text_or_bytes, "string or bytes")?;
        let headers =
            find("headers", &config.headers, is_headers, "a list of {key: string, value: bytes} or a map from string to string or bytes")?;
        let partition = find("partition_field", &config.partition, is_partition, "an integer of 8 to 64 bits")?;
        let about: Vec<usize> = [headers, partition].into_iter().flatten().collect();
        let rest: Vec<usize> = (0..schema.fields().len()).filter(|column| !about.contains(column)).collect();
        let value = match config.format {
            Format::Json => rest,
            Format::Text | Format::Raw => vec![value_column(schema, config.format, key, &rest)?],
        };
        Ok(Layout { format: config.format, key, headers, partition, value })
    }

    /// An encoder of a batch's rows.
    pub fn encoder<'a>(&self, rows: &'a RecordBatch) -> Result<Encoder<'a>, ConnectError> {
        let json = match self.format {
            Format::Json => {
                let value = rows.project(&self.value).map_err(ConnectError::internal)?;
                Some(JsonEncoder::new(&value).map_err(|reason| {
                    ConnectError::user(format!("the rows cannot be written as JSON: {reason}"), "change or drop the column")
                })?)
            }
            Format::Text | Format::Raw => None,
        };
        let column = |index: Option<usize>| index.map(|index| rows.column(index));
        Ok(Encoder {
            json,
            value: rows.column(self.value[0]),
            key: column(self.key),
            headers: column(self.headers),
            partition: column(self.partition),
        })
    }
}

fn find(schema: &Schema, key: &str, column: &str, fits: fn(&DataType) -> bool, needed: &str) -> Result<usize, ConnectError> {
    let Some((index, field)) = schema.fields().find(column) else {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(ConnectError::user(
            format!("`{key}` names the column `{column}`, which the input does not have"),
            format!("columns: {}", columns.join(", ")),
        ));
    };
    if !fits(field.data_type()) {
        let message = format!("`{key}` names the column `{column}`, which is {}", name(field.data_type()));
        return Err(ConnectError::user(message, format!("it must be {needed}; convert it with MapToFields")));
    }
    Ok(index)
}

fn value_column(schema: &Schema, format: Format, key: Option<usize>, rest: &[usize]) -> Result<usize, ConnectError> {
    let others: Vec<usize> = rest.iter().copied().filter(|column| Some(*column) != key).collect();
    let named = schema.fields().find(PAYLOAD).map(|(index, _)| index).filter(|index| rest.contains(index));
    let index = match (named, others.as_slice()) {
        (Some(index), _) => index,
        (None, [only]) => *only,
        _ => {
            return Err(ConnectError::user(
                format!("the input has {} columns that could be the value", others.len()),
                format!(
                    "with this format the value is the column `{PAYLOAD}`, or the only column beside key, headers and partition; `format: JSON` writes all"
                ),
            ));
        }
    };
    let field = schema.field(index);
    let fits = match format {
        Format::Text => *field.data_type() == DataType::Utf8,
        _ => is_text_or_bytes(field.data_type()),
    };
    let needed = if format == Format::Text { "a string" } else { "bytes or a string" };
    if fits {
        Ok(index)
    } else {
        Err(ConnectError::user(
            format!("the value column `{}` is {}", field.name(), name(field.data_type())),
            format!("it must be {needed}, or use `format: JSON`"),
        ))
    }
}

fn is_text_or_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Binary)
}

fn is_partition(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

fn is_headers(data_type: &DataType) -> bool {
    let pairs = match data_type {
        DataType::List(item) => item,
        DataType::Map(entries, _) => entries,
        _ => return false,
    };
    match pairs.data_type() {
        DataType::Struct(pair) => pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 && is_text_or_bytes(pair[1].data_type()),
        _ => false,
    }
}

/// Encodes the rows of one batch.
pub struct Encoder<'a> {
    json: Option<JsonEncoder>,
    value: &'a ArrayRef,
    key: Option<&'a ArrayRef>,
    headers: Option<&'a ArrayRef>,
    partition: Option<&'a ArrayRef>,
}

impl<'a> Encoder<'a> {
    /// The record of a row; `out` is cleared and holds its value. The error is the reason to refuse the row.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) -> Result<Encoded, String> {
        out.clear();
        let value = match &self.json {
            Some(json) => {
                json.write(row, out)?;
                true
            }
            None => bytes(self.value, row).map(|value| out.extend_from_slice(value)).is_some(),
        };
        let (headers, headers_bytes) = match self.headers {
            Some(column) if column.is_valid(row) => headers(column, row)?,
            _ => (None, 0),
        };
        let partition = match self.partition {
            Some(column) if column.is_valid(row) => Some(integer(column, row)),
            _ => None,
        };
        let partition = partition
            .map(|number| i32::try_from(number).ok().filter(|number| *number >= 0).ok_or(format!("{number} is no partition")))
            .transpose()?;
        Ok(Encoded { value: value.then_some(0..out.len()), headers, headers_bytes, partition })
    }

    /// Key of a row.
    pub fn key(&self, row: usize) -> Option<&'a [u8]> {
        self.key.and_then(|column| bytes(column, row))
    }
}

fn bytes(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        _ => None,
    }
}

fn integer(column: &ArrayRef, row: usize) -> i64 {
    match column.data_type() {
        DataType::Int8 => i64::from(column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => i64::from(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(row)),
        _ => column.as_primitive::<Int64Type>().value(row),
    }
}

fn headers(column: &ArrayRef, row: usize) -> Result<(Option<OwnedHeaders>, usize), String> {
    let pairs: ArrayRef = match column.data_type() {
        DataType::Map(..) => std::sync::Arc::new(column.as_map().value(row)),
        _ => column.as_list::<i32>().value(row),
    };
    let pairs = pairs.as_struct();
    let (names, values) = (pairs.column(0).as_string::<i32>(), pairs.column(1));
    let mut headers = OwnedHeaders::new_with_capacity(pairs.len());
    let mut size = 0;
    for pair in 0..pairs.len() {
        if pairs.is_null(pair) || names.is_null(pair) {
            return Err("a header has no name".into());
        }
        let key = names.value(pair);
        // Names end with a zero byte inside the client.
        if key.contains('\0') {
            return Err("the name of a header has a zero byte".into());
        }
        let value = bytes(values, pair);
        size += key.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD;
        headers = headers.insert(Header { key, value });
    }
    Ok(((!pairs.is_empty()).then_some(headers), size))
}

/// Lengths that a record stores beside each header, at most.
const HEADER_OVERHEAD: usize = 10;
