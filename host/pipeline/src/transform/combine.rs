//! Combine.

use super::Lowered;
use crate::aggregate;
use crate::expression::{self, Dialect};
use crate::fields::{Fields, texts};
use crate::graph::{LATE, Transform};
use crate::provider::Offered;
use crate::report::Report;
use crate::yaml::Entry;

pub(super) fn combine(fields: &mut Fields<'_>, dialect: Dialect, offered: &[Offered], report: &mut Report<'_>) -> Lowered {
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
            aggregates.extend(aggregate::aggregate(output, dialect, offered, report));
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
    let transform = Transform::Combine { group_by, combine: aggregates };
    Lowered { outputs: vec![LATE.to_string()], ..Lowered::plain(Some(transform)) }
}
