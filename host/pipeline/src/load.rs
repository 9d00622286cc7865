//! From text to graph, all steps in order: template, YAML, grammar, providers, transforms, edges, order, windowing.

use std::collections::HashSet;

use pelton_core::catalog::ConnectorSpec;
use pelton_core::{WindowFn, WindowingStrategy};

use crate::Settings;
use crate::changes::Changes;
use crate::connect::{Connected, connect};
use crate::diagnostic::Diagnostic;
use crate::draft::{Draft, Kind, check_errors_are_read, order};
use crate::draw::describe_window;
use crate::event_time::{self, Endless};
use crate::graph::{Graph, Input, LATE, Node, Place, PluginInfo, Transform};
use crate::options::{self, NameMarks, Options};
use crate::provider;
use crate::report::{Report, suggestion};
use crate::source::Source;
use crate::transform::{BUILT_IN, Context};
use crate::{syntax, templates, yaml};

/// Reads and checks a pipeline. On failure every mistake that can be found in one go, and the warnings among them.
pub fn load(settings: &Settings, catalog: &[&'static ConnectorSpec], plugins: &dyn PluginInfo) -> Result<Graph, Vec<Diagnostic>> {
    load_one(settings, catalog, plugins, None)
}

/// A test of a pipeline file.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its `name`, or its number.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The part of the pipeline that it runs, with mocks and assertions in place.
    pub graph: Graph,
}

/// Reads and checks a pipeline and its `tests`, of which one graph each comes out.
pub fn load_tests(settings: &Settings, catalog: &[&'static ConnectorSpec], plugins: &dyn PluginInfo) -> Result<Vec<Test>, Vec<Diagnostic>> {
    let names = load(settings, catalog, plugins)?.tests;
    let mut tests = Vec::with_capacity(names.len());
    for (number, (name, place)) in names.into_iter().enumerate() {
        let graph = load_one(settings, catalog, plugins, Some(number))?;
        tests.push(Test { name, place, graph });
    }
    Ok(tests)
}

fn load_one(
    settings: &Settings,
    catalog: &[&'static ConnectorSpec],
    plugins: &dyn PluginInfo,
    test: Option<usize>,
) -> Result<Graph, Vec<Diagnostic>> {
    let (source, text, odd) = Source::expand(settings)?;
    let mut report = Report::new(&source);
    let graph = load_expanded(&text, settings, catalog, plugins, test, &mut report);
    let failed = report.has_errors();
    let mut findings = report.finish();
    findings.extend(odd);
    match graph {
        Some(graph) if !failed => Ok(Graph { warnings: findings, ..graph }),
        _ => Err(findings),
    }
}

fn load_expanded(
    text: &str,
    settings: &Settings,
    catalog: &[&'static ConnectorSpec],
    plugins: &dyn PluginInfo,
    test: Option<usize>,
    report: &mut Report<'_>,
) -> Option<Graph> {
    let taken: Vec<&str> = BUILT_IN.iter().copied().chain(["composite", "chain"]).chain(catalog.iter().map(|c| c.name)).collect();
    let root = templates::expand(yaml::parse(text, 0, report)?, &taken, settings, report);
    let file = syntax::file(&root, report)?;
    let (options, marks) = options::options(file.options, report);
    let (providers, offered) = provider::providers(file.providers, options.trust.as_ref(), &taken, plugins, report);
    let changes = Changes::new(&settings.changes, plugins, &providers);
    let context = Context { catalog, offered: &offered, changes: &changes, allowed_lateness: options.watermark.allowed_lateness };
    let test = test.and_then(|number| file.tests.get(number));
    let Connected { drafts, excused } = connect(&file.pipeline, test, &context, report);
    let names: Vec<&str> = drafts.iter().filter(|draft| matches!(draft.kind, Kind::Written(_))).map(|draft| draft.name.as_str()).collect();
    let providers = changes.finish(&names, file.pipeline.mark, report);
    let order = order(&drafts, report);
    if test.is_none() {
        check_errors_are_read(&drafts, order.as_deref(), &excused, report);
        check_names(&drafts, &marks, report);
    }
    let order = order?;
    if report.has_errors() {
        return None;
    }
    let nodes = nodes(drafts, &order, &options, catalog, report);
    let stem = settings.file.file_stem().map_or_else(|| "pipeline".to_string(), |stem| stem.to_string_lossy().into_owned());
    let name = options.name.clone().unwrap_or(stem);
    let tests = file.tests.iter().map(|test| (test.name.clone(), report.place(test.mark))).collect();
    Some(Graph { name, options, providers, nodes, files: report.source().paths(), tests, warnings: Vec::new() })
}

/// `watermark.sources` must name sources, `uids` transforms.
fn check_names(drafts: &[Draft], marks: &NameMarks, report: &mut Report<'_>) {
    let is_source = |draft: &&Draft| matches!(draft.kind, Kind::Written(Some(Transform::Source { .. })));
    let sources: HashSet<&str> = drafts.iter().filter(is_source).map(|draft| draft.name.as_str()).collect();
    let all: HashSet<&str> = drafts.iter().map(|draft| draft.name.as_str()).collect();
    for (kind, names, marks) in [("source", sources, &marks.sources), ("transform", all, &marks.uids)] {
        for (name, mark) in marks.iter().filter(|(name, _)| !names.contains(name.as_str())) {
            let mut known: Vec<&str> = names.iter().copied().collect();
            known.sort_unstable();
            report.error_with_help(*mark, format!("there is no {kind} `{name}`"), suggestion(name, known));
        }
    }
}

/// Drops the ends of composites, numbers what is left and hands windowing down.
fn nodes(drafts: Vec<Draft>, order: &[usize], options: &Options, catalog: &[&'static ConnectorSpec], report: &mut Report<'_>) -> Vec<Node> {
    let mut endless: Vec<Option<Endless>> = Vec::new();
    // For each draft the node and output that stand for its main output.
    let mut standing: Vec<Option<Input>> = vec![None; drafts.len()];
    let mut windows: Vec<WindowingStrategy> = Vec::new();
    let mut nodes: Vec<Node> = Vec::new();
    let default = WindowingStrategy::new(WindowFn::Global, options.watermark.allowed_lateness);
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    for &index in order {
        let Some(draft) = drafts[index].take() else { continue };
        let mut inputs = Vec::with_capacity(draft.inputs.len());
        for edge in &draft.inputs {
            if let Some(input) = &standing[edge.draft] {
                let output = if edge.output.is_empty() { input.output.clone() } else { edge.output.clone() };
                declare_output(&mut nodes[input.node], &output);
                inputs.push(Input { node: input.node, output });
            }
        }
        let transform = match draft.kind {
            Kind::Written(Some(transform)) | Kind::Inserted(transform) => transform,
            // A transform that was not understood has been reported, and then nothing comes this far.
            Kind::Written(None) | Kind::Pass => {
                standing[index] = inputs.into_iter().next();
                continue;
            }
        };
        let id = nodes.len();
        standing[index] = Some(Input { node: id, output: String::new() });
        // An output may have windows of its own.
        let own = |input: &Input| nodes[input.node].windowing_of(&input.output).unwrap_or_else(|| windows[input.node].clone());
        let of_inputs: Vec<WindowingStrategy> = inputs.iter().map(own).collect();
        // Side inputs have windows of their own.
        let own_inputs = if draft.sides.is_empty() { inputs.len() } else { 1 };
        let window = windowing(&transform, &of_inputs[..own_inputs], &default);
        let window = window.unwrap_or_else(|other| {
            let of = |input: usize| format!("`{}` has {}", nodes[inputs[input].node].name, describe_window(of_inputs[input].window_fn));
            let (first, second) = (of(0), of(other));
            let same = of_inputs[0].window_fn == of_inputs[other].window_fn;
            let apart = if same { ", with other triggers or lateness" } else { "" };
            let message = format!("the inputs of `{}` have different windowing: {first}, {second}{apart}", draft.name);
            let help = format!("give each of them the same `windowing`, or give `{}` one, for all its inputs", draft.name);
            report.error_with_help(draft.mark, message, Some(help));
            of_inputs[0].clone()
        });
        let site =
            event_time::Site { name: &draft.name, mark: draft.mark, transform: &transform, inputs: &inputs[..own_inputs], window: &window };
        event_time::check(&site, &nodes, &windows, &endless, report);
        let mut sides = draft.sides;
        for ((side, strategy), input) in sides.iter_mut().zip(&of_inputs[own_inputs..]).zip(&inputs[own_inputs..]) {
            event_time::check_side(&site, side, strategy, endless[input.node].as_ref(), report);
        }
        endless.push(Endless::of(&transform, &draft.name, &inputs[..own_inputs], &endless, catalog));
        windows.push(window.clone());
        let late = |name: &String| name == LATE && (transform.is_keyed() || !sides.is_empty());
        let outputs = draft.outputs.into_iter().filter(|name| !late(name)).collect();
        nodes.push(Node {
            id,
            name: draft.name,
            place: report.place(draft.mark),
            windowing: (!matches!(transform, Transform::Sink { .. })).then_some(window),
            transform,
            inputs,
            outputs,
            error_threshold: draft.error_output.as_ref().and_then(|errors| errors.threshold),
            error_output: draft.error_output.map(|errors| errors.name),
            sides,
            written: draft.written,
        });
    }
    nodes
}

/// Outputs of a plugin that could not be asked are known by being read.
fn declare_output(node: &mut Node, output: &str) {
    let known = output.is_empty()
        || node.outputs.iter().any(|name| name == output)
        || node.error_output.as_deref() == Some(output)
        || (output == LATE && node.gives_late());
    if !known {
        node.outputs.push(output.to_string());
    }
}

/// What a transform's rows are windowed by. `Err`: this input's windowing is not that of the first.
fn windowing(transform: &Transform, of_inputs: &[WindowingStrategy], default: &WindowingStrategy) -> Result<WindowingStrategy, usize> {
    if let Transform::WindowInto { strategy, .. } = transform {
        return Ok(strategy.clone());
    }
    let first = of_inputs.first().unwrap_or(default);
    match of_inputs.iter().position(|other| other != first) {
        Some(other) => Err(other),
        // What a grouping gives out goes on by the continuation of its trigger.
        None if transform.groups() => Ok(first.after_grouping()),
        None => Ok(first.clone()),
    }
}
