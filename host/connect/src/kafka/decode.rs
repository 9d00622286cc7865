//! Blocks of records become columns.
//!
//! A record leads to one row or to one error, never to none and never to both.

use super::block::{Block, NO_TIME, headers_type};
use super::configs::{Format, PAYLOAD, ReadConfig, Tombstones};
use crate::ConnectError;
use crate::format::json_read::JsonDecoder;
use crate::format::schema;
use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use pelton_core::Instant;
use pelton_core::batch::MAX_ROW_BYTES;
use pelton_core::fault::{FormatError, MAX_ELEMENT_BYTES};
use std::sync::Arc;

/// Columns that a source can give, and how to make them.
#[derive(Clone, Debug)]
pub struct Columns {
    format: Format,
    tombstones: Tombstones,
    json: Option<Schema>,
    about: Vec<(About, FieldRef)>,
    schema: SchemaRef,
    wanted: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Payload,
    Key,
    RawKey,
    Headers,
    Partition,
    Offset,
    Timestamp,
}

impl Columns {
    /// Columns of a config; the faults of its schema as one error.
    pub fn new(config: &ReadConfig) -> Result<Columns, ConnectError> {
        let json = match &config.schema {
            Some(given) if config.format == Format::Json => Some(value_schema(given)?),
            _ => None,
        };
        let names = &config.columns;
        let key = if names.raw_key { (About::RawKey, DataType::Binary) } else { (About::Key, DataType::Utf8) };
        let payload = match config.format {
            Format::Json => None,
            Format::Text => Some((About::Payload, DataType::Utf8)),
            Format::Raw => Some((About::Payload, DataType::Binary)),
        };
        let payload_name = Some(PAYLOAD.to_string());
        let possible = [
            (payload.is_some().then_some(&payload_name).and_then(Option::as_ref), payload.unwrap_or((About::Payload, DataType::Binary))),
            (names.key.as_ref(), key),
            (names.headers.as_ref(), (About::Headers, headers_type())),
            (names.partition.as_ref(), (About::Partition, DataType::Int32)),
            (names.offset.as_ref(), (About::Offset, DataType::Int64)),
            (names.timestamp.as_ref(), (About::Timestamp, schema::timestamp())),
        ];
        let about: Vec<(About, FieldRef)> = possible
            .into_iter()
            .filter_map(|(name, (about, data_type))| name.map(|name| (about, Arc::new(Field::new(name, data_type, true)))))
            .collect();
        let mut fields: Vec<FieldRef> = json.iter().flat_map(|json| schema::nullable(json).fields().to_vec()).collect();
        for (_, field) in &about {
            if fields.iter().any(|known| known.name() == field.name()) {
                return Err(ConnectError::user(
                    format!(
                        "the schema of topic {} has a field `{}`, and so is a column about the record called",
                        config.topic,
                        field.name()
                    ),
                    "give the column another name",
                ));
            }
            fields.push(field.clone());
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Columns { format: config.format, tombstones: config.tombstones, json, about, schema, wanted: None })
    }

    /// All columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Only these from now on; the check of a key's text stays, since a record's fate must not depend on what is read of it.
    pub fn project(&mut self, columns: &[String]) {
        self.wanted = Some(columns.to_vec());
    }

    /// A decoder for one reader.
    pub fn decoder(&self) -> Result<Decoder, ConnectError> {
        let json = match &self.json {
            Some(schema) => Some(JsonDecoder::new(schema, self.wanted.as_deref()).map_err(ConnectError::internal)?),
            None => None,
        };
        let is_wanted = |field: &FieldRef| self.wanted.as_ref().is_none_or(|names| names.contains(field.name()));
        let mut fields: Vec<FieldRef> = json.iter().flat_map(|json| json.schema().fields().to_vec()).collect();
        let about: Vec<About> = self.about.iter().filter(|(_, field)| is_wanted(field)).map(|(about, _)| *about).collect();
        fields.extend(self.about.iter().map(|(_, field)| field).filter(|field| is_wanted(field)).cloned());
        Ok(Decoder { columns: self.clone(), json, about, schema: Arc::new(Schema::new(fields)) })
    }
}

fn value_schema(given: &serde_json::Value) -> Result<Schema, ConnectError> {
    const HELP: &str = "write `schema: {type: object, properties: {name: {type: string}}}`";
    let parsed = match given {
        // Beam takes the schema as JSON text.
        serde_json::Value::String(text) => {
            Some(serde_json::from_str(text).map_err(|error| ConnectError::user(format!("`schema` is no JSON: {error}"), HELP))?)
        }
        _ => None,
    };
    schema::parse(parsed.as_ref().unwrap_or(given)).map_err(|faults| {
        let all: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.path.join("."), fault.message)).collect();
        ConnectError::user(format!("`schema` has faults: {}", all.join("; ")), HELP)
    })
}

/// Decodes the blocks of one reader.
pub struct Decoder {
    columns: Columns,
    json: Option<JsonDecoder>,
    about: Vec<About>,
    schema: SchemaRef,
}

/// Rows of a block.
pub struct Decoded {
    /// The wanted columns.
    pub rows: RecordBatch,
    /// Event times in microseconds.
    pub times: ScalarBuffer<i64>,
    /// Offsets of the rows.
    pub offsets: ScalarBuffer<i64>,
    /// Records that led to no row.
    pub errors: Vec<FormatError>,
}

impl Decoder {
    /// Every record of the block as a row or an error.
    pub fn decode(&mut self, block: &Block) -> Decoded {
        let mut kept: Vec<u32> = Vec::with_capacity(block.offsets.len());
        let mut times: Vec<i64> = Vec::with_capacity(block.offsets.len());
        let mut errors = Vec::new();
        for row in 0..block.offsets.len() {
            let time = micros(block.times[row]);
            match time.clone().and_then(|micros| self.accept(block, row).map(|()| micros)) {
                Ok(micros) => {
                    kept.push(row as u32);
                    times.push(micros);
                }
                Err(message) => {
                    errors.push(FormatError { element: element(block, row), message, offset: block.offsets[row], time: time.ok() })
                }
            }
        }
        let offsets: ScalarBuffer<i64> = kept.iter().map(|row| block.offsets[*row as usize]).collect();
        let times = ScalarBuffer::from(times);
        let rows = self.rows(block, kept, &times, &offsets);
        Decoded { rows, times, offsets, errors }
    }

    /// Whether the record becomes a row; its JSON is then in the decoder.
    fn accept(&mut self, block: &Block, row: usize) -> Result<(), String> {
        let values = &block.values;
        if values.value_length(row) as usize > MAX_ROW_BYTES {
            return Err(format!("the record has {} bytes, more than the {MAX_ROW_BYTES} that a row may have", values.value_length(row)));
        }
        if block.bad_headers.binary_search(&(row as u32)).is_ok() {
            return Err("the name of a header is not UTF-8".into());
        }
        if let Some(keys) = block.keys.as_ref().filter(|_| self.columns.about.iter().any(|(about, _)| *about == About::Key))
            && simdutf8::basic::from_utf8(keys.value(row)).is_err()
        {
            return Err("the key is not UTF-8; read it with `key_format: RAW`".into());
        }
        match (self.columns.format, values.is_null(row), &mut self.json) {
            (Format::Raw, _, _) | (Format::Text, true, _) => Ok(()),
            (Format::Text, false, _) => {
                simdutf8::basic::from_utf8(values.value(row)).map(|_| ()).map_err(|_| "not UTF-8; read it with `format: RAW`".into())
            }
            (Format::Json, true, _) if self.columns.tombstones == Tombstones::Error => {
                Err("a tombstone: the record has no value; `tombstones: null` makes it a row of nulls".into())
            }
            (Format::Json, true, Some(json)) => json.push(b"{}"),
            (Format::Json, false, Some(_)) if values.value_length(row) == 0 => Err("the value is empty".into()),
            (Format::Json, false, Some(json)) => json.push(values.value(row)),
            (Format::Json, _, None) => Err("no schema".into()),
        }
    }

    fn rows(&mut self, block: &Block, kept: Vec<u32>, times: &ScalarBuffer<i64>, offsets: &ScalarBuffer<i64>) -> RecordBatch {
        let count = kept.len();
        let all = count == block.offsets.len();
        let rows = UInt32Array::from(kept);
        let pick = |column: &dyn Array| -> ArrayRef {
            if all { column.slice(0, count) } else { take(column, &rows, None).expect("row numbers are in range") }
        };
        let mut columns: Vec<ArrayRef> = self.json.as_mut().map(|json| json.finish().columns().to_vec()).unwrap_or_default();
        for about in &self.about {
            columns.push(match about {
                About::Payload if self.columns.format == Format::Text => strings(&pick(&block.values)),
                About::Payload => pick(&block.values),
                About::Key => strings(&pick(block.keys.as_ref().expect("keys were collected"))),
                About::RawKey => pick(block.keys.as_ref().expect("keys were collected")),
                About::Headers => pick(block.headers.as_ref().expect("headers were collected")),
                About::Partition => Arc::new(Int32Array::from_value(block.partition, count)),
                About::Offset => Arc::new(Int64Array::new(offsets.clone(), None)),
                About::Timestamp => Arc::new(TimestampMicrosecondArray::new(times.clone(), None).with_timezone("UTC")),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("the columns follow the schema")
    }
}

/// Bytes that were checked to be UTF-8, as strings.
fn strings(bytes: &ArrayRef) -> ArrayRef {
    use arrow::array::AsArray;
    let bytes = bytes.as_binary::<i32>();
    let mut strings = StringBuilder::with_capacity(bytes.len(), bytes.value_data().len());
    for value in bytes {
        strings.append_option(value.map(|value| std::str::from_utf8(value).expect("checked when the record was accepted")));
    }
    Arc::new(strings.finish())
}

fn element(block: &Block, row: usize) -> Vec<u8> {
    let value = block.values.value(row);
    value[..value.len().min(MAX_ELEMENT_BYTES)].to_vec()
}

/// Kafka's milliseconds as event time.
fn micros(millis: i64) -> Result<i64, String> {
    if millis == NO_TIME {
        return Err("the record has no timestamp".into());
    }
    Instant::from_units(millis, 1_000).map(Instant::micros).map_err(|error| format!("the record's timestamp is no event time: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::configs;
    use arrow::array::{AsArray, BinaryArray};
    use serde_json::json;

    fn block(values: Vec<Option<&[u8]>>) -> Block {
        let rows = values.len();
        Block {
            partition: 2,
            offsets: (10..10 + rows as i64).collect(),
            times: vec![5; rows],
            values: BinaryArray::from_iter(values),
            keys: Some(BinaryArray::from_iter(std::iter::repeat_n(Some(b"k"), rows))),
            headers: None,
            bad_headers: Vec::new(),
            bytes: 0,
            next: 10 + rows as i64,
            caught_up: false,
            ended: false,
        }
    }

    fn decoder(extra: serde_json::Value) -> Decoder {
        let mut config = json!({"topic": "t", "bootstrap_servers": "b:1", "key": "k", "offset_field": "at"});
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        let mut faults = configs::check_read(&config);
        let config = configs::read(&config, &mut faults);
        assert_eq!(faults, []);
        Columns::new(&config).unwrap().decoder().unwrap()
    }

    fn check(extra: serde_json::Value, values: Vec<Option<&[u8]>>, kept: &[i64], errors: &[(i64, &str)]) -> Decoded {
        let decoded = decoder(extra).decode(&block(values));
        assert_eq!(&*decoded.offsets, kept);
        let found: Vec<(i64, bool)> =
            decoded.errors.iter().zip(errors).map(|(error, (_, part))| (error.offset, error.message.contains(part))).collect();
        assert_eq!(found, errors.iter().map(|(offset, _)| (*offset, true)).collect::<Vec<_>>(), "{:?}", decoded.errors);
        assert_eq!(decoded.errors.len(), errors.len());
        assert_eq!(decoded.rows.num_rows(), kept.len());
        decoded
    }

    #[test]
    fn raw_takes_everything() {
        let decoded = check(json!({}), vec![Some(b"a"), None, Some(b""), Some(b"\xff")], &[10, 11, 12, 13], &[]);
        assert_eq!(decoded.rows.column(0).as_binary::<i32>(), &BinaryArray::from_iter([Some(&b"a"[..]), None, Some(b""), Some(b"\xff")]));
        assert_eq!(&*decoded.times, &[5_000; 4]);
    }

    #[test]
    fn text_keeps_nulls_and_empty_values_apart() {
        let decoded =
            check(json!({"format": "STRING"}), vec![None, Some(b""), Some(b"\xff"), Some("é".as_bytes())], &[10, 11, 13], &[(12, "UTF-8")]);
        assert_eq!(decoded.rows.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some(""), Some("é")]);
        assert_eq!(decoded.rows.column(1).as_string::<i32>().value(2), "k");
    }

    #[test]
    fn json_refuses_tombstones_empty_values_and_broken_texts() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let values = || vec![Some(&b"{\"a\": 1}"[..]), None, Some(b""), Some(b"{"), Some(b"{\"a\": 2}")];
        let errors = [(11, "tombstone"), (12, "empty"), (13, "")];
        let decoded = check(json!({"format": "JSON", "schema": schema}), values(), &[10, 14], &errors);
        assert_eq!(decoded.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().values(), &[1, 2]);
        check(json!({"format": "JSON", "schema": schema.to_string(), "tombstones": "null"}), values(), &[10, 11, 14], &errors[1..]);
    }
}
