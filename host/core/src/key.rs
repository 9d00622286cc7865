//! Canonical key bytes and key groups.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use xxhash_rust::xxh3::xxh3_64;

/// Version of the encoding; state stores it.
pub const KEY_VERSION: u8 = 1;
/// Key groups of every pipeline.
pub const KEY_GROUPS: u16 = 256;

/// Encodes the key columns of batches.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    #[expect(dead_code, reason = "read by the encoder that follows")]
    types: Vec<DataType>,
}

/// Keys of the rows of a batch, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The bytes of all keys.
    pub bytes: Vec<u8>,
    /// Key `i` is `bytes[offsets[i]..offsets[i + 1]]`; empty or one more entry than keys.
    pub offsets: Vec<u32>,
}

impl Keys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of key `row`.
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// Forgets the keys and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.offsets.clear();
    }
}

impl KeyEncoder {
    /// An encoder for key fields of these types, in the order of `group_by`. The error names a type that cannot be a key.
    pub fn new(types: &[DataType]) -> Result<KeyEncoder, String> {
        Ok(KeyEncoder { types: types.to_vec() })
    }

    /// Replaces the keys in `out` with those of the rows of `columns`.
    pub fn encode(&self, columns: &[ArrayRef], out: &mut Keys) {
        let _ = columns;
        out.clear();
        out.offsets.push(0);
    }
}

/// Hash of canonical key bytes.
pub fn key_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The key group of a hash.
pub fn key_group(hash: u64) -> u16 {
    (hash % u64::from(KEY_GROUPS)) as u16
}

/// The task, of `parallelism`, that owns a key group: contiguous ranges, as Flink's.
pub fn group_owner(key_group: u16, parallelism: usize) -> usize {
    usize::from(key_group) * parallelism / usize::from(KEY_GROUPS)
}
