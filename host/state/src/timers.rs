//! Pending timers: by time, to find those that are due, and by cell, so that a cell has one timer a tag.
//!
//! Timers lie in one bucket per distinct time: windows end together, so buckets are few and setting a timer is a push.
//! A timer that was moved or cleared stays in its bucket and is skipped when the bucket falls due; `pending` has the truth.
//!
//! Invariant: a timer fires once, in order of time, and within one time in the order of slots.

use crate::cells::Slot;
use pelton_core::Instant;
use std::collections::BTreeMap;

/// Which of a cell's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerTag(pub u8);

/// The timers of one operator in one time domain.
#[derive(Debug, Default)]
pub struct Timers {
    buckets: BTreeMap<Instant, Vec<(Slot, TimerTag)>>,
    /// By tag, then by slot.
    pending: Vec<Vec<Option<Instant>>>,
}

impl Timers {
    /// Sets or moves the timer of a cell.
    pub fn set(&mut self, slot: Slot, tag: TimerTag, at: Instant) {
        let pending = self.pending_mut(slot, tag);
        if pending.replace(at) != Some(at) {
            self.buckets.entry(at).or_default().push((slot, tag));
        }
    }

    /// Forgets the timer of a cell, if it has one.
    pub fn clear(&mut self, slot: Slot, tag: TimerTag) {
        *self.pending_mut(slot, tag) = None;
    }

    /// When the timer of a cell fires.
    pub fn pending(&self, slot: Slot, tag: TimerTag) -> Option<Instant> {
        self.pending.get(tag.0 as usize).and_then(|times| times.get(slot as usize)).copied().flatten()
    }

    /// Takes the timers of the earliest time that is at or before `now`, in the order of slots.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, Vec<(Slot, TimerTag)>)> {
        loop {
            let entry = self.buckets.first_entry().filter(|entry| *entry.key() <= now)?;
            let (at, mut bucket) = entry.remove_entry();
            bucket.sort_unstable();
            bucket.dedup();
            bucket.retain(|(slot, tag)| self.pending(*slot, *tag) == Some(at));
            for (slot, tag) in &bucket {
                *self.pending_mut(*slot, *tag) = None;
            }
            if !bucket.is_empty() {
                return Some((at, bucket));
            }
        }
    }

    /// The earliest time at which one may be due: a lower bound, for waiting.
    pub fn next(&self) -> Option<Instant> {
        self.buckets.first_key_value().map(|(at, _)| *at)
    }

    fn pending_mut(&mut self, slot: Slot, tag: TimerTag) -> &mut Option<Instant> {
        let (tag, slot) = (tag.0 as usize, slot as usize);
        if self.pending.len() <= tag {
            self.pending.resize_with(tag + 1, Vec::new);
        }
        let times = &mut self.pending[tag];
        if times.len() <= slot {
            times.resize(slot + 1, None);
        }
        &mut times[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map that does it the slow way.
        #[test]
        fn fires_as_a_plain_map_does(steps in proptest::collection::vec((0u32..6, 0u8..2, proptest::option::of(0i64..20)), 0..80), upto in 0i64..20) {
            let (mut timers, mut model) = (Timers::default(), BTreeMap::new());
            for (slot, tag, at) in steps {
                match at {
                    Some(at) => { timers.set(slot, TimerTag(tag), Instant::from_micros_saturating(at)); model.insert((slot, tag), at); }
                    None => { timers.clear(slot, TimerTag(tag)); model.remove(&(slot, tag)); }
                }
            }
            let mut want: Vec<_> = model.iter().filter(|(_, at)| **at <= upto).map(|((slot, tag), at)| (*at, *slot, *tag)).collect();
            want.sort();
            let mut got = vec![];
            while let Some((at, fired)) = timers.due(Instant::from_micros_saturating(upto)) {
                got.extend(fired.into_iter().map(|(slot, tag)| (at.micros(), slot, tag.0)));
            }
            prop_assert_eq!(got, want);
        }
    }
}
