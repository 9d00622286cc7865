//! Loads, limits and calls WebAssembly components.
