//! MapToFields: new columns from old.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out, Refusals};
use arrow::array::{RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::{Batch, RowError};
use pelton_expr::Expression;
use std::collections::BTreeMap;

/// Where a column of the output comes from.
#[derive(Clone)]
pub enum Column {
    /// A column of the input, by name.
    Passed(String),
    /// Computed.
    Made(Expression),
}

/// The operator.
pub struct Map {
    /// Columns of the output.
    pub schema: SchemaRef,
    /// One a field of `schema`.
    pub columns: Vec<Column>,
    /// What becomes of rows for which an expression fails.
    pub refusals: Refusals,
}

#[async_trait(?Send)]
impl Operator for Map {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let mut errors: BTreeMap<u32, RowError> = BTreeMap::new();
        let mut columns = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            columns.push(match column {
                Column::Passed(name) => batch.rows.column_by_name(name).expect("the column was there when the plan was bound").clone(),
                Column::Made(expression) => {
                    let evaluated = expression.evaluate(&batch.rows);
                    for error in evaluated.errors {
                        errors.entry(error.row).or_insert(error);
                    }
                    evaluated.array
                }
            });
        }
        let errors: Vec<RowError> = errors.into_values().collect();
        self.refusals.refuse(&batch, &errors, out)?;
        out.account.led += (batch.num_rows() - errors.len()) as u64;
        // Refused rows are null in computed columns; they go before the schema's promise of no nulls is checked.
        let good: Option<UInt32Array> = (!errors.is_empty()).then(|| {
            let mut refused = errors.iter().map(|error| error.row).peekable();
            (0..batch.num_rows() as u32).filter(|row| refused.next_if_eq(row).is_none()).collect::<Vec<_>>().into()
        });
        let (batch, columns) = match good {
            None => (batch, columns),
            Some(good) => (
                batch.take(&good),
                columns.iter().map(|column| arrow::compute::take(column, &good, None).expect("row numbers are in range")).collect(),
            ),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Failure::Internal { transform: self.refusals.transform.clone(), message: error.to_string() })?;
        out.rows(MAIN, batch.with_columns(rows));
        Ok(())
    }
}
