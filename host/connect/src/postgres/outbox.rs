//! Tuples of an epoch in a file, until a transaction takes them.
//!
//! A file holds tuples of a binary COPY one after the other, without COPY's header and footer. What they are for stands in the manifest, in
//! [`Outgoing`]: length and checksum too. Names: `postgres-SINK-gGENERATION-eEPOCH-sSHARD.tuples`, where SINK is the hash of the sink's uid.
//!
//! Invariant: a file that is named in a manifest is whole and durable, its name too.

use super::load::Load;
use crate::ConnectError;
use crate::commit::{Identity, Staged, StagedFile};
use pelton_core::{Epoch, Generation, failpoint};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A buffer goes to the disk at this size. Two exist for each open file: one filling, one being written.
const BUFFER_BYTES: usize = 1 << 20;

/// A file that waits to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its name in the outbox.
    pub file: String,
    /// The epoch of its rows.
    pub epoch: Epoch,
    /// Rows in it.
    pub rows: u64,
    /// Some of them delete.
    pub removes: bool,
    /// Its length.
    pub bytes: u64,
    /// xxh3-64 of its bytes.
    pub checksum: u64,
    /// Where the rows go.
    pub load: Load,
}

/// What a shard has staged, as it stands in the manifest.
pub fn staged(files: &[Outgoing]) -> Result<Staged, ConnectError> {
    Ok(Staged(serde_json::to_vec(files).map_err(ConnectError::internal)?))
}

/// And back; nothing at all is a shard without rows.
pub fn read_staged(staged: &Staged) -> Result<Vec<Outgoing>, ConnectError> {
    if staged.0.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&staged.0).map_err(|error| {
        ConnectError::user(
            format!("what a checkpoint says of an outbox of WriteToPostgres cannot be read: {error}"),
            "it is damaged, or of another version of pelton: run that version, or begin again from a savepoint",
        )
    })
}

/// The files of a shard, for whoever keeps them elsewhere too.
pub fn staged_files(staged: &Staged) -> Result<Vec<StagedFile>, ConnectError> {
    let file = |file: Outgoing| StagedFile { name: file.file, epoch: file.epoch, bytes: file.bytes };
    Ok(read_staged(staged)?.into_iter().map(file).collect())
}

/// What the names of a sink's files begin with.
fn prefix(uid: &str) -> String {
    format!("postgres-{:016x}-", xxh3_64(uid.as_bytes()))
}

/// The generation that has written a file of a sink.
fn generation_of(name: &str, prefix: &str) -> Option<Generation> {
    name.strip_prefix(prefix)?.strip_prefix('g')?.split_once('-')?.0.parse().ok()
}

/// Removes what this process and earlier ones have written for a sink: all that was decided is applied. Files of later generations stay: this process may have
/// stood still, and been overtaken.
pub async fn clear(identity: &Identity, uid: &str, io: &Handle) -> Result<(), ConnectError> {
    failpoint::hit("postgres.clear");
    let (folder, prefix, ours) = (identity.outbox.clone(), prefix(uid), identity.generation);
    let clearing = io.spawn_blocking(move || {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| ConnectError::of_file("list the outbox", &folder, &error))?,
        };
        for entry in entries.flatten() {
            if generation_of(&entry.file_name().to_string_lossy(), &prefix).is_some_and(|generation| generation <= ours) {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    });
    clearing.await.map_err(ConnectError::internal)?
}

/// Removes files that were applied.
pub async fn remove(identity: &Identity, files: &[Outgoing], io: &Handle) -> Result<(), ConnectError> {
    let paths: Vec<PathBuf> = files.iter().map(|file| identity.outbox.join(&file.file)).collect();
    io.spawn_blocking(move || paths.iter().try_for_each(|path| remove_file(path))).await.map_err(ConnectError::internal)?
}

fn remove_file(path: &Path) -> Result<(), ConnectError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ConnectError::of_file("remove the outbox file", path, &error)),
        _ => Ok(()),
    }
}

/// A file that is being written.
pub struct Writer {
    io: Handle,
    path: PathBuf,
    file: Option<File>,
    writing: Option<JoinHandle<std::io::Result<File>>>,
    digest: Xxh3,
    /// Tuples that are not on their way to the disk yet.
    pub buffer: Vec<u8>,
    outgoing: Outgoing,
    kept: bool,
}

impl Writer {
    /// Creates the file of an epoch.
    pub async fn create(
        identity: &Identity,
        uid: &str,
        shard: usize,
        epoch: Epoch,
        load: &Load,
        io: &Handle,
    ) -> Result<Writer, ConnectError> {
        let name = format!("{}g{}-e{epoch}-s{shard}.tuples", prefix(uid), identity.generation);
        let (path, folder) = (identity.outbox.join(&name), identity.outbox.clone());
        let created = path.clone();
        let creating = io.spawn_blocking(move || {
            std::fs::create_dir_all(&folder).map_err(|error| ConnectError::of_file("create the outbox", &folder, &error))?;
            File::create(&created).map_err(|error| ConnectError::of_file("write the outbox file", &created, &error))
        });
        let file = creating.await.map_err(ConnectError::internal)??;
        let outgoing = Outgoing { file: name, epoch, rows: 0, removes: false, bytes: 0, checksum: 0, load: load.clone() };
        let digest = Xxh3::new();
        Ok(Writer { io: io.clone(), path, file: Some(file), writing: None, digest, buffer: Vec::new(), outgoing, kept: false })
    }

    /// Rows were added to the buffer.
    pub async fn added(&mut self, rows: u64, removes: bool) -> Result<(), ConnectError> {
        self.outgoing.rows += rows;
        self.outgoing.removes |= removes;
        if self.buffer.len() >= BUFFER_BYTES { self.hand_over().await } else { Ok(()) }
    }

    /// Ends the file; `durable`: it and its name survive a crash of the machine.
    pub async fn close(mut self, durable: bool) -> Result<Outgoing, ConnectError> {
        self.hand_over().await?;
        self.settle().await?;
        self.kept = true;
        self.outgoing.checksum = self.digest.digest();
        if durable {
            let (file, path) = (self.file.take(), self.path.clone());
            let syncing = self.io.spawn_blocking(move || {
                let sync = || {
                    file.map_or(Ok(()), |file| file.sync_all())?;
                    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
                };
                sync().map_err(|error: std::io::Error| ConnectError::of_file("write the outbox file", &path, &error))
            });
            syncing.await.map_err(ConnectError::internal)??;
            failpoint::hit("postgres.staged");
        }
        Ok(self.outgoing.clone())
    }

    async fn hand_over(&mut self) -> Result<(), ConnectError> {
        self.settle().await?;
        let buffer = std::mem::take(&mut self.buffer);
        self.digest.update(&buffer);
        self.outgoing.bytes += buffer.len() as u64;
        let mut file = self.file.take().ok_or_else(|| ConnectError::internal("an outbox file was lost"))?;
        self.writing = Some(self.io.spawn_blocking(move || file.write_all(&buffer).map(|()| file)));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ConnectError> {
        if let Some(writing) = self.writing.take() {
            let written = writing.await.map_err(ConnectError::internal)?;
            self.file = Some(written.map_err(|error| ConnectError::of_file("write the outbox file", &self.path, &error))?);
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody knows of it; if it stays, recovery removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_of_later_generations_stay() {
        let folder = tempfile::tempdir().unwrap();
        let names = |uid: &str| [1, 2, 30].map(|generation| format!("{}g{generation}-e4-s0.tuples", prefix(uid)));
        for name in names("ours").iter().chain(&names("other")) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let identity = Identity {
            pipeline: "p".into(),
            generation: 2,
            again: false,
            interval: std::time::Duration::ZERO,
            outbox: folder.path().to_path_buf(),
        };
        clear(&identity, "ours", &Handle::current()).await.unwrap();
        let there = |names: [String; 3]| names.map(|name| folder.path().join(name).exists());
        assert_eq!((there(names("ours")), there(names("other"))), ([false, false, true], [true; 3]));
    }
}
