//! The state of one manifest, to be read: for a restart, at another parallelism, for an inspection, for a savepoint.

use super::manifest::Manifest;
use super::merge::{Merge, Removals};
use super::segment::{SectionKind, Segment, SegmentCursor, SegmentWriter};
use super::storage::Storage;
use super::{StoreError, Stored};
use crate::Row;
use futures::{StreamExt, TryStreamExt};
use pelton_core::{Epoch, failpoint};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Segments that are opened at a time.
const OPENED_AT_ONCE: usize = 8;

/// See the module. As long as it is held, garbage collection leaves its files alone.
pub struct Snapshot {
    storage: Arc<dyn Storage>,
    manifest: Arc<Manifest>,
    segments: OnceCell<Vec<(Epoch, Arc<Segment>)>>,
    _pin: Arc<()>,
}

impl Snapshot {
    /// The last decided epoch of a store, for those who only look: nothing holds garbage collection back.
    pub async fn newest(storage: Arc<dyn Storage>) -> Result<Snapshot, StoreError> {
        let stored = super::checkpoints::look(&*storage).await?;
        Snapshot::newest_of(storage, &stored)
    }

    /// The last decided epoch of what was found in a store.
    pub fn newest_of(storage: Arc<dyn Storage>, stored: &Stored) -> Result<Snapshot, StoreError> {
        let decided = stored.progress.decided.as_ref().and_then(|decision| stored.decided(decision));
        let none = || {
            StoreError::user(
                format!("{} has no checkpoint that counts", storage.describe("")),
                "let the pipeline come to its first checkpoint",
            )
        };
        let manifest = decided.ok_or_else(none)?.manifest.clone();
        Ok(Snapshot::new(storage, manifest, Arc::new(())))
    }

    /// The state that a manifest in a storage names; the files live as long as `pin` has other owners that care.
    pub(super) fn new(storage: Arc<dyn Storage>, manifest: Arc<Manifest>, pin: Arc<()>) -> Snapshot {
        Snapshot { storage, manifest, segments: OnceCell::new(), _pin: pin }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the files lie.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The rows of a state in order of address, of some of its key groups; a state that the manifest does not list has none.
    pub async fn rows(&self, uid: &str, name: &str, groups: Range<u16>) -> Result<Merge, StoreError> {
        failpoint::hit("restore.begin");
        let Some(state) = self.manifest.state(uid, name) else { return Ok(Merge::new(Vec::new(), Removals::Drop)) };
        let cursors = state_cursors(self.segments().await?, (uid, name), state.since, groups)?;
        failpoint::hit("restore.half");
        Ok(Merge::new(cursors, Removals::Drop))
    }

    /// What is kept of an operator by partition: pairs of the partition's id and bytes.
    pub async fn parts(&self, uid: &str, name: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let Some(state) = self.manifest.state(uid, name) else { return Ok(Vec::new()) };
        let mut parts = Vec::new();
        let Some(mut cursor) = newest_parts(self.segments().await?, (uid, name), state.since)? else { return Ok(parts) };
        while cursor.fill().await? {
            if let Some(Row { address, change: crate::Change::Put(bytes), .. }) = cursor.row() {
                let id = String::from_utf8(address.to_vec()).map_err(|_| StoreError::internal("a partition's id is not UTF-8"))?;
                parts.push((id, bytes.to_vec()));
            }
            cursor.advance()?;
        }
        Ok(parts)
    }

    /// Rows that its segments hold of a state, superseded ones with them: what a restore has to read at most.
    pub async fn stored_rows(&self, uid: &str, name: &str) -> Result<u64, StoreError> {
        let rows = |segment: &Segment| {
            segment.sections().filter(|section| (section.0, section.1) == (uid, name)).map(|section| section.3).sum::<u64>()
        };
        Ok(self.segments().await?.iter().map(|(_, segment)| rows(segment)).sum())
    }

    /// Reads every block, and so finds any damage.
    pub async fn verify(&self) -> Result<(), StoreError> {
        for (_, segment) in self.segments().await? {
            let names: Vec<(String, String)> = segment.sections().map(|(uid, name, ..)| (uid.into(), name.into())).collect();
            for (uid, name) in names {
                let Some(mut cursor) = segment.rows(&uid, &name, 0..u16::MAX) else { continue };
                while cursor.fill().await? {
                    cursor.advance()?;
                }
            }
        }
        Ok(())
    }

    /// Its segments from old to new, each with the last epoch in it.
    pub(super) async fn segments(&self) -> Result<&[(Epoch, Arc<Segment>)], StoreError> {
        let open = || open_segments(&self.storage, &self.manifest.segments);
        self.segments.get_or_try_init(open).await.map(Vec::as_slice)
    }
}

/// Opens segments, some at a time.
pub(super) async fn open_segments(
    storage: &Arc<dyn Storage>,
    entries: &[super::manifest::SegmentEntry],
) -> Result<Vec<(Epoch, Arc<Segment>)>, StoreError> {
    let opening: Vec<_> = entries.iter().map(|entry| (entry.last, storage.clone(), entry.file())).collect();
    let opened =
        futures::stream::iter(opening.into_iter().map(async |(last, storage, file)| Ok((last, Segment::open(storage, &file).await?))));
    opened.buffered(OPENED_AT_ONCE).try_collect().await
}

/// Cursors over the rows of a state since it began, from old to new.
fn state_cursors(
    segments: &[(Epoch, Arc<Segment>)],
    (uid, name): (&str, &str),
    since: Epoch,
    groups: Range<u16>,
) -> Result<Vec<SegmentCursor>, StoreError> {
    let mut cursors = Vec::new();
    for (_, segment) in segments.iter().filter(|(last, _)| *last >= since) {
        match segment.kind(uid, name) {
            None => {}
            Some(SectionKind::Keyed) => cursors.extend(segment.rows(uid, name, groups.clone())),
            Some(SectionKind::Unkeyed) => {
                return Err(StoreError::internal(format!("`{name}` of `{uid}` is kept by partition, and is read by key")));
            }
        }
    }
    Ok(cursors)
}

/// A cursor over the newest section of a state that is kept by partition.
fn newest_parts(segments: &[(Epoch, Arc<Segment>)], (uid, name): (&str, &str), since: Epoch) -> Result<Option<SegmentCursor>, StoreError> {
    let newest =
        segments.iter().rev().filter(|(last, _)| *last >= since).find_map(|(_, segment)| Some((segment, segment.kind(uid, name)?)));
    match newest {
        None => Ok(None),
        Some((segment, SectionKind::Unkeyed)) => Ok(segment.rows(uid, name, 0..u16::MAX)),
        Some((_, SectionKind::Keyed)) => Err(StoreError::internal(format!("`{name}` of `{uid}` is kept by key, and is read by partition"))),
    }
}

/// Writes what counts of some segments, for those states of `manifest` that are wanted. `half` is the failpoint between two pieces.
pub(super) async fn write_merged(
    segments: &[(Epoch, Arc<Segment>)],
    manifest: &Manifest,
    wanted: impl Fn(&str) -> bool,
    removals: Removals,
    half: &'static str,
    writer: &mut SegmentWriter,
) -> Result<(), StoreError> {
    let names: BTreeSet<(&str, &str)> =
        segments.iter().flat_map(|(_, segment)| segment.sections()).map(|(uid, name, ..)| (uid, name)).collect();
    for (uid, name) in names.into_iter().filter(|(uid, _)| wanted(uid)) {
        let Some(state) = manifest.state(uid, name) else { continue };
        let (kind, mut merge) = if state.unkeyed {
            let newest = newest_parts(segments, (uid, name), state.since)?;
            (SectionKind::Unkeyed, Merge::new(newest.into_iter().collect(), Removals::Keep))
        } else {
            (SectionKind::Keyed, Merge::new(state_cursors(segments, (uid, name), state.since, 0..u16::MAX)?, removals))
        };
        writer.section(uid, name, kind);
        while merge.chunk(|row| writer.push(row)).await? {
            writer.drain().await?;
            failpoint::hit(half);
        }
    }
    Ok(())
}
