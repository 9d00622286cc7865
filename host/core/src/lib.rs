//! Pure rules of Pelton, and the data that everything carries. No clock, no I/O, no threads.
//!
//! In reading order:
//! - [`time`]: the one instant type, durations, RFC 3339.
//! - [`batch`]: rows with event times, windows and source positions.
//! - [`fault`]: row errors and the columns of an error output.
//! - [`window`]: window functions and which windows a row belongs to.
//! - [`calendar`]: windows of days, weeks and months in a time zone.
//! - [`strategy`]: windows, triggers, accumulation: what a grouping needs to know.
//! - [`trigger`](strategy::Trigger), [`pane`]: when a key's window gives out what it holds.
//! - [`watermark`]: how far event time has come, per partition and per task; what is late.
//! - [`policy`]: how a split's watermark follows from its rows.
//! - [`key`], [`key_decode`]: canonical key bytes, key groups, and key columns back from the bytes.
//! - [`heavy`], [`lifting`]: which keys have the most rows; whether rows are aggregated before they are sent.
//! - [`bisect`]: how a failed batch is retried and halved.
//! - [`catalog`]: what a transform type says of itself, and what is wrong with a config.
//!
//! Invariant: every function here gives the same answer for the same arguments.

pub mod batch;
pub mod bisect;
pub mod calendar;
pub mod catalog;
pub mod fault;
pub mod heavy;
pub mod key;
pub mod key_decode;
pub mod lifting;
pub mod pane;
pub mod policy;
pub mod strategy;
pub mod time;
mod trigger;
pub mod watermark;
pub mod window;

pub use batch::{Batch, Positions, Split};
pub use fault::RowError;
pub use strategy::WindowingStrategy;
pub use time::{Duration, Instant};
pub use window::{Window, WindowFn};
