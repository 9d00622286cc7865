//! Lists and maps of cells: items by slot, in the order of their keys.
//!
//! A list is a map whose keys are numbers, 8 bytes big-endian, in the order of appending. So there is one thing to keep, to read in pages
//! and, once state is durable, to write as (cell, item) rows.
//!
//! Invariant: a slot without items takes no memory beyond its place.

use crate::cells::Slot;
use pelton_core::Instant;
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

type ByKey = BTreeMap<Box<[u8]>, Item>;

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
        let old = self.by_slot[slot].get_or_insert_default().insert(key.into(), item);
        self.bytes += value.len();
        match old {
            Some(old) => self.bytes -= old.value.len(),
            None => {
                self.bytes += key.len();
                self.items += 1;
            }
        }
    }

    /// Puts an item after the last one.
    pub fn append(&mut self, slot: Slot, value: &[u8], expires: Instant) {
        let last = self.of(slot).and_then(|items| items.last_key_value()).and_then(|(key, _)| key.first_chunk::<8>());
        let next = last.map_or(0, |last| u64::from_be_bytes(*last) + 1);
        self.put(slot, &next.to_be_bytes(), value, expires);
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, slot: Slot, key: &[u8]) {
        let Some(place) = self.by_slot.get_mut(slot as usize) else { return };
        if let Some(items) = place
            && let Some(item) = items.remove(key)
        {
            self.bytes -= key.len() + item.value.len();
            self.items -= 1;
            if items.is_empty() {
                *place = None;
            }
        }
    }

    /// Removes all items of a slot.
    pub fn clear(&mut self, slot: Slot) {
        if let Some(items) = self.by_slot.get_mut(slot as usize).and_then(Option::take) {
            self.items -= items.len();
            self.bytes -= items.iter().map(|(key, item)| key.len() + item.value.len()).sum::<usize>();
        }
    }

    /// The value at a key, and when it expires.
    pub fn get(&self, slot: Slot, key: &[u8]) -> Option<(&[u8], Instant)> {
        self.of(slot)?.get(key).map(|item| (&*item.value, item.expires))
    }

    /// Key, value and expiry of the items after a key, ascending by key.
    pub fn after(&self, slot: Slot, after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &[u8], Instant)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let items = self.of(slot).map(|items| items.range::<[u8], _>((from, Bound::Unbounded)));
        items.into_iter().flatten().map(|(key, item)| (&**key, &*item.value, item.expires))
    }

    /// Whether a slot has no items.
    pub fn is_empty(&self, slot: Slot) -> bool {
        self.of(slot).is_none()
    }

    /// Drops what has expired, and gives the earliest expiry of what is left.
    pub fn sweep(&mut self, slot: Slot, now: Instant) -> Option<Instant> {
        let expired = self.of(slot)?.iter().filter(|(_, item)| item.expires <= now).map(|(key, _)| key.clone()).collect::<Vec<_>>();
        expired.iter().for_each(|key| self.remove(slot, key));
        self.of(slot)?.values().map(|item| item.expires).min()
    }

    /// About how much memory the items take.
    pub fn bytes(&self) -> usize {
        self.bytes + self.items * ITEM_OVERHEAD_BYTES + self.by_slot.len() * size_of::<usize>()
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
                    2 => { items.remove(slot, &[key]); model.remove(&(slot, vec![key])); }
                    3 => { items.clear(slot); model.retain(|(of, _), _| *of != slot); }
                    4 => {
                        let left = items.sweep(slot, at(number));
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
        (0..300).for_each(|number: u16| items.append(0, &number.to_le_bytes(), Instant::MAX));
        items.remove(0, &0u64.to_be_bytes());
        items.append(0, &300u16.to_le_bytes(), Instant::MAX);
        let got: Vec<_> = items.after(0, None).map(|(_, value, _)| u16::from_le_bytes([value[0], value[1]])).collect();
        assert_eq!(got, (1..=300).collect::<Vec<_>>());
    }
}
