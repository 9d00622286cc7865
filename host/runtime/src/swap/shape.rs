//! What may differ between what runs and what is to run: the work of transforms, and nothing around it.
//!
//! A transform that changes has the same inputs, the same outputs with the same columns, the same key and windows. So nobody beside it can tell, and no
//! row on its way is of the wrong kind. What needs more is a new start from a savepoint.

use super::swapper::Refused;
use crate::bind::{BoundNode, OperatorPlan};
use crate::operators::stateful::StatefulPlan;
use arrow::datatypes::{Field, Schema};
use pelton_pipeline::graph::{Aggregate, AggregateFunction, Expression, Graph, Language, Node, Transform};
use std::collections::BTreeSet;

/// The nodes of the named transforms, if they are all that differs. Both graphs are expanded.
pub fn changed(
    transforms: &BTreeSet<&str>,
    (old, old_nodes): (&Graph, &[BoundNode]),
    (new, new_nodes): (&Graph, &[BoundNode]),
) -> Result<Vec<usize>, Refused> {
    if old.nodes.len() != new.nodes.len() || !old.nodes.iter().zip(&new.nodes).all(|(old, new)| same_place(old, new)) {
        return Err(Refused::needs_start("the new version needs other steps between its inputs and outputs than the one that runs"));
    }
    let mut changed = Vec::new();
    for node in &new.nodes {
        let (before, after) = (&old_nodes[node.id], &new_nodes[node.id]);
        same_outputs(node, before, after)?;
        let own = transforms.contains(node.name.as_str());
        let inner = transforms.iter().any(|name| node.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')));
        if own || (inner && !stays(before, after)) {
            replaceable((&old.nodes[node.id], before), (node, after))?;
            changed.push(node.id);
        }
    }
    Ok(changed)
}

/// Whether a step inside a transform is the same before and after, so that it goes on: its `windowing`, the way to its error output, a `fanout`.
fn stays(before: &BoundNode, after: &BoundNode) -> bool {
    match (&before.plan, &after.plan) {
        // What windows it makes has been compared.
        (OperatorPlan::WindowInto, OperatorPlan::WindowInto) | (OperatorPlan::Flatten, OperatorPlan::Flatten) => true,
        (OperatorPlan::Reshuffle { buckets: old }, OperatorPlan::Reshuffle { buckets: new }) => old == new,
        _ => false,
    }
}

fn same_place(old: &Node, new: &Node) -> bool {
    old.name == new.name && old.inputs == new.inputs && old.error_output == new.error_output && old.windowing == new.windowing
}

fn same_outputs(node: &Node, before: &BoundNode, after: &BoundNode) -> Result<(), Refused> {
    let name = &node.name;
    if before.ports != after.ports {
        let outputs = |bound: &BoundNode| bound.ports.iter().map(|port| format!("`{port}`")).collect::<Vec<_>>().join(", ");
        let message = format!("`{name}` has the outputs {} now and would have {}", outputs(before), outputs(after));
        return Err(Refused::needs_start(message));
    }
    for (port, (old, new)) in before.ports.iter().zip(before.schemas.iter().zip(&after.schemas)) {
        if let Some(difference) = difference(old, new) {
            let output = if port.is_empty() { "its output".to_string() } else { format!("its output `{port}`") };
            let message = format!("`{name}`: {output} would change: {difference}");
            let refused = Refused::needs_start(message);
            return Err(Refused { next: format!("give the new version the same output columns, or {}", refused.next), ..refused });
        }
    }
    Ok(())
}

/// In words, what a schema would gain, lose or change.
fn difference(old: &Schema, new: &Schema) -> Option<String> {
    if old.fields() == new.fields() {
        return None;
    }
    let told =
        |field: &Field| format!("`{}` ({}{})", field.name(), field.data_type(), if field.is_nullable() { "" } else { ", never null" });
    let only = |here: &Schema, there: &Schema, word: &str| {
        let fields: Vec<String> =
            here.fields().iter().filter(|field| !there.fields().iter().any(|other| other == *field)).map(|field| told(field)).collect();
        (!fields.is_empty()).then(|| format!("{word} {}", fields.join(", ")))
    };
    let parts: Vec<String> = [only(old, new, "without"), only(new, old, "with")].into_iter().flatten().collect();
    Some(if parts.is_empty() { "the order of its columns".into() } else { parts.join(", ") })
}

fn replaceable((old_node, before): (&Node, &BoundNode), (node, after): (&Node, &BoundNode)) -> Result<(), Refused> {
    let name = &node.name;
    let sides = |bound: &BoundNode| bound.sides.as_ref().map(|sides| sides.schema.clone());
    if sides(before) != sides(after) {
        return Err(Refused::needs_start(format!("`{name}` would read other columns of its side inputs")));
    }
    match (&before.plan, &after.plan) {
        (OperatorPlan::Plugin { .. }, OperatorPlan::Plugin { .. })
        | (OperatorPlan::Map { .. }, OperatorPlan::Map { .. })
        | (OperatorPlan::Filter { .. }, OperatorPlan::Filter { .. })
        | (OperatorPlan::Partition { .. }, OperatorPlan::Partition { .. })
        | (OperatorPlan::Explode { .. }, OperatorPlan::Explode { .. })
        | (OperatorPlan::Validate { .. }, OperatorPlan::Validate { .. })
        | (OperatorPlan::Log { .. }, OperatorPlan::Log { .. }) => Ok(()),
        (OperatorPlan::Stateful(old), OperatorPlan::Stateful(new)) => {
            let key = |plan: &StatefulPlan| {
                let columns = plan.key.iter().map(|key| key.columns());
                columns.zip(plan.key_types.clone()).collect::<Vec<_>>()
            };
            if key(old) != key(new) {
                return Err(Refused::needs_start(format!("`{name}` would have another key, and its state lies by the old one")));
            }
            Ok(())
        }
        (OperatorPlan::Combine(old), OperatorPlan::Combine(_)) if old.has_plugins() => {
            match same_grouping(&old_node.transform, &node.transform) {
                true => Ok(()),
                false => {
                    let message = format!(
                        "`{name}` would group or aggregate otherwise; while it runs, only plugins of its aggregates and their configs change"
                    );
                    Err(Refused::needs_start(message))
                }
            }
        }
        _ => {
            let kind = node.transform.kind();
            let message =
                format!("`{name}` ({kind}) cannot be changed while it runs; transforms of plugins, expressions and checks of rows can");
            Err(Refused::needs_start(message))
        }
    }
}

/// Whether two groupings differ in what plugins their aggregates are of, and nowhere else.
fn same_grouping(old: &Transform, new: &Transform) -> bool {
    let same_keys = |old: &[(String, Expression)], new: &[(String, Expression)]| {
        let key = |(name, expression): &(String, Expression)| (name.clone(), text(expression));
        old.iter().map(key).eq(new.iter().map(key))
    };
    let same_aggregates =
        |old: &[Aggregate], new: &[Aggregate]| old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same_aggregate(old, new));
    match (old, new) {
        (
            Transform::Combine { group_by, combine, fanout },
            Transform::Combine { group_by: new_group_by, combine: new_combine, fanout: new_fanout },
        ) => fanout == new_fanout && same_keys(group_by, new_group_by) && same_aggregates(combine, new_combine),
        (
            Transform::RollUp { group_by, combine, levels },
            Transform::RollUp { group_by: new_group_by, combine: new_combine, levels: new_levels },
        ) => levels == new_levels && same_keys(group_by, new_group_by) && same_aggregates(combine, new_combine),
        _ => false,
    }
}

fn same_aggregate(old: &Aggregate, new: &Aggregate) -> bool {
    let function = match (&old.function, &new.function) {
        (AggregateFunction::Plugin { transform, .. }, AggregateFunction::Plugin { transform: other, .. }) => transform == other,
        (old, new) => old == new,
    };
    function && old.name == new.name && old.value.as_ref().map(text) == new.value.as_ref().map(text)
}

/// What an expression says, wherever it stands.
fn text(expression: &Expression) -> (Language, String) {
    (expression.language, expression.text.clone())
}
