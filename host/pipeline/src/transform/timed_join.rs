//! The configs of `IntervalJoin` and `AsOfJoin`, which are ours: docs/reference/pelton-transforms.md is their text.
//!
//! Both have the inputs `left` and `right` and take `equalities` and `fields` as `Join` does.

use pelton_core::time::Duration;

use super::join::{kinds, pairs, wanted_fields};
use super::{Arity, Lowered};
use crate::fields::Fields;
use crate::graph::{Join, JoinKind, LATE, TimedJoin, TimedRule, Transform};
use crate::report::Report;
use crate::syntax::Spec;

const SIDES: [&str; 2] = ["left", "right"];

pub(super) fn interval_join(spec: &Spec<'_>, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Lowered {
    let given = [fields.get("before"), fields.get("after")].iter().flatten().count();
    if given == 0 {
        let help = "a right row pairs if its event time is in [left - `before`, left + `after`]".to_string();
        report.error_with_help(spec.kind_mark, "`IntervalJoin` needs `before` or `after`", Some(help));
    }
    let (before, after) = (fields.duration("before", report), fields.duration("after", report));
    // A duration that could not be read has been reported.
    let readable = given > 0 && given == [before, after].iter().flatten().count();
    let (before, after) = (before.unwrap_or(Duration::ZERO), after.unwrap_or(Duration::ZERO));
    lowered(spec, fields, readable.then_some(TimedRule::Interval { before, after }), report)
}

pub(super) fn as_of_join(spec: &Spec<'_>, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Lowered {
    fields.require("tolerance", report);
    let tolerance = fields.duration("tolerance", report);
    lowered(spec, fields, tolerance.map(|tolerance| TimedRule::AsOf { tolerance }), report)
}

fn lowered(spec: &Spec<'_>, fields: &mut Fields<'_>, rule: Option<TimedRule>, report: &mut Report<'_>) -> Lowered {
    let join = join(spec, fields, rule, report);
    let allowed_lateness = fields.duration("allowed_lateness", report).unwrap_or(Duration::ZERO);
    let transform =
        join.zip(rule).map(|((join, left), rule)| Transform::TimedJoin(Box::new(TimedJoin { join, left, rule, allowed_lateness })));
    Lowered { arity: Some(Arity::Named), outputs: vec![LATE.to_string()], ..Lowered::plain(transform) }
}

/// The join without its time, and the number of the input `left`.
fn join(spec: &Spec<'_>, fields: &mut Fields<'_>, rule: Option<TimedRule>, report: &mut Report<'_>) -> Option<(Join, usize)> {
    let ports = spec.inputs.as_deref().unwrap_or_default();
    let equalities = fields.require("equalities", report);
    let (kind, wanted) = (fields.get("type"), fields.get("fields"));
    let tags: Vec<&str> = ports.iter().map(|port| port.tag.as_str()).collect();
    let missing = SIDES.iter().any(|side| !tags.contains(side));
    if missing || tags.len() > SIDES.len() {
        let odd = ports.iter().find(|port| !SIDES.contains(&port.tag.as_str()));
        let mark = odd.or(ports.first()).map_or(spec.kind_mark, |port| port.mark);
        let help = "write `input: {left: First, right: Second}`".to_string();
        report.error_with_help(mark, format!("`{}` needs the inputs `left` and `right`, and no others", spec.kind), Some(help));
        return None;
    }
    let left = tags.iter().position(|tag| *tag == SIDES[0])?;
    let kind = match (rule, kind) {
        (Some(TimedRule::AsOf { .. }), None) => JoinKind::Left,
        _ => kinds(kind, &tags, report)?.first().copied()?,
    };
    if let (Some(TimedRule::AsOf { .. }), Some(entry), JoinKind::Right | JoinKind::Outer) = (rule, fields.get("type"), kind) {
        let help = "it is `left`, with nulls where there is no right row, or `inner`".to_string();
        report.error_with_help(entry.value.mark, "an `AsOfJoin` gives out rows of `left` only", Some(help));
        return None;
    }
    let equalities = pairs(&equalities?.value, &tags, report)?;
    if equalities.is_empty() || equalities.iter().any(|equality| equality.left.0 == equality.right.0) {
        let help = "write `[{left: id, right: user_id}]`, or a column that both have".to_string();
        report.error_with_help(fields.get("equalities")?.value.mark, "an equality names a column of `left` and one of `right`", Some(help));
        return None;
    }
    let fields = wanted_fields(wanted, &tags, report)?;
    let inputs = tags.iter().map(|tag| tag.to_string()).collect();
    // `left` and `right` mean the inputs of these names, wherever they stand; a join's own words mean their order.
    let kind = match (left, kind) {
        (1, JoinKind::Left) => JoinKind::Right,
        (1, JoinKind::Right) => JoinKind::Left,
        _ => kind,
    };
    Some((Join { inputs, equalities, kinds: vec![kind], fields }, left))
}
