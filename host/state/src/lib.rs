//! Cells, timers and holds: the only place where operators keep state.
//!
//! In reading order:
//! - [`cells`]: an operator's cells, each a (key, window) with a slot in typed columns ([`columns`]); `names` has their keys.
//! - [`timers`]: when cells want to be called, by time and by cell.
//! - [`holds`]: event times that the output watermark may not pass.
//! - [`items`]: lists and maps of cells.
//! - [`capture`]: cells into rows, an epoch at a time, and back; [`layout`]: the bytes of a cell.
//! - [`evicted`]: cells that do not fit into memory; [`scratch`]: the disk where they lie.
//! - [`rows`]: state as it is written: addresses, values, removals, and which of them count.
//! - [`keyed`]: all that a plugin keeps by cell, with its times to live.
//! - [`durable`]: checkpoints: rows in files, and what makes them count.
//! - [`spans`]: the merging windows of a key.
//!
//! Invariant: an operator's memory of past rows is here and nowhere else, so that sealing a [`Cells`] seals the operator.

pub mod capture;
pub mod cells;
pub mod columns;
pub mod durable;
pub mod evicted;
pub mod holds;
pub mod items;
pub mod keyed;
pub mod layout;
mod names;
pub mod rows;
pub mod scratch;
pub mod spans;
pub mod timers;

pub use cells::{CellKey, Cells, HoldsId, ItemsId, Slot, cell_hash};
pub use columns::{ColumnId, Touched};
pub use evicted::{Indexes, Leaving};
pub use holds::Holds;
pub use items::Items;
pub use keyed::KeyedStates;
pub use layout::{Layout, StateError};
pub use rows::{Change, Row, Rows};
pub use scratch::{Scratch, ScratchError};
pub use spans::Spans;
pub use timers::{Clock, TimerTag, Timers};
