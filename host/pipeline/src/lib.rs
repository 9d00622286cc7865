//! Beam YAML to a checked graph and a physical plan.
//!
//! In reading order: [`graph`] is what comes out, [`options`] the settings in it, [`diagnostic`] what is said instead when a
//! file is wrong. [`load()`] is the way there: `source` fills in the template, `yaml` gives a tree with places, `syntax` knows
//! Beam's grammar, `provider`, `transform`, `expression`, `aggregate` and `windowing` the values in it (with `fields` for reading mappings and
//! `report` for what is wrong, `json_schema` for schemas of rows), `connect` turns names into edges of a `draft`, which `load` makes a graph.
//!
//! [`reference`] is the documentation of the built-in transforms.
//!
//! **Invariant:** only this crate knows YAML. Nothing in it touches the outside world: it reads text and gives values.

mod aggregate;
pub mod columns;
mod connect;
pub mod diagnostic;
mod draft;
pub mod draw;
mod event_time;
mod expression;
mod fields;
pub mod graph;
pub mod json_schema;
mod load;
mod number;
pub mod options;
pub mod physical;
mod provider;
pub mod reference;
mod report;
mod source;
mod syntax;
mod transform;
mod triggering;
mod windowing;
mod yaml;

pub use diagnostic::{Diagnostic, Severity, render};
pub use graph::{
    Aggregate, AggregateFunction, EmptyMatch, Equality, Expression, Graph, Input, Join, JoinField, JoinFields, JoinKind, LATE, Language,
    LogLevel, Node, Place, PluginInfo, PluginRole, PluginTransform, Provider, TimeUnit, Transform, UncheckedPlugins, WindowingInfo,
};
pub use load::load;
pub use options::{Options, SourceWatermark, Watermark};

use std::path::PathBuf;

/// What is loaded, and the variables of its template.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file, as the user named it; plugins are found relative to its folder.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// `--set name=value` and Beam's `--jinja_variables`; a later one replaces an earlier.
    pub variables: Vec<(String, String)>,
}
