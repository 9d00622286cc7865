//! Which cells of a key have merging windows, and what they span: an index over [`crate::Cells`] that can be made again from them.
//!
//! Invariant: the spans of one key do not overlap.

use crate::cells::{Cells, Slot};
use crate::evicted::{Indexes, Leaving};
use pelton_core::Window;
use std::collections::HashMap;

/// The merging windows of one operator, by key.
#[derive(Debug, Default)]
pub struct Spans {
    by_key: HashMap<Box<[u8]>, Vec<(Window, Slot)>>,
}

impl Spans {
    /// Takes out the cells of a key that share an instant with a window, in the order of their spans: what comes of them is then the same
    /// in whatever order they were added.
    pub fn take_overlapping(&mut self, key: &[u8], window: Window, out: &mut Vec<(Window, Slot)>) {
        out.clear();
        if let Some(spans) = self.by_key.get_mut(key) {
            spans.retain(|span| {
                let overlaps = span.0.overlaps(window);
                if overlaps {
                    out.push(*span);
                }
                !overlaps
            });
            out.sort_unstable_by_key(|(span, _)| span.start);
        }
    }

    /// Adds a cell that overlaps no other of its key.
    pub fn insert(&mut self, key: &[u8], span: Window, slot: Slot) {
        match self.by_key.get_mut(key) {
            Some(spans) => {
                debug_assert!(spans.iter().all(|(other, _)| !other.overlaps(span)), "spans of a key do not overlap");
                spans.push((span, slot));
            }
            None => {
                self.by_key.insert(key.into(), vec![(span, slot)]);
            }
        }
    }

    /// Whether a cell of the key is known. A key's cells leave memory together, so that all are.
    pub fn has(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// Adds a cell that came back, if it is not there.
    pub fn insert_back(&mut self, key: &[u8], span: Window, slot: Slot) {
        if !self.by_key.get(key).is_some_and(|spans| spans.iter().any(|(_, other)| *other == slot)) {
            self.insert(key, span, slot);
        }
    }

    /// Forgets a cell.
    pub fn remove(&mut self, key: &[u8], slot: Slot) {
        if let Some(spans) = self.by_key.get_mut(key) {
            spans.retain(|(_, other)| *other != slot);
            if spans.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

impl Indexes for Spans {
    fn leave(&mut self, cells: &Cells, slot: Slot, leaving: &mut Leaving) {
        let spans = self.by_key.remove(cells.key(slot).key).unwrap_or_default();
        leaving.with.extend(spans.into_iter().map(|(_, other)| other).filter(|other| *other != slot));
    }
}
