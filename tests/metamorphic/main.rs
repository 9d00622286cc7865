//! What must not change a result, does not: the order of rows, how files cut them into batches, and the parallelism.
//!
//! - [`rows`]: seeded rows, the pipelines around the transforms under test, and multisets with tolerant fractions.
//! - [`shuffled`]: nothing can be late, so every variant gives the rows of the plainest run.
//! - [`late`]: rows come too late; none is lost, and each verdict agrees with the watermark that it was given by.
//! - [`diamond`]: one source, two ways, more batches than channels hold: it must end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod diamond;
mod late;
mod rows;
mod shuffled;
