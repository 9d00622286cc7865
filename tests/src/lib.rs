//! What the integration tests share.
//!
//! - [`pelton`]: the binary under test, and what it wrote.
//! - [`broker`]: a Kafka broker of one's own, that can be killed and started again.
//! - [`components`]: plugins with other versions.
//! - [`http`]: requests by hand.
//! - [`life`]: processes that are killed and started again.
//! - [`numbers`]: random numbers that are the same every time.
//! - [`postgres`]: a PostgreSQL server likewise.
//! - [`registry`]: an OCI registry likewise.
//! - [`serve`]: a host of one's own.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

pub mod broker;
pub mod components;
pub mod http;
pub mod life;
pub mod numbers;
pub mod pelton;
pub mod postgres;
pub mod registry;
pub mod serve;
