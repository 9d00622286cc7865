//! The built-in operators, one file each, simplest first.

pub mod flatten;
pub mod filter;
pub mod map;
pub mod partition;
pub mod log;
pub mod strip;
pub mod window_into;
pub mod windowing_info;
pub mod timestamps;
pub mod plugin;
pub mod combine;
pub mod aggregate;
pub mod sink;
