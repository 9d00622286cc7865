//! Columns of byte strings outside any schema (`wit/bytes.wit`): state values, map keys, accumulators.

use crate::contract::bytes::{BytesColumnParam, BytesColumnResult};
use crate::outcome::u32s;

/// A column that grows, to be sent.
#[derive(Debug)]
pub(crate) struct BytesBuilder {
    validity: Vec<u8>,
    offsets: Vec<u8>,
    data: Vec<u8>,
    entries: usize,
    absent: usize,
}

impl Default for BytesBuilder {
    fn default() -> Self {
        BytesBuilder { validity: vec![], offsets: vec![0; 4], data: vec![], entries: 0, absent: 0 }
    }
}

impl BytesBuilder {
    pub(crate) fn push(&mut self, entry: Option<&[u8]>) {
        if self.entries.is_multiple_of(8) {
            self.validity.push(0);
        }
        match entry {
            Some(bytes) => {
                self.validity[self.entries / 8] |= 1 << (self.entries % 8);
                self.data.extend_from_slice(bytes);
            }
            None => self.absent += 1,
        }
        self.entries += 1;
        self.offsets.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
    }

    /// All entries of another column, none of which is absent.
    pub(crate) fn append(&mut self, other: &BytesBuilder) {
        let mut start = 0;
        for end in other.offsets[4..].as_chunks::<4>().0 {
            let end = u32::from_le_bytes(*end) as usize;
            self.push(Some(&other.data[start..end]));
            start = end;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Bytes of the entries.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn param(&self) -> BytesColumnParam<'_> {
        let validity: &[u8] = if self.absent == 0 { &[] } else { &self.validity };
        BytesColumnParam { validity, offsets: &self.offsets, data: &self.data }
    }

    pub(crate) fn result(self) -> BytesColumnResult {
        let validity = if self.absent == 0 { vec![] } else { self.validity };
        BytesColumnResult { validity, offsets: self.offsets, data: self.data }
    }
}

/// A column that a guest gave, checked.
#[derive(Debug)]
pub(crate) struct Bytes {
    validity: Vec<u8>,
    offsets: Vec<u32>,
    data: Vec<u8>,
}

impl Bytes {
    pub(crate) fn check(told: BytesColumnResult, entries: usize) -> Result<Bytes, String> {
        let offsets = u32s(&told.offsets).ok_or("its offsets are no list of u32")?;
        if offsets.len() != entries + 1 {
            return Err(format!("it has {} offsets where {} belong", offsets.len(), entries + 1));
        }
        if offsets[0] != 0 || offsets.windows(2).any(|pair| pair[0] > pair[1]) || offsets[entries] as usize != told.data.len() {
            return Err("its offsets do not start at 0, decrease, or do not end where its data does".into());
        }
        if !told.validity.is_empty() && told.validity.len() != entries.div_ceil(8) {
            return Err(format!("its validity has {} bytes where {} belong", told.validity.len(), entries.div_ceil(8)));
        }
        let checked = Bytes { validity: told.validity, offsets, data: told.data };
        match (0..entries).find(|entry| checked.get(*entry).is_none() && checked.offsets[*entry] != checked.offsets[entry + 1]) {
            Some(entry) => Err(format!("its entry {entry} is absent but has bytes")),
            None => Ok(checked),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes of the entries.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn get(&self, entry: usize) -> Option<&[u8]> {
        let present = self.validity.is_empty() || self.validity[entry / 8] >> (entry % 8) & 1 == 1;
        present.then(|| &self.data[self.offsets[entry] as usize..self.offsets[entry + 1] as usize])
    }

    /// The number of the first absent entry.
    pub(crate) fn absent(&self) -> Option<usize> {
        (0..self.len()).find(|entry| self.get(*entry).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_built_passes_and_reads_back(entries in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..5)), 0..40)) {
            let mut built = BytesBuilder::default();
            entries.iter().for_each(|entry| built.push(entry.as_deref()));
            let read = Bytes::check(built.result(), entries.len()).unwrap();
            prop_assert_eq!((0..entries.len()).map(|entry| read.get(entry).map(<[u8]>::to_vec)).collect::<Vec<_>>(), entries);
        }

        #[test]
        fn hostile_columns_are_refused_or_read_without_a_fault(
            validity in prop::collection::vec(any::<u8>(), 0..3), offsets in prop::collection::vec(0u32..6, 0..6),
            data in prop::collection::vec(any::<u8>(), 0..6), entries in 0usize..6,
        ) {
            let offsets = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            if let Ok(read) = Bytes::check(BytesColumnResult { validity, offsets, data }, entries) {
                prop_assert_eq!(read.len(), entries);
                (0..entries).for_each(|entry| { read.get(entry); });
            }
        }
    }
}
