//! The smallest grouping there is: cells in a map, driven by the pure rule of panes.
//!
//! It keeps the values of each cell in a list, so that what a pane holds can be compared. The state of every cell goes through
//! its bytes after each event, as it does between checkpoints.

use pelton_core::batch::{PaneInfo, PaneTiming};
use pelton_core::pane::{Firing, PaneRule, PaneState, Step};
use pelton_core::strategy::{TimestampCombiner, WindowingStrategy};
use pelton_core::watermark::{Lateness, closes_at, lateness};
use pelton_core::{Instant, Window};
use std::collections::BTreeMap;

/// A pane that a grouping has given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pane {
    pub event: usize,
    pub key: String,
    pub window: Window,
    pub timestamp: Instant,
    pub info: PaneInfo,
    pub values: Vec<i64>,
}

/// What happened to a cell, for those who judge differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// A row came exactly when its window closed, and was dropped.
    DroppedAtClose,
    /// A row came when the watermark had passed the end of its window.
    LateRow,
    /// A row came whose event time the watermark had passed.
    RowBehindWatermark,
    /// A pane was fired by processing time after the end of the window.
    ProcessingTimeAfterEnd,
    /// Windows merged of which one was finished or had had its pane on time.
    MergedAfterEnd,
    /// A session began that overlaps one that has closed.
    OverlapsClosed,
    /// A pane on time had no row that was new.
    EmptyOnTime,
    /// The trigger finished.
    Finished,
    /// A row of this event time came.
    Row(Instant),
    /// Processing time moved while there was the cell.
    ProcessingTime,
    /// The window closed.
    Closed,
}

/// A happening: when, whose, what.
#[derive(Clone, Debug)]
pub struct Note {
    pub event: usize,
    pub key: String,
    pub window: Window,
    pub what: Happening,
}

#[derive(Default)]
struct Cell {
    state: PaneState,
    values: Vec<i64>,
    event_timer: Option<Instant>,
    processing_timer: Option<Instant>,
    has_rows: bool,
}

pub struct Cells {
    strategy: WindowingStrategy,
    rule: PaneRule,
    cells: BTreeMap<(String, Window), Cell>,
    closed: Vec<(String, Window)>,
    watermark: Instant,
    now: Instant,
    event: usize,
    /// Given out so far.
    pub panes: Vec<Pane>,
    /// Those of them that only the closing of a window has led to.
    pub closing: Vec<Pane>,
    /// What happened.
    pub notes: Vec<Note>,
}

impl Cells {
    pub fn new(strategy: WindowingStrategy) -> Cells {
        Cells {
            rule: PaneRule::new(&strategy),
            strategy,
            cells: BTreeMap::new(),
            closed: Vec::new(),
            watermark: Instant::MIN,
            now: Instant::from_micros_saturating(0),
            event: 0,
            panes: Vec::new(),
            closing: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The next event has this number.
    pub fn begin(&mut self, event: usize) {
        self.event = event;
    }

    /// Where processing time stands.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Rows of one key come at once: values and event times. `output_time` is what the timestamp combiner sees of a time.
    pub fn rows(&mut self, key: &str, rows: &[(i64, Instant)], output_time: impl Fn(Instant) -> Instant) {
        let mut by_window: BTreeMap<Window, Vec<(i64, Instant)>> = BTreeMap::new();
        for (value, time) in rows.iter().copied() {
            let mut windows = Vec::new();
            self.strategy.window_fn.each(time, |window| windows.push(window));
            for window in windows {
                if lateness(window, self.strategy.allowed_lateness, self.watermark) == Lateness::Dropped {
                    if self.watermark == closes_at(window, self.strategy.allowed_lateness) {
                        self.note(key, window, Happening::DroppedAtClose);
                    }
                    continue;
                }
                by_window.entry(window).or_default().push((value, output_time(time)));
            }
        }
        if self.strategy.window_fn.merges() {
            by_window = self.merge_sessions(key, by_window);
        }
        for (window, rows) in by_window {
            self.add(key, window, &rows);
        }
    }

    /// The watermark moves. Timers fire in the order of their times; a window closes after its last timer.
    pub fn watermark(&mut self, watermark: Instant, closes_windows: bool) {
        self.watermark = watermark;
        let allowed = self.strategy.allowed_lateness;
        let mut due: Vec<(Instant, bool, (String, Window))> = Vec::new();
        for (id, cell) in &self.cells {
            due.extend(cell.event_timer.filter(|timer| *timer <= watermark).map(|timer| (timer, false, id.clone())));
            if closes_windows && closes_at(id.1, allowed) <= watermark {
                due.push((closes_at(id.1, allowed), true, id.clone()));
            }
        }
        due.sort();
        for (_, is_close, (key, window)) in due {
            let Some(mut cell) = self.cells.remove(&(key.clone(), window)) else { continue };
            if is_close {
                if let Some(firing) = self.rule.on_close(&mut cell.state, window, watermark, self.now) {
                    let pane = self.pane(&key, window, &mut cell, firing);
                    self.closing.push(pane);
                }
                self.note(&key, window, Happening::Closed);
                self.closed.push((key, window));
                continue;
            }
            let step = self.rule.on_watermark(&mut cell.state, window, watermark, self.now);
            if step.fire.is_some() && !cell.has_rows {
                self.note(&key, window, Happening::EmptyOnTime);
            }
            self.take(&key, window, cell, step);
        }
    }

    /// Processing time moves.
    pub fn processing_time(&mut self, now: Instant) {
        self.now = now;
        let ids: Vec<(String, Window)> = self.cells.keys().cloned().collect();
        ids.into_iter().for_each(|(key, window)| self.note(&key, window, Happening::ProcessingTime));
        let mut due: Vec<(Instant, (String, Window))> = Vec::new();
        for (id, cell) in &self.cells {
            due.extend(cell.processing_timer.filter(|timer| *timer <= now).map(|timer| (timer, id.clone())));
        }
        due.sort();
        for (_, (key, window)) in due {
            let Some(mut cell) = self.cells.remove(&(key.clone(), window)) else { continue };
            let step = self.rule.on_processing_time(&mut cell.state, window, self.watermark, now);
            if step.fire.is_some() && self.watermark >= window.end {
                self.note(&key, window, Happening::ProcessingTimeAfterEnd);
            }
            self.take(&key, window, cell, step);
        }
    }

    /// The values that a cell holds, and whether its trigger has finished; `None`: there is no such cell.
    pub fn cell(&self, key: &str, window: Window) -> Option<(&[i64], bool)> {
        self.cells.get(&(key.to_string(), window)).map(|cell| (&cell.values[..], cell.state.is_finished()))
    }

    fn add(&mut self, key: &str, window: Window, rows: &[(i64, Instant)]) {
        let mut cell = self.cells.remove(&(key.to_string(), window)).unwrap_or_default();
        rows.iter().for_each(|(_, time)| self.note(key, window, Happening::Row(*time)));
        if self.watermark >= window.end {
            self.note(key, window, Happening::LateRow);
        }
        let is_by_time = self.strategy.timestamp_combiner != TimestampCombiner::EndOfWindow;
        if is_by_time && rows.iter().any(|(_, time)| *time < self.watermark) {
            self.note(key, window, Happening::RowBehindWatermark);
        }
        if !cell.state.is_finished() {
            cell.values.extend(rows.iter().map(|(value, _)| *value));
            cell.has_rows = true;
        }
        let times: Vec<Instant> = rows.iter().map(|(_, time)| *time).collect();
        let step = match times[..] {
            [time] => self.rule.on_element(&mut cell.state, window, time, self.watermark, self.now),
            _ => self.rule.on_elements(&mut cell.state, window, &times, self.watermark, self.now),
        };
        self.take(key, window, cell, step);
    }

    /// Does what a step says, and puts the cell back.
    fn take(&mut self, key: &str, window: Window, mut cell: Cell, step: Step) {
        assert!(step.processing_timer.is_none_or(|timer| timer > self.now), "a processing time in the past is asked for");
        assert!(step.event_timer.is_none_or(|timer| timer > self.watermark), "a watermark in the past is asked for");
        if let Some(firing) = step.fire {
            let pane = self.pane(key, window, &mut cell, firing);
            self.panes.push(pane);
        }
        if step.finished {
            cell.values.clear();
            self.note(key, window, Happening::Finished);
        }
        (cell.event_timer, cell.processing_timer) = (step.event_timer, step.processing_timer);
        let mut bytes = Vec::new();
        cell.state.encode(&mut bytes);
        cell.state = self.rule.decode(&bytes).expect("a state that was just written");
        self.cells.insert((key.to_string(), window), cell);
    }

    fn pane(&self, key: &str, window: Window, cell: &mut Cell, firing: Firing) -> Pane {
        let mut values = cell.values.clone();
        values.sort_unstable();
        if firing.clear {
            cell.values.clear();
        }
        cell.has_rows = false;
        Pane { event: self.event, key: key.to_string(), window, timestamp: firing.timestamp, info: firing.pane, values }
    }

    /// Windows of the key that overlap become one; the rows go where their windows went.
    fn merge_sessions(&mut self, key: &str, rows: BTreeMap<Window, Vec<(i64, Instant)>>) -> BTreeMap<Window, Vec<(i64, Instant)>> {
        for window in rows.keys() {
            if self.closed.iter().any(|(other, closed)| other == key && closed.overlaps(*window)) {
                self.note(key, *window, Happening::OverlapsClosed);
            }
        }
        let old: Vec<Window> = self.cells.keys().filter(|(other, _)| other == key).map(|(_, window)| *window).collect();
        let mut all: Vec<Window> = old.iter().chain(rows.keys()).copied().collect();
        all.sort();
        let mut merged: Vec<Window> = Vec::new();
        for window in all {
            match merged.last_mut() {
                Some(last) if last.overlaps(window) => *last = last.span(window),
                _ => merged.push(window),
            }
        }
        let mut result: BTreeMap<Window, Vec<(i64, Instant)>> = BTreeMap::new();
        for into in merged {
            let parts: Vec<Window> = old.iter().copied().filter(|window| into.overlaps(*window)).collect();
            if !parts.is_empty() && parts != [into] {
                self.merge_cells(key, &parts, into);
            }
            for (_, more) in rows.iter().filter(|(window, _)| into.overlaps(**window)) {
                result.entry(into).or_default().extend(more);
            }
        }
        result
    }

    fn merge_cells(&mut self, key: &str, parts: &[Window], into: Window) {
        let cells: Vec<(Cell, Window)> =
            parts.iter().map(|window| (self.cells.remove(&(key.to_string(), *window)).expect("an old cell"), *window)).collect();
        let over = |(cell, window): &(Cell, Window)| cell.state.is_finished() || self.watermark >= window.end;
        if cells.iter().any(over) {
            self.note(key, into, Happening::MergedAfterEnd);
        }
        let states: Vec<(PaneState, Window)> = cells.iter().map(|(cell, window)| (cell.state.clone(), *window)).collect();
        let (state, step) = self.rule.merge(&states, into, self.watermark, self.now);
        let values = cells.iter().flat_map(|(cell, _)| cell.values.iter().copied()).collect();
        let has_rows = cells.iter().any(|(cell, _)| cell.has_rows);
        let cell = Cell { state, values, has_rows, ..Cell::default() };
        assert!(step.fire.is_none(), "a merge gives out nothing by itself");
        self.take(key, into, cell, step);
    }

    fn note(&mut self, key: &str, window: Window, what: Happening) {
        self.notes.push(Note { event: self.event, key: key.to_string(), window, what });
    }
}

/// As Beam names it.
pub fn timing_name(timing: PaneTiming) -> &'static str {
    match timing {
        PaneTiming::Early => "EARLY",
        PaneTiming::OnTime => "ON_TIME",
        PaneTiming::Late => "LATE",
        PaneTiming::Unknown => "UNKNOWN",
    }
}
