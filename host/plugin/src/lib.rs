//! Loads, limits and calls WebAssembly components.
//!
//! In reading order:
//! - [`engine`]: from a file to a checked, compiled component; [`ticker`] is its clock, [`compiler`] compiles in another process, [`cache`] keeps compiled code.
//! - [`plugin`]: a loaded component and what it says of itself ([`descriptor`]); [`binding`]: one of its transforms with a config and a schema.
//! - [`instance`]: calls of a stateless transform; [`stateful`]: of one with state and timers; [`combine`]: of an aggregation; [`caller`] retries and halves what fails; [`renewal`]: tests replace all instances.
//! - [`guest`] is one sandbox, [`sandbox`] what it may do, [`limits`] how much, [`meters`] what it took; [`sizes`]: how large rows are.
//! - [`granted`]: what it is granted besides computing; [`wasi`]: what language runtimes are told instead.
//! - [`outcome`]: a result of a guest, checked, becomes batches and row errors.
//! - [`flatten`], [`unflatten`], [`schema`]: Arrow to the contract's flat columns and back.
//! - [`bytes`]: columns of byte strings.
//! - [`contract`]: the bindings of `wit/`; [`error`]: what can go wrong, by who must act.
//!
//! Invariants: only this crate knows wasmtime. Whatever a guest answers is checked before anything typed looks at it. A call commits as
//! a whole or not at all, and a trap is a value here, never a panic.

mod binding;
mod bytes;
mod cache;
mod caller;
mod combine;
mod compiler;
mod contract;
mod descriptor;
mod engine;
mod error;
mod flatten;
#[cfg(test)]
mod fuzz;
mod granted;
mod guest;
mod instance;
mod limits;
mod meters;
mod migrate;
mod outcome;
mod plugin;
mod renewal;
mod sandbox;
mod schema;
mod sizes;
mod stateful;
mod ticker;
mod unflatten;
mod wasi;

pub use binding::{Binding, MetricKind, MetricSpec, Needs, OutputBinding};
pub use combine::{CombineBinding, CombineInstance};
pub use compiler::{Compiler, compile_as_child};
pub use descriptor::{ColumnNeed, Descriptor, Role, StateKind, StateSpec, TimeDomain, TimerSpec, TransformSpec, Ttl};
pub use engine::{Engine, EngineOptions};
pub use error::PluginError;
pub use granted::Effects;
pub use instance::{Instance, Processed};
pub use limits::{BreakerLimits, BreakerPolicy, Limits, OnBudget};
pub use meters::{Breach, Meters, PluginFigures};
pub use migrate::MigrateError;
pub use outcome::MetricUpdate;
pub use plugin::Plugin;
pub use renewal::{renew_all, renewed};
pub use stateful::{CellRef, Fired, Item, KeyedState, StateWrite, StatefulBinding, StatefulInstance, Stored, Work};

#[cfg(target_endian = "big")]
compile_error!("buffers cross the boundary in little-endian order, as Arrow keeps them; this host would have to swap every value");
