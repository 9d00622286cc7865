//! What the integration tests share.
//!
//! - [`pelton`]: the binary under test, and what it wrote.
//! - [`broker`]: a Kafka broker of one's own, that can be killed and started again.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

pub mod broker;
pub mod pelton;
