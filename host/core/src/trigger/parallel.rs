//! Triggers side by side: any, all, one until another.

use super::{Moment, Node};
use crate::time::Instant;

/// Triggers that see the same rows.
#[derive(Debug)]
pub(super) struct Parallel {
    pub kind: Kind,
    pub parts: Vec<Box<dyn Node>>,
}

/// How the parts make one trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ready when a part is; finished when a part that fires is finished by it.
    Any,
    /// Ready when all parts are at once; finished when all are.
    All,
    /// Two parts, ready when one is; finished when the second fires or the first is finished.
    Until,
}

impl Node for Parallel {
    fn on_rows(&self, words: &mut [u64], rows: u64, at: &Moment) {
        self.parts.iter().for_each(|part| part.on_rows(words, rows, at));
    }
    fn ready(&self, words: &[u64], at: &Moment) -> bool {
        match self.kind {
            Kind::Any | Kind::Until => self.parts.iter().any(|part| part.ready(words, at)),
            Kind::All => self.parts.iter().all(|part| part.ready(words, at)),
        }
    }
    fn fire(&self, words: &mut [u64], at: &Moment) -> bool {
        match (self.kind, &self.parts[..]) {
            (Kind::Until, [_, until]) if until.ready(words, at) => {
                until.fire(words, at);
                true
            }
            (Kind::All, parts) => parts.iter().fold(true, |finished, part| part.fire(words, at) & finished),
            (Kind::Any | Kind::Until, parts) => {
                parts.iter().fold(false, |finished, part| (part.ready(words, at) && part.fire(words, at)) | finished)
            }
        }
    }
    fn reset(&self, words: &mut [u64]) {
        self.parts.iter().for_each(|part| part.reset(words));
    }
    fn merge(&self, words: &mut [u64], from: &[&[u64]], at: &Moment) {
        self.parts.iter().for_each(|part| part.merge(words, from, at));
    }
    fn processing_timer(&self, words: &[u64], now: Instant) -> Option<Instant> {
        self.parts.iter().filter_map(|part| part.processing_timer(words, now)).min()
    }
    fn awaits_end(&self, words: &[u64]) -> bool {
        self.parts.iter().any(|part| part.awaits_end(words))
    }
    fn has_on_time_pane(&self) -> bool {
        self.parts.iter().any(|part| part.has_on_time_pane())
    }
}
