//! What a stateful transform is told beside its row: times, window and pane.

use crate::values::Timestamp;

/// Of the row or timer that is being processed.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    pub(crate) event_time: Timestamp,
    pub(crate) window: Window,
    pub(crate) pane: Option<Pane>,
    pub(crate) watermark: Timestamp,
    pub(crate) now: Timestamp,
    pub(crate) fired_at: Option<Timestamp>,
}

/// A span of event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// First instant inside. The global window's is the beginning of time.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
}

/// Which firing of an earlier grouping a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pane {
    pub timing: Timing,
    pub is_first: bool,
    pub is_last: bool,
    /// Number of the pane in its window, from 0.
    pub index: i64,
    /// Number among the panes that are not early, from 0; -1 for an early one.
    pub nonspeculative_index: i64,
}

/// When a pane fired, against the watermark's passing of its window's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    Early,
    OnTime,
    Late,
    /// Not from a grouping.
    Unknown,
}

impl Context {
    /// Event time of the row; of a timer, the event time that its outputs have.
    pub fn event_time(&self) -> Timestamp {
        self.event_time
    }

    /// The window that the state belongs to.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The row's pane; nothing for a timer.
    pub fn pane(&self) -> Option<Pane> {
        self.pane
    }

    /// Input watermark: no row before it comes any more, but for late ones. [`Timestamp::MAX`] once all input has ended.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The time of day, as the host recorded it for this call: a replay sees the same. There is no other clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Of a timer, the time that it was set for.
    pub fn fired_at(&self) -> Option<Timestamp> {
        self.fired_at
    }
}

impl Pane {
    /// One of the contract's `pane-table`.
    pub(crate) fn read(table: &[u8], number: u32) -> Option<Pane> {
        let bytes = table.get(number as usize * 24..)?.first_chunk::<24>()?;
        let wide = |at: usize| bytes[at..].first_chunk::<8>().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        Some(Pane {
            timing: match bytes[16] {
                0 => Timing::Early,
                1 => Timing::OnTime,
                2 => Timing::Late,
                _ => Timing::Unknown,
            },
            is_first: bytes[20] & 1 != 0,
            is_last: bytes[20] & 2 != 0,
            index: wide(0),
            nonspeculative_index: wide(8),
        })
    }
}
