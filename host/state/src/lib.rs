//! Cells, timers and holds: the only place where operators keep state.
//!
//! In reading order:
//! - [`cells`]: an operator's cells, each a (key, window) with a slot in typed columns ([`columns`]); `names` has their keys.
//! - [`holds`]: event times that the output watermark may not pass.
//! - [`spans`]: the merging windows of a key.
//! - [`timers`]: when cells want to be called, by time and by cell.
//!
//! Invariant: an operator's memory of past rows is here and nowhere else, so that sealing a [`Cells`] seals the operator.

pub mod cells;
pub mod columns;
pub mod holds;
mod names;
pub mod spans;
pub mod timers;

pub use cells::{CellKey, Cells, Slot};
pub use columns::{ColumnId, Touched};
pub use holds::Holds;
pub use spans::Spans;
pub use timers::{TimerTag, Timers};
