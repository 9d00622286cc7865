//! The windowing strategy of an edge, in Beam's terms: which windows, when each gives out a pane, and what a pane holds.
//!
//! Plain data. Which windows a time falls into is in [`crate::window`]; when a cell fires is in [`crate::pane`].

use crate::time::Duration;
use crate::window::WindowFn;

/// Everything that a grouping needs to know of windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowingStrategy {
    /// Which windows a row belongs to.
    pub window_fn: WindowFn,
    /// When a window gives out a pane.
    pub trigger: Trigger,
    /// Whether a pane holds what earlier panes of its window held.
    pub accumulation: Accumulation,
    /// How long after its end a window takes rows.
    pub allowed_lateness: Duration,
    /// The event time of what a pane gives out.
    pub timestamp_combiner: TimestampCombiner,
    /// Whether the last pane of a window is given out when nothing is in it.
    pub closing: Closing,
}

impl WindowingStrategy {
    /// What Beam does where a pipeline only names windows.
    pub fn new(window_fn: WindowFn, allowed_lateness: Duration) -> WindowingStrategy {
        WindowingStrategy {
            window_fn,
            trigger: Trigger::Default,
            accumulation: Accumulation::Discarding,
            allowed_lateness,
            timestamp_combiner: TimestampCombiner::EndOfWindow,
            closing: Closing::IfNonEmpty,
        }
    }

    /// One window, the default trigger: how every source begins.
    pub fn global() -> WindowingStrategy {
        WindowingStrategy::new(WindowFn::Global, Duration::ZERO)
    }
}

/// Whether a pane holds what earlier panes of its window held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// A pane holds what came since the last one.
    Discarding,
    /// A pane holds everything of its window so far.
    Accumulating,
}

/// The event time of what a pane gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampCombiner {
    /// The last instant of the window.
    EndOfWindow,
    /// The earliest event time of the pane's rows that were not late.
    Earliest,
    /// The latest.
    Latest,
}

/// What happens when a window closes, that is when the watermark passes its end and the allowed lateness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closing {
    /// A last pane if rows came since the one before.
    IfNonEmpty,
    /// A last pane in any case.
    Always,
}

/// When a window gives out a pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// At the end of the window, then for every late row: `Repeatedly(AfterWatermark)`.
    Default,
    /// Not before the window closes.
    Never,
    /// For every row.
    Always,
    /// When the watermark passes the end of the window; `early` and `late` fire repeatedly before and after.
    AfterWatermark { early: Option<Box<Trigger>>, late: Option<Box<Trigger>> },
    /// So long after the first row of a pane, in processing time.
    AfterProcessingTime { delay: Duration },
    /// When a pane has so many rows; at least 1.
    AfterCount(u32),
    /// Again and again.
    Repeatedly(Box<Trigger>),
    /// When any of them does.
    AfterAny(Vec<Trigger>),
    /// When all of them have.
    AfterAll(Vec<Trigger>),
    /// One after the other.
    AfterEach(Vec<Trigger>),
    /// The first, until the second fires.
    OrFinally(Box<Trigger>, Box<Trigger>),
}
