//! Cells, timers and holds: the only place where operators keep state.
//!
//! In reading order:
//! - [`cells`]: an operator's cells, each a (key, window) with a slot in typed columns ([`columns`]); `names` has their keys.
//! - [`holds`]: event times that the output watermark may not pass.
//! - [`items`]: lists and maps of cells.
//! - [`keyed`]: all that a plugin keeps by cell, with its times to live.
//! - [`spans`]: the merging windows of a key.
//! - [`timers`]: when cells want to be called, by time and by cell.
//!
//! Invariant: an operator's memory of past rows is here and nowhere else, so that sealing a [`Cells`] seals the operator.

pub mod cells;
pub mod columns;
pub mod holds;
pub mod items;
pub mod keyed;
mod names;
pub mod spans;
pub mod timers;

pub use cells::{CellKey, Cells, Slot};
pub use columns::{ColumnId, Touched};
pub use holds::Holds;
pub use items::Items;
pub use keyed::KeyedStates;
pub use spans::Spans;
pub use timers::{TimerTag, Timers};
