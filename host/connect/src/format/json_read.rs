//! JSON objects, one a record, straight into columns.
//!
//! The text is walked once. A wanted field goes into its column as it is met; every other field is skipped without being
//! looked into. Keys usually come in the same order in each record, so the decoder remembers the order of the first one and
//! compares with one name before it looks in a table.
//!
//! Doubles and decimals are read from their text by the standard library: serde_json's own reading of fractions may be off by one
//! bit, and a number must come out as it went in.
//!
//! Invariants: a refused record leaves nothing. A key that comes twice counts the last time, as in serde_json and Python.
//! A missing field is null.

use super::column::{Column, Data};
use super::schema;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// Keys whose order is remembered; beyond them the table is asked.
const MAX_REMEMBERED_KEYS: usize = 256;
/// The slot of a key that nobody wants.
const IGNORED: usize = usize::MAX;

/// Collects records into batches.
pub struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    slots: HashMap<String, usize>,
    order: Vec<(Box<str>, usize)>,
    rows: usize,
}

impl JsonDecoder {
    /// A decoder of the fields of `schema`, or of those that `projection` names, in the order of the schema.
    /// Fields that are not nullable are required. Batches have nullable columns only.
    pub fn new(schema: &Schema, projection: Option<&[String]>) -> Result<JsonDecoder, String> {
        let wanted = |name: &String| projection.is_none_or(|names| names.contains(name));
        let fields: Fields = schema.fields().iter().filter(|field| wanted(field.name())).cloned().collect();
        let columns = fields.iter().map(|field| Column::new(field)).collect::<Result<Vec<_>, _>>()?;
        let slots = fields.iter().enumerate().map(|(slot, field)| (field.name().clone(), slot)).collect();
        Ok(JsonDecoder { schema: schema::nullable(&Schema::new(fields)), columns, slots, order: Vec::new(), rows: 0 })
    }

    /// Schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Rows since the last batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes those rows take.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// Adds a record; the reason if it is refused.
    pub fn push(&mut self, record: &[u8]) -> Result<(), String> {
        match simdutf8::basic::from_utf8(record) {
            Ok(text) => self.push_text(text),
            Err(_) => Err("not UTF-8".into()),
        }
    }

    /// As [`JsonDecoder::push`] for text that is known to be UTF-8.
    pub fn push_text(&mut self, record: &str) -> Result<(), String> {
        let mut failed = None;
        let mut input = serde_json::Deserializer::from_str(record);
        let row = Row { columns: &mut self.columns, slots: &self.slots, order: &mut self.order, rows: self.rows, failed: &mut failed };
        let result = input.deserialize_any(row).and_then(|()| input.end()).map_err(|error| error.to_string());
        let filled = match result {
            Ok(()) => self.fill_missing(),
            Err(message) => Err(match failed.and_then(|slot: usize| self.schema.fields().get(slot)) {
                Some(field) => format!("field `{}`: {message}", field.name()),
                None => message,
            }),
        };
        match filled {
            Ok(()) => self.rows += 1,
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.rows)),
        }
        filled
    }

    fn fill_missing(&mut self) -> Result<(), String> {
        for (column, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            if column.len() == self.rows {
                column.push_null().map_err(|reason| format!("field `{}`: {reason}", field.name()))?;
            }
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

/// One record on its way into the columns.
struct Row<'a> {
    columns: &'a mut [Column],
    slots: &'a HashMap<String, usize>,
    order: &'a mut Vec<(Box<str>, usize)>,
    rows: usize,
    failed: &'a mut Option<usize>,
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut at = 0;
        while let Some(slot) = map.next_key_seed(Key { slots: self.slots, order: self.order, at: &mut at })? {
            if slot == IGNORED {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let column = &mut self.columns[slot];
            if column.len() > self.rows {
                column.truncate(self.rows);
            }
            map.next_value_seed(Fill(column)).inspect_err(|_| *self.failed = Some(slot))?;
        }
        Ok(())
    }
}

/// Finds the column of a key.
struct Key<'a> {
    slots: &'a HashMap<String, usize>,
    order: &'a mut Vec<(Box<str>, usize)>,
    at: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<usize, E> {
        // One key further on too: a field that this record lacks.
        for ahead in 0..2 {
            match self.order.get(*self.at + ahead) {
                Some((name, slot)) if **name == *key => {
                    *self.at += ahead + 1;
                    return Ok(*slot);
                }
                _ => {}
            }
        }
        let slot = self.slots.get(key).copied().unwrap_or(IGNORED);
        if *self.at == self.order.len() && self.order.len() < MAX_REMEMBERED_KEYS {
            self.order.push((key.into(), slot));
        }
        *self.at += 1;
        Ok(slot)
    }
}

/// Adds one JSON value to a column.
struct Fill<'a>(&'a mut Column);

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &self.0.data {
            Data::Double(..) | Data::Decimal(..) => {
                let text = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
                self.number(text).map_err(D::Error::custom)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Fill<'_> {
    /// A number from its text, for the types where each digit counts.
    fn number(self, text: &str) -> Result<(), String> {
        let Fill(column) = self;
        let fits = match text.as_bytes().first() {
            Some(b'n') => return column.push_null().map_err(str::to_owned),
            Some(b'-' | b'0'..=b'9') => match &column.data {
                Data::Decimal(..) => column.push_string(text),
                _ => text.parse().is_ok_and(|value: f64| value.is_finite() && column.push_double(value)),
            },
            Some(b'"') if matches!(column.data, Data::Decimal(..)) => column.push_string(text.trim_matches('"')),
            _ => false,
        };
        let shown: String = text.chars().take(40).collect();
        if fits { Ok(()) } else { Err(format!("`{shown}` is no {}", column.type_name())) }
    }

    fn refuse<E: Error>(&self, value: impl fmt::Display) -> E {
        let shown: String = value.to_string().chars().take(40).collect();
        E::custom(format_args!("`{shown}` is no {}", self.0.type_name()))
    }

    fn accept<E: Error>(self, fits: bool, value: impl fmt::Display) -> Result<(), E> {
        if fits { Ok(()) } else { Err(self.refuse(value)) }
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.type_name())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.push_null().map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let fits = self.0.push_boolean(value);
        self.accept(fits, value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        let fits = self.0.push_integer(value);
        self.accept(fits, value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let fits = i64::try_from(value).is_ok_and(|value| self.0.push_integer(value));
        self.accept(fits, value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let fits = self.0.push_double(value);
        self.accept(fits, value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let fits = self.0.push_string(value);
        self.accept(fits, value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Data::List(_, _, child) = &mut self.0.data else { return Err(self.refuse("[…]")) };
        while items.next_element_seed(Fill(child))?.is_some() {}
        self.0.close_items();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match &mut self.0.data {
            Data::Struct(fields, rows, children) => {
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    match fields.iter().position(|field| *field.name() == *key) {
                        Some(slot) => {
                            children[slot].truncate(*rows);
                            map.next_value_seed(Fill(&mut children[slot]))
                                .map_err(|error| A::Error::custom(format_args!("`{key}`: {error}")))?;
                        }
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                for (child, field) in children.iter_mut().zip(fields.iter()) {
                    if child.len() == *rows {
                        child.push_null().map_err(|reason| A::Error::custom(format_args!("`{}`: {reason}", field.name())))?;
                    }
                }
            }
            Data::Map(_, _, _, keys, values) => {
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    keys.push_string(&key);
                    map.next_value_seed(Fill(values))?;
                }
            }
            _ => return Err(self.refuse("{…}")),
        }
        self.0.close_items();
        Ok(())
    }
}
