//! Pending timers: by time, to find those that are due, and by cell, so that a cell has one timer a tag.
//!
//! Timers lie in one bucket per distinct time: windows end together, so buckets are few and setting a timer is a push.
//! A timer that was moved or cleared stays in its bucket and is skipped when the bucket falls due; `pending` has the truth.
//!
//! Timers of cells that are kept for good belong to [`crate::Cells`], which captures them; an index that can be made again may have its own.
//!
//! Invariant: a timer fires once, in order of time, and within one time in the order of slots.

use crate::cells::Slot;
use pelton_core::Instant;
use std::collections::BTreeMap;

/// Which clock something follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The watermark.
    Event,
    /// The time of day.
    Processing,
}

impl Clock {
    /// Both, by number.
    pub const ALL: [Clock; 2] = [Clock::Event, Clock::Processing];
}

/// Which of a cell's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerTag(pub u8);

/// A bucket's own bytes besides its timers: an estimate for the memory budget.
const BUCKET_BYTES: usize = 48;
/// Fewer entries than this are not worth tidying up.
const MIN_TIDY: usize = 1 << 14;

/// The timers of one operator by one clock.
#[derive(Debug, Default)]
pub struct Timers {
    buckets: BTreeMap<Instant, Vec<(Slot, TimerTag)>>,
    /// By tag, then by slot.
    pending: Vec<Vec<Option<Instant>>>,
    /// In all buckets.
    entries: usize,
    /// The same after [`Timers::tidy`].
    tidied: usize,
}

impl Timers {
    /// Sets or moves the timer of a cell.
    pub fn set(&mut self, slot: Slot, tag: TimerTag, at: Instant) {
        let pending = self.pending_mut(slot, tag);
        if pending.replace(at) != Some(at) {
            self.buckets.entry(at).or_default().push((slot, tag));
            self.entries += 1;
            self.tidy();
        }
    }

    /// Forgets the timer of a cell, if it has one.
    pub fn clear(&mut self, slot: Slot, tag: TimerTag) {
        if let Some(at) = self.pending.get_mut(tag.0 as usize).and_then(|times| times.get_mut(slot as usize)) {
            *at = None;
        }
    }

    /// Forgets all timers of a cell.
    pub fn clear_all(&mut self, slot: Slot) {
        for at in self.pending.iter_mut().filter_map(|times| times.get_mut(slot as usize)) {
            *at = None;
        }
    }

    /// The timers of a cell that are pending, by tag.
    pub fn pending_of(&self, slot: Slot) -> impl Iterator<Item = (TimerTag, Instant)> + Clone {
        let at = move |times: &Vec<Option<Instant>>| times.get(slot as usize).copied().flatten();
        self.pending.iter().enumerate().filter_map(move |(tag, times)| Some((TimerTag(tag as u8), at(times)?)))
    }

    /// When the timer of a cell fires.
    pub fn pending(&self, slot: Slot, tag: TimerTag) -> Option<Instant> {
        self.pending.get(tag.0 as usize).and_then(|times| times.get(slot as usize)).copied().flatten()
    }

    /// Takes the timers of the earliest time that is at or before `now`, in the order of slots.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, Vec<(Slot, TimerTag)>)> {
        let (at, bucket) = self.take_bucket(now)?;
        bucket.iter().for_each(|(slot, tag)| self.clear(*slot, *tag));
        Some((at, bucket))
    }

    /// The same, but they stay pending until they are cleared, which is to be done at once.
    pub(crate) fn take_bucket(&mut self, now: Instant) -> Option<(Instant, Vec<(Slot, TimerTag)>)> {
        loop {
            let entry = self.buckets.first_entry().filter(|entry| *entry.key() <= now)?;
            let (at, mut bucket) = entry.remove_entry();
            self.entries -= bucket.len();
            bucket.sort_unstable();
            bucket.dedup();
            bucket.retain(|(slot, tag)| self.pending(*slot, *tag) == Some(at));
            if !bucket.is_empty() {
                return Some((at, bucket));
            }
        }
    }

    /// Puts timers of a bucket that was taken back: they are still pending.
    pub(crate) fn put_back(&mut self, at: Instant, timers: Vec<(Slot, TimerTag)>) {
        if !timers.is_empty() {
            self.entries += timers.len();
            self.buckets.entry(at).or_default().extend(timers);
        }
    }

    /// Drops what was moved or cleared from its buckets, if that may be much: cells that end before their time leave it in buckets that may never fall due.
    fn tidy(&mut self) {
        if self.entries < 2 * self.tidied.max(MIN_TIDY) {
            return;
        }
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.retain(|at, bucket| {
            bucket.sort_unstable();
            bucket.dedup();
            bucket.retain(|(slot, tag)| self.pending(*slot, *tag) == Some(*at));
            bucket.shrink_to_fit();
            !bucket.is_empty()
        });
        self.entries = buckets.values().map(Vec::len).sum();
        self.tidied = self.entries;
        self.buckets = buckets;
    }

    /// The earliest time at which one may be due: a lower bound, for waiting.
    pub fn next(&self) -> Option<Instant> {
        self.buckets.first_key_value().map(|(at, _)| *at)
    }

    /// About how much memory the timers take.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.pending.iter().map(Vec::len).sum();
        self.entries * size_of::<(Slot, TimerTag)>() + self.buckets.len() * BUCKET_BYTES + slots * size_of::<Option<Instant>>()
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

    #[test]
    fn cells_that_end_before_their_time_leave_nothing_behind() {
        let mut timers = Timers::default();
        for _ in 0..100 * MIN_TIDY {
            timers.set(7, TimerTag(0), Instant::MAX);
            timers.clear_all(7);
        }
        assert!(timers.bytes() < 64 * MIN_TIDY, "{} bytes for no timer", timers.bytes());
        assert_eq!(timers.due(Instant::MAX), None);
    }

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
