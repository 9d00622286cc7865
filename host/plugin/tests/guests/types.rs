//! Every type that crosses comes back equal, whatever part of an array is sent.

use crate::*;
use arrow::array::*;
use arrow::datatypes::*;

/// 37 rows, nulls in most columns.
fn many_types() -> RecordBatch {
    let n = 37usize;
    let null = |row: usize| row % 5 == 3;
    let text = |row: usize| (!null(row + 1)).then(|| "grün✓".repeat(row % 4));
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for row in 0..n {
        for key in 0..row % 3 {
            maps.keys().append_value(format!("k{key}"));
            maps.values().append_value(row as i64);
        }
        maps.append(!null(row)).unwrap();
    }
    let lists = (0..n).map(|row| (!null(row)).then(|| (0..row % 4).map(|item| (item != 2).then_some(item as i32)).collect::<Vec<_>>()));
    let fields = Fields::from(vec![Field::new("flag", DataType::Boolean, true), Field::new("text", DataType::Utf8, true)]);
    let flags = BooleanArray::from_iter((0..n).map(|row| (!null(row + 3)).then_some(row % 2 == 0)));
    let validity = (0..n).map(|row| !null(row)).collect::<Vec<_>>();
    let structs =
        StructArray::new(fields, vec![Arc::new(flags), Arc::new(StringArray::from_iter((0..n).map(text)))], Some(validity.into()));
    let ints = |from: i64| (0..n as i64).map(move |row| (!null(row as usize)).then_some(from + row));
    let times = TimestampMicrosecondArray::from_iter(ints(-5));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(NullArray::new(n)),
        Arc::new(BooleanArray::from_iter((0..n).map(|row| (!null(row + 2)).then_some(row % 3 == 0)))),
        Arc::new(Int8Array::from_iter(ints(-9).map(|value| value.map(|value| value as i8)))),
        Arc::new(Int16Array::from_iter(ints(-9).map(|value| value.map(|value| value as i16)))),
        Arc::new(Int32Array::from_iter_values(0..n as i32)),
        Arc::new(Int64Array::from_iter(ints(i64::MIN))),
        Arc::new(UInt8Array::from_iter_values(0..n as u8)),
        Arc::new(UInt16Array::from_iter_values(0..n as u16)),
        Arc::new(UInt32Array::from_iter_values((0..n as u32).map(|row| u32::MAX - row))),
        Arc::new(UInt64Array::from_iter_values((0..n as u64).map(|row| u64::MAX - row))),
        Arc::new(Float32Array::from_iter_values((0..n).map(|row| row as f32 / 3.0))),
        Arc::new(Float64Array::from_iter_values((0..n).map(|row| if row == 4 { f64::NAN } else { row as f64 / 3.0 }))),
        Arc::new(StringArray::from_iter((0..n).map(text))),
        Arc::new(BinaryArray::from_iter((0..n).map(|row| (row % 2 == 0).then_some(vec![0xff; row % 3])))),
        Arc::new(times.clone().with_timezone("UTC")),
        Arc::new(times),
        Arc::new(Date32Array::from_iter_values(0..n as i32)),
        Arc::new(Decimal128Array::from_iter((0..n as i128).map(|row| Some(row * 100 - 5))).with_precision_and_scale(38, 10).unwrap()),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        Arc::new(structs),
        Arc::new(maps.finish()),
    ];
    let fields: Vec<_> =
        columns.iter().enumerate().map(|(index, array)| Field::new(format!("c{index}"), array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn identity_gives_back_all_types_of_all_slices() {
    let whole = many_types();
    let times = (0..whole.num_rows() as i64).collect();
    let whole = Batch::new(whole, times, Positions::None);
    let mut instance = bind("identity", &whole, &Limits::default()).unwrap().open().unwrap();
    let mut slices = 0;
    for from in 0..=whole.num_rows() {
        for length in [0, 1, 7, 8, 9, 16, whole.num_rows() - from].into_iter().filter(|length| from + length <= whole.num_rows()) {
            slices += 1;
            let slice = whole.slice(from, length);
            let processed = block_on(instance.process(&slice)).unwrap();
            if length == 0 {
                assert!(processed.outputs.is_empty());
                continue;
            }
            let (_, back) = &processed.outputs[0];
            assert_eq!(back.schema(), slice.schema());
            assert_eq!(back.times, slice.times);
            for (sent, back) in slice.rows.columns().iter().zip(back.rows.columns()) {
                assert_eq!(format!("{sent:?}"), format!("{back:?}"), "rows {from} to {}", from + length);
                assert!(sent == back || format!("{sent:?}").contains("NaN"));
            }
        }
    }
    assert_eq!(slices, 225);
}

#[test]
fn a_column_of_another_type_can_be_passed_but_not_read() {
    let large = LargeStringArray::from_iter_values(["a", "b"]);
    let fields = vec![Field::new("number", DataType::Int64, false), Field::new("large", DataType::LargeUtf8, false)];
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(large)]).unwrap();
    let batch = Batch::new(rows, vec![0, 0].into(), Positions::None);
    let processed = process("filter", &batch);
    assert_eq!(processed.outputs[0].1.rows.num_columns(), 2);
    // `identity` reads every column; the guest cannot even name the type of its output, so either check may speak first.
    let error = bind("identity", &batch, &Limits::default()).err().unwrap().to_string();
    assert!(error.contains("large"), "{error}");
}
