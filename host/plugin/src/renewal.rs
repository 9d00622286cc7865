//! Instances that are made anew because somebody says so, and not because they are worn.
//!
//! For tests: all durable state is the host's, so nothing that comes out may depend on how long an instance lives. Who asks does not know where instances
//! are, so the request is a number for the whole process, and each instance looks at it before a call.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often it was asked for.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// Instances that were made anew because of it.
static RENEWED: AtomicU64 = AtomicU64::new(0);

/// From here on every instance begins its next call anew.
pub fn renew_all() {
    ASKED.fetch_add(1, Relaxed);
}

/// How many were made anew so far.
pub fn renewed() -> u64 {
    RENEWED.load(Relaxed)
}

/// What an instance that is made now need not do again.
pub(crate) fn asked() -> u64 {
    ASKED.load(Relaxed)
}

/// One was made anew.
pub(crate) fn count() {
    RENEWED.fetch_add(1, Relaxed);
}
