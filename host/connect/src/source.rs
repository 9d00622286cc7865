//! A source as the runtime sees it: opened once, then divided into readers, one a reader task.
//!
//! Life: `open_source` finds files or partitions and the schema → `project` says which columns are wanted → `readers` divides
//! the work → each reader's `next` gives batches until `None`.
//!
//! Splits are told apart by their `Arc`, not by value: two chunks of one file have the same path.

use crate::ConnectError;
use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use pelton_core::fault::FormatError;
use pelton_core::{Split, SplitPosition};
use std::path::PathBuf;
use std::sync::Arc;

/// What a source is given when it opens.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// Full name of the transform.
    pub transform: String,
    /// Readers that there will be.
    pub parallelism: usize,
    /// Relative paths start here.
    pub base_dir: PathBuf,
    /// A multi-thread runtime for I/O: workers are current-thread executors that must never block.
    pub io: tokio::runtime::Handle,
    /// Becomes true when reading is to stop; readers then give `None` as soon as they can.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

/// An open source.
pub trait Source: Send {
    /// Every column that it can give.
    fn schema(&self) -> SchemaRef;

    /// Whether it ends by itself.
    fn bounded(&self) -> bool;

    /// The type of `element` in its error output.
    fn error_element(&self) -> DataType {
        DataType::Binary
    }

    /// Everything that it reads, each with a watermark of its own.
    fn splits(&self) -> Vec<Arc<Split>>;

    /// Only these columns are wanted; batches have them in the order of the schema. Names that are not in it are ignored.
    fn project(&mut self, columns: &[String]);

    /// How the work was divided, for [`Source::restore`], where that is not the same at each start: a file's length changes, and a pattern
    /// matches other files. In the source's own words.
    fn plan(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Before `readers`: divides the work as it was, and goes on where each split was. A split without a position is read from its
    /// beginning. Errors say what is no longer there.
    fn restore(&mut self, _plan: &[u8], _positions: Vec<SplitPosition>) -> Result<(), ConnectError> {
        Err(ConnectError::internal("this source cannot go on where it was"))
    }

    /// One reader a reader task. Chunks of files are claimed as readers become free; Kafka's partitions are given out at once.
    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError>;
}

/// Reads a share of a source.
#[async_trait]
pub trait Reader: Send {
    /// The next batch; `None` when this reader has ended or was stopped. Cancel-safe: dropping the future loses nothing.
    /// A batch may have no rows, when it only says that a split has ended or become idle, or carries errors.
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError>;

    /// Splits that this reader was given for good, before it has read from them: each holds the watermark until it ends or is
    /// idle. A reader that claims its splits one by one names none.
    fn assigned(&self) -> Vec<Arc<Split>> {
        Vec::new()
    }

    /// Where each split that this reader has begun goes on after the batches that `next` gave, those that it has come to the end of
    /// included. Cheap: called at every barrier.
    fn positions(&self) -> Vec<SplitPosition> {
        Vec::new()
    }

    /// What these positions stand for counts: tell those who watch (Kafka's group offsets). Nothing depends on it.
    fn decided(&mut self, _positions: &[SplitPosition]) {}

    /// From now on only splits other than these are read; what was paused before and is not named goes on. False: it cannot be
    /// done, and `next` gives rows of all splits as before.
    fn pause(&mut self, _splits: &[Arc<Split>]) -> bool {
        false
    }

    /// Some splits are not yet claimed by any reader: they hold the watermark at its minimum.
    fn unclaimed(&self) -> bool;
}

/// Rows of one split.
#[derive(Clone, Debug)]
pub struct SourceBatch {
    /// The wanted columns.
    pub rows: RecordBatch,
    /// Event times in microseconds, where records have them beside their columns (Kafka). `None`: the runtime stamps
    /// `Instant::MIN` for a bounded source and now for an unbounded one.
    pub times: Option<ScalarBuffer<i64>>,
    /// Where all of the rows and errors were read.
    pub split: Arc<Split>,
    /// Offset of each row.
    pub offsets: ScalarBuffer<i64>,
    /// Records that could not be decoded.
    pub errors: Vec<FormatError>,
    /// No more rows come from this split.
    pub split_ended: bool,
    /// Bytes read for this batch, before decoding (after decompression).
    pub bytes: usize,
    /// Records between this batch and the end of the split, where the source knows.
    pub lag: Option<i64>,
    /// A change of the split that is no row.
    pub event: Option<SplitEvent>,
}

/// A change of a split that is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitEvent {
    /// Its reader is at the end of what there is; records may still come.
    CaughtUp,
}

impl SourceBatch {
    /// A batch of a split that has neither times nor errors.
    pub fn new(rows: RecordBatch, split: Arc<Split>, offsets: ScalarBuffer<i64>) -> SourceBatch {
        debug_assert_eq!(rows.num_rows(), offsets.len());
        SourceBatch { rows, times: None, split, offsets, errors: Vec::new(), split_ended: false, bytes: 0, lag: None, event: None }
    }
}
