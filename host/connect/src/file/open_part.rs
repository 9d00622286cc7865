//! A file that spans epochs: at each barrier its rows are durable and nobody sees them.
//!
//! Lines go into the file itself. A Parquet or Avro file cannot be written on after its process has died, so its rows are also written to an
//! Arrow stream beside it, of which alone a barrier makes anything durable.
//!
//! A later life goes on in a file of its own behind the *pieces* of those before it, and puts them together when the part is closed: a start
//! costs no reading and no copying.

use super::disk::{self, Committed};
use super::output::Output;
use super::part::{Encode, on};
use super::staging::{ClosedFile, OpenFile, Piece, Staging};
use crate::ConnectError;
use crate::format::schema;
use crate::parquet_write::Written;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use pelton_core::{Instant, RowError};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use xxhash_rust::xxh3::Xxh3;

/// Makes the encoder of a new file with these columns.
pub type MakeEncode = Box<dyn Fn(&SchemaRef) -> Result<Box<dyn Encode>, String> + Send + Sync>;

/// Where a part is written, and how.
pub struct Place<'a> {
    /// Blocks here.
    pub io: &'a Handle,
    /// Names.
    pub staging: &'a Staging,
    /// Number of its hidden files.
    pub number: u64,
}

/// An open file under its hidden name, which it keeps if it is dropped.
pub struct OpenPart {
    encode: Box<dyn Encode>,
    /// What earlier lives have committed, in order; only read, and only as far as that.
    pieces: Vec<Piece>,
    /// The file itself; `None` where it can only be made when all its rows are there.
    main: Option<(String, Output)>,
    rows_beside: Option<RowsBeside>,
    columns: String,
    /// Rows so far.
    pub rows: u64,
    /// When it was begun.
    pub begun: Instant,
}

/// The rows as an Arrow stream.
struct RowsBeside {
    file: String,
    output: Output,
    writer: StreamWriter<Written>,
    written: Written,
}

/// A part that is complete but for its last bytes, which are on their way to the disk.
pub struct Closing {
    output: Output,
    /// Under which names.
    pub closed: ClosedFile,
}

impl OpenPart {
    /// Begins a file.
    pub async fn create(
        place: Place<'_>,
        mut encode: Box<dyn Encode>,
        schema: &SchemaRef,
        begun: Instant,
    ) -> Result<OpenPart, ConnectError> {
        let rows_beside = if encode.appends() { None } else { Some(RowsBeside::create(&place, schema).await?) };
        let (file, mut output) = create_main(&place).await?;
        output.append(|out| encode.begin(out).map_err(ConnectError::internal)).await?;
        let columns = schema::describe(schema);
        Ok(OpenPart { encode, pieces: Vec::new(), main: Some((file, output)), rows_beside, columns, rows: 0, begun })
    }

    /// Goes on behind what earlier lives have committed of a file, which must be there.
    pub async fn resume(place: Place<'_>, encode: Box<dyn Encode>, schema: &SchemaRef, from: &OpenFile) -> Result<OpenPart, ConnectError> {
        let pieces: Vec<(PathBuf, u64)> = from.pieces.iter().map(|piece| (place.staging.path(&piece.file), piece.length)).collect();
        on(place.io, move || pieces.iter().try_for_each(|(path, length)| check_piece(path, *length))).await?;
        let (main, rows_beside) = match encode.appends() {
            true => (Some(create_main(&place).await?), None),
            false => (None, Some(RowsBeside::create(&place, schema).await?)),
        };
        let begun = Instant::from_micros_saturating(from.begun);
        Ok(OpenPart { encode, pieces: from.pieces.clone(), main, rows_beside, columns: from.columns.clone(), rows: from.rows, begun })
    }

    /// Adds rows of a batch.
    pub async fn write(&mut self, batch: &RecordBatch, picked: &[u32]) -> Result<Vec<RowError>, ConnectError> {
        let OpenPart { encode, main, rows_beside, .. } = self;
        let errors = match main {
            Some((_, output)) => output.append(|out| encode.rows(batch, picked, out).map_err(ConnectError::internal)).await?,
            None => Vec::new(),
        };
        if let Some(beside) = rows_beside {
            beside.write(batch, picked).await?;
        }
        self.rows += (picked.len() - errors.len()) as u64;
        Ok(errors)
    }

    /// Whether its columns are these.
    pub fn has_columns(&self, schema: &SchemaRef) -> bool {
        self.columns == schema::describe(schema)
    }

    /// What it will have, about: bytes that the end of the file adds are not known, and rows of a file that is not made yet count as they are kept.
    pub fn bytes(&self) -> u64 {
        let before: u64 = self.pieces.iter().map(|piece| piece.length).sum();
        let own = self.main.as_ref().map(|(_, output)| output.bytes).or(self.rows_beside.as_ref().map(|beside| beside.output.bytes));
        before + own.unwrap_or(0)
    }

    /// A barrier: what was written begins to be durable. [`staged`](OpenPart::staged) waits for that.
    pub async fn begin_sync(&mut self) -> Result<(), ConnectError> {
        self.durable()?.1.begin_sync().await
    }

    /// What is durable.
    pub async fn staged(&mut self, window: Option<Instant>) -> Result<OpenFile, ConnectError> {
        let (file, output) = self.durable()?;
        output.settle().await?;
        let own = Piece { file: file.to_owned(), length: output.bytes, hash: Some(output.hash()) };
        Ok(OpenFile {
            window: window.map(Instant::micros),
            begun: self.begun.micros(),
            pieces: self.pieces.iter().cloned().chain([own]).collect(),
            rows: self.rows,
            columns: self.columns.clone(),
        })
    }

    /// The file of this life that barriers make durable.
    fn durable(&mut self) -> Result<(&str, &mut Output), ConnectError> {
        let beside = self.rows_beside.as_mut().map(|beside| (beside.file.as_str(), &mut beside.output));
        beside
            .or(self.main.as_mut().map(|(file, output)| (file.as_str(), output)))
            .ok_or_else(|| ConnectError::internal("a part without a file"))
    }

    /// Completes the file; besides, the hidden files that are not needed when it has its name. `place` is used where earlier lives had begun it.
    pub async fn close(mut self, place: Place<'_>, name: String, replaces: bool) -> Result<(Closing, Vec<String>), ConnectError> {
        let mut unneeded: Vec<String> = self.pieces.iter().map(|piece| piece.file.clone()).collect();
        let (file, mut output) = match (self.main.take(), self.rows_beside.take()) {
            (Some(main), None) if self.pieces.is_empty() => main,
            (Some((own, output)), None) => {
                let own = Piece { length: output.bytes, hash: Some(output.hash()), file: own };
                output.flush_and_finish().await?;
                unneeded.push(own.file.clone());
                join(&place, self.pieces.iter().chain([&own])).await?
            }
            (main, Some(beside)) => {
                unneeded.push(beside.file.clone());
                match main {
                    Some(main) => main,
                    None => self.make(&place, beside).await?,
                }
            }
            (None, None) => return Err(ConnectError::internal("a part without a file")),
        };
        output.append(|out| self.encode.end(out).map_err(ConnectError::internal)).await?;
        output.begin_sync().await?;
        let closed = ClosedFile { file, name, replaces, rows: self.rows, bytes: output.bytes, hash: Some(output.hash()) };
        Ok((Closing { output, closed }, unneeded))
    }

    /// Makes the file of rows that were kept beside it.
    async fn make(&mut self, place: &Place<'_>, beside: RowsBeside) -> Result<(String, Output), ConnectError> {
        let own = Piece { length: beside.output.bytes, hash: Some(beside.output.hash()), file: beside.file };
        beside.output.flush_and_finish().await?;
        let (file, mut output) = create_main(place).await?;
        let encode = &mut self.encode;
        output.append(|out| encode.begin(out).map_err(ConnectError::internal)).await?;
        let mut rows = 0;
        for piece in self.pieces.iter().chain([&own]) {
            let committed = place.staging.committed(piece);
            let mut stream = on(place.io, move || committed.check().and_then(|()| open_rows(&committed.path, committed.length))).await?;
            loop {
                let next;
                (stream, next) = on(place.io, move || {
                    let failed = |error| ConnectError::user(format!("cannot read staged rows: {error}"), disk::RESTORE);
                    let next = stream.next().transpose().map_err(failed)?;
                    Ok((stream, next))
                })
                .await?;
                let Some(batch) = next else { break };
                rows += batch.num_rows() as u64;
                let all: Vec<u32> = (0..batch.num_rows() as u32).collect();
                output.append(|out| encode.rows(&batch, &all, out).map_err(ConnectError::internal)).await?;
            }
        }
        match rows == self.rows {
            true => Ok((file, output)),
            false => Err(ConnectError::user(
                format!("the hidden files of {file} have only {rows} of the {} rows that were committed", self.rows),
                "restore them from a copy of the disk, or begin anew with an empty state",
            )),
        }
    }
}

/// What was committed is there. Blocks.
fn check_piece(path: &Path, length: u64) -> Result<(), ConnectError> {
    match disk::look(path)? {
        Some(metadata) if metadata.len() >= length => Ok(()),
        found => Err(ConnectError::user(
            format!("{} has only {} of the {length} bytes that were committed", path.display(), found.map_or(0, |found| found.len())),
            disk::RESTORE,
        )),
    }
}

async fn create_main(place: &Place<'_>) -> Result<(String, Output), ConnectError> {
    let (file, _) = place.staging.hidden(place.number);
    let path = place.staging.path(&file);
    let created = path.clone();
    let opened = on(place.io, move || disk::create(&created)).await?;
    Ok((file, Output::new(place.io.clone(), path, opened)))
}

/// Pieces one after the other as one file.
async fn join(place: &Place<'_>, pieces: impl Iterator<Item = &Piece>) -> Result<(String, Output), ConnectError> {
    let (file, _) = place.staging.hidden(place.number);
    let path = place.staging.path(&file);
    let pieces: Vec<Committed> = pieces.map(|piece| place.staging.committed(piece)).collect();
    let length = pieces.iter().map(|piece| piece.length).sum();
    let joined = path.clone();
    let opened = on(place.io, move || {
        let (mut file, mut hash) = (disk::create(&joined)?, Xxh3::new());
        pieces.iter().try_for_each(|piece| piece.append_to(&mut file, &joined, &mut hash))?;
        Ok((file, hash))
    });
    let (opened, hash) = opened.await?;
    Ok((file, Output::after(place.io.clone(), path, opened, length, hash)))
}

impl RowsBeside {
    async fn create(place: &Place<'_>, schema: &SchemaRef) -> Result<RowsBeside, ConnectError> {
        let (_, file) = place.staging.hidden(place.number);
        let path = place.staging.path(&file);
        let created = path.clone();
        let opened = on(place.io, move || disk::create(&created)).await?;
        let written = Written::default();
        let writer = StreamWriter::try_new(written.clone(), schema).map_err(ConnectError::internal)?;
        let mut output = Output::new(place.io.clone(), path, opened);
        output
            .append(|out| {
                written.take(out);
                Ok(())
            })
            .await?;
        Ok(RowsBeside { file, output, writer, written })
    }

    async fn write(&mut self, batch: &RecordBatch, picked: &[u32]) -> Result<(), ConnectError> {
        let RowsBeside { output, writer, written, .. } = self;
        let all = picked.len() == batch.num_rows();
        output
            .append(|out| {
                let rows = match all {
                    true => batch.clone(),
                    false => take_record_batch(batch, &UInt32Array::from(picked.to_vec())).map_err(ConnectError::internal)?,
                };
                writer.write(&rows).map_err(ConnectError::internal)?;
                written.take(out);
                Ok(())
            })
            .await
    }
}

impl Closing {
    /// Waits until the file is whole and durable.
    pub async fn settle(self) -> Result<ClosedFile, ConnectError> {
        self.output.finish().await?;
        Ok(self.closed)
    }
}

/// The rows of a stream of which `length` bytes count. Blocks.
pub fn open_rows(path: &Path, length: u64) -> Result<StreamReader<BufReader<std::io::Take<File>>>, ConnectError> {
    let file = File::open(path).map_err(|error| ConnectError::of_file("read", path, &error))?;
    let input = BufReader::new(file.take(length));
    StreamReader::try_new(input, None)
        .map_err(|error| ConnectError::user(format!("cannot read {}: {error}", path.display()), disk::RESTORE))
}
