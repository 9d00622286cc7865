//! Buffers of a guest to Arrow arrays. Everything is hostile until it has been checked: counts of nodes and buffers, the exact length of
//! each buffer, null counts, offsets from 0 and not decreasing, UTF-8 at every boundary, precision of decimals. Buffers are moved, and
//! copied only where their address is not aligned for their type.

use arrow::array::{ArrayData, ArrayDataBuilder, ArrayRef, AsArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, Fields};

/// Arrays of `fields`, each `rows` long. No node may be longer than `max_length`: arrays without buffers cost a guest nothing, and would
/// cost those who read them.
pub(crate) fn unflatten(
    fields: &Fields,
    rows: usize,
    nodes: &[u8],
    buffers: Vec<Vec<u8>>,
    max_length: usize,
) -> Result<Vec<ArrayRef>, String> {
    if !nodes.len().is_multiple_of(8) {
        return Err(format!("the list of nodes has {} bytes, which is no multiple of 8", nodes.len()));
    }
    let mut parts = Parts { nodes: nodes.chunks_exact(8), buffers: buffers.into_iter(), max_length };
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let data =
            parts.array(field).and_then(|data| expect_length(data, rows)).map_err(|why| format!("column `{}`: {why}", field.name()))?;
        columns.push(make_array(data));
    }
    if parts.nodes.next().is_some() || parts.buffers.next().is_some() {
        return Err("there are more nodes or buffers than the schema has".into());
    }
    Ok(columns)
}

fn expect_length(data: ArrayData, expected: usize) -> Result<ArrayData, String> {
    if data.len() == expected { Ok(data) } else { Err(format!("it has {} rows where {expected} belong", data.len())) }
}

struct Parts<'n> {
    nodes: std::slice::ChunksExact<'n, u8>,
    buffers: std::vec::IntoIter<Vec<u8>>,
    max_length: usize,
}

impl Parts<'_> {
    fn array(&mut self, field: &FieldRef) -> Result<ArrayData, String> {
        let node = self.nodes.next().ok_or("there are fewer nodes than the schema has")?;
        let [length, told_nulls] = [0, 4].map(|at| u32::from_le_bytes([node[at], node[at + 1], node[at + 2], node[at + 3]]) as usize);
        if length > self.max_length {
            return Err(format!("its length of {length} is beyond the limit of {}", self.max_length));
        }
        let data_type = field.data_type();
        let mut data = ArrayDataBuilder::new(data_type.clone()).len(length).align_buffers(true);
        if matches!(data_type, DataType::Null) {
            return data.build().map_err(told);
        }
        let nulls = self.validity(length)?;
        let found_nulls = nulls.as_ref().map_or(0, NullBuffer::null_count);
        if found_nulls != told_nulls {
            return Err(format!("its null count is {told_nulls}, but its validity has {found_nulls} nulls"));
        }
        if found_nulls > 0 && !field.is_nullable() {
            return Err(format!("`{}` is not nullable but has nulls", field.name()));
        }
        data = data.nulls(nulls.filter(|_| found_nulls > 0));
        data = self.rest(data, data_type, length)?;
        // Checks offsets, UTF-8 and what the type asks of its children.
        let data = data.build().map_err(told)?;
        if let DataType::Decimal128(precision, _) = data_type {
            make_array(data.clone()).as_primitive::<Decimal128Type>().validate_decimal_precision(*precision).map_err(told)?;
        }
        Ok(data)
    }

    fn rest(&mut self, data: ArrayDataBuilder, data_type: &DataType, length: usize) -> Result<ArrayDataBuilder, String> {
        Ok(match data_type {
            DataType::Boolean => data.add_buffer(self.exact("values", length.div_ceil(8))?),
            DataType::Utf8 | DataType::Binary => {
                let (offsets, end) = self.offsets(length)?;
                data.add_buffer(offsets).add_buffer(self.exact("data", end)?)
            }
            DataType::List(item) | DataType::Map(item, _) => {
                let (offsets, end) = self.offsets(length)?;
                let child = self.array(item).and_then(|child| expect_length(child, end))?;
                data.add_buffer(offsets).add_child_data(child)
            }
            DataType::FixedSizeList(item, width) => {
                let expected = length.checked_mul(*width as usize).ok_or("it is too long")?;
                data.add_child_data(self.array(item).and_then(|child| expect_length(child, expected))?)
            }
            DataType::Struct(fields) => {
                let children = fields.iter().map(|field| self.array(field).and_then(|child| expect_length(child, length)));
                data.child_data(children.collect::<Result<_, _>>()?)
            }
            DataType::FixedSizeBinary(width) => data.add_buffer(self.values(length, *width as usize)?),
            other => data.add_buffer(self.values(length, other.primitive_width().ok_or("its type has no width")?)?),
        })
    }

    fn buffer(&mut self) -> Result<Buffer, String> {
        self.buffers.next().map(Buffer::from_vec).ok_or_else(|| "there are fewer buffers than the schema has".into())
    }

    fn exact(&mut self, what: &str, bytes: usize) -> Result<Buffer, String> {
        let buffer = self.buffer()?;
        if buffer.len() == bytes { Ok(buffer) } else { Err(format!("its {what} buffer has {} bytes where {bytes} belong", buffer.len())) }
    }

    fn values(&mut self, length: usize, width: usize) -> Result<Buffer, String> {
        self.exact("values", length.checked_mul(width).ok_or("it is too long")?)
    }

    fn validity(&mut self, length: usize) -> Result<Option<NullBuffer>, String> {
        let bits = self.buffer()?;
        if bits.is_empty() {
            return Ok(None);
        }
        if bits.len() != length.div_ceil(8) {
            return Err(format!("its validity has {} bytes where {} belong", bits.len(), length.div_ceil(8)));
        }
        Ok(Some(NullBuffer::new(BooleanBuffer::new(bits, 0, length))))
    }

    /// The offsets and the last of them; that none decreases is checked when the array is built.
    fn offsets(&mut self, length: usize) -> Result<(Buffer, usize), String> {
        let offsets = self.exact("offsets", (length + 1) * 4)?;
        let at = |index: usize| {
            let bytes = &offsets[4 * index..4 * index + 4];
            i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        if at(0) != 0 {
            return Err(format!("its offsets start at {}, not at 0", at(0)));
        }
        let end = usize::try_from(at(length)).map_err(|_| "its last offset is negative")?;
        Ok((offsets, end))
    }
}

fn told(error: arrow::error::ArrowError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flatten::flatten;
    use crate::schema::{flatten_schema, unflatten_schema};
    use arrow::array::*;
    use arrow::datatypes::{Field, Int32Type, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A column of each type that crosses, made of the same values.
    fn columns(values: &[Option<i64>]) -> RecordBatch {
        let text = |value: i64| "é✓".repeat(value.unsigned_abs() as usize % 3) + &value.to_string();
        let texts: Vec<_> = values.iter().map(|value| value.map(text)).collect();
        let lists =
            values.iter().map(|value| value.map(|value| (0..value.unsigned_abs() as i32 % 4).map(|item| (item != 2).then_some(item))));
        let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        for value in values {
            (0..value.unwrap_or(0).unsigned_abs() % 3).for_each(|key| maps.keys().append_value(key.to_string()));
            (0..value.unwrap_or(0).unsigned_abs() % 3).for_each(|_| maps.values().append_option(*value));
            maps.append(value.is_some()).expect("as many keys as values");
        }
        let ints: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let cast = |to: &DataType| arrow::compute::cast(&ints, to).expect("integers cast");
        let pairs: Vec<Option<Vec<Option<i64>>>> = values.iter().map(|value| value.map(|value| vec![Some(value), None])).collect();
        let fields = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
        let mask = values.iter().map(|value| value.is_some_and(|value| value % 5 != 0)).collect::<Vec<_>>();
        let structs = StructArray::new(fields, vec![ints.clone(), Arc::new(StringArray::from(texts.clone()))], Some(mask.into()));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(NullArray::new(values.len())),
            Arc::new(BooleanArray::from_iter(values.iter().map(|value| value.map(|value| value % 2 == 0)))),
            cast(&DataType::Int8),
            cast(&DataType::Int16),
            cast(&DataType::Int32),
            ints.clone(),
            cast(&DataType::UInt8),
            cast(&DataType::UInt16),
            cast(&DataType::UInt32),
            cast(&DataType::UInt64),
            cast(&DataType::Float32),
            cast(&DataType::Float64),
            Arc::new(StringArray::from(texts.clone())),
            Arc::new(BinaryArray::from_iter(texts.iter().map(|text| text.as_ref().map(|text| text.as_bytes())))),
            cast(&DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))),
            cast(&DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)),
            arrow::compute::cast(&cast(&DataType::Int32), &DataType::Date32).expect("i32 is a date"),
            cast(&DataType::Decimal128(38, 4)),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            Arc::new(FixedSizeListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(pairs, 2)),
            Arc::new(structs),
            Arc::new(maps.finish()),
        ];
        let fields: Vec<_> =
            arrays.iter().enumerate().map(|(index, array)| Field::new(format!("c{index}"), array.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
    }

    proptest! {
        #[test]
        fn what_is_flattened_comes_back(values in prop::collection::vec(prop::option::of(-100_000i64..100_000), 0..70), from in 0usize..70, length in 0usize..70) {
            let whole = columns(&values);
            let from = from.min(values.len());
            let slice = whole.slice(from, length.min(values.len() - from));
            let schema = slice.schema();
            let fields = unflatten_schema(&flatten_schema(&schema)).expect("every type crosses");
            prop_assert_eq!(&fields, schema.fields());
            let flat = flatten(slice.columns().iter().map(|column| column as &dyn Array));
            let buffers = flat.buffers.iter().map(|buffer| buffer.to_vec()).collect();
            let back = unflatten(&fields, slice.num_rows(), &flat.nodes, buffers, 1 << 20).expect("what we send is valid");
            for (sent, back) in slice.columns().iter().zip(&back) {
                prop_assert_eq!(sent, back);
            }
        }

        /// Whatever a guest does to the bytes, the answer is an error or a valid array, never a panic.
        #[test]
        fn no_bytes_harm_the_host(values in prop::collection::vec(prop::option::of(-100i64..100), 1..20), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let whole = columns(&values);
            let flat = flatten(whole.columns().iter().map(|column| column as &dyn Array));
            let (mut nodes, mut buffers) = (flat.nodes, flat.buffers.iter().map(|buffer| buffer.to_vec()).collect::<Vec<_>>());
            for (which, place, byte) in hits {
                let buffer = if byte % 3 == 0 { &mut nodes } else { which.get_mut(&mut buffers[..]) };
                if !buffer.is_empty() {
                    let place = place.index(buffer.len());
                    if byte % 7 == 0 { buffer.truncate(place) } else { buffer[place] = byte }
                }
            }
            if let Ok(arrays) = unflatten(whole.schema().fields(), whole.num_rows(), &nodes, buffers, 1 << 20) {
                for array in arrays {
                    prop_assert!(array.to_data().validate_full().is_ok());
                    let _ = format!("{array:?}");
                }
            }
        }
    }
}
