//! Combine.

use super::Lowered;
use crate::aggregate::{self, Plugins};
use crate::expression::{self, Dialect};
use crate::fields::{Fields, texts};
use crate::graph::{LATE, Transform};
use crate::report::Report;
use crate::yaml::Entry;
use pelton_core::time::Duration;

pub(super) fn combine(fields: &mut Fields<'_>, dialect: Dialect, plugins: &Plugins<'_>, report: &mut Report<'_>) -> Lowered {
    let lowered = aggregates(fields, dialect, plugins, report);
    let (Some(parts), Some(entry)) = (fields.count("fanout", 2, report), fields.get("fanout")) else { return lowered };
    let Some(Transform::Combine { group_by, combine, .. }) = lowered.transform else { return lowered };
    if let Some(list) = combine.iter().find(|aggregate| !aggregate.function.condenses()) {
        let message = format!("`fanout` gains nothing with `{}`: the parts of a list hold all its rows", list.function.name());
        report.error_with_help(entry.mark, message, Some("leave `fanout` out, or take lists in a `Combine` of their own".to_string()));
    }
    Lowered { transform: Some(Transform::Combine { group_by, combine, fanout: Some(parts) }), ..lowered }
}

/// What `group_by` and `combine` say.
fn aggregates(fields: &mut Fields<'_>, dialect: Dialect, plugins: &Plugins<'_>, report: &mut Report<'_>) -> Lowered {
    let dialect = dialect.read(fields, report);
    let group_by = fields.require("group_by", report);
    let keys = group_by.map(|entry| texts(&entry.value, "`group_by`", report)).unwrap_or_default();
    let combine = fields.require("combine", report);
    let mut aggregates = Vec::new();
    if let Some(entry) = combine {
        for output in Fields::of(Some(&entry.value), entry.mark, "`combine`", report).into_entries() {
            if keys.iter().any(|(key, _)| *key == output.key) {
                report.error(output.mark, format!("`{}` is a field of `group_by` already", output.key));
            }
            aggregates.extend(aggregate::aggregate(output, dialect, plugins, report));
        }
        if entry.value.entries().is_some_and(<[Entry]>::is_empty) {
            report.error(entry.mark, "`combine` has no fields");
        }
    }
    let mut group_by: Vec<(String, crate::graph::Expression)> = Vec::new();
    for (key, mark) in keys {
        if group_by.iter().any(|(other, _)| other == key) {
            report.error(mark, format!("`{key}` stands twice in `group_by`"));
        }
        group_by.push((key.to_string(), expression::column(key, mark, report)));
    }
    let transform = Transform::Combine { group_by, combine: aggregates, fanout: None };
    Lowered { outputs: vec![LATE.to_string()], ..Lowered::plain(Some(transform)) }
}

/// As Combine, with levels; ours.
pub(super) fn roll_up(fields: &mut Fields<'_>, dialect: Dialect, plugins: &Plugins<'_>, report: &mut Report<'_>) -> Lowered {
    let lowered = aggregates(fields, dialect, plugins, report);
    let Some(entry) = fields.require("levels", report) else { return lowered };
    let mut levels: Vec<(String, Duration)> = Vec::new();
    for (name, mark) in texts(&entry.value, "`levels`", report) {
        let length = match Duration::parse(name) {
            Ok(length) if length > Duration::ZERO => length,
            Ok(_) => {
                report.error(mark, "a level must be longer than 0");
                continue;
            }
            Err(error) => {
                report.error(mark, format!("`levels`: {error}"));
                continue;
            }
        };
        if let Some((finer, before)) = levels.last()
            && (length <= *before || length.micros() % before.micros() != 0)
        {
            let help = "levels go from fine to coarse, and each divides the next, such as [1m, 1h, 1d]".to_string();
            report.error_with_help(mark, format!("the level `{name}` is not made of whole `{finer}`"), Some(help));
        }
        levels.push((name.to_string(), length));
    }
    if levels.is_empty() && !report.has_errors() {
        report.error(entry.value.mark, "`levels` is empty");
    }
    let mut outputs: Vec<String> = levels.iter().map(|(name, _)| name.clone()).collect();
    outputs.extend(lowered.outputs);
    let transform = match lowered.transform {
        Some(Transform::Combine { group_by, combine, .. }) => Some(Transform::RollUp { group_by, combine, levels }),
        other => other,
    };
    Lowered { outputs, has_main: false, ..Lowered::plain(transform) }
}
