//! The checked graph: what the rest of Pelton knows of a pipeline file.
//!
//! Everything that is YAML has been resolved here: composites and chains are gone, references are node numbers, implicit
//! flattens and inserted windowing are nodes of their own, and every node knows the windowing of what it gives out.
//!
//! Invariants: `nodes` is sorted so that inputs come before their readers, `nodes[i].id == i`; an input names an output that
//! its node has; an error output that `error_handling` names is read by somebody; names are unique.

mod aggregate;
mod join;
mod plugins;

pub use aggregate::{Aggregate, AggregateFunction};
pub use join::{Equality, Join, JoinField, JoinFields, JoinKind, LookupJoin, LookupKey, Table, TimedJoin, TimedRule};
pub use plugins::{PluginInfo, PluginRole, PluginTransform, Provider, UncheckedPlugins};

use std::path::PathBuf;

use pelton_core::watermark::Rule;
use pelton_core::{Duration, WindowFn, WindowingStrategy};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::json_schema::JsonSchema;
use crate::options::Options;

/// A pipeline that has passed every check that needs no data.
#[derive(Clone, Debug)]
pub struct Graph {
    /// `options.pelton.name`, else the stem of the file.
    pub name: String,
    /// `options.pelton`.
    pub options: Options,
    /// The plugins that are used, in the order of the file.
    pub providers: Vec<Provider>,
    /// Inputs before their readers.
    pub nodes: Vec<Node>,
    /// The file and those that it includes, the first one first.
    pub files: Vec<PathBuf>,
    /// Names and places of the file's `tests`.
    pub tests: Vec<(String, Place)>,
    /// What is odd but does not stop the pipeline.
    pub warnings: Vec<Diagnostic>,
}

/// A position in a file of the pipeline, counted from 1, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which of [`Graph::files`].
    pub file: usize,
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One transform.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its index in [`Graph::nodes`].
    pub id: usize,
    /// Full path, such as `Outer/Inner`; unique.
    pub name: String,
    /// Where it stands in the file; for an inserted node, what made it necessary.
    pub place: Place,
    /// What it does.
    pub transform: Transform,
    /// What it reads; empty for sources only.
    pub inputs: Vec<Input>,
    /// Named outputs besides the main one (`""`), without [`Node::error_output`] and [`LATE`].
    pub outputs: Vec<String>,
    /// The output for refused rows, if `error_handling` names one.
    pub error_output: Option<String>,
    /// The share of its rows, window by window, that may be refused before the pipeline fails.
    pub error_threshold: Option<f64>,
    /// The windowing of the main output; `None` for a sink, which has none.
    pub windowing: Option<WindowingStrategy>,
    /// What the inputs after the first are, where they are side inputs.
    pub sides: Vec<SideInput>,
    /// Its config as it was given; null for an inserted node.
    pub written: Value,
}

/// An input whose rows a transform looks at beside each of its own.
#[derive(Clone, Debug)]
pub struct SideInput {
    /// What it is called.
    pub tag: String,
    /// How it is read.
    pub kind: SideKind,
    /// How often what is seen of it changes, in the global window; `None`: with every row.
    pub refresh: Option<Duration>,
    /// What stands for a key or a row that is missing; the rest is null.
    pub default: Vec<(JoinField, Value)>,
    /// What is read of it; `None`: a plugin reads it and says so itself.
    pub lookups: Option<Vec<SideLookup>>,
    /// Whether it can be read from its first row on, rather than when its window has ended.
    pub from_first_row: bool,
    /// Where it stands.
    pub place: Place,
}

/// How a side input is read.
#[derive(Clone, Debug)]
pub enum SideKind {
    /// Its newest row.
    Singleton,
    /// All its rows.
    Iterable,
    /// The newest row of each key.
    Dict { key: Expression },
}

/// A column of a side input that an expression reads.
#[derive(Clone, Debug)]
pub struct SideLookup {
    /// What is looked up in a dict.
    pub key: Option<Expression>,
    /// Column of the side input.
    pub column: String,
    /// What stands for it in the expression (`pelton_expr::lower_lookups`).
    pub name: String,
    /// Where the expression stands.
    pub place: Place,
}

/// The output that holds the rows that came too late, of transforms that group, keep state or have side inputs.
pub const LATE: &str = "late";

/// An edge, seen from its reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The writer's index.
    pub node: usize,
    /// The writer's output; `""` is the main one.
    pub output: String,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum Transform {
    /// Rows from outside.
    Source { kind: String, config: Value },
    /// Rows to the outside.
    Sink { kind: String, config: Value },
    /// A transform of a plugin; `provider` is an index of [`Graph::providers`].
    /// `key` are columns; a stateful transform has at least one and keeps its state by them, a stateless one has none.
    Plugin { provider: usize, transform: String, config: Value, key: Vec<Expression> },
    /// Sets the event time of each row.
    AssignTimestamps { timestamp: Expression, unit: TimeUnit, time_zone: Option<String> },
    /// Assigns rows to windows; `kind` is the type that the file gives. `allow_data_loss` lets a trigger end before its window.
    WindowInto { strategy: WindowingStrategy, kind: &'static str, allow_data_loss: bool },
    /// Makes the watermark of each split of a source from the rows that pass. `ingestion` stamps them with the time of arrival.
    SetWatermark { rule: Rule, marker: Option<Expression>, ingestion: bool, idle_timeout: Option<Duration>, align: Option<Alignment> },
    /// Adds columns (new name, what) from the metadata of a row.
    ExtractWindowingInfo { fields: Vec<(String, WindowingInfo)> },
    /// New columns from old.
    MapToFields { fields: Vec<(String, Expression)>, append: bool, drop: Vec<String> },
    /// Keeps rows.
    Filter { keep: Expression },
    /// Sends each row to the output of that name. `unknown_output` is one more output; without it other rows are refused.
    Partition { by: Expression, outputs: Vec<String>, unknown_output: Option<String> },
    /// Aggregates per key and window; an empty `group_by` is one group. With `fanout` the rows of a key are first aggregated in
    /// so many tasks.
    Combine { group_by: Vec<(String, Expression)>, combine: Vec<Aggregate>, fanout: Option<usize> },
    /// Rows of several inputs side by side where columns are equal, per window.
    Join(Box<Join>),
    /// A query over the inputs, which have these names. It becomes other transforms once columns are known.
    Sql { inputs: Vec<String>, query: Expression },
    /// Aggregates per key in windows of several lengths; each level, from fine to coarse, is an output by its name.
    RollUp { group_by: Vec<(String, Expression)>, combine: Vec<Aggregate>, levels: Vec<(String, Duration)> },
    /// Rows of two inputs side by side where columns are equal and event times are near each other.
    TimedJoin(Box<TimedJoin>),
    /// Each row with the row of a table that has its key.
    LookupJoin(Box<LookupJoin>),
    /// All rows of all inputs.
    Flatten,
    /// Logs each row and passes it on.
    LogForTesting { level: LogLevel, prefix: Option<String> },
    /// Turns error rows back into the rows that were refused.
    StripErrorMetadata,
    /// One row for each value of list columns; several columns give every combination, or go side by side.
    Explode { fields: Vec<String>, cross_product: bool },
    /// Spreads rows over the workers, at most `buckets` of them.
    Reshuffle { buckets: Option<usize> },
    /// Refuses rows that do not fit a JSON schema.
    Validate { schema: Box<JsonSchema> },
    /// The files that a pattern in each row matches.
    MatchAll { file_pattern: Option<String>, empty: EmptyMatch },
}

/// What a pattern without files is (Beam's `empty_match_treatment`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyMatch {
    /// Nothing.
    #[default]
    Allow,
    /// An error.
    Disallow,
    /// Nothing if the pattern has a star, else an error.
    AllowIfWildcard,
}

impl Node {
    /// Whether it has the output [`LATE`].
    pub fn gives_late(&self) -> bool {
        self.transform.is_keyed() || !self.sides.is_empty()
    }

    /// Whether this input, by number, is a side input.
    pub fn is_side(&self, input: usize) -> bool {
        input > 0 && !self.sides.is_empty()
    }

    /// The windowing of one of its outputs.
    pub fn windowing_of(&self, output: &str) -> Option<WindowingStrategy> {
        let whole = self.windowing.clone();
        match &self.transform {
            Transform::RollUp { levels, .. } => {
                let level = levels.iter().find(|(name, _)| name == output).map(|(_, size)| *size);
                let window_fn = level.map(|size| WindowFn::Fixed { size, offset: Duration::ZERO });
                whole.map(|whole| WindowingStrategy { window_fn: window_fn.unwrap_or(whole.window_fn), ..whole })
            }
            _ => whole,
        }
    }
}

impl Transform {
    /// Whether it keeps rows per key and window and gives them out in panes.
    pub fn groups(&self) -> bool {
        matches!(self, Transform::Combine { .. } | Transform::RollUp { .. } | Transform::Join(_))
    }

    /// Whether it keeps anything by key and window: rows are divided by key among its tasks, and it has the output [`LATE`].
    pub fn is_keyed(&self) -> bool {
        self.groups() || self.is_stateful() || matches!(self, Transform::TimedJoin(_))
    }

    /// Whether it is a plugin's that keeps state by key and window.
    pub fn is_stateful(&self) -> bool {
        matches!(self, Transform::Plugin { key, .. } if !key.is_empty())
    }

    /// The `type:` in the file.
    pub fn kind(&self) -> &str {
        match self {
            Transform::Source { kind, .. } | Transform::Sink { kind, .. } => kind,
            Transform::Plugin { transform, .. } => transform,
            Transform::AssignTimestamps { .. } => "AssignTimestamps",
            Transform::WindowInto { kind, .. } => kind,
            Transform::SetWatermark { .. } => "SetWatermark",
            Transform::ExtractWindowingInfo { .. } => "ExtractWindowingInfo",
            Transform::MapToFields { .. } => "MapToFields",
            Transform::Filter { .. } => "Filter",
            Transform::Partition { .. } => "Partition",
            Transform::Combine { .. } => "Combine",
            Transform::RollUp { .. } => "RollUp",
            Transform::Join(_) => "Join",
            Transform::Sql { .. } => "Sql",
            Transform::TimedJoin(join) => join.rule.kind(),
            Transform::LookupJoin(_) => "LookupJoin",
            Transform::Flatten => "Flatten",
            Transform::LogForTesting { .. } => "LogForTesting",
            Transform::StripErrorMetadata => "StripErrorMetadata",
            Transform::Explode { .. } => "Explode",
            Transform::Reshuffle { .. } => "Reshuffle",
            Transform::Validate { .. } => "ValidateWithSchema",
            Transform::MatchAll { .. } => "MatchAll",
        }
    }
}

/// Source tasks of a group wait for the slowest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Its name; a group may span sources.
    pub group: String,
    /// How far ahead of the slowest a task may be.
    pub max_drift: Duration,
}

/// The unit of a bare number that is an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// `s`, as in Beam.
    #[default]
    Seconds,
    /// `ms`
    Milliseconds,
    /// `us`
    Microseconds,
    /// `ns`
    Nanoseconds,
}

/// Metadata of a row that can be a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowingInfo {
    /// Event time.
    Timestamp,
    /// First instant of the window.
    WindowStart,
    /// First instant after the window.
    WindowEnd,
    /// The window as Beam writes it.
    WindowString,
    /// The kind of window.
    WindowType,
    /// Which firing of the window this is.
    PaneInfo,
    /// When the row passes here; ours.
    ProcessingTimestamp,
}

/// How loud LogForTesting is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    #[default]
    Info,
    Debug,
}

/// An expression as written; `host/expr` compiles it once the input's columns are known.
#[derive(Clone, Debug)]
pub struct Expression {
    /// How to read the text.
    pub language: Language,
    /// As written. Numbers and booleans in YAML stand here in their YAML form.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// `output_type`, if given.
    pub output_type: Option<String>,
}

/// What an expression is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// Beam's: a field, a literal, or one comparison of two.
    #[default]
    Generic,
    /// SQL scalar expressions.
    Sql,
}
