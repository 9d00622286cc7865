//! Beam YAML to a checked graph and a physical plan.
//!
//! In reading order: [`graph`] is what comes out, [`options`] the settings in it, [`diagnostic`] what is said instead when a
//! file is wrong.
//!
//! **Invariant:** only this crate knows YAML. Nothing in it touches the outside world: it reads text and gives values.

pub mod diagnostic;
pub mod graph;
pub mod options;

pub use diagnostic::{Diagnostic, Severity, render};
pub use graph::{
    Aggregate, AggregateFunction, Expression, Graph, Input, LATE, Language, LogLevel, Node, Place, PluginInfo, PluginTransform,
    Provider, TimeUnit, Transform, UncheckedPlugins, WindowingInfo,
};
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
