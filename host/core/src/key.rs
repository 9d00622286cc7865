//! Canonical key bytes and key groups.
//!
//! Keys decide which task owns a row, which cell it falls into and where it lies in a checkpoint, so their bytes are ours,
//! versioned and golden-tested. Fields follow each other in the order of `group_by`:
//!
//! ```text
//! field   = 00                                   null
//!         | 01 value
//!         | 02 u64                               an unsigned number above i64::MAX, big-endian
//! value   = integer, date, timestamp:            i64 with its sign bit flipped, big-endian
//!           float, double:                       f64, -0.0 as 0.0, every NaN as one; negative ones inverted, others with the
//!                                                sign bit flipped, big-endian
//!           boolean:                             00 | 01
//!           string, bytes:                       bytes with 00 written as 00 FF, then 00 00
//!           decimal:                             scale, then i128 with its sign bit flipped, without trailing zeros
//!           list:                                (01 field)* 00
//!           struct:                              field*
//! ```
//!
//! Invariants: equal values have equal bytes and no others do, whatever the width of the integer; for a single field other
//! than a decimal, bytes compare as values do, nulls first.

use arrow::array::types::{Decimal128Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit};
use xxhash_rust::xxh3::xxh3_64;

/// Version of the encoding; state stores it.
pub const KEY_VERSION: u8 = 1;
/// Key groups of every pipeline.
pub const KEY_GROUPS: u16 = 256;
/// Tasks side by side at most: more than one a key group would have nothing to do.
pub const MAX_PARALLELISM: usize = KEY_GROUPS as usize;

pub(crate) const NULL: u8 = 0;
pub(crate) const PRESENT: u8 = 1;
pub(crate) const LARGE: u8 = 2;
pub(crate) const SIGN: u64 = 1 << 63;
/// Bytes of a field that is a whole number.
const WHOLE: usize = 9;

/// Encodes the key columns of batches.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    types: Vec<DataType>,
    /// Whether -0.0 and the bits of NaNs are kept.
    exact: bool,
}

/// Keys of the rows of a batch, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The bytes of all keys.
    pub bytes: Vec<u8>,
    /// Key `i` is `bytes[offsets[i]..offsets[i + 1]]`; empty or one more entry than keys.
    pub offsets: Vec<u32>,
}

impl Keys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of key `row`.
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// Forgets the keys and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.offsets.clear();
    }
}

impl KeyEncoder {
    /// An encoder for key fields of these types, in the order of `group_by`. The error names a type that cannot be a key.
    pub fn new(types: &[DataType]) -> Result<KeyEncoder, String> {
        for data_type in types {
            check(data_type)?;
        }
        Ok(KeyEncoder { types: types.to_vec(), exact: false })
    }

    /// An encoder for whole rows that an operator keeps and gives back: as [`KeyEncoder::new`], but -0.0 stays -0.0 and a NaN
    /// keeps its bits. Rows say themselves where they end, so they can be stored one after the other.
    pub fn for_rows(types: &[DataType]) -> Result<KeyEncoder, String> {
        Ok(KeyEncoder { exact: true, ..KeyEncoder::new(types)? })
    }

    /// The types of the fields.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Replaces the keys in `out` with those of the rows of `columns`, which are of the encoder's types and equally long.
    pub fn encode(&self, columns: &[ArrayRef], out: &mut Keys) {
        out.clear();
        out.offsets.push(0);
        let columns: Vec<Column<'_>> = columns.iter().map(|column| Column::of(column, self.exact)).collect();
        let rows = columns.first().map_or(0, |column| column.rows);
        out.offsets.reserve(rows);
        // The two commonest keys without a branch on the type for each row.
        if let [Column { values: Values::Text(values), nulls: None, .. }] = columns.as_slice() {
            for row in 0..rows {
                out.bytes.push(PRESENT);
                push_bytes(values.value(row).as_bytes(), &mut out.bytes);
                out.offsets.push(out.bytes.len() as u32);
            }
            return;
        }
        if let [Column { values: Values::Whole(values), nulls: None, .. }] = columns.as_slice() {
            out.bytes.resize(rows * WHOLE, PRESENT);
            for (key, value) in out.bytes.chunks_exact_mut(WHOLE).zip(values.values()) {
                key[1..].copy_from_slice(&((*value as u64) ^ SIGN).to_be_bytes());
            }
            out.offsets.extend((1..=rows).map(|row| (row * WHOLE) as u32));
            return;
        }
        for row in 0..rows {
            for column in &columns {
                column.push(row, &mut out.bytes);
            }
            out.offsets.push(out.bytes.len() as u32);
        }
    }
}

fn check(data_type: &DataType) -> Result<(), String> {
    match data_type {
        DataType::Null | DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Decimal128(..) => Ok(()),
        DataType::Float32 | DataType::Float64 | DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(()),
        data_type if data_type.is_integer() => Ok(()),
        DataType::List(field) => check(field.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check(field.data_type())),
        other => Err(format!("a value of type {other} cannot be a key")),
    }
}

/// A column, cast once so that a row costs one match.
struct Column<'a> {
    rows: usize,
    nulls: Option<&'a arrow::buffer::NullBuffer>,
    values: Values<'a>,
    exact: bool,
}

enum Values<'a> {
    Nothing,
    Whole(arrow::array::Int64Array),
    Unsigned(&'a arrow::array::UInt64Array),
    Double(&'a arrow::array::Float64Array),
    Float(&'a arrow::array::Float32Array),
    Boolean(&'a arrow::array::BooleanArray),
    Text(&'a arrow::array::StringArray),
    Bytes(&'a arrow::array::BinaryArray),
    Decimal(&'a arrow::array::Decimal128Array, i8),
    List(&'a arrow::array::ListArray, Box<Column<'a>>),
    Struct(Vec<Column<'a>>),
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef, exact: bool) -> Column<'a> {
        let values = match array.data_type() {
            DataType::Null => Values::Nothing,
            DataType::UInt64 => Values::Unsigned(array.as_primitive::<UInt64Type>()),
            DataType::Float64 => Values::Double(array.as_primitive::<Float64Type>()),
            DataType::Float32 => Values::Float(array.as_primitive::<Float32Type>()),
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Utf8 => Values::Text(array.as_string()),
            DataType::Binary => Values::Bytes(array.as_binary()),
            DataType::Decimal128(_, scale) => Values::Decimal(array.as_primitive::<Decimal128Type>(), *scale),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Values::List(list, Box::new(Column::of(list.values(), exact)))
            }
            DataType::Struct(_) => Values::Struct(array.as_struct().columns().iter().map(|column| Column::of(column, exact)).collect()),
            DataType::Date32 => {
                let days = arrow::compute::cast(array, &DataType::Int32).and_then(|days| arrow::compute::cast(&days, &DataType::Int64));
                Values::Whole(days.expect("days are 32-bit numbers").as_primitive::<Int64Type>().clone())
            }
            _ => {
                let wide = arrow::compute::cast(array, &DataType::Int64).expect("the encoder was made for types that widen");
                Values::Whole(wide.as_primitive::<Int64Type>().clone())
            }
        };
        Column { rows: array.len(), nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), values, exact }
    }

    fn push(&self, row: usize, out: &mut Vec<u8>) {
        if matches!(self.values, Values::Nothing) || self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.push(NULL);
            return;
        }
        if let Values::Unsigned(values) = &self.values
            && values.value(row) > i64::MAX as u64
        {
            out.push(LARGE);
            out.extend_from_slice(&values.value(row).to_be_bytes());
            return;
        }
        out.push(PRESENT);
        match &self.values {
            Values::Nothing => {}
            Values::Whole(values) => push_whole(values.value(row), out),
            Values::Unsigned(values) => push_whole(values.value(row) as i64, out),
            Values::Double(values) => push_double(values.value(row), self.exact, out),
            Values::Float(values) => push_double(f64::from(values.value(row)), self.exact, out),
            Values::Boolean(values) => out.push(u8::from(values.value(row))),
            Values::Text(values) => push_bytes(values.value(row).as_bytes(), out),
            Values::Bytes(values) => push_bytes(values.value(row), out),
            Values::Decimal(values, scale) => push_decimal(values.value(row), *scale, out),
            Values::List(list, items) => {
                let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                for item in from..to {
                    out.push(PRESENT);
                    items.push(item, out);
                }
                out.push(NULL);
            }
            Values::Struct(fields) => fields.iter().for_each(|field| field.push(row, out)),
        }
    }
}

fn push_whole(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&((value as u64) ^ SIGN).to_be_bytes());
}

fn push_double(value: f64, exact: bool, out: &mut Vec<u8>) {
    let value = match exact {
        true => value,
        false if value.is_nan() => f64::NAN.abs(),
        false => value + 0.0,
    };
    let bits = value.to_bits();
    let ordered = if bits & SIGN != 0 { !bits } else { bits ^ SIGN };
    out.extend_from_slice(&ordered.to_be_bytes());
}

fn push_bytes(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[0, 0xFF]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 0]);
}

fn push_decimal(mut value: i128, mut scale: i8, out: &mut Vec<u8>) {
    while value != 0 && value % 10 == 0 && scale > i8::MIN {
        value /= 10;
        scale -= 1;
    }
    let scale = if value == 0 { 0 } else { scale };
    out.push(scale as u8);
    out.extend_from_slice(&((value as u128) ^ (1 << 127)).to_be_bytes());
}

/// Hash of canonical key bytes.
pub fn key_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The key group of a hash.
pub fn key_group(hash: u64) -> u16 {
    (hash % u64::from(KEY_GROUPS)) as u16
}

/// The task, of `parallelism`, that owns a key group: contiguous ranges, as Flink's.
pub fn group_owner(key_group: u16, parallelism: usize) -> usize {
    usize::from(key_group) * parallelism / usize::from(KEY_GROUPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float64Array, Int8Array, Int64Array, StringArray, UInt64Array};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn encode(column: ArrayRef) -> Vec<Vec<u8>> {
        let encoder = KeyEncoder::new(&[column.data_type().clone()]).expect("a key type");
        let mut keys = Keys::default();
        encoder.encode(std::slice::from_ref(&column), &mut keys);
        (0..keys.len()).map(|row| keys.get(row).to_vec()).collect()
    }

    fn check(column: ArrayRef, hex: &[&str]) {
        let got: Vec<String> = encode(column).iter().map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        assert_eq!(got, hex);
    }

    /// These bytes are in checkpoints: they never change under the same `KEY_VERSION`.
    #[test]
    fn golden() {
        assert_eq!(KEY_VERSION, 1);
        check(Arc::new(Int64Array::from(vec![Some(0), Some(-1), None])), &["018000000000000000", "017fffffffffffffff", "00"]);
        check(Arc::new(Int8Array::from(vec![5])), &["018000000000000005"]);
        check(Arc::new(UInt64Array::from(vec![5, u64::MAX])), &["018000000000000005", "02ffffffffffffffff"]);
        check(
            Arc::new(Float64Array::from(vec![0.0, -0.0, 1.5, -1.5, f64::NAN, -f64::NAN])),
            &[
                "018000000000000000",
                "018000000000000000",
                "01bff8000000000000",
                "014007ffffffffffff",
                "01fff8000000000000",
                "01fff8000000000000",
            ],
        );
        check(Arc::new(StringArray::from(vec!["", "a", "a\0b"])), &["010000", "01610000", "016100ff620000"]);
        check(Arc::new(BooleanArray::from(vec![true, false])), &["0101", "0100"]);
        let decimals = Decimal128Array::from(vec![150, 1500, 0]).with_precision_and_scale(10, 2).expect("fits");
        check(
            Arc::new(decimals),
            &["01018000000000000000000000000000000f", "01008000000000000000000000000000000f", "010080000000000000000000000000000000"],
        );
    }

    proptest! {
        #[test]
        fn numbers_keep_their_order(values in proptest::collection::vec(proptest::option::of(any::<i64>()), 2..20)) {
            let keys = encode(Arc::new(Int64Array::from(values.clone())));
            for (a, x) in values.iter().zip(&keys) { for (b, y) in values.iter().zip(&keys) { prop_assert_eq!(a.cmp(b), x.cmp(y)); } }
        }

        #[test]
        fn texts_keep_their_order(values in proptest::collection::vec("[\\x00-\\x02a]{0,4}", 2..20)) {
            let keys = encode(Arc::new(StringArray::from(values.clone())));
            for (a, x) in values.iter().zip(&keys) { for (b, y) in values.iter().zip(&keys) { prop_assert_eq!(a.cmp(b), x.cmp(y)); } }
        }

        #[test]
        fn doubles_keep_their_order(values in proptest::collection::vec(any::<f64>(), 2..20)) {
            let keys = encode(Arc::new(Float64Array::from(values.clone())));
            for (a, x) in values.iter().zip(&keys) { for (b, y) in values.iter().zip(&keys) {
                if let Some(order) = a.partial_cmp(b) { prop_assert_eq!(order, x.cmp(y)); }
            } }
        }
    }
}
