//! Lists and maps of cells: items by slot, in the order of their keys.
//!
//! A list is a map whose keys are numbers, 8 bytes big-endian, in the order of appending. So there is one thing to keep, to read in pages
//! and to write as rows. They are written through [`crate::Cells`], which logs each change.
//!
//! Invariant: a slot without items takes no memory beyond its place.

use crate::cells::Slot;
use pelton_core::{Instant, varint};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The items of one state of an operator.
#[derive(Debug, Default)]
pub struct Items {
    by_slot: Vec<Option<Box<ByKey>>>,
    /// Of keys and values.
    bytes: usize,
    items: usize,
}

#[derive(Debug, Default)]
struct ByKey {
    items: BTreeMap<Box<[u8]>, Item>,
    /// Of keys and values.
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    value: Box<[u8]>,
    expires: Instant,
}

/// An item's own bytes besides its key and value: an estimate for the memory budget.
const ITEM_OVERHEAD_BYTES: usize = 64;

impl Items {
    /// Sets the value at a key; [`Instant::MAX`] never expires.
    pub fn put(&mut self, slot: Slot, key: &[u8], value: &[u8], expires: Instant) {
        let slot = slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        let item = Item { value: value.into(), expires };
        let by_key = self.by_slot[slot].get_or_insert_default();
        let before = by_key.bytes;
        by_key.bytes += value.len();
        match by_key.items.insert(key.into(), item) {
            Some(old) => by_key.bytes -= old.value.len(),
            None => {
                by_key.bytes += key.len();
                self.items += 1;
            }
        }
        self.bytes = self.bytes - before + by_key.bytes;
    }

    /// The key of an item after the last one of a list.
    pub(crate) fn next_key(&self, slot: Slot) -> [u8; 8] {
        let last = self.of(slot).and_then(|of| of.items.last_key_value()).and_then(|(key, _)| key.first_chunk::<8>());
        last.map_or(0, |last| u64::from_be_bytes(*last) + 1).to_be_bytes()
    }

    /// Removes a key. False: it is not there.
    pub fn remove(&mut self, slot: Slot, key: &[u8]) -> bool {
        let Some(place) = self.by_slot.get_mut(slot as usize) else { return false };
        let Some(by_key) = place else { return false };
        let Some(item) = by_key.items.remove(key) else { return false };
        let bytes = key.len() + item.value.len();
        by_key.bytes -= bytes;
        self.bytes -= bytes;
        self.items -= 1;
        if by_key.items.is_empty() {
            *place = None;
        }
        true
    }

    /// Removes all items of a slot.
    pub fn clear(&mut self, slot: Slot) {
        if let Some(by_key) = self.by_slot.get_mut(slot as usize).and_then(Option::take) {
            self.items -= by_key.items.len();
            self.bytes -= by_key.bytes;
        }
    }

    /// The value at a key, and when it expires.
    pub fn get(&self, slot: Slot, key: &[u8]) -> Option<(&[u8], Instant)> {
        self.of(slot)?.items.get(key).map(|item| (&*item.value, item.expires))
    }

    /// Key, value and expiry of the items after a key, ascending by key.
    pub fn after(&self, slot: Slot, after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &[u8], Instant)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let items = self.of(slot).map(|of| of.items.range::<[u8], _>((from, Bound::Unbounded)));
        items.into_iter().flatten().map(|(key, item)| (&**key, &*item.value, item.expires))
    }

    /// Whether a slot has no items.
    pub fn is_empty(&self, slot: Slot) -> bool {
        self.of(slot).is_none()
    }

    /// The keys of what has expired.
    pub(crate) fn expired(&self, slot: Slot, now: Instant) -> Vec<Box<[u8]>> {
        let expired = |of: &ByKey| of.items.iter().filter(|(_, item)| item.expires <= now).map(|(key, _)| key.clone()).collect();
        self.of(slot).map_or_else(Vec::new, expired)
    }

    /// The earliest expiry.
    pub fn next_expiry(&self, slot: Slot) -> Option<Instant> {
        self.of(slot)?.items.values().map(|item| item.expires).min()
    }

    /// About how much memory the items take.
    pub fn bytes(&self) -> usize {
        self.bytes + self.items * ITEM_OVERHEAD_BYTES + self.by_slot.len() * size_of::<usize>()
    }

    /// About how much memory those of a slot take.
    pub(crate) fn bytes_of(&self, slot: Slot) -> usize {
        self.of(slot).map_or(0, |of| of.bytes + of.items.len() * ITEM_OVERHEAD_BYTES)
    }

    /// Appends those of a slot (see [`crate::evicted`]).
    pub(crate) fn encode(&self, slot: Slot, out: &mut Vec<u8>) {
        let Some(of) = self.of(slot) else { return varint::write(out, 0) };
        varint::write(out, of.items.len() as u64);
        for (key, item) in &of.items {
            for bytes in [key, &item.value] {
                varint::write(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            out.extend_from_slice(&item.expires.micros().to_le_bytes());
        }
    }

    /// Reads what was appended; `None`: it is cut off.
    pub(crate) fn decode(&mut self, slot: Slot, rest: &mut &[u8]) -> Option<()> {
        fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
            let length = usize::try_from(varint::read(rest)?).ok()?;
            varint::read_bytes(rest, length)
        }
        for _ in 0..varint::read(rest)? {
            let (key, value) = (bytes(rest)?, bytes(rest)?);
            let expires = i64::from_le_bytes(*varint::read_bytes(rest, 8)?.first_chunk()?);
            self.put(slot, key, value, Instant::from_micros_saturating(expires));
        }
        Some(())
    }

    fn of(&self, slot: Slot) -> Option<&ByKey> {
        self.by_slot.get(slot as usize)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Instant {
        Instant::from_micros_saturating(micros)
    }

    proptest! {
        /// Against a plain map of pairs.
        #[test]
        fn items_do_what_a_map_does(steps in proptest::collection::vec((0u32..3, 0u8..6, 0u8..5, 1i64..20), 0..120)) {
            let (mut items, mut model) = (Items::default(), BTreeMap::<(u32, Vec<u8>), (Vec<u8>, i64)>::new());
            for (slot, action, key, number) in steps {
                let value = vec![key; number as usize];
                match action {
                    0 | 1 => { items.put(slot, &[key], &value, at(number)); model.insert((slot, vec![key]), (value, number)); }
                    2 => assert_eq!(items.remove(slot, &[key]), model.remove(&(slot, vec![key])).is_some()),
                    3 => { items.clear(slot); model.retain(|(of, _), _| *of != slot); }
                    4 => {
                        items.expired(slot, at(number)).iter().for_each(|key| assert!(items.remove(slot, key)));
                        let left = items.next_expiry(slot);
                        model.retain(|(of, _), (_, expires)| *of != slot || *expires > number);
                        let earliest = model.iter().filter(|((of, _), _)| *of == slot).map(|(_, (_, expires))| at(*expires)).min();
                        prop_assert_eq!(left, earliest);
                    }
                    _ => {
                        let got: Vec<_> = items.after(slot, Some(&[key])).map(|(key, value, _)| (key.to_vec(), value.to_vec())).collect();
                        let want = model.iter().filter(|((of, at), _)| *of == slot && **at > *[key].as_slice());
                        prop_assert_eq!(got, want.map(|((_, key), (value, _))| (key.clone(), value.clone())).collect::<Vec<_>>());
                    }
                }
                let bytes: usize = model.iter().map(|((_, key), (value, _))| key.len() + value.len()).sum();
                prop_assert_eq!((items.bytes, items.items), (bytes, model.len()));
                (0..3).for_each(|slot| assert_eq!(items.is_empty(slot), !model.keys().any(|(of, _)| *of == slot)));
            }
        }
    }

    #[test]
    fn a_list_keeps_the_order_of_appending() {
        let mut items = Items::default();
        let append = |items: &mut Items, number: u16| items.put(0, &items.next_key(0), &number.to_le_bytes(), Instant::MAX);
        (0..300).for_each(|number| append(&mut items, number));
        items.remove(0, &0u64.to_be_bytes());
        append(&mut items, 300);
        let got: Vec<_> = items.after(0, None).map(|(_, value, _)| u16::from_le_bytes([value[0], value[1]])).collect();
        assert_eq!(got, (1..=300).collect::<Vec<_>>());
    }
}
