//! Writes a segment from front to back.

use super::block::BlockBuilder;
use super::index::{IndexBuilder, SectionKind};
use super::{BLOCK_BYTES, Malformed};
use crate::durable::StoreError;
use crate::durable::storage::{Created, NewFile, Storage};
use crate::rows::GROUP_BYTES;
use crate::{Change, Row};
use pelton_core::failpoint;

/// What is encoded is handed to the file in pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A segment that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its name in the storage.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// See the format.
    pub hash: u64,
    /// Its rows.
    pub rows: u64,
}

/// Writes a segment. Sections come in order of (uid, name), rows in order of address; of one address a removal of everything before what was put since.
pub struct SegmentWriter {
    name: String,
    file: Box<dyn NewFile>,
    /// Encoded, not yet handed to the file.
    pending: Vec<u8>,
    written: u64,
    block: BlockBuilder,
    index: IndexBuilder,
    /// The last row removed everything at its address.
    removed_all: bool,
    any_row: bool,
    kind: SectionKind,
    /// A block is closed when it is this long.
    block_bytes: usize,
    wrong: Option<Malformed>,
}

impl SegmentWriter {
    /// Begins a file.
    pub async fn create(storage: &dyn Storage, name: String) -> Result<SegmentWriter, StoreError> {
        failpoint::hit("segment.begin");
        let file = storage.create(&name).await?;
        let (block, index) = (BlockBuilder::default(), IndexBuilder::default());
        let kind = SectionKind::Keyed;
        Ok(SegmentWriter {
            name,
            file,
            pending: Vec::new(),
            written: 0,
            block,
            index,
            removed_all: false,
            any_row: false,
            kind,
            block_bytes: BLOCK_BYTES,
            wrong: None,
        })
    }

    /// With blocks of another length.
    #[cfg(test)]
    pub fn with_block_bytes(mut self, block_bytes: usize) -> SegmentWriter {
        self.block_bytes = block_bytes;
        self
    }

    /// Rows that follow are of this state.
    pub fn section(&mut self, uid: &str, name: &str, kind: SectionKind) {
        self.close_block();
        self.block.restart();
        (self.removed_all, self.any_row, self.kind) = (false, false, kind);
        if !self.index.begin(uid, name, kind) {
            self.wrong = Some("sections are not in order");
        }
    }

    /// The next row. Call [`Self::drain`] now and then.
    pub fn push(&mut self, row: Row<'_>) {
        let order = row.address.cmp(self.block.last());
        let same = self.any_row && order.is_eq();
        if self.any_row && (order.is_lt() || same && (!self.removed_all || row.change == Change::RemoveAll)) {
            self.wrong = Some("rows are not in order");
        }
        if self.kind == SectionKind::Keyed && row.address.len() < GROUP_BYTES {
            self.wrong = Some("a row has no key group");
        }
        if self.block.len() >= self.block_bytes && !same {
            self.close_block();
        }
        self.block.push(row);
        (self.any_row, self.removed_all) = (true, row.change == Change::RemoveAll);
    }

    fn close_block(&mut self) {
        if let Some(block) = self.block.close() {
            self.index.block(&block);
            self.pending.extend_from_slice(block.bytes);
            self.block.clear();
        }
    }

    /// Hands on what is encoded if there is enough of it.
    pub async fn drain(&mut self) -> Result<(), StoreError> {
        if self.pending.len() >= PIECE_BYTES { self.write_pending().await } else { Ok(()) }
    }

    async fn write_pending(&mut self) -> Result<(), StoreError> {
        self.written += self.pending.len() as u64;
        self.file.write(std::mem::take(&mut self.pending).into()).await?;
        failpoint::hit("segment.half");
        Ok(())
    }

    /// Ends the file; it is durable on return.
    pub async fn finish(mut self) -> Result<SegmentFile, StoreError> {
        self.close_block();
        if let Some(wrong) = self.wrong {
            return Err(StoreError::internal(format!("a segment is not written: {wrong}")));
        }
        let (end, hash) = self.index.finish();
        self.pending.extend_from_slice(&end);
        self.write_pending().await?;
        let created = self.file.finish().await?;
        failpoint::hit("segment.finished");
        match created {
            Created::Yes => Ok(SegmentFile { name: self.name, bytes: self.written, hash, rows: self.index.rows }),
            Created::Exists => Err(StoreError::internal(format!("{} was written before", self.name))),
        }
    }
}
