//! Faults with a clear end, by the binary: after each the pipeline goes on by itself, or it stops, loses nothing and says what to do.
//!
//! [`damage`]: files of the store that are not what was written. [`disk`]: disks that are full or cannot be written. [`clock`]: a clock that is set
//! back. [`twice`]: a second process. Brokers and databases that fail are in the suites `kafka` and `postgres`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod clock;
mod damage;
mod disk;
mod job;
mod twice;
