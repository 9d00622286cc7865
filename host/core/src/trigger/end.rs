//! Triggers on the watermark's passing of the end of the window.

use super::{Moment, Node};
use crate::time::Instant;

/// At the end of the window, then for each late row; never finished.
#[derive(Debug)]
pub(super) struct Default;

impl Node for Default {
    fn ready(&self, _: &[u64], at: &Moment) -> bool {
        at.is_past_end()
    }
    fn fire(&self, _: &mut [u64], _: &Moment) -> bool {
        false
    }
    fn awaits_end(&self, _: &[u64]) -> bool {
        true
    }
    fn has_on_time_pane(&self) -> bool {
        true
    }
}

/// At the end of the window; `early` (again and again) before, `late` (again and again) after. Without `late` it is finished
/// at the end. The word is 1 from the pane on time on.
#[derive(Debug)]
pub(super) struct EndOfWindow {
    pub slot: usize,
    pub early: Option<Box<dyn Node>>,
    pub late: Option<Box<dyn Node>>,
}

impl EndOfWindow {
    /// The trigger that stands between the cell and its next pane, beside the end of the window; `None`: nothing does.
    fn active(&self, words: &[u64]) -> Option<&dyn Node> {
        if self.is_late(words) { self.late.as_deref() } else { self.early.as_deref() }
    }

    fn is_late(&self, words: &[u64]) -> bool {
        words[self.slot] != 0 && self.late.is_some()
    }
}

impl Node for EndOfWindow {
    fn on_rows(&self, words: &mut [u64], rows: u64, at: &Moment) {
        if let Some(node) = self.active(words) {
            node.on_rows(words, rows, at);
        }
    }
    fn ready(&self, words: &[u64], at: &Moment) -> bool {
        (!self.is_late(words) && at.is_past_end()) || self.active(words).is_some_and(|node| node.ready(words, at))
    }
    fn fire(&self, words: &mut [u64], at: &Moment) -> bool {
        if !self.is_late(words) && at.is_past_end() {
            words[self.slot] = 1;
            return self.late.is_none();
        }
        match self.active(words) {
            // Both repeat, so neither finishes.
            Some(node) => node.fire(words, at),
            None => false,
        }
    }
    fn reset(&self, words: &mut [u64]) {
        words[self.slot] = 0;
        for node in self.early.iter().chain(&self.late) {
            node.reset(words);
        }
    }
    /// The window is beyond its end when all cells were and the merged one is: otherwise there are rows that no pane on time
    /// has had, and its end is still to come (Java's rule; Python takes one late cell for all).
    fn merge(&self, words: &mut [u64], from: &[&[u64]], at: &Moment) {
        let is_late = |words: &[u64]| words[self.slot] != 0;
        if at.is_past_end() && from.iter().all(|cell| is_late(cell)) {
            words[self.slot] = 1;
            if let Some(late) = &self.late {
                late.merge(words, from, at);
            }
        } else if let Some(early) = &self.early {
            let open: Vec<&[u64]> = from.iter().copied().filter(|cell| !is_late(cell)).collect();
            early.merge(words, &open, at);
        }
    }
    fn processing_timer(&self, words: &[u64], now: Instant) -> Option<Instant> {
        self.active(words)?.processing_timer(words, now)
    }
    fn awaits_end(&self, words: &[u64]) -> bool {
        words[self.slot] == 0
    }
    fn has_on_time_pane(&self) -> bool {
        true
    }
}
