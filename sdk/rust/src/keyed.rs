//! The records of `stateful-do-fn` and `combine-fn`, as plain Rust (see [`crate::wire`]), and reading state during a call.

use crate::wire::{Columns, Input, MetricUpdate, OpenRequest, Output, RowErrors};

/// A column of byte strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BytesColumn {
    /// Bitmap of the present entries; empty = all are.
    pub validity: Vec<u8>,
    pub offsets: Vec<u8>,
    pub data: Vec<u8>,
}

impl Default for BytesColumn {
    fn default() -> Self {
        BytesColumn { validity: vec![], offsets: vec![0; 4], data: vec![] }
    }
}

impl BytesColumn {
    pub fn len(&self) -> usize {
        self.offsets.len() / 4 - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, entry: usize) -> Option<&[u8]> {
        if !self.validity.is_empty() && self.validity[entry / 8] >> (entry % 8) & 1 == 0 {
            return None;
        }
        let at = |entry: usize| {
            let bytes = &self.offsets[entry * 4..entry * 4 + 4];
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
        };
        Some(&self.data[at(entry)..at(entry + 1)])
    }

    /// Appends what `write` writes.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.end(true);
    }

    pub fn push(&mut self, entry: Option<&[u8]>) {
        if let Some(bytes) = entry {
            self.data.extend_from_slice(bytes);
        }
        self.end(entry.is_some());
    }

    fn end(&mut self, present: bool) {
        let entry = self.len();
        if !present && self.validity.is_empty() {
            // All before it were present.
            self.validity = vec![0xff; entry.div_ceil(8)];
            if !entry.is_multiple_of(8) {
                self.validity[entry / 8] = (1 << (entry % 8)) - 1;
            }
        }
        if !present || !self.validity.is_empty() {
            if entry.is_multiple_of(8) {
                self.validity.push(0);
            }
            self.validity[entry / 8] |= u8::from(present) << (entry % 8);
        }
        let end = u32::try_from(self.data.len()).expect("one column of state in a call is larger than 4 GiB");
        self.offsets.extend_from_slice(&end.to_le_bytes());
    }
}

#[derive(Debug, Clone)]
pub struct KeyedOpenRequest {
    pub base: OpenRequest,
    /// Top-level columns of the key.
    pub key: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// u32, one more than groups.
    pub row_starts: Vec<u8>,
    /// Two i64 a group.
    pub windows: Vec<u8>,
    pub keys: Columns,
}

#[derive(Debug, Clone, Default)]
pub struct FiredTimers {
    pub groups: Vec<u8>,
    pub timers: Vec<u8>,
    pub times: Vec<u8>,
    pub output_times: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct ValueColumn {
    pub values: BytesColumn,
    pub expires: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct KeyedInput {
    pub rows: Input,
    pub groups: Groups,
    pub fired: FiredTimers,
    pub values: Vec<ValueColumn>,
    pub watermark: i64,
    pub now: i64,
}

/// Writes of one state: of a value, a list or a map. `cleared` stays empty for values, `keys` but for maps.
#[derive(Debug, Clone, Default)]
pub struct StateWrites {
    pub state: u32,
    pub cleared: Vec<u8>,
    pub groups: Vec<u8>,
    pub keys: BytesColumn,
    pub values: BytesColumn,
    pub expires: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct TimerWrites {
    pub timer: u32,
    pub groups: Vec<u8>,
    pub times: Vec<u8>,
    pub output_times: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct KeyedOutcome {
    pub outputs: Vec<Output>,
    pub errors: RowErrors,
    pub metrics: Vec<MetricUpdate>,
    /// One a state of the transform, by number; those without writes are not sent.
    pub states: Vec<StateWrites>,
    /// The same by timer.
    pub timers: Vec<TimerWrites>,
}

/// Items of several groups.
#[derive(Debug, Clone, Default)]
pub struct Items {
    pub starts: Vec<u8>,
    pub keys: BytesColumn,
    pub values: BytesColumn,
    pub expires: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
pub struct Found {
    pub values: BytesColumn,
    pub expires: Vec<u8>,
}

/// Stored items to migrate; keys of maps alone.
#[derive(Debug, Clone, Default)]
pub struct StateItems {
    pub keys: BytesColumn,
    pub values: BytesColumn,
}

/// Reading lists and maps during a call: the host's imports, or a test's own memory.
pub trait Reads {
    fn read(&self, state: u32, groups: &[u32], max_bytes: u32) -> Items;
    fn get(&self, state: u32, groups: &[u32], keys: &BytesColumn) -> Found;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_absent_are_kept_apart_from_empty_ones() {
        let entries: Vec<Option<&[u8]>> = (0..20).map(|entry| [Some(&b"ab"[..]), Some(&b""[..]), None][entry * entry % 3]).collect();
        for from in 0..entries.len() {
            let mut column = BytesColumn::default();
            entries[from..].iter().for_each(|entry| column.push(*entry));
            let read: Vec<_> = (0..column.len()).map(|entry| column.get(entry)).collect();
            assert_eq!(read, entries[from..]);
        }
    }
}
