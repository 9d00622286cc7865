//! What one reader claims: a whole file, or the lines that start in a range of its bytes.
//!
//! Chunks wait in a queue that all readers share, so that a reader with easy chunks takes more of them.

use super::compression::Compression;
use super::find::FoundFile;
use pelton_core::Split;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Smaller chunks would cost more in opening and seeking than they gain in balance.
const MIN_CHUNK_BYTES: u64 = 8 << 20;
/// Larger ones would leave readers idle at the end.
const MAX_CHUNK_BYTES: u64 = 64 << 20;
/// Chunks a reader should get of one large file.
const CHUNKS_A_READER: u64 = 4;

/// A file, or the lines of it that start in a range.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The split that the runtime knows.
    pub split: Arc<Split>,
    /// The file.
    pub path: PathBuf,
    /// How it is compressed.
    pub compression: Compression,
    /// Byte range in which lines start; `u64::MAX` for the end of the file. Compressed files have the whole range only.
    pub range: Range<u64>,
    /// Lines to pass over at the start; only for a range from 0.
    pub skip_lines: u64,
}

/// Cuts files into chunks. `divisible`: a line end in the file always is a record's end.
pub fn plan(files: &[FoundFile], compression: Compression, skip_lines: u64, divisible: bool, readers: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for file in files {
        let size = (file.length / (readers.max(1) as u64 * CHUNKS_A_READER)).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
        // Lines to skip are counted from the start, which no later chunk knows.
        let whole = !divisible || skip_lines > 0 || compression.of(&file.path) != Compression::None;
        let count = if whole { 1 } else { (file.length / size).max(1) };
        for number in 0..count {
            let end = if number + 1 == count { u64::MAX } else { (number + 1) * size };
            chunks.push(Chunk {
                split: Arc::new(Split::File { path: file.path.to_string_lossy().into_owned() }),
                path: file.path.clone(),
                compression: compression.of(&file.path),
                range: number * size..end,
                skip_lines,
            });
        }
    }
    chunks
}

/// Chunks that no reader has claimed.
#[derive(Debug)]
pub struct ChunkQueue(Mutex<VecDeque<Chunk>>);

impl ChunkQueue {
    /// All of them.
    pub fn new(chunks: Vec<Chunk>) -> ChunkQueue {
        ChunkQueue(Mutex::new(chunks.into()))
    }

    /// The next one.
    pub fn claim(&self) -> Option<Chunk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// None is left.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
