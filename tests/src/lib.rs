//! What the integration tests share.
//!
//! - [`pelton`]: the binary under test, and what it wrote.
//! - [`broker`]: a Kafka broker of one's own, that can be killed and started again.

pub mod broker;
pub mod pelton;
