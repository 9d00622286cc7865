//! The checked graph: what the rest of Pelton knows of a pipeline file.
//!
//! Everything that is YAML has been resolved here: composites and chains are gone, references are node numbers, implicit
//! flattens and inserted windowing are nodes of their own, and every node knows the windowing of what it gives out.
//!
//! Invariants: `nodes` is sorted so that inputs come before their readers, `nodes[i].id == i`; an input names an output that
//! its node has; an error output that `error_handling` names is read by somebody; names are unique.

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
}

/// The output of a grouping transform that holds the rows that came too late.
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
    /// Aggregates per key and window; an empty `group_by` is one group.
    Combine { group_by: Vec<(String, Expression)>, combine: Vec<Aggregate> },
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

/// What a Join does. Inputs are joined in their order: the second to the first, the third to what comes of that, and so on.
#[derive(Clone, Debug)]
pub struct Join {
    /// What the inputs are called, in the order of [`Node::inputs`].
    pub inputs: Vec<String>,
    /// What must be equal. Every input but the first has an equality with an input before it.
    pub equalities: Vec<Equality>,
    /// How each input but the first joins what comes before it.
    pub kinds: Vec<JoinKind>,
    /// The columns of the output, by input. A name that is there already gets a number, as in Beam: `id`, `id0`.
    pub fields: Vec<(usize, JoinFields)>,
}

/// Two values, each of an input, that are equal where rows belong together. Null equals nothing.
#[derive(Clone, Debug)]
pub struct Equality {
    /// Number of an input, and what of it.
    pub left: (usize, Expression),
    /// The same of another input.
    pub right: (usize, Expression),
}

impl Equality {
    /// The input that is joined by this equality: the later one of the two.
    pub fn later(&self) -> usize {
        self.left.0.max(self.right.0)
    }
}

/// Whose rows stay where they have no partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Nobody's.
    Inner,
    /// Those of what came before.
    Left,
    /// Those of the input that is joined.
    Right,
    /// Both.
    Outer,
}

/// Columns of one input that come out of a Join.
#[derive(Clone, Debug)]
pub enum JoinFields {
    /// All, under their names.
    All,
    /// These, in this order.
    Listed(Vec<JoinField>),
}

/// A column that comes out of a Join.
#[derive(Clone, Debug)]
pub struct JoinField {
    /// What it is called.
    pub name: String,
    /// What it is called in the input.
    pub column: String,
    /// Where it stands.
    pub place: Place,
}

/// Source tasks of a group wait for the slowest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Its name; a group may span sources.
    pub group: String,
    /// How far ahead of the slowest a task may be.
    pub max_drift: Duration,
}

/// A join of two inputs by key and event time, besides windows.
#[derive(Clone, Debug)]
pub struct TimedJoin {
    /// Keys, kinds and columns, of the inputs `left` and `right` in the order of the file.
    pub join: Join,
    /// Which of them is `left`: 0 or 1.
    pub left: usize,
    /// Which event times belong together.
    pub rule: TimedRule,
    /// How far behind the watermark a row may be.
    pub allowed_lateness: Duration,
}

/// Which rows of `right` belong to a row of `left`, by event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedRule {
    /// All in [left - before, left + after].
    Interval { before: Duration, after: Duration },
    /// The newest in [left - tolerance, left].
    AsOf { tolerance: Duration },
}

impl TimedRule {
    /// The `type:` in the file.
    pub fn kind(self) -> &'static str {
        match self {
            TimedRule::Interval { .. } => "IntervalJoin",
            TimedRule::AsOf { .. } => "AsOfJoin",
        }
    }
}

/// What a LookupJoin does.
#[derive(Clone, Debug)]
pub struct LookupJoin {
    /// Where the rows are that are looked up.
    pub table: Table,
    /// What must be equal.
    pub on: Vec<LookupKey>,
    /// Columns of the table that are added; `None`: all that are no keys.
    pub fields: Option<Vec<JoinField>>,
    /// Rows without a partner are filtered.
    pub inner: bool,
    /// What stands in added columns for rows without a partner; the rest is null.
    pub default: Vec<(JoinField, Value)>,
    /// How often the table is read again.
    pub refresh: Option<Duration>,
}

/// A source that ends, read whole.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its `type:`.
    pub kind: String,
    /// Its config.
    pub config: Value,
    /// Where it stands.
    pub place: Place,
}

/// A column of the input that equals a column of a table.
#[derive(Clone, Debug)]
pub struct LookupKey {
    /// Of the input.
    pub input: Expression,
    /// Of the table.
    pub table: String,
    /// Where that stands.
    pub place: Place,
}

/// One column of a Combine.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Name of the column.
    pub name: String,
    /// How values become one.
    pub function: AggregateFunction,
    /// What is aggregated; only `count` can do without.
    pub value: Option<Expression>,
}

/// How many values become one. Beam's are `any` to `sum`, the rest is ours.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateFunction {
    /// Whether any value is true.
    Any,
    /// Whether all values are true.
    All,
    /// The elements of all lists in one list.
    Concat,
    /// Rows.
    Count,
    /// All values in one list.
    Group,
    Max,
    Mean,
    Min,
    Sum,
    /// The value with the earliest event time.
    First,
    /// The value with the latest event time.
    Last,
    /// A list of the n largest or smallest values, best first.
    Top {
        n: usize,
        smallest: bool,
    },
    /// Different values, exactly.
    CountDistinct,
    /// Different values by HyperLogLog with 2^precision registers.
    ApproxCountDistinct {
        precision: u8,
    },
    /// The value at a rank between 0 and 1, about.
    Quantile(f64),
    /// The values at several ranks.
    Quantiles(Vec<f64>),
    /// Of a sample, or of the population.
    Variance {
        population: bool,
    },
    /// The root of the variance.
    StdDev {
        population: bool,
    },
    /// An aggregation of a plugin; `provider` is an index of [`Graph::providers`].
    Plugin {
        provider: usize,
        transform: String,
        config: Value,
    },
}

impl AggregateFunction {
    /// Its name in pipeline files.
    pub fn name(&self) -> &str {
        match self {
            AggregateFunction::Plugin { transform, .. } => transform,
            AggregateFunction::Any => "any",
            AggregateFunction::All => "all",
            AggregateFunction::Concat => "concat",
            AggregateFunction::Count => "count",
            AggregateFunction::Group => "group",
            AggregateFunction::Max => "max",
            AggregateFunction::Mean => "mean",
            AggregateFunction::Min => "min",
            AggregateFunction::Sum => "sum",
            AggregateFunction::First => "first",
            AggregateFunction::Last => "last",
            AggregateFunction::Top { .. } => "top",
            AggregateFunction::CountDistinct => "count_distinct",
            AggregateFunction::ApproxCountDistinct { .. } => "approx_count_distinct",
            AggregateFunction::Quantile(_) => "approx_quantile",
            AggregateFunction::Quantiles(_) => "quantiles",
            AggregateFunction::Variance { .. } => "variance",
            AggregateFunction::StdDev { .. } => "stddev",
        }
    }

    /// Whether it gives a value even for nothing but nulls.
    pub fn never_null(&self) -> bool {
        matches!(self, AggregateFunction::Count | AggregateFunction::CountDistinct | AggregateFunction::ApproxCountDistinct { .. })
    }
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

/// A plugin and the names under which its transforms are used.
#[derive(Clone, Debug)]
pub struct Provider {
    /// As written: a crate's folder, a `.wasm` file or an `oci://` reference.
    pub plugin: String,
    /// The same, resolved against the folder of the pipeline file.
    pub path: PathBuf,
    /// (name in the file, name in the plugin)
    pub transforms: Vec<(String, String)>,
    /// `limits` of the provider's config, `Null` without.
    pub limits: Value,
    /// Where it stands.
    pub place: Place,
}

/// What lint needs to know of plugins; the real one asks `describe`.
pub trait PluginInfo {
    /// The transforms of a provider's plugin. An error is a sentence for the user.
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String>;

    /// Whether plugins can be asked at all; if not, any transform, output and config of theirs is taken to be right.
    fn knows_plugins(&self) -> bool {
        true
    }
}

/// One transform that a plugin offers.
#[derive(Clone, Debug, Default)]
pub struct PluginTransform {
    /// Its name in the plugin.
    pub name: String,
    /// Named outputs besides the main one.
    pub outputs: Vec<String>,
    /// JSON schema of its config; `Null` checks nothing.
    pub config_schema: Value,
    /// How it can be used.
    pub role: PluginRole,
}

/// How a transform of a plugin can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginRole {
    /// As a transform.
    #[default]
    Stateless,
    /// As a transform with a `key`.
    Stateful,
    /// In a Combine.
    Combine,
}

/// Knows no plugin, so that nothing of theirs is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct UncheckedPlugins;

impl PluginInfo for UncheckedPlugins {
    fn transforms(&self, _: &Provider) -> Result<Vec<PluginTransform>, String> {
        Ok(Vec::new())
    }

    fn knows_plugins(&self) -> bool {
        false
    }
}
