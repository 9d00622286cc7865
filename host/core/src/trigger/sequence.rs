//! Triggers in time: again and again, one after the other.

use super::{Moment, Node};
use crate::time::Instant;

/// Begins anew when its part is finished; never finished.
#[derive(Debug)]
pub(super) struct Repeatedly(pub Box<dyn Node>);

impl Node for Repeatedly {
    fn on_rows(&self, words: &mut [u64], rows: u64, at: &Moment) {
        self.0.on_rows(words, rows, at);
    }
    fn ready(&self, words: &[u64], at: &Moment) -> bool {
        self.0.ready(words, at)
    }
    fn fire(&self, words: &mut [u64], at: &Moment) -> bool {
        if self.0.fire(words, at) {
            self.0.reset(words);
        }
        false
    }
    fn reset(&self, words: &mut [u64]) {
        self.0.reset(words);
    }
    fn merge(&self, words: &mut [u64], from: &[&[u64]], at: &Moment) {
        self.0.merge(words, from, at);
    }
    fn processing_timer(&self, words: &[u64], now: Instant) -> Option<Instant> {
        self.0.processing_timer(words, now)
    }
    fn awaits_end(&self, words: &[u64]) -> bool {
        self.0.awaits_end(words)
    }
    fn has_on_time_pane(&self) -> bool {
        self.0.has_on_time_pane()
    }
}

/// The next part when one is finished; finished with the last. The word is the number of parts that are finished.
#[derive(Debug)]
pub(super) struct Each {
    pub slot: usize,
    pub steps: Vec<Box<dyn Node>>,
}

impl Each {
    fn current(&self, words: &[u64]) -> Option<&dyn Node> {
        let index = usize::try_from(words[self.slot]).ok()?;
        self.steps.get(index).map(|node| &**node)
    }
}

impl Node for Each {
    fn on_rows(&self, words: &mut [u64], rows: u64, at: &Moment) {
        if let Some(node) = self.current(words) {
            node.on_rows(words, rows, at);
        }
    }
    fn ready(&self, words: &[u64], at: &Moment) -> bool {
        self.current(words).is_some_and(|node| node.ready(words, at))
    }
    fn fire(&self, words: &mut [u64], at: &Moment) -> bool {
        if let Some(node) = self.current(words)
            && node.fire(words, at)
        {
            words[self.slot] += 1;
        }
        self.current(words).is_none()
    }
    fn reset(&self, words: &mut [u64]) {
        words[self.slot] = 0;
        for node in &self.steps {
            node.reset(words);
        }
    }
    /// The cell that has come furthest says where the merged one is.
    fn merge(&self, words: &mut [u64], from: &[&[u64]], at: &Moment) {
        words[self.slot] = from.iter().map(|cell| cell[self.slot]).max().unwrap_or(0);
        let furthest: Vec<&[u64]> = from.iter().copied().filter(|cell| cell[self.slot] == words[self.slot]).collect();
        if let Some(node) = self.current(words) {
            node.merge(words, &furthest, at);
        }
    }
    fn processing_timer(&self, words: &[u64], now: Instant) -> Option<Instant> {
        self.current(words)?.processing_timer(words, now)
    }
    fn awaits_end(&self, words: &[u64]) -> bool {
        self.current(words).is_some_and(|node| node.awaits_end(words))
    }
    fn has_on_time_pane(&self) -> bool {
        self.steps.iter().any(|node| node.has_on_time_pane())
    }
}
