//! Whether an Avro object container file is whole. The crate that decodes it takes a file that was cut short for one that has
//! ended, and rows would be lost without a word; so the frame of each block is walked first, without reading what is in it.
//!
//! ```text
//! "Obj\x01" · metadata map · sync (16 bytes) · block*      block = rows (long) · bytes (long) · data · sync
//! ```

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// Where to begin for a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Bytes of the file's header.
    pub header: u64,
    /// Offset of the row's block.
    pub block: u64,
    /// Rows of that block before it.
    pub rows: u64,
}

/// Walks the file and finds the block of a row; an error says where it stops being Avro.
pub fn find_row(path: &Path, row: u64) -> Result<Start, String> {
    walk(path, row).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => "it ends in the middle of a block".to_string(),
        _ => error.to_string(),
    })
}

fn walk(path: &Path, row: u64) -> Result<Start, Error> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    if &magic != b"Obj\x01" {
        return Err(Error::new(ErrorKind::InvalidData, "it does not begin as an Avro file does"));
    }
    // A map is blocks of entries; a negative count is followed by the block's size.
    loop {
        let count = long(&mut file)?;
        if count == 0 {
            break;
        }
        if count < 0 {
            long(&mut file)?;
        }
        for _ in 0..count.unsigned_abs() * 2 {
            skip(&mut file, length)?;
        }
    }
    let mut sync = [0; 16];
    file.read_exact(&mut sync)?;
    let header = file.stream_position()?;
    let mut start = Start { header, block: header, rows: row };
    while file.stream_position()? < length {
        let at = file.stream_position()?;
        let rows = long(&mut file)?;
        skip(&mut file, length)?;
        let mut end = [0; 16];
        file.read_exact(&mut end)?;
        if end != sync {
            return Err(Error::new(ErrorKind::InvalidData, format!("the block at byte {at} does not end with the file's sync marker")));
        }
        // Blocks before the row's one are left out.
        if start.block == at && start.rows >= rows.unsigned_abs() {
            start = Start { header, block: file.stream_position()?, rows: start.rows - rows.unsigned_abs() };
        }
    }
    match start.rows > 0 && start.block >= length {
        true => Err(Error::new(ErrorKind::InvalidData, format!("it was read up to row {row}, and has only {}", row - start.rows))),
        false => Ok(start),
    }
}

/// Passes over a length and as many bytes.
fn skip(file: &mut BufReader<File>, file_length: u64) -> Result<(), Error> {
    let bytes = long(file)?;
    let at = file.stream_position()?;
    match u64::try_from(bytes).ok().filter(|bytes| at.checked_add(*bytes).is_some_and(|end| end <= file_length)) {
        Some(_) => file.seek(SeekFrom::Current(bytes)).map(drop),
        None => Err(Error::from(ErrorKind::UnexpectedEof)),
    }
}

/// A zigzag number of at most ten bytes.
fn long(file: &mut BufReader<File>) -> Result<i64, Error> {
    let mut value: u64 = 0;
    for shift in (0..70).step_by(7) {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte[0] & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Error::new(ErrorKind::InvalidData, "a length of more than ten bytes"))
}
