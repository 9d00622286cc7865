//! RollUp: windows of several lengths in one pass. Rows are added to the finest level only; what a window gives out is merged
//! into the window of the next level that holds it, and that one gives out in its turn.
//!
//! A late row gives a pane with only itself at the finest level; the pane is passed on, and is a change there as well: to a
//! window that has not fired it is added, from one that has it comes out at once.
//!
//! Invariants: a window of a level ends no later than the one that holds it, so that it fires first and closes first; a row
//! is counted where it was read, at the finest level.

use super::core::{Core, Given, Incoming};
use super::way::{CLOSE, FIRE, Way};
use crate::failure::Failure;
use crate::operator::{Out, Port};
use crate::windows;
use arrow::array::UInt32Array;
use async_trait::async_trait;
use pelton_core::batch::{PaneInfo, PaneTiming};
use pelton_core::watermark::{Lateness, closes_at, lateness};
use pelton_core::{Duration, Instant, Window, WindowFn};
use pelton_state::{CellKey, Clock, ColumnId, Slot};

/// The way.
pub struct Levels {
    /// From fine to coarse, each with its output.
    levels: Vec<(WindowFn, Port)>,
    /// Panes that a cell has given out.
    panes: ColumnId,
}

impl Levels {
    /// Declares its columns.
    pub fn new(core: &mut Core) -> Levels {
        let levels = core.plan.levels.iter().map(|(size, port)| (WindowFn::Fixed { size: *size, offset: Duration::ZERO }, *port));
        Levels { levels: levels.collect(), panes: core.cells.declare(0i64) }
    }

    /// The level that a cell belongs to: windows of different levels have different lengths.
    fn level(&self, core: &Core, slot: Slot) -> usize {
        let window = core.cells.key(slot).window;
        self.levels.iter().position(|(function, _)| function.assign(window.start) == window).unwrap_or(0)
    }

    /// Sets the timers of a new cell, which has its first pane to come (`fires`) or gives out late ones only.
    fn begin(&self, core: &mut Core, slot: Slot, fires: bool) {
        let window = core.cells.key(slot).window;
        if fires {
            core.cells.set_timer(Clock::Event, slot, FIRE, window.end);
        }
        core.cells.set_timer(Clock::Event, slot, CLOSE, closes_at(window, core.plan.strategy.allowed_lateness));
    }

    /// Gives cells of one level out, passes what they hold on to the next level, and empties them. What is passed on to
    /// windows that have fired comes out there, too. What comes back are new cells of the next level that end with these: they
    /// are due now.
    async fn fire(&self, core: &mut Core, level: usize, slots: Vec<Slot>, timing: PaneTiming, out: &mut Out) -> Result<Vec<Slot>, Failure> {
        let (mut level, mut slots, mut timing, mut due) = (level, slots, timing, Vec::new());
        while !slots.is_empty() {
            let given: Vec<Given> = slots.iter().map(|slot| self.pane(core, *slot, timing)).collect();
            core.emit(&given, self.levels[level].1, out).await?;
            let panes = core.cells.write::<i64>(self.panes, &slots);
            slots.iter().for_each(|slot| panes[*slot as usize] += 1);
            let mut again = Vec::new();
            if let Some((coarser, _)) = self.levels.get(level + 1) {
                let (mut into, mut key) = (Vec::with_capacity(slots.len()), Vec::new());
                for slot in &slots {
                    let cell = core.cells.key(*slot);
                    let at = cell.window.end;
                    let window = coarser.assign(cell.window.start);
                    key.clear();
                    key.extend_from_slice(cell.key);
                    let (target, new) = core.cells.entry(CellKey { key: &key, window });
                    // While time is being caught up with, the watermark is ahead of the windows that fire.
                    if new {
                        let on_time = timing == PaneTiming::OnTime;
                        self.begin(core, target, if on_time { window.end > at } else { core.watermark < window.end });
                        if on_time && window.end == at {
                            due.push(target);
                        }
                    }
                    if core.watermark >= window.end
                        && core.cells.pending_timer(Clock::Event, target, FIRE).is_none()
                        && timing == PaneTiming::Late
                    {
                        again.push(target);
                    }
                    into.push(target);
                }
                core.merge(&into, &slots).await?;
            }
            core.clear(&slots);
            again.sort_unstable();
            again.dedup();
            (level, slots, timing) = (level + 1, again, PaneTiming::Late);
        }
        Ok(due)
    }

    fn pane(&self, core: &Core, slot: Slot, timing: PaneTiming) -> Given {
        let window = core.cells.key(slot).window;
        let number = core.cells.column::<i64>(self.panes)[slot as usize];
        let is_last = timing == PaneTiming::OnTime && core.plan.strategy.allowed_lateness == Duration::ZERO;
        let pane = PaneInfo { timing, is_first: number == 0, is_last, index: number, nonspeculative_index: number };
        Given { slot, window, pane, time: window.max_timestamp() }
    }
}

#[async_trait(?Send)]
impl Way for Levels {
    async fn rows(&mut self, core: &mut Core, incoming: &Incoming, out: &mut Out) -> Result<(), Failure> {
        let (watermark, allowed, finest) = (core.watermark, core.plan.strategy.allowed_lateness, self.levels[0].0);
        let (mut placed, mut behind, mut table) = (Vec::new(), Vec::new(), Vec::new());
        // Levels are windows of their own, whatever windows the rows have.
        windows::assign_each(&incoming.batch, finest, |row, window| match lateness(window, allowed, watermark) {
            Lateness::OnTime => {
                if table.last() != Some(&window) {
                    table.push(window);
                }
                placed.push((row as u32, table.len() as u32 - 1));
            }
            late => behind.push((row as u32, window, late)),
        });
        let (slots, new) = core.cells_of(&placed, &table);
        new.into_iter().for_each(|slot| self.begin(core, slot, true));
        let picked = UInt32Array::from_iter_values(placed.iter().map(|(row, _)| *row));
        core.add(&slots, incoming, (!behind.is_empty()).then_some(&picked)).await?;
        let mut late: Vec<(u32, Window)> = Vec::new();
        for (row, window, how) in behind {
            if how == Lateness::Dropped {
                late.push((row, window));
                continue;
            }
            let (slot, new) = core.cell(row as usize, window);
            if new {
                self.begin(core, slot, false);
            }
            core.add(&[slot], incoming, Some(&UInt32Array::from(vec![row]))).await?;
            self.fire(core, 0, vec![slot], PaneTiming::Late, out).await?;
        }
        core.late(&incoming.batch, &late, out);
        Ok(())
    }

    async fn step(&mut self, core: &mut Core, out: &mut Out) -> Result<bool, Failure> {
        let Some((_, due)) = core.due()? else { return Ok(false) };
        let mut by_level: Vec<Vec<Slot>> = vec![Vec::new(); self.levels.len()];
        let mut closed = Vec::new();
        for (slot, tag) in due {
            match tag {
                FIRE => by_level[self.level(core, slot)].push(slot),
                _ => closed.push(slot),
            }
        }
        let mut made = Vec::new();
        for (level, mut slots) in by_level.into_iter().enumerate() {
            slots.append(&mut made);
            made = self.fire(core, level, slots, PaneTiming::OnTime, out).await?;
        }
        closed.into_iter().for_each(|slot| core.cells.remove(slot));
        Ok(true)
    }

    fn hold(&self, _core: &Core) -> Option<Instant> {
        None
    }
}
