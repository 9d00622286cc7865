//! Reads parts of a segment.

use super::block::BlockRows;
use super::index::{BlockEntry, Footer, Index, Section};
use super::{FOOTER_BYTES, Malformed, SectionKind, SegmentFile};
use crate::Row;
use crate::durable::StoreError;
use crate::durable::storage::Storage;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The end of a file is read first, so many bytes at once: the index of a small segment comes with it.
const TAIL_BYTES: u64 = 64 << 10;
/// Blocks that follow each other are read together up to this many bytes.
const READ_BYTES: u64 = 1 << 20;

/// An open segment: its index is in memory.
pub struct Segment {
    storage: Arc<dyn Storage>,
    name: String,
    index: Index,
}

impl Segment {
    /// Opens the segment that a manifest names.
    pub async fn open(storage: Arc<dyn Storage>, file: &SegmentFile) -> Result<Arc<Segment>, StoreError> {
        let place = storage.describe(&file.name);
        let damaged = |what: Malformed| StoreError::damaged(place.clone(), what);
        let tail = read_exactly(&*storage, &file.name, file.bytes.saturating_sub(TAIL_BYTES)..file.bytes).await?;
        let footer = Footer::read(&tail).map_err(damaged)?;
        if footer.hash != file.hash {
            return Err(damaged("it is not the file that the manifest names: their hashes differ"));
        }
        let end = (FOOTER_BYTES as u64).checked_add(footer.index_bytes);
        let blocks = end.and_then(|end| file.bytes.checked_sub(end)).ok_or_else(|| damaged("its index is longer than the file"))?;
        let index_end = file.bytes - FOOTER_BYTES as u64;
        let index = if footer.index_bytes + FOOTER_BYTES as u64 <= tail.len() as u64 {
            tail.slice(tail.len() - FOOTER_BYTES - footer.index_bytes as usize..tail.len() - FOOTER_BYTES)
        } else {
            read_exactly(&*storage, &file.name, blocks..index_end).await?
        };
        if xxh3_64(&index) != footer.index_hash {
            return Err(damaged("the checksum of its index is wrong"));
        }
        let index = Index::read(index, blocks).map_err(damaged)?;
        Ok(Arc::new(Segment { storage, name: file.name.clone(), index }))
    }

    /// Its sections: uid, name, kind and rows.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &str, SectionKind, u64)> {
        self.index.sections.iter().map(|section| (section.uid.as_str(), section.name.as_str(), section.kind, section.rows))
    }

    /// What kind of section a state has here.
    pub fn kind(&self, uid: &str, name: &str) -> Option<SectionKind> {
        self.index.find(uid, name).map(|section| self.index.sections[section].kind)
    }

    /// The rows of a state within a range of key groups; of what is not keyed, all. `None`: there is no such section.
    pub fn rows(self: &Arc<Segment>, uid: &str, name: &str, groups: Range<u16>) -> Option<SegmentCursor> {
        let section = self.index.find(uid, name)?;
        let Section { kind, blocks, .. } = &self.index.sections[section];
        let (from, blocks, groups) = match kind {
            SectionKind::Unkeyed => (0, 0..blocks.len(), None),
            SectionKind::Keyed => {
                let below = |group: u16| blocks.partition_point(|block| self.index.first(block) < &group.to_be_bytes()[..]);
                // The block before the first that begins in the range may end in it.
                (below(groups.start).saturating_sub(1), 0..below(groups.end), Some(groups))
            }
        };
        let next = from.min(blocks.end)..blocks.end;
        Some(SegmentCursor { segment: self.clone(), section, next, ahead: Vec::new(), rows: None, groups })
    }

    fn damaged(&self, what: Malformed) -> StoreError {
        StoreError::damaged(self.storage.describe(&self.name), what)
    }
}

/// Goes through the rows of a section. It holds some blocks, never more than [`READ_BYTES`] unless one block is larger.
pub struct SegmentCursor {
    segment: Arc<Segment>,
    section: usize,
    /// Blocks that are not read.
    next: Range<usize>,
    /// Blocks that are read and come next, the last of them first.
    ahead: Vec<Bytes>,
    /// The block at hand, at a row.
    rows: Option<BlockRows>,
    groups: Option<Range<u16>>,
}

impl SegmentCursor {
    /// The row at hand. `None`: [`Self::fill`] has to be called, or there are no more.
    pub fn row(&self) -> Option<Row<'_>> {
        self.rows.as_ref().map(BlockRows::row)
    }

    /// Goes on within the block at hand; rows of one address are in one.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        loop {
            match rows.advance() {
                Err(what) => return Err(self.segment.damaged(what)),
                Ok(false) => {
                    self.rows = None;
                    return Ok(());
                }
                Ok(true) => {}
            }
            let Some(groups) = &self.groups else { return Ok(()) };
            let group = rows.row().group();
            if group >= groups.end {
                self.rows = None;
                self.ahead.clear();
                self.next.start = self.next.end;
                return Ok(());
            }
            if group >= groups.start {
                return Ok(());
            }
        }
    }

    /// Comes to a row if there is one, reading blocks. False: there are no more.
    pub async fn fill(&mut self) -> Result<bool, StoreError> {
        while self.rows.is_none() {
            if self.ahead.is_empty() && !self.read_ahead().await? {
                return Ok(false);
            }
            self.rows = self.ahead.pop().map(BlockRows::new);
            self.advance()?;
        }
        Ok(true)
    }

    /// Reads the next blocks. False: there are none.
    async fn read_ahead(&mut self) -> Result<bool, StoreError> {
        let segment = self.segment.clone();
        let blocks = &segment.index.sections[self.section].blocks[self.next.clone()];
        let Some(first) = blocks.first() else { return Ok(false) };
        let fits = |block: &&BlockEntry| block.offset + block.bytes - first.offset <= READ_BYTES;
        let count = blocks.iter().take_while(fits).count().max(1);
        let last = &blocks[count - 1];
        let bytes = read_exactly(&*segment.storage, &segment.name, first.offset..last.offset + last.bytes).await?;
        for block in blocks[..count].iter().rev() {
            let from = (block.offset - first.offset) as usize;
            let block_bytes = bytes.slice(from..from + block.bytes as usize);
            if xxh3_64(&block_bytes) != block.hash {
                return Err(segment.damaged("the checksum of a block is wrong"));
            }
            self.ahead.push(block_bytes);
        }
        self.next.start += count;
        Ok(true)
    }
}

/// Bytes that have to be there.
async fn read_exactly(storage: &dyn Storage, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
    let wanted = range.end - range.start;
    let bytes = storage.get_range(name, range).await?;
    if bytes.len() as u64 == wanted {
        Ok(bytes)
    } else {
        Err(StoreError::damaged(storage.describe(name), "it is shorter than it was written"))
    }
}
