//! Which keys have the most rows, in bounded memory: the space-saving sketch of Metwally, Agrawal and El Abbadi (2005).
//!
//! A fixed number of counters. A key that has one adds to it; another key takes over the smallest and its count, which is
//! then how much too high its own count may be.
//!
//! Invariants, `n` being the rows offered: a key's rows lie between its `at_least` and its `at_most`; a key with more than
//! n / counters rows has a counter.

/// A key and how many rows it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// Canonical key bytes.
    pub key: Vec<u8>,
    /// It has no fewer rows.
    pub at_least: u64,
    /// It has no more rows.
    pub at_most: u64,
}

#[derive(Clone, Debug)]
struct Counter {
    hash: u64,
    key: Vec<u8>,
    count: u64,
    /// The count that the key took over.
    error: u64,
}

/// The sketch.
#[derive(Clone, Debug)]
pub struct SpaceSaving {
    counters: Vec<Counter>,
    limit: usize,
    offered: u64,
}

impl SpaceSaving {
    /// With this many counters, at least one. They are searched one by one, so they are few.
    pub fn new(counters: usize) -> SpaceSaving {
        SpaceSaving { counters: Vec::new(), limit: counters.max(1), offered: 0 }
    }

    /// Counts `rows` rows of a key, whose hash is given.
    pub fn offer(&mut self, key: &[u8], hash: u64, rows: u64) {
        self.offered += rows;
        if let Some(own) = self.counters.iter_mut().find(|counter| counter.hash == hash && counter.key == key) {
            own.count += rows;
        } else if self.counters.len() < self.limit {
            self.counters.push(Counter { hash, key: key.to_vec(), count: rows, error: 0 });
        } else if let Some(least) = self.counters.iter_mut().min_by_key(|counter| counter.count) {
            least.error = least.count;
            least.count += rows;
            least.hash = hash;
            least.key.clear();
            least.key.extend_from_slice(key);
        }
    }

    /// Rows that were offered.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The keys that have at least this share of the rows for certain, the heaviest first.
    pub fn above(&self, share: f64) -> Vec<Heavy> {
        let least = share * self.offered as f64;
        let heavy = self.counters.iter().filter(|counter| (counter.count - counter.error) as f64 >= least);
        let mut heavy: Vec<Heavy> = heavy
            .map(|counter| Heavy { key: counter.key.clone(), at_least: counter.count - counter.error, at_most: counter.count })
            .collect();
        heavy.sort_by(|a, b| (b.at_least, &a.key).cmp(&(a.at_least, &b.key)));
        heavy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_hash;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// The bounds hold for every key that is named, and no heavy key is missed.
        #[test]
        fn bounds_hold(rows in proptest::collection::vec((0u8..30, 0u8..30, 1u64..4), 0..400), counters in 1usize..20) {
            let mut sketch = SpaceSaving::new(counters);
            let mut exact: HashMap<u8, u64> = HashMap::new();
            for (a, b, weight) in rows {
                // Small keys are more frequent.
                let key = a.min(b);
                sketch.offer(&[key], key_hash(&[key]), weight);
                *exact.entry(key).or_default() += weight;
            }
            let all: u64 = exact.values().sum();
            prop_assert_eq!(sketch.offered(), all);
            let named = sketch.above(0.0);
            for heavy in &named {
                let rows = exact.get(&heavy.key[0]).copied().unwrap_or(0);
                prop_assert!(heavy.at_least <= rows && rows <= heavy.at_most, "{heavy:?} has {rows}");
            }
            for (key, rows) in &exact {
                prop_assert!(*rows <= all / counters as u64 || named.iter().any(|heavy| heavy.key == [*key]), "{key} is missed");
            }
            for heavy in sketch.above(0.1) {
                prop_assert!(exact[&heavy.key[0]] * 10 >= all);
            }
        }
    }
}
