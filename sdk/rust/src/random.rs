//! Random bytes, as the pipeline grants them (`grants: {random: true}`, or `{seed: 42}` for runs that are to be repeated).

/// The host gives so many at once.
const MAX_BYTES: usize = 64 * 1024;

/// So many bytes. Natively they are the same in each test.
pub fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        bytes.extend(some((count - bytes.len()).min(MAX_BYTES)));
    }
    bytes
}

/// A number.
pub fn number() -> u64 {
    bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn some(count: usize) -> Vec<u8> {
    #[cfg(target_arch = "wasm32")]
    return crate::component::capabilities::random(count as u32);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::fakes::random(count)
}
