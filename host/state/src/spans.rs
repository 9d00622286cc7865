//! Which cells of a key have merging windows, and what they span: an index over [`crate::Cells`] that can be made again from them.
//!
//! Invariant: the spans of one key do not overlap.

use crate::cells::Slot;
use pelton_core::Window;
use std::collections::HashMap;

/// The merging windows of one operator, by key.
#[derive(Debug, Default)]
pub struct Spans {
    by_key: HashMap<Box<[u8]>, Vec<(Window, Slot)>>,
}

impl Spans {
    /// Takes out the cells of a key that share an instant with a window.
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
