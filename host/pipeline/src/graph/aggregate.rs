//! What a Combine makes of the values of a group.

use super::Expression;
use serde_json::Value;

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
    /// An aggregation of a plugin; `provider` is an index of [`super::Graph::providers`].
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

    /// Whether what it keeps of many rows is smaller than the rows: a list is not.
    pub fn condenses(&self) -> bool {
        !matches!(self, AggregateFunction::Group | AggregateFunction::Concat)
    }

    /// Whether it gives a value even for nothing but nulls.
    pub fn never_null(&self) -> bool {
        matches!(self, AggregateFunction::Count | AggregateFunction::CountDistinct | AggregateFunction::ApproxCountDistinct { .. })
    }
}
