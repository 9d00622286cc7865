//! Values as canonical bytes ([`pelton_core::key`]): how an aggregate keeps values of any type.
//!
//! Equal values have equal bytes, so that -0.0 comes back as 0.0 and there is one NaN. For top they must also be in order,
//! which a decimal's canonical bytes are not: [`Ordered`] writes those as 16 bytes with the sign bit flipped.

use arrow::array::types::Decimal128Type;
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use std::sync::Arc;

/// Before each element of a list, after `Present` values in general; see the format of keys.
const PRESENT: u8 = 1;
/// After the elements of a list.
const END: u8 = 0;

/// A type's values to bytes and back.
pub(super) struct Values {
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    keys: Keys,
}

impl Values {
    /// Of a type that can be a key.
    pub fn new(data_type: &DataType) -> Result<Values, String> {
        let types = std::slice::from_ref(data_type);
        Ok(Values { encoder: KeyEncoder::new(types)?, decoder: KeyDecoder::new(types)?, keys: Keys::default() })
    }

    /// The bytes of the values of a column; no value has none.
    pub fn encode(&mut self, column: &ArrayRef) -> &Keys {
        self.encoder.encode(std::slice::from_ref(column), &mut self.keys);
        &self.keys
    }

    /// A column from bytes; null where there are none.
    pub fn decode<'k>(&self, values: impl Iterator<Item = &'k [u8]>) -> Result<ArrayRef, String> {
        let null = self.decoder.null_key();
        let null = null.as_slice();
        Ok(self.decoder.decode(values.map(|value| if value.is_empty() { null } else { value }))?.remove(0))
    }
}

/// Lists of a type's values, kept as the bytes of the list without its end, so that one can be written behind the other.
pub(super) struct Lists {
    decoder: KeyDecoder,
}

impl Lists {
    /// Of elements that can be keys.
    pub fn new(list: &DataType) -> Result<Lists, String> {
        Ok(Lists { decoder: KeyDecoder::new(std::slice::from_ref(list))? })
    }

    /// Makes an accumulator that holds no list yet one that holds the empty list.
    pub fn begin(list: &mut Vec<u8>) {
        if list.is_empty() {
            list.push(PRESENT);
        }
    }

    /// Puts an element behind the others.
    pub fn push(list: &mut Vec<u8>, element: &[u8]) {
        Lists::begin(list);
        list.push(PRESENT);
        list.extend_from_slice(element);
    }

    /// Puts the elements of another accumulator behind the others.
    pub fn append(list: &mut Vec<u8>, other: &[u8]) {
        if !other.is_empty() {
            Lists::begin(list);
            list.extend_from_slice(&other[1..]);
        }
    }

    /// The elements of a list that is not null, from its canonical bytes, as an accumulator.
    pub fn of_canonical(list: &[u8]) -> &[u8] {
        &list[..list.len() - 1]
    }

    /// Lists from accumulators; null where there is none.
    pub fn decode<'k>(&self, lists: impl Iterator<Item = &'k [u8]>) -> Result<ArrayRef, String> {
        let ended: Vec<Vec<u8>> = lists.map(|list| if list.is_empty() { vec![END] } else { [list, &[END]].concat() }).collect();
        Ok(self.decoder.decode(ended.iter().map(Vec::as_slice))?.remove(0))
    }
}

/// The type of a list of values.
pub(super) fn list_of(item: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item.clone(), true)))
}

/// Bytes in the order of a type's values.
pub(super) enum Ordered {
    Decimal { list: DataType, bytes: Keys },
    Other { values: Values, lists: Lists },
}

impl Ordered {
    /// Of a type that is not nested and can be a key.
    pub fn new(item: &DataType) -> Result<Ordered, String> {
        Ok(match item {
            DataType::Decimal128(..) => Ordered::Decimal { list: list_of(item), bytes: Keys::default() },
            _ => Ordered::Other { values: Values::new(item)?, lists: Lists::new(&list_of(item))? },
        })
    }

    /// The bytes of the values of a column.
    pub fn encode(&mut self, column: &ArrayRef) -> &Keys {
        match self {
            Ordered::Other { values, .. } => values.encode(column),
            Ordered::Decimal { bytes, .. } => {
                bytes.clear();
                bytes.offsets.push(0);
                for value in column.as_primitive::<Decimal128Type>().values() {
                    bytes.bytes.extend_from_slice(&((*value as u128) ^ (1 << 127)).to_be_bytes());
                    bytes.offsets.push(bytes.bytes.len() as u32);
                }
                bytes
            }
        }
    }

    /// Lists of values from their bytes; an empty one is null.
    pub fn decode_lists(&self, rows: &[Vec<&[u8]>]) -> Result<ArrayRef, String> {
        match self {
            Ordered::Other { lists, .. } => {
                let joined: Vec<Vec<u8>> = rows
                    .iter()
                    .map(|row| {
                        let mut list = Vec::new();
                        row.iter().for_each(|value| Lists::push(&mut list, value));
                        list
                    })
                    .collect();
                lists.decode(joined.iter().map(Vec::as_slice))
            }
            Ordered::Decimal { list, .. } => {
                let DataType::List(field) = list else { unreachable!("made as a list") };
                let number = |value: &&[u8]| {
                    let bytes: [u8; 16] = (*value).try_into().map_err(|_| "state of a top of decimals is damaged")?;
                    Ok((u128::from_be_bytes(bytes) ^ (1 << 127)) as i128)
                };
                let numbers = rows.iter().flatten().map(number).collect::<Result<Vec<i128>, String>>()?;
                let numbers = arrow::array::Decimal128Array::from(numbers).with_data_type(field.data_type().clone());
                let offsets = arrow::buffer::OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
                let nulls = rows.iter().map(|row| !row.is_empty()).collect();
                Ok(Arc::new(arrow::array::ListArray::new(field.clone(), offsets, Arc::new(numbers), Some(nulls))))
            }
        }
    }
}
