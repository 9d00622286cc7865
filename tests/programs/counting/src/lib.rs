//! A stateful and a stateless transform that say which version of a plugin they are: this is the first, `counting-next` the second.

const VERSION: i64 = 1;

include!("totals.rs");
