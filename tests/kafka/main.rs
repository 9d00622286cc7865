//! `ReadFromKafka` and `WriteToKafka` against a real broker, through the connectors' own interface.
//!
//! Every wait is for a condition, with a deadline. Tests that do a broker harm start their own; the others share one.

// Tests wait with deadlines of the machine's clock, and fail by panics.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod at_least_once;
mod decisions;
mod deleted_output;
mod epochs;
mod loss;
mod outages;
mod pipeline;
mod positions;
mod proxy;
mod reading;
mod refusals;
mod security;
mod support;
mod writing;
