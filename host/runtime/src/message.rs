//! What goes from operator to operator.

use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Split};
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
    /// Nothing follows.
    End(End),
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
}
