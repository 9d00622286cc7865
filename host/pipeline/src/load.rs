//! From text to graph, all steps in order: template, YAML, grammar, providers, transforms, edges, order, windowing.

use std::collections::HashSet;

use pelton_core::catalog::ConnectorSpec;
use pelton_core::{WindowFn, WindowingStrategy};

use crate::Settings;
use crate::connect::{Connected, connect};
use crate::diagnostic::Diagnostic;
use crate::draft::{Draft, Kind, check_errors_are_read, order};
use crate::draw::describe_window;
use crate::event_time;
use crate::graph::{Graph, Input, LATE, Node, Place, PluginInfo, Transform};
use crate::options::{self, Options, SourceMarks};
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
    let (source, text) = Source::expand(settings)?;
    let mut report = Report::new(&source);
    let graph = load_expanded(&text, settings, catalog, plugins, test, &mut report);
    let failed = report.has_errors();
    let findings = report.finish();
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
    let (options, source_marks) = options::options(file.options, report);
    let (providers, offered) = provider::providers(file.providers, &taken, plugins, report);
    let context = Context { catalog, offered: &offered, allowed_lateness: options.watermark.allowed_lateness };
    let test = test.and_then(|number| file.tests.get(number));
    let Connected { drafts, excused } = connect(&file.pipeline, test, &context, report);
    let order = order(&drafts, report);
    if test.is_none() {
        check_errors_are_read(&drafts, order.as_deref(), &excused, report);
        check_sources(&drafts, &source_marks, report);
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

/// `watermark.sources` must name sources.
fn check_sources(drafts: &[Draft], marks: &SourceMarks, report: &mut Report<'_>) {
    let source = |draft: &&Draft| matches!(draft.kind, Kind::Written(Some(Transform::Source { .. })));
    let names: HashSet<&str> = drafts.iter().filter(source).map(|draft| draft.name.as_str()).collect();
    for (name, mark) in marks.iter().filter(|(name, _)| !names.contains(name.as_str())) {
        let mut known: Vec<&str> = names.iter().copied().collect();
        known.sort_unstable();
        report.error_with_help(*mark, format!("there is no source `{name}`"), suggestion(name, known));
    }
}

/// Drops the ends of composites, numbers what is left and hands windowing down.
fn nodes(drafts: Vec<Draft>, order: &[usize], options: &Options, catalog: &[&'static ConnectorSpec], report: &mut Report<'_>) -> Vec<Node> {
    // For each node the name of a source above it that never ends.
    let mut endless: Vec<Option<String>> = Vec::new();
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
        let window = windowing(&transform, &of_inputs, &default);
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
        let above = endless_source(&transform, &draft.name, &inputs, &endless, catalog);
        let site = event_time::Site { name: &draft.name, mark: draft.mark, transform: &transform, inputs: &inputs, window: &window };
        event_time::check(&site, &nodes, &windows, above.as_deref(), report);
        endless.push(above);
        windows.push(window.clone());
        let outputs = draft.outputs.into_iter().filter(|name| !is_late(&transform, name)).collect();
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
        });
    }
    nodes
}

/// The name of a source that never ends, if this is one or one is above it.
fn endless_source(
    transform: &Transform,
    name: &str,
    inputs: &[Input],
    endless: &[Option<String>],
    catalog: &[&'static ConnectorSpec],
) -> Option<String> {
    match transform {
        Transform::Source { kind, config } => {
            let connector = catalog.iter().find(|connector| connector.name == kind)?;
            (connector.endless)(config).then(|| name.to_string())
        }
        _ => inputs.iter().find_map(|input| endless[input.node].clone()),
    }
}

/// Outputs of a plugin that could not be asked are known by being read.
fn declare_output(node: &mut Node, output: &str) {
    let known = output.is_empty()
        || node.outputs.iter().any(|name| name == output)
        || node.error_output.as_deref() == Some(output)
        || is_late(&node.transform, output);
    if !known {
        node.outputs.push(output.to_string());
    }
}

fn is_late(transform: &Transform, output: &str) -> bool {
    transform.is_keyed() && output == LATE
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
