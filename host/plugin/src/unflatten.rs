//! Buffers of a guest to Arrow arrays. Everything is hostile until it has been checked: counts of nodes and buffers, the exact length of
//! each buffer, null counts, offsets from 0 and not decreasing, UTF-8 at every boundary, precision of decimals. Buffers are moved, and
//! copied only where their address is not aligned for their type.

use arrow::array::{ArrayData, ArrayDataBuilder, ArrayRef, AsArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, Fields};

/// Arrays of `fields`, each `rows` long. No node may be longer than `max_length`: arrays without buffers cost a guest nothing, and would
/// cost those who read them.
pub(crate) fn unflatten(fields: &Fields, rows: usize, nodes: &[u8], buffers: Vec<Vec<u8>>, max_length: usize) -> Result<Vec<ArrayRef>, String> {
    if !nodes.len().is_multiple_of(8) {
        return Err(format!("the list of nodes has {} bytes, which is no multiple of 8", nodes.len()));
    }
    let mut parts = Parts { nodes: nodes.chunks_exact(8), buffers: buffers.into_iter(), max_length };
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let data = parts.array(field).and_then(|data| expect_length(&data, rows)).map_err(|why| format!("column `{}`: {why}", field.name()))?;
        columns.push(make_array(data));
    }
    if parts.nodes.next().is_some() || parts.buffers.next().is_some() {
        return Err("there are more nodes or buffers than the schema has".into());
    }
    Ok(columns)
}

fn expect_length(data: &ArrayData, expected: usize) -> Result<ArrayData, String> {
    if data.len() == expected { Ok(data.clone()) } else { Err(format!("it has {} rows where {expected} belong", data.len())) }
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
                let child = self.array(item).and_then(|child| expect_length(&child, end))?;
                data.add_buffer(offsets).add_child_data(child)
            }
            DataType::FixedSizeList(item, width) => {
                let expected = length.checked_mul(*width as usize).ok_or("it is too long")?;
                data.add_child_data(self.array(item).and_then(|child| expect_length(&child, expected))?)
            }
            DataType::Struct(fields) => {
                let children = fields.iter().map(|field| self.array(field).and_then(|child| expect_length(&child, length)));
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
