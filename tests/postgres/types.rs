//! Values there and back: what was written is asked as text.

use crate::support::{batch, config, runtime, sink, write_all};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, ListArray, MapBuilder, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use pelton_tests::postgres::Server;
use serde_json::json;
use std::sync::Arc;

fn map() -> ArrayRef {
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k");
    map.values().append_value("quote \" and \\u0000");
    map.append(true).unwrap();
    map.append(false).unwrap();
    Arc::new(map.finish())
}

/// One column of each type that a row can have, a value and a null; the type that is created for it, and the value as the server says it.
fn columns() -> Vec<(&'static str, ArrayRef, &'static str, &'static str)> {
    let inner = Arc::new(Field::new("x", DataType::Int64, true));
    let row = StructArray::new(vec![inner].into(), vec![Arc::new(Int64Array::from(vec![Some(5), None]))], Some(vec![true, false].into()));
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None, Some(-3)]), None]);
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let words = ListArray::new(
        item,
        arrow::buffer::OffsetBuffer::from_lengths([0, 0]),
        Arc::new(StringArray::new_null(0)),
        Some(vec![true, false].into()),
    );
    let nested = {
        let field = Arc::new(Field::new("item", list.data_type().clone(), true));
        ListArray::new(field, arrow::buffer::OffsetBuffer::from_lengths([1, 0]), Arc::new(list.slice(0, 1)), Some(vec![true, false].into()))
    };
    let instant = |zone: Option<&str>| -> ArrayRef {
        let array = TimestampMicrosecondArray::from(vec![Some(1_767_225_600_123_456), None]);
        Arc::new(zone.map_or(array.clone(), |zone| array.with_timezone(zone)))
    };
    let decimal = |value: i128, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![Some(value), None]).with_precision_and_scale(precision, scale).unwrap())
    };
    vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None])), "boolean", "true"),
        ("int8", Arc::new(Int8Array::from(vec![Some(-128), None])), "smallint", "-128"),
        ("int16", Arc::new(Int16Array::from(vec![Some(i16::MIN), None])), "smallint", "-32768"),
        ("int32", Arc::new(Int32Array::from(vec![Some(i32::MIN), None])), "integer", "-2147483648"),
        ("int64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), "bigint", "-9223372036854775808"),
        ("uint32", Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])), "bigint", "4294967295"),
        ("uint64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])), "numeric(20,0)", "18446744073709551615"),
        ("float32", Arc::new(Float32Array::from(vec![Some(-0.1f32), None])), "real", "-0.1"),
        ("float64", Arc::new(Float64Array::from(vec![Some(f64::NAN), None])), "double precision", "NaN"),
        ("text", Arc::new(StringArray::from(vec![Some("ünïcode\n\t\\N 🎡"), None])), "text", "ünïcode\n\t\\N 🎡"),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\0\xff\\"[..]), None])), "bytea", "\\x00ff5c"),
        ("zoned", instant(Some("UTC")), "timestamp with time zone", "2026-01-01 00:00:00.123456+00"),
        ("local", instant(None), "timestamp without time zone", "2026-01-01 00:00:00.123456"),
        ("date", Arc::new(Date32Array::from(vec![Some(-719_162), None])), "date", "0001-01-01"),
        ("decimal", decimal(-1_234_567_890, 12, 4), "numeric(12,4)", "-123456.7890"),
        (
            "decimal38",
            decimal(-99_999_999_999_999_999_999_999_999_999_999_999_999, 38, 38),
            "numeric(38,38)",
            "-0.99999999999999999999999999999999999999",
        ),
        ("numbers", Arc::new(list), "bigint[]", "{1,NULL,-3}"),
        ("words", Arc::new(words), "text[]", "{}"),
        ("nested", Arc::new(nested), "jsonb", "[[1, null, -3]]"),
        ("row", Arc::new(row), "jsonb", "{\"x\": 5}"),
        ("map", map(), "jsonb", "{\"k\": \"quote \\\" and \\\\u0000\"}"),
    ]
}

#[test]
fn every_type_of_a_row_comes_back() {
    let server = Server::shared();
    let database = server.database();
    let columns = columns();
    let rows = batch(columns.iter().map(|(name, column, _, _)| (*name, column.clone())).collect());
    let config = config(server.port(), &database, "types", json!({"create": "if_missing", "schema": "public"}));
    runtime().block_on(async {
        assert_eq!(write_all(&config, std::slice::from_ref(&rows)).await, Vec::<String>::new());
        // The same table is found again, and written to as before.
        write_all(&config, &[rows.slice(0, 1), rows.slice(1, 1)]).await;
    });
    for (name, _, created, text) in &columns {
        let types =
            format!("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'types'::regclass AND attname = '{name}'");
        assert_eq!(server.psql(&database, &types), *created, "{name}");
        let values = format!(
            "SELECT count(*), count(\"{name}\") FROM types UNION ALL SELECT 0, count(*) FROM types WHERE \"{name}\"::text = $x${text}$x$"
        );
        assert_eq!(
            server.psql(&database, &values),
            "4|2\n0|2",
            "{name} is {}",
            server.psql(&database, &format!("SELECT \"{name}\" FROM types"))
        );
    }
}

/// Numbers from a seed.
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) ^ (self.0 << 31)
    }

    /// Of any magnitude up to these many bits.
    fn bits(&mut self, most: u32) -> i128 {
        let value = (i128::from(self.next()) << 64 | i128::from(self.next())) >> 1;
        let value = value & ((1i128 << (self.next() % u64::from(most))) - 1);
        if self.next().is_multiple_of(2) { value } else { -value }
    }
}

#[test]
fn random_values_come_back_exactly() {
    const ROWS: usize = 4_000;
    let server = Server::shared();
    let database = server.database();
    let mut seed = Seed(7);
    let longs: Vec<i64> = (0..ROWS).map(|_| seed.bits(63) as i64).collect();
    // The days and microseconds that PostgreSQL has, and the first and last of them.
    let days: Vec<i32> = (0..ROWS).map(|_| (seed.next() % 2_147_000_000) as i32 - 2_440_588).chain([-2_440_588, 2_145_042_905]).collect();
    let micros: Vec<i64> = (0..ROWS).map(|_| seed.bits(57) as i64).chain([-210_866_803_200_000_000, 9_223_372_036_854_775_000]).collect();
    let doubles: Vec<f64> = (0..ROWS).map(|_| f64::from_bits(seed.next())).filter(|double| !double.is_nan()).collect();
    let decimals: Vec<i128> = (0..ROWS).map(|_| seed.bits(126)).collect();
    let decimal =
        |scale| -> ArrayRef { Arc::new(Decimal128Array::from_iter_values(decimals.clone()).with_precision_and_scale(38, scale).unwrap()) };
    let write = |table: &str, column: ArrayRef, kind: &str| {
        server.psql(&database, &format!("CREATE TABLE {table} (n bigint, v {kind})"));
        let numbers = Arc::new(Int64Array::from_iter_values(0..column.len() as i64)) as ArrayRef;
        let config = config(server.port(), &database, table, json!({"batch_size": 1_000}));
        let errors = runtime().block_on(write_all(&config, &[batch(vec![("n", numbers), ("v", column)])]));
        assert_eq!(errors, Vec::<String>::new(), "{table}");
    };
    let read = |table: &str, value: &str| -> Vec<String> {
        server.psql(&database, &format!("SELECT {value} FROM {table} ORDER BY n")).lines().map(str::to_string).collect()
    };
    let strings = |values: &mut dyn Iterator<Item = String>| -> Vec<String> { values.collect() };
    write("longs", Arc::new(Int64Array::from(longs.clone())), "bigint");
    assert_eq!(read("longs", "v"), strings(&mut longs.iter().map(i64::to_string)));
    write("wide", Arc::new(Int64Array::from(longs.clone())), "numeric");
    assert_eq!(read("wide", "v"), strings(&mut longs.iter().map(i64::to_string)));
    write("days", Arc::new(Date32Array::from(days.clone())), "date");
    assert_eq!(read("days", "v - date '1970-01-01'"), strings(&mut days.iter().map(i32::to_string)));
    write("instants", Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC")), "timestamptz");
    assert_eq!(read("instants", "trunc(extract(epoch FROM v) * 1000000)"), strings(&mut micros.iter().map(i64::to_string)));
    write("doubles", Arc::new(Float64Array::from(doubles.clone())), "float8");
    let back: Vec<u64> =
        read("doubles", "v").iter().map(|text| text.replace("Infinity", "inf").parse::<f64>().unwrap().to_bits()).collect();
    assert_eq!(back, doubles.iter().map(|double| double.to_bits()).collect::<Vec<_>>());
    for scale in [0, 3, 4, 17, 38] {
        let (column, table) = (decimal(scale), format!("decimals{scale}"));
        let expected = column.as_any().downcast_ref::<Decimal128Array>().unwrap().clone();
        write(&table, column, "numeric");
        assert_eq!(read(&table, "v"), strings(&mut (0..ROWS).map(|row| expected.value_as_string(row))), "scale {scale}");
    }
}

#[test]
fn rows_that_the_table_cannot_hold_are_errors_and_the_others_are_written() {
    let server = Server::shared();
    let database = server.database();
    let strings = |bad: &str| -> ArrayRef { Arc::new(StringArray::from(vec!["1", bad, "2"])) };
    let json = |bad: &str| -> ArrayRef { Arc::new(StringArray::from(vec!["{}", bad, "[1]"])) };
    let uuid = |bad: &str| -> ArrayRef {
        Arc::new(StringArray::from(vec!["123e4567-e89b-12d3-a456-426614174000", bad, "123E4567E89B12D3A456426614174000"]))
    };
    let longs = |bad: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![1, bad, 2])) };
    let decimals =
        |bad: i128, scale| -> ArrayRef { Arc::new(Decimal128Array::from(vec![0, bad, 100]).with_precision_and_scale(38, scale).unwrap()) };
    let wrap = |values: ArrayRef| -> ArrayRef {
        Arc::new(StructArray::new(vec![Field::new("x", values.data_type().clone(), true)].into(), vec![values], None))
    };
    let list = |values: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(field, arrow::buffer::OffsetBuffer::from_lengths([1, 1, 1]), values, None))
    };
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        ("text", strings("a\0b"), "text with the character U+0000"),
        ("varchar(3)", strings("ünnü"), "text of more than 3 characters"),
        ("char(3)", strings("abcd"), "text of more than 3 characters"),
        ("smallint", longs(32_768), "32768 is out of range of smallint"),
        ("integer", longs(-2_147_483_649), "-2147483649 is out of range of integer"),
        ("bigint", Arc::new(UInt64Array::from(vec![1, 1 << 63, 2])), "9223372036854775808 is out of range of bigint"),
        ("numeric(4,1)", longs(1_000), "1000 does not fit numeric(4,1)"),
        ("numeric(4,1)", decimals(123, 2), "1.23 does not fit numeric(4,1)"),
        (
            "timestamptz",
            Arc::new(TimestampMicrosecondArray::from(vec![0, i64::MIN, 1]).with_timezone("UTC")),
            "an instant beyond the years",
        ),
        ("date", Arc::new(Date32Array::from(vec![0, i32::MIN, 1])), "a date beyond the years"),
        ("uuid", uuid("123e4567"), "text that is no UUID"),
        ("json", json("{"), "text that is no JSON"),
        ("jsonb", json("{\"a\": 1e20000}"), "text that is no JSON"),
        ("jsonb", json("[1e-20000]"), "JSON with a number of too many digits"),
        ("jsonb", json("\"\\u0000\""), "JSON with the character U+0000"),
        ("jsonb", wrap(strings("a\0")), "text with the character U+0000"),
        ("jsonb", wrap(Arc::new(Float64Array::from(vec![1.0, f64::INFINITY, 2.0]))), "inf cannot be written as JSON"),
        ("text[]", list(strings("\0")), "text with the character U+0000"),
        ("smallint[]", list(longs(-40_000)), "-40000 is out of range of smallint"),
        ("text NOT NULL", Arc::new(StringArray::from(vec![Some("1"), None, Some("2")])), "null where the table needs a value"),
    ];
    runtime().block_on(async {
        for (index, (kind, values, expected)) in cases.into_iter().enumerate() {
            let table = format!("r{index}");
            server.psql(&database, &format!("CREATE TABLE {table} (id bigint, v {kind})"));
            let ids = Arc::new(Int64Array::from(vec![10, 20, 30])) as ArrayRef;
            let errors = write_all(&config(server.port(), &database, &table, json!({})), &[batch(vec![("id", ids), ("v", values)])]).await;
            let [error] = &errors[..] else { panic!("{kind}: {errors:?}") };
            assert!(error.starts_with("1: column `v`: ") && error.contains(expected), "{kind}: {error}");
            assert_eq!(crate::support::ids(&server, &database, &table), "10,30", "{kind}");
        }
    });
}

/// What only the server can know ends the run with the server's words, and nothing of the transaction stays.
#[test]
fn a_constraint_of_the_table_ends_the_run() {
    let server = Server::shared();
    let database = server.database();
    server.psql(&database, "CREATE TABLE t (id bigint CHECK (id < 3))");
    let ids = |range: std::ops::Range<i64>| batch(vec![("id", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)]);
    runtime().block_on(async {
        let mut sink = sink(&config(server.port(), &database, "t", json!({})), ids(0..0).schema()).await.unwrap();
        sink.write(&ids(0..5)).await.unwrap();
        let error = sink.finish().await.unwrap_err();
        assert!(matches!(&error, pelton_connect::ConnectError::Data { message } if message.contains("violates check constraint \"t_id_check\"")), "{error}");
    });
    assert_eq!(server.psql(&database, "SELECT count(*) FROM t"), "0");
}
