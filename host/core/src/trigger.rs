//! Triggers: when a cell (one key in one window) gives out a pane.
//!
//! A [`Trigger`] is compiled once into a tree of [`Node`]s. What a node has to remember of a cell is one word of the cell's
//! state: a count, a time, a place in a sequence. A fresh word is 0, and so is a fresh cell. The meaning is Beam's model, and
//! where that leaves a choice, Beam's Python; the differences are listed in the book under "Differences from Beam".
//!
//! - [`leaf`]: counts, processing time, always, never.
//! - [`end`]: the end of the window, with early and late firings.
//! - [`sequence`]: again and again, one after the other.
//! - [`parallel`]: any, all, until.
//! - [`properties`]: what can be said of a trigger without running it; the trigger after a grouping.
//!
//! Invariant: nodes see nothing but the words and the [`Moment`]; the same calls give the same answers.

mod end;
mod leaf;
mod parallel;
mod properties;
mod sequence;

use self::parallel::{Kind, Parallel};
use crate::strategy::Trigger;
use crate::time::Instant;
use crate::window::Window;
use std::fmt::Debug;
use std::sync::Arc;

/// What a trigger may look at beside its own words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub window: Window,
    pub watermark: Instant,
    /// Processing time.
    pub now: Instant,
}

impl Moment {
    /// Whether the watermark has passed the end of the window.
    pub fn is_past_end(&self) -> bool {
        self.watermark >= self.window.end
    }
}

/// One trigger of a tree. All methods get the words of the whole cell; what they do without being written out is right for
/// a trigger that remembers nothing and waits for no time.
pub(crate) trait Node: Debug + Send + Sync {
    /// Rows have come into the cell.
    fn on_rows(&self, _words: &mut [u64], _rows: u64, _at: &Moment) {}
    /// Whether the cell is to give out a pane.
    fn ready(&self, words: &[u64], at: &Moment) -> bool;
    /// The cell gives out a pane, since this node is ready. Says whether the trigger is finished.
    fn fire(&self, words: &mut [u64], at: &Moment) -> bool;
    /// Back to the beginning.
    fn reset(&self, _words: &mut [u64]) {}
    /// Cells become one, whose window is that of `at`: `words` is fresh, `from` are those of the cells.
    fn merge(&self, _words: &mut [u64], _from: &[&[u64]], _at: &Moment) {}
    /// The earliest processing time that an active node waits for, if it has not been reached.
    fn processing_timer(&self, _words: &[u64], _now: Instant) -> Option<Instant> {
        None
    }
    /// Whether an active node waits for the end of the window.
    fn awaits_end(&self, _words: &[u64]) -> bool {
        false
    }
    /// Whether it may fire because of the end of the window, also with nothing in the pane.
    fn has_on_time_pane(&self) -> bool {
        false
    }
}

/// Compiles a trigger. Gives the root and the number of words of a cell.
pub(crate) fn compile(trigger: &Trigger) -> (Arc<dyn Node>, usize) {
    let mut slots = 0;
    let root = node(trigger, &mut slots);
    (Arc::from(root), slots)
}

fn node(trigger: &Trigger, slots: &mut usize) -> Box<dyn Node> {
    match trigger {
        Trigger::Default => Box::new(end::Default),
        Trigger::Never => Box::new(leaf::Never),
        Trigger::Always => Box::new(leaf::Always),
        Trigger::AfterCount(count) => Box::new(leaf::Count { slot: take(slots), count: u64::from(*count).max(1) }),
        Trigger::AfterProcessingTime { delay } => Box::new(leaf::ProcessingTime { slot: take(slots), delay: *delay }),
        Trigger::AfterWatermark { early, late } => {
            let slot = take(slots);
            let mut again = |trigger: &Option<Box<Trigger>>| trigger.as_ref().map(|inner| repeated(inner, slots));
            Box::new(end::EndOfWindow { slot, early: again(early), late: again(late) })
        }
        Trigger::Repeatedly(inner) => repeated(inner, slots),
        Trigger::AfterEach(triggers) => Box::new(sequence::Each { slot: take(slots), steps: nodes(triggers, slots) }),
        Trigger::AfterAny(triggers) => Box::new(Parallel { kind: Kind::Any, parts: nodes(triggers, slots) }),
        Trigger::AfterAll(triggers) => Box::new(Parallel { kind: Kind::All, parts: nodes(triggers, slots) }),
        Trigger::OrFinally(main, until) => Box::new(Parallel { kind: Kind::Until, parts: vec![node(main, slots), node(until, slots)] }),
    }
}

fn nodes(triggers: &[Trigger], slots: &mut usize) -> Vec<Box<dyn Node>> {
    triggers.iter().map(|trigger| node(trigger, slots)).collect()
}

/// `Repeatedly`, unless it is one already.
fn repeated(trigger: &Trigger, slots: &mut usize) -> Box<dyn Node> {
    match trigger {
        Trigger::Repeatedly(_) => node(trigger, slots),
        other => Box::new(sequence::Repeatedly(node(other, slots))),
    }
}

fn take(slots: &mut usize) -> usize {
    *slots += 1;
    *slots - 1
}
