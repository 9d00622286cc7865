//! The index and the footer of a segment.

use super::block::{Reading, put_bytes};
use super::{FOOTER_BYTES, MAGIC, Malformed, VERSION};
use bytes::Bytes;
use pelton_core::varint;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectionKind {
    /// Rows in order of address.
    Keyed,
    /// One row a partition.
    Unkeyed,
}

/// Writes an index.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    sections: Vec<SectionBuilder>,
    /// Rows of all sections.
    pub rows: u64,
}

#[derive(Debug)]
struct SectionBuilder {
    uid: String,
    name: String,
    kind: SectionKind,
    rows: u64,
    blocks: u64,
    entries: Vec<u8>,
}

impl IndexBuilder {
    /// Blocks that follow belong to this section. False: it is not above the last one.
    pub fn begin(&mut self, uid: &str, name: &str, kind: SectionKind) -> bool {
        let in_order = self.sections.last().is_none_or(|last| (last.uid.as_str(), last.name.as_str()) < (uid, name));
        let entries = Vec::new();
        self.sections.push(SectionBuilder { uid: uid.into(), name: name.into(), kind, rows: 0, blocks: 0, entries });
        in_order
    }

    /// A block of the section at hand.
    pub fn block(&mut self, block: &super::block::Block<'_>) {
        let Some(section) = self.sections.last_mut() else { return };
        varint::write(&mut section.entries, block.bytes.len() as u64);
        section.entries.extend_from_slice(&xxh3_64(block.bytes).to_le_bytes());
        varint::write(&mut section.entries, block.rows);
        put_bytes(block.first, &mut section.entries);
        section.rows += block.rows;
        section.blocks += 1;
        self.rows += block.rows;
    }

    /// Index and footer, and the hash of the segment.
    pub fn finish(&self) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        varint::write(&mut out, self.sections.len() as u64);
        for section in &self.sections {
            put_bytes(section.uid.as_bytes(), &mut out);
            put_bytes(section.name.as_bytes(), &mut out);
            out.push(match section.kind {
                SectionKind::Keyed => 0,
                SectionKind::Unkeyed => 1,
            });
            varint::write(&mut out, section.rows);
            varint::write(&mut out, section.blocks);
            out.extend_from_slice(&section.entries);
        }
        let (length, hash) = (out.len() as u64, xxh3_64(&out));
        let footer = out.len();
        for number in [length, self.rows, hash] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let hash = xxh3_64(&out[footer..]);
        out.extend_from_slice(&hash.to_le_bytes());
        (out, hash)
    }
}

/// A footer that was read.
#[derive(Clone, Copy, Debug)]
pub struct Footer {
    /// Length of the index.
    pub index_bytes: u64,
    /// xxh3-64 of it.
    pub index_hash: u64,
    /// The hash of the segment.
    pub hash: u64,
}

impl Footer {
    /// From the last bytes of a file.
    pub fn read(tail: &[u8]) -> Result<Footer, Malformed> {
        let bytes = tail.last_chunk::<FOOTER_BYTES>().ok_or("it is too short")?;
        if bytes[28..32] != MAGIC {
            return Err("it does not end as a segment does");
        }
        let version = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        let mut reading = Reading::new(bytes, 0);
        let (index_bytes, _rows, index_hash) = (reading.fixed()?, reading.fixed()?, reading.fixed()?);
        let hash = Reading::new(bytes, 32).fixed()?;
        if xxh3_64(&bytes[..32]) != hash {
            return Err("the checksum of its footer is wrong");
        }
        // Only after the checksum: a flipped bit is not a later version.
        if version != VERSION {
            return Err("a later version of pelton has written it; use that version");
        }
        Ok(Footer { index_bytes, index_hash, hash })
    }
}

/// A section that was read.
#[derive(Debug)]
pub struct Section {
    /// The operator.
    pub uid: String,
    /// The name of its state.
    pub name: String,
    /// What it holds.
    pub kind: SectionKind,
    /// Its rows.
    pub rows: u64,
    /// Its blocks in the order of their addresses.
    pub blocks: Vec<BlockEntry>,
}

/// Where a block is and what it begins with.
#[derive(Clone, Debug)]
pub struct BlockEntry {
    /// Offset in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// xxh3-64 of it.
    pub hash: u64,
    /// The place of its first address in the index.
    first: Range<usize>,
}

/// An index that was read.
#[derive(Debug)]
pub struct Index {
    bytes: Bytes,
    /// In order of (uid, name).
    pub sections: Vec<Section>,
}

impl Index {
    /// From its bytes, of a file whose blocks take up `limit` bytes. What it allocates is at most some times the length of the index.
    pub fn read(bytes: Bytes, limit: u64) -> Result<Index, Malformed> {
        let mut reading = Reading::new(&bytes, 0);
        let count = reading.number()?;
        let mut sections: Vec<Section> = Vec::new();
        let mut offset = 0u64;
        for _ in 0..count {
            let (uid, name) = (reading.text()?.to_string(), reading.text()?.to_string());
            if sections.last().is_some_and(|last| (&last.uid, &last.name) >= (&uid, &name)) {
                return Err("its sections are not in order");
            }
            let kind = match reading.byte()? {
                0 => SectionKind::Keyed,
                1 => SectionKind::Unkeyed,
                _ => return Err("a section is of an unknown kind"),
            };
            let (rows, count) = (reading.number()?, reading.number()?);
            let mut blocks = Vec::new();
            for _ in 0..count {
                let (length, hash, _rows, first) = (reading.number()?, reading.fixed()?, reading.number()?, reading.bytes()?);
                blocks.push(BlockEntry { offset, bytes: length, hash, first });
                offset = offset.checked_add(length).filter(|end| *end <= limit).ok_or("a block lies outside of it")?;
            }
            sections.push(Section { uid, name, kind, rows, blocks });
        }
        if !reading.is_done() || offset != limit {
            return Err("its index does not cover it");
        }
        Ok(Index { bytes, sections })
    }

    /// The first address of a block.
    pub fn first(&self, block: &BlockEntry) -> &[u8] {
        &self.bytes[block.first.clone()]
    }

    /// The section of a state.
    pub fn find(&self, uid: &str, name: &str) -> Option<usize> {
        self.sections.binary_search_by(|section| (section.uid.as_str(), section.name.as_str()).cmp(&(uid, name))).ok()
    }
}
