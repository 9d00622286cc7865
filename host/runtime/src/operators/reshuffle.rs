//! Reshuffle: heads a stage of its own, so that rows are spread over workers on the way to it, batch by batch. Nothing else
//! happens here: rows, event times, windows and panes stay as they are. Order is lost, as at every exchange.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use async_trait::async_trait;
use pelton_core::Batch;

/// The operator.
pub struct Reshuffle;

#[async_trait(?Send)]
impl Operator for Reshuffle {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        out.account.led += batch.num_rows() as u64;
        out.rows(MAIN, batch);
        Ok(())
    }
}
