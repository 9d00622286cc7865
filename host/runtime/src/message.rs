//! What goes from operator to operator.

use crate::swap::Cut;
use pelton_core::watermark::{Merged, Watermark};
use pelton_core::{Batch, Epoch, Split};
use std::sync::Arc;

/// One message on an edge. Order on an edge is kept.
#[derive(Clone, Debug)]
pub enum Message {
    /// Rows.
    Data(Batch),
    /// Rows that were aggregated before they were sent: what [`crate::lift`] makes, and only the grouping behind the exchange
    /// takes.
    Partial(Batch),
    /// How far event time has come.
    Watermark(Watermark),
    /// What becomes of the splits that feed this task. Only operators that make watermarks care; it never leaves the task.
    Split(SplitEvent),
    /// What came before belongs to this epoch or an earlier one; what follows, to a later one.
    Barrier(Barrier),
    /// Nothing follows.
    End(End),
}

/// The end of an epoch, on its way through the tasks.
#[derive(Clone, Debug, Default)]
pub struct Barrier {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// What is of another version from here on.
    pub cut: Option<Arc<Cut>>,
}

/// A change of one source split.
#[derive(Clone, Debug)]
pub enum SplitEvent {
    /// Rows of it may come.
    Opened(Arc<Split>),
    /// No more rows of it come.
    Ended(Arc<Split>),
    /// Whether splits exist that nobody has begun: event time may start anew with them.
    Unclaimed(bool),
}

/// Why nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The input ended, or the user asked to drain: open windows have been fired.
    Drained,
    /// The user stopped the pipeline: open windows stay open and are counted as held.
    Stopped,
}

impl End {
    /// Of several inputs: stopped if any was.
    pub fn and(self, other: End) -> End {
        if self == End::Stopped { self } else { other }
    }

    /// What an input's end does to event time: one that has given all its rows holds nothing back any more. One that was stopped goes on after the next
    /// start from where it is; until then the others do not get ahead of it, or its rows would come too late.
    pub fn let_go(self, merged: &mut Merged, input: usize) -> Option<Watermark> {
        match self {
            End::Drained => merged.update(input, None),
            End::Stopped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_core::Instant;
    use proptest::prelude::*;

    fn at(micros: i64) -> Watermark {
        Watermark::Active(Instant::from_micros_saturating(micros))
    }

    proptest! {
        /// Inputs are stopped at any time, one after the other, as tasks of a source are; others come to their end just then.
        #[test]
        fn event_time_does_not_get_ahead_of_an_input_that_was_stopped(
            steps in proptest::collection::vec((0..4usize, 0..100i64, proptest::option::weighted(0.3, prop_oneof![Just(End::Drained), Just(End::Stopped)])), 1..40)
        ) {
            let mut merged = Merged::new(4);
            // By input: how far it has come; the end of time for one that has given all.
            let mut come = [0i64; 4];
            let mut ends: [Option<End>; 4] = [None; 4];
            for (input, further, end) in steps {
                if ends[input].is_some() {
                    continue;
                }
                come[input] += further;
                merged.update(input, Some(at(come[input])));
                if let Some(end) = end {
                    if end == End::Drained {
                        come[input] = i64::MAX;
                        merged.update(input, Some(Watermark::Active(Instant::MAX)));
                    }
                    end.let_go(&mut merged, input);
                    ends[input] = Some(end);
                }
                let slowest = come.into_iter().min().unwrap_or(0);
                prop_assert!(slowest == i64::MAX || merged.current() <= Instant::from_micros_saturating(slowest));
            }
        }
    }
}
