//! Aggregates as the file writes them: `out: fn`, `out: {value, fn}`, `out: {value, fn: {type, config}}`.
//!
//! Beam's names first (`any all concat count group max mean min sum`), then ours. docs/reference/aggregates.md describes each;
//! a test compares the two.

use crate::changes::Changes;
use crate::expression::{Dialect, column, field};
use crate::fields::{Fields, text};
use crate::graph::{Aggregate, AggregateFunction, PluginRole};
use crate::provider::{Offered, check_config};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::yaml::{Content, Entry, Yaml};
use AggregateFunction::*;

/// The longest list of a `top`.
const MAX_TOP: usize = 10_000;
/// Registers of a distinct count as a power of two: the default's standard error is 1.6 %, of 4 KiB a cell.
const DEFAULT_PRECISION: u8 = 12;
const PRECISIONS: std::ops::RangeInclusive<u8> = 4..=18;

/// Every name, in the order of the reference.
pub(crate) const NAMES: [&str; 18] = [
    "any",
    "all",
    "concat",
    "count",
    "group",
    "max",
    "mean",
    "min",
    "sum",
    "first",
    "last",
    "top",
    "count_distinct",
    "approx_count_distinct",
    "approx_quantile",
    "quantiles",
    "variance",
    "stddev",
];

/// What plugins offer to the aggregates of one transform.
pub(crate) struct Plugins<'a> {
    /// Its full name.
    pub transform: &'a str,
    pub offered: &'a [Offered],
    /// What is other than the file says.
    pub changes: &'a Changes<'a>,
}

/// One entry of `combine`. Without `value` the column of the same name is aggregated, as in Beam, except that `count` then
/// counts rows.
pub(crate) fn aggregate(entry: &Entry, dialect: Dialect, plugins: &Plugins<'_>, report: &mut Report<'_>) -> Option<Aggregate> {
    let (function, value) = match &entry.value.content {
        Content::Mapping(_) => {
            let mut fields = Fields::of(Some(&entry.value), entry.mark, format!("`{}`", entry.key), report);
            let wanted = fields.require("fn", report);
            let given = fields.get("value");
            let value = given.and_then(|given| field(&given.value, dialect, report));
            fields.finish(report);
            let function = function(&wanted?.value, &entry.key, plugins, report)?;
            if given.is_some() && value.is_none() {
                return None;
            }
            (function, value)
        }
        _ => (function(&entry.value, &entry.key, plugins, report)?, None),
    };
    let value = match function {
        Count => value,
        _ => Some(value.unwrap_or_else(|| column(&entry.key, entry.mark, report))),
    };
    Some(Aggregate { name: entry.key.clone(), function, value })
}

/// `sum`, or `{type: top, config: {n: 3}}`.
fn function(yaml: &Yaml, column: &str, plugins: &Plugins<'_>, report: &mut Report<'_>) -> Option<AggregateFunction> {
    if yaml.entries().is_none() {
        return configured(text(yaml, "an aggregate", report)?, yaml.mark, None, (column, plugins), report);
    }
    let mut fields = Fields::of(Some(yaml), yaml.mark, "`fn`", report);
    let kind = fields.require("type", report);
    let config = fields.get("config");
    fields.finish(report);
    let kind = &kind?.value;
    configured(text(kind, "`type`", report)?, kind.mark, config.map(|config| &config.value), (column, plugins), report)
}

fn configured(
    name: &str,
    mark: Mark,
    config: Option<&Yaml>,
    (column, plugins): (&str, &Plugins<'_>),
    report: &mut Report<'_>,
) -> Option<AggregateFunction> {
    if !NAMES.contains(&name)
        && let Some(offered) = plugins.offered.iter().find(|offered| offered.name == name)
    {
        // What swaps have made of it.
        let full = format!("{}.{column}", plugins.transform);
        let (other, changed) = (plugins.changes.aggregate(&full, offered, mark, report), plugins.changes.own_config(&full, report));
        let mark = changed.as_ref().map_or(mark, |changed| changed.mark);
        return plugin(other.as_ref().unwrap_or(offered), mark, changed.as_ref().or(config), report);
    }
    let mut config = Fields::of(config, mark, format!("the config of `{name}`"), report);
    let function = match name {
        "any" => Some(Any),
        "all" => Some(All),
        "concat" => Some(Concat),
        "count" => Some(Count),
        "group" => Some(Group),
        "max" => Some(Max),
        "mean" => Some(Mean),
        "min" => Some(Min),
        "sum" => Some(Sum),
        "first" => Some(First),
        "last" => Some(Last),
        "top" => top(&mut config, report),
        "count_distinct" => Some(CountDistinct),
        "approx_count_distinct" => precision(&mut config, report),
        "approx_quantile" => ranks(&mut config, false, report).map(|ranks| Quantile(ranks[0])),
        "quantiles" => ranks(&mut config, true, report).map(Quantiles),
        "variance" => population(&mut config, report).map(|population| Variance { population }),
        "stddev" => population(&mut config, report).map(|population| StdDev { population }),
        other => {
            report.error_with_help(
                mark,
                format!("unknown aggregate `{other}`"),
                suggestion(other, NAMES.into_iter().chain(aggregations(plugins.offered))),
            );
            return None;
        }
    };
    config.finish(report);
    function
}

/// The names of plugins' aggregations.
fn aggregations(offered: &[Offered]) -> impl Iterator<Item = &str> {
    let known = |offered: &&Offered| offered.known.as_ref().is_none_or(|known| known.role == PluginRole::Combine);
    offered.iter().filter(known).map(|offered| offered.name.as_str())
}

fn plugin(offered: &Offered, mark: Mark, config: Option<&Yaml>, report: &mut Report<'_>) -> Option<AggregateFunction> {
    if let Some(known) = &offered.known {
        if known.role != PluginRole::Combine {
            let help = "it stands as a transform of its own, not in a `Combine`".to_string();
            report.error_with_help(mark, format!("`{}` is no aggregation", offered.name), Some(help));
            return None;
        }
        check_config(config, mark, &known.config_schema, &|_| false, report);
    }
    Fields::of(config, mark, format!("the config of `{}`", offered.name), report);
    let config = config.map(Yaml::to_json).filter(|config| !config.is_null());
    let config = config.unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
    Some(AggregateFunction::Plugin { provider: offered.provider, transform: offered.transform.clone(), config })
}

fn top(config: &mut Fields<'_>, report: &mut Report<'_>) -> Option<AggregateFunction> {
    let n = config.require("n", report);
    let smallest = match config.get("order") {
        None => Some(false),
        Some(order) => match text(&order.value, "`order`", report) {
            Some("largest") => Some(false),
            Some("smallest") => Some(true),
            Some(other) => {
                let help = suggestion(other, ["largest", "smallest"]);
                report.error_with_help(order.value.mark, format!("`order` must be largest or smallest, not `{other}`"), help);
                None
            }
            None => None,
        },
    };
    let n = &n?.value;
    match &n.content {
        Content::Number(number) if number.as_u64().is_some_and(|n| (1..=MAX_TOP as u64).contains(&n)) => {
            Some(Top { n: number.as_u64()? as usize, smallest: smallest? })
        }
        _ => {
            report.error(n.mark, format!("`n` must be a whole number from 1 to {MAX_TOP}"));
            None
        }
    }
}

fn precision(config: &mut Fields<'_>, report: &mut Report<'_>) -> Option<AggregateFunction> {
    let Some(entry) = config.get("precision") else { return Some(ApproxCountDistinct { precision: DEFAULT_PRECISION }) };
    let number = match &entry.value.content {
        Content::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        _ => None,
    };
    match number.filter(|number| PRECISIONS.contains(number)) {
        Some(precision) => Some(ApproxCountDistinct { precision }),
        None => {
            let (from, to) = (PRECISIONS.start(), PRECISIONS.end());
            report.error(entry.value.mark, format!("`precision` must be a whole number from {from} to {to}"));
            None
        }
    }
}

/// `q`: a number, or a list of them.
fn ranks(config: &mut Fields<'_>, many: bool, report: &mut Report<'_>) -> Option<Vec<f64>> {
    let q = &config.require("q", report)?.value;
    let one = |yaml: &Yaml| match &yaml.content {
        Content::Number(number) => number.as_f64().filter(|rank| (0.0..=1.0).contains(rank)),
        _ => None,
    };
    let ranks: Option<Vec<f64>> = match &q.content {
        Content::List(list) if many && !list.is_empty() => list.iter().map(one).collect(),
        _ if !many => one(q).map(|rank| vec![rank]),
        _ => None,
    };
    if ranks.is_none() {
        let wanted = if many { "a list of numbers from 0 to 1, such as [0.5, 0.99]" } else { "a number from 0 to 1, such as 0.99" };
        report.error(q.mark, format!("`q` must be {wanted}"));
    }
    ranks
}

/// `of: sample`, the default, or `of: population`.
fn population(config: &mut Fields<'_>, report: &mut Report<'_>) -> Option<bool> {
    let Some(entry) = config.get("of") else { return Some(false) };
    match text(&entry.value, "`of`", report)? {
        "sample" => Some(false),
        "population" => Some(true),
        other => {
            let help = suggestion(other, ["sample", "population"]);
            report.error_with_help(entry.value.mark, format!("`of` must be sample or population, not `{other}`"), help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference has a row for every aggregate.
    #[test]
    fn reference() {
        let reference = include_str!("../../../docs/reference/aggregates.md");
        for name in NAMES {
            assert!(reference.contains(&format!("\n| `{name}` |")), "docs/reference/aggregates.md has no row for `{name}`");
        }
    }
}
