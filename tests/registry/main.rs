//! Plugins in a real OCI registry: by the library, and from push to run by the command line.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod client;
mod commands;
