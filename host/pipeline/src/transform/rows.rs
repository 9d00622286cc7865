//! Transforms that look at one row at a time: MapToFields, Filter, Partition, Explode.

use super::Lowered;
use super::side_inputs::SIDE_INPUTS;
use crate::expression::{self, Dialect};
use crate::fields::{Fields, texts};
use crate::graph::Transform;
use crate::report::Report;

pub(super) fn map_to_fields(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report).beside(fields.get(SIDE_INPUTS).is_some());
    let append = fields.boolean("append", report).unwrap_or(false);
    let drop = fields.get("drop");
    let dropped = drop.map(|entry| texts(&entry.value, "`drop`", report)).unwrap_or_default();
    if let Some(entry) = drop.filter(|_| !append) {
        report.error_with_help(entry.mark, "`drop` needs `append: true`", Some("without it only `fields` are kept".to_string()));
    }
    fields.not_yet("dependencies", report);
    let entry = match append {
        true => fields.get("fields"),
        false => fields.require("fields", report),
    };
    let mut columns = Vec::new();
    if let Some(entry) = entry {
        for field in Fields::of(Some(&entry.value), entry.mark, "`fields`", report).into_entries() {
            if let Some(expression) = expression::field(&field.value, dialect, report) {
                columns.push((field.key.clone(), expression));
            }
        }
    }
    let drop = dropped.into_iter().map(|(name, _)| name.to_string()).collect();
    Some(Transform::MapToFields { fields: columns, append, drop })
}

pub(super) fn filter(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report).beside(fields.get(SIDE_INPUTS).is_some());
    fields.not_yet("dependencies", report);
    let keep = fields.require("keep", report)?;
    Some(Transform::Filter { keep: expression::field(&keep.value, dialect, report)? })
}

pub(super) fn partition(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Lowered {
    let dialect = dialect.read(fields, report);
    let by = fields.require("by", report).and_then(|entry| expression::field(&entry.value, dialect, report));
    let listed = fields.require("outputs", report);
    let mut outputs: Vec<String> = Vec::new();
    for (name, mark) in listed.map(|entry| texts(&entry.value, "`outputs`", report)).unwrap_or_default() {
        if name.is_empty() || outputs.iter().any(|other| other == name) {
            report.error(mark, format!("the output `{name}` is given twice or has no name"));
        } else {
            outputs.push(name.to_string());
        }
    }
    let unknown_output = fields.text("unknown_output", report).map(str::to_string);
    let mut all = outputs.clone();
    all.extend(unknown_output.iter().filter(|name| !outputs.contains(name)).cloned());
    let transform = by.map(|by| Transform::Partition { by, outputs, unknown_output });
    Lowered { has_main: false, open: listed.is_none(), outputs: all, ..Lowered::plain(transform) }
}

pub(super) fn explode(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let cross_product = fields.boolean("cross_product", report);
    let given = fields.get("cross_product").is_some();
    let entry = fields.require("fields", report)?;
    let mut names: Vec<String> = Vec::new();
    for (name, mark) in texts(&entry.value, "`fields`", report) {
        if names.iter().any(|other| other == name) {
            report.error(mark, format!("`{name}` stands twice in `fields`"));
        } else {
            names.push(name.to_string());
        }
    }
    if names.len() > 1 && !given {
        let help = "`true` gives every combination of their values, `false` takes them side by side".to_string();
        report.error_with_help(entry.mark, "`Explode` of several fields needs `cross_product`", Some(help));
    }
    Some(Transform::Explode { fields: names, cross_product: cross_product.unwrap_or(true) })
}
