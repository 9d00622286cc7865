//! `ReadFromKafka` and `WriteToKafka` against a real broker, through the connectors' own interface.
//!
//! Every wait is for a condition, with a deadline. Tests that do a broker harm start their own; the others share one.

mod loss;
mod reading;
mod refusals;
mod security;
mod support;
mod writing;
