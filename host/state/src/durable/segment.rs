//! Segments: files of rows.
//!
//! A segment holds what one epoch has changed, or what several have after a merge, of all operators. It is written once, from front to back,
//! and read in parts.
//!
//! ```text
//! segment = block* | index | footer
//! block   = row*                                            about 64 KiB; of one section; the rows of one address are in one block
//! row     = shared | rest | key | change | rest bytes | value bytes
//!             shared: bytes of the address that are those of the row before it in the block; rest: its other bytes;
//!             key: bytes of the key within the address; change: 0 removed, 1 removed with all below it, n + 2 a value of n bytes
//! index   = number of sections | section*
//! section = uid | name | kind: u8 | rows | number of blocks | entry*     sections in order of (uid, name)
//!             kind 0: rows in order of address; kind 1: what is not keyed, one row a partition, its address is the partition's id
//! entry   = length of the block | xxh3-64 of the block: u64 | rows | first address
//! footer  = length of the index: u64 | rows: u64 | xxh3-64 of the index: u64 | version: u32 | "PSEG" | xxh3-64 of the footer up to here: u64
//! ```
//!
//! Numbers are LEB128, those with a width are little-endian; texts and addresses have their length before them. Blocks lie one after the
//! other from offset 0 in the order of the index. The last number of the footer is the *hash* of the segment: it covers the index, which covers every
//! block, and it stands in the manifest. So a flipped bit is found, and a whole file of another time as well.
//!
//! A section of kind 1 is everything that its name holds; in several segments, that of the newest counts.

mod block;
mod index;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use index::SectionKind;
pub use read::{Segment, SegmentCursor};
pub use write::{SegmentFile, SegmentWriter};

/// The version that is written. Files of every version from 1 are read.
pub const VERSION: u32 = 1;
/// Marks the end of a segment.
pub const MAGIC: [u8; 4] = *b"PSEG";
/// A block is closed when it is this long.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Bytes of the footer.
const FOOTER_BYTES: usize = 8 + 8 + 8 + 4 + 4 + 8;

/// What is wrong with bytes that were read.
pub(crate) type Malformed = &'static str;
