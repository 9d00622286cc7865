//! How many rows a reader gives out at once.
//!
//! With `PELTON_TEST_CRASHES` in the environment, the variable of the command line's tests with barriers and crashes at counts of rows, the first
//! batches of each reader have one to three rows, so that these may come between any two; what follows is larger, so that long inputs end.

use pelton_core::batch::MAX_ROWS;
use std::sync::OnceLock;

/// Batches of one to three rows.
const SMALL: u64 = 32;
/// Rows of the batches after them.
const LARGER: usize = 2_048;

/// The limit of a reader's batch at hand.
#[derive(Clone, Debug)]
pub(crate) struct BatchRows {
    /// Rows at most.
    pub most: usize,
    batches: u64,
}

impl Default for BatchRows {
    fn default() -> BatchRows {
        BatchRows { most: most(seed(), 0), batches: 0 }
    }
}

impl BatchRows {
    /// For the batch after this one.
    pub fn next(&self) -> BatchRows {
        let batches = self.batches + 1;
        BatchRows { most: most(seed(), batches), batches }
    }
}

/// The seed of a test, if there is one.
fn seed() -> Option<u64> {
    static SEED: OnceLock<Option<u64>> = OnceLock::new();
    *SEED.get_or_init(|| Some(std::env::var("PELTON_TEST_CRASHES").ok()?.parse().unwrap_or(1)))
}

/// Rows of a batch after so many others.
fn most(seed: Option<u64>, batches: u64) -> usize {
    match seed {
        None => MAX_ROWS,
        Some(_) if batches >= SMALL => LARGER,
        // The upper bits of a product with a large odd number are as good as random.
        Some(seed) => 1 + ((seed ^ batches).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize % 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_small_in_tests_only() {
        assert!((0..100).all(|batches| most(None, batches) == MAX_ROWS));
        let mut sizes: Vec<usize> = (0..SMALL).map(|batches| most(Some(11), batches)).collect();
        assert_ne!(sizes, (0..SMALL).map(|batches| most(Some(12), batches)).collect::<Vec<_>>());
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!((sizes, most(Some(11), SMALL)), (vec![1, 2, 3], LARGER));
    }
}
