//! `WriteToPostgres` on a real server. What is in the tables is asked with `psql`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod epochs;
mod faults;
mod pipeline;
mod proxy;
mod refusals;
mod support;
mod types;
mod upserts;
