//! Rows in a block, and numbers as they are written everywhere in a segment.

use super::Malformed;
use crate::{Change, Row};
use bytes::Bytes;
use pelton_core::varint;
use std::ops::Range;

/// Appends bytes with their length.
pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of bytes that anybody may have written.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reading<'a> {
    /// From an offset on.
    pub fn new(bytes: &'a [u8], at: usize) -> Reading<'a> {
        Reading { bytes, at }
    }

    /// The offset.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Nothing is left.
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next bytes; where they lie.
    pub fn take(&mut self, length: u64) -> Result<Range<usize>, Malformed> {
        let left = self.bytes.len() - self.at;
        if length > left as u64 {
            return Err("it ends within a field");
        }
        let from = self.at;
        self.at += length as usize;
        Ok(from..self.at)
    }

    /// A byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let range = self.take(1)?;
        Ok(self.bytes[range.start])
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut rest = &self.bytes[self.at..];
        let number = varint::read(&mut rest).ok_or("it has no number where one should be")?;
        self.at = self.bytes.len() - rest.len();
        Ok(number)
    }

    /// A number of eight bytes.
    pub fn fixed(&mut self) -> Result<u64, Malformed> {
        let range = self.take(8)?;
        Ok(self.bytes[range].try_into().map_or(0, u64::from_le_bytes))
    }

    /// Bytes with their length before them; where they lie.
    pub fn bytes(&mut self) -> Result<Range<usize>, Malformed> {
        let length = self.number()?;
        self.take(length)
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let range = self.bytes()?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| "a text is not UTF-8")
    }
}

/// Makes a block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    first: Vec<u8>,
    last: Vec<u8>,
    rows: u64,
}

/// A block that is done.
pub struct Block<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its first address.
    pub first: &'a [u8],
    /// Its rows.
    pub rows: u64,
}

impl BlockBuilder {
    /// The address of the row before.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A row; its address is not below the last.
    pub fn push(&mut self, row: Row<'_>) {
        let shared = if self.rows == 0 {
            self.first.clear();
            self.first.extend_from_slice(row.address);
            0
        } else {
            row.address.iter().zip(&self.last).take_while(|(a, b)| a == b).count()
        };
        let rest = &row.address[shared..];
        varint::write(&mut self.bytes, shared as u64);
        varint::write(&mut self.bytes, rest.len() as u64);
        varint::write(&mut self.bytes, u64::from(row.key_len));
        let value: &[u8] = match row.change {
            Change::Remove | Change::RemoveAll => {
                self.bytes.push(u8::from(row.change == Change::RemoveAll));
                &[]
            }
            Change::Put(value) => {
                varint::write(&mut self.bytes, value.len() as u64 + 2);
                value
            }
        };
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(value);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.rows += 1;
    }

    /// The block as it is, if it has rows; the next row begins another.
    pub fn close(&mut self) -> Option<Block<'_>> {
        let rows = std::mem::take(&mut self.rows);
        (rows > 0).then_some(Block { bytes: &self.bytes, first: &self.first, rows })
    }

    /// Forgets the bytes of the block that was closed.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Another section begins: addresses begin anew.
    pub fn restart(&mut self) {
        self.bytes.clear();
        self.last.clear();
    }
}

/// The rows of a block one by one. Its address is the only thing that it builds: what it holds is never more than the block is long.
#[derive(Debug)]
pub struct BlockRows {
    block: Bytes,
    at: usize,
    address: Vec<u8>,
    key_len: u32,
    change: Held,
}

/// [`Change`], the value by its place.
#[derive(Clone, Debug)]
enum Held {
    Put(Range<usize>),
    Remove,
    RemoveAll,
    /// Before the first row.
    Nothing,
}

impl BlockRows {
    /// Before the first row.
    pub fn new(block: Bytes) -> BlockRows {
        BlockRows { block, at: 0, address: Vec::new(), key_len: 0, change: Held::Nothing }
    }

    /// Goes on to the next row; false: there is none.
    pub fn advance(&mut self) -> Result<bool, Malformed> {
        let mut reading = Reading::new(&self.block, self.at);
        if reading.is_done() {
            return Ok(false);
        }
        let (shared, rest, key, change) = (reading.number()?, reading.number()?, reading.number()?, reading.number()?);
        if shared > self.address.len() as u64 {
            return Err("a row shares more of its address than there is");
        }
        let (shared, rest) = (shared as usize, reading.take(rest)?);
        let rest_bytes = &self.block[rest.clone()];
        let after_removal = matches!(self.change, Held::RemoveAll);
        match rest_bytes.cmp(&self.address[shared..]) {
            _ if matches!(self.change, Held::Nothing) => {}
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Equal if after_removal && change != 1 => {}
            _ => return Err("rows are not in order"),
        }
        self.change = match change {
            0 => Held::Remove,
            1 => Held::RemoveAll,
            length => Held::Put(reading.take(length - 2)?),
        };
        self.key_len = u32::try_from(key).map_err(|_| "a key is too long")?;
        self.at = reading.at();
        self.address.truncate(shared);
        self.address.extend_from_slice(&self.block[rest]);
        Ok(true)
    }

    /// The row at hand; before the first it is empty.
    pub fn row(&self) -> Row<'_> {
        let change = match &self.change {
            Held::Put(value) => Change::Put(&self.block[value.clone()]),
            Held::Remove | Held::Nothing => Change::Remove,
            Held::RemoveAll => Change::RemoveAll,
        };
        Row { address: &self.address, key_len: self.key_len, change }
    }
}
