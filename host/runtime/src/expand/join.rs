//! A join of several inputs to joins of two, each with the names of its columns.

use super::Site;
use crate::failure::Failure;
use pelton_pipeline::graph::{Equality, Expression, Join, JoinField, JoinFields, Language, Node, TimedJoin, Transform};

/// One node, or one for each input but the first.
pub(super) fn expand(site: &Site<'_>, join: &Join) -> Result<Vec<Node>, Failure> {
    let fields = named(site, join);
    if join.inputs.len() == 2 {
        return Ok(vec![Node { transform: Transform::Join(Box::new(listed(join, fields))), ..site.node.clone() }]);
    }
    let mut nodes = Vec::new();
    for later in 1..join.inputs.len() {
        let last = later == join.inputs.len() - 1;
        let left = |input: usize, column: &str| if later == 1 { column.to_string() } else { qualified(join, input, column) };
        let wanted = |input: usize, field: JoinField| match input == later {
            true => (1, JoinFields::Listed(vec![field])),
            false => (0, JoinFields::Listed(vec![JoinField { column: left(input, &field.column), ..field }])),
        };
        let out = match last {
            true => fields.clone().into_iter().map(|(input, field)| wanted(input, field)).collect(),
            false => every(site, later)
                .map(|(input, field)| wanted(input, JoinField { name: qualified(join, input, &field.column), ..field }))
                .collect(),
        };
        let equalities = join.equalities.iter().filter(|equality| equality.later() == later).map(|equality| {
            let (before, own) =
                if equality.left.0 == later { (&equality.right, &equality.left) } else { (&equality.left, &equality.right) };
            let text = if later == 1 { before.1.text.clone() } else { quoted(&left(before.0, &before.1.text)) };
            let language = if later == 1 { before.1.language } else { Language::Sql };
            Equality { left: (0, Expression { text, language, ..before.1.clone() }), right: (1, own.1.clone()) }
        });
        let step = Join {
            inputs: vec![join.inputs[..later].join("+"), join.inputs[later].clone()],
            equalities: equalities.collect(),
            kinds: vec![join.kinds[later - 1]],
            fields: out,
        };
        let before = if later == 1 { site.node.inputs[0].clone() } else { Site::main(site.first + later - 2) };
        let inputs = vec![before, site.node.inputs[later].clone()];
        let transform = Transform::Join(Box::new(step));
        nodes.push(match last {
            true => Node { transform, inputs, ..site.node.clone() },
            false => site.inner(&(later + 1).to_string(), inputs, transform),
        });
    }
    Ok(nodes)
}

/// A join by time, with the names of its columns.
pub(super) fn expand_timed(site: &Site<'_>, timed: &TimedJoin) -> Node {
    let join = listed(&timed.join, named(site, &timed.join));
    Node { transform: Transform::TimedJoin(Box::new(TimedJoin { join, ..timed.clone() })), ..site.node.clone() }
}

/// A join with just these columns.
fn listed(join: &Join, fields: Vec<(usize, JoinField)>) -> Join {
    Join { fields: fields.into_iter().map(|(input, field)| (input, JoinFields::Listed(vec![field]))).collect(), ..join.clone() }
}

/// The columns that come out. A name that stands for a whole input's column and is taken gets a number, as Calcite does it in
/// Beam: `id`, `id0`, `id1`.
fn named(site: &Site<'_>, join: &Join) -> Vec<(usize, JoinField)> {
    let mut out: Vec<(usize, JoinField)> = Vec::new();
    for (input, fields) in &join.fields {
        match fields {
            JoinFields::Listed(listed) => out.extend(listed.iter().map(|field| (*input, field.clone()))),
            JoinFields::All => {
                for field in columns(site, *input) {
                    let taken = |name: &str| out.iter().any(|(_, other)| other.name == name);
                    let mut name = field.name.clone();
                    let mut number = 0;
                    while taken(&name) {
                        name = format!("{}{number}", field.name);
                        number += 1;
                    }
                    out.push((*input, JoinField { name, ..field }));
                }
            }
        }
    }
    out
}

fn columns<'s>(site: &'s Site<'_>, input: usize) -> impl Iterator<Item = JoinField> + 's {
    let own = |name: &String| JoinField { name: name.clone(), column: name.clone(), place: site.node.place };
    site.schemas[input].fields().iter().map(move |field| own(field.name()))
}

/// Every column of the inputs up to one.
fn every<'s>(site: &'s Site<'_>, last: usize) -> impl Iterator<Item = (usize, JoinField)> + 's {
    (0..=last).flat_map(move |input| columns(site, input).map(move |field| (input, field)))
}

/// What a column is called between two joins.
fn qualified(join: &Join, input: usize, column: &str) -> String {
    format!("{}.{column}", join.inputs[input])
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
