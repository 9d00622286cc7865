//! What the ways of grouping have in common.

use super::core::{Core, Incoming};
use crate::failure::Failure;
use crate::operator::Out;
use async_trait::async_trait;
use pelton_core::{Instant, Window};
use pelton_state::{Slot, TimerTag};

/// A cell's pane is due.
pub const FIRE: TimerTag = TimerTag(0);
/// A cell's window closes.
pub const CLOSE: TimerTag = TimerTag(1);
/// A slice is complete.
pub const SEAL: TimerTag = TimerTag(2);

/// How rows become panes.
#[async_trait(?Send)]
pub trait Way {
    /// Takes rows; their keys are in `core.keys`.
    async fn rows(&mut self, core: &mut Core, incoming: &Incoming, out: &mut Out) -> Result<(), Failure>;

    /// The cells of partial results, one a row; the keys are in `core.keys`, the windows end after the watermark.
    fn cells(&mut self, core: &mut Core, rows: &[(u32, u32)], windows: &[Window]) -> Result<Vec<Slot>, Failure> {
        let _ = (rows, windows);
        Err(core.internal("these windows take no partial results"))
    }

    /// The watermark moved: fires and closes what is due at the earliest time, all of it or a portion. False: nothing is due.
    async fn step(&mut self, core: &mut Core, out: &mut Out) -> Result<bool, Failure>;

    /// The same to the end, in order of time.
    async fn advance(&mut self, core: &mut Core, out: &mut Out) -> Result<(), Failure> {
        while self.step(core, out).await? {}
        Ok(())
    }

    /// Processing time moved.
    async fn tick(&mut self, _core: &mut Core, _out: &mut Out) -> Result<(), Failure> {
        Ok(())
    }

    /// The earliest event time that may still come out, if that can lie before the watermark.
    fn hold(&self, core: &Core) -> Option<Instant>;

    /// Lets cells leave memory that do not fit.
    fn make_room(&mut self, core: &mut Core) -> Result<(), Failure> {
        core.make_room(&mut ())
    }

    /// Cells may have come back from disk: indexes have them again.
    fn arrived(&mut self, _core: &mut Core) {}

    /// Cells were restored: makes indexes anew.
    fn restore(&mut self, _core: &mut Core) {}

    /// Rows (once for each of their windows) that are inside.
    fn held(&self, core: &Core) -> u64 {
        core.sum(|_, value| value(core.rows) as u64)
    }
}
