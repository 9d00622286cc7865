//! WindowInto: from here on another window function applies. Windows are a function of the event time and are not stored,
//! so rows that already had theirs fixed lose them.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use async_trait::async_trait;
use pelton_core::Batch;

/// The operator.
pub struct WindowInto;

#[async_trait(?Send)]
impl Operator for WindowInto {
    async fn data(&mut self, _input: usize, mut batch: Batch, out: &mut Out) -> Result<(), Failure> {
        out.account.led += batch.num_rows() as u64;
        batch.windows = None;
        out.rows(MAIN, batch);
        Ok(())
    }
}
