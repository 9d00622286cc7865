//! StripErrorMetadata: turns error rows back into the rows that were refused.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use pelton_core::Batch;
use std::sync::Arc;

/// The operator.
pub struct Strip {
    /// Columns of the output.
    pub schema: SchemaRef,
    /// The column that holds the refused row.
    pub column: String,
}

/// Beam's candidates, in its order.
const CANDIDATES: [&str; 3] = ["failed_row", "element", "record"];

/// What the output is for an input, and which column it comes from.
pub fn output(input: &Schema) -> Result<(SchemaRef, String), String> {
    let field = CANDIDATES.iter().find_map(|name| input.field_with_name(name).ok());
    let field = field.ok_or("its input is no error output: it has none of the columns failed_row, element, record")?;
    let schema = match field.data_type() {
        DataType::Struct(fields) => Schema::new(fields.clone()),
        other => Schema::new(vec![Field::new("element", other.clone(), true)]),
    };
    Ok((Arc::new(schema), field.name().clone()))
}

#[async_trait(?Send)]
impl Operator for Strip {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        out.account.led += batch.num_rows() as u64;
        let element = batch.rows.column_by_name(&self.column).expect("found when the plan was bound");
        let columns: Vec<ArrayRef> = match element.data_type() {
            DataType::Struct(_) => element.as_struct().columns().to_vec(),
            _ => vec![element.clone()],
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("the schema is the element's");
        out.rows(MAIN, batch.with_columns(rows));
        Ok(())
    }
}
