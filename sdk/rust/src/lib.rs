//! Write Pelton plugins in Rust: plain functions over typed rows.
//!
//! ```
//! use pelton_sdk::prelude::*;
//!
//! #[derive(Row)]
//! struct Line<'a> {
//!     line: &'a str,
//! }
//!
//! #[derive(Row)]
//! struct Word<'a> {
//!     word: &'a str,
//! }
//!
//! /// Splits a line into words.
//! #[transform]
//! fn split(row: Line<'_>) -> impl Iterator<Item = Word<'_>> {
//!     row.line.split_whitespace().map(|word| Word { word })
//! }
//!
//! plugin!(split);
//! ```
//!
//! The crate is a `cdylib`; `pelton plugin build` makes a component of it. In reading order:
//! - [`values`]: timestamps, dates, decimals.
//! - [`wire`]: the contract's records.
//! - [`schema`]: finding columns, and saying which are missing.
//! - [`read`], [`mod@write`], [`row`]: columns to values, values to columns, structs of them.
//! - [`answer`]: what a transform may return.
//! - [`transform`]: describe, open and process.
//! - [`columns`]: transforms of whole batches.
//! - [`stateful`]: transforms with [`state`] and [`timers`] by key and window; [`context`]: what they are told; [`keyed`]: their records.
//! - [`combine`]: aggregations for a pipeline's `Combine`.
//! - [`config`], [`metrics`], [`log`]: what else a transform has.
//! - [`http`], [`mod@env`], [`clock`], [`random`]: what the host gives to plugins that are granted it.
//! - [`json`]: a fast parser for those who parse.
//! - [`testing`]: running a transform in a unit test.
//! - `component`: the generated bindings, in WebAssembly only.

// The macros name this crate by its name, also in its own tests.
extern crate self as pelton_sdk;

pub mod answer;
pub mod clock;
pub mod columns;
pub mod combine;
#[cfg(target_arch = "wasm32")]
pub mod component;
pub mod config;
pub mod context;
pub mod env;
#[cfg(test)]
mod fuzz;
pub mod http;
pub mod json;
pub mod keyed;
pub mod log;
pub mod metrics;
pub mod random;
pub mod read;
pub mod row;
pub mod schema;
pub mod state;
pub mod stateful;
pub mod testing;
pub mod timers;
pub mod transform;
pub mod values;
pub mod wire;
pub mod write;

/// What a plugin's source needs.
pub mod prelude {
    pub use crate::columns::{ColumnsOf, Emit};
    pub use crate::combine::CombineFn;
    pub use crate::context::{Context, Pane, Timing, Window};
    pub use crate::metrics::{Counter, Distribution, Gauge};
    pub use crate::plugin;
    pub use crate::state::aggregate::{Aggregate, Count, Max, Mean, Min, Sum};
    pub use crate::state::{Aggregating, List, Map, Value};
    pub use crate::testing;
    pub use crate::timers::Timers;
    pub use crate::values::{At, Date, Decimal, EventTime, Timestamp};
    pub use pelton_sdk_macros::{Config, Outputs, Row, State, StateValue, Timer, combine, stateful, transform};
}

/// Used by the macros' expansions, and by nobody else.
#[doc(hidden)]
pub mod expansion {
    pub use crate::answer::{Many, Outputs, Port, Shape};
    pub use crate::columns::{ColumnsOf, Emit};
    pub use crate::combine::{self, Described};
    pub use crate::config::{Config, Properties, Property, names, object, read_name};
    pub use crate::context::Context;
    pub use crate::metrics::Metric;
    pub use crate::read::{Flat, Null, Place, Read, field_reader, read_field, want};
    pub use crate::row::{ReadRow, WriteRow};
    pub use crate::schema::Want;
    pub use crate::state::encode::{StateItem, StateValue};
    pub use crate::state::{Cell, Handle, Kind, State, migrate};
    pub use crate::stateful::{self, Stateful};
    pub use crate::timers::{NoTimer, TimerSet, Timers};
    pub use crate::transform::{Plugin, Register, Registered, Transform, Visit, registered};
    pub use crate::values::EventTime;
    pub use crate::wire::{Field, Migration, Output, StateSpec, TimeDomain, TimerSpec, Ttl};
    pub use crate::write::{Buffers, Write};
    pub use serde_json::{Value, json};
}

/// Makes the crate a plugin of the named transforms. Once a crate.
#[macro_export]
macro_rules! plugin {
    ($($transform:path),+ $(,)?) => {
        struct PeltonPlugin;

        impl $crate::expansion::Plugin for PeltonPlugin {
            const NAME: &'static str = env!("CARGO_PKG_NAME");
            const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            fn transforms() -> ::std::vec::Vec<$crate::expansion::Registered> {
                ::std::vec![$(<$transform as $crate::expansion::Register>::registered()),+]
            }
        }

        // Natively nobody calls the plugin; without this the compiler would take the author's code for dead.
        const _: fn() -> ::std::vec::Vec<$crate::expansion::Registered> = <PeltonPlugin as $crate::expansion::Plugin>::transforms;

        #[cfg(target_arch = "wasm32")]
        type PeltonComponent = $crate::component::Component<PeltonPlugin>;
        #[cfg(target_arch = "wasm32")]
        $crate::component::export_any_role!(PeltonComponent with_types_in $crate::component::bindings);
    };
}
