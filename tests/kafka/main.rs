//! `ReadFromKafka` and `WriteToKafka` against a real broker, through the connectors' own interface.
//!
//! Every wait is for a condition, with a deadline. Tests that do a broker harm start their own; the others share one.

// Tests wait with deadlines of the machine's clock, and fail by panics.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod loss;
mod pipeline;
mod reading;
mod refusals;
mod security;
mod support;
mod writing;
