//! The config of `Join`, as Beam 2.77 has it (`yaml_join.py`): which columns are equal, whose rows stay without a partner, and
//! which columns come out.
//!
//! Inputs are joined in the order in which they are named: the second to the first, the third to what comes of that, and so on.
//! A set of equal columns over more than two inputs means the first of them with each of the others, as in Beam.

use super::{Arity, Lowered};
use crate::expression::column;
use crate::fields::{Fields, text};
use crate::graph::{Equality, Join, JoinField, JoinFields, JoinKind, LATE, Transform};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::syntax::{Port, Spec};
use crate::yaml::{Content, Entry, Yaml};

pub(super) fn join(spec: &Spec<'_>, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Lowered {
    let transform = config(spec, fields, report);
    Lowered { arity: Some(Arity::Named), outputs: vec![LATE.to_string()], ..Lowered::plain(transform) }
}

/// `None`: something is wrong and has been reported.
fn config(spec: &Spec<'_>, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let ports = spec.inputs.as_deref().unwrap_or_default();
    let equalities = fields.require("equalities", report);
    let kind = fields.get("type");
    let wanted = fields.get("fields");
    if ports.len() < 2 {
        let mark = ports.first().map_or(spec.kind_mark, |port| port.mark);
        let help = "name each input: `input: {left: First, right: Second}`".to_string();
        report.error_with_help(mark, format!("`Join` needs two inputs or more, not {}", ports.len()), Some(help));
        return None;
    }
    let tags: Vec<&str> = ports.iter().map(|port| port.tag.as_str()).collect();
    let kinds = kinds(kind, &tags, report)?;
    let equalities = pairs(&equalities?.value, &tags, report)?;
    for (later, port) in ports.iter().enumerate().skip(1) {
        if !equalities.iter().any(|equality| equality.later() == later) {
            unconnected(port, report);
            return None;
        }
    }
    let fields = wanted_fields(wanted, &tags, report)?;
    let inputs = tags.iter().map(|tag| tag.to_string()).collect();
    Some(Transform::Join(Box::new(Join { inputs, equalities, kinds, fields })))
}

fn unconnected(port: &Port, report: &mut Report<'_>) {
    let message = format!("no equality joins the input `{}` to an input before it", port.tag);
    let help =
        "inputs are joined in the order in which they are named: order them so that each has a column that equals one of an earlier input";
    report.error_with_help(port.mark, message, Some(help.to_string()));
}

/// How each input but the first joins what comes before it. Beam looks at the input itself and the one before it.
pub(super) fn kinds(entry: Option<&Entry>, tags: &[&str], report: &mut Report<'_>) -> Option<Vec<JoinKind>> {
    let every = |kind: JoinKind| Some(vec![kind; tags.len() - 1]);
    let Some(entry) = entry else { return every(JoinKind::Inner) };
    let Content::Mapping(entries) = &entry.value.content else {
        return match text(&entry.value, "`type`", report)? {
            "inner" => every(JoinKind::Inner),
            "left" => every(JoinKind::Left),
            "right" => every(JoinKind::Right),
            "outer" => every(JoinKind::Outer),
            other => {
                let help = suggestion(other, ["inner", "left", "right", "outer"]);
                report.error_with_help(entry.value.mark, format!("unknown type of join `{other}`"), help);
                None
            }
        };
    };
    let [Entry { key, value: Yaml { content: Content::List(list), .. }, .. }] = entries.as_slice() else {
        let help = "write `inner`, `left`, `right`, `outer`, or `{outer: [inputs whose rows stay without a partner]}`".to_string();
        report.error_with_help(entry.value.mark, "this is no type of join", Some(help));
        return None;
    };
    if key != "outer" {
        report.error_with_help(entry.value.mark, format!("unknown key `{key}` of `type`"), suggestion(key, ["outer"]));
        return None;
    }
    let mut outer = vec![false; tags.len()];
    for name in list {
        outer[input(text(name, "an input", report)?, name.mark, tags, report)?] = true;
    }
    let kind = |pair: &[bool]| match (pair[0], pair[1]) {
        (true, true) => JoinKind::Outer,
        (true, false) => JoinKind::Left,
        (false, true) => JoinKind::Right,
        (false, false) => JoinKind::Inner,
    };
    Some(outer.windows(2).map(kind).collect())
}

fn input(name: &str, mark: Mark, tags: &[&str], report: &mut Report<'_>) -> Option<usize> {
    let found = tags.iter().position(|tag| *tag == name);
    if found.is_none() {
        report.error_with_help(mark, format!("`{name}` is no input of this join"), suggestion(name, tags.iter().copied()));
    }
    found
}

pub(super) fn pairs(yaml: &Yaml, tags: &[&str], report: &mut Report<'_>) -> Option<Vec<Equality>> {
    if let Content::Text(name) = &yaml.content {
        let equality = |later| Equality { left: (0, column(name, yaml.mark, report)), right: (later, column(name, yaml.mark, report)) };
        return Some((1..tags.len()).map(equality).collect());
    }
    let Content::List(sets) = &yaml.content else {
        let help = "write a column that all inputs have, or a list such as `[{left: id, right: user_id}]`".to_string();
        report.error_with_help(yaml.mark, format!("`equalities` must be a string or a list, not {}", yaml.kind()), Some(help));
        return None;
    };
    let mut pairs = Vec::new();
    for set in sets {
        let entries = Fields::of(Some(set), set.mark, "an equality", report).into_entries();
        if entries.len() < 2 {
            report.error(set.mark, "an equality names a column of two inputs or more");
            return None;
        }
        let mut columns = Vec::with_capacity(entries.len());
        for entry in entries {
            let number = input(&entry.key, entry.mark, tags, report)?;
            let name = text(&entry.value, "a column", report)?;
            columns.push((number, column(name, entry.value.mark, report)));
        }
        let first = columns.remove(0);
        pairs.extend(columns.into_iter().map(|other| Equality { left: first.clone(), right: other }));
    }
    Some(pairs)
}

/// First what is listed, in its order, then the inputs that are not listed, whole.
pub(super) fn wanted_fields(entry: Option<&Entry>, tags: &[&str], report: &mut Report<'_>) -> Option<Vec<(usize, JoinFields)>> {
    let mut wanted: Vec<(usize, JoinFields)> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    if let Some(entry) = entry {
        for of_input in Fields::of(Some(&entry.value), entry.mark, "`fields`", report).into_entries() {
            let number = input(&of_input.key, of_input.mark, tags, report)?;
            let mut listed: Vec<(&str, &str, Mark)> = Vec::new();
            match &of_input.value.content {
                Content::Text(all) if all == "*" => {
                    wanted.push((number, JoinFields::All));
                    continue;
                }
                Content::List(columns) => {
                    for yaml in columns {
                        let name = text(yaml, "a column", report)?;
                        listed.push((name, name, yaml.mark));
                    }
                }
                Content::Mapping(columns) => {
                    for column in columns {
                        listed.push((&column.key, text(&column.value, "a column", report)?, column.mark));
                    }
                }
                _ => {
                    let help = "write a list of columns, a mapping `{new name: column}`, or '*' for all".to_string();
                    let message = format!("the fields of an input are a list or a mapping, not {}", of_input.value.kind());
                    report.error_with_help(of_input.value.mark, message, Some(help));
                    return None;
                }
            }
            for (name, _, mark) in &listed {
                if names.contains(name) {
                    let help = format!("give one of them another name: `{{new_name: {name}}}`");
                    report.error_with_help(*mark, format!("the output would have two fields `{name}`"), Some(help));
                    return None;
                }
                names.push(name);
            }
            let own = |(name, column, mark): (&str, &str, Mark)| JoinField {
                name: name.into(),
                column: column.into(),
                place: report.place(mark),
            };
            wanted.push((number, JoinFields::Listed(listed.into_iter().map(own).collect())));
        }
    }
    for number in 0..tags.len() {
        if !wanted.iter().any(|(listed, _)| *listed == number) {
            wanted.push((number, JoinFields::All));
        }
    }
    Some(wanted)
}
