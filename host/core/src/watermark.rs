//! Watermarks: how far event time has come.
//!
//! Watermark W says that no later row has event time < W. Each source split has one; a source task's is the smallest of its
//! splits that are neither idle nor ended; an operator's is the smallest of its inputs that are neither idle nor ended.
//! Nothing here reads a clock: the caller hands in processing time.
//!
//! Invariant: a watermark that was given out never goes back.

use crate::time::{Duration, Instant};
use crate::window::Window;

pub use crate::policy::{Policy, Rule, SplitWatermark};

/// What a task tells those downstream of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// Event time has come this far.
    Active(Instant),
    /// Nothing has come for a while: do not wait for this input.
    Idle,
}

/// Merges the watermarks of several inputs into one that never goes back.
#[derive(Clone, Debug)]
pub struct Merged {
    inputs: Vec<Option<Watermark>>,
    given: Instant,
    idle: bool,
}

impl Merged {
    /// Every input starts at the beginning of time.
    pub fn new(inputs: usize) -> Merged {
        Merged { inputs: vec![Some(Watermark::Active(Instant::MIN)); inputs], given: Instant::MIN, idle: false }
    }

    /// Sets one input (`None`: it has ended) and gives the merged watermark if it changed.
    pub fn update(&mut self, input: usize, watermark: Option<Watermark>) -> Option<Watermark> {
        self.inputs[input] = watermark;
        match merge(self.inputs.iter().copied()) {
            // All ended: the end itself is told by another message.
            None => None,
            Some(Watermark::Idle) if self.idle => None,
            Some(Watermark::Idle) => {
                self.idle = true;
                Some(Watermark::Idle)
            }
            Some(Watermark::Active(at)) => {
                let woke = std::mem::replace(&mut self.idle, false);
                if at > self.given || woke {
                    self.given = self.given.max(at);
                    Some(Watermark::Active(self.given))
                } else {
                    None
                }
            }
        }
    }

    /// The largest watermark given out.
    pub fn current(&self) -> Instant {
        self.given
    }
}

/// The smallest watermark of those that are active; idle when all are; `None` when there is none. An input at the end of time has given all it has, so that
/// it says nothing of those that are idle: these may still have rows.
pub fn merge(inputs: impl IntoIterator<Item = Option<Watermark>>) -> Option<Watermark> {
    inputs.into_iter().flatten().reduce(|a, b| match (a, b) {
        (Watermark::Active(a), Watermark::Active(b)) => Watermark::Active(a.min(b)),
        (Watermark::Idle, Watermark::Active(Instant::MAX)) | (Watermark::Active(Instant::MAX), Watermark::Idle) => Watermark::Idle,
        (Watermark::Idle, other) | (other, Watermark::Idle) => other,
    })
}

/// Whether a row may still enter its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// The window has not fired.
    OnTime,
    /// It has fired, and takes rows until its end plus the allowed lateness: the row gives a late pane.
    Allowed,
    /// Beyond that: the row goes to the output `late`.
    Dropped,
}

/// A window fires at `watermark >= end` and closes at `watermark > end + allowed_lateness` (Beam: a window expires when the
/// watermark passes its maximal timestamp plus the allowed lateness).
pub fn lateness(window: Window, allowed: Duration, watermark: Instant) -> Lateness {
    if watermark < window.end {
        Lateness::OnTime
    } else if watermark < closes_at(window, allowed) {
        Lateness::Allowed
    } else {
        Lateness::Dropped
    }
}

/// The watermark at which a window's state is dropped and rows for it are late: its last instant plus the allowed
/// lateness has been passed.
pub fn closes_at(window: Window, allowed: Duration) -> Instant {
    window.end.saturating_add(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Instant {
        Instant::from_micros_saturating(micros)
    }

    #[test]
    fn an_idle_input_holds_nothing_back() {
        let mut merged = Merged::new(2);
        assert_eq!(merged.update(0, Some(Watermark::Active(at(10)))), None);
        assert_eq!(merged.update(1, Some(Watermark::Idle)), Some(Watermark::Active(at(10))));
        assert_eq!(merged.update(1, Some(Watermark::Active(at(4)))), None);
        assert_eq!(merged.update(0, None), None);
        assert_eq!(merged.update(1, Some(Watermark::Active(at(12)))), Some(Watermark::Active(at(12))));
    }

    /// Those of them that have ended say so in two words, and what comes between may be handled between.
    #[test]
    fn an_input_at_its_end_does_not_speak_for_an_idle_one() {
        let mut merged = Merged::new(2);
        merged.update(0, Some(Watermark::Active(at(10))));
        assert_eq!(merged.update(1, Some(Watermark::Active(Instant::MAX))), Some(Watermark::Active(at(10))));
        assert_eq!(merged.update(0, Some(Watermark::Idle)), Some(Watermark::Idle));
        assert_eq!(merged.update(1, None), None);
        assert_eq!(merged.update(0, Some(Watermark::Active(at(12)))), Some(Watermark::Active(at(12))));
        assert_eq!(merged.update(0, Some(Watermark::Active(Instant::MAX))), Some(Watermark::Active(Instant::MAX)));
    }

    #[test]
    fn lateness_has_two_edges() {
        let window = Window { start: at(0), end: at(10) };
        let allowed = Duration::from_micros(5);
        for (watermark, want) in [(9, Lateness::OnTime), (10, Lateness::Allowed), (14, Lateness::Allowed), (15, Lateness::Dropped)] {
            assert_eq!(lateness(window, allowed, at(watermark)), want, "{watermark}");
        }
        assert_eq!(lateness(window, Duration::ZERO, at(10)), Lateness::Dropped);
    }

    proptest! {
        #[test]
        fn a_merged_watermark_never_goes_back(steps in proptest::collection::vec((0usize..3, proptest::option::of(0i64..100), any::<bool>()), 0..60)) {
            let mut merged = Merged::new(3);
            let mut last = Instant::MIN;
            for (input, value, idle) in steps {
                let watermark = match value { Some(_) if idle => Some(Watermark::Idle), Some(value) => Some(Watermark::Active(at(value))), None => None };
                if let Some(Watermark::Active(at)) = merged.update(input, watermark) {
                    prop_assert!(at >= last);
                    last = at;
                }
            }
        }
    }
}
