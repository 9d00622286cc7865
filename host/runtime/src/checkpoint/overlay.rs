//! What epochs have changed that is not durable yet: rows that were captured, of all tasks. They are in memory until a segment has them, so they are bounded.
//!
//! Where they are too many, sources ask for a barrier and read nothing until there is room again. A barrier passes whatever sources wait for, and the
//! epoch that it ends is made durable whatever they read, so room comes.
//!
//! Invariant: the sum of all [`Held`] is what the overlay counts.

use super::driver::{CheckpointProgress, Want, Wish};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::oneshot;

/// The share of the memory for state, one in so many. A row may be there a few times while its segment is written.
const SHARE: u64 = 8;
/// The least, so that a small epoch is never cut short.
const MIN_BYTES: u64 = 4 << 20;

/// Of a pipeline.
#[derive(Debug)]
pub struct Overlay {
    bytes: AtomicU64,
    limit: u64,
    progress: Arc<CheckpointProgress>,
}

impl Overlay {
    /// With nothing in it, beside so many bytes of state.
    pub fn new(state: u64, progress: Arc<CheckpointProgress>) -> Overlay {
        Overlay { bytes: AtomicU64::new(0), limit: (state / SHARE).max(MIN_BYTES), progress }
    }

    /// Whether sources have to wait.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Relaxed) > self.limit
    }

    /// Asks for a barrier.
    pub fn ask(&self) {
        // Where the driver is gone there is nothing to wait for.
        let _ = self.progress.wishes().send(Wish { what: Want::Checkpoint, done: oneshot::channel().0 });
    }

    /// Counts so many bytes until it is dropped.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        let mut held = Held { overlay: self.clone(), bytes: 0 };
        held.set(bytes);
        held
    }
}

/// Bytes that are counted.
#[derive(Debug)]
pub struct Held {
    overlay: Arc<Overlay>,
    bytes: u64,
}

impl Held {
    /// It is so many now.
    pub fn set(&mut self, bytes: u64) {
        self.overlay.bytes.fetch_add(bytes, Relaxed);
        self.overlay.bytes.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_and_a_barrier_is_asked_for() {
        let (progress, mut wishes) = CheckpointProgress::new();
        let overlay = Arc::new(Overlay::new(MIN_BYTES, Arc::new(progress)));
        let mut one = overlay.hold(MIN_BYTES);
        assert!(!overlay.is_full());
        let other = overlay.hold(1);
        assert!(overlay.is_full());
        one.set(7);
        assert!(!overlay.is_full());
        drop((one, other));
        assert_eq!(overlay.bytes.load(Relaxed), 0);
        overlay.ask();
        assert!(wishes.try_recv().is_ok_and(|wish| matches!(wish.what, Want::Checkpoint)));
    }
}
