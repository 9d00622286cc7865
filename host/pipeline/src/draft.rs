//! The graph while it is being connected.
//!
//! Composites are still here, as [`Kind::Pass`]: one for each of their inputs and outputs, which hands on what it reads. So a
//! reference never has to be followed through a composite while names are looked up, and a cycle through composites is found
//! like any other. The last step forwards what reads them and drops them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use serde_json::Value;

use crate::graph::{SideInput, Transform};
use crate::report::Report;
use crate::source::Mark;
use crate::transform::Lowered;

/// A node to be.
pub(crate) struct Draft {
    pub name: String,
    pub mark: Mark,
    pub kind: Kind,
    pub inputs: Vec<Edge>,
    pub outputs: Vec<String>,
    pub open: bool,
    pub error_output: Option<ErrorOutput>,
    /// Only hands on: being read by it does not count as being read.
    pub hands_on: bool,
    /// What the inputs after the first are.
    pub sides: Vec<SideInput>,
    /// Its config as it was given.
    pub written: Value,
}

/// What `error_handling` says.
#[derive(Clone, Debug)]
pub(crate) struct ErrorOutput {
    pub name: String,
    /// Where the name stands.
    pub mark: Mark,
    /// The share of rows that may be refused.
    pub threshold: Option<f64>,
}

/// What a draft becomes.
pub(crate) enum Kind {
    /// A transform of the file; `None` if it was not understood.
    Written(Option<Transform>),
    /// A Flatten or WindowInto that the file implies.
    Inserted(Transform),
    /// Nothing: an end of a composite.
    Pass,
}

/// An input and the place that names it.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub draft: usize,
    pub output: String,
    pub mark: Mark,
}

impl Draft {
    pub fn written(name: String, mark: Mark, lowered: Lowered, written: Value) -> Draft {
        let Lowered { transform, outputs, open, error_output, sides, .. } = lowered;
        Draft { outputs, open, error_output, sides, written, ..Draft::of(name, mark, Kind::Written(transform)) }
    }

    pub fn inserted(name: String, mark: Mark, transform: Transform, inputs: Vec<Edge>) -> Draft {
        Draft { inputs, ..Draft::of(name, mark, Kind::Inserted(transform)) }
    }

    pub fn pass(name: String, mark: Mark) -> Draft {
        Draft { hands_on: true, ..Draft::of(name, mark, Kind::Pass) }
    }

    fn of(name: String, mark: Mark, kind: Kind) -> Draft {
        let (inputs, outputs, sides) = (Vec::new(), Vec::new(), Vec::new());
        Draft { name, mark, kind, inputs, outputs, open: false, error_output: None, hands_on: false, sides, written: Value::Null }
    }
}

/// Inputs before readers, otherwise as in the file. `None`: there are cycles, and each has been reported.
pub(crate) fn order(drafts: &[Draft], report: &mut Report<'_>) -> Option<Vec<usize>> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    let mut waiting: Vec<usize> = drafts.iter().map(|draft| draft.inputs.len()).collect();
    for (reader, draft) in drafts.iter().enumerate() {
        draft.inputs.iter().for_each(|edge| readers[edge.draft].push(reader));
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..drafts.len()).filter(|&draft| waiting[draft] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(Reverse(draft)) = ready.pop() {
        order.push(draft);
        for &reader in &readers[draft] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.push(Reverse(reader));
            }
        }
    }
    if order.len() == drafts.len() {
        return Some(order);
    }
    report_cycles(drafts, &waiting, report);
    None
}

/// What is left over after sorting is in a cycle or reads one, and so has an input that is left over too: walking along such
/// inputs ends in a cycle.
fn report_cycles(drafts: &[Draft], waiting: &[usize], report: &mut Report<'_>) {
    let mut seen: HashSet<usize> = HashSet::new();
    for start in (0..drafts.len()).filter(|&draft| waiting[draft] > 0) {
        let mut path: Vec<(usize, Mark)> = Vec::new();
        let mut on_path: HashSet<usize> = HashSet::new();
        let mut at = start;
        while seen.insert(at) {
            let Some(edge) = drafts[at].inputs.iter().find(|edge| waiting[edge.draft] > 0) else { break };
            path.push((at, edge.mark));
            on_path.insert(at);
            at = edge.draft;
        }
        if on_path.contains(&at) {
            let cycle = path.iter().skip_while(|(draft, _)| *draft != at);
            let written: Vec<(&str, Mark)> = cycle
                .filter(|(draft, _)| matches!(drafts[*draft].kind, Kind::Written(_)))
                .map(|(draft, mark)| (drafts[*draft].name.as_str(), *mark))
                .collect();
            report_cycle(&written, drafts[at].mark, report);
        }
    }
}

fn report_cycle(written: &[(&str, Mark)], mark: Mark, report: &mut Report<'_>) {
    match written {
        [] => report.error(mark, "the output of this composite is its own input, in a cycle"),
        [(name, mark)] => report.error(*mark, format!("`{name}` reads its own output")),
        [(first, mark), ..] => {
            let names: Vec<String> = written.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message = format!("a cycle: {} ← `{first}`", names.join(" ← "));
            report.error_with_help(*mark, message, Some("rows flow one way, from sources to sinks".to_string()));
        }
    }
}

/// Error outputs that nobody reads: rows would be lost in silence, so Beam refuses them and so do we. What only reaches the
/// unread output of a composite does not count as read.
pub(crate) fn check_errors_are_read(drafts: &[Draft], order: Option<&[usize]>, excused: &HashSet<usize>, report: &mut Report<'_>) {
    let mut read: HashSet<(usize, &str)> = HashSet::new();
    let mut reached: HashSet<usize> = HashSet::new();
    let every: Vec<usize> = (0..drafts.len()).collect();
    for &reader in order.unwrap_or(&every).iter().rev() {
        // With a cycle there is no order; then any reader counts, so as not to complain too much.
        let counts = order.is_none() || !drafts[reader].hands_on || reached.contains(&reader);
        if counts {
            for edge in &drafts[reader].inputs {
                read.insert((edge.draft, edge.output.as_str()));
                reached.insert(edge.draft);
            }
        }
    }
    for (index, draft) in drafts.iter().enumerate().filter(|(index, _)| !excused.contains(index)) {
        let Some(ErrorOutput { name: output, mark, .. }) = &draft.error_output else { continue };
        // What is inserted shares the error output of a written transform, which is told of once.
        if matches!(draft.kind, Kind::Written(_)) && !read.contains(&(index, output.as_str())) {
            let name = draft.name.rsplit('/').next().unwrap_or(&draft.name);
            let message = format!("nobody reads the error output `{output}` of `{}`, so its rows would be lost", draft.name);
            report.error_with_help(*mark, message, Some(format!("give some transform `input: {name}.{output}`, such as WriteToJson")));
        }
    }
}
