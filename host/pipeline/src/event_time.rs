//! Checks of event time that need the graph: where watermarks are made, and what triggers do to the rows of a grouping.

use pelton_core::WindowingStrategy;
use pelton_core::strategy::{Accumulation, Trigger};

use crate::graph::{Input, Node, Transform};
use crate::report::Report;
use crate::source::Mark;

/// A transform that is about to become a node.
pub(crate) struct Site<'a> {
    pub name: &'a str,
    pub mark: Mark,
    pub transform: &'a Transform,
    pub inputs: &'a [Input],
    /// Windowing of what it gives out.
    pub window: &'a WindowingStrategy,
}

/// Checks one transform; `nodes` are those before it, `windows` their windowing, `endless` a source above it that never ends.
pub(crate) fn check(site: &Site<'_>, nodes: &[Node], windows: &[WindowingStrategy], endless: Option<&str>, report: &mut Report<'_>) {
    check_windowing(site, endless, report);
    let Site { name, mark, transform, inputs, .. } = *site;
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

/// What a transform that keeps rows or state asks of the windows and triggers of its input.
fn check_windowing(site: &Site<'_>, endless: Option<&str>, report: &mut Report<'_>) {
    let Site { name, mark, transform, window, .. } = *site;
    let once = matches!(transform, Transform::Join(_) | Transform::RollUp { .. });
    if once && (window.trigger != Trigger::Default || window.accumulation != Accumulation::Discarding) {
        let kind = transform.kind();
        let help = "window its inputs without `trigger` and `accumulation_mode`, and set those on what follows".to_string();
        report.error_with_help(
            mark,
            format!("`{name}` gives each window out once, at its end: a `{kind}` has no other trigger"),
            Some(help),
        );
    }
    if transform.is_stateful() && window.window_fn.merges() {
        let help = "state is kept by window, and sessions grow together: group first (`Combine`), or window its input otherwise and end \
                    sessions with a timer";
        report.error_with_help(mark, format!("`{name}` cannot keep state within sessions"), Some(help.to_string()));
    }
    // The levels of a RollUp are windows of their own.
    let waits =
        transform.groups() && !matches!(transform, Transform::RollUp { .. }) && window.trigger.never_fires_unbounded(window.window_fn);
    if let Some(source) = endless.filter(|_| waits) {
        let message = format!("`{name}` would never give a row: it waits for the end of `{source}`, which has none");
        let help = "give it `windowing`, such as {type: fixed, size: 60s}, or a trigger by `WindowIntoWithTriggers`".to_string();
        report.error_with_help(mark, message, Some(help));
    }
}
