//! LogForTesting: logs each row as JSON and passes it on.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use async_trait::async_trait;
use pelton_core::Batch;
use pelton_pipeline::graph::LogLevel;

/// The operator.
pub struct Log {
    /// How loud.
    pub level: LogLevel,
    /// Before each row.
    pub prefix: String,
}

#[async_trait(?Send)]
impl Operator for Log {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        for row in 0..batch.num_rows() {
            let element = crate::position::element(&batch, row);
            match self.level {
                LogLevel::Error => tracing::error!(target: "pelton::log", "{}{element}", self.prefix),
                LogLevel::Info => tracing::info!(target: "pelton::log", "{}{element}", self.prefix),
                LogLevel::Debug => tracing::debug!(target: "pelton::log", "{}{element}", self.prefix),
            }
        }
        out.account.led += batch.num_rows() as u64;
        out.rows(MAIN, batch);
        Ok(())
    }
}
