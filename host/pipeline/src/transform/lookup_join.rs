//! The config of `LookupJoin`, which is ours: docs/reference/pelton-transforms.md is its text.

use pelton_core::catalog::{ConnectorSpec, Role};
use pelton_core::time::Duration;

use super::Context;
use super::connector::check_config;
use crate::expression::column;
use crate::fields::{Fields, text};
use crate::graph::{JoinField, LookupJoin, LookupKey, Table, Transform};
use crate::report::{Report, suggestion};
use crate::yaml::{Content, Entry, Yaml};

pub(super) fn lookup_join(fields: &mut Fields<'_>, context: &Context<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let table = fields.require("table", report).and_then(|entry| table(entry, context, report));
    let on = fields.require("on", report).and_then(|entry| keys(entry, report));
    let added = match fields.get("fields") {
        None => Some(None),
        Some(entry) => added(entry, report).map(Some),
    };
    let inner = kind(fields, report);
    let default = match fields.get("default") {
        None => Some(Vec::new()),
        Some(entry) => default(entry, inner == Some(true), report),
    };
    let refresh = refresh(fields, report);
    Some(Transform::LookupJoin(Box::new(LookupJoin {
        table: table?,
        on: on?,
        fields: added?,
        inner: inner?,
        default: default?,
        refresh: refresh?,
    })))
}

/// `Some(None)`: the table is read once.
fn refresh(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Option<Duration>> {
    let Some(entry) = fields.get("refresh") else { return Some(None) };
    let period = fields.duration("refresh", report)?;
    if period == Duration::ZERO {
        report.error(entry.value.mark, "`refresh` must be more than 0s");
        return None;
    }
    Some(Some(period))
}

fn table(entry: &Entry, context: &Context<'_>, report: &mut Report<'_>) -> Option<Table> {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`table`", report);
    let kind = fields.require("type", report);
    let config = fields.get("config").map(|config| &config.value);
    fields.finish(report);
    let kind = kind?;
    let name = text(&kind.value, "`type`", report)?;
    let sources = || context.catalog.iter().copied().filter(|connector| connector.role == Role::Source);
    let Some(connector): Option<&ConnectorSpec> = sources().find(|connector| connector.name == name) else {
        let help = suggestion(name, sources().map(|connector| connector.name));
        report.error_with_help(kind.value.mark, format!("there is no source `{name}` to read a table with"), help);
        return None;
    };
    let values = config.map_or_else(|| serde_json::json!({}), Yaml::to_json);
    check_config(connector, &values, config, kind.value.mark, report);
    Some(Table { kind: name.to_string(), config: values, place: report.place(entry.value.mark) })
}

/// `{column of the input: column of the table}`
fn keys(entry: &Entry, report: &mut Report<'_>) -> Option<Vec<LookupKey>> {
    let Content::Mapping(entries) = &entry.value.content else {
        let help = "write `{column of the input: column of the table}`".to_string();
        report.error_with_help(entry.value.mark, format!("`on` must be a mapping, not {}", entry.value.kind()), Some(help));
        return None;
    };
    if entries.is_empty() {
        report.error(entry.value.mark, "`on` names no column");
        return None;
    }
    let mut keys = Vec::with_capacity(entries.len());
    for pair in entries {
        let of_table = text(&pair.value, "a column", report)?;
        let place = report.place(pair.value.mark);
        keys.push(LookupKey { input: column(&pair.key, pair.mark, report), table: of_table.to_string(), place });
    }
    Some(keys)
}

/// `[column, …]` or `{new: old}`
fn added(entry: &Entry, report: &mut Report<'_>) -> Option<Vec<JoinField>> {
    let mut listed = Vec::new();
    match &entry.value.content {
        Content::List(columns) => {
            for yaml in columns {
                let name = text(yaml, "a column", report)?;
                listed.push((name, name, yaml.mark));
            }
        }
        Content::Mapping(columns) => {
            for column in columns {
                listed.push((column.key.as_str(), text(&column.value, "a column", report)?, column.mark));
            }
        }
        _ => {
            let help = "write a list of columns of the table, or a mapping `{new name: column}`".to_string();
            let message = format!("`fields` must be a list or a mapping, not {}", entry.value.kind());
            report.error_with_help(entry.value.mark, message, Some(help));
            return None;
        }
    }
    for (number, (name, _, mark)) in listed.iter().enumerate() {
        if listed[..number].iter().any(|(other, ..)| other == name) {
            let help = format!("give one of them another name: `{{new_name: {name}}}`");
            report.error_with_help(*mark, format!("the output would have two fields `{name}`"), Some(help));
            return None;
        }
    }
    let own = |(name, column, mark): (&str, &str, _)| JoinField { name: name.into(), column: column.into(), place: report.place(mark) };
    Some(listed.into_iter().map(own).collect())
}

/// Whether rows without a partner are filtered.
fn kind(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<bool> {
    let Some(entry) = fields.get("type") else { return Some(false) };
    match text(&entry.value, "`type`", report)? {
        "left" => Some(false),
        "inner" => Some(true),
        other => {
            let help = suggestion(other, ["left", "inner"]);
            report.error_with_help(entry.value.mark, format!("a `LookupJoin` cannot be `{other}`"), help);
            None
        }
    }
}

fn default(entry: &Entry, inner: bool, report: &mut Report<'_>) -> Option<Vec<(JoinField, serde_json::Value)>> {
    if inner {
        let help = "use `type: left`, or take `default` away".to_string();
        report.error_with_help(
            entry.mark,
            "rows without a partner do not come out of an inner join, so `default` says nothing",
            Some(help),
        );
        return None;
    }
    values(entry, report)
}

/// `{column: value}`
pub(super) fn values(entry: &Entry, report: &mut Report<'_>) -> Option<Vec<(JoinField, serde_json::Value)>> {
    let Some(entries) = entry.value.entries() else {
        let message = format!("`default` must be a mapping `{{column: value}}`, not {}", entry.value.kind());
        report.error(entry.value.mark, message);
        return None;
    };
    let value = |entry: &Entry| {
        let field = JoinField { name: entry.key.clone(), column: entry.key.clone(), place: report.place(entry.mark) };
        (field, entry.value.to_json())
    };
    Some(entries.iter().map(value).collect())
}
