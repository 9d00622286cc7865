//! Fuzz target of expressions as users write them. Under `cargo test` it explores for a moment; `cargo xtask fuzz` explores on.

use crate::{Expression, Language};
use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);

/// A text made of what expressions are made of: refused, or a value for each row, valid by Arrow's own validation.
#[test]
fn fuzz_expressions() {
    const PARTS: [&str; 36] = [
        "a",
        "b",
        "1",
        "'x'",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " = ",
        " < ",
        " and ",
        " or ",
        "not ",
        "(",
        ")",
        ", ",
        "null",
        " is null",
        "true",
        "case when ",
        " then ",
        " else ",
        " end",
        "upper(",
        "length(",
        "abs(",
        "coalesce(",
        "cast(",
        " as ",
        "bigint",
        "varchar",
        "9223372036854775807",
        "'",
        "é",
        " in (",
    ];
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]));
    let numbers = Int64Array::from(vec![Some(0), None, Some(i64::MAX), Some(i64::MIN)]);
    let texts = StringArray::from(vec![Some("x"), Some(""), None, Some("é9")]);
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(texts)]).expect("rows");
    // A panic ends the test, so nobody sees the rows after one.
    let check = AssertUnwindSafe(|text: &str, language: Language| {
        if let Ok(expression) = Expression::compile(language, text, &schema) {
            let evaluated = expression.evaluate(&rows);
            evaluated.array.to_data().validate_full().expect("valid");
            assert_eq!((evaluated.array.len(), evaluated.array.data_type()), (4, expression.data_type()), "{text}");
        }
    });
    bolero::check!().with_test_time(TEST_TIME).with_max_len(24).for_each(|bytes: &[u8]| {
        let text: String = bytes.iter().map(|byte| PARTS[usize::from(*byte) % PARTS.len()]).collect();
        check(&text, Language::Generic);
        check(&text, Language::Sql);
    });
}
