//! The built-in operators, one file each, simplest first.

pub mod aggregate;
pub mod combine;
pub mod explode;
pub mod filter;
pub mod flatten;
pub mod join;
pub mod late;
pub mod log;
pub mod lookup_join;
pub mod map;
pub mod match_all;
pub mod partition;
pub mod plugin;
pub mod reshuffle;
pub mod set_watermark;
pub mod sink;
pub mod stateful;
pub mod strip;
pub mod timed_join;
pub mod timestamps;
pub mod validate;
pub mod window_into;
pub mod windowing_info;
