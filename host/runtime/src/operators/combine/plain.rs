//! The commonest way: each row in one window that no other row changes, and the default trigger.
//!
//! A cell is one key in one window. Rows on time are added to their cell; at the end of the window all its cells fire. With
//! allowed lateness a cell stays, emptied, and each late row gives a pane of its own at once.
//!
//! Why the output watermark is the input's: whatever is still inside belongs to a window that ends after the watermark, and
//! its output time is that end less a microsecond.

use super::core::{Core, Given, Incoming};
use super::way::{CLOSE, FIRE, Way};
use crate::failure::Failure;
use crate::operator::{MAIN, Out};
use crate::windows;
use arrow::array::UInt32Array;
use async_trait::async_trait;
use pelton_core::batch::{PaneInfo, PaneTiming};
use pelton_core::watermark::{Lateness, closes_at, lateness};
use pelton_core::{Duration, Instant, Window};
use pelton_state::{Clock, ColumnId, Slot};

/// The way.
pub struct Plain {
    /// Panes that a cell has given out.
    panes: ColumnId,
}

impl Plain {
    /// Declares its columns.
    pub fn new(core: &mut Core) -> Plain {
        Plain { panes: core.cells.declare(0i64) }
    }

    /// The cell of a row, with its timers set when it is new.
    pub fn cell(&self, core: &mut Core, row: usize, window: Window) -> Slot {
        let (slot, new) = core.cell(row, window);
        if new {
            self.begin(core, slot);
        }
        slot
    }

    /// Sets the timers of a new cell.
    fn begin(&self, core: &mut Core, slot: Slot) {
        let window = core.cells.key(slot).window;
        if core.watermark < window.end {
            core.cells.set_timer(Clock::Event, slot, FIRE, window.end);
        }
        let close = closes_at(window, core.plan.strategy.allowed_lateness);
        if close > window.end {
            core.cells.set_timer(Clock::Event, slot, CLOSE, close);
        }
    }

    /// Gives cells out as one pane each and empties them.
    pub async fn fire(&self, core: &mut Core, slots: &[Slot], timing: PaneTiming, out: &mut Out) -> Result<(), Failure> {
        let last = timing == PaneTiming::OnTime && core.plan.strategy.allowed_lateness == Duration::ZERO;
        let given: Vec<Given> = slots
            .iter()
            .map(|slot| {
                let window = core.cells.key(*slot).window;
                let number = core.cells.column::<i64>(self.panes)[*slot as usize];
                let pane = PaneInfo { timing, is_first: number == 0, is_last: last, index: number, nonspeculative_index: number };
                Given { slot: *slot, window, pane, time: window.max_timestamp() }
            })
            .collect();
        core.emit(&given, MAIN, out).await?;
        let panes = core.cells.write::<i64>(self.panes, slots);
        slots.iter().for_each(|slot| panes[*slot as usize] += 1);
        core.clear(slots);
        Ok(())
    }

    /// A row for a window that has fired and not closed: a pane of its own.
    pub async fn late_pane(&self, core: &mut Core, incoming: &Incoming, row: u32, window: Window, out: &mut Out) -> Result<(), Failure> {
        let slot = self.cell(core, row as usize, window);
        core.add(&[slot], incoming, Some(&UInt32Array::from(vec![row]))).await?;
        self.fire(core, &[slot], PaneTiming::Late, out).await
    }
}

#[async_trait(?Send)]
impl Way for Plain {
    async fn rows(&mut self, core: &mut Core, incoming: &Incoming, out: &mut Out) -> Result<(), Failure> {
        let batch = &incoming.batch;
        let (watermark, allowed, window_fn) = (core.watermark, core.plan.strategy.allowed_lateness, core.plan.strategy.window_fn);
        let mut behind: Vec<(u32, Window, Lateness)> = Vec::new();
        let mut in_order: Vec<(u32, u32)> = Vec::with_capacity(batch.num_rows());
        let mut table: Vec<Window> = Vec::new();
        windows::for_each(batch, window_fn, |row, window| match lateness(window, allowed, watermark) {
            Lateness::OnTime => {
                if table.last() != Some(&window) {
                    table.push(window);
                }
                in_order.push((row as u32, table.len() as u32 - 1));
            }
            late => behind.push((row as u32, window, late)),
        });
        let (slots, new) = core.cells_of(&in_order, &table);
        new.into_iter().for_each(|slot| self.begin(core, slot));
        if behind.is_empty() {
            return core.add(&slots, incoming, None).await;
        }
        let rows = UInt32Array::from_iter_values(in_order.iter().map(|(row, _)| *row));
        core.add(&slots, incoming, Some(&rows)).await?;
        let mut late = Vec::new();
        for (row, window, how) in behind {
            match how {
                Lateness::Dropped => late.push((row, window)),
                _ => self.late_pane(core, incoming, row, window, out).await?,
            }
        }
        core.late(batch, &late, out);
        Ok(())
    }

    fn cells(&mut self, core: &mut Core, rows: &[(u32, u32)], windows: &[Window]) -> Result<Vec<Slot>, Failure> {
        // The window has given its pane already: one more would be a second one, and none at all a loss.
        if windows.iter().any(|window| window.end <= core.watermark) {
            return Err(core.internal("partial results came after the watermark that ends their window"));
        }
        let (slots, new) = core.cells_of(rows, windows);
        new.into_iter().for_each(|slot| self.begin(core, slot));
        Ok(slots)
    }

    async fn step(&mut self, core: &mut Core, out: &mut Out) -> Result<bool, Failure> {
        let Some((at, due)) = core.due()? else { return Ok(false) };
        let fired: Vec<Slot> = due.iter().filter(|(_, tag)| *tag == FIRE).map(|(slot, _)| *slot).collect();
        if !fired.is_empty() {
            self.fire(core, &fired, PaneTiming::OnTime, out).await?;
        }
        for (slot, tag) in due {
            let closes = tag == CLOSE || closes_at(core.cells.key(slot).window, core.plan.strategy.allowed_lateness) <= at;
            if closes {
                core.cells.remove(slot);
            }
        }
        Ok(true)
    }

    fn hold(&self, _core: &Core) -> Option<Instant> {
        None
    }
}
