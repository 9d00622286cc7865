//! ValidateWithSchema: refuses rows that do not fit a JSON schema. A row is checked as the JSON that a sink would write of it, with
//! null fields left out, as in Beam: to JSON Schema a null is a value, to us it is none.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out, Refusals};
use arrow::array::UInt32Array;
use async_trait::async_trait;
use pelton_connect::format::json_write::JsonEncoder;
use pelton_core::{Batch, RowError};
use pelton_pipeline::json_schema::JsonSchema;
use serde_json::Value;
use std::sync::Arc;

/// The operator.
pub struct Validate {
    /// What rows must fit.
    pub schema: Arc<JsonSchema>,
    /// What becomes of those that do not.
    pub refusals: Refusals,
}

#[async_trait(?Send)]
impl Operator for Validate {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let internal = |message: String| Failure::Internal { transform: self.refusals.transform.clone(), message };
        let encoder = JsonEncoder::new(&batch.rows).map_err(internal)?;
        let (mut good, mut errors, mut text) = (Vec::with_capacity(batch.num_rows()), Vec::new(), Vec::new());
        for row in 0..batch.num_rows() as u32 {
            text.clear();
            let fault = match encoder.write(row as usize, &mut text) {
                Ok(()) => {
                    let mut value: Value = serde_json::from_slice(&text).map_err(|error| internal(error.to_string()))?;
                    drop_nulls(&mut value);
                    self.schema.fault(&value)
                }
                Err(message) => Some(message),
            };
            match fault {
                None => good.push(row),
                Some(message) => errors.push(RowError { row, message, stack: String::new() }),
            }
        }
        self.refusals.refuse(&batch, &errors, out)?;
        out.account.led += good.len() as u64;
        out.rows(MAIN, if errors.is_empty() { batch } else { batch.take(&UInt32Array::from(good)) });
        Ok(())
    }
}

/// Leaves out the null fields of rows at every depth; nulls in lists stay.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
