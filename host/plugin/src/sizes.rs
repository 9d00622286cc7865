//! How many bytes some rows of columns have: a few bytes of origins can ask for gigabytes of copies.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait};
use arrow::datatypes::DataType;
use std::ops::Range;

/// Of the rows of a range of a column, in any layout.
pub(crate) fn bytes_of_rows(column: &dyn Array, rows: Range<usize>) -> usize {
    let count = rows.len();
    match column.data_type() {
        DataType::Null => 0,
        DataType::Boolean => count,
        DataType::FixedSizeBinary(width) => *width as usize * count,
        DataType::Utf8 => text(column.as_string::<i32>().value_offsets(), rows),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value_offsets(), rows),
        DataType::Binary => text(column.as_binary::<i32>().value_offsets(), rows),
        DataType::LargeBinary => text(column.as_binary::<i64>().value_offsets(), rows),
        DataType::List(_) => items(column.as_list::<i32>().values(), column.as_list::<i32>().value_offsets(), rows),
        DataType::LargeList(_) => items(column.as_list::<i64>().values(), column.as_list::<i64>().value_offsets(), rows),
        DataType::Map(..) => {
            let map = column.as_map();
            let entries = span(map.value_offsets(), &rows);
            let fields = map.entries().columns().iter();
            fields.map(|field| bytes_of_rows(field, entries.clone())).sum::<usize>() + OFFSET * count
        }
        DataType::Struct(_) => column.as_struct().columns().iter().map(|field| bytes_of_rows(field, rows.clone())).sum(),
        DataType::FixedSizeList(_, size) => {
            let size = *size as usize;
            bytes_of_rows(column.as_fixed_size_list().values(), rows.start * size..rows.end * size)
        }
        other => match other.primitive_width() {
            Some(width) => width * count,
            // Views and dictionaries: as if each row had all that they refer to, divided by how many there are.
            None => column.get_buffer_memory_size().div_ceil(column.len().max(1)) * count,
        },
    }
}

/// Bytes of an offset, about.
const OFFSET: usize = 4;

fn span<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> Range<usize> {
    offsets[rows.start].as_usize()..offsets[rows.end].as_usize()
}

fn text<O: OffsetSizeTrait>(offsets: &[O], rows: Range<usize>) -> usize {
    span(offsets, &rows).len() + OFFSET * rows.len()
}

fn items<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O], rows: Range<usize>) -> usize {
    bytes_of_rows(values, span(offsets, &rows)) + OFFSET * rows.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::{Field, Int64Type};
    use std::sync::Arc;

    #[test]
    fn rows_are_as_large_as_what_they_hold() {
        let texts = StringArray::from(vec!["a", "bcd", "", "ef"]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(2)])]);
        let numbers = Int64Array::from(vec![1; 4]);
        let pairs = StructArray::from(vec![
            (Arc::new(Field::new("t", DataType::Utf8, true)), Arc::new(texts.clone()) as ArrayRef),
            (Arc::new(Field::new("n", DataType::Int64, true)), Arc::new(numbers.clone()) as ArrayRef),
        ]);
        let fixed =
            FixedSizeListArray::new(Arc::new(Field::new("item", DataType::Int64, true)), 2, Arc::new(Int64Array::from(vec![0; 8])), None);
        let check = |column: &dyn Array, rows: Range<usize>, bytes: usize| {
            assert_eq!(bytes_of_rows(column, rows.clone()), bytes, "{column:?} {rows:?}");
            let sliced = column.slice(rows.start, rows.len());
            assert_eq!(bytes_of_rows(&sliced, 0..rows.len()), bytes, "sliced");
        };
        check(&texts, 1..3, 3 + 8);
        check(&lists, 0..2, 2 * 8 + 8);
        check(&lists, 3..4, 8 + 4);
        check(&numbers, 0..4, 32);
        check(&pairs, 3..4, 2 + 4 + 8);
        check(&fixed, 1..3, 32);
        check(&NullArray::new(4), 0..4, 0);
    }
}
