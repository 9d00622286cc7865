//! A source of files whose format has a reader of its own that gives whole batches: Parquet, Avro.
//!
//! A file is one split and is read by one reader, on a thread of `io` that is some batches ahead. Rows are counted from 0; these
//! formats have no lines. Columns come as the types that Pelton computes with: instants in microseconds UTC, plain strings and
//! lists. What does not fit (an instant out of range) ends the run with the file's name.

use super::find::FoundFile;
use crate::ConnectError;
use crate::source::{Reader, Source, SourceBatch, SourceContext};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use pelton_core::Split;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Batches between the thread that reads and the worker.
const MAX_BATCHES: usize = 2;

/// The batches of a file, one after the other.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

/// Opens a file; only these columns are wanted, or all of them.
pub type OpenBatches = fn(&Path, Option<&[String]>) -> Result<(SchemaRef, Batches), String>;

/// Files that were found.
pub struct BatchSource {
    ctx: SourceContext,
    schema: SchemaRef,
    files: Vec<FoundFile>,
    open: OpenBatches,
    projection: Option<Vec<String>>,
}

impl BatchSource {
    /// Of files whose columns are those of the first one. Blocks.
    pub fn open(ctx: SourceContext, files: Vec<FoundFile>, open: OpenBatches) -> Result<BatchSource, ConnectError> {
        let first = files.first().ok_or_else(|| ConnectError::internal("no file was found, and nobody said so"))?;
        let (schema, _) = open(&first.path, None).map_err(|message| cannot_read(&first.path, &message))?;
        let fields: Fields = schema.fields().iter().map(|field| plain_field(field)).collect();
        Ok(BatchSource { ctx, schema: Arc::new(Schema::new(fields)), files, open, projection: None })
    }
}

fn cannot_read(path: &Path, message: &str) -> ConnectError {
    ConnectError::user(format!("cannot read {}: {message}", path.display()), "check that the file is whole and of this format")
}

fn plain_field(field: &Field) -> Arc<Field> {
    Arc::new(Field::new(field.name(), plain(field.data_type()), field.is_nullable()))
}

/// The type that Pelton computes with.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Dictionary(_, value) => plain(value),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(plain_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field)).collect()),
        other => other.clone(),
    }
}

impl Source for BatchSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn bounded(&self) -> bool {
        true
    }

    fn splits(&self) -> Vec<Arc<Split>> {
        self.files.iter().map(split).collect()
    }

    fn project(&mut self, columns: &[String]) {
        self.projection = Some(columns.to_vec());
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let wanted = |field: &Arc<Field>| self.projection.as_ref().is_none_or(|columns| columns.contains(field.name()));
        let schema = Arc::new(Schema::new(self.schema.fields().iter().filter(|field| wanted(field)).cloned().collect::<Vec<_>>()));
        let queue = Arc::new(Mutex::new(self.files.into_iter().collect::<VecDeque<_>>()));
        let reader = |_| BatchReader {
            io: self.ctx.io.clone(),
            stop: self.ctx.stop.clone(),
            schema: schema.clone(),
            queue: queue.clone(),
            open: self.open,
            current: None,
        };
        Ok((0..count).map(|number| Box::new(reader(number)) as Box<dyn Reader>).collect())
    }
}

/// Rows of such files have no byte offset, so that the split counts rows.
fn split(file: &FoundFile) -> Arc<Split> {
    Arc::new(Split::Generated { name: file.path.display().to_string(), part: 0 })
}

/// Claims files, one after the other.
struct BatchReader {
    io: tokio::runtime::Handle,
    stop: watch::Receiver<bool>,
    /// Columns that are wanted.
    schema: SchemaRef,
    queue: Arc<Mutex<VecDeque<FoundFile>>>,
    open: OpenBatches,
    current: Option<Claim>,
}

/// A file that is being read.
struct Claim {
    split: Arc<Split>,
    batches: mpsc::Receiver<Result<RecordBatch, ConnectError>>,
    rows: i64,
    /// Bytes of the file that are not accounted for.
    bytes: usize,
}

#[async_trait]
impl Reader for BatchReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        loop {
            if *self.stop.borrow() {
                // Dropping the channel ends the thread that reads.
                self.current = None;
                return Ok(None);
            }
            let Some(claim) = &mut self.current else {
                let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                match next {
                    Some(file) => self.begin(file),
                    None => return Ok(None),
                }
                continue;
            };
            let Some(batch) = claim.batches.recv().await else {
                let empty = RecordBatch::new_empty(self.schema.clone());
                let last = SourceBatch { split_ended: true, ..SourceBatch::new(empty, claim.split.clone(), Vec::new().into()) };
                self.current = None;
                return Ok(Some(last));
            };
            let rows = batch?;
            let from = claim.rows;
            claim.rows += rows.num_rows() as i64;
            let offsets: Vec<i64> = (from..claim.rows).collect();
            let bytes = std::mem::take(&mut claim.bytes);
            return Ok(Some(SourceBatch { bytes, ..SourceBatch::new(rows, claim.split.clone(), offsets.into()) }));
        }
    }

    fn unclaimed(&self) -> bool {
        !self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl BatchReader {
    fn begin(&mut self, file: FoundFile) {
        let (sender, batches) = mpsc::channel(MAX_BATCHES);
        self.current = Some(Claim { split: split(&file), batches, rows: 0, bytes: file.length as usize });
        let (schema, open) = (self.schema.clone(), self.open);
        self.io.spawn_blocking(move || {
            let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
            let opened = open(&file.path, Some(&columns));
            let batches = match opened {
                Ok((_, batches)) => batches,
                Err(message) => {
                    let _ = sender.blocking_send(Err(cannot_read(&file.path, &message)));
                    return;
                }
            };
            for batch in batches {
                let batch = batch.and_then(|batch| as_schema(&batch, &schema)).map_err(|message| cannot_read(&file.path, &message));
                let failed = batch.is_err();
                // Nobody listens when the pipeline has stopped.
                if sender.blocking_send(batch).is_err() || failed {
                    return;
                }
            }
        });
    }
}

/// The wanted columns of a batch, by name, as the wanted types.
fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<Field>| -> Result<ArrayRef, String> {
        let column =
            batch.column_by_name(field.name()).ok_or_else(|| format!("it has no column `{}`, as the first file has", field.name()))?;
        if column.data_type() == field.data_type() {
            return Ok(column.clone());
        }
        cast_with_options(column, field.data_type(), &options).map_err(|error| format!("column `{}`: {error}", field.name()))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| error.to_string())
}
