//! Write Pelton plugins in Rust: plain functions over typed rows.
