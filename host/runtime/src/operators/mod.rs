//! The built-in operators, one file each, simplest first.

pub mod aggregate;
pub mod combine;
pub mod filter;
pub mod flatten;
pub mod join;
pub mod log;
pub mod map;
pub mod partition;
pub mod plugin;
pub mod sink;
pub mod strip;
pub mod timestamps;
pub mod window_into;
pub mod windowing_info;
