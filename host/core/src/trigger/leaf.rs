//! Triggers without parts: counts, processing time, always, never.

use super::{Moment, Node};
use crate::time::{Duration, Instant};

/// Ready at each row; never finished.
#[derive(Debug)]
pub(super) struct Always;

impl Node for Always {
    fn ready(&self, _: &[u64], _: &Moment) -> bool {
        true
    }
    fn fire(&self, _: &mut [u64], _: &Moment) -> bool {
        false
    }
}

/// Never ready: what a window holds comes when it closes.
#[derive(Debug)]
pub(super) struct Never;

impl Node for Never {
    fn ready(&self, _: &[u64], _: &Moment) -> bool {
        false
    }
    fn fire(&self, _: &mut [u64], _: &Moment) -> bool {
        true
    }
}

/// Ready when so many rows have come; finished when it has fired. The word is their number.
#[derive(Debug)]
pub(super) struct Count {
    pub slot: usize,
    pub count: u64,
}

impl Node for Count {
    fn on_rows(&self, words: &mut [u64], rows: u64, _: &Moment) {
        words[self.slot] = words[self.slot].saturating_add(rows);
    }
    fn ready(&self, words: &[u64], _: &Moment) -> bool {
        words[self.slot] >= self.count
    }
    fn fire(&self, _: &mut [u64], _: &Moment) -> bool {
        true
    }
    fn reset(&self, words: &mut [u64]) {
        words[self.slot] = 0;
    }
    fn merge(&self, words: &mut [u64], from: &[&[u64]], _: &Moment) {
        words[self.slot] = from.iter().fold(0, |sum, cell| sum.saturating_add(cell[self.slot]));
    }
}

/// Ready so long after the first row; finished when it has fired. The word is the time, counted from the first instant and
/// from 1, or 0 before the first row.
#[derive(Debug)]
pub(super) struct ProcessingTime {
    pub slot: usize,
    pub delay: Duration,
}

impl ProcessingTime {
    fn target(&self, words: &[u64]) -> Option<Instant> {
        let since_first = words[self.slot].checked_sub(1)?;
        Some(Instant::from_micros_saturating(Instant::MIN.micros().wrapping_add_unsigned(since_first)))
    }
}

impl Node for ProcessingTime {
    fn on_rows(&self, words: &mut [u64], _: u64, at: &Moment) {
        if words[self.slot] == 0 {
            let target = at.now.saturating_add(self.delay);
            words[self.slot] = target.micros().abs_diff(Instant::MIN.micros()) + 1;
        }
    }
    fn ready(&self, words: &[u64], at: &Moment) -> bool {
        self.target(words).is_some_and(|target| at.now >= target)
    }
    fn fire(&self, _: &mut [u64], _: &Moment) -> bool {
        true
    }
    fn reset(&self, words: &mut [u64]) {
        words[self.slot] = 0;
    }
    /// The earliest of the cells' times: no row waits longer than it would have.
    fn merge(&self, words: &mut [u64], from: &[&[u64]], _: &Moment) {
        words[self.slot] = from.iter().map(|cell| cell[self.slot]).filter(|word| *word != 0).min().unwrap_or(0);
    }
    fn processing_timer(&self, words: &[u64], now: Instant) -> Option<Instant> {
        self.target(words).filter(|target| *target > now)
    }
}
