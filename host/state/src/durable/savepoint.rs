//! Savepoints: state that stands by itself, can be moved, and belongs to no pipeline's store.
//!
//! ```text
//! segments/<number>          one for each operator, without anything superseded
//! savepoint                  a manifest that names them; written last
//! ```

use super::checkpoints::{ADOPTED, Checkpoints};
use super::manifest::{FORMAT, Manifest, ManifestId, SegmentEntry};
use super::merge::Removals;
use super::segment::SegmentWriter;
use super::snapshot::{Snapshot, write_merged};
use super::storage::{Created, Storage};
use super::{StoreError, sealed};
use bytes::Bytes;
use pelton_core::failpoint;
use std::sync::Arc;

const NAME: &str = "savepoint";
/// A copied file is read and written in pieces of this many bytes.
const PIECE_BYTES: u64 = 1 << 20;

impl Snapshot {
    /// Copies the state into an empty place.
    pub async fn copy_to(&self, target: &dyn Storage) -> Result<(), StoreError> {
        let taken = || StoreError::user(format!("{} is not empty", target.describe("")), "name a new folder for each savepoint");
        if target.get(NAME).await?.is_some() || !target.list("segments").await?.is_empty() {
            return Err(taken());
        }
        let mut segments = Vec::new();
        let last = self.manifest().id.epoch;
        for (number, operator) in (1..).zip(&self.manifest().contents.operators) {
            let mut writer = SegmentWriter::create(target, format!("segments/{number:06}")).await?;
            let wanted = |uid: &str| uid == operator.uid;
            write_merged(self.segments().await?, self.manifest(), wanted, Removals::Drop, "savepoint.half", &mut writer).await?;
            let file = writer.finish().await?;
            segments.push(SegmentEntry { name: file.name, bytes: file.bytes, hash: file.hash, rows: file.rows, first: 0, last });
        }
        let mut manifest = Manifest { segments, ..self.manifest().clone() };
        // What was to be delivered is the original's business.
        manifest.contents.sinks.iter_mut().for_each(|sink| sink.outbox.clear());
        let (bytes, _) = sealed::write(&manifest)?;
        failpoint::hit("savepoint.manifest");
        if target.put_new(NAME, bytes).await? == Created::Exists { Err(taken()) } else { Ok(()) }
    }
}

/// The state in a savepoint.
pub async fn open(storage: Arc<dyn Storage>) -> Result<Snapshot, StoreError> {
    let none = || {
        StoreError::user(
            format!("{} is no savepoint", storage.describe("")),
            "check the path: a savepoint's folder has a file `savepoint` in it",
        )
    };
    let bytes = storage.get(NAME).await?.ok_or_else(none)?;
    sealed::check_format(&storage.describe(NAME), &bytes, FORMAT)?;
    let (manifest, _): (Manifest, _) = sealed::read(&bytes).map_err(|what| StoreError::damaged(storage.describe(NAME), what))?;
    Ok(Snapshot::new(storage, Arc::new(manifest), Arc::new(())))
}

impl Checkpoints {
    /// Makes the state of a savepoint this store's beginning: its files are copied, and the first epoch goes out from them. The store must have no epoch.
    /// Which of the states go on is for the contents of that epoch to say. It holds for later processes, too, until an epoch is decided.
    pub async fn adopt(&self, savepoint: &Snapshot) -> Result<(), StoreError> {
        if !self.current().lineage.is_empty() {
            return Err(StoreError::internal("a savepoint is adopted by a store that has epochs"));
        }
        let mut manifest = savepoint.manifest().clone();
        for entry in &mut manifest.segments {
            let name = self.segment_name(0, 0);
            copy_file(&**savepoint.storage(), entry, &*self.storage, &name).await?;
            (entry.name, entry.first, entry.last) = (name, 0, 0);
        }
        for state in manifest.contents.operators.iter_mut().flat_map(|operator| &mut operator.states) {
            state.since = 0;
        }
        (manifest.id, manifest.parent) = (ManifestId { epoch: 0, generation: 0 }, None);
        if self.storage.put_new(ADOPTED, sealed::write(&manifest)?.0).await? == Created::Exists {
            return Err(StoreError::internal(format!("{} was written before", self.storage.describe(ADOPTED))));
        }
        self.current().adopted = Some(Arc::new(manifest));
        Ok(())
    }
}

/// Copies a segment. Whoever opens the copy checks its hash.
async fn copy_file(from: &dyn Storage, entry: &SegmentEntry, to: &dyn Storage, name: &str) -> Result<(), StoreError> {
    let mut file = to.create(name).await?;
    let mut at = 0;
    while at < entry.bytes {
        let bytes: Bytes = from.get_range(&entry.name, at..entry.bytes.min(at + PIECE_BYTES)).await?;
        if bytes.is_empty() {
            return Err(StoreError::damaged(from.describe(&entry.name), "it is shorter than it was written"));
        }
        at += bytes.len() as u64;
        file.write(bytes).await?;
    }
    match file.finish().await? {
        Created::Yes => Ok(()),
        Created::Exists => Err(StoreError::internal(format!("{} was written before", to.describe(name)))),
    }
}
