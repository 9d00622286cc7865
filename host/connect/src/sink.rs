//! A sink as the runtime sees it: one for each shard, written to in turn, then finished or aborted.

use crate::ConnectError;
use crate::commit::{ExactlyOnce, Staged};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::{Batch, Epoch, Instant, RowError, WindowFn};
use std::path::PathBuf;

/// What a sink is given when it opens.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// Full name of the transform.
    pub transform: String,
    /// Relative paths start here.
    pub base_dir: PathBuf,
    /// A multi-thread runtime for I/O: workers are current-thread executors that must never block.
    pub io: tokio::runtime::Handle,
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// The input does not end by itself.
    pub unbounded: bool,
    /// Windows of the input's rows.
    pub window: WindowFn,
    /// Number of this shard, from 0.
    pub shard: usize,
    /// Shards that there are.
    pub shards: usize,
    /// `Some`: the pipeline takes checkpoints, and rows become visible by epochs. `None`: they do when the sink finishes, or as it goes: without
    /// checkpoints, and with `delivery: at_least_once` where the sink [can](crate::shows_at_once).
    pub exactly_once: Option<ExactlyOnce>,
}

/// One open shard of a sink.
#[async_trait]
pub trait Sink: Send {
    /// Takes the rows; those that it refuses leave nothing behind and come back as errors.
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError>;

    /// Time has passed: what lingers is sent, parts that are old enough are rolled. Called about once a second.
    async fn tick(&mut self, now: Instant) -> Result<(), ConnectError>;

    /// A barrier: everything written so far is made durable and what was written since the last barrier stays invisible; where the context has no
    /// `exactly_once`, everything is visible when this returns. The rows that follow belong to `epoch + 1`; with `last`, none do. Called where the
    /// pipeline takes checkpoints, and then instead of `finish`.
    async fn prepare(&mut self, _epoch: Epoch, _last: bool) -> Result<Staged, ConnectError> {
        Ok(Staged::default())
    }

    /// What was written so far.
    fn written(&self) -> SinkSummary {
        SinkSummary::default()
    }

    /// Everything written becomes visible under its final name.
    async fn finish(self: Box<Self>) -> Result<SinkSummary, ConnectError>;

    /// Nothing more becomes visible; temporaries are removed.
    async fn abort(self: Box<Self>);
}

/// What a shard has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkSummary {
    /// Rows.
    pub rows: u64,
    /// Bytes as written, after compression.
    pub bytes: u64,
    /// Final names, in the order of publication.
    pub files: Vec<String>,
}
