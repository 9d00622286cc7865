//! WindowInto: from here on another window function applies. Windows are a function of the event time and are not stored,
//! so rows that already had theirs fixed lose them. A row that was in several windows becomes as many rows, as in Beam.

use crate::failure::Failure;
use crate::operator::{MAIN, Operator, Out};
use crate::windows;
use async_trait::async_trait;
use pelton_core::{Batch, WindowFn};

/// The operator.
pub struct WindowInto {
    /// Window function of the input.
    pub window_fn: WindowFn,
}

#[async_trait(?Send)]
impl Operator for WindowInto {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        let several = !self.window_fn.is_single() && !self.window_fn.merges();
        let mut batch = if several { windows::fixed(batch, self.window_fn, &mut out.account) } else { batch };
        out.account.led += batch.num_rows() as u64;
        batch.windows = None;
        out.rows(MAIN, batch);
        Ok(())
    }
}
