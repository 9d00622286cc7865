//! What the integration tests share.
//!
//! - [`broker`]: a Kafka broker of one's own, that can be killed and started again.

pub mod broker;
