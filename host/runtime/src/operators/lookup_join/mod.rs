//! LookupJoin: each row with the row of a table that has its key. Event times, windows and positions of rows stay.
//!
//! In reading order:
//! - [`table`]: the rows of one reading, by key.
//! - [`refresh`]: who reads the table, when, and what happens when that fails.
//!
//! The table is read before any row is, so that no row waits; all tasks share it. A batch is looked up in one reading of it.
//!
//! Null equals nothing: a row with a null in its key has no partner, and a row of the table with one is nobody's.

pub mod refresh;
pub mod table;
#[cfg(test)]
mod tests;

use self::refresh::Shared;
use self::table::TablePlan;
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::metrics::NodeMetrics;
use crate::operator::{MAIN, Operator, Out, Refusals};
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use pelton_core::Batch;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_expr::Expression;
use std::sync::Arc;

/// What a lookup join does; the same for all its tasks.
#[derive(Clone)]
pub struct LookupPlan {
    /// What is looked up.
    pub keys: Vec<Expression>,
    /// Their types.
    pub key_types: Vec<DataType>,
    /// Columns of the output: those of the input, then those that are added.
    pub schema: SchemaRef,
    /// Whether rows without a partner come out.
    pub kept: bool,
    /// What is read, and how.
    pub table: TablePlan,
}

/// The operator.
pub struct LookupJoin {
    plan: LookupPlan,
    encoder: KeyEncoder,
    keys: Keys,
    table: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    refusals: Refusals,
}

impl LookupJoin {
    /// Looks up in a table that has been read.
    pub fn new(plan: LookupPlan, table: Arc<Shared>, metrics: Arc<NodeMetrics>, refusals: Refusals) -> Result<LookupJoin, Failure> {
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let encoder = KeyEncoder::new(&plan.key_types).map_err(failed)?;
        Ok(LookupJoin { plan, encoder, keys: Keys::default(), table, metrics, refusals })
    }

    fn internal(&self, message: String) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message }
    }
}

#[async_trait(?Send)]
impl Operator for LookupJoin {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let columns = group_columns(&self.refusals.transform, &self.plan.keys, &batch)?;
        let nulls: Vec<_> = columns.iter().filter_map(|key| key.logical_nulls()).collect();
        encode(&self.encoder, &columns, batch.num_rows(), &mut self.keys);
        let table = self.table.current();
        let found = |row: usize| match nulls.iter().any(|nulls| nulls.is_null(row)) {
            true => None,
            false => table.find(self.keys.get(row)),
        };
        let mut partners = Vec::with_capacity(batch.num_rows());
        let mut with_partner: Vec<u32> = Vec::new();
        for row in 0..batch.num_rows() {
            match found(row) {
                None if !self.plan.kept => {}
                partner => {
                    partners.push(partner.unwrap_or(table.missing()));
                    with_partner.push(row as u32);
                }
            }
        }
        out.account.led += partners.len() as u64;
        out.account.filtered += (batch.num_rows() - partners.len()) as u64;
        let batch = if partners.len() < batch.num_rows() { batch.take(&UInt32Array::from(with_partner)) } else { batch };
        let partners = UInt32Array::from(partners);
        let added = table.columns.iter().map(|column| take(column, &partners, None)).collect::<Result<Vec<ArrayRef>, _>>();
        let added = added.map_err(|error| self.internal(error.to_string()))?;
        let columns = batch.rows.columns().iter().cloned().chain(added).collect();
        let made = RecordBatch::try_new(self.plan.schema.clone(), columns).map_err(|error| self.internal(error.to_string()))?;
        out.rows(MAIN, batch.with_columns(made));
        Ok(())
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.table.tick(out.now, &self.metrics).map_err(|error| Failure::Connect { transform: self.refusals.transform.clone(), error })
    }
}
