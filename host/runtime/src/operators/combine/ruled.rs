//! Any window and any trigger, by the rule of `pelton_core::pane`: each row is shown to the rule of its cell, which says when
//! to give a pane out.
//!
//! Rows go to the rule one by one, so that it does not matter how they were cut into batches; their values are added to the
//! cells a run at a time, up to the next pane or merge.
//!
//! Sessions. A cell is named by the window of its first row and keeps what it has grown to in two columns. A row that
//! touches several sessions of its key makes one of them: the first one's cell takes over what the others hold.
//!
//! Invariants: the sessions of a key do not overlap; a cell lives until its window closes, also when its trigger is over (then
//! it only remembers that, and its rows are late).

use super::core::{Core, DueTimers, Given, Incoming};
use super::way::{CLOSE, FIRE, Way};
use crate::failure::Failure;
use crate::operator::{MAIN, Out};
use crate::windows;
use arrow::array::UInt32Array;
use async_trait::async_trait;
use pelton_core::pane::{PaneRule, PaneState, Step};
use pelton_core::watermark::{Lateness, closes_at, lateness};
use pelton_core::{Instant, Window};
use pelton_state::{Clock, ColumnId, HoldsId, Slot, Spans};

/// The way.
pub struct Ruled {
    rule: PaneRule,
    /// What the rule remembers of a cell.
    state: ColumnId,
    /// What a session has grown to.
    start: ColumnId,
    end: ColumnId,
    merges: bool,
    spans: Spans,
    holds: HoldsId,
}

/// Rows whose values have not been added to their cells yet.
#[derive(Default)]
struct Run {
    slots: Vec<Slot>,
    rows: Vec<u32>,
}

impl Ruled {
    /// Declares its columns.
    pub fn new(core: &mut Core) -> Ruled {
        Ruled {
            rule: PaneRule::new(&core.plan.strategy),
            state: core.cells.declare(Vec::<u8>::new()),
            start: core.cells.declare(0i64),
            end: core.cells.declare(0i64),
            merges: core.plan.strategy.window_fn.merges(),
            spans: Spans::default(),
            holds: core.cells.declare_holds(),
        }
    }

    fn window(&self, core: &Core, slot: Slot) -> Window {
        if !self.merges {
            return core.cells.key(slot).window;
        }
        let at = |column| Instant::from_micros_saturating(core.cells.column::<i64>(column)[slot as usize]);
        Window { start: at(self.start), end: at(self.end) }
    }

    fn state(&self, core: &Core, slot: Slot) -> Result<PaneState, Failure> {
        match core.cells.column::<Vec<u8>>(self.state)[slot as usize].as_slice() {
            [] => Ok(PaneState::default()),
            bytes => self.rule.decode(bytes).map_err(|error| core.internal(error.to_string())),
        }
    }

    /// Writes down what the rule remembers and wants.
    fn settle(&mut self, core: &mut Core, slot: Slot, state: &PaneState, step: &Step) {
        let bytes = &mut core.cells.write::<Vec<u8>>(self.state, &[slot])[slot as usize];
        bytes.clear();
        state.encode(bytes);
        match step.event_timer {
            Some(at) => core.cells.set_timer(Clock::Event, slot, FIRE, at),
            None => core.cells.clear_timer(Clock::Event, slot, FIRE),
        }
        match step.processing_timer {
            Some(at) => core.cells.set_timer(Clock::Processing, slot, FIRE, at),
            None => core.cells.clear_timer(Clock::Processing, slot, FIRE),
        }
        core.cells.set_hold(self.holds, slot, step.hold);
    }

    /// Sessions of keys that came back, and with them the others of these keys.
    fn index_arrived(&mut self, core: &mut Core) {
        let mut arrived = core.cells.take_arrived();
        while self.merges && !arrived.is_empty() {
            for slot in arrived.into_iter().filter(|slot| core.cells.is_live(*slot)).collect::<Vec<_>>() {
                let key = core.cells.key(slot).key.to_vec();
                if !self.spans.has(&key) {
                    core.cells.bring_key(&key);
                }
                self.spans.insert_back(&key, self.window(core, slot), slot);
            }
            arrived = core.cells.take_arrived();
        }
    }

    /// The next timers that are due.
    fn due(&mut self, core: &mut Core, clock: Clock, until: Instant) -> Result<Option<DueTimers>, Failure> {
        self.make_room(core)?;
        let due = core.cells.due_timers(clock, until);
        self.index_arrived(core);
        Ok(due)
    }

    async fn flush(&self, core: &mut Core, incoming: &Incoming, run: &mut Run) -> Result<(), Failure> {
        if !run.rows.is_empty() {
            let rows = UInt32Array::from(std::mem::take(&mut run.rows));
            core.add(&std::mem::take(&mut run.slots), incoming, Some(&rows)).await?;
        }
        Ok(())
    }

    /// The cell of a row's key in a window that does not merge.
    fn cell(&mut self, core: &mut Core, row: u32, window: Window) -> Slot {
        let (slot, new) = core.cell(row as usize, window);
        if new {
            core.cells.set_timer(Clock::Event, slot, CLOSE, closes_at(window, core.plan.strategy.allowed_lateness));
        }
        slot
    }

    /// The session of a row, grown to hold it.
    async fn session(
        &mut self,
        core: &mut Core,
        incoming: &Incoming,
        row: u32,
        window: Window,
        run: &mut Run,
        now: Instant,
    ) -> Result<Slot, Failure> {
        let mut met = Vec::new();
        if core.cells.evicts() && !self.spans.has(core.keys.get(row as usize)) {
            core.cells.bring_key(core.keys.get(row as usize));
            self.index_arrived(core);
        }
        self.spans.take_overlapping(core.keys.get(row as usize), window, &mut met);
        met.iter().for_each(|(_, slot)| core.cells.used(*slot));
        let grown = met.iter().fold(window, |grown, (span, _)| grown.span(*span));
        let slot = match met.first() {
            None => core.cell(row as usize, window).0,
            Some((span, slot)) if met.len() == 1 && *span == grown => {
                self.spans.insert(core.keys.get(row as usize), grown, *slot);
                return Ok(*slot);
            }
            Some((_, slot)) => {
                self.flush(core, incoming, run).await?;
                let mut states = Vec::with_capacity(met.len());
                for (span, slot) in &met {
                    states.push((self.state(core, *slot)?, *span));
                }
                let (state, step) = self.rule.merge(&states, grown, core.watermark, now);
                let others: Vec<Slot> = met[1..].iter().map(|(_, slot)| *slot).collect();
                core.merge(&vec![*slot; others.len()], &others).await?;
                others.into_iter().for_each(|other| core.cells.remove(other));
                self.settle(core, *slot, &state, &step);
                *slot
            }
        };
        core.cells.write::<i64>(self.start, &[slot])[slot as usize] = grown.start.micros();
        core.cells.write::<i64>(self.end, &[slot])[slot as usize] = grown.end.micros();
        core.cells.set_timer(Clock::Event, slot, CLOSE, closes_at(grown, core.plan.strategy.allowed_lateness));
        self.spans.insert(core.keys.get(row as usize), grown, slot);
        Ok(slot)
    }

    /// Gives out what is due; cells of discarding panes are emptied.
    async fn emit(&self, core: &mut Core, given: &[(Given, bool)], out: &mut Out) -> Result<(), Failure> {
        let panes: Vec<Given> = given.iter().map(|(given, _)| *given).collect();
        core.emit(&panes, MAIN, out).await?;
        let cleared: Vec<Slot> = given.iter().filter(|(_, clear)| *clear).map(|(given, _)| given.slot).collect();
        core.clear(&cleared);
        Ok(())
    }

    async fn row(
        &mut self,
        core: &mut Core,
        incoming: &Incoming,
        row: u32,
        window: Window,
        run: &mut Run,
        out: &mut Out,
    ) -> Result<bool, Failure> {
        let slot = match self.merges {
            true => self.session(core, incoming, row, window, run, out.now).await?,
            false => self.cell(core, row, window),
        };
        let window = self.window(core, slot);
        let mut state = self.state(core, slot)?;
        if state.is_finished() {
            return Ok(false);
        }
        let time = Instant::from_micros_saturating(incoming.batch.times[row as usize]);
        let step = self.rule.on_element(&mut state, window, time, core.watermark, out.now);
        run.slots.push(slot);
        run.rows.push(row);
        self.settle(core, slot, &state, &step);
        if let Some(firing) = step.fire {
            self.flush(core, incoming, run).await?;
            let given = Given { slot, window, pane: firing.pane, time: firing.timestamp };
            self.emit(core, &[(given, firing.clear)], out).await?;
        }
        Ok(true)
    }
}

#[async_trait(?Send)]
impl Way for Ruled {
    async fn rows(&mut self, core: &mut Core, incoming: &Incoming, out: &mut Out) -> Result<(), Failure> {
        let (window_fn, allowed) = (core.plan.strategy.window_fn, core.plan.strategy.allowed_lateness);
        let mut assigned: Vec<(u32, Window)> = Vec::with_capacity(incoming.batch.num_rows());
        windows::for_each(&incoming.batch, window_fn, |row, window| assigned.push((row as u32, window)));
        let origins: Vec<u32> = assigned.iter().map(|(row, _)| *row).collect();
        out.account.assigned(incoming.batch.num_rows(), &origins);
        let (mut run, mut late) = (Run::default(), Vec::new());
        for (row, window) in assigned {
            let open = lateness(window, allowed, core.watermark) != Lateness::Dropped;
            if !open || !self.row(core, incoming, row, window, &mut run, out).await? {
                late.push((row, window));
            }
        }
        self.flush(core, incoming, &mut run).await?;
        core.late(&incoming.batch, &late, out);
        Ok(())
    }

    async fn step(&mut self, core: &mut Core, out: &mut Out) -> Result<bool, Failure> {
        let Some((_, due)) = self.due(core, Clock::Event, core.watermark)? else { return Ok(false) };
        let mut given = Vec::new();
        let mut closed = Vec::new();
        for (slot, tag) in due {
            let (window, mut state) = (self.window(core, slot), self.state(core, slot)?);
            let firing = if tag == CLOSE {
                closed.push(slot);
                self.rule.on_close(&mut state, window, core.watermark, out.now)
            } else {
                let step = self.rule.on_watermark(&mut state, window, core.watermark, out.now);
                self.settle(core, slot, &state, &step);
                step.fire
            };
            if let Some(firing) = firing {
                given.push((Given { slot, window, pane: firing.pane, time: firing.timestamp }, firing.clear));
            }
        }
        // A cell that fires and closes at once gives two panes, one after the other.
        let mut batch: Vec<(Given, bool)> = Vec::with_capacity(given.len());
        for pane in given {
            if batch.last().is_some_and(|(before, _)| before.slot == pane.0.slot) {
                self.emit(core, &std::mem::take(&mut batch), out).await?;
            }
            batch.push(pane);
        }
        self.emit(core, &batch, out).await?;
        for slot in closed {
            if self.merges {
                self.spans.remove(core.cells.key(slot).key, slot);
            }
            core.cells.remove(slot);
        }
        Ok(true)
    }

    async fn tick(&mut self, core: &mut Core, out: &mut Out) -> Result<(), Failure> {
        while let Some((_, due)) = self.due(core, Clock::Processing, out.now)? {
            let mut given = Vec::new();
            for (slot, _) in due {
                let (window, mut state) = (self.window(core, slot), self.state(core, slot)?);
                let step = self.rule.on_processing_time(&mut state, window, core.watermark, out.now);
                self.settle(core, slot, &state, &step);
                if let Some(firing) = step.fire {
                    given.push((Given { slot, window, pane: firing.pane, time: firing.timestamp }, firing.clear));
                }
            }
            self.emit(core, &given, out).await?;
        }
        Ok(())
    }

    fn hold(&self, core: &Core) -> Option<Instant> {
        core.cells.earliest_hold(self.holds)
    }

    fn make_room(&mut self, core: &mut Core) -> Result<(), Failure> {
        self.index_arrived(core);
        core.make_room(&mut self.spans)
    }

    fn arrived(&mut self, core: &mut Core) {
        self.index_arrived(core);
    }

    fn restore(&mut self, core: &mut Core) {
        if core.cells.evicts() {
            self.index_arrived(core);
        } else if self.merges {
            core.cells.slots().for_each(|slot| self.spans.insert(core.cells.key(slot).key, self.window(core, slot), slot));
        }
    }
}
