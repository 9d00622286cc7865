//! Oracles: serde_json's values for reading, reading back for writing.

use super::*;
use crate::format::json_read::JsonDecoder;
use crate::format::json_write::write_row;
use crate::format::schema::{list_of, map_of, timestamp};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

/// A schema with every type that a row can have.
fn wide() -> Schema {
    Schema::new(vec![
        Field::new("b", DataType::Boolean, true),
        Field::new("i8", DataType::Int8, true),
        Field::new("i64", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("y", DataType::Binary, true),
        Field::new("t", timestamp(), true),
        Field::new("d", DataType::Date32, true),
        Field::new("m", DataType::Decimal128(20, 4), true),
        Field::new("l", list_of(DataType::Int64), true),
        Field::new(
            "r",
            DataType::Struct(vec![Field::new("x", DataType::Utf8, true), Field::new("z", list_of(DataType::Float64), true)].into()),
            true,
        ),
        Field::new("p", map_of(DataType::Int64, false), true),
    ])
}

fn nullable(strategy: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    prop_oneof![5 => strategy, 1 => Just(Value::Null)].boxed()
}

/// A row of `wide`, in the very form in which it is written.
fn wide_row() -> impl Strategy<Value = Value> {
    let double = any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from);
    let instant = (-4_000_000_000_000_000i64..4_000_000_000_000_000)
        .prop_map(|micros| json!(pelton_core::Instant::from_micros(micros).unwrap().to_string()));
    let flat = (
        nullable(any::<bool>().prop_map(Value::from)),
        nullable(any::<i8>().prop_map(Value::from)),
        nullable(any::<i64>().prop_map(Value::from)),
        nullable(double.clone()),
        nullable(".{0,12}".prop_map(Value::from)),
        nullable(Just(json!("aGk="))),
        nullable(instant),
        nullable(Just(json!("2024-02-29"))),
    );
    let nested = (
        nullable(proptest::collection::vec(nullable(any::<i64>().prop_map(Value::from)), 0..4).prop_map(Value::from)),
        nullable(
            (nullable(".{0,3}".prop_map(Value::from)), proptest::collection::vec(double, 0..3)).prop_map(|(x, z)| json!({"x": x, "z": z})),
        ),
        nullable(proptest::collection::btree_map("[a-z]{1,3}", any::<i64>(), 0..3).prop_map(|entries| json!(entries))),
    );
    (flat, nested).prop_map(|((b, i8, i64, f, s, y, t, d), (l, r, p))| {
        json!({"b": b, "i8": i8, "i64": i64, "f": f, "s": s, "y": y, "t": t, "d": d, "m": null, "l": l, "r": r, "p": p})
    })
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    (0..batch.num_rows())
        .map(|row| {
            let mut out = Vec::new();
            write_row(batch, row, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn json_comes_out_as_it_went_in_and_malformed_rows_leave_nothing(rows in proptest::collection::vec((wide_row(), any::<Option<usize>>()), 0..8)) {
        let mut decoder = JsonDecoder::new(&wide(), None).unwrap();
        let mut expected = Vec::new();
        for (row, cut) in &rows {
            let text = row.to_string();
            match cut.map(|cut| cut % text.len()) {
                // A row that is cut anywhere is no object.
                Some(cut) => prop_assert!(decoder.push(&text.as_bytes()[..cut]).is_err()),
                None => {
                    decoder.push(text.as_bytes()).map_err(TestCaseError::fail)?;
                    expected.push(row.clone());
                }
            }
        }
        let batch = decoder.finish();
        let found: Vec<Value> = texts(&batch).iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        // serde_json may read a fraction wrong by a bit, so both sides are compared as it reads them.
        let expected: Vec<Value> = expected.iter().map(|row| serde_json::from_str(&row.to_string()).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn doubles_are_exact(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        let mut decoder = JsonDecoder::new(&Schema::new(vec![Field::new("f", DataType::Float64, true)]), None).unwrap();
        decoder.push(format!("{{\"f\":{value:e}}}").as_bytes()).map_err(TestCaseError::fail)?;
        let batch = decoder.finish();
        let text = texts(&batch).remove(0);
        prop_assert_eq!(text[5..text.len() - 1].parse::<f64>().unwrap().to_bits(), value.to_bits());
    }

    #[test]
    fn any_bytes_are_judged_as_serde_json_judges_them(record in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'a'), Just(b':'), Just(b','), Just(b'1'), Just(b'['), Just(b']'), Just(b' '), Just(0xC3)], 0..14)) {
        let mut decoder = JsonDecoder::new(&Schema::new(vec![Field::new("z", DataType::Int64, true)]), None).unwrap();
        let valid = matches!(serde_json::from_slice::<Value>(&record), Ok(Value::Object(_)));
        prop_assert_eq!(decoder.push(&record).is_ok(), valid, "{}", String::from_utf8_lossy(&record));
        prop_assert_eq!(decoder.finish().num_rows(), usize::from(valid));
    }

    #[test]
    fn what_is_written_reads_back(rows in proptest::collection::vec(wide_row(), 1..6)) {
        let schema = wide();
        let mut decoder = JsonDecoder::new(&schema, None).unwrap();
        for row in &rows {
            decoder.push(row.to_string().as_bytes()).map_err(TestCaseError::fail)?;
        }
        let rows = decoder.finish();
        let dir = tempfile::tempdir().unwrap();

        let parquet = round_trip(dir.path(), "WriteToParquet", &rows);
        let file = std::fs::File::open(parquet).unwrap();
        let back: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(texts(&back[0]), texts(&rows));

        round_trip(dir.path(), "WriteToJson", &rows);
        let types = json!({"b": "boolean", "i8": "int8", "i64": "integer", "f": "double", "s": "string", "y": "bytes", "t": "timestamp", "d": "date", "m": "decimal(20,4)",
            "l": {"type": "array", "items": "integer"},
            "r": {"type": "object", "properties": {"x": "string", "z": {"type": "array", "items": "number"}}},
            "p": {"type": "object", "additionalProperties": "integer"}});
        let found = read(dir.path(), "ReadFromJson", json!({"path": "WriteToJson-*", "schema": types}), 1, None).unwrap();
        prop_assert_eq!(found.texts(), texts(&rows));

        // CSV has no nested fields; an empty string is read as null, and so not told apart here.
        let flat = rows.project(&[0, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        round_trip(dir.path(), "WriteToCsv", &flat);
        let types = json!({"b": "boolean", "i8": "int8", "i64": "integer", "f": "double", "s": "string", "y": "bytes", "t": "timestamp", "d": "date", "m": "decimal(20,4)"});
        let found = read(dir.path(), "ReadFromCsv", json!({"path": "WriteToCsv-*", "schema": types}), 1, None).unwrap();
        let expected: Vec<String> = texts(&flat).iter().map(|text| text.replace("\"s\":\"\"", "\"s\":null")).collect();
        prop_assert_eq!(found.texts(), expected);
    }
}

fn round_trip(dir: &Path, kind: &str, rows: &RecordBatch) -> String {
    let runtime = runtime();
    runtime.block_on(async {
        let mut sink = open(kind, &json!({"path": kind}), sink_context(&runtime, dir, rows.schema())).await;
        assert_eq!(sink.write(&batch(rows.clone(), vec![0; rows.num_rows()])).await.unwrap(), []);
        sink.finish().await.unwrap().files.remove(0)
    })
}

#[test]
fn a_decoder_says_which_field_is_wrong_and_the_last_of_two_keys_counts() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("t", timestamp(), true)]));
    let mut decoder = JsonDecoder::new(&schema, None).unwrap();
    for (record, part) in [
        (r#"{"t": 1}"#, "field `id`: a value is required"),
        (r#"{"id": null}"#, "field `id`: a value is required"),
        (r#"{"id": 1.5}"#, "field `id`: `1.5` is no int64"),
        (r#"{"id": 1, "t": "yesterday"}"#, "field `t`: `yesterday` is no timestamp"),
        (r#"[1]"#, "a JSON object"),
        (r#"{"id": 1} x"#, "trailing"),
        (r#"{"id": 99999999999999999999}"#, "field `id`"),
    ] {
        let message = decoder.push(record.as_bytes()).unwrap_err();
        assert!(message.contains(part), "{record}: {message}");
    }
    decoder.push(br#"{"id": 1, "t": 1.5, "id": 2}"#).unwrap();
    assert_eq!(texts(&decoder.finish()), [r#"{"id":2,"t":"1970-01-01T00:00:01.500Z"}"#]);
}
