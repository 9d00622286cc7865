//! Holds: event times that cells keep the output watermark from passing, one a cell in each set of them.
//!
//! Invariant: [`Holds::earliest`] is the smallest hold of any cell.

use crate::cells::Slot;
use pelton_core::Instant;
use std::collections::BTreeMap;

/// One set of holds of an operator.
#[derive(Debug, Default)]
pub struct Holds {
    by_slot: Vec<Option<Instant>>,
    counts: BTreeMap<Instant, usize>,
}

impl Holds {
    /// Sets, moves or drops the hold of a cell.
    pub fn set(&mut self, slot: Slot, hold: Option<Instant>) {
        let slot = slot as usize;
        if self.by_slot.len() <= slot {
            if hold.is_none() {
                return;
            }
            self.by_slot.resize(slot + 1, None);
        }
        let before = std::mem::replace(&mut self.by_slot[slot], hold);
        if before == hold {
            return;
        }
        if let Some(at) = hold {
            *self.counts.entry(at).or_default() += 1;
        }
        if let Some(std::collections::btree_map::Entry::Occupied(mut entry)) = before.map(|at| self.counts.entry(at)) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.by_slot.len() * size_of::<Option<Instant>>() + self.counts.len() * size_of::<(Instant, usize)>()
    }

    /// The hold of a cell.
    pub fn get(&self, slot: Slot) -> Option<Instant> {
        self.by_slot.get(slot as usize).copied().flatten()
    }

    /// The smallest.
    pub fn earliest(&self) -> Option<Instant> {
        self.counts.first_key_value().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_earliest_is_that_of_a_plain_list(steps in proptest::collection::vec((0u32..6, proptest::option::of(0i64..20)), 0..60)) {
            let (mut holds, mut model) = (Holds::default(), [None; 6]);
            for (slot, at) in steps {
                let at = at.map(Instant::from_micros_saturating);
                holds.set(slot, at);
                model[slot as usize] = at;
                prop_assert_eq!(holds.earliest(), model.iter().flatten().min().copied());
            }
        }
    }
}
