//! A file that is written from a worker: bytes are gathered in one buffer while the one before is on its way to the disk.

use super::disk;
use super::part::on;
use crate::ConnectError;
use std::fs::File;
use std::path::PathBuf;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

/// A buffer goes to the disk at this size. Two exist for each open file: one filling, one being written.
const BUFFER_BYTES: usize = 1 << 20;

/// A buffer on its way to the disk; file and buffer come back.
type Writing = JoinHandle<std::io::Result<(File, Vec<u8>)>>;

/// An open file.
pub struct Output {
    io: Handle,
    /// What messages name.
    path: PathBuf,
    file: Option<File>,
    writing: Option<Writing>,
    buffer: Vec<u8>,
    spare: Vec<u8>,
    /// Bytes so far, those in the buffer included.
    pub bytes: u64,
    /// Of all those bytes.
    hash: Xxh3,
}

impl Output {
    /// Writes into a file that is empty.
    pub fn new(io: Handle, path: PathBuf, file: File) -> Output {
        Output::after(io, path, file, 0, Xxh3::new())
    }

    /// Writes on where the file ends: after `bytes`, and what they have made of the hash.
    pub fn after(io: Handle, path: PathBuf, file: File, bytes: u64, hash: Xxh3) -> Output {
        Output { io, path, file: Some(file), writing: None, buffer: Vec::with_capacity(BUFFER_BYTES), spare: Vec::new(), bytes, hash }
    }

    /// xxh3-64 of all bytes so far.
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    /// Takes what `fill` appends; sent on its way when it is enough.
    pub async fn append<T>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> Result<T, ConnectError>) -> Result<T, ConnectError> {
        let before = self.buffer.len();
        let made = fill(&mut self.buffer)?;
        self.bytes += (self.buffer.len() - before) as u64;
        self.hash.update(&self.buffer[before..]);
        if self.buffer.len() >= BUFFER_BYTES {
            self.hand_over(false).await?;
        }
        Ok(made)
    }

    /// Sends what there is on its way, and lets it be made durable: [`settle`](Output::settle) waits for that.
    pub async fn begin_sync(&mut self) -> Result<(), ConnectError> {
        self.hand_over(true).await
    }

    /// Everything that was appended is in the file.
    pub async fn flush(&mut self) -> Result<(), ConnectError> {
        self.hand_over(false).await?;
        self.settle().await
    }

    /// Waits for what is on its way.
    pub async fn settle(&mut self) -> Result<(), ConnectError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = writing.await.map_err(ConnectError::internal)?;
        self.writing = None;
        let (file, buffer) = written.map_err(|error| ConnectError::of_file("write", &self.path, &error))?;
        (self.file, self.spare) = (Some(file), buffer);
        Ok(())
    }

    /// Closes the file, everything in it durable.
    pub async fn close(mut self) -> Result<(), ConnectError> {
        self.begin_sync().await?;
        self.finish().await
    }

    /// Closes the file, everything in it where readers of this machine find it.
    pub async fn flush_and_finish(mut self) -> Result<(), ConnectError> {
        self.hand_over(false).await?;
        self.finish().await
    }

    /// Waits for what is on its way, and closes the file.
    pub async fn finish(mut self) -> Result<(), ConnectError> {
        self.settle().await?;
        let file = self.file.take();
        on(&self.io, move || {
            drop(file);
            Ok(())
        })
        .await
    }

    /// Sends the buffer to the disk, once the one before is there.
    async fn hand_over(&mut self, sync: bool) -> Result<(), ConnectError> {
        self.settle().await?;
        let mut file = self.file.take().ok_or_else(|| ConnectError::internal("an output without its file"))?;
        let mut buffer = std::mem::replace(&mut self.buffer, std::mem::take(&mut self.spare));
        let path = self.path.clone();
        self.writing = Some(self.io.spawn_blocking(move || {
            if !buffer.is_empty() {
                disk::write(&mut file, &path, &buffer)?;
            }
            if sync {
                disk::sync(&file, &path)?;
            }
            buffer.clear();
            Ok((file, buffer))
        }));
        Ok(())
    }
}
