//! A batch: Arrow rows with their event times, their windows once those are fixed, and where each row came from.
//!
//! Windows. After `WindowInto` a row's windows are a function of its event time and are not stored; [`Batch::windows`] is
//! `None`. From a grouping on each row has exactly one window, an index into the batch's window table.
//!
//! Positions. A batch holds rows of one source split, so that the split is named once and a row costs eight bytes.
//! Pieces of different splits are never joined into one batch; rows made by a grouping have no position.
//!
//! Invariant: `times`, `windows.index` and `positions` have one entry a row.

use crate::window::Window;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use std::fmt;
use std::sync::Arc;

/// A source stops filling a batch at this many rows.
pub const MAX_ROWS: usize = 8_192;
/// A source stops filling a batch at this many bytes: the boundary to plugins is dearer for batches beyond the core's cache.
pub const TARGET_BYTES: usize = 256 * 1024;
/// No row is larger (`options.pelton.limits.row`); a larger one is a row error.
pub const MAX_ROW_BYTES: usize = 16 * 1024 * 1024;

/// The metadata key of a column that a side input has put beside the input's own: it can be read and is never passed on. Its value is the
/// side input's name.
pub const SIDE_INPUT: &str = "pelton.side_input";

/// Rows that travel together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The user's columns.
    pub rows: RecordBatch,
    /// Event time a row, microseconds since the epoch.
    pub times: ScalarBuffer<i64>,
    /// `None`: windows follow from the event time by the edge's window function.
    pub windows: Option<RowWindows>,
    /// Where the rows were read.
    pub positions: Positions,
}

/// One window a row.
#[derive(Clone, Debug)]
pub struct RowWindows {
    /// A row's entry in `table`.
    pub index: ScalarBuffer<u32>,
    /// The windows that occur.
    pub table: Arc<[Window]>,
    /// The pane of every row of the batch.
    pub pane: PaneInfo,
}

/// Which firing of its window a row belongs to (Beam's `PaneInfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaneInfo {
    /// Before, at or after the watermark's passing of the window's end.
    pub timing: PaneTiming,
    /// The first pane of its window.
    pub is_first: bool,
    /// The last pane of its window.
    pub is_last: bool,
    /// Number of the pane in its window, from 0.
    pub index: i64,
    /// Number among the panes that are not early, from 0; -1 for an early pane.
    pub nonspeculative_index: i64,
}

/// When a pane fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaneTiming {
    /// Before the watermark passed the end of the window.
    Early,
    /// When the watermark passed it.
    OnTime,
    /// After that.
    Late,
    /// Not from a grouping.
    Unknown,
}

impl PaneInfo {
    /// The pane of a row that no grouping has seen.
    pub const UNWINDOWED: PaneInfo =
        PaneInfo { timing: PaneTiming::Unknown, is_first: true, is_last: true, index: 0, nonspeculative_index: 0 };
}

/// Where rows were read: one split for all of them and one offset each.
#[derive(Clone, Debug)]
pub enum Positions {
    /// Rows that were computed, not read.
    None,
    /// Rows of one split.
    At {
        /// The split.
        split: Arc<Split>,
        /// File: byte offset of the row's start. Kafka: record offset. Others: number of the row.
        offsets: ScalarBuffer<i64>,
    },
}

/// A part of a source that is read in order and has a watermark of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// A file or a chunk of one; offsets are bytes from the file's start.
    File {
        /// As the user would find it.
        path: String,
        /// Where the chunk begins, bytes; 0 for a whole file.
        start: i64,
    },
    /// A partition; offsets are the broker's.
    Kafka {
        /// Topic.
        topic: String,
        /// Partition number.
        partition: i32,
    },
    /// Rows that a transform makes itself (`Create`, `GenerateEvents`); offsets count rows.
    Generated {
        /// Name of the transform.
        name: String,
        /// Number of the part.
        part: u32,
    },
}

impl Split {
    /// Names the split in checkpoints: no two splits of a source share one, and it stays the same from run to run.
    pub fn id(&self) -> String {
        match self {
            Split::File { path, start } => format!("file:{start}:{path}"),
            Split::Kafka { topic, partition } => format!("kafka:{partition}:{topic}"),
            Split::Generated { name, part } => format!("generated:{part}:{name}"),
        }
    }

    /// The split that an id names; `None`: it names none.
    pub fn from_id(id: &str) -> Option<Split> {
        let (kind, rest) = id.split_once(':')?;
        let (number, name) = rest.split_once(':')?;
        let name = name.to_string();
        Some(match kind {
            "file" => Split::File { start: number.parse().ok()?, path: name },
            "kafka" => Split::Kafka { partition: number.parse().ok()?, topic: name },
            "generated" => Split::Generated { part: number.parse().ok()?, name },
            _ => return None,
        })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Split::File { path, .. } => write!(f, "{path}"),
            Split::Kafka { topic, partition } => write!(f, "topic {topic} partition {partition}"),
            Split::Generated { name, part } => write!(f, "{name} part {part}"),
        }
    }
}

impl Batch {
    /// A batch of rows that have no window yet.
    pub fn new(rows: RecordBatch, times: ScalarBuffer<i64>, positions: Positions) -> Batch {
        debug_assert_eq!(rows.num_rows(), times.len());
        Batch { rows, times, windows: None, positions }
    }

    /// Rows in the batch.
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Schema of the user's columns.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// Bytes that the batch's own rows take (of shared buffers only its slice), for budgets; at least one.
    pub fn bytes(&self) -> usize {
        let columns: usize = self.rows.columns().iter().map(sliced_bytes).sum();
        columns + 8 * self.num_rows() + 1
    }

    /// The rows with these numbers, in this order; repeats are allowed. Every number is below `num_rows`.
    pub fn take(&self, rows: &UInt32Array) -> Batch {
        let picked = match self.rows.num_columns() {
            // Only a number of rows, after all columns were pruned; arrow's `take` would not know how many.
            0 => {
                let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
                RecordBatch::try_new_with_options(self.rows.schema(), Vec::new(), &options).expect("no columns fit any schema of none")
            }
            _ => take_record_batch(&self.rows, rows).expect("row numbers are in range"),
        };
        self.pick(picked, rows.values())
    }

    /// `rows` with the event times, windows and positions of the rows `origin` of this batch.
    pub fn pick(&self, rows: RecordBatch, origin: &[u32]) -> Batch {
        debug_assert_eq!(rows.num_rows(), origin.len());
        Batch {
            rows,
            times: origin.iter().map(|row| self.times[*row as usize]).collect(),
            windows: self.windows.as_ref().map(|windows| RowWindows {
                index: origin.iter().map(|row| windows.index[*row as usize]).collect(),
                table: windows.table.clone(),
                pane: windows.pane,
            }),
            positions: match &self.positions {
                Positions::None => Positions::None,
                Positions::At { split, offsets } => {
                    Positions::At { split: split.clone(), offsets: origin.iter().map(|row| offsets[*row as usize]).collect() }
                }
            },
        }
    }

    /// `length` rows from row `start` on, without copying columns.
    pub fn slice(&self, start: usize, length: usize) -> Batch {
        Batch {
            rows: self.rows.slice(start, length),
            times: self.times.slice(start, length),
            windows: self.windows.as_ref().map(|windows| RowWindows {
                index: windows.index.slice(start, length),
                table: windows.table.clone(),
                pane: windows.pane,
            }),
            positions: match &self.positions {
                Positions::None => Positions::None,
                Positions::At { split, offsets } => Positions::At { split: split.clone(), offsets: offsets.slice(start, length) },
            },
        }
    }

    /// The same rows, times, windows and positions with other columns; the number of rows stays.
    pub fn with_columns(&self, rows: RecordBatch) -> Batch {
        debug_assert_eq!(rows.num_rows(), self.num_rows());
        Batch { rows, ..self.clone() }
    }

    /// Split and offset of a row, where it has one.
    pub fn position(&self, row: usize) -> Option<(&Arc<Split>, i64)> {
        match &self.positions {
            Positions::None => None,
            Positions::At { split, offsets } => Some((split, offsets[row])),
        }
    }
}

fn sliced_bytes(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
