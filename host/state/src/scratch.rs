//! Where cells lie that do not fit into memory: a tree of keys and values on disk for each [`crate::Cells`] (decision 0017).
//!
//! Nothing in it has to survive the process, so nothing is written twice, and what is left over is removed by the next start. A scratch
//! folder is one of its own for each start, with a file that is locked as long as the start lives.
//!
//! Invariants: this module alone knows the storage engine; every error names the folder and says what to do.

use lsm_tree::compaction::Leveled;
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, SeqNo, SequenceNumberCounter};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The file that says whose a folder is.
const LOCK: &str = "lock";
/// Files of trees that are held open.
const OPEN_FILES: usize = 256;
/// What is not flushed of a tree, at least and at most, bytes.
const WRITE_BUFFER: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;
/// The least block cache.
const MIN_CACHE: u64 = 256 << 10;
/// A compaction is done by the task that writes: tables are small, so that each is short.
const TABLE_BYTES: u64 = 16 << 20;
/// Runs of flushed tables from which a write compacts until there are fewer.
const MAX_RUNS: usize = 8;

/// The disk did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the working store of state in {folder}: {message}\n  next: {next}")]
pub struct ScratchError {
    /// Where.
    pub folder: String,
    /// What.
    pub message: String,
    /// What to do.
    pub next: &'static str,
}

impl ScratchError {
    fn io(folder: &Path, error: &std::io::Error) -> ScratchError {
        let next = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                "free space on this disk, or give `--state` a folder on a larger one, and run again: it goes on from its last checkpoint"
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "give `--state` a folder that this user may write to, and run again"
            }
            _ => "look after this disk, or give `--state` a folder on another one, and run again: it goes on from its last checkpoint",
        };
        ScratchError { folder: folder.display().to_string(), message: error.to_string(), next }
    }

    fn engine(folder: &Path, error: &lsm_tree::Error) -> ScratchError {
        match error {
            lsm_tree::Error::Io(error) => ScratchError::io(folder, error),
            other => ScratchError::damaged(folder, &format!("{other:?}")),
        }
    }

    /// What was read is not what was written.
    pub(crate) fn damaged(folder: &Path, message: &str) -> ScratchError {
        ScratchError {
            folder: folder.display().to_string(),
            message: format!("it is damaged: {message}"),
            next: "look after this disk, and run again: it goes on from its last checkpoint",
        }
    }
}

/// The folder of one start, and the memory that its trees share.
pub struct Scratch {
    folder: PathBuf,
    /// Locked as long as the folder is in use.
    _lock: File,
    cache: Arc<Cache>,
    files: Arc<DescriptorTable>,
    /// Of `memory`, for each of the users.
    share: u64,
    trees: AtomicU64,
}

impl Scratch {
    /// Makes a folder inside `parent`, and removes those that nobody uses. `memory` is shared by so many `users`.
    pub fn open(parent: &Path, memory: u64, users: usize) -> Result<Arc<Scratch>, ScratchError> {
        let failed = |error: std::io::Error| ScratchError::io(parent, &error);
        std::fs::create_dir_all(parent).map_err(failed)?;
        for entry in std::fs::read_dir(parent).map_err(failed)?.flatten() {
            let left_over = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
            if left_over {
                // What cannot be removed now is by a later start.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        static STARTS: AtomicU64 = AtomicU64::new(0);
        let folder = parent.join(format!("{}-{}", std::process::id(), STARTS.fetch_add(1, Relaxed)));
        // Of a process that had our number, and left before it had a lock.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(failed)?;
        }
        std::fs::create_dir(&folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|error| ScratchError::io(&folder, &error.into()))?;
        Ok(Arc::new(Scratch {
            folder,
            _lock: lock,
            cache: Arc::new(Cache::with_capacity_bytes((memory / 8).max(MIN_CACHE))),
            files: Arc::new(DescriptorTable::new(OPEN_FILES)),
            share: memory / users.max(1) as u64,
            trees: AtomicU64::new(0),
        }))
    }

    /// Bytes of cells that one user may keep in memory.
    pub(crate) fn cells(&self) -> usize {
        (self.share / 8 * 5) as usize
    }

    /// A tree, empty.
    pub(crate) fn tree(&self) -> Result<Tree, ScratchError> {
        let folder = self.folder.join(self.trees.fetch_add(1, Relaxed).to_string());
        let (written, visible) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let config = Config::new(&folder, written.clone(), visible).use_cache(self.cache.clone());
        let opened = config.use_descriptor_table(Some(self.files.clone())).open();
        let tree = opened.map_err(|error| ScratchError::engine(&folder, &error))?;
        let strategy = Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES));
        Ok(Tree { tree, folder, written, strategy, buffer: (self.share / 16).clamp(*WRITE_BUFFER.start(), *WRITE_BUFFER.end()) })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is by the next start.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Keys and values in order of key.
pub(crate) struct Tree {
    tree: AnyTree,
    folder: PathBuf,
    /// Counts writes: the engine keeps the last of each key.
    written: SequenceNumberCounter,
    strategy: Arc<Leveled>,
    /// Bytes that are flushed at once.
    buffer: u64,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Tree {
    /// Where it is, for messages.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a value; it is there also where this fails.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ScratchError> {
        let (_, held) = self.tree.insert(key, value, self.written.next());
        self.flush(held)
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), ScratchError> {
        let (_, held) = self.tree.remove(key, self.written.next());
        self.flush(held)
    }

    /// The value at a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<impl AsRef<[u8]> + use<>>, ScratchError> {
        self.tree.get(key, SeqNo::MAX).map_err(|error| ScratchError::engine(&self.folder, &error))
    }

    /// Keys from one on, before another.
    pub fn keys(&self, from: &[u8], before: &[u8]) -> impl Iterator<Item = Result<Vec<u8>, ScratchError>> {
        let keys = self.tree.range(from..before, SeqNo::MAX, None);
        keys.map(|item| item.key().map(|key| key.to_vec()).map_err(|error| ScratchError::engine(&self.folder, &error)))
    }

    /// Keys and values that begin with a prefix.
    pub fn entries(&self, prefix: &[u8]) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), ScratchError>> {
        let items = self.tree.prefix(prefix, SeqNo::MAX, None);
        items.map(|item| {
            let read = item.into_inner().map_err(|error| ScratchError::engine(&self.folder, &error))?;
            Ok((read.0.to_vec(), read.1.to_vec()))
        })
    }

    fn flush(&self, held: u64) -> Result<(), ScratchError> {
        if held < self.buffer {
            return Ok(());
        }
        let failed = |error: lsm_tree::Error| ScratchError::engine(&self.folder, &error);
        self.tree.rotate_memtable();
        let lock = self.tree.get_flush_lock();
        self.tree.flush(&lock, self.written.get()).map_err(failed)?;
        drop(lock);
        loop {
            let runs = self.tree.l0_run_count();
            self.tree.compact(self.strategy.clone(), self.written.get()).map_err(failed)?;
            if self.tree.l0_run_count() < MAX_RUNS || self.tree.l0_run_count() >= runs {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_removes_what_dead_ones_left_and_nothing_of_living_ones() {
        let parent = tempfile::tempdir().expect("a folder");
        let living = Scratch::open(parent.path(), 1 << 20, 1).expect("a folder");
        let dead = parent.path().join("1-0");
        std::fs::create_dir(&dead).expect("a folder");
        std::fs::write(dead.join(LOCK), []).expect("a file");
        let other = Scratch::open(parent.path(), 1 << 20, 1).expect("another one");
        assert!(!dead.exists() && living.folder.exists() && other.folder != living.folder);
        let folder = living.folder.clone();
        drop(living);
        assert!(!folder.exists());
    }

    #[test]
    fn a_tree_keeps_the_last_of_each_key_over_flushes() {
        let parent = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::open(parent.path(), 0, 1).expect("a folder");
        let mut tree = scratch.tree().expect("a tree");
        for round in 0..20u32 {
            for key in 0..200u32 {
                let value = [round.to_be_bytes(), key.to_be_bytes()].concat().repeat(20);
                tree.put(&key.to_be_bytes(), &value).expect("written");
            }
        }
        (0..100u32).for_each(|key| tree.remove(&key.to_be_bytes()).expect("removed"));
        let left: Vec<_> = tree.keys(&[], &[255]).collect::<Result<_, _>>().expect("read");
        assert_eq!(left, (100..200u32).map(|key| key.to_be_bytes().to_vec()).collect::<Vec<_>>());
        let value = tree.get(&150u32.to_be_bytes()).expect("read").expect("there");
        assert_eq!(value.as_ref()[..8], [19u32.to_be_bytes(), 150u32.to_be_bytes()].concat());
        assert!(tree.get(&50u32.to_be_bytes()).expect("read").is_none());
    }
}
