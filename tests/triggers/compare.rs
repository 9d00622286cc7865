//! Our panes against Beam's, cell by cell and event by event, and the differences that are known.
//!
//! A difference is known only if it is of a kind in [`Difference`], and that kind is possible here: something that happened in
//! the very cell before, as the cells noted it, or what Beam's watermarks were. Each kind has its section in
//! `docs/book/src/reference/beam-differences.md`. All else is wrong.

use crate::cells::{Cells, Happening, Note, Pane, timing_name};
use crate::streams::{Event, Stream};
use pelton_core::batch::{PaneInfo, PaneTiming};
use pelton_core::strategy::Trigger;
use pelton_core::time::Duration;
use pelton_core::{Instant, Window};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A difference between Beam's Python and the model that we do not copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Windows do not close: no last pane, and the state stays.
    NoClosing,
    /// With no allowed lateness, the pane on time is not marked as the last.
    LastPaneNotMarked,
    /// A row that comes exactly at the closing is taken.
    BoundaryOfLateness,
    /// Panes fired by rows are labelled, and rows are called late, by the output watermark, which other cells hold back.
    OutputWatermark,
    /// At a processing-time timer the time of the timer is taken for the watermark.
    ProcessingTimeAsWatermark,
    /// A processing-time timer that is due fires every processing-time trigger of the tree, and composites do not finish by it.
    ProcessingTimeInComposites,
    /// A finished or late window makes what it merges with finished or late.
    MergedWithLate,
    /// `OrFinally` goes on when its second trigger has fired without being finished.
    OrFinally,
    /// A timer that has lost its trigger fires whatever has taken its place: a pane without a new row.
    StaleTimers,
    /// A part that waits for the end of the window, and has begun anew or been moved on to, does so only after a further row.
    EndAwaitedAfterRow,
}

impl Difference {
    /// All of them, with their headings in `beam-differences.md`.
    pub const ALL: [(Difference, &'static str); 10] = [
        (Difference::NoClosing, "windows-do-not-close"),
        (Difference::LastPaneNotMarked, "last-pane-not-marked"),
        (Difference::BoundaryOfLateness, "boundary-of-lateness"),
        (Difference::OutputWatermark, "output-watermark"),
        (Difference::ProcessingTimeAsWatermark, "processing-time-as-watermark"),
        (Difference::ProcessingTimeInComposites, "processing-time-in-composites"),
        (Difference::StaleTimers, "stale-timers"),
        (Difference::EndAwaitedAfterRow, "end-awaited-after-a-row"),
        (Difference::MergedWithLate, "merged-with-late"),
        (Difference::OrFinally, "or-finally"),
    ];
}

/// What came of a stream.
pub enum Outcome {
    Equal,
    Known(BTreeSet<Difference>),
    Wrong(String),
}

/// A stream through our rule. Beam's windows do not close when the input ends; ours do, if `closes_at_end`.
pub fn run(stream: &Stream, closes_at_end: bool) -> Cells {
    let mut cells = Cells::new(stream.strategy.clone());
    for (number, event) in stream.events.iter().enumerate() {
        cells.begin(number);
        match event {
            Event::Row { key, value, time } => cells.rows(key, &[(*value, *time)], |time| time),
            Event::Watermark(at) => cells.watermark(*at, true),
            Event::ProcessingTime(by) => cells.processing_time(cells.now().saturating_add(*by)),
        }
    }
    cells.begin(stream.events.len());
    cells.watermark(Instant::MAX, closes_at_end);
    cells
}

/// Judges our panes by Beam's answer.
pub fn judge(stream: &Stream, cells: &Cells, answer: &Value) -> Outcome {
    let theirs: Vec<Pane> = answer["panes"].as_array().into_iter().flatten().map(pane_of).collect();
    let output_watermarks = output_watermarks(answer);
    let merges = stream.strategy.window_fn.merges();
    // Sessions of one key become each other's.
    let cell_of = |key: &str, window: Window| (key.to_string(), if merges { Window::GLOBAL } else { window });
    let mut ids: BTreeSet<(String, Window)> = BTreeSet::new();
    for pane in cells.panes.iter().chain(&theirs) {
        ids.insert(cell_of(&pane.key, pane.window));
    }
    let mut known = BTreeSet::new();
    if !cells.closing.is_empty() {
        known.insert(Difference::NoClosing);
    }
    for id in ids {
        let of_cell = |panes: &[Pane]| -> BTreeMap<usize, Vec<Pane>> {
            let mut by_event: BTreeMap<usize, Vec<Pane>> = BTreeMap::new();
            for pane in panes.iter().filter(|pane| cell_of(&pane.key, pane.window) == id) {
                by_event.entry(pane.event).or_default().push(pane.clone());
            }
            by_event.values_mut().for_each(|panes| panes.sort_by_key(|pane| (pane.window, pane.info.index)));
            by_event
        };
        let notes: Vec<&Note> = cells.notes.iter().filter(|note| cell_of(&note.key, note.window) == id).collect();
        let (ours, theirs) = (of_cell(&cells.panes), of_cell(&theirs));
        let case = Case { stream, notes, panes: &ours, output_watermarks: &output_watermarks };
        let events: BTreeSet<usize> = ours.keys().chain(theirs.keys()).copied().collect();
        for event in events {
            let empty = Vec::new();
            let (ours, theirs) = (ours.get(&event).unwrap_or(&empty), theirs.get(&event).unwrap_or(&empty));
            if same(ours, theirs) {
                continue;
            }
            if let Some(difference) = case.anything(event, theirs.len() > ours.len()) {
                known.insert(difference);
                // From here on this cell is another.
                break;
            }
            match case.labels(event, ours, theirs) {
                Some(differences) => known.extend(differences),
                None => {
                    let notes = case.notes;
                    return Outcome::Wrong(format!("cell {id:?}, event {event}:\n  ours   {ours:?}\n  theirs {theirs:?}\n  {notes:?}"));
                }
            }
        }
    }
    if known.is_empty() { Outcome::Equal } else { Outcome::Known(known) }
}

/// What is known of a cell.
struct Case<'c> {
    stream: &'c Stream,
    notes: Vec<&'c Note>,
    panes: &'c BTreeMap<usize, Vec<Pane>>,
    output_watermarks: &'c BTreeMap<usize, Instant>,
}

impl Case<'_> {
    fn happened(&self, what: Happening, until: usize) -> bool {
        self.notes.iter().any(|note| note.what == what && note.event <= until)
    }

    /// A difference after which the cell's panes cannot be compared.
    fn anything(&self, event: usize, theirs_are_more: bool) -> Option<Difference> {
        let trigger = &self.stream.strategy.trigger;
        let happened = |what| self.happened(what, event);
        let merges = self.stream.strategy.window_fn.merges();
        let possible = [
            (happened(Happening::DroppedAtClose), Difference::BoundaryOfLateness),
            (happened(Happening::OverlapsClosed) || (happened(Happening::Closed) && theirs_are_more), Difference::NoClosing),
            (happened(Happening::MergedAfterEnd) && ends(trigger) > 0, Difference::MergedWithLate),
            (happened(Happening::ProcessingTime) && may_confuse_processing_time(trigger, merges), Difference::ProcessingTimeInComposites),
            (self.has_ended_a_part(event) && has(trigger, &or_finally_goes_on), Difference::OrFinally),
            (theirs_are_more && !self.has_new_rows(event) && (merges || may_lose_a_timer(trigger)), Difference::StaleTimers),
            (happened(Happening::EmptyOnTime) && has(trigger, &begins_to_await_end), Difference::EndAwaitedAfterRow),
        ];
        possible.into_iter().find(|(is_possible, _)| *is_possible).map(|(_, difference)| difference)
    }

    /// Whether rows have come since the last of our panes before, or at, an event.
    fn has_new_rows(&self, event: usize) -> bool {
        let last_pane = self.panes.range(..=event).next_back().map(|(event, _)| *event);
        let new =
            |note: &&Note| matches!(note.what, Happening::Row(_)) && note.event <= event && last_pane.is_none_or(|pane| note.event > pane);
        self.notes.iter().copied().any(|note| new(&note))
    }

    /// Whether an `OrFinally` may have ended: with the whole trigger, or, as a part of it, with a pane.
    fn has_ended_a_part(&self, event: usize) -> bool {
        let is_whole = matches!(self.stream.strategy.trigger, Trigger::OrFinally(..));
        self.happened(Happening::Finished, event) || (!is_whole && self.panes.range(..=event).next().is_some())
    }

    /// The same panes but for labels that Beam's Python gets from another watermark.
    fn labels(&self, event: usize, ours: &[Pane], theirs: &[Pane]) -> Option<BTreeSet<Difference>> {
        if ours.len() != theirs.len() {
            return None;
        }
        let mut found = BTreeSet::new();
        for (our, their) in ours.iter().zip(theirs) {
            let mut relabelled = our.clone();
            if self.stream.strategy.allowed_lateness == Duration::ZERO && our.info.is_last && !their.info.is_last {
                relabelled.info.is_last = false;
                found.insert(Difference::LastPaneNotMarked);
            }
            if !same_pane(&relabelled, their) {
                let difference = self.relabels(event).filter(|_| self.is_labelled_by(event, their))?;
                relabelled.info.timing = their.info.timing;
                relabelled.info.nonspeculative_index = their.info.nonspeculative_index;
                relabelled.timestamp = their.timestamp;
                found.insert(difference);
            }
            if !same_pane(&relabelled, their) {
                return None;
            }
        }
        Some(found)
    }

    /// Whether a pane of theirs has the labels that Beam's Python takes from its output watermark, or from processing time,
    /// which lies long before all windows: early up to the last instant of the window, and the event time of a row or the
    /// window's last instant.
    fn is_labelled_by(&self, event: usize, their: &Pane) -> bool {
        let is_early = match (&self.stream.events.get(event), self.output_watermarks.get(&event)) {
            (Some(Event::Row { .. }), Some(output)) => *output <= their.window.max_timestamp(),
            (Some(Event::ProcessingTime(_)), _) => true,
            // By the end of the window: never early.
            _ => false,
        };
        let is_of_a_row = |note: &&Note| note.what == Happening::Row(their.timestamp) && note.event <= event;
        let is_time_known = their.timestamp == their.window.max_timestamp() || self.notes.iter().copied().any(|note| is_of_a_row(&note));
        is_early == (their.info.timing == PaneTiming::Early) && is_time_known
    }

    /// Why timing, the index among non-speculative panes and the timestamp may be others.
    fn relabels(&self, event: usize) -> Option<Difference> {
        let held_back = self.notes.iter().any(|note| {
            let behind = |end: Instant| self.output_watermarks.get(&note.event).is_some_and(|output| *output < end);
            note.event <= event
                && match note.what {
                    Happening::LateRow => behind(note.window.end),
                    Happening::RowBehindWatermark => true,
                    _ => false,
                }
        });
        if self.happened(Happening::ProcessingTimeAfterEnd, event) {
            Some(Difference::ProcessingTimeAsWatermark)
        } else {
            held_back.then_some(Difference::OutputWatermark)
        }
    }
}

/// The output watermark at each event with rows.
fn output_watermarks(answer: &Value) -> BTreeMap<usize, Instant> {
    let entries = answer["watermarks"].as_array().into_iter().flatten();
    entries.map(|entry| (event_of(&entry[0]), instant(&entry[2]))).collect()
}

fn same(ours: &[Pane], theirs: &[Pane]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(our, their)| same_pane(our, their))
}

/// Times are cut to milliseconds.
fn same_pane(our: &Pane, their: &Pane) -> bool {
    let cut = |time: Instant| time.micros().div_euclid(1_000);
    let times = |pane: &Pane| (cut(pane.window.start), cut(pane.window.max_timestamp()), cut(pane.timestamp));
    times(our) == times(their) && our.info == their.info && our.values == their.values && our.key == their.key
}

/// Processing time in more than one way: in sessions, or other than as the whole trigger, repeated, or as all that is early.
fn may_confuse_processing_time(trigger: &Trigger, merges: bool) -> bool {
    let alone = |trigger: &Trigger| matches!(trigger, Trigger::AfterProcessingTime { .. });
    let is_plain = match trigger {
        Trigger::Repeatedly(inner) => alone(inner),
        Trigger::AfterWatermark { early: Some(early), late } => {
            let is_early = alone(early) || matches!(&**early, Trigger::Repeatedly(inner) if alone(inner));
            is_early && !late.as_ref().is_some_and(|late| has(late, &alone))
        }
        other => alone(other),
    };
    has(trigger, &alone) && (merges || !is_plain)
}

fn or_finally_goes_on(trigger: &Trigger) -> bool {
    matches!(trigger, Trigger::OrFinally(_, until) if !matches!(**until, Trigger::AfterCount(_) | Trigger::AfterProcessingTime { .. }))
}

/// A later step of `AfterEach`; or the default trigger in one that is repeated.
fn begins_to_await_end(trigger: &Trigger) -> bool {
    let has_default = |part: &Trigger| has(part, &|part| *part == Trigger::Default);
    match trigger {
        Trigger::AfterEach(steps) => steps.iter().skip(1).any(|step| ends(step) > 0),
        Trigger::Repeatedly(inner) => has_default(inner),
        Trigger::AfterWatermark { early: Some(early), .. } => has_default(early),
        _ => false,
    }
}

/// Several parts set a timer at the end of the window, or one does and another is ready whenever it is asked.
fn may_lose_a_timer(trigger: &Trigger) -> bool {
    let is_always = |part: &Trigger| *part == Trigger::Always;
    ends(trigger) > 1 || (ends(trigger) == 1 && has(trigger, &is_always))
}

/// How many parts wait for the end of the window.
fn ends(trigger: &Trigger) -> usize {
    let sum = |parts: &[Trigger]| parts.iter().map(ends).sum();
    match trigger {
        Trigger::Default => 1,
        Trigger::AfterWatermark { early, late } => 1 + early.iter().chain(late).map(|part| ends(part)).sum::<usize>(),
        Trigger::Repeatedly(inner) => ends(inner),
        Trigger::AfterAny(parts) | Trigger::AfterAll(parts) | Trigger::AfterEach(parts) => sum(parts),
        Trigger::OrFinally(main, until) => ends(main) + ends(until),
        _ => 0,
    }
}

/// Whether any part of a trigger, itself included, is so.
fn has(trigger: &Trigger, so: &dyn Fn(&Trigger) -> bool) -> bool {
    let any = |parts: &[Trigger]| parts.iter().any(|part| has(part, so));
    so(trigger)
        || match trigger {
            Trigger::Repeatedly(inner) => has(inner, so),
            Trigger::AfterWatermark { early, late } => early.iter().chain(late).any(|part| has(part, so)),
            Trigger::AfterAny(parts) | Trigger::AfterAll(parts) | Trigger::AfterEach(parts) => any(parts),
            Trigger::OrFinally(main, until) => has(main, so) || has(until, so),
            _ => false,
        }
}

/// A pane as `oracle.py` writes it.
fn pane_of(pane: &Value) -> Pane {
    let timings = [PaneTiming::Early, PaneTiming::OnTime, PaneTiming::Late];
    let timing = timings.into_iter().find(|timing| pane[5] == timing_name(*timing)).unwrap_or(PaneTiming::Unknown);
    Pane {
        event: event_of(&pane[0]),
        key: pane[1].as_str().unwrap_or_default().to_string(),
        window: Window { start: instant(&pane[2]), end: instant(&pane[3]) },
        timestamp: instant(&pane[4]),
        info: PaneInfo {
            timing,
            is_first: pane[6] == true,
            is_last: pane[7] == true,
            index: pane[8].as_i64().unwrap_or(i64::MIN),
            nonspeculative_index: pane[9].as_i64().unwrap_or(i64::MIN),
        },
        values: pane[10].as_array().into_iter().flatten().filter_map(Value::as_i64).collect(),
    }
}

/// The runner itself takes three events at first.
fn event_of(value: &Value) -> usize {
    value.as_u64().and_then(|event| usize::try_from(event).ok()?.checked_sub(3)).expect("a number of an event")
}

fn instant(value: &Value) -> Instant {
    Instant::from_micros_saturating(value.as_i64().unwrap_or_default())
}
