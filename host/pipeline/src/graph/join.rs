//! Joins: by window, by time, and with a table.

use super::{Expression, Place};
use pelton_core::Duration;
use serde_json::Value;

/// What a Join does. Inputs are joined in their order: the second to the first, the third to what comes of that, and so on.
#[derive(Clone, Debug)]
pub struct Join {
    /// What the inputs are called, in the order of [`super::Node::inputs`].
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
