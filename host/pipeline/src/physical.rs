//! The physical plan: which nodes run together in one task, and where rows change tasks.
//!
//! A source, a grouping, a transform with side inputs, a Reshuffle and a sink each head a stage. Every other node is fused into the stages of its inputs: a node that
//! reads two stages runs in both, which is right because only heads keep state. An edge to a head is an exchange.
//!
//! Invariants: a head stands in one stage; the nodes of a stage are sorted so that inputs come first; an edge inside a
//! stage joins nodes of that stage.

use crate::draw::{Arrow, Drawing, Group, Shape, detail};
use crate::graph::{Graph, Transform};
use std::collections::BTreeSet;

/// The stages of a graph.
#[derive(Clone, Debug)]
pub struct Physical {
    /// In the order of their heads.
    pub stages: Vec<Stage>,
}

/// Nodes that run in the same tasks.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The node that rows enter by.
    pub head: usize,
    /// What kind of head it is, which says how tasks divide the work.
    pub kind: StageKind,
    /// All nodes, the head first, inputs before readers.
    pub nodes: Vec<usize>,
}

/// How a stage is divided among tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// By splits of the source.
    Source,
    /// By key-group range.
    Keyed,
    /// Batch by batch, in turn.
    Spread,
    /// Each producer's rows to a task of their own, side inputs to all.
    Sided,
    /// By shard of the sink.
    Sink,
}

impl Physical {
    /// Divides a graph into stages.
    pub fn of(graph: &Graph) -> Physical {
        let mut stages: Vec<Stage> = Vec::new();
        let mut member: Vec<BTreeSet<usize>> = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let kind = match &node.transform {
                Transform::Source { .. } => Some(StageKind::Source),
                transform if transform.is_keyed() => Some(StageKind::Keyed),
                // A query groups or joins, mostly; what it becomes is not known before it is planned.
                Transform::Sql { .. } => Some(StageKind::Keyed),
                Transform::Reshuffle { .. } => Some(StageKind::Spread),
                Transform::Sink { .. } => Some(StageKind::Sink),
                _ if !node.sides.is_empty() => Some(StageKind::Sided),
                _ => None,
            };
            let of = match kind {
                Some(kind) => {
                    stages.push(Stage { head: node.id, kind, nodes: vec![node.id] });
                    BTreeSet::from([stages.len() - 1])
                }
                None => {
                    let of: BTreeSet<usize> = node.inputs.iter().flat_map(|input| member[input.node].iter().copied()).collect();
                    for stage in &of {
                        stages[*stage].nodes.push(node.id);
                    }
                    of
                }
            };
            member.push(of);
        }
        Physical { stages }
    }

    /// The stage that a node heads.
    pub fn headed_by(&self, node: usize) -> Option<usize> {
        self.stages.iter().position(|stage| stage.head == node)
    }
}

/// The plan as it will run: nodes grouped by stage. A node that is fused into several stages is drawn in each.
pub fn drawing(graph: &Graph) -> Drawing {
    let physical = Physical::of(graph);
    let mut shapes: Vec<(usize, usize)> = Vec::new();
    for (number, stage) in physical.stages.iter().enumerate() {
        shapes.extend(stage.nodes.iter().map(|node| (number, *node)));
    }
    let find = |stage: usize, node: usize| shapes.iter().position(|shape| *shape == (stage, node));
    let mut edges = Vec::new();
    for (to, (stage, node)) in shapes.iter().enumerate() {
        let head = physical.stages[*stage].head == *node;
        for (number, input) in graph.nodes[*node].inputs.iter().enumerate() {
            let sources: Vec<usize> = if head {
                (0..physical.stages.len()).filter_map(|from| find(from, input.node)).collect()
            } else {
                find(*stage, input.node).into_iter().collect()
            };
            let exchange = match physical.stages[*stage].kind {
                _ if graph.nodes[*node].is_side(number) => "to all",
                StageKind::Keyed if head => "by key",
                StageKind::Spread if head => "in turn",
                StageKind::Sink if head => "to shards",
                _ => "",
            };
            let label = [input.output.as_str(), exchange].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ");
            edges.extend(sources.into_iter().map(|from| Arrow { from, to, label: label.clone() }));
        }
    }
    let kind = |stage: &Stage| match stage.kind {
        StageKind::Source => "one task a split or worker",
        StageKind::Keyed => "one task a key-group range",
        StageKind::Spread | StageKind::Sided => "one task a worker",
        StageKind::Sink => "one task a shard",
    };
    Drawing {
        title: format!("{}: as it runs", graph.name),
        groups: physical
            .stages
            .iter()
            .enumerate()
            .map(|(number, stage)| Group { label: format!("stage {}: {}", number + 1, kind(stage)) })
            .collect(),
        nodes: shapes
            .iter()
            .map(|(stage, node)| Shape { label: graph.nodes[*node].name.clone(), detail: detail(&graph.nodes[*node]), group: Some(*stage) })
            .collect(),
        edges,
    }
}
