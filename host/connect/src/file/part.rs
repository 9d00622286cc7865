//! One file on its way: rows are encoded on the worker and written through an [`Output`].

use super::output::Output;
use super::publish;
use crate::ConnectError;
use arrow::array::RecordBatch;
use pelton_core::{Instant, RowError};
use std::fs::File;
use std::path::PathBuf;
use tokio::runtime::Handle;

/// Rows as the bytes of a file, in order.
pub trait Encode: Send {
    /// What comes before all rows.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), String>;

    /// The rows with these numbers; refused ones leave nothing and come back.
    fn rows(&mut self, batch: &RecordBatch, picked: &[u32], out: &mut Vec<u8>) -> Result<Vec<RowError>, String>;

    /// What comes after all rows.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), String>;

    /// The bytes of rows follow from those rows alone, so that another encoder can write on behind them.
    fn appends(&self) -> bool;
}

/// An open file under its hidden name. Dropped without `publish` or `remove` it removes the file.
pub struct Part {
    io: Handle,
    encode: Box<dyn Encode>,
    temporary: Temporary,
    output: Output,
    /// Rows so far.
    pub rows: u64,
    /// When it was begun.
    pub begun: Instant,
}

/// Removes a file that nobody published.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // The file has no name that anybody reads; a failure leaves a hidden one.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Part {
    /// Creates the file, and its directories where they are missing.
    pub async fn create(io: Handle, path: PathBuf, encode: Box<dyn Encode>, begun: Instant) -> Result<Part, ConnectError> {
        let created = path.clone();
        let file = on(&io, move || {
            if let Some(directory) = created.parent() {
                std::fs::create_dir_all(directory).map_err(|error| ConnectError::of_file("create the directory", directory, &error))?;
            }
            File::create_new(&created).map_err(|error| ConnectError::of_file("write", &created, &error))
        })
        .await?;
        Part::begin(io, file, path.clone(), Temporary(Some(path)), encode, begun).await
    }

    /// Writes into a pipe or a device; waits for somebody to read a pipe.
    pub async fn into_stream(io: Handle, path: PathBuf, encode: Box<dyn Encode>, begun: Instant) -> Result<Part, ConnectError> {
        let opened = path.clone();
        let open = move || File::options().write(true).open(&opened).map_err(|error| ConnectError::of_file("write", &opened, &error));
        let file = on(&io, open).await?;
        Part::begin(io, file, path, Temporary(None), encode, begun).await
    }

    async fn begin(
        io: Handle,
        file: File,
        path: PathBuf,
        temporary: Temporary,
        mut encode: Box<dyn Encode>,
        begun: Instant,
    ) -> Result<Part, ConnectError> {
        let mut output = Output::new(io.clone(), path, file);
        output.append(|out| encode.begin(out).map_err(ConnectError::internal)).await?;
        Ok(Part { io, encode, temporary, output, rows: 0, begun })
    }

    /// Adds rows of a batch.
    pub async fn write(&mut self, batch: &RecordBatch, picked: &[u32]) -> Result<Vec<RowError>, ConnectError> {
        let Part { encode, output, .. } = self;
        let errors = output.append(|out| encode.rows(batch, picked, out).map_err(ConnectError::internal)).await?;
        self.rows += (picked.len() - errors.len()) as u64;
        Ok(errors)
    }

    /// Everything written so far is where a pipe or a device leads to.
    pub async fn flush(&mut self) -> Result<(), ConnectError> {
        self.output.flush().await
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.output.bytes
    }

    /// Completes the file and gives it its name. A crash leaves the whole file or none.
    pub async fn publish(self, name: PathBuf) -> Result<(), ConnectError> {
        let Part { io, mut encode, mut temporary, mut output, .. } = self;
        output.append(|out| encode.end(out).map_err(ConnectError::internal)).await?;
        // A stream has no other name to get, and cannot be made durable.
        let Some(path) = temporary.0.clone() else { return output.flush().await };
        output.close().await?;
        on(&io, move || publish::rename(&path, &name)).await?;
        temporary.0 = None;
        Ok(())
    }

    /// Bytes that the end of the file will add are not known before; for roll sizes this is near enough.
    pub fn is_at_least(&self, bytes: u64) -> bool {
        self.output.bytes >= bytes
    }

    /// Removes the file.
    pub async fn remove(mut self) {
        // What was being written must end first, or it would be written to a file without a name.
        let _ = self.output.settle().await;
        let temporary = std::mem::replace(&mut self.temporary, Temporary(None));
        let _ = self.io.spawn_blocking(move || drop(temporary)).await;
    }
}

/// Runs what blocks on the I/O runtime.
pub async fn on<T: Send + 'static>(
    io: &Handle,
    work: impl FnOnce() -> Result<T, ConnectError> + Send + 'static,
) -> Result<T, ConnectError> {
    io.spawn_blocking(work).await.map_err(ConnectError::internal)?
}
