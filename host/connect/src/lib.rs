//! Sources, sinks and formats: the only crate that knows what a file or a topic looks like inside.
//!
//! In reading order:
//! - [`error`]: what can go wrong, by who must act.
//! - [`source`], [`sink`]: the two ends of a pipeline, as the runtime sees them.
//! - [`commit`]: how sinks take part in checkpoints.
//! - [`registry`]: the list of connectors. To add one: write a file beside the others, add its line there.
//! - `batch_rows`: how many rows a reader gives out at once.
//! - [`secret`], `settings`: references to secrets, and reading values out of a config.
//! - `format`: JSON, CSV and text over Arrow columns; nothing in it knows where bytes come from.
//! - [`ipc`]: batches as bytes, for what Pelton itself keeps.
//! - `file`: globs, compression, chunks that readers share, sinks whose final names hold whole files only.
//! - One module a connector: `create`, `assert_equal`, `generate`, `read_text`, `read_csv`, `read_json`, `read_batches` (Parquet, Avro), `write_files`, `kafka`, `postgres`.
//!
//! Invariant: a worker's thread never blocks here. Reading, writing and waiting happen on `io`, the runtime of the context;
//! bytes are decoded and encoded on the caller's side.

mod assert_equal;
mod avro_write;
mod batch_rows;
pub mod commit;
mod create;
pub mod error;
pub mod file;
pub mod format;
#[cfg(test)]
mod fuzz;
mod generate;
pub mod ipc;
pub mod kafka;
mod parquet_write;
pub mod postgres;
mod read_batches;
mod read_csv;
mod read_json;
mod read_text;
pub mod registry;
mod rows;
pub mod secret;
pub mod settings;
pub mod sink;
pub mod source;
mod write_files;

pub use commit::{CommitTarget, Commits, Committer, DecideError, Decider, Deciding, ExactlyOnce, Identity, Staged, StagedFile};
pub use error::ConnectError;
pub use file::lines::line_of;
pub use file::matches::{MatchedFile, match_files};
pub use parquet_write::ParquetFile;
pub use registry::{catalog, open_commits, open_committer, open_sink, open_source, shows_at_once, sink_shards, staged_files};
pub use secret::resolve_secrets;
pub use sink::{Sink, SinkContext, SinkSummary};
pub use source::{Reader, Source, SourceBatch, SourceContext, SplitEvent};

#[cfg(test)]
mod tests;
