//! A folder of the local file system.
//!
//! A file is written under a hidden name, synced, and linked to its own name, which fails if that is taken; then the folder is synced. A failed sync
//! is final: the kernel may have dropped the bytes and would call the next sync a success, so every later call fails as well.

use super::{Created, Listed, NewFile, Storage};
use crate::durable::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use pelton_core::failpoint;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// Marks the names of unfinished files: `.<name>.tmp-<process>-<number>`.
const UNFINISHED: &str = ".tmp-";
const LOCK: &str = "lock";
/// Tells this process's unfinished files from those of dead ones.
static PROCESS: LazyLock<String> = LazyLock::new(|| format!("{:016x}", super::super::random()));
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// Locks of this process, by folder.
static HELD: Mutex<BTreeMap<PathBuf, Weak<File>>> = Mutex::new(BTreeMap::new());

/// See the module.
#[derive(Clone, Debug)]
pub struct LocalFolder {
    folder: Arc<PathBuf>,
    /// A sync has failed.
    broken: Arc<AtomicBool>,
}

impl LocalFolder {
    /// The storage in a folder.
    pub fn new(folder: impl Into<PathBuf>) -> LocalFolder {
        LocalFolder { folder: Arc::new(folder.into()), broken: Arc::default() }
    }

    /// Removes all that is in the folder, for a pipeline that begins anew. Its lock is held until that is done, and stays: no process that still has it is
    /// robbed of its files, and whoever starts next competes for the same lock.
    pub fn clear(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let entries = std::fs::read_dir(&*self.folder).map_err(|error| failed("list", &self.folder, &error))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.file_name().is_some_and(|name| name != LOCK)) {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|error| failed("remove", &path, &error))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs blocking work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalFolder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        if this.broken.load(Ordering::Acquire) {
            return Err(StoreError::Fatal { message: format!("{} is not used any more: a sync has failed", this.folder.display()) });
        }
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(StoreError::internal)?
    }

    /// What a failed sync is: final.
    fn sync_failed(&self, path: &Path, error: &std::io::Error) -> StoreError {
        self.broken.store(true, Ordering::Release);
        StoreError::Fatal { message: format!("cannot sync {}: {error}", path.display()) }
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| self.sync_failed(folder, &error))
    }

    /// Makes the folder that a file lies in, and those above, durably.
    fn make_folder(&self, folder: &Path) -> Result<(), StoreError> {
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        if let Some(above) = above {
            self.make_folder(above)?;
        }
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed("create", folder, &error)),
            _ => {}
        }
        self.sync_folder(above.unwrap_or(Path::new(".")))
    }

    fn begin(&self, name: &str) -> Result<Unfinished, StoreError> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        self.make_folder(&folder)?;
        let last = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = folder.join(format!(".{last}{UNFINISHED}{}-{}", *PROCESS, NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().write(true).create_new(true).open(&hidden).map_err(|error| failed("create", &hidden, &error))?;
        Ok(Unfinished { storage: self.clone(), file, hidden, folder, path })
    }

    /// Removes names and syncs each folder once.
    fn remove(&self, names: &[String]) -> Result<(), StoreError> {
        let mut folders: Vec<PathBuf> = Vec::new();
        for name in names {
            let path = self.path(name);
            match std::fs::remove_file(&path) {
                Ok(()) => folders.extend(path.parent().map(Path::to_path_buf)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("remove", &path, &error)),
            }
        }
        folders.sort();
        folders.dedup();
        folders.iter().try_for_each(|folder| self.sync_folder(folder))
    }
}

/// A file under its hidden name.
struct Unfinished {
    storage: LocalFolder,
    file: File,
    hidden: PathBuf,
    folder: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|error| failed("write", &self.path, &error))
    }

    fn finish(self) -> Result<Created, StoreError> {
        failpoint::hit("storage.written");
        self.file.sync_all().map_err(|error| self.storage.sync_failed(&self.path, &error))?;
        failpoint::hit("storage.synced");
        match std::fs::hard_link(&self.hidden, &self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Created::Exists),
            // Only an owner that came later sweeps.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Fenced {
                    message: format!("fenced: another process has removed the unfinished {}", self.path.display()),
                });
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let message = format!("cannot create {}: its file system has no hard links", self.path.display());
                return Err(StoreError::user(message, "keep checkpoints on a local disk, or in an object store by its URL"));
            }
            Err(error) => return Err(failed("create", &self.path, &error)),
        }
        failpoint::hit("storage.linked");
        self.storage.sync_folder(&self.folder)?;
        Ok(Created::Yes)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What stays is removed by the next owner's sweep.
        let _ = std::fs::remove_file(&self.hidden);
    }
}

/// [`Unfinished`], each step on a thread that may block.
struct LocalFile {
    storage: LocalFolder,
    unfinished: Option<Unfinished>,
}

#[async_trait]
impl NewFile for LocalFile {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        // A failed write leaves nothing to go on with.
        let mut unfinished = self.unfinished.take().ok_or_else(|| StoreError::internal("a write after a failed one"))?;
        let written = self.storage.blocking(move |_| unfinished.write(&bytes).map(|()| unfinished)).await?;
        self.unfinished = Some(written);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Created, StoreError> {
        let unfinished = self.unfinished.take().ok_or_else(|| StoreError::internal("a finish after a failed write"))?;
        self.storage.blocking(move |_| unfinished.finish()).await
    }
}

#[async_trait]
impl Storage for LocalFolder {
    fn describe(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let name = name.to_string();
        self.blocking(move |this| {
            let mut unfinished = this.begin(&name)?;
            unfinished.write(&bytes)?;
            match unfinished.finish()? {
                Created::Exists if std::fs::read(this.path(&name)).is_ok_and(|found| found == bytes) => {
                    this.sync_folder(this.path(&name).parent().unwrap_or(Path::new(".")))?;
                    Ok(Created::Yes)
                }
                created => Ok(created),
            }
        })
        .await
    }

    async fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError> {
        let name = name.to_string();
        let unfinished = self.blocking(move |this| this.begin(&name)).await?;
        Ok(Box::new(LocalFile { storage: self.clone(), unfinished: Some(unfinished) }))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(name);
        self.blocking(move |_| match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        })
        .await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let path = self.path(name);
        self.blocking(move |_| {
            let read = || -> std::io::Result<Vec<u8>> {
                let mut file = File::open(&path)?;
                // The range may come from a damaged index: no more room than there are bytes.
                let end = range.end.min(file.metadata()?.len());
                let mut bytes = Vec::with_capacity(end.saturating_sub(range.start) as usize);
                file.seek(SeekFrom::Start(range.start))?;
                file.take(end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            match read() {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(StoreError::damaged(path.display().to_string(), "it does not exist"))
                }
                Err(error) => Err(failed("read", &path, &error)),
            }
        })
        .await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let (path, folder) = (self.path(folder), folder.to_string());
        self.blocking(move |_| {
            let entries = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(failed("list", &path, &error)),
            };
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry.map_err(|error| failed("list", &path, &error))?;
                let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_string) else { continue };
                match entry.metadata() {
                    Ok(metadata) if metadata.is_file() => found.push(Listed { name: join(&folder, &name), bytes: metadata.len() }),
                    Ok(_) => {}
                    // Removed meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failed("list", &path, &error)),
                }
            }
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        })
        .await
    }

    async fn delete(&self, names: &[String]) -> Result<(), StoreError> {
        let names = names.to_vec();
        self.blocking(move |this| this.remove(&names)).await
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        self.blocking(|this| {
            let mut folders = vec![this.folder.to_path_buf()];
            for entry in std::fs::read_dir(&*this.folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
            for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') && name.contains(UNFINISHED) && !name.contains(&*PROCESS) {
                    // It would only cost space.
                    let _ = std::fs::remove_file(entry.path());
                }
            }
            Ok(())
        })
        .await
    }

    fn lock(&self) -> Result<Option<Arc<File>>, StoreError> {
        self.make_folder(&self.folder)?;
        let path = self.path(LOCK);
        let canonical = self.folder.canonicalize().map_err(|error| failed("find", &self.folder, &error))?;
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        // A pipeline that starts again within its process goes on with the lock that it has.
        if let Some(file) = held.get(&canonical).and_then(Weak::upgrade) {
            return Ok(Some(file));
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|error| failed("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => {
                // Only for the message of those who find it locked.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                let file = Arc::new(file);
                held.insert(canonical, Arc::downgrade(&file));
                Ok(Some(file))
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let message = format!("{} is in use by process {}", self.folder.display(), holder.trim());
                Err(StoreError::user(
                    message,
                    "stop that process first; if it hangs or cannot be reached, start with `--take-over`, which ends its ownership",
                ))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(failed("lock", &path, &error)),
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") }
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::of_file(doing, &path.display().to_string(), error)
}
