//! Arrow arrays to the contract's flat columns (`wit/data.wit`).
//!
//! Flattening borrows: only sliced bitmaps, offsets that do not start at 0 and sliced children of lists are copied, because a guest never
//! sees Arrow's array offsets.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::datatypes::*;
use std::borrow::Cow;

/// The columns of a batch as they cross.
pub(crate) struct Flat<'a> {
    pub(crate) nodes: Vec<u8>,
    pub(crate) buffers: Vec<Cow<'a, [u8]>>,
}

/// Every column's type is one for which `schema::can_cross` holds.
pub(crate) fn flatten<'a>(columns: impl Iterator<Item = &'a dyn Array>) -> Flat<'a> {
    // Room for flat columns, most of which have three buffers: growing would cost a small batch more than all of its bytes.
    let count = columns.size_hint().0;
    let mut flat = Flat { nodes: Vec::with_capacity(8 * count), buffers: Vec::with_capacity(3 * count) };
    columns.for_each(|column| flat.push(column));
    flat
}

/// The bytes of plain values.
pub(crate) fn bytes_of<T: ArrowNativeType>(values: &[T]) -> &[u8] {
    // SAFETY: every ArrowNativeType is plain old data without padding, the slice is initialised, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

impl<'a> Flat<'a> {
    fn push(&mut self, array: &'a dyn Array) {
        self.node(array);
        match array.data_type() {
            DataType::Null => {}
            DataType::Boolean => self.bits(array.as_boolean().values()),
            DataType::Int8 => self.values::<Int8Type>(array),
            DataType::Int16 => self.values::<Int16Type>(array),
            DataType::Int32 => self.values::<Int32Type>(array),
            DataType::Int64 => self.values::<Int64Type>(array),
            DataType::UInt8 => self.values::<UInt8Type>(array),
            DataType::UInt16 => self.values::<UInt16Type>(array),
            DataType::UInt32 => self.values::<UInt32Type>(array),
            DataType::UInt64 => self.values::<UInt64Type>(array),
            DataType::Float32 => self.values::<Float32Type>(array),
            DataType::Float64 => self.values::<Float64Type>(array),
            DataType::Date32 => self.values::<Date32Type>(array),
            DataType::Decimal128(..) => self.values::<Decimal128Type>(array),
            DataType::Timestamp(TimeUnit::Microsecond, _) => self.values::<TimestampMicrosecondType>(array),
            DataType::FixedSizeBinary(_) => self.buffers.push(Cow::Borrowed(array.as_fixed_size_binary().value_data())),
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                let (from, to) = self.offsets(array.offsets());
                self.buffers.push(Cow::Borrowed(&array.values().as_slice()[from..to]));
            }
            DataType::Binary => {
                let array = array.as_binary::<i32>();
                let (from, to) = self.offsets(array.offsets());
                self.buffers.push(Cow::Borrowed(&array.values().as_slice()[from..to]));
            }
            DataType::Struct(_) => array.as_struct().columns().iter().for_each(|child| self.push(child)),
            DataType::FixedSizeList(..) => self.push(array.as_fixed_size_list().values()),
            DataType::List(_) => {
                let array = array.as_list::<i32>();
                let (from, to) = self.offsets(array.offsets());
                if from == 0 && to == array.values().len() {
                    self.push(array.values())
                } else {
                    self.copy(array.values().slice(from, to - from))
                }
            }
            DataType::Map(..) => {
                let array = array.as_map();
                let (from, to) = self.offsets(array.offsets());
                let entries = array.entries();
                if from == 0 && to == entries.len() {
                    self.push(entries)
                } else {
                    self.copy(std::sync::Arc::new(entries.slice(from, to - from)))
                }
            }
            other => unreachable!("bind refuses to read a column of the type {other}"),
        }
    }

    /// Length and null count, then the validity.
    fn node(&mut self, array: &'a dyn Array) {
        let is_null = matches!(array.data_type(), DataType::Null);
        let nulls = if is_null { array.len() } else { array.null_count() };
        self.nodes.extend_from_slice(&(array.len() as u32).to_le_bytes());
        self.nodes.extend_from_slice(&(nulls as u32).to_le_bytes());
        match array.nulls() {
            _ if is_null => {}
            Some(nulls) if nulls.null_count() > 0 => self.bits(nulls.inner()),
            _ => self.buffers.push(Cow::Borrowed(&[])),
        }
    }

    fn values<T: ArrowPrimitiveType>(&mut self, array: &'a dyn Array) {
        self.buffers.push(Cow::Borrowed(bytes_of(array.as_primitive::<T>().values())));
    }

    fn bits(&mut self, bits: &'a BooleanBuffer) {
        let bytes = bits.len().div_ceil(8);
        if bits.offset().is_multiple_of(8) && bits.len().is_multiple_of(8) {
            let from = bits.offset() / 8;
            self.buffers.push(Cow::Borrowed(&bits.values()[from..from + bytes]));
            return;
        }
        // Shifts the bitmap to bit 0 and clears the bits past the end.
        let mut owned = bits.sliced().as_slice()[..bytes].to_vec();
        if !bits.len().is_multiple_of(8)
            && let Some(last) = owned.last_mut()
        {
            *last &= (1 << (bits.len() % 8)) - 1;
        }
        self.buffers.push(Cow::Owned(owned));
    }

    /// Pushes offsets that start at 0 and returns the range of the child or the data that they cover.
    fn offsets(&mut self, offsets: &'a OffsetBuffer<i32>) -> (usize, usize) {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        self.buffers.push(if first == 0 {
            Cow::Borrowed(bytes_of(offsets))
        } else {
            Cow::Owned(offsets.iter().flat_map(|offset| (offset - first).to_le_bytes()).collect())
        });
        (first as usize, last as usize)
    }

    /// A sliced child does not live long enough to be borrowed.
    fn copy(&mut self, slice: ArrayRef) {
        let flat = flatten(std::iter::once(&slice as &dyn Array));
        self.nodes.extend(flat.nodes);
        self.buffers.extend(flat.buffers.into_iter().map(|buffer| Cow::Owned(buffer.into_owned())));
    }
}
