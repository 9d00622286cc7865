//! Tables of expressions and their values over one batch.

use super::*;
use arrow::array::*;
use arrow::datatypes::{Field, Int64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Four rows; the last has nulls wherever it can.
fn rows() -> RecordBatch {
    let column = |array: ArrayRef| array;
    let user = StructArray::from(
        RecordBatch::try_from_iter([("name", Arc::new(StringArray::from(vec!["ann", "bob", "cy", "di"])) as ArrayRef)]).expect("a batch"),
    );
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1)]), Some(vec![]), None, None]);
    let decimals = Decimal128Array::from(vec![Some(150), Some(-25), Some(0), None]).with_precision_and_scale(10, 2).expect("fits");
    let at = |text: &str| pelton_core::Instant::parse_rfc3339(text).expect("a time").micros();
    let times = vec![Some(at("2026-01-31T12:34:56.789012Z")), Some(at("1969-12-31T23:59:59Z")), Some(at("2400-02-29T00:00:00Z")), None];
    RecordBatch::try_from_iter_with_nullable([
        ("a", column(Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(0), None]))), true),
        ("small", column(Arc::new(Int8Array::from(vec![100, -100, 0, 1]))), false),
        ("big", column(Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN, 0, 1]))), false),
        ("f", column(Arc::new(Float64Array::from(vec![Some(1.5), Some(-0.5), Some(f64::NAN), None]))), true),
        ("s", column(Arc::new(StringArray::from(vec![Some("Abc"), Some("12"), Some(""), None]))), true),
        ("t", column(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None]))), true),
        ("ts", column(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))), true),
        ("day", column(Arc::new(Date32Array::from(vec![Some(20_484), Some(0), Some(-1), None]))), true),
        ("price", column(Arc::new(decimals)), true),
        ("raw", column(Arc::new(BinaryArray::from(vec![&b"x"[..], b"", b"\x00", b"y"]))), false),
        ("user", column(Arc::new(user)), false),
        ("tags", column(Arc::new(lists)), true),
        ("Mixed", column(Arc::new(Int64Array::from(vec![1, 2, 3, 4]))), false),
        ("dup", column(Arc::new(Int64Array::from(vec![1, 2, 3, 4]))), false),
        ("Dup", column(Arc::new(Int64Array::from(vec![5, 6, 7, 8]))), false),
    ])
    .expect("a batch")
}

fn values(evaluated: &Evaluated) -> String {
    let options = FormatOptions::new().with_null("null");
    let formatter = ArrayFormatter::try_new(evaluated.array.as_ref(), &options).expect("can be shown");
    let failed = |row: usize| evaluated.errors.iter().find(|error| error.row as usize == row);
    let show = |row: usize| failed(row).map_or_else(|| formatter.value(row).to_string(), |error| format!("!{}", error.message));
    (0..evaluated.array.len()).map(show).collect::<Vec<_>>().join(" | ")
}

/// The rows' values are the same on the batch, on each row alone, and on a batch of only the columns that are read.
fn evaluate(language: Language, text: &str) -> (String, DataType) {
    let rows = rows();
    let expression = Expression::compile(language, text, &rows.schema()).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let evaluated = expression.evaluate(&rows);
    assert_eq!(evaluated.array.data_type(), expression.data_type(), "{text}");
    assert!(evaluated.errors.iter().all(|error| evaluated.array.is_null(error.row as usize)), "{text}");
    let found = values(&evaluated);
    let alone: Vec<String> = (0..rows.num_rows()).map(|row| values(&expression.evaluate(&rows.slice(row, 1)))).collect();
    assert_eq!(alone.join(" | "), found, "{text}: rows alone");
    let names = expression.columns();
    let indices: Vec<usize> = names.iter().map(|name| rows.schema().index_of(name).expect("a column")).rev().collect();
    assert_eq!(values(&expression.evaluate(&rows.project(&indices).expect("columns"))), found, "{text}: pruned");
    let none = expression.evaluate(&rows.slice(0, 0));
    assert_eq!((none.array.len(), none.errors.len()), (0, 0), "{text}: no rows");
    assert_eq!(none.array.data_type(), expression.data_type());
    (found, expression.data_type().clone())
}

fn check(text: &str, expected: &str) {
    assert_eq!(evaluate(Language::Sql, text).0, expected, "{text}");
}

fn check_generic(text: &str, expected: &str) {
    assert_eq!(evaluate(Language::Generic, text).0, expected, "{text}");
}

fn refused(language: Language, text: &str) -> ExpressionError {
    Expression::compile(language, text, &rows().schema()).err().unwrap_or_else(|| panic!("{text} compiles"))
}

#[test]
fn arithmetic() {
    check("a + 1", "2 | 3 | 1 | null");
    check("a - small", "-99 | 102 | 0 | null");
    check("a * 2.5", "2.5 | 5.0 | 0.0 | null");
    check("7 / 2", "3 | 3 | 3 | 3");
    check("-7 / 2", "-3 | -3 | -3 | -3");
    check("-7 % 2", "-1 | -1 | -1 | -1");
    check("-a", "-1 | -2 | 0 | null");
    check("-f", "-1.5 | 0.5 | NaN | null");
    check("price + 1", "2.50 | 0.75 | 1.00 | null");
    check("abs(small)", "100 | 100 | 0 | 1");
    check("round(f)", "2.0 | -1.0 | NaN | null");
    check("floor(f)", "1.0 | -1.0 | NaN | null");
    check("power(2, 10)", "1024.0 | 1024.0 | 1024.0 | 1024.0");
    check("1", "1 | 1 | 1 | 1");
    check("f / 0", "inf | -inf | NaN | null");
    check("f > 1000", "false | false | true | null");
    check("CAST(f AS BIGINT)", "1 | 0 | !Can't cast value NaN to type Int64 | null");
    check("price * price", "2.2500 | 0.0625 | 0.0000 | null");
}

#[test]
fn a_failing_row_fails_alone() {
    check("10 / a", "10 | 5 | !division by zero | null");
    check("10 % a", "0 | 0 | !division by zero | null");
    check("price / 0", "!division by zero | !division by zero | !division by zero | null");
    check("CASE WHEN a = 0 THEN -1 ELSE 10 / a END", "10 | 5 | -1 | null");
    check("a <> 0 AND 10 / a > 5", "true | false | false | null");
    check("10 / nullif(a, 0)", "10 | 5 | null | null");
    check(
        "CAST(s AS BIGINT)",
        "!Cannot cast string 'Abc' to value of Int64 type | 12 | !Cannot cast string '' to value of Int64 type | null",
    );
    check("TRY_CAST(s AS BIGINT)", "null | 12 | null | null");
    check("CAST(a AS TINYINT) + 1", "2 | 3 | 1 | null");
}

#[test]
fn overflow_is_an_error() {
    check("big + 1", "!arithmetic overflow in 9223372036854775807 + 1 | -9223372036854775807 | 1 | 2");
    check("big - 1", "9223372036854775806 | !arithmetic overflow in -9223372036854775808 - 1 | -1 | 0");
    check("big * 2", "!arithmetic overflow in 9223372036854775807 * 2 | !arithmetic overflow in -9223372036854775808 * 2 | 0 | 2");
    check("-big", "-9223372036854775807 | !arithmetic overflow in 0 - -9223372036854775808 | 0 | -1");
    check("big / -1", "-9223372036854775807 | !arithmetic overflow in -9223372036854775808 / -1 | 0 | -1");
    check("small + small", "!arithmetic overflow in 100 + 100 | !arithmetic overflow in -100 + -100 | 0 | 2");
    let constant = evaluate(Language::Sql, "9223372036854775807 + 1").0;
    assert!(constant.starts_with("!arithmetic overflow"), "{constant}");
    let absolute = evaluate(Language::Sql, "abs(big)").0;
    assert!(absolute.contains("| !"), "{absolute}");
    let narrowed = evaluate(Language::Sql, "CAST(big AS INT)").0;
    assert!(narrowed.starts_with('!') && narrowed.ends_with("| 0 | 1"), "{narrowed}");
}

#[test]
fn three_valued_logic() {
    check("t AND true", "true | false | null | null");
    check("t AND false", "false | false | false | false");
    check("t OR true", "true | true | true | true");
    check("t OR false", "true | false | null | null");
    check("NOT t", "false | true | null | null");
    check("t IS NOT TRUE", "false | true | true | true");
    check("a = NULL", "null | null | null | null");
    check("a IS NULL", "false | false | false | true");
    check("a IS NOT DISTINCT FROM NULL", "false | false | false | true");
    check("a IN (1, NULL)", "true | null | null | null");
    check("a NOT IN (1, 2)", "false | false | true | null");
    check("a BETWEEN 1 AND 2", "true | true | false | null");
    check("NULL", "null | null | null | null");
    check("coalesce(a, Mixed)", "1 | 2 | 0 | 4");
    check("coalesce(a, 1 / 0)", "1 | 2 | 0 | !division by zero");
    check("f = f", "true | true | true | null");
}

#[test]
fn strings_and_bytes() {
    check("upper(s)", "ABC | 12 |  | null");
    check("s || '!'", "Abc! | 12! | ! | null");
    check("concat(s, '_')", "Abc_ | 12_ | _ | _");
    check("s LIKE 'A%'", "true | false | false | null");
    check("s ILIKE 'a_c'", "true | false | false | null");
    check("s NOT LIKE '%1%'", "true | false | true | null");
    check("substring(s FROM 2 FOR 1)", "b | 2 |  | null");
    check("position('c' IN s)", "3 | 0 | 0 | null");
    check("trim(both 'A' from s)", "bc | 12 |  | null");
    check("char_length(s)", "3 | 2 | 0 | null");
    check("regexp_replace(s, '[a-z]+', '-')", "A- | 12 |  | null");
    check("s ~ '^[0-9]+$'", "false | true | false | null");
    check("split_part('a,b', ',', 2)", "b | b | b | b");
    check("CASE s WHEN 'Abc' THEN 1 ELSE 2 END", "1 | 2 | 2 | 2");
    check("CAST(a AS VARCHAR)", "1 | 2 | 0 | null");
    check("raw = arrow_cast('y', 'Binary')", "false | false | false | true");
    check("'100%' LIKE '100\\%'", "true | true | true | true");
    check("'1000' LIKE '100\\%'", "false | false | false | false");
    check("'it''s'", "it's | it's | it's | it's");
}

#[test]
fn instants_and_dates() {
    check("ts", "2026-01-31T12:34:56.789012Z | 1969-12-31T23:59:59Z | 2400-02-29T00:00:00Z | null");
    check("ts > TIMESTAMP '2026-01-31T00:00:00Z'", "true | false | true | null");
    check("ts > '2026-01-31T00:00:00Z'", "true | false | true | null");
    check("TIMESTAMP '2026-01-01T01:00:00+01:00' = TIMESTAMP '2026-01-01T00:00:00Z'", "true | true | true | true");
    check("ts BETWEEN '2000-01-01' AND '2500-01-01'", "true | false | true | null");
    check("ts IN ('1969-12-31T23:59:59Z')", "false | true | false | null");
    let unreadable = evaluate(Language::Sql, "ts = s").0;
    assert!(unreadable.starts_with("!Error parsing timestamp from 'Abc'") && unreadable.ends_with("| null"), "{unreadable}");
    check("to_timestamp(a)", "1970-01-01T00:00:01Z | 1970-01-01T00:00:02Z | 1970-01-01T00:00:00Z | null");
    check("ts = '2026-01-31T12:34:56.789012'", "true | false | false | null");
    check("extract(year FROM ts)", "2026 | 1969 | 2400 | null");
    check("date_trunc('hour', ts)", "2026-01-31T12:00:00Z | 1969-12-31T23:00:00Z | !Timestamp 13574563200000000 out of range | null");
    check("ts + INTERVAL '1 day'", "2026-02-01T12:34:56.789012Z | 1970-01-01T23:59:59Z | 2400-03-01T00:00:00Z | null");
    check("ts + INTERVAL '1 month'", "2026-02-28T12:34:56.789012Z | 1970-01-31T23:59:59Z | 2400-03-29T00:00:00Z | null");
    check("CAST(ts AS DATE)", "2026-01-31 | 1969-12-31 | 2400-02-29 | null");
    check("day + INTERVAL '1 day'", "2026-02-01 | 1970-01-02 | 1970-01-01 | null");
    check("to_timestamp_micros(big - big)", "1970-01-01T00:00:00Z | 1970-01-01T00:00:00Z | 1970-01-01T00:00:00Z | 1970-01-01T00:00:00Z");
    check("day < DATE '1970-01-01'", "false | false | true | null");
}

#[test]
fn names_of_columns() {
    check("A", "1 | 2 | 0 | null");
    check("mixed + \"Mixed\"", "2 | 4 | 6 | 8");
    check("dup - \"Dup\"", "-4 | -4 | -4 | -4");
    check("user.name", "ann | bob | cy | di");
    check("tags", "[1] | [] | null | null");
    assert!(refused(Language::Sql, "DUP").message.contains("any of the fields dup, Dup"));
    assert!(refused(Language::Sql, "\"mixed\"").message.contains("no field"));
    let error = refused(Language::Sql, "1 +\n pricee");
    assert_eq!(
        (error.message.as_str(), error.help.as_deref(), error.offset),
        ("the input has no field `pricee`", Some("did you mean `price`?"), Some(5))
    );
    assert_eq!(Expression::compile(Language::Sql, "s = 'x' AND a > 1", &rows().schema()).expect("compiles").columns(), ["a", "s"]);
}

#[test]
fn types_of_results() {
    for (text, expected) in [
        ("ts", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))),
        ("to_timestamp(s)", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))),
        ("CAST(ts AS DATE)", DataType::Date32),
        ("s || s", DataType::Utf8),
        ("arrow_cast(s, 'Utf8View')", DataType::Utf8),
        ("price", DataType::Decimal128(10, 2)),
        ("raw", DataType::Binary),
        ("small + 1", DataType::Int64),
        ("small + small", DataType::Int8),
        ("CAST(1 AS TINYINT UNSIGNED)", DataType::UInt8),
        ("CAST(1 AS BIGINT UNSIGNED)", DataType::UInt64),
        ("CAST(s AS BYTEA)", DataType::Binary),
        ("CAST(a AS DECIMAL(12, 3))", DataType::Decimal128(12, 3)),
        ("a = 1", DataType::Boolean),
        ("CAST(a AS INT)", DataType::Int32),
        ("CAST(a AS REAL)", DataType::Float32),
    ] {
        assert_eq!(evaluate(Language::Sql, text).1, expected, "{text}");
    }
    let schema = rows().schema();
    let nullable = |text| Expression::compile(Language::Sql, text, &schema).expect("compiles").nullable();
    assert!(nullable("a + 1") && !nullable("small + 1"));
    assert!(refused(Language::Sql, "ts - ts").message.contains("cannot result in a value of type Duration"));
}

#[test]
fn refusals_say_why() {
    for (text, part) in [
        ("now()", "reads the clock"),
        ("a = 1 AND ts > CURRENT_TIMESTAMP", "reads the clock"),
        ("current_date", "reads the clock"),
        ("random()", "is random"),
        ("uuid()", "is random"),
        ("sum(a)", "aggregate"),
        ("COUNT(*)", "aggregate"),
        ("row_number() OVER (ORDER BY a)", "window function"),
        ("lag(a)", "window function"),
        ("(SELECT 1)", "subquery"),
        ("a IN (SELECT 1)", "subquery"),
        ("EXISTS (SELECT 1)", "subquery"),
        ("uper(s)", "no function `uper`"),
        ("a +", "Expected: an expression"),
        ("a b", "not expected after the end"),
        ("", "Expected: an expression"),
        ("'x", "Unterminated string"),
        ("a + t", ""),
    ] {
        let error = refused(Language::Sql, text);
        assert!(error.message.contains(part), "{text}: {error:?}");
        assert!(!error.message.contains('\n') && !error.message.contains("Line:"), "{text}: {error:?}");
    }
    assert_eq!(refused(Language::Sql, "uper(s)").help.as_deref(), Some("did you mean `upper`?"));
    assert_eq!(refused(Language::Sql, "a b").offset, Some(2));
}

#[test]
fn the_generic_language() {
    check_generic("a", "1 | 2 | 0 | null");
    check_generic("42", "42 | 42 | 42 | 42");
    check_generic("-1.5", "-1.5 | -1.5 | -1.5 | -1.5");
    check_generic("\"a <= b\"", "a <= b | a <= b | a <= b | a <= b");
    check_generic("a == 1", "true | false | false | false");
    check_generic("a != 1", "false | true | true | true");
    check_generic("a == a", "true | true | true | true");
    check_generic("Mixed <= 2", "true | true | false | false");
    check_generic("Mixed>=2.5", "false | false | true | true");
    check_generic("a < Mixed", "false | false | true | !null cannot be compared with <");
    check_generic("s > \"2\"", "true | false | false | !null cannot be compared with >");
    for text in ["a + 1", "a < b < 3", "3000000000", "\"x", "a = 1", "", "upper(s)"] {
        assert!(refused(Language::Generic, text).message.contains("not a generic expression"), "{text}");
    }
    assert!(refused(Language::Generic, "s < 3").message.contains("cannot be compared"));
    let error = refused(Language::Generic, "pricee > 3");
    assert_eq!((error.help.as_deref(), error.offset), (Some("did you mean `price`?"), Some(0)));
}

#[test]
fn syntax_is_checked_without_a_schema() {
    assert_eq!(check_syntax(Language::Sql, "a + B > a AND c.d = 'x'").expect("right"), ["a", "B", "c"]);
    assert_eq!(check_syntax(Language::Generic, "a < \"b\"").expect("right"), ["a"]);
    assert!(check_syntax(Language::Sql, "now() > a").is_err());
    assert!(check_syntax(Language::Generic, "a +").is_err());
}

/// Errors of single rows are found in a large batch, and the others keep their values.
#[test]
fn one_row_of_many_fails() {
    let count = 8_192;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
    let array = Arc::new(Int64Array::from_iter_values((0..count).map(|row| i64::from(row != 5_000))));
    let rows = RecordBatch::try_new(schema.clone(), vec![array]).expect("a batch");
    let evaluated = Expression::compile(Language::Sql, "7 / x", &schema).expect("compiles").evaluate(&rows);
    assert_eq!(evaluated.errors, [RowError { row: 5_000, message: "division by zero".into(), stack: String::new() }]);
    assert_eq!((evaluated.array.len(), evaluated.array.null_count()), (count as usize, 1));
}

#[test]
fn a_batch_without_the_column_fails_by_row() {
    let schema = rows().schema();
    let expression = Expression::compile(Language::Sql, "a + 1", &schema).expect("compiles");
    let evaluated = expression.evaluate(&rows().project(&[1]).expect("columns"));
    assert_eq!(evaluated.errors.len(), 4);
    assert_eq!(evaluated.errors[0].message, "the batch has no column `a`");
}

/// DataFusion takes a CASE in an IN list for a constant.
#[test]
fn items_of_a_list_are_evaluated_on_every_row() {
    check("2 IN (7, CASE WHEN a = 1 THEN 2 ELSE 3 END)", "true | false | false | false");
    check("a NOT IN (31, CASE WHEN a >= 1 THEN 8 END)", "true | true | null | null");
    check("a IN (1, NULL)", "true | null | null | null");
}

/// Arrow orders floats by their bits.
#[test]
fn there_is_one_zero_and_one_nan() {
    check("-0.0 = 0.0", "true | true | true | true");
    check("(f - f) * -1.0 < 0.0", "false | false | false | null");
    check("nullif(a * -0.0, 0.0)", "null | null | null | null");
    check("a * -0.0 IN (0.0, 5.0)", "true | true | true | null");
    check("0.0 / a > 1.0", "false | false | true | null");
    check("CASE a * -0.0 WHEN 0.0 THEN 'zero' ELSE 'other' END", "zero | zero | zero | other");
    check("greatest(0.0 / a, 1.0)", "1.0 | 1.0 | NaN | 1.0");
}

#[test]
fn lists_and_counts() {
    check("array_length(tags)", "1 | 0 | null | null");
    check("a - array_length(tags)", "0 | 2 | null | null");
    check("-5 + cardinality(tags)", "-4 | -5 | null | null");
    check("-array_length(tags)", "-1 | 0 | null | null");
    check("tags[1]", "1 | null | null | null");
    check("array_has(tags, a)", "true | false | null | null");
    check("concat('', '')", " |  |  | ");
}
