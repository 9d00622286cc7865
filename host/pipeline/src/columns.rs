//! Column pruning: which columns of each node's output anybody needs, so that a source parses no others.

use crate::graph::Graph;
use std::collections::BTreeSet;

/// Columns by name; `None` = all of them.
pub type Needed = Option<BTreeSet<String>>;

/// What a node does with the columns of its input.
#[derive(Clone, Debug)]
pub struct ColumnUse {
    /// Columns that it looks at itself.
    pub reads: Needed,
    /// Which columns of its output are columns of its input under the same name.
    pub passes: Passes,
}

/// Which columns go through a node untouched.
#[derive(Clone, Debug)]
pub enum Passes {
    /// None: every output column is made here.
    Nothing,
    /// All but those that are made here.
    AllBut(BTreeSet<String>),
}

/// For each node, the columns of its outputs that somebody downstream needs. `uses[i]` is node i's, `sides[i]` what it reads of each of its
/// side inputs.
pub fn needed(graph: &Graph, uses: &[ColumnUse], sides: &[Vec<Needed>]) -> Vec<Needed> {
    let mut needed: Vec<Needed> = vec![Some(BTreeSet::new()); graph.nodes.len()];
    for node in graph.nodes.iter().rev() {
        let of_outputs = needed[node.id].clone();
        // The error output carries the refused row as it came in, and `late` the late row.
        let whole = node.error_output.is_some();
        let use_ = &uses[node.id];
        let of_inputs: Needed = if whole {
            None
        } else {
            match (&use_.reads, &use_.passes, of_outputs) {
                (None, _, _) => None,
                (Some(reads), Passes::Nothing, _) => Some(reads.clone()),
                (Some(_), Passes::AllBut(_), None) => None,
                (Some(reads), Passes::AllBut(made), Some(wanted)) => {
                    Some(reads.iter().cloned().chain(wanted.into_iter().filter(|name| !made.contains(name))).collect())
                }
            }
        };
        for (number, input) in node.inputs.iter().enumerate() {
            let of_this = if node.is_side(number) { &sides[node.id][number - 1] } else { &of_inputs };
            let of_input = &mut needed[input.node];
            *of_input = match (of_input.take(), of_this) {
                (Some(mut before), Some(more)) => {
                    before.extend(more.iter().cloned());
                    Some(before)
                }
                _ => None,
            };
        }
    }
    needed
}
