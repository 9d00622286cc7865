//! Checks of event time that need the graph: where watermarks are made, and what triggers do to the rows of a grouping.

use pelton_core::WindowingStrategy;
use pelton_core::strategy::Accumulation;

use crate::graph::{Input, Node, Transform};
use crate::report::Report;
use crate::source::Mark;

/// Checks one transform; `nodes` are those before it, `windows` their windowing.
pub(crate) fn check(
    name: &str,
    transform: &Transform,
    inputs: &[Input],
    nodes: &[Node],
    windows: &[WindowingStrategy],
    mark: Mark,
    report: &mut Report<'_>,
) {
    match transform {
        Transform::SetWatermark { .. } => {
            if let Some(grouping) = upstream(inputs, nodes, &|node| node.transform.is_keyed()) {
                let message = format!("`{name}` stands behind `{}`, where rows no longer know their partition", grouping.name);
                let help = "put it behind the source, before anything that groups rows".to_string();
                report.error_with_help(mark, message, Some(help));
            }
        }
        Transform::AssignTimestamps { .. } => {
            if let Some(set) = upstream(inputs, nodes, &|node| matches!(node.transform, Transform::SetWatermark { .. })) {
                let message = format!("`{name}` sets event times that the watermark of `{}` knows nothing of", set.name);
                report.error_with_help(mark, message, Some(format!("put `{}` behind `{name}`", set.name)));
            }
        }
        Transform::WindowInto { strategy, allow_data_loss: false, .. } if strategy.trigger.may_lose_data(strategy.allowed_lateness) => {
            let message = format!("the trigger of `{name}` may be over before its window: later rows would be late");
            let help = "wrap it: {type: repeatedly, trigger: …}; or set `allow_data_loss: true` and read the output `late`".to_string();
            report.error_with_help(mark, message, Some(help));
        }
        transform if transform.groups() => {
            let accumulating = inputs.iter().find(|input| {
                windows[input.node].accumulation == Accumulation::Accumulating
                    && upstream(std::slice::from_ref(input), nodes, &|node| node.transform.groups()).is_some()
            });
            if let Some(input) = accumulating {
                let message =
                    format!("`{name}` groups accumulating panes: rows that `{}` gives out again are counted again", nodes[input.node].name);
                let help = "use `accumulation_mode: discarding`, or window anew before it".to_string();
                report.warning(mark, message, Some(help));
            }
        }
        _ => {}
    }
}

/// The nearest transform upstream of which something holds.
fn upstream<'n>(inputs: &[Input], nodes: &'n [Node], holds: &dyn Fn(&Node) -> bool) -> Option<&'n Node> {
    let mut open: Vec<usize> = inputs.iter().map(|input| input.node).collect();
    let mut seen = vec![false; nodes.len()];
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        if holds(&nodes[at]) {
            return Some(&nodes[at]);
        }
        open.extend(nodes[at].inputs.iter().map(|input| input.node));
    }
    None
}
