//! Checks of event time that need the graph: where watermarks are made, and what triggers do to the rows of a grouping.

use pelton_core::catalog::ConnectorSpec;
use pelton_core::strategy::{Accumulation, Trigger};
use pelton_core::watermark::Rule;
use pelton_core::{WindowFn, WindowingStrategy};

use crate::graph::{Input, Node, SideInput, SideKind, Transform};
use crate::report::Report;
use crate::source::Mark;

/// A source that never ends, seen from a transform below it.
#[derive(Clone, Debug)]
pub(crate) struct Endless {
    source: String,
    /// Its rows have the time of their arrival as event time, and nobody above the transform said that this is wanted.
    by_arrival: bool,
}

impl Endless {
    /// That a transform is or reads; `known` are those of the nodes before.
    pub fn of(
        transform: &Transform,
        name: &str,
        inputs: &[Input],
        known: &[Option<Endless>],
        catalog: &[&'static ConnectorSpec],
    ) -> Option<Endless> {
        if let Transform::Source { kind, config } = transform {
            let connector = catalog.iter().find(|connector| connector.name == kind)?;
            return (connector.endless)(config).then(|| Endless { source: name.to_string(), by_arrival: !connector.timed });
        }
        // Windows are said once to go by arrival, not again below them.
        let settles = sets_event_time(transform) || reads_event_time(transform);
        Self::above(inputs, known).map(|above| Endless { by_arrival: above.by_arrival && !settles, ..above.clone() })
    }

    /// That above a transform; one whose event times nobody set comes first.
    fn above<'k>(inputs: &[Input], known: &'k [Option<Endless>]) -> Option<&'k Endless> {
        let mut all = inputs.iter().filter_map(|input| known[input.node].as_ref());
        let first = all.clone().next();
        all.find(|endless| endless.by_arrival).or(first)
    }
}

/// Whether it gives rows event times, or says in so many words that they are those of arrival.
fn sets_event_time(transform: &Transform) -> bool {
    let by_the_clock =
        |transform| matches!(transform, &Transform::SetWatermark { ingestion, rule, .. } if ingestion || rule == Rule::ProcessingTime);
    matches!(transform, Transform::AssignTimestamps { .. }) || by_the_clock(transform)
}

/// Whether event times decide what comes of a row.
fn reads_event_time(transform: &Transform) -> bool {
    match transform {
        Transform::WindowInto { strategy, .. } => strategy.window_fn != WindowFn::Global,
        transform => matches!(transform, Transform::RollUp { .. } | Transform::TimedJoin(_)),
    }
}

/// A transform that is about to become a node.
pub(crate) struct Site<'a> {
    pub name: &'a str,
    pub mark: Mark,
    pub transform: &'a Transform,
    pub inputs: &'a [Input],
    /// Windowing of what it gives out.
    pub window: &'a WindowingStrategy,
}

/// Checks one transform; `nodes` are those before it, `windows` their windowing, `known` the sources without an end.
pub(crate) fn check(site: &Site<'_>, nodes: &[Node], windows: &[WindowingStrategy], known: &[Option<Endless>], report: &mut Report<'_>) {
    let above = Endless::above(site.inputs, known);
    check_windowing(site, above, report);
    if let Some(Endless { source, .. }) = above.filter(|above| above.by_arrival && reads_event_time(site.transform)) {
        let message = format!("`{}` goes by the time at which rows of `{source}` arrive: nothing gives them an event time", site.name);
        let help =
            "put `AssignTimestamps` before it; or, if the time of arrival is meant, `SetWatermark` with `time: ingestion`".to_string();
        report.warning(site.mark, message, Some(help));
    }
    let Site { name, mark, transform, inputs, .. } = *site;
    match transform {
        Transform::SetWatermark { .. } => {
            if let Some(grouping) = upstream(inputs, nodes, &|node| node.gives_late()) {
                let message = format!("`{name}` stands behind `{}`, where rows no longer know their partition", grouping.name);
                let help = "put it behind the source, before anything that groups rows or has side inputs".to_string();
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
fn check_windowing(site: &Site<'_>, endless: Option<&Endless>, report: &mut Report<'_>) {
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
    let alone = window.trigger == Trigger::Default && window.accumulation == Accumulation::Discarding && window.window_fn.is_single();
    if matches!(transform, Transform::Combine { fanout: Some(_), .. }) && !alone {
        let message = format!("the parts of a `fanout` would change what the windows or the trigger of `{name}` give out");
        let help = "it goes with the default trigger in global, fixed and calendar windows; leave it out here".to_string();
        report.error_with_help(mark, message, Some(help));
    }
    if transform.is_stateful() && window.window_fn.merges() {
        let help = "state is kept by window, and sessions grow together: group first (`Combine`), or window its input otherwise and end \
                    sessions with a timer";
        report.error_with_help(mark, format!("`{name}` cannot keep state within sessions"), Some(help.to_string()));
    }
    // The levels of a RollUp are windows of their own.
    let waits =
        transform.groups() && !matches!(transform, Transform::RollUp { .. }) && window.trigger.never_fires_unbounded(window.window_fn);
    if let Some(Endless { source, .. }) = endless.filter(|_| waits) {
        let message = format!("`{name}` would never give a row: it waits for the end of `{source}`, which has none");
        let help = "give it `windowing`, such as {type: fixed, size: 60s}, or a trigger by `WindowIntoWithTriggers`".to_string();
        report.error_with_help(mark, message, Some(help));
    }
}

/// Checks a side input of a transform, and settles from when on it can be read. `endless`: a source above it that never ends.
pub(crate) fn check_side(
    site: &Site<'_>,
    side: &mut SideInput,
    strategy: &WindowingStrategy,
    endless: Option<&Endless>,
    report: &mut Report<'_>,
) {
    let (name, tag) = (site.name, side.tag.as_str());
    let global = strategy.window_fn == WindowFn::Global;
    side.from_first_row = strategy.trigger != Trigger::Default || (global && endless.is_some());
    let wrong = match (strategy.window_fn, endless, &side.kind) {
        (WindowFn::Sessions { .. }, ..) => Some((
            format!("the side input `{tag}` of `{name}` is in sessions, and no row of another input belongs to one"),
            "give it fixed, sliding, calendar or global windows",
        )),
        _ if !global && site.window.window_fn == WindowFn::Global => Some((
            format!("`{name}` has no windows, but its side input `{tag}` has: each row would wait for the last of them"),
            "window the rows of `main` too, or give the side input global windows",
        )),
        (WindowFn::Global, Some(_), SideKind::Iterable) => Some((
            format!("the side input `{tag}` of `{name}` never ends, so an iterable of all its rows would grow without end"),
            "window it and `main`, group it before, or read it as a `dict` or `singleton`",
        )),
        (.., SideKind::Iterable) if strategy.trigger != Trigger::Default => Some((
            format!("the side input `{tag}` of `{name}` gives windows out again and again, so an iterable would have rows twice"),
            "window it without a `trigger`, or read it as a `dict` or `singleton`, whose newest row counts",
        )),
        _ if side.refresh.is_some() && !(global && side.from_first_row) => Some((
            format!("`refresh` says nothing for the side input `{tag}` of `{name}`, which is read when its window has ended"),
            "take `refresh` away; it is for a side input in the global window that does not end, or that has a trigger",
        )),
        _ => None,
    };
    if let Some((message, help)) = wrong {
        report.error_with_help(site.mark, message, Some(help.to_string()));
    }
}
