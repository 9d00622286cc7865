//! Random rows of every type, once for us and once for DuckDB, and our values in its words.

use crate::numbers::Numbers;
use crate::oracle::Table;
use arrow::array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::util::display::array_value_to_string;
use serde_json::{Value as Json, json};
use std::sync::Arc;

const TEXTS: &[&str] = &["", "a", "ab", "abc", "Ab", "  ba ", "b,a", "aab", "x9", "zürich", "12", "日本語", "%a_", "aa,bb,cc"];
const INTS: &[i64] = &[0, 1, -1, 2, 3, 7, -5, 100, 12_345, -99_999];
const LARGE: &[i64] = &[i64::MAX, i64::MIN, i64::MAX - 1, 1 << 40, -(1 << 40), 5, 0, 32_768];
const FLOATS: &[f64] = &[0.0, -0.0, 1.5, -2.5, 2.5, 1e10, -1e-3, 3.0, 0.1, 123.456];
const NUMERALS: &[&str] = &["1.5", "-20", "0", "3e2", "x", "", "7."];
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The columns, as DuckDB declares them; the first numbers the rows.
pub const COLUMNS: &[&str] = &[
    "rid BIGINT",
    "i BIGINT",
    "j BIGINT",
    "big BIGINT",
    "f DOUBLE",
    "g DOUBLE",
    "s VARCHAR",
    "u VARCHAR",
    "b BOOLEAN",
    "ts TIMESTAMP",
    "d DATE",
    "n DECIMAL(10,2)",
    "st STRUCT(a BIGINT, b VARCHAR)",
    "l BIGINT[]",
    "num VARCHAR",
];

struct Row {
    i: Option<i64>,
    j: Option<i64>,
    big: Option<i64>,
    f: Option<f64>,
    g: Option<f64>,
    s: Option<&'static str>,
    u: Option<&'static str>,
    b: Option<bool>,
    ts: Option<i64>,
    d: Option<i32>,
    n: Option<i128>,
    a: Option<i64>,
    l: Option<Vec<Option<i64>>>,
    num: Option<&'static str>,
}

/// The same rows as a batch, and as a table of DuckDB's.
pub fn random(numbers: &mut Numbers, count: usize) -> (RecordBatch, Table) {
    let rows: Vec<Row> = (0..count).map(|_| row(numbers)).collect();
    let table = Table {
        columns: COLUMNS.iter().map(|column| column.to_string()).collect(),
        rows: rows.iter().enumerate().map(|(rid, row)| told(rid, row)).collect(),
    };
    (batch(&rows), table)
}

fn row(numbers: &mut Numbers) -> Row {
    let mut some = |share: usize| !numbers.once_in(share);
    let present: Vec<bool> = (0..13).map(|_| some(6)).collect();
    let mut at = present.into_iter();
    let mut there = || at.next().expect("one for each column");
    Row {
        i: there().then(|| *numbers.pick(INTS)),
        j: there().then(|| *numbers.pick(INTS)),
        big: there().then(|| *numbers.pick(LARGE)),
        f: there().then(|| {
            if numbers.once_in(12) { *numbers.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]) } else { *numbers.pick(FLOATS) }
        }),
        g: there().then(|| *numbers.pick(FLOATS)),
        s: there().then(|| *numbers.pick(TEXTS)),
        u: there().then(|| *numbers.pick(TEXTS)),
        b: there().then(|| numbers.once_in(2)),
        ts: there().then(|| 1_600_000_000 * SECOND + numbers.below(2_000) as i64 * DAY + numbers.below(86_400_000) as i64 * 1_000),
        d: there().then(|| 18_000 + numbers.below(3_000) as i32),
        n: there().then(|| numbers.below(20_000) as i128 - 10_000),
        a: there().then(|| *numbers.pick(INTS)),
        l: there().then(|| (0..numbers.below(4)).map(|_| (!numbers.once_in(5)).then(|| *numbers.pick(INTS))).collect()),
        num: Some(*numbers.pick(NUMERALS)),
    }
}

/// For DuckDB, which reads texts as what the column needs.
fn told(rid: usize, row: &Row) -> Vec<Json> {
    let float = |value: Option<f64>| value.map(|value| if value.is_finite() { format!("{value:?}") } else { value.to_string() });
    let time = |micros: i64| pelton_core::Instant::from_micros_saturating(micros).to_string().trim_end_matches('Z').replace('T', " ");
    let date = |days: i32| time(i64::from(days) * DAY)[..10].to_string();
    let money = |value: i128| format!("{}{}.{:02}", if value < 0 { "-" } else { "" }, value.abs() / 100, value.abs() % 100);
    vec![
        json!(rid),
        json!(row.i),
        json!(row.j),
        json!(row.big),
        json!(float(row.f)),
        json!(float(row.g)),
        json!(row.s),
        json!(row.u),
        json!(row.b),
        json!(row.ts.map(time)),
        json!(row.d.map(date)),
        json!(row.n.map(money)),
        json!({"a": row.a, "b": row.s}),
        json!(row.l),
        json!(row.num),
    ]
}

fn batch(rows: &[Row]) -> RecordBatch {
    let ints = |of: fn(&Row) -> Option<i64>| -> ArrayRef { Arc::new(Int64Array::from_iter(rows.iter().map(of))) };
    let floats = |of: fn(&Row) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(rows.iter().map(of))) };
    let texts = |of: fn(&Row) -> Option<&'static str>| -> ArrayRef { Arc::new(StringArray::from_iter(rows.iter().map(of))) };
    let fields = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let structs = StructArray::new(fields, vec![ints(|row| row.a), texts(|row| row.s)], None);
    let decimals = Decimal128Array::from_iter(rows.iter().map(|row| row.n)).with_precision_and_scale(10, 2).expect("fits");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", ints(|row| row.i)),
        ("j", ints(|row| row.j)),
        ("big", ints(|row| row.big)),
        ("f", floats(|row| row.f)),
        ("g", floats(|row| row.g)),
        ("s", texts(|row| row.s)),
        ("u", texts(|row| row.u)),
        ("b", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.b)))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.ts)).with_timezone("UTC"))),
        ("d", Arc::new(Date32Array::from_iter(rows.iter().map(|row| row.d)))),
        ("n", Arc::new(decimals)),
        ("st", Arc::new(structs)),
        ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|row| row.l.clone())))),
        ("num", texts(|row| row.num)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).expect("columns of one length")
}

/// A value of ours in the words of `oracle.py`.
pub fn value(array: &dyn Array, row: usize) -> Json {
    if array.is_null(row) {
        return Json::Null;
    }
    match array.data_type() {
        DataType::Null => Json::Null,
        DataType::Boolean => json!(array.as_boolean().value(row)),
        data_type if data_type.is_integer() => {
            json!(array_value_to_string(array, row).expect("shown").parse::<i128>().expect("an integer") as i64)
        }
        DataType::Float64 => json!({"f": array.as_primitive::<Float64Type>().value(row).to_string()}),
        DataType::Float32 => json!({"f": array.as_primitive::<arrow::datatypes::Float32Type>().value(row).to_string()}),
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Timestamp(..) => json!({"t": array.as_primitive::<TimestampMicrosecondType>().value(row)}),
        DataType::Date32 => json!({"d": array.as_primitive::<Date32Type>().value(row)}),
        DataType::Decimal128(_, scale) => json!({"n": money(array.as_primitive::<Decimal128Type>().value(row), *scale)}),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Json::Array((0..items.len()).map(|item| value(&items, item)).collect())
        }
        _ => json!({"o": array_value_to_string(array, row).expect("shown")}),
    }
}

/// Without zeros at the end, as Python normalises it.
fn money(unscaled: i128, scale: i8) -> String {
    let scale = scale.max(0) as usize;
    let digits = format!("{:0>width$}", unscaled.abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let sign = if unscaled < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// Whether two values are the same. Doubles may differ in the last digits, since functions of libraries do.
pub fn same(ours: &Json, theirs: &Json) -> bool {
    let number = |value: &Json| match &value["f"] {
        Json::String(text) => text.parse::<f64>().ok(),
        _ => value.as_f64().or_else(|| value["n"].as_str().and_then(|text| text.parse().ok())),
    };
    match (ours, theirs) {
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) if a == b => true,
        (a, b) => match (number(a), number(b)) {
            (Some(a), Some(b)) => (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            _ => false,
        },
    }
}
