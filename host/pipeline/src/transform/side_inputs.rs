//! The config `side_inputs`, which is ours: docs/reference/pelton-transforms.md is its text.
//!
//! Side inputs are inputs of their own, told from the rows that a transform works on by `input: {main: A, tag: B}`.

use pelton_core::time::Duration;
use pelton_expr::lower_lookups;

use super::lookup_join::values;
use crate::expression::{column, inside};
use crate::fields::{Fields, text};
use crate::graph::{Expression, Language, SideInput, SideKind, SideLookup, Transform};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::syntax::Spec;
use crate::yaml::{Content, Entry, Yaml};

/// The key of the config.
pub(super) const SIDE_INPUTS: &str = "side_inputs";
/// The tag of the input that is none.
pub(crate) const MAIN: &str = "main";

/// The entry of a config, wherever it is read.
pub(super) fn entry_of<'y>(spec: &Spec<'y>) -> Option<&'y Entry> {
    let entries = spec.config.and_then(Yaml::entries).into_iter().flatten();
    entries.into_iter().find(|entry| entry.key == SIDE_INPUTS && !entry.value.is_null())
}

/// The side inputs in the order of the transform's inputs, without what is looked up in them.
pub(super) fn side_inputs(spec: &Spec<'_>, report: &mut Report<'_>) -> Vec<SideInput> {
    let Some(entry) = entry_of(spec) else { return Vec::new() };
    let ports = spec.inputs.as_deref().unwrap_or_default();
    let entries = Fields::of(Some(&entry.value), entry.mark, "`side_inputs`", report).into_entries();
    let mut sides: Vec<SideInput> = Vec::new();
    for given in entries {
        if given.key == MAIN {
            report.error(given.mark, "`main` is the input whose rows are worked on, not a side input");
            continue;
        }
        if let Some(side) = side_input(given, report) {
            sides.push(side);
        }
    }
    let help = || {
        let tags: Vec<String> = entries.iter().filter(|given| given.key != MAIN).map(|given| format!(", {}: …", given.key)).collect();
        format!("write `input: {{main: …{}}}`", tags.concat())
    };
    if !ports.iter().any(|port| port.tag == MAIN) {
        report.error_with_help(
            entry.mark,
            format!("`{}` has side inputs, so its own input must be called `main`", spec.kind),
            Some(help()),
        );
        return sides;
    }
    for given in entries.iter().filter(|given| given.key != MAIN && !ports.iter().any(|port| port.tag == given.key)) {
        let near = pelton_core::catalog::nearest(&given.key, ports.iter().map(|port| port.tag.as_str()).filter(|tag| *tag != MAIN));
        let help = near.map_or_else(help, |near| format!("`input` has `{near}`: call both the same"));
        report.error_with_help(given.mark, format!("the side input `{}` is no input of `{}`", given.key, spec.kind), Some(help));
    }
    for port in ports.iter().filter(|port| port.tag != MAIN && !entries.iter().any(|given| given.key == port.tag)) {
        let message = format!("the input `{}` is not in `side_inputs`", port.tag);
        report.error_with_help(port.mark, message, suggestion(&port.tag, entries.iter().map(|given| given.key.as_str())));
    }
    sides.sort_by_key(|side| ports.iter().position(|port| port.tag == side.tag));
    sides
}

fn side_input(given: &Entry, report: &mut Report<'_>) -> Option<SideInput> {
    let mut fields = Fields::of(Some(&given.value), given.mark, format!("the side input `{}`", given.key), report);
    let shape = fields.require("as", report);
    let key = fields.get("key");
    let period = fields.get("refresh");
    let refresh = fields.duration("refresh", report);
    let default = fields.get("default");
    fields.finish(report);
    let shape = shape?;
    if let Some(entry) = period.filter(|_| refresh == Some(Duration::ZERO)) {
        report.error(entry.value.mark, "`refresh` must be more than 0s");
    }
    let kind = match text(&shape.value, "`as`", report)? {
        "singleton" => SideKind::Singleton,
        "iterable" => SideKind::Iterable,
        "dict" => {
            let Some(key) = key else {
                let help = "say which of its columns rows are looked up by: `key: id`".to_string();
                report.error_with_help(given.mark, format!("the side input `{}` is a dict and needs a `key`", given.key), Some(help));
                return None;
            };
            SideKind::Dict { key: column(text(&key.value, "`key`", report)?, key.value.mark, report) }
        }
        other => {
            let help = suggestion(other, ["singleton", "iterable", "dict"]);
            report.error_with_help(shape.value.mark, format!("a side input cannot be read as `{other}`"), help);
            return None;
        }
    };
    if let (Some(key), SideKind::Singleton | SideKind::Iterable) = (key, &kind) {
        let help = "rows are looked up by a key in `as: dict`".to_string();
        report.error_with_help(key.mark, format!("the side input `{}` is no dict, so it has no `key`", given.key), Some(help));
    }
    if let (Some(default), SideKind::Iterable) = (default, &kind) {
        report.error(default.mark, "an iterable without rows is empty, so it has no `default`");
    }
    let default = default.and_then(|entry| values(entry, report)).unwrap_or_default();
    let place = report.place(given.mark);
    Some(SideInput { tag: given.key.clone(), kind, refresh, default, place, lookups: None, from_first_row: false })
}

/// Finds what the expressions of a transform look up.
pub(super) fn look_up(spec: &Spec<'_>, transform: Option<&Transform>, sides: &mut [SideInput], report: &mut Report<'_>) {
    let expressions: Vec<&Expression> = match transform {
        Some(Transform::MapToFields { fields, .. }) => fields.iter().map(|(_, expression)| expression).collect(),
        Some(Transform::Filter { keep }) => vec![keep],
        _ => return,
    };
    sides.iter_mut().for_each(|side| side.lookups = Some(Vec::new()));
    let entries = || entry_of(spec).and_then(|entry| entry.value.entries()).into_iter().flatten();
    for expression in expressions.into_iter().filter(|expression| expression.language == Language::Sql) {
        // What is wrong with the text has been reported.
        let Ok(lowered) = lower_lookups(&expression.text) else { continue };
        let mark = |offset: Option<usize>, report: &Report<'_>| {
            let mark = spec.config.and_then(|config| mark_of(config, expression, report)).unwrap_or(spec.kind_mark);
            offset.and_then(|offset| inside(&expression.text, offset, mark, report)).unwrap_or(mark)
        };
        for lookup in lowered.lookups {
            let tags: Vec<&str> = sides.iter().map(|side| side.tag.as_str()).collect();
            let Some(number) = tags.iter().position(|tag| *tag == lookup.tag) else {
                if entries().any(|entry| entry.key == lookup.tag) {
                    // What is wrong with it has been reported.
                    continue;
                }
                let message = format!("in `{}`: there is no side input `{}`", expression.text, lookup.tag);
                report.error_with_help(mark(lookup.offset, report), message, suggestion(&lookup.tag, tags));
                continue;
            };
            let side = &mut sides[number];
            let fault = match (&side.kind, &lookup.key) {
                (SideKind::Dict { .. }, None) => {
                    Some(format!("`{}` is a dict: look up a key, `lookup('{}', key).{}`", side.tag, side.tag, lookup.column))
                }
                (SideKind::Singleton | SideKind::Iterable, Some(_)) => {
                    Some(format!("`{}` is no dict and has no keys: write `lookup('{}').{}`", side.tag, side.tag, lookup.column))
                }
                _ => None,
            };
            if let Some(fault) = fault {
                report.error(mark(lookup.offset, report), format!("in `{}`: {fault}", expression.text));
                continue;
            }
            let key = lookup.key.map(|text| Expression { text, output_type: None, ..expression.clone() });
            let made = SideLookup { key, column: lookup.column, name: lookup.name, place: expression.place };
            let lookups = side.lookups.get_or_insert_default();
            if !lookups.iter().any(|known| known.name == made.name) {
                lookups.push(made);
            }
        }
    }
    for side in sides.iter().filter(|side| side.lookups.as_ref().is_some_and(Vec::is_empty)) {
        if let Some(entry) = entries().find(|entry| entry.key == side.tag).filter(|_| !report.has_errors()) {
            let help = "read it with `lookup` in an expression in `language: sql`, or take it away".to_string();
            report.warning(entry.mark, format!("nothing is looked up in the side input `{}`", side.tag), Some(help));
        }
    }
}

/// Where an expression stands in a config.
fn mark_of(config: &Yaml, expression: &Expression, report: &Report<'_>) -> Option<Mark> {
    match &config.content {
        Content::Mapping(entries) => entries.iter().find_map(|entry| mark_of(&entry.value, expression, report)),
        Content::Text(text) => (*text == expression.text && report.place(config.mark) == expression.place).then_some(config.mark),
        _ => None,
    }
}
