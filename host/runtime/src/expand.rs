//! Expansion: transforms that stand for several operators become them, once the columns of their inputs are known.
//!
//! A `Join` of more than two inputs becomes joins of two, one after the other: rows of the third meet what came of the first two.
//! Every join is given the names of its columns. Nodes that were added are named after the transform, with a number: `Join/2` is
//! what comes of its first two inputs. A `Sql` becomes the transforms that its query is made of, a `Combine` with `fanout` a Reshuffle
//! and itself.
//!
//! Invariant: the graph that comes out is one that the front end could have made: inputs before readers, ids are indices, names
//! are unique, and nothing that reads an expanded transform can tell.

mod join;
mod sql;

use crate::bind::{Binder, BoundNode, OpenSource};
use crate::failure::Failure;
use arrow::datatypes::SchemaRef;
use pelton_pipeline::graph::{Graph, Input, Node, Transform};
use std::collections::HashMap;

/// A graph without transforms that are not operators, and where the nodes of the one before have gone.
pub(crate) struct Expanded {
    /// To be bound.
    pub graph: Graph,
    /// By number before, the number of the node that gives out what it did.
    pub moved: Vec<usize>,
}

/// Expands every transform that needs it. `sources` are those of the binder's graph, by its numbers.
pub(crate) fn expand(binder: &Binder<'_>, sources: &HashMap<usize, OpenSource>) -> Result<Expanded, Failure> {
    let mut graph = Graph { nodes: Vec::with_capacity(binder.graph.nodes.len()), ..binder.graph.clone() };
    let mut bound: Vec<BoundNode> = Vec::new();
    let mut moved: Vec<usize> = Vec::new();
    for node in &binder.graph.nodes {
        let mut node = node.clone();
        for input in &mut node.inputs {
            input.node = moved[input.node];
        }
        let schemas: Vec<SchemaRef> = node.inputs.iter().map(|input| bound[input.node].schema_of(&input.output)).collect();
        let site = Site { binder, node: &node, schemas: &schemas, first: graph.nodes.len() };
        let made = match &node.transform {
            Transform::Join(join) => join::expand(&site, join)?,
            Transform::Sql { inputs, query } => sql::expand(&site, inputs, query)?,
            // With one worker there is nobody to spread rows to.
            Transform::Combine { fanout: Some(parts), .. } if binder.parallelism > 1 => spread(&site, *parts),
            Transform::TimedJoin(timed) => vec![join::expand_timed(&site, timed)],
            _ => vec![node.clone()],
        };
        for mut made in made {
            made.id = graph.nodes.len();
            graph.nodes.push(made);
            let added = graph.nodes.last().expect("pushed just now");
            let renumbered: HashMap<usize, OpenSource> =
                sources.get(&node.id).map(|source| (added.id, source.clone())).into_iter().collect();
            bound.push(binder.over(&graph).node(added, &bound, &renumbered)?);
        }
        moved.push(graph.nodes.len() - 1);
    }
    Ok(Expanded { graph, moved })
}

/// A Combine whose rows are spread over tasks first: each of them aggregates its part on the way to the owner of the key.
fn spread(site: &Site<'_>, parts: usize) -> Vec<Node> {
    let spread = site.inner("fanout", site.node.inputs.clone(), Transform::Reshuffle { buckets: Some(parts) });
    vec![spread, Node { inputs: vec![Site::main(site.first)], ..site.node.clone() }]
}

/// A transform that is being expanded, and what it reads.
struct Site<'a> {
    binder: &'a Binder<'a>,
    node: &'a Node,
    /// Columns of its inputs.
    schemas: &'a [SchemaRef],
    /// The number that the first node made of it will have.
    first: usize,
}

impl Site<'_> {
    /// A node that stands before the last one: as the transform, but with this name, inputs and work.
    fn inner(&self, suffix: &str, inputs: Vec<Input>, transform: Transform) -> Node {
        Node {
            id: 0,
            name: format!("{}/{suffix}", self.node.name),
            transform,
            inputs,
            outputs: Vec::new(),
            error_output: None,
            ..self.node.clone()
        }
    }

    /// The main output of the node that will have this number.
    fn main(node: usize) -> Input {
        Input { node, output: String::new() }
    }
}
