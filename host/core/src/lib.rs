//! Pure rules of Pelton, and the data that everything carries. No clock, no I/O, no threads.
//!
//! In reading order:
//! - [`time`]: the one instant type, durations, RFC 3339.
//! - [`batch`]: rows with event times, windows and source positions.
//! - [`row_kind`]: what a row does to a table.
//! - [`fault`]: row errors and the columns of an error output.
//! - [`window`]: window functions and which windows a row belongs to.
//! - [`calendar`]: windows of days, weeks and months in a time zone.
//! - [`strategy`]: windows, triggers, accumulation: what a grouping needs to know.
//! - [`trigger`](strategy::Trigger), [`pane`]: when a key's window gives out what it holds.
//! - [`watermark`]: how far event time has come, per partition and per task; what is late.
//! - [`policy`]: how a split's watermark follows from its rows.
//! - [`key`], [`key_decode`]: canonical key bytes, key groups, and key columns back from the bytes.
//! - [`heavy`], [`lifting`]: which keys have the most rows; whether rows are aggregated before they are sent.
//! - [`bisect`]: how a failed batch is retried and halved; [`breaker`]: when a plugin that fails again and again is no longer called.
//! - [`varint`]: numbers in as few bytes as they need; [`byte_size`]: numbers of bytes as settings have them.
//! - [`epoch`]: the names of checkpoints and positions.
//! - [`checkpoint`]: when epochs are begun, decided and committed, and what a restart goes on from.
//! - [`evolution`]: which stored state a changed plugin goes on with, and how its values are brought up to date.
//! - [`swap`]: how the code of a running pipeline is changed, and what a restart makes of it.
//! - [`release`], [`trust`]: which version of a plugin is taken, and whose; [`grants`]: what it may do besides computing.
//! - [`failpoint`]: where tests let the process die.
//! - [`catalog`]: what a transform type says of itself, and what is wrong with a config.
//!
//! Invariant: every function here gives the same answer for the same arguments; [`failpoint`] alone looks at the environment.

pub mod batch;
pub mod bisect;
pub mod breaker;
pub mod byte_size;
pub mod calendar;
pub mod catalog;
pub mod checkpoint;
pub mod epoch;
pub mod evolution;
pub mod failpoint;
pub mod fault;
#[cfg(test)]
mod fuzz;
pub mod grants;
pub mod heavy;
pub mod key;
pub mod key_decode;
pub mod lifting;
pub mod pane;
pub mod policy;
pub mod release;
pub mod row_kind;
pub mod strategy;
pub mod swap;
pub mod time;
mod trigger;
pub mod trust;
pub mod varint;
pub mod watermark;
pub mod window;

pub use batch::{Batch, Positions, Split};
pub use epoch::{Decision, Epoch, Generation, SplitPosition};
pub use fault::RowError;
pub use row_kind::{ROW_KIND, RowKind};
pub use strategy::WindowingStrategy;
pub use time::{Duration, Instant};
pub use window::{Window, WindowFn};
