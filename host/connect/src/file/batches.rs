//! A source of files whose format has a reader of its own that gives whole batches: Parquet, Avro.
//!
//! A file is one split and is read by one reader, on a thread of `io` that is some batches ahead. Rows are counted from 0; these
//! formats have no lines. Columns come as the types that Pelton computes with: instants in microseconds UTC, plain strings and
//! lists. What does not fit (an instant out of range) ends the run with the file's name.

use super::find::FoundFile;
use super::restart::{Place, Plan, PlannedFile, Progress, Reached};
use crate::ConnectError;
use crate::source::{Reader, Source, SourceBatch, SourceContext};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use pelton_core::{Split, SplitPosition};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Batches between the thread that reads and the worker.
const MAX_BATCHES: usize = 2;

/// The batches of a file, one after the other.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

/// Opens a file; only these columns are wanted, or all of them, and so many rows at the beginning are passed over.
pub type OpenBatches = fn(&Path, Option<&[String]>, u64) -> Result<(SchemaRef, Batches), String>;

/// Files that were found.
pub struct BatchSource {
    ctx: SourceContext,
    schema: SchemaRef,
    plan: Plan,
    reached: Reached,
    open: OpenBatches,
    projection: Option<Vec<String>>,
}

impl BatchSource {
    /// Of files whose columns are those of the first one. Blocks.
    pub fn open(ctx: SourceContext, files: Vec<FoundFile>, open: OpenBatches) -> Result<BatchSource, ConnectError> {
        let first = files.first().ok_or_else(|| ConnectError::internal("no file was found, and nobody said so"))?;
        let (schema, _) = open(&first.path, None, 0).map_err(|message| cannot_read(&first.path, &message))?;
        let fields: Fields = schema.fields().iter().map(|field| plain_field(field)).collect();
        let files = files.iter().map(|file| PlannedFile::of(file, 0, 1)).collect::<Result<_, _>>()?;
        let plan = Plan { files, columns: None };
        Ok(BatchSource { ctx, schema: Arc::new(Schema::new(fields)), plan, reached: Reached::default(), open, projection: None })
    }

    /// Files that are not finished.
    fn work(&self) -> VecDeque<Work> {
        let work = |(number, file): (usize, &PlannedFile)| Work {
            number,
            path: file.path.clone(),
            length: file.length,
            place: self.reached.place(number).unwrap_or_default(),
        };
        self.plan.files.iter().enumerate().filter(|(number, _)| !self.reached.is_finished(*number)).map(work).collect()
    }
}

/// A file to read.
struct Work {
    /// Number in the plan.
    number: usize,
    path: PathBuf,
    length: u64,
    /// The row that reading begins with.
    place: Place,
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
        self.work().iter().map(split).collect()
    }

    fn project(&mut self, columns: &[String]) {
        self.projection = Some(columns.to_vec());
    }

    fn plan(&self) -> Vec<u8> {
        self.plan.to_bytes()
    }

    fn restore(&mut self, plan: &[u8], positions: Vec<SplitPosition>) -> Result<(), ConnectError> {
        let (plan, reached) = (Plan::from_bytes(plan)?, Reached::of(&positions)?);
        plan.check(&reached)?;
        (self.plan, self.reached) = (plan, reached);
        Ok(())
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let wanted = |field: &Arc<Field>| self.projection.as_ref().is_none_or(|columns| columns.contains(field.name()));
        let schema = Arc::new(Schema::new(self.schema.fields().iter().filter(|field| wanted(field)).cloned().collect::<Vec<_>>()));
        let queue = Arc::new(Mutex::new(self.work()));
        let reader = |number| BatchReader {
            progress: Progress::new(number, &self.reached),
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
fn split(file: &Work) -> Arc<Split> {
    Arc::new(Split::Generated { name: file.path.display().to_string(), part: 0 })
}

/// Claims files, one after the other.
struct BatchReader {
    io: tokio::runtime::Handle,
    stop: watch::Receiver<bool>,
    /// Columns that are wanted.
    schema: SchemaRef,
    queue: Arc<Mutex<VecDeque<Work>>>,
    open: OpenBatches,
    current: Option<Claim>,
    progress: Progress,
}

/// A file that is being read.
struct Claim {
    number: usize,
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
                self.progress.finish(claim.number);
                self.current = None;
                return Ok(Some(last));
            };
            let rows = batch?;
            let from = claim.rows;
            claim.rows += rows.num_rows() as i64;
            self.progress.at(claim.number, Place { at: claim.rows as u64, header: 0 });
            let offsets: Vec<i64> = (from..claim.rows).collect();
            let bytes = std::mem::take(&mut claim.bytes);
            return Ok(Some(SourceBatch { bytes, ..SourceBatch::new(rows, claim.split.clone(), offsets.into()) }));
        }
    }

    fn positions(&self) -> Vec<SplitPosition> {
        self.progress.positions()
    }

    fn unclaimed(&self) -> bool {
        !self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl BatchReader {
    fn begin(&mut self, file: Work) {
        let (sender, batches) = mpsc::channel(MAX_BATCHES);
        self.current =
            Some(Claim { number: file.number, split: split(&file), batches, rows: file.place.at as i64, bytes: file.length as usize });
        let (schema, open) = (self.schema.clone(), self.open);
        self.io.spawn_blocking(move || {
            let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
            let opened = open(&file.path, Some(&columns), file.place.at);
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
