//! What must not change a result, does not: the order of rows, how files cut them into batches, and the parallelism.
//!
//! - [`rows`]: seeded rows, the pipelines around the transforms under test, and multisets with tolerant fractions.
//! - [`shuffled`]: nothing can be late, so every variant gives the rows of the plainest run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod rows;
mod shuffled;
