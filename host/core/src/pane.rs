//! Panes: the rule for one cell, that is one key in one window.
//!
//! A [`PaneRule`] is compiled from a windowing strategy. The caller keeps a [`PaneState`] for each cell beside the cell's
//! rows (or what they are combined into) and tells the rule what happens to the cell: rows come, the watermark passes the end
//! of the window, a processing time is reached, the window merges with others, the window closes. Each [`Step`] says whether
//! a pane is given out and what the cell waits for.
//!
//! How to call it:
//! - [`PaneRule::on_element`] for each row that is not beyond the allowed lateness, after its session has been merged;
//! - [`PaneRule::on_watermark`] when the watermark reaches [`Step::event_timer`], [`PaneRule::on_processing_time`] when
//!   processing time reaches [`Step::processing_timer`], both before the rows that come after;
//! - [`PaneRule::on_close`] when the watermark reaches [`closes_at`], after `on_watermark`. Then the cell is dropped.
//!
//! Timing. A pane is early before the watermark has passed the end of the window; on time when that passing itself fires it
//! and no pane but early ones came before; late otherwise. A pane on time is given out also when nothing is in it (Beam's
//! default), any other only with rows. The result does not depend on how far a watermark moves at once.
//!
//! Event time of a pane: by the timestamp combiner, over the rows that were not late, that is at or after the watermark, when
//! they came; the end of the window when there are none. With a trigger that gives a pane on time, this time is held until
//! then, also when early panes have been given out (as Python does), so that no pane is late downstream.

use crate::batch::{PaneInfo, PaneTiming};
use crate::strategy::{Accumulation, Closing, TimestampCombiner, Trigger, WindowingStrategy};
use crate::time::{Duration, Instant};
use crate::trigger::{Moment, Node, compile};
use crate::watermark::closes_at;
use crate::window::Window;
use std::sync::Arc;

mod state;

pub use state::{PaneState, PaneStateError};

/// When the cells of a grouping give out panes.
#[derive(Clone, Debug)]
pub struct PaneRule {
    trigger: Arc<dyn Node>,
    words: usize,
    accumulation: Accumulation,
    allowed_lateness: Duration,
    timestamp_combiner: TimestampCombiner,
    closing: Closing,
    is_default: bool,
}

/// What a cell does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// A pane is given out now.
    pub fire: Option<Firing>,
    /// The window is over: what the cell holds is dropped, and rows for it are dropped until it closes.
    pub finished: bool,
    /// The watermark at which `on_watermark` is to be called.
    pub event_timer: Option<Instant>,
    /// The processing time at which `on_processing_time` is to be called.
    pub processing_timer: Option<Instant>,
    /// The earliest event time that the cell may still give out: the output watermark stays at or before it.
    pub hold: Option<Instant>,
}

/// A pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Which pane of its window it is.
    pub pane: PaneInfo,
    /// The event time of what is given out.
    pub timestamp: Instant,
    /// Afterwards the cell holds no rows.
    pub clear: bool,
}

impl PaneRule {
    /// Compiles a strategy.
    pub fn new(strategy: &WindowingStrategy) -> PaneRule {
        let (trigger, words) = compile(&strategy.trigger);
        let is_default = strategy.trigger == Trigger::Default
            && strategy.accumulation == Accumulation::Discarding
            && strategy.timestamp_combiner == TimestampCombiner::EndOfWindow
            && strategy.closing == Closing::IfNonEmpty;
        PaneRule {
            trigger,
            words,
            accumulation: strategy.accumulation,
            allowed_lateness: strategy.allowed_lateness,
            timestamp_combiner: strategy.timestamp_combiner,
            closing: strategy.closing,
            is_default,
        }
    }

    /// Whether it is what Beam does where a pipeline only names windows: a pane at the end of the window with its last
    /// instant as event time, one for each late row, nothing kept. An operator can do that without a state for each cell.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// A row has come.
    pub fn on_element(&self, state: &mut PaneState, window: Window, time: Instant, watermark: Instant, now: Instant) -> Step {
        self.on_elements(state, window, &[time], watermark, now)
    }

    /// Rows have come at once: at most one pane, after the last of them.
    pub fn on_elements(&self, state: &mut PaneState, window: Window, times: &[Instant], watermark: Instant, now: Instant) -> Step {
        let at = Moment { window, watermark, now };
        if state.finished || times.is_empty() {
            return self.step(state, &at, None);
        }
        self.prepare(state);
        state.has_rows = true;
        for time in times.iter().copied() {
            state.hold = self.combine(state.hold, self.output_time(time, &at));
        }
        self.trigger.on_rows(&mut state.words, times.len() as u64, &at);
        let fire = self.fire_if_ready(state, &at, false);
        self.step(state, &at, fire)
    }

    /// The watermark has reached the cell's event timer.
    pub fn on_watermark(&self, state: &mut PaneState, window: Window, watermark: Instant, now: Instant) -> Step {
        let at = Moment { window, watermark, now };
        self.prepare(state);
        let fire = self.fire_if_ready(state, &at, at.is_past_end());
        self.step(state, &at, fire)
    }

    /// Processing time has reached the cell's timer.
    pub fn on_processing_time(&self, state: &mut PaneState, window: Window, watermark: Instant, now: Instant) -> Step {
        let at = Moment { window, watermark, now };
        self.prepare(state);
        let fire = self.fire_if_ready(state, &at, false);
        self.step(state, &at, fire)
    }

    /// The window closes: its last pane.
    pub fn on_close(&self, state: &mut PaneState, window: Window, _watermark: Instant, _now: Instant) -> Option<Firing> {
        if std::mem::replace(&mut state.finished, true) || !(state.has_rows || self.closing == Closing::Always) {
            return None;
        }
        let timing = if state.nonspeculative == 0 && state.hold.is_some() { PaneTiming::OnTime } else { PaneTiming::Late };
        let timestamp = self.timestamp(state, window);
        Some(Firing { pane: number(state, timing, true), timestamp, clear: true })
    }

    /// Cells of one key become one, since their windows merge; also one cell whose window has grown. The merged window is
    /// another window, so its panes are numbered anew.
    pub fn merge(&self, states: &[(PaneState, Window)], into: Window, watermark: Instant, now: Instant) -> (PaneState, Step) {
        let at = Moment { window: into, watermark, now };
        let mut merged = PaneState { finished: self.is_finished_when_merged(states, &at), ..PaneState::default() };
        if !merged.finished {
            self.prepare(&mut merged);
            let mut open: Vec<PaneState> = states.iter().map(|(state, _)| state.clone()).filter(|state| !state.finished).collect();
            open.iter_mut().for_each(|state| self.prepare(state));
            let words: Vec<&[u64]> = open.iter().map(|state| &state.words[..]).collect();
            self.trigger.merge(&mut merged.words, &words, &at);
            merged.has_rows = open.iter().any(|state| state.has_rows);
            for hold in open.iter().filter_map(|state| state.hold) {
                let hold = if self.timestamp_combiner == TimestampCombiner::EndOfWindow { into.max_timestamp() } else { hold };
                merged.hold = self.combine(merged.hold, Some(hold));
            }
        }
        let step = self.step(&merged, &at, None);
        (merged, step)
    }

    /// Reads what [`PaneState::encode`] wrote for a cell of this rule.
    pub fn decode(&self, bytes: &[u8]) -> Result<PaneState, PaneStateError> {
        let state = PaneState::decode(bytes)?;
        if !state.words.is_empty() && state.words.len() != self.words {
            return Err(PaneStateError::OtherTrigger { words: state.words.len(), expected: self.words });
        }
        Ok(state)
    }

    /// A trigger that has finished at the end of its window begins again when the merged window has not ended. One that has
    /// finished otherwise has fired for one of the cells and thereby for all.
    fn is_finished_when_merged(&self, states: &[(PaneState, Window)], at: &Moment) -> bool {
        let at_its_end = |state: &PaneState| self.trigger.has_on_time_pane() && state.nonspeculative > 0;
        let mut finished = states.iter().map(|(state, _)| state).filter(|state| state.finished).peekable();
        let all_are = at.is_past_end() && finished.peek().is_some() && states.iter().all(|(state, _)| state.finished);
        all_are || finished.any(|state| !at_its_end(state))
    }

    fn prepare(&self, state: &mut PaneState) {
        state.words.resize(self.words, 0);
    }

    fn fire_if_ready(&self, state: &mut PaneState, at: &Moment, by_watermark: bool) -> Option<Firing> {
        if state.finished || !self.trigger.ready(&state.words, at) {
            return None;
        }
        let finished = self.trigger.fire(&mut state.words, at);
        let timing = match (at.is_past_end(), by_watermark && state.nonspeculative == 0) {
            (false, _) => PaneTiming::Early,
            (true, true) => PaneTiming::OnTime,
            (true, false) => PaneTiming::Late,
        };
        // Nothing can come after the pane on time if the window closes at its end.
        let is_last = finished || (timing == PaneTiming::OnTime && closes_at(at.window, self.allowed_lateness) == at.window.end);
        let is_given = state.has_rows || timing == PaneTiming::OnTime || (finished && self.closing == Closing::Always);
        let timestamp = self.timestamp(state, at.window);
        state.finished = is_last;
        state.has_rows = false;
        if at.is_past_end() || !self.trigger.has_on_time_pane() || is_last {
            state.hold = None;
        }
        let clear = is_last || self.accumulation == Accumulation::Discarding;
        is_given.then(|| Firing { pane: number(state, timing, is_last), timestamp, clear })
    }

    fn step(&self, state: &PaneState, at: &Moment, fire: Option<Firing>) -> Step {
        if state.finished {
            return Step { fire, finished: true, event_timer: None, processing_timer: None, hold: None };
        }
        let is_fresh = state.words.len() != self.words;
        let awaits_end = !at.is_past_end() && !is_fresh && self.trigger.awaits_end(&state.words);
        let end_hold = (!at.is_past_end() && (state.has_rows || awaits_end)).then(|| at.window.max_timestamp());
        Step {
            fire,
            finished: false,
            event_timer: awaits_end.then_some(at.window.end),
            processing_timer: if is_fresh { None } else { self.trigger.processing_timer(&state.words, at.now) },
            hold: state.hold.or(end_hold),
        }
    }

    /// The output time that a row asks for; a late row asks for none.
    fn output_time(&self, time: Instant, at: &Moment) -> Option<Instant> {
        match self.timestamp_combiner {
            TimestampCombiner::EndOfWindow => (!at.is_past_end()).then(|| at.window.max_timestamp()),
            TimestampCombiner::Earliest | TimestampCombiner::Latest => (time >= at.watermark).then_some(time),
        }
    }

    fn combine(&self, one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
        match (one, other) {
            (Some(one), Some(other)) if self.timestamp_combiner == TimestampCombiner::Earliest => Some(one.min(other)),
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        }
    }

    fn timestamp(&self, state: &PaneState, window: Window) -> Instant {
        match self.timestamp_combiner {
            TimestampCombiner::EndOfWindow => window.max_timestamp(),
            TimestampCombiner::Earliest | TimestampCombiner::Latest => state.hold.unwrap_or_else(|| window.max_timestamp()),
        }
    }
}

/// Numbers a pane and counts it.
fn number(state: &mut PaneState, timing: PaneTiming, is_last: bool) -> PaneInfo {
    let index = state.index;
    state.index += 1;
    let nonspeculative_index = if timing == PaneTiming::Early {
        -1
    } else {
        state.nonspeculative += 1;
        state.nonspeculative - 1
    };
    PaneInfo { timing, is_first: index == 0, is_last, index, nonspeculative_index }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
