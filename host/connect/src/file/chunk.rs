//! What one reader claims: a whole file, or the lines that start in a range of its bytes.
//!
//! Chunks wait in a queue that all readers share, so that a reader with easy chunks takes more of them.

use super::compression::Compression;
use super::find::FoundFile;
use super::restart::{Place, Plan, PlannedFile, Reached};
use crate::ConnectError;
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
    /// Number in the plan.
    pub number: usize,
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
    /// Where reading goes on that an earlier life began.
    pub resume: Option<Place>,
}

/// What the config says of how files are cut and opened.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// How files are compressed.
    pub compression: Compression,
    /// Lines to pass over at the start of each file.
    pub skip_lines: u64,
    /// A line end in the file always is a record's end.
    pub divisible: bool,
}

impl Layout {
    /// Divides files among readers. Blocks.
    pub fn plan(&self, files: &[FoundFile], readers: usize) -> Result<Plan, ConnectError> {
        let divided = |file: &FoundFile| {
            let size = (file.length / (readers.max(1) as u64 * CHUNKS_A_READER)).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
            // Lines to skip are counted from the start, which no later chunk knows.
            let whole = !self.divisible || self.skip_lines > 0 || self.compression.of(&file.path) != Compression::None;
            let count = if whole { 1 } else { (file.length / size).max(1) };
            PlannedFile::of(file, if count == 1 { 0 } else { size }, count)
        };
        Ok(Plan { files: files.iter().map(divided).collect::<Result<_, _>>()?, columns: None })
    }

    /// The chunks of a plan that are not finished, each from where it goes on.
    pub fn chunks(&self, plan: &Plan, reached: &Reached) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut next = 0;
        for file in &plan.files {
            for of_file in 0..file.chunks {
                let number = next;
                next += 1;
                if reached.is_finished(number) {
                    continue;
                }
                let start = of_file * file.chunk_bytes;
                let end = if of_file + 1 == file.chunks { u64::MAX } else { start + file.chunk_bytes };
                chunks.push(Chunk {
                    number,
                    split: Arc::new(Split::File { path: file.path.to_string_lossy().into_owned(), start: start as i64 }),
                    path: file.path.clone(),
                    compression: self.compression.of(&file.path),
                    range: start..end,
                    skip_lines: self.skip_lines,
                    resume: reached.place(number),
                });
            }
        }
        chunks
    }
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
