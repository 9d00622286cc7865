//! Where files of checkpoints lie: a local folder, or an object store.
//!
//! Invariant: a file is created whole and is never changed. What `put_new` and [`NewFile::finish`] have returned from survives
//! the process and the machine's kernel, and of several that create one name exactly one wins.

mod local;
mod remote;
#[cfg(test)]
mod tests;

pub use local::LocalFolder;
pub use remote::RemoteStore;

use super::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A file in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, with its folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What became of creating a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there, and holds the bytes given. A name that held just these bytes before counts too: an earlier try of this call may have succeeded
    /// unseen. Whoever competes for a name must write something that is its own.
    Yes,
    /// Another has created it first.
    Exists,
}

/// A folder of files. Names are relative and use `/`.
#[async_trait]
pub trait Storage: Send + Sync {
    /// The full path or URL of a name, for messages.
    fn describe(&self, name: &str) -> String;

    /// Creates a small file; it is durable on return.
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError>;

    /// Creates a file that is too large for memory. Nothing is visible before it is finished.
    async fn create(&self, name: &str) -> Result<Box<dyn NewFile>, StoreError>;

    /// The whole of a small file; `None`: there is no such file.
    async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError>;

    /// A part of a file: less than asked for if the file ends before. A missing file is [`StoreError::Damaged`].
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The files in a folder, not those of its subfolders, in order of name.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes files, durably; those that do not exist are passed over.
    async fn delete(&self, names: &[String]) -> Result<(), StoreError>;

    /// Removes what dead processes have left unfinished. Only the owner of the current generation may.
    async fn sweep(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// A lock against starting twice by mistake, held until all who have it drop it; `None`: this storage has none. [`StoreError::User`]: another
    /// process has it.
    fn lock(&self) -> Result<Option<Arc<std::fs::File>>, StoreError> {
        Ok(None)
    }
}

/// A file that is being written. Dropped unfinished, it has never been there.
#[async_trait]
pub trait NewFile: Send {
    /// Appends.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Gives the file its name; it is durable on return.
    async fn finish(self: Box<Self>) -> Result<Created, StoreError>;
}

/// The storage at a path or URL. The folder is created by the first file.
pub fn open(place: &str) -> Result<Arc<dyn Storage>, StoreError> {
    match place.split_once("://") {
        None => Ok(Arc::new(LocalFolder::new(place))),
        Some(("file", path)) => Ok(Arc::new(LocalFolder::new(path))),
        Some(_) => Ok(Arc::new(RemoteStore::from_url(place)?)),
    }
}
