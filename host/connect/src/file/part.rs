//! One file on its way: rows are encoded on the worker, bytes are written on the I/O runtime, one buffer behind.

use super::publish;
use crate::ConnectError;
use arrow::array::RecordBatch;
use pelton_core::{Instant, RowError};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A buffer goes to the disk at this size. Two exist for each open file: one filling, one being written.
const BUFFER_BYTES: usize = 1 << 20;

/// Rows as the bytes of a file, in order.
pub trait Encode: Send {
    /// What comes before all rows.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), String>;

    /// The rows with these numbers; refused ones leave nothing and come back.
    fn rows(&mut self, batch: &RecordBatch, picked: &[u32], out: &mut Vec<u8>) -> Result<Vec<RowError>, String>;

    /// What comes after all rows.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), String>;
}

/// A buffer on its way to the disk; file and buffer come back.
type Writing = JoinHandle<std::io::Result<(File, Vec<u8>)>>;

/// An open file under its hidden name. Dropped without `publish` or `remove` it removes the file.
pub struct Part {
    io: Handle,
    encode: Box<dyn Encode>,
    temporary: Temporary,
    /// What messages name: the hidden file, or the pipe or device.
    path: PathBuf,
    file: Option<File>,
    writing: Option<Writing>,
    buffer: Vec<u8>,
    spare: Vec<u8>,
    /// Bytes so far.
    pub bytes: u64,
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
        Part::begin(io, file, path.clone(), Temporary(Some(path)), encode, begun)
    }

    /// Writes into a pipe or a device; waits for somebody to read a pipe.
    pub async fn into_stream(io: Handle, path: PathBuf, encode: Box<dyn Encode>, begun: Instant) -> Result<Part, ConnectError> {
        let opened = path.clone();
        let open = move || File::options().write(true).open(&opened).map_err(|error| ConnectError::of_file("write", &opened, &error));
        let file = on(&io, open).await?;
        Part::begin(io, file, path, Temporary(None), encode, begun)
    }

    fn begin(
        io: Handle,
        file: File,
        path: PathBuf,
        temporary: Temporary,
        mut encode: Box<dyn Encode>,
        begun: Instant,
    ) -> Result<Part, ConnectError> {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        encode.begin(&mut buffer).map_err(ConnectError::internal)?;
        let bytes = buffer.len() as u64;
        Ok(Part { io, encode, temporary, path, file: Some(file), writing: None, buffer, spare: Vec::new(), bytes, rows: 0, begun })
    }

    /// Adds rows of a batch.
    pub async fn write(&mut self, batch: &RecordBatch, picked: &[u32]) -> Result<Vec<RowError>, ConnectError> {
        let before = self.buffer.len();
        let errors = self.encode.rows(batch, picked, &mut self.buffer).map_err(ConnectError::internal)?;
        self.rows += (picked.len() - errors.len()) as u64;
        self.bytes += (self.buffer.len() - before) as u64;
        if self.buffer.len() >= BUFFER_BYTES {
            self.hand_over().await?;
        }
        Ok(errors)
    }

    /// Completes the file and gives it its name. A crash leaves the whole file or none.
    pub async fn publish(mut self, name: PathBuf) -> Result<(), ConnectError> {
        let before = self.buffer.len();
        self.encode.end(&mut self.buffer).map_err(ConnectError::internal)?;
        self.bytes += (self.buffer.len() - before) as u64;
        self.hand_over().await?;
        self.settle().await?;
        let file = self.file.take().ok_or_else(|| ConnectError::internal("a part without its file"))?;
        // A stream has no other name to get.
        let Some(path) = self.temporary.0.clone() else { return Ok(()) };
        on(&self.io, move || {
            file.sync_all().map_err(|error| ConnectError::of_file("write", &path, &error))?;
            publish::rename(&path, &name)
        })
        .await?;
        self.temporary.0 = None;
        Ok(())
    }

    /// Bytes that the end of the file will add are not known before; for roll sizes this is near enough.
    pub fn is_at_least(&self, bytes: u64) -> bool {
        self.bytes >= bytes
    }

    /// Removes the file.
    pub async fn remove(mut self) {
        // What was being written must end first, or it would be written to a file without a name.
        let _ = self.settle().await;
        let temporary = std::mem::replace(&mut self.temporary, Temporary(None));
        let _ = self.io.spawn_blocking(move || drop(temporary)).await;
    }

    /// Sends the buffer to the disk, once the one before is there.
    async fn hand_over(&mut self) -> Result<(), ConnectError> {
        self.settle().await?;
        let mut file = self.file.take().ok_or_else(|| ConnectError::internal("a part without its file"))?;
        let mut buffer = std::mem::replace(&mut self.buffer, std::mem::take(&mut self.spare));
        self.writing = Some(self.io.spawn_blocking(move || {
            file.write_all(&buffer)?;
            buffer.clear();
            Ok((file, buffer))
        }));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ConnectError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = writing.await.map_err(ConnectError::internal)?;
        self.writing = None;
        let (file, buffer) = written.map_err(|error| ConnectError::of_file("write", &self.path, &error))?;
        (self.file, self.spare) = (Some(file), buffer);
        Ok(())
    }
}

/// Runs what blocks on the I/O runtime.
pub async fn on<T: Send + 'static>(
    io: &Handle,
    work: impl FnOnce() -> Result<T, ConnectError> + Send + 'static,
) -> Result<T, ConnectError> {
    io.spawn_blocking(work).await.map_err(ConnectError::internal)?
}
