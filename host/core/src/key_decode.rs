//! Key columns back from canonical key bytes: what a grouping gives out as its `group_by`.
//!
//! The bytes are normal forms, so -0.0 comes back as 0.0. They come from our own state; damage is an error, not a panic.

use crate::key::{KeyEncoder, LARGE, NULL, PRESENT, SIGN};
use arrow::array::builder::{BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder, UInt64Builder};
use arrow::array::{ArrayRef, ListArray, NullArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::Arc;

/// Decodes keys of known field types.
#[derive(Clone, Debug)]
pub struct KeyDecoder {
    types: Vec<DataType>,
}

const DAMAGED: &str = "key bytes in state are damaged";

impl KeyDecoder {
    /// For the types that the encoder was made for.
    pub fn new(types: &[DataType]) -> Result<KeyDecoder, String> {
        KeyEncoder::new(types).map(|encoder| KeyDecoder { types: encoder.types().to_vec() })
    }

    /// The key whose fields are all null.
    pub fn null_key(&self) -> Vec<u8> {
        vec![NULL; self.types.len()]
    }

    /// One column a field, one row a key.
    pub fn decode<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<Vec<ArrayRef>, String> {
        self.decode_rows(keys.map(|key| (key, 1)))
    }

    /// The same for bytes in which so many rows lie one after the other (see `KeyEncoder::for_rows`).
    pub fn decode_rows<'k>(&self, pieces: impl Iterator<Item = (&'k [u8], usize)>) -> Result<Vec<ArrayRef>, String> {
        let mut columns: Vec<Builder> = self.types.iter().map(Builder::of).collect();
        for (mut piece, rows) in pieces {
            for _ in 0..rows {
                for column in &mut columns {
                    column.take(&mut piece)?;
                }
            }
            if !piece.is_empty() {
                return Err(DAMAGED.into());
            }
        }
        columns.into_iter().zip(&self.types).map(|(column, data_type)| column.finish(data_type)).collect()
    }
}

enum Builder {
    Nothing(usize),
    Whole(Int64Builder),
    Unsigned(UInt64Builder),
    Double(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Decimal(Decimal128Builder, i8),
    List(Vec<i32>, Vec<bool>, Box<Builder>),
    Struct(Vec<bool>, Vec<Builder>),
}

impl Builder {
    fn of(data_type: &DataType) -> Builder {
        match data_type {
            DataType::Null => Builder::Nothing(0),
            DataType::UInt64 => Builder::Unsigned(UInt64Builder::new()),
            DataType::Float32 | DataType::Float64 => Builder::Double(Float64Builder::new()),
            DataType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            DataType::Utf8 => Builder::Text(StringBuilder::new()),
            DataType::Binary => Builder::Bytes(BinaryBuilder::new()),
            DataType::Decimal128(_, scale) => Builder::Decimal(Decimal128Builder::new(), *scale),
            DataType::List(item) => Builder::List(vec![0], Vec::new(), Box::new(Builder::of(item.data_type()))),
            DataType::Struct(fields) => Builder::Struct(Vec::new(), fields.iter().map(|field| Builder::of(field.data_type())).collect()),
            _ => Builder::Whole(Int64Builder::new()),
        }
    }

    /// Takes one field off the front of a key.
    fn take(&mut self, key: &mut &[u8]) -> Result<(), String> {
        match one(key)? {
            NULL => {
                self.null();
                Ok(())
            }
            LARGE => match self {
                Builder::Unsigned(values) => {
                    values.append_value(u64::from_be_bytes(fixed(key)?));
                    Ok(())
                }
                _ => Err(DAMAGED.into()),
            },
            PRESENT => self.value(key),
            _ => Err(DAMAGED.into()),
        }
    }

    fn value(&mut self, key: &mut &[u8]) -> Result<(), String> {
        match self {
            Builder::Nothing(_) => return Err(DAMAGED.into()),
            Builder::Whole(values) => values.append_value((u64::from_be_bytes(fixed(key)?) ^ SIGN) as i64),
            Builder::Unsigned(values) => values.append_value(u64::from_be_bytes(fixed(key)?) ^ SIGN),
            Builder::Double(values) => {
                let ordered = u64::from_be_bytes(fixed(key)?);
                values.append_value(f64::from_bits(if ordered & SIGN != 0 { ordered ^ SIGN } else { !ordered }));
            }
            Builder::Boolean(values) => values.append_value(one(key)? == 1),
            Builder::Text(values) => values.append_value(String::from_utf8(bytes(key)?).map_err(|_| DAMAGED)?),
            Builder::Bytes(values) => values.append_value(bytes(key)?),
            Builder::Decimal(values, scale) => {
                let written = one(key)? as i8;
                let value = (u128::from_be_bytes(fixed(key)?) ^ (1 << 127)) as i128;
                let zeros = u32::try_from(i32::from(*scale) - i32::from(written)).map_err(|_| DAMAGED)?;
                let factor = 10i128.checked_pow(zeros).ok_or(DAMAGED)?;
                values.append_value(if value == 0 { 0 } else { value.checked_mul(factor).ok_or(DAMAGED)? });
            }
            Builder::List(offsets, present, items) => {
                let mut count = *offsets.last().expect("offsets start with 0");
                while one(key)? == PRESENT {
                    items.take(key)?;
                    count += 1;
                }
                offsets.push(count);
                present.push(true);
            }
            Builder::Struct(present, fields) => {
                fields.iter_mut().try_for_each(|field| field.take(key))?;
                present.push(true);
            }
        }
        Ok(())
    }

    fn null(&mut self) {
        match self {
            Builder::Nothing(rows) => *rows += 1,
            Builder::Whole(values) => values.append_null(),
            Builder::Unsigned(values) => values.append_null(),
            Builder::Double(values) => values.append_null(),
            Builder::Boolean(values) => values.append_null(),
            Builder::Text(values) => values.append_null(),
            Builder::Bytes(values) => values.append_null(),
            Builder::Decimal(values, _) => values.append_null(),
            Builder::List(offsets, present, _) => {
                offsets.push(*offsets.last().expect("offsets start with 0"));
                present.push(false);
            }
            Builder::Struct(present, fields) => {
                fields.iter_mut().for_each(Builder::null);
                present.push(false);
            }
        }
    }

    fn finish(self, data_type: &DataType) -> Result<ArrayRef, String> {
        let made: ArrayRef = match (self, data_type) {
            (Builder::Nothing(rows), _) => Arc::new(NullArray::new(rows)),
            (Builder::Whole(mut values), DataType::Date32) => {
                cast(&values.finish(), &DataType::Int32).map_err(|error| error.to_string())?
            }
            (Builder::Whole(mut values), _) => Arc::new(values.finish()),
            (Builder::Unsigned(mut values), _) => Arc::new(values.finish()),
            (Builder::Double(mut values), _) => Arc::new(values.finish()),
            (Builder::Boolean(mut values), _) => Arc::new(values.finish()),
            (Builder::Text(mut values), _) => Arc::new(values.finish()),
            (Builder::Bytes(mut values), _) => Arc::new(values.finish()),
            (Builder::Decimal(mut values, _), DataType::Decimal128(precision, scale)) => {
                Arc::new(values.finish().with_precision_and_scale(*precision, *scale).map_err(|error| error.to_string())?)
            }
            (Builder::List(offsets, present, items), DataType::List(item)) => {
                let items = items.finish(item.data_type())?;
                Arc::new(
                    ListArray::try_new(item.clone(), OffsetBuffer::new(offsets.into()), items, nulls(present))
                        .map_err(|error| error.to_string())?,
                )
            }
            (Builder::Struct(present, columns), DataType::Struct(fields)) => {
                let columns =
                    columns.into_iter().zip(fields).map(|(column, field)| column.finish(field.data_type())).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new(fields.clone(), columns, nulls(present)).map_err(|error| error.to_string())?)
            }
            _ => return Err(DAMAGED.into()),
        };
        if made.data_type() == data_type { Ok(made) } else { cast(&made, data_type).map_err(|error| error.to_string()) }
    }
}

fn nulls(present: Vec<bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from(present)).filter(|nulls| nulls.null_count() > 0)
}

fn one(key: &mut &[u8]) -> Result<u8, String> {
    let (first, rest) = key.split_first().ok_or(DAMAGED)?;
    *key = rest;
    Ok(*first)
}

fn fixed<const N: usize>(key: &mut &[u8]) -> Result<[u8; N], String> {
    let (first, rest) = key.split_first_chunk::<N>().ok_or(DAMAGED)?;
    *key = rest;
    Ok(*first)
}

fn bytes(key: &mut &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    loop {
        match one(key)? {
            0 => match one(key)? {
                0 => return Ok(out),
                0xFF => out.push(0),
                _ => return Err(DAMAGED.into()),
            },
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keys;
    use arrow::array::builder::{Int32Builder, ListBuilder};
    use arrow::array::{
        Array, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int16Array, StringArray, TimestampMicrosecondArray, UInt64Array,
    };
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    #[test]
    fn what_is_encoded_comes_back() {
        let mut lists = ListBuilder::new(Int32Builder::new());
        lists.append_value([Some(1), None]);
        lists.append_null();
        lists.append_value([]);
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a\0b"), None, Some("")]));
        let columns: Vec<ArrayRef> = vec![
            text.clone(),
            Arc::new(Int16Array::from(vec![Some(-3), Some(7), None])),
            Arc::new(UInt64Array::from(vec![1, u64::MAX, 3])),
            Arc::new(Float64Array::from(vec![Some(-1.5), None, Some(f64::INFINITY)])),
            Arc::new(BooleanArray::from(vec![true, false, true])),
            Arc::new(Date32Array::from(vec![Some(-1), Some(20_000), None])),
            Arc::new(TimestampMicrosecondArray::from(vec![1, -2, 3]).with_timezone("UTC")),
            Arc::new(Decimal128Array::from(vec![Some(1_500), Some(0), Some(-7)]).with_precision_and_scale(12, 3).expect("fits")),
            Arc::new(lists.finish()),
            Arc::new(StructArray::new(
                vec![Field::new("t", DataType::Utf8, true)].into(),
                vec![text],
                Some(NullBuffer::from(vec![true, true, false])),
            )),
        ];
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let mut keys = Keys::default();
        KeyEncoder::new(&types).expect("key types").encode(&columns, &mut keys);
        let decoded = KeyDecoder::new(&types).expect("key types").decode((0..3).map(|row| keys.get(row))).expect("whole keys");
        for (was, is) in columns.iter().zip(&decoded) {
            assert_eq!(was.as_ref(), is.as_ref());
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let types = [DataType::Utf8, DataType::Int64, DataType::List(Arc::new(Field::new("item", DataType::Decimal128(10, 2), true)))];
            let _ = KeyDecoder::new(&types).expect("key types").decode(std::iter::once(bytes.as_slice()));
        }
    }
}
