//! Gives the files of decided epochs their names.
//!
//! ```text
//!  link or rename each file to its name → remove files of earlier runs → sync the folder → write the list of the epoch → remove hidden names
//! ```
//!
//! Each step may have been done before, by this process or by an earlier one. The list stands for all steps before it; a hidden name is
//! removed only when the list is durable, so that an epoch can be made visible again from the beginning until then.
//!
//! Why a process that was taken for dead does no harm when it goes on in the middle: the names that it links, renames and removes are those of
//! an epoch that its successor has made visible before doing anything else. A hidden file that is gone cannot be linked or renamed; a name
//! that is there is not written over; hidden names are never used twice; an earlier run's file is removed only as long as it is that very file.

use super::disk::{self, Committed};
use super::part::on;
use super::publish::Naming;
use super::staging::{ClosedFile, EarlierFile, ShardStaged, Staging};
use crate::ConnectError;
use crate::commit::{CommitTarget, Committer, Identity, Staged};
use async_trait::async_trait;
use pelton_core::{Epoch, Generation, failpoint};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use tokio::runtime::Handle;

/// Commits for all shards of one sink.
pub struct FileCommitter {
    work: Work,
    io: Handle,
}

/// What its blocking steps need.
#[derive(Clone)]
struct Work {
    staging: Staging,
    naming: Naming,
    /// The sink's transform, for messages.
    transform: String,
}

/// What has become visible with an epoch, for readers that do not list folders.
#[derive(Serialize)]
struct EpochList<'a> {
    pipeline: &'a str,
    epoch: Epoch,
    files: Vec<ListedFile<'a>>,
}

#[derive(Serialize)]
struct ListedFile<'a> {
    name: &'a str,
    rows: u64,
    bytes: u64,
}

impl FileCommitter {
    /// For a sink with a `path`.
    pub fn new(target: CommitTarget, identity: &Identity, shards: usize, io: Handle) -> Result<FileCommitter, ConnectError> {
        let path = target.config.get("path").and_then(serde_json::Value::as_str).unwrap_or_default();
        let naming = Naming { path: super::find::absolute(&target.base_dir, path)?, shard: 0, shards };
        let staging = Staging::new(naming.clone(), identity, &target.uid);
        Ok(FileCommitter { work: Work { staging, naming, transform: target.transform }, io })
    }

    /// `recovers`: the epoch that was decided last.
    async fn with(&self, staged: &[Staged], recovers: Option<Epoch>) -> Result<(), ConnectError> {
        let shards = staged.iter().map(ShardStaged::of).collect::<Result<Vec<_>, _>>()?;
        let work = self.work.clone();
        on(&self.io, move || {
            // What another pipeline had staged, from which this one is a fork, is its own.
            let own = |shard: &Option<ShardStaged>| shard.as_ref().is_some_and(|shard| shard.pipeline == work.staging.pipeline);
            let shards: Vec<ShardStaged> = shards
                .into_iter()
                .enumerate()
                .filter(|(_, shard)| own(shard))
                .map(|(number, shard)| {
                    let shard = shard.unwrap_or_default();
                    work.check_shard(number, &shard).map(|()| shard)
                })
                .collect::<Result<_, _>>()?;
            work.commit(&shards)?;
            match recovers {
                Some(decided) => work.check_lists(decided).and_then(|()| work.sweep(&shards)),
                None => Ok(()),
            }
        })
        .await
    }
}

#[async_trait]
impl Committer for FileCommitter {
    async fn commit(&mut self, _epoch: Epoch, staged: &[Staged]) -> Result<(), ConnectError> {
        self.with(staged, None).await
    }

    async fn recover(&mut self, epoch: Epoch, staged: &[Staged]) -> Result<(), ConnectError> {
        self.with(staged, Some(epoch)).await
    }
}

impl Work {
    fn check_shard(&self, number: usize, shard: &ShardStaged) -> Result<(), ConnectError> {
        if number < self.naming.shards || shard.open.is_empty() {
            return Ok(());
        }
        Err(ConnectError::user(
            format!("{}: `num_shards` is {}, and shard {number} has rows that nobody has seen yet", self.transform, self.naming.shards),
            format!("set `num_shards` to at least {} until this run has ended", number + 1),
        ))
    }

    /// Makes visible what is not: of this epoch, and of shards that had ended before it.
    fn commit(&self, shards: &[ShardStaged]) -> Result<(), ConnectError> {
        let mut by_epoch: BTreeMap<(Epoch, Generation), Vec<&ShardStaged>> = BTreeMap::new();
        for shard in shards {
            by_epoch.entry((shard.epoch, shard.generation)).or_default().push(shard);
        }
        by_epoch.into_iter().try_for_each(|((epoch, generation), shards)| self.commit_epoch(epoch, generation, &shards))
    }

    fn commit_epoch(&self, epoch: Epoch, generation: Generation, shards: &[&ShardStaged]) -> Result<(), ConnectError> {
        let closed = || shards.iter().flat_map(|shard| &shard.closed);
        if closed().next().is_some() {
            let list = self.staging.list(epoch, generation);
            if disk::look(&list)?.is_none() {
                if generation < self.staging.generation {
                    closed().try_for_each(|file| self.check_closed(file))?;
                }
                closed().try_for_each(|file| self.reveal(file))?;
                failpoint::hit("files.named");
                let ours: HashSet<&str> = closed().map(|file| file.name.as_str()).collect();
                let earlier = shards.iter().flat_map(|shard| &shard.earlier);
                earlier.filter(|file| !ours.contains(file.name.as_str())).try_for_each(|file| self.remove_earlier(file))?;
                disk::sync_directory(self.naming.directory())?;
                self.write_list(&list, epoch, closed())?;
                failpoint::hit("files.listed");
            }
            closed().try_for_each(|file| disk::remove(&self.staging.path(&file.file)))?;
        }
        shards.iter().flat_map(|shard| &shard.unneeded).try_for_each(|file| disk::remove(&self.staging.path(file)))
    }

    /// What an earlier life has written, and nobody has seen yet, is as it was.
    fn check_closed(&self, file: &ClosedFile) -> Result<(), ConnectError> {
        let path = self.staging.path(&file.file);
        match disk::look(&path)? {
            Some(_) => Committed { path, length: file.bytes, hash: file.hash }.check(),
            None => Ok(()),
        }
    }

    /// Nothing of an epoch after the one that was decided last has become visible: else a file of the checkpoint store is gone.
    fn check_lists(&self, decided: Epoch) -> Result<(), ConnectError> {
        let folder = self.staging.lists();
        let newest = disk::names_in(&folder)?.iter().filter_map(|name| name.split_once('-')?.0.parse::<Epoch>().ok()).max();
        match newest.filter(|newest| *newest > decided) {
            None => Ok(()),
            Some(newest) => Err(ConnectError::user(
                format!(
                    "{} says that epoch {newest} has become visible, but the last one that the checkpoint store knows to be decided is {decided}: a file of the store is missing",
                    folder.display()
                ),
                "put the file of the store's folder `progress` back from a copy, or write to another `path` with an empty state",
            )),
        }
    }

    /// Gives a file its name, if it has not got it.
    fn reveal(&self, file: &ClosedFile) -> Result<(), ConnectError> {
        let (hidden, name) = (self.staging.path(&file.file), self.staging.path(&file.name));
        let failed = |error: std::io::Error| ConnectError::of_file("publish", &name, &error);
        if file.replaces {
            return match disk::rename(&hidden, &name) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.must_be_there(&hidden, &name),
                renamed => renamed.map_err(failed),
            };
        }
        match disk::link(&hidden, &name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => self.must_be_there(&hidden, &name),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.must_be_same(&hidden, &name),
            // A file system without links.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => match disk::look(&name)? {
                None => disk::rename(&hidden, &name).map_err(failed),
                Some(_) => self.must_be_same(&hidden, &name),
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// The hidden name is gone: then somebody has given the file its name.
    fn must_be_there(&self, hidden: &Path, name: &Path) -> Result<(), ConnectError> {
        match disk::look(name)? {
            Some(_) => Ok(()),
            None => Err(ConnectError::user(
                format!("{} is to become visible, and is neither there nor under its hidden name {}", name.display(), hidden.display()),
                "restore it from a copy of the disk; if you have taken it away yourself, put an empty file in its place, and start again",
            )),
        }
    }

    /// Both names are there: then they are names of one file.
    fn must_be_same(&self, hidden: &Path, name: &Path) -> Result<(), ConnectError> {
        let look = |path: &Path| Ok::<_, ConnectError>(disk::look(path)?.map(|metadata| EarlierFile::of(String::new(), &metadata)));
        match (look(hidden)?, look(name)?) {
            (Some(hidden), Some(name)) if hidden == name => Ok(()),
            (None, Some(_)) => Ok(()),
            _ => Err(ConnectError::user(
                format!("{} exists, and this pipeline did not write it", name.display()),
                "move it away and start again: nothing is lost, the rows wait under a hidden name",
            )),
        }
    }

    /// Removes a file of an earlier run, if it still is that one.
    fn remove_earlier(&self, file: &EarlierFile) -> Result<(), ConnectError> {
        let path = self.staging.path(&file.name);
        match disk::look(&path)? {
            Some(metadata) if EarlierFile::of(file.name.clone(), &metadata) == *file => disk::remove(&path),
            _ => Ok(()),
        }
    }

    fn write_list<'a>(&self, list: &Path, epoch: Epoch, files: impl Iterator<Item = &'a ClosedFile>) -> Result<(), ConnectError> {
        let files = files.map(|file| ListedFile { name: &file.name, rows: file.rows, bytes: file.bytes }).collect();
        let content = EpochList { pipeline: &self.staging.pipeline, epoch, files };
        let mut text = serde_json::to_vec(&content).map_err(ConnectError::internal)?;
        text.push(b'\n');
        let folder = self.staging.lists();
        disk::create_directory(&folder)?;
        let hidden = folder.join(format!(".{epoch}.g{}", self.staging.generation));
        disk::remove(&hidden)?;
        let mut file = disk::create(&hidden)?;
        let written = disk::write(&mut file, &hidden, &text).and_then(|()| disk::sync(&file, &hidden));
        written.map_err(|error| ConnectError::of_file("write", &hidden, &error))?;
        // Whoever else writes this list writes the same.
        disk::rename(&hidden, list).map_err(|error| ConnectError::of_file("write", list, &error))?;
        disk::sync_directory(&folder)?;
        // The folders are new with the first list.
        folder.parent().map_or(Ok(()), disk::sync_directory)?;
        disk::sync_directory(self.naming.directory())
    }

    /// Removes hidden files of earlier generations that nobody goes on with.
    fn sweep(&self, shards: &[ShardStaged]) -> Result<(), ConnectError> {
        let open: HashSet<&str> =
            shards.iter().flat_map(|shard| &shard.open).flat_map(|file| &file.pieces).map(|piece| piece.file.as_str()).collect();
        let earlier = |name: &String| self.staging.generation_of(name).is_some_and(|generation| generation < self.staging.generation);
        let names = disk::names_in(self.naming.directory())?;
        let left = names.iter().filter(|name| earlier(name) && !open.contains(name.as_str()));
        left.map(|name| self.staging.path(name)).try_for_each(|path| disk::remove(&path))?;
        failpoint::hit("files.swept");
        Ok(())
    }
}
