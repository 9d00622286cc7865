//! The bytes of a chunk, in pieces that end where lines end.
//!
//! A chunk owns the lines that start in its range. Its reader begins one byte before the range and passes over everything up to the
//! first line end: if that byte is a line end, the range begins with a line. It reads on past the range until its last line ends.
//! So each line is read by exactly one chunk, wherever files are cut.
//!
//! A line longer than a row may be is given as its beginning only; the rest is passed over, so memory is bounded.

use super::chunk::Chunk;
use super::compression::Compression;
use pelton_core::batch::MAX_ROW_BYTES;
use pelton_core::fault::MAX_ELEMENT_BYTES;
use std::io::{Read, Seek, SeekFrom};

/// Bytes that are read at once: large enough that threads rarely wake each other, small enough to stay near the core.
pub const BLOCK_BYTES: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A part of a chunk.
#[derive(Debug)]
pub enum Piece {
    /// Whole lines (the last line of a file may lack its end), or for formats that are not cut at lines any bytes.
    Block {
        /// Offset of the first byte in the file.
        start: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// All of it is UTF-8.
        utf8: bool,
    },
    /// A line beyond the limit.
    TooLong {
        /// Offset of its first byte.
        start: u64,
        /// Offset of the next line's.
        end: u64,
        /// Its beginning.
        beginning: Vec<u8>,
    },
}

impl Piece {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        match self {
            Piece::Block { bytes, .. } => bytes.len(),
            Piece::TooLong { beginning, .. } => beginning.len(),
        }
    }

    /// The offset in the file that a position in it stands for.
    pub fn offset(&self, at: usize) -> u64 {
        match self {
            Piece::Block { start, .. } => start + at as u64,
            Piece::TooLong { start, end, .. } => {
                if at == 0 {
                    *start
                } else {
                    *end
                }
            }
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a chunk in whole lines. `send` gives false when nobody listens any more. Blocks.
pub fn read_lines(chunk: &Chunk, send: &mut dyn FnMut(Piece) -> bool) -> std::io::Result<()> {
    if let Some(place) = chunk.resume {
        // A place is where a line starts.
        return lines(&mut *open_at(chunk, place.at)?, chunk.range.end, place.at, Vec::new(), send);
    }
    let (mut input, mut start) = open(chunk)?;
    if chunk.range.start > 0 {
        // A line that began before the range belongs to the chunk before.
        match skip_line(&mut *input, &mut Vec::new())? {
            Some((passed, rest)) => return lines(&mut *input, chunk.range.end, start + passed, rest, send),
            None => return Ok(()),
        }
    }
    let mut rest = Vec::new();
    for _ in 0..chunk.skip_lines {
        match skip_line(&mut *input, &mut rest)? {
            Some((passed, kept)) => (start, rest) = (start + passed, kept),
            None => return Ok(()),
        }
    }
    lines(&mut *input, chunk.range.end, start, rest, send)
}

/// Reads a whole file in blocks that are cut anywhere; where it was read before, its header and the rest. Blocks.
pub fn read_bytes(chunk: &Chunk, send: &mut dyn FnMut(Piece) -> bool) -> std::io::Result<()> {
    let Some(place) = chunk.resume else { return bytes_to(chunk, u64::MAX, send).map(drop) };
    match bytes_to(chunk, place.header, send)? {
        true => blocks(&mut *open_at(chunk, place.at)?, place.at, Vec::new(), send).map(drop),
        false => Ok(()),
    }
}

/// The file up to an offset; false if nobody listens any more.
fn bytes_to(chunk: &Chunk, end: u64, send: &mut dyn FnMut(Piece) -> bool) -> std::io::Result<bool> {
    let (input, mut start) = open(chunk)?;
    let mut input = input.take(end);
    let mut rest = Vec::new();
    for _ in 0..chunk.skip_lines {
        match skip_line(&mut input, &mut rest)? {
            Some((passed, kept)) => (start, rest) = (start + passed, kept),
            None => return Ok(true),
        }
    }
    blocks(&mut input, start, rest, send)
}

/// The rest of an input, of which `rest` has been read and begins at `start`; false if nobody listens any more.
fn blocks(input: &mut dyn Read, mut start: u64, mut rest: Vec<u8>, send: &mut dyn FnMut(Piece) -> bool) -> std::io::Result<bool> {
    loop {
        let mut bytes = std::mem::take(&mut rest);
        fill(input, &mut bytes)?;
        if bytes.is_empty() {
            return Ok(true);
        }
        if start == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            start = BYTE_ORDER_MARK.len() as u64;
        }
        let length = bytes.len() as u64;
        if !send(Piece::Block { start, bytes, utf8: false }) {
            return Ok(false);
        }
        start += length;
    }
}

/// The input at the byte before the range, and the offset of that byte.
fn open(chunk: &Chunk) -> std::io::Result<(Box<dyn Read + Send>, u64)> {
    if chunk.range.start == 0 || chunk.compression != Compression::None {
        return Ok((chunk.compression.open(&chunk.path)?, 0));
    }
    let before = chunk.range.start - 1;
    Ok((open_at(chunk, before)?, before))
}

/// The input from an offset on.
fn open_at(chunk: &Chunk, at: u64) -> std::io::Result<Box<dyn Read + Send>> {
    if chunk.compression == Compression::None {
        let mut file = std::fs::File::open(&chunk.path)?;
        file.seek(SeekFrom::Start(at))?;
        return Ok(Box::new(file));
    }
    let mut input = chunk.compression.open(&chunk.path)?;
    match std::io::copy(&mut (&mut input).take(at), &mut std::io::sink())? {
        passed if passed == at => Ok(input),
        passed => Err(std::io::Error::other(format!("it was read up to byte {at}, and has only {passed}"))),
    }
}

/// Passes over a line, of which `held` has been read: how many bytes it had, and what was read beyond it. `None`: the file ended.
fn skip_line(input: &mut dyn Read, held: &mut Vec<u8>) -> std::io::Result<Option<(u64, Vec<u8>)>> {
    let mut passed = 0;
    loop {
        if let Some(end) = memchr::memchr(b'\n', held) {
            return Ok(Some((passed + end as u64 + 1, held.split_off(end + 1))));
        }
        passed += held.len() as u64;
        held.clear();
        if fill(input, held)? == 0 {
            return Ok(None);
        }
    }
}

fn lines(input: &mut dyn Read, end: u64, mut start: u64, mut held: Vec<u8>, send: &mut dyn FnMut(Piece) -> bool) -> std::io::Result<()> {
    // `held` begins at `start`, which is the start of a line.
    while start < end {
        let ended = fill(input, &mut held)? == 0;
        if start == 0 && held.starts_with(BYTE_ORDER_MARK) {
            held.drain(..BYTE_ORDER_MARK.len());
            start = BYTE_ORDER_MARK.len() as u64;
            continue;
        }
        // The last line of the chunk is the one that holds the byte before the range's end.
        let last = usize::try_from(end - 1 - start).unwrap_or(usize::MAX);
        let stop = held.get(last..).and_then(|rest| memchr::memchr(b'\n', rest)).map(|at| last + at + 1);
        let cut = match stop {
            Some(stop) => Some(stop),
            None if ended => Some(held.len()),
            None => memchr::memrchr(b'\n', &held).map(|at| at + 1),
        };
        match cut {
            Some(0) => return Ok(()),
            Some(cut) => {
                let mut rest = Vec::with_capacity(BLOCK_BYTES + held.len() - cut);
                rest.extend_from_slice(&held[cut..]);
                held.truncate(cut);
                let utf8 = simdutf8::basic::from_utf8(&held).is_ok();
                if !send(Piece::Block { start, bytes: std::mem::replace(&mut held, rest), utf8 }) || stop.is_some() || ended {
                    return Ok(());
                }
                start += cut as u64;
            }
            None if held.len() > MAX_ROW_BYTES => {
                let beginning = held[..MAX_ELEMENT_BYTES].to_vec();
                let next = skip_line(input, &mut held)?;
                let end = next.as_ref().map_or(u64::MAX, |(passed, _)| start + passed);
                if !send(Piece::TooLong { start, end, beginning }) {
                    return Ok(());
                }
                match next {
                    Some((_, rest)) => (start, held) = (end, rest),
                    None => return Ok(()),
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// Appends up to a block; how much came.
fn fill(input: &mut dyn Read, held: &mut Vec<u8>) -> std::io::Result<usize> {
    held.reserve(BLOCK_BYTES);
    input.take(BLOCK_BYTES as u64).read_to_end(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_core::Split;
    use proptest::prelude::*;
    use std::ops::Range;
    use std::sync::Arc;

    fn chunk(path: &std::path::Path, range: Range<u64>, skip_lines: u64) -> Chunk {
        let split = Arc::new(Split::File { path: path.display().to_string(), start: range.start as i64 });
        Chunk { split, path: path.into(), compression: Compression::None, range, skip_lines, number: 0, resume: None }
    }

    fn read(path: &std::path::Path, range: Range<u64>, skip_lines: u64) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        read_lines(&chunk(path, range, skip_lines), &mut |piece| {
            match piece {
                Piece::Block { start, bytes, .. } => {
                    let mut at = start;
                    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                        found.push((at, line.to_vec()));
                        at += line.len() as u64;
                    }
                }
                Piece::TooLong { start, beginning, .. } => found.push((start, beginning)),
            }
            true
        })
        .unwrap();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn wherever_a_file_is_cut_each_line_is_read_once(text in "[ab\n\r]{0,40}") {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, &text).unwrap();
            let whole = read(&path, 0..u64::MAX, 0);
            prop_assert_eq!(whole.iter().flat_map(|(_, line)| line.clone()).collect::<Vec<u8>>(), text.as_bytes());
            for first in 1..=text.len() as u64 + 1 {
                for second in first..=text.len() as u64 + 1 {
                    let mut parts = read(&path, 0..first, 0);
                    if second > first {
                        parts.extend(read(&path, first..second, 0));
                    }
                    parts.extend(read(&path, second..u64::MAX, 0));
                    prop_assert_eq!(&parts, &whole, "cut at {} and {}", first, second);
                }
            }
        }
    }

    #[test]
    fn skips_lines_and_a_byte_order_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"\xEF\xBB\xBFone\ntwo\nthree").unwrap();
        assert_eq!(read(&path, 0..u64::MAX, 0)[0], (3, b"one\n".to_vec()));
        assert_eq!(read(&path, 0..u64::MAX, 2), [(11, b"three".to_vec())]);
        assert_eq!(read(&path, 0..u64::MAX, 3), []);
    }

    #[test]
    fn a_line_beyond_the_limit_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut text = b"first\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', MAX_ROW_BYTES + 3 * BLOCK_BYTES));
        text.extend(b"\nlast\n");
        std::fs::write(&path, &text).unwrap();
        let found = read(&path, 0..u64::MAX, 0);
        assert_eq!(found.len(), 3);
        assert_eq!((found[1].0, found[1].1.len()), (6, MAX_ELEMENT_BYTES));
        assert_eq!(found[2], (text.len() as u64 - 5, b"last\n".to_vec()));
    }
}
