//! Golden bytes, and the laws of the module's header on random values.

use super::*;
use arrow::array::*;
use proptest::prelude::*;
use std::sync::Arc;

fn keys(columns: &[ArrayRef]) -> Vec<Vec<u8>> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let mut keys = Keys::default();
    KeyEncoder::new(&types).expect("types of keys").encode(columns, &mut keys);
    (0..keys.len()).map(|row| keys.get(row).to_vec()).collect()
}

fn check(columns: &[ArrayRef], expected: &[&str]) {
    let found: Vec<String> =
        keys(columns).iter().map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join("")).collect();
    assert_eq!(found, expected.iter().map(|text| text.replace(' ', "")).collect::<Vec<_>>(), "{columns:?}");
}

fn column(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

/// State in the field has these bytes: a change here is a new [`KEY_VERSION`].
#[test]
fn golden_bytes() {
    assert_eq!((KEY_VERSION, KEY_GROUPS), (1, 256));
    check(&[column(BooleanArray::from(vec![Some(false), Some(true), None]))], &["01 00", "01 01", "00"]);
    check(
        &[column(Int64Array::from(vec![0, 1, -1, i64::MAX, i64::MIN]))],
        &["01 8000000000000000", "01 8000000000000001", "01 7fffffffffffffff", "01 ffffffffffffffff", "01 0000000000000000"],
    );
    check(&[column(Int64Array::from(vec![Some(5), None]))], &["01 8000000000000005", "00"]);
    check(
        &[column(UInt64Array::from(vec![1, i64::MAX as u64 + 1, u64::MAX]))],
        &["01 8000000000000001", "02 8000000000000000", "02 ffffffffffffffff"],
    );
    check(
        &[column(Float64Array::from(vec![0.0, -0.0, 1.0, -1.0, f64::NAN, -f64::NAN, f64::INFINITY]))],
        &[
            "01 8000000000000000",
            "01 8000000000000000",
            "01 bff0000000000000",
            "01 400fffffffffffff",
            "01 fff8000000000000",
            "01 fff8000000000000",
            "01 fff0000000000000",
        ],
    );
    check(&[column(StringArray::from(vec![Some("a"), Some(""), Some("a\0b"), None]))], &["01 61 0000", "01 0000", "01 61 00ff 62 0000", "00"]);
    check(&[column(StringArray::from(vec!["ab", ""]))], &["01 6162 0000", "01 0000"]);
    check(&[column(StringArray::from(vec!["\0"]))], &["01 00ff 0000"]);
    check(&[column(BinaryArray::from(vec![&[0u8, 255][..]]))], &["01 00ff ff 0000"]);
    check(&[column(Date32Array::from(vec![19_000]))], &["01 8000000000004a38"]);
    let times = TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("UTC");
    check(&[column(times)], &["01 80000000000f4240"]);
    let decimals = Decimal128Array::from(vec![0, 12_300, -12_300, 5]).with_precision_and_scale(10, 2).expect("fits");
    check(&[column(decimals)], &["01 01", "01 02 8003 020304 00", "01 00 7ffc fdfcfb ff", "01 02 7fff 06 00"]);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![]), None]);
    check(&[column(lists)], &["01 01 01 8000000000000001 01 00 00", "01 00", "00"]);
    let structs = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Utf8, true)), column(StringArray::from(vec!["x"]))),
        (Arc::new(Field::new("b", DataType::Boolean, true)), column(BooleanArray::from(vec![None]))),
    ]);
    check(&[column(structs)], &["01 01 78 0000 00"]);
    check(&[column(NullArray::new(1)), column(StringArray::from(vec!["x"]))], &["00 01 78 0000"]);
}

#[test]
fn forms_of_a_value_have_the_same_bytes() {
    let wide = keys(&[column(Int64Array::from(vec![7, 100]))]);
    for narrow in [
        column(Int8Array::from(vec![7, 100])),
        column(Int16Array::from(vec![7, 100])),
        column(Int32Array::from(vec![7, 100])),
        column(UInt8Array::from(vec![7, 100])),
        column(UInt16Array::from(vec![7, 100])),
        column(UInt32Array::from(vec![7, 100])),
        column(UInt64Array::from(vec![7, 100])),
    ] {
        assert_eq!(keys(&[narrow]), wide);
    }
    let text = keys(&[column(StringArray::from(vec!["a", "b\0"]))]);
    for other in [
        column(LargeStringArray::from(vec!["a", "b\0"])),
        column(StringViewArray::from(vec!["a", "b\0"])),
        column(BinaryArray::from(vec![&b"a"[..], b"b\0"])),
        column(LargeBinaryArray::from(vec![&b"a"[..], b"b\0"])),
        column(BinaryViewArray::from(vec![&b"a"[..], b"b\0"])),
    ] {
        assert_eq!(keys(&[other]), text);
    }
    let scale = |value, scale| keys(&[column(Decimal128Array::from(vec![value]).with_precision_and_scale(20, scale).expect("fits"))]);
    assert_eq!(scale(15, 1), scale(1_500, 3));
    assert_eq!(scale(2, -3), scale(2_000, 0));
}

#[test]
fn a_slice_has_the_keys_of_its_rows() {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..9).map(|row| (row % 4 > 0).then(|| vec![Some(row); row as usize])));
    let structs = StructArray::from(RecordBatch::try_from_iter([("a", column(Int8Array::from_iter_values(0..9)))]).expect("a batch"));
    let strings = StringArray::from_iter_values((0..9).map(|row| format!("{row}")));
    for array in [column(lists), column(structs), column(strings)] {
        assert_eq!(keys(&[array.slice(2, 5)]), keys(&[array.clone()])[2..7]);
    }
}

#[test]
fn refuses_what_is_no_key() {
    for (data_type, part) in [
        (DataType::Timestamp(TimeUnit::Nanosecond, None), "microseconds"),
        (DataType::Interval(IntervalUnit::DayTime), "cannot be part of a key"),
        (DataType::List(Arc::new(Field::new("item", DataType::Float16, true))), "cannot be part of a key"),
    ] {
        let message = KeyEncoder::new(&[data_type]).expect_err("no key");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn groups_are_contiguous_and_balanced() {
    assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(key_group(0xab_1234_5678), 0xab);
    for parallelism in [1, 2, 3, 7, 256] {
        let owners: Vec<usize> = (0..KEY_GROUPS).map(|group| group_owner(group, parallelism)).collect();
        assert!(owners.is_sorted());
        let counts: Vec<usize> = (0..parallelism).map(|task| owners.iter().filter(|owner| **owner == task).count()).collect();
        assert!(counts.iter().max().expect("tasks") - counts.iter().min().expect("tasks") <= 1, "{counts:?}");
    }
}

/// Bytes compare as the values do, by `order`.
fn ordered<T>(array: ArrayRef, values: &[T], order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Result<(), TestCaseError> {
    let keys = keys(&[array]);
    for (left, left_key) in values.iter().zip(&keys) {
        for (right, right_key) in values.iter().zip(&keys) {
            prop_assert_eq!(left_key.cmp(right_key), order(left, right));
        }
    }
    Ok(())
}

fn texts() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()];
    prop::collection::vec(prop::option::weighted(0.9, prop::collection::vec(byte, 0..5)), 1..12)
}

proptest! {
    #[test]
    fn integers_keep_their_order(values in prop::collection::vec(any::<Option<i64>>(), 1..12)) {
        ordered(column(Int64Array::from(values.clone())), &values, Ord::cmp)?;
    }

    #[test]
    fn unsigned_integers_keep_their_order(values in prop::collection::vec(any::<Option<u64>>(), 1..12)) {
        ordered(column(UInt64Array::from(values.clone())), &values, Ord::cmp)?;
    }

    #[test]
    fn floats_keep_their_order(values in prop::collection::vec(prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(f64::NAN)], 1..12)) {
        ordered(column(Float64Array::from(values.clone())), &values, |left, right| {
            left.partial_cmp(right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
        })?;
    }

    #[test]
    fn bytes_keep_their_order(values in texts()) {
        ordered(column(BinaryArray::from_iter(values.iter())), &values, Ord::cmp)?;
    }

    #[test]
    fn decimals_keep_their_order(values in prop::collection::vec(prop_oneof![-2_000i128..2_000, -10i128.pow(37)..10i128.pow(37)], 1..12), scale in -3i8..12) {
        let array = Decimal128Array::from(values.clone()).with_precision_and_scale(38, scale).expect("fits");
        ordered(column(array), &values, Ord::cmp)?;
    }

    #[test]
    fn keys_of_two_fields_are_equal_as_their_fields(left in texts(), right in texts()) {
        let pairs: Vec<_> = left.iter().cloned().zip(right.iter().cloned()).collect();
        let columns = [column(BinaryArray::from_iter(pairs.iter().map(|pair| pair.0.clone()))), column(BinaryArray::from_iter(pairs.iter().map(|pair| pair.1.clone())))];
        let keys = keys(&columns);
        for (a, a_key) in pairs.iter().zip(&keys) {
            for (b, b_key) in pairs.iter().zip(&keys) {
                prop_assert_eq!(a.cmp(b), a_key.cmp(b_key));
            }
        }
    }

    #[test]
    fn the_fast_path_of_strings_agrees(values in prop::collection::vec("[a\0b]{0,4}", 1..8)) {
        let plain = keys(&[column(StringArray::from(values.clone()))]);
        prop_assert_eq!(plain, keys(&[column(LargeStringArray::from(values))]));
    }
}

/// What an operator keeps of a row comes back to the bit, however many rows lie one after the other.
#[test]
fn rows_come_back_to_the_bit() {
    let doubles = vec![Some(-0.0), Some(f64::from_bits(0xFFF8_0000_0000_0001)), None, Some(1.5)];
    let columns = [column(Float64Array::from(doubles.clone())), column(StringArray::from(vec![Some("a\0"), None, Some(""), Some("b")]))];
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let mut rows = Keys::default();
    KeyEncoder::for_rows(&types).expect("types of keys").encode(&columns, &mut rows);
    let decoder = crate::key_decode::KeyDecoder::new(&types).expect("types of keys");
    let back = decoder.decode_rows([(&rows.bytes[..], 4)].into_iter()).expect("whole rows");
    let bits = |array: &ArrayRef| array.as_primitive::<Float64Type>().iter().map(|value| value.map(f64::to_bits)).collect::<Vec<_>>();
    assert_eq!(bits(&back[0]), doubles.iter().map(|value| value.map(f64::to_bits)).collect::<Vec<_>>());
    assert_eq!(&back[1], &columns[1]);
    assert!(decoder.decode_rows([(&rows.bytes[..], 3)].into_iter()).is_err(), "a row is left over");
}
