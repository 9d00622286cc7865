//! Which SQL functions there are, and which are refused and why.

use crate::expression::ExpressionError;
use crate::signed::signed;
use datafusion_expr::{ScalarUDF, Volatility};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Functions that would give another value when rows are processed again after a failure.
const CLOCKS: &[&str] = &["now", "current_timestamp", "current_date", "current_time", "today", "localtime", "localtimestamp"];
const CHANCE: &[&str] = &["random", "rand", "uuid", "gen_random_uuid"];
/// They depend on the build, or only show the engine's insides.
const INTERNAL: &[&str] = &["version", "arrow_metadata", "with_metadata"];
const AGGREGATES: &[&str] = &[
    "any_value",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "every",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
    "var_samp",
    "variance",
];
const WINDOWS: &[&str] = &["row_number", "rank", "dense_rank", "lag", "lead", "nth_value", "ntile", "percent_rank", "cume_dist"];

static FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = BTreeMap::new();
    let nested = datafusion_functions_nested::all_default_nested_functions().into_iter().map(signed);
    for function in datafusion_functions::all_default_functions().into_iter().chain(nested) {
        let names: Vec<String> =
            std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)).map(str::to_lowercase).collect();
        let refused = names.iter().any(|name| [CLOCKS, CHANCE, INTERNAL].iter().any(|list| list.contains(&name.as_str())));
        if !refused && function.signature().volatility != Volatility::Volatile {
            functions.extend(names.into_iter().map(|name| (name, function.clone())));
        }
    }
    functions
});

/// A function by its name in any case.
pub(crate) fn find(name: &str) -> Option<Arc<ScalarUDF>> {
    FUNCTIONS.get(&name.to_lowercase()).cloned()
}

/// All names, in lower case.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().map(String::as_str)
}

/// Says why a call of `name` cannot be part of an expression, or of a query, where aggregates are left to others.
pub(crate) fn check_call(name: &str, has_window: bool, in_query: bool) -> Result<(), ExpressionError> {
    let lower = name.to_lowercase();
    let is = |list: &[&str]| list.contains(&lower.as_str());
    if has_window || is(WINDOWS) {
        return Err(ExpressionError::new(format!("`{name}` is called as a window function; an expression sees one row at a time"))
            .help(if in_query { "group rows with GROUP BY" } else { "group rows with the transform `Combine`" }));
    }
    if in_query && is(crate::query::aggregates::NAMES) {
        return Ok(());
    }
    if in_query && is(AGGREGATES) {
        return Err(ExpressionError::new(format!("there is no aggregate `{name}`"))
            .help(format!("there are {}", crate::query::aggregates::NAMES.join(", "))));
    }
    if is(AGGREGATES) && find(&lower).is_none() {
        return Err(ExpressionError::new(format!("`{name}` is an aggregate function; an expression sees one row at a time"))
            .help("aggregate with the transform `Combine`"));
    }
    if is(CLOCKS) {
        return Err(ExpressionError::new(format!(
            "`{name}` reads the clock, so rows that are processed again after a failure would get another value"
        ))
        .help("use a time column of the rows"));
    }
    if is(CHANCE) {
        return Err(ExpressionError::new(format!(
            "`{name}` is random, so rows that are processed again after a failure would get another value"
        ))
        .help("derive the value from columns of the row, for example with a hash in a plugin"));
    }
    if lower == crate::lookup::LOOKUP {
        return Err(ExpressionError::new(format!("`{name}` reads a side input, and there is none here"))
            .help("a `MapToFields` or `Filter` has them by `side_inputs` in its config, with `input: {main: …, tag: …}`"));
    }
    if find(&lower).is_none() {
        let error = ExpressionError::new(format!("there is no function `{name}`"));
        return Err(match pelton_core::catalog::nearest(&lower, names()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("docs/reference/sql-expressions.md lists the functions"),
        });
    }
    Ok(())
}
