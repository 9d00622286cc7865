//! Clocks, as the pipeline grants them. What depends on them is not the same in a replay: a stateful transform has the recorded
//! [`Context`](crate::context::Context), and most of the rest is better said by event time.

use crate::values::Timestamp;
use std::time::Duration;

/// The time of day (`grants: {wall_clock: true}`). Natively, that of [`crate::testing::fake_clock`], or 1970-01-01.
pub fn now() -> Timestamp {
    #[cfg(target_arch = "wasm32")]
    return Timestamp(crate::component::capabilities::now());
    #[cfg(not(target_arch = "wasm32"))]
    Timestamp(crate::testing::fakes::now())
}

/// Time that has passed since some moment (`grants: {monotonic_clock: true}`). Natively it follows [`crate::testing::fake_clock`].
pub fn monotonic() -> Duration {
    #[cfg(target_arch = "wasm32")]
    return Duration::from_nanos(crate::component::capabilities::monotonic());
    #[cfg(not(target_arch = "wasm32"))]
    Duration::from_micros(crate::testing::fakes::now().max(0) as u64)
}
