//! The line of an offset, counted only when an error is written.
//!
//! Errors of one file mostly come in order, so the last place counted in each of a few files is kept, and counting goes on from
//! there. Offsets of compressed files are those of the decompressed text.

use super::compression::Compression;
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Files whose last place is kept: about as many as are read at once.
const MAX_PLACES: usize = 64;
const BUFFER_BYTES: usize = 256 * 1024;

struct Place {
    path: String,
    offset: i64,
    line: i64,
}

static PLACES: Mutex<VecDeque<Place>> = Mutex::new(VecDeque::new());

/// Line of a byte offset in a file, from 1; `None` where the file cannot be read or is shorter. Reads the file up to there.
pub fn line_of(path: &str, offset: i64) -> Option<i64> {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = places.iter().position(|place| place.path == path).and_then(|at| places.remove(at));
    let (from, line) = match &known {
        Some(place) if place.offset <= offset => (place.offset, place.line),
        _ => (0, 1),
    };
    let line = line + count(Path::new(path), from, offset).ok()?;
    places.push_back(Place { path: path.into(), offset, line });
    if places.len() > MAX_PLACES {
        places.pop_front();
    }
    Some(line)
}

fn count(path: &Path, from: i64, to: i64) -> std::io::Result<i64> {
    let mut input: Box<dyn Read> = match Compression::Auto.of(path) {
        Compression::None => {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(from.unsigned_abs()))?;
            Box::new(file)
        }
        compression => {
            let mut input = compression.open(path)?;
            std::io::copy(&mut (&mut input).take(from.unsigned_abs()), &mut std::io::sink())?;
            input
        }
    };
    let mut left = to.saturating_sub(from).unsigned_abs();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut lines = 0;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = input.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as i64;
        left -= read as u64;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_forwards_backwards_and_never_beyond_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f").display().to_string();
        std::fs::write(&path, "a\nbb\n\nccc").unwrap();
        for (offset, line) in [(0, Some(1)), (2, Some(2)), (6, Some(4)), (5, Some(3)), (0, Some(1)), (99, None), (6, Some(4))] {
            assert_eq!(line_of(&path, offset), line, "{offset}");
        }
        assert_eq!(line_of("/no/such/file", 1), None);
    }
}
