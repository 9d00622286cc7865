//! Values of the host's environment that the pipeline names (`grants: {env: [REGION]}`).

/// A value; `None` where the name is not granted or the environment does not have it. Natively, that of [`crate::testing::fake_env`].
pub fn var(name: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::component::capabilities::var(name);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::fakes::var(name)
}
