//! Flatten: all rows of all inputs. Inputs may differ in columns: the output has the union of them, absent values null.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use pelton_core::Batch;
use std::sync::Arc;

/// The operator.
pub struct Flatten {
    /// Columns of the output.
    pub schema: SchemaRef,
}

#[async_trait(?Send)]
impl Operator for Flatten {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        out.account.led += batch.num_rows() as u64;
        let rows = align(&batch.rows, &self.schema);
        out.rows(MAIN, batch.with_columns(rows));
        Ok(())
    }
}

/// The rows with the columns of a union of schemas.
pub fn align(rows: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    if rows.schema_ref() == schema {
        return rows.clone();
    }
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => column.clone(),
        Some(column) => arrow::compute::cast(column, field.data_type()).expect("only casts without loss are planned"),
        None => new_null_array(field.data_type(), rows.num_rows()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect(), &options).expect("the union schema has every column, nullable")
}

/// The union of schemas, in the order of first appearance. A column of two types is widened where that loses nothing.
pub fn union(inputs: &[SchemaRef]) -> Result<SchemaRef, String> {
    if inputs.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(inputs[0].clone());
    }
    let mut fields: Vec<Field> = Vec::new();
    for schema in inputs {
        for field in schema.fields() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone().with_nullable(true)),
                Some(known) => {
                    let wide = widen(known.data_type(), field.data_type()).ok_or_else(|| {
                        format!("column `{}` is {} in one input and {} in another", field.name(), known.data_type(), field.data_type())
                    })?;
                    *known = Field::new(known.name(), wide, true);
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    let rank = |t: &DataType| [Int8, Int16, Int32, Int64].iter().position(|other| other == t);
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (Null, other) | (other, Null) => Some(other.clone()),
        (Float32, Float64) | (Float64, Float32) => Some(Float64),
        (a, b) => match (rank(a), rank(b)) {
            (Some(x), Some(y)) => Some(if x > y { a.clone() } else { b.clone() }),
            // Nothing larger than 2^31 is in these, so that a double holds them exactly.
            (Some(x), None) if x < 3 && *b == Float64 => Some(Float64),
            (None, Some(y)) if y < 3 && *a == Float64 => Some(Float64),
            _ => None,
        },
    }
}
