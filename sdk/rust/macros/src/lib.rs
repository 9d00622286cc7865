//! The macros of pelton-sdk.
