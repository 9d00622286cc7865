//! `Create`: rows that are written in the pipeline. The simplest connector: start here to add one.
//!
//! As in Beam a mapping is a row, anything else is a row with the one column `element`; where both occur, or mappings with
//! different keys, the columns are the union and what is missing is null.

use crate::ConnectError;
use crate::format::json_infer::Shape;
use crate::format::json_read::JsonDecoder;
use crate::rows::RowsSource;
use crate::settings::Settings;
use crate::source::{Source, SourceContext};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use serde_json::{Value, json};

/// What it says of itself.
pub static SPEC: ConnectorSpec = ConnectorSpec {
    name: "Create",
    role: Role::Source,
    doc: "Gives the rows that are written in the pipeline.",
    keys: &[
        KeySpec {
            name: "elements",
            required: true,
            doc: "The rows: a mapping is a row, any other value is a row with the column `element`.",
        },
        KeySpec { name: "reshuffle", required: false, doc: "Accepted for Beam's sake; rows are divided among tasks in any case." },
    ],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check,
};

fn check(config: &Value) -> Vec<ConfigFault> {
    let mut settings = Settings::new(config);
    settings.boolean("reshuffle");
    match settings.get("elements") {
        Some(Value::Array(elements)) => {
            if let Err(message) = rows(elements) {
                settings.fault("elements", message, "give every value of a field the same type");
            }
        }
        Some(_) => settings.fault("elements", "`elements` must be a list", "write the rows as a list: `elements: [{id: 1}, {id: 2}]`"),
        None => {}
    }
    settings.into_faults()
}

/// Gives the rows.
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let elements = config.get("elements").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows = rows(elements)
        .map_err(|message| ConnectError::user(format!("{}: {message}", ctx.transform), "give every value of a field the same type"))?;
    let plan = xxhash_rust::xxh3::xxh3_64(Value::from(elements).to_string().as_bytes());
    Ok(Box::new(RowsSource::new(ctx, rows, plan.to_string().into_bytes())))
}

fn rows(elements: &[Value]) -> Result<RecordBatch, String> {
    let as_rows: Vec<Value> = elements
        .iter()
        .map(|element| match element {
            Value::Object(_) => element.clone(),
            scalar => json!({ "element": scalar }),
        })
        .collect();
    let mut shape = Shape::default();
    as_rows.iter().for_each(|row| shape.see(row));
    let schema = shape.schema().unwrap_or_else(Schema::empty);
    let mut decoder = JsonDecoder::new(&schema, None)?;
    for (number, row) in as_rows.iter().enumerate() {
        decoder.push_text(&row.to_string()).map_err(|message| format!("element {}: {message}", number + 1))?;
    }
    Ok(decoder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json_write::write_row;

    fn check_rows(elements: Value, expected: &[&str]) {
        let batch = rows(elements.as_array().unwrap()).unwrap();
        let written: Vec<String> = (0..batch.num_rows())
            .map(|row| {
                let mut out = Vec::new();
                write_row(&batch, row, &mut out).unwrap();
                String::from_utf8(out).unwrap()
            })
            .collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn mappings_scalars_and_both() {
        check_rows(json!([1, 2]), &[r#"{"element":1}"#, r#"{"element":2}"#]);
        check_rows(json!([{"a": 1}, {"b": [1.5, null]}]), &[r#"{"a":1,"b":null}"#, r#"{"a":null,"b":[1.5,null]}"#]);
        check_rows(json!([{"a": {"x": true}}, "s"]), &[r#"{"a":{"x":true},"element":null}"#, r#"{"a":null,"element":"s"}"#]);
        check_rows(json!([]), &[]);
    }

    #[test]
    fn mixed_types_are_a_fault() {
        let faults = check(&json!({"elements": [{"a": 1}, {"a": "x"}]}));
        assert!(faults[0].message.contains("element 1") && faults[0].message.contains("`a`"), "{faults:?}");
        assert_eq!(check(&json!({"elements": 3}))[0].path, ["elements"]);
    }
}
