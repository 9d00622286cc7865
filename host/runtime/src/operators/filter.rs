//! Filter: keeps the rows for which an expression is true; null counts as false.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out, Refusals};
use arrow::array::{AsArray, UInt32Array};
use async_trait::async_trait;
use pelton_core::Batch;
use pelton_expr::Expression;

/// The operator.
pub struct Filter {
    /// A boolean expression.
    pub keep: Expression,
    /// What becomes of rows for which it fails.
    pub refusals: Refusals,
}

#[async_trait(?Send)]
impl Operator for Filter {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let evaluated = self.keep.evaluate(&batch.rows);
        self.refusals.refuse(&batch, &evaluated.errors, out)?;
        let keep = evaluated.array.as_boolean();
        let kept: UInt32Array = (0..batch.num_rows() as u32)
            .filter(|row| {
                use arrow::array::Array;
                keep.is_valid(*row as usize) && keep.value(*row as usize)
            })
            .collect::<Vec<_>>()
            .into();
        let count = kept.values().len();
        out.account.led += count as u64;
        out.account.filtered += (batch.num_rows() - count - evaluated.errors.len()) as u64;
        out.rows(MAIN, if count == batch.num_rows() { batch } else { batch.take(&kept) });
        Ok(())
    }
}
