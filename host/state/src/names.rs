//! Which cell a slot is: its key and its window, in 32 bytes beside those of its neighbours.
//!
//! Most keys (a number: 9 bytes; a text of up to 12) fit into the name itself, so that comparing one costs one cache line.
//! Longer ones lie one after the other in an arena. A removed key leaves a hole there; when holes are more than half of it,
//! the rest moves together.

use crate::cells::{CellKey, Slot};
use pelton_core::Window;

/// Longest key inside a name.
const SHORT: usize = 15;
/// `length` of a name whose key is in the arena.
const LONG: u8 = 254;
/// `length` of a name that is free.
const FREE: u8 = 255;
/// Arenas below this size are not worth tidying up.
const MIN_TIDY: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Name {
    window: Window,
    length: u8,
    /// The key, or where it lies in the arena (u64) and its length (u32).
    bytes: [u8; SHORT],
}

/// The names of all slots.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Vec<Name>,
    arena: Vec<u8>,
    holes: usize,
}

fn place(name: &Name) -> (usize, usize) {
    let (at, rest) = name.bytes.split_first_chunk::<8>().expect("15 bytes are more than 8");
    let length = rest.first_chunk::<4>().expect("7 bytes are more than 4");
    (u64::from_le_bytes(*at) as usize, u32::from_le_bytes(*length) as usize)
}

fn put_place(name: &mut Name, at: usize, length: usize) {
    name.bytes[..8].copy_from_slice(&(at as u64).to_le_bytes());
    name.bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
}

/// Keys of one number are nine bytes: a comparison of known length is two instructions, not a call.
#[inline]
fn same_key(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 9]>::try_from(a), <&[u8; 9]>::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

impl Names {
    /// Bytes of a name.
    pub const SLOT_BYTES: usize = size_of::<Name>();

    /// Slots, free ones too.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether a slot is a cell.
    pub fn is_live(&self, slot: Slot) -> bool {
        self.names[slot as usize].length != FREE
    }

    /// Which cell a slot is. It is live.
    #[inline]
    pub fn get(&self, slot: Slot) -> CellKey<'_> {
        let name = &self.names[slot as usize];
        let key = match name.length {
            LONG => {
                let (at, length) = place(name);
                &self.arena[at..at + length]
            }
            length => &name.bytes[..length as usize],
        };
        CellKey { key, window: name.window }
    }

    /// Whether a live slot is this cell.
    #[inline]
    pub fn is(&self, slot: Slot, cell: CellKey<'_>) -> bool {
        let own = self.get(slot);
        own.window == cell.window && same_key(own.key, cell.key)
    }

    /// Names a slot that is free, or the one after the last.
    pub fn set(&mut self, slot: Slot, cell: CellKey<'_>) {
        let mut name = Name { window: cell.window, length: LONG, bytes: [0; SHORT] };
        if cell.key.len() <= SHORT {
            name.length = cell.key.len() as u8;
            name.bytes[..cell.key.len()].copy_from_slice(cell.key);
        } else {
            put_place(&mut name, self.arena.len(), cell.key.len());
            self.arena.extend_from_slice(cell.key);
        }
        match self.names.get_mut(slot as usize) {
            Some(free) => *free = name,
            None => self.names.push(name),
        }
    }

    /// Frees a slot that is live.
    pub fn free(&mut self, slot: Slot) {
        let name = &mut self.names[slot as usize];
        if name.length == LONG {
            self.holes += place(name).1;
        }
        name.length = FREE;
        if self.holes > MIN_TIDY.max(self.arena.len() / 2) {
            self.tidy();
        }
    }

    /// Bytes that the key of a live slot takes in the arena.
    pub fn bytes_elsewhere(&self, slot: Slot) -> usize {
        let name = &self.names[slot as usize];
        if name.length == LONG { place(name).1 } else { 0 }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.names.len() * size_of::<Name>() + self.arena.capacity()
    }

    fn tidy(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.holes);
        for name in self.names.iter_mut().filter(|name| name.length == LONG) {
            let (at, length) = place(name);
            put_place(name, arena.len(), length);
            arena.extend_from_slice(&self.arena[at..at + length]);
        }
        self.arena = arena;
        self.holes = 0;
    }
}
