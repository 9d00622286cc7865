//! How a pipeline's memory is divided.
//!
//! State is checked against its share as it grows; channels and connectors are bounded by their own constants and fit theirs; guests are limited one by one
//! (`limits.memory`).

use pelton_pipeline::graph::Graph;

/// Memory of a pipeline where it does not say.
pub const DEFAULT_MEMORY: u64 = 1 << 30;
/// The share of the memory that state may take, in percent.
const STATE_SHARE: u64 = 50;
/// The share of guests, in percent.
const GUEST_SHARE: u64 = 25;
/// The share of channels, in percent.
const CHANNEL_SHARE: u64 = 15;

/// The parts, bytes.
pub fn memory_accounts(graph: &Graph) -> Vec<(&'static str, u64)> {
    let (memory, state) = (graph.options.memory.unwrap_or(DEFAULT_MEMORY), state_share(graph));
    let guests = memory * GUEST_SHARE / 100;
    let channels = memory * CHANNEL_SHARE / 100;
    vec![("state", state), ("guests", guests), ("channels", channels), ("connectors", memory - state - guests - channels)]
}

/// The state's part of a pipeline's memory, bytes.
pub(super) fn state_share(graph: &Graph) -> u64 {
    graph.options.memory.unwrap_or(DEFAULT_MEMORY) * STATE_SHARE / 100
}
