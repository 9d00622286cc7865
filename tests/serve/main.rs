//! A host: its API against whoever should not use it, its pipelines against crashes and each other, and the commands that ask it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod abuse;
mod lifecycle;
mod rights;
mod swaps;
mod trust;
mod versions;
