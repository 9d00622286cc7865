//! Tasks, channels and operators: runs a checked graph. The only crate that knows tasks and channels.
//!
//! In reading order, which is the life of a record:
//! - [`run`]: binds the graph, lays tasks out over workers, supervises them.
//! - [`expand`]: transforms that are several operators become them.
//! - [`bind`]: schemas, column pruning, what each node needs to become an operator.
//! - [`source_task`], [`splits`]: rows come in, get an event time, and make the watermark.
//! - [`task`]: one stage's operators on one worker, and the loop that feeds them.
//! - [`message`], [`channel`], [`exchange`]: what goes between tasks, and how it is bounded and divided.
//! - [`lift`]: rows are aggregated before they cross to their grouping, where that pays.
//! - [`operator`], [`operators`]: what happens to rows.
//! - [`unkeyed`]: what a restart needs besides cells.
//! - [`error_budget`]: the share of rows that a transform may refuse.
//! - [`windows`], [`position`]: a row's window; a row and its place in the words of a message.
//! - [`checkpoint`]: barriers become durable epochs, and starts go on from them.
//! - [`swap`]: transforms become other versions of themselves while the pipeline runs.
//! - [`lab`]: one transform of a plugin alone, for its author; [`recording`]: what comes to a transform of a running pipeline, to be run again there.
//! - [`counts`]: what a task counts, as a checkpoint needs it.
//! - [`metrics`], [`failure`]: what is counted, and why a pipeline ends early.
//! - [`clock`]: the only reader of clocks.
//!
//! Invariant: what a task remembers of past rows lies in `pelton_state`; everything else here can be made anew.

pub mod alignment;
mod bind;
pub mod channel;
pub mod checkpoint;
pub mod clock;
pub mod counts;
pub mod error_budget;
pub mod exchange;
pub mod expand;
pub mod failure;
pub mod lab;
pub mod lift;
pub mod message;
pub mod metrics;
pub mod operator;
pub mod operators;
pub mod position;
pub mod recording;
pub mod run;
pub mod source_task;
pub mod splits;
pub mod swap;
pub mod task;
pub mod unkeyed;
pub mod windows;

pub use checkpoint::CheckpointOptions;
pub use failure::Failure;
pub use run::{Prepared, Progress, Resumed, RunOptions, StopMode, prepare, resume};
