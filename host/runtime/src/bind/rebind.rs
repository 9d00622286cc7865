//! Binding again while the pipeline runs: against the columns that its open sources give.

use super::column_use;
use super::{Binder, BoundNode, OpenSource};
use crate::expand::{Expanded, expand};
use crate::failure::Failure;
use pelton_pipeline::columns::{ColumnUse, Needed, needed};
use pelton_pipeline::graph::Graph;
use std::collections::HashMap;

/// What binding has found of the sources.
#[derive(Clone, Default)]
pub struct Sources {
    /// By node of the graph as it was loaded: all that they have.
    pub(super) all: HashMap<usize, OpenSource>,
    /// By node of the expanded graph: what is read of it.
    pub(super) read: HashMap<usize, OpenSource>,
}

/// A graph that was bound again.
pub struct Rebound {
    /// Expanded.
    pub graph: Graph,
    /// In the order of its nodes.
    pub nodes: Vec<BoundNode>,
    /// Columns that are needed now and are not read: source and column.
    pub missing: Vec<(String, String)>,
}

impl Binder<'_> {
    /// Binds the binder's graph, which has the sources of the one that runs.
    pub fn rebind(&self, sources: &Sources) -> Result<Rebound, Failure> {
        let Expanded { graph, moved } = expand(self, &sources.all)?;
        let all: HashMap<usize, OpenSource> = sources.all.iter().map(|(node, source)| (moved[*node], source.clone())).collect();
        let binder = self.over(&graph);
        let first = binder.pass(&all)?;
        let uses: Vec<ColumnUse> = graph.nodes.iter().map(|node| binder.column_use(node, &first)).collect();
        let sides: Vec<Vec<Needed>> = first.iter().map(column_use::of_sides).collect();
        let mut missing = Vec::new();
        for (node, wanted) in needed(&graph, &uses, &sides).into_iter().enumerate() {
            if let (Some(read), Some(wanted)) = (sources.read.get(&node), wanted) {
                let absent = wanted.into_iter().filter(|column| read.schema.index_of(column).is_err());
                missing.extend(absent.map(|column| (graph.nodes[node].name.clone(), column)));
            }
        }
        let nodes = if missing.is_empty() { binder.pass(&sources.read)? } else { first };
        Ok(Rebound { graph, nodes, missing })
    }
}
