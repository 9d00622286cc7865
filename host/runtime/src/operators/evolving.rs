//! What an operator with a plugin's state knows of cells that another version of the plugin has written, and of the sweep that brings them to the present.
//!
//! The first parts of the sweep come before the operator's first message: what fails there fails the start. The others come between messages, and one
//! after the other when there are none. Each is bounded in cells, items and bytes, so that a message waits for one of them at most.
//!
//! Invariant: while cells of an earlier era are left, the book that a checkpoint keeps has that era.

use pelton_core::evolution::{Book, Evolved, Kind, Plan};
use pelton_state::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Parts of the sweep before the first message.
const FIRST: usize = 8;
/// Cells of a part.
const CELLS: usize = 512;
/// Items of a part, of all its cells, and about how many bytes.
const ITEMS: usize = 16_384;
const BYTES: usize = 4 << 20;

/// See the module.
pub(super) struct Evolving {
    plans: BTreeMap<u32, Plan>,
    /// Cells that were of earlier eras when they were found; they may have gone or been brought since.
    waiting: Vec<Slot>,
    is_settling: bool,
    /// Bounds of a part.
    pub(super) bounds: Bounds,
    /// With all eras, and with the present one alone.
    book: Arc<Book>,
    settled: Arc<Book>,
    /// Places of maps.
    maps: BTreeSet<usize>,
    begun: bool,
}

/// How much a part of the sweep does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Parts before the first message.
    pub(super) first: usize,
    pub(super) cells: usize,
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Evolving {
    pub(super) fn new(evolved: &Evolved) -> Evolving {
        let maps = evolved.book.present().states.iter().filter(|placed| placed.state.kind == Kind::Map);
        Evolving {
            plans: evolved.plans.clone(),
            waiting: Vec::new(),
            is_settling: false,
            bounds: Bounds { first: FIRST, cells: CELLS, items: ITEMS, bytes: BYTES },
            settled: Arc::new(evolved.book.settled()),
            book: Arc::new(evolved.book.clone()),
            maps: maps.map(|placed| placed.place).collect(),
            begun: false,
        }
    }

    /// What a checkpoint says of the state.
    pub(super) fn book(&self) -> Arc<Book> {
        if self.is_settling { self.book.clone() } else { self.settled.clone() }
    }

    /// Whether cells of earlier eras are left.
    pub(super) fn is_settling(&self) -> bool {
        self.is_settling
    }

    /// What becomes of cells of an era.
    pub(super) fn plan(&self, era: u32) -> Option<&Plan> {
        self.plans.get(&era)
    }

    /// Whether a map is at a place; its keys may change.
    pub(super) fn is_map(&self, place: usize) -> bool {
        self.maps.contains(&place)
    }

    /// Nothing ever has to be converted.
    pub(super) fn is_still(&self) -> bool {
        self.plans.is_empty()
    }

    /// So many cells of earlier eras are left.
    pub(super) fn left(&mut self, old: usize) {
        self.is_settling = old > 0;
        if !self.is_settling {
            self.waiting = Vec::new();
        }
    }

    /// Whether it has to be looked for more cells.
    pub(super) fn is_out(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many parts of the sweep come now, before the first message; none before any other.
    pub(super) fn begins(&mut self) -> usize {
        match std::mem::replace(&mut self.begun, true) || !self.is_settling {
            true => 0,
            false => self.bounds.first,
        }
    }

    /// The cells of a part; `find` looks for more. Between two messages a slot may have become another cell's.
    pub(super) fn next(&mut self, find: impl FnOnce() -> Vec<Slot>) -> Vec<Slot> {
        if self.waiting.is_empty() {
            self.waiting = find();
        }
        self.waiting.split_off(self.waiting.len().saturating_sub(self.bounds.cells))
    }

    /// What a part has left for the next one.
    pub(super) fn put_back(&mut self, slots: Vec<Slot>) {
        self.waiting.extend(slots);
    }
}
