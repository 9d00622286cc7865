//! What a deployment changes: the graph that runs against the graph that is to run.
//!
//! Transforms are told apart by their full names, so that a renamed one is a removed and an added one. Where a definition stands in its file is no
//! part of it.

use crate::versions::aggregates_of;
use pelton_pipeline::graph::{AggregateFunction, Graph, Node, Provider, Transform};
use pelton_pipeline::options::Options;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Digests of plugins, by their paths as they are meant in the file.
pub type Digests = BTreeMap<String, String>;

/// What a deployment changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Transforms that are not what they were.
    pub transforms: Vec<Change>,
    /// Plugins that have another digest, or are new or gone.
    pub plugins: Vec<Setting>,
    /// Options that have another value.
    pub settings: Vec<Setting>,
    /// Whether only plugins, configs of plugins and expressions change, so that it could be done without a stop.
    pub in_place: bool,
}

/// How a transform changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// Its full name.
    pub transform: String,
    /// Its `type:`.
    pub kind: String,
    /// What of it; empty for one that is added or removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<Setting>,
}

/// A value that changes; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// What it is the value of.
    pub name: String,
    /// What it is now.
    pub from: Option<String>,
    /// What it will be.
    pub to: Option<String>,
}

impl Setting {
    fn new(name: &str, from: impl Into<String>, to: impl Into<String>) -> Setting {
        Setting { name: name.into(), from: Some(from.into()), to: Some(to.into()) }
    }
}

impl Diff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.transforms.is_empty() && self.plugins.is_empty() && self.settings.is_empty()
    }

    /// Takes in a setting that stands outside the file.
    pub fn compare<T: std::fmt::Debug + PartialEq>(&mut self, name: &str, from: &Option<T>, to: &Option<T>) {
        if from != to {
            let text = |value: &Option<T>| value.as_ref().map(|value| format!("{value:?}"));
            self.settings.push(Setting { name: name.into(), from: text(from), to: text(to) });
            self.in_place = false;
        }
    }
}

/// From what runs, if anything does, to what is to run.
pub fn diff(old: Option<(&Graph, &Digests)>, new: (&Graph, &Digests)) -> Diff {
    let (graph, digests) = new;
    let Some((before, old_digests)) = old else {
        let transforms = graph.nodes.iter().map(|node| whole("added", node)).collect();
        let plugins = digests.iter().map(|(name, to)| Setting { name: name.clone(), from: None, to: Some(to.clone()) });
        return Diff { transforms, plugins: plugins.collect(), settings: Vec::new(), in_place: false };
    };
    let find = |graph: &'_ Graph, name: &str| graph.nodes.iter().position(|node| node.name == name);
    let mut transforms = Vec::new();
    let mut in_place = true;
    for node in &before.nodes {
        if find(graph, &node.name).is_none() {
            transforms.push(whole("removed", node));
        }
    }
    for node in &graph.nodes {
        let Some(known) = find(before, &node.name) else {
            transforms.push(whole("added", node));
            continue;
        };
        let (what, swaps) = changes((before, &before.nodes[known], old_digests), (graph, node, digests));
        in_place &= swaps;
        if !what.is_empty() {
            transforms.push(Change { change: "changed", what, ..whole("changed", node) });
        }
    }
    in_place &= transforms.iter().all(|change| change.change == "changed");
    let settings = options(&before.options, &graph.options);
    let plugins = changed_digests(old_digests, digests);
    in_place &= settings.is_empty();
    let mut diff = Diff { transforms, plugins, settings, in_place };
    diff.in_place &= !diff.is_empty();
    diff
}

fn whole(change: &'static str, node: &Node) -> Change {
    Change { change, transform: node.name.clone(), kind: node.transform.kind().into(), what: Vec::new() }
}

/// A node in its graph, with the digests of plugins.
type Placed<'a> = (&'a Graph, &'a Node, &'a Digests);

/// What of a transform changes, and whether that can be done while it runs.
fn changes(old: Placed<'_>, new: Placed<'_>) -> (Vec<Setting>, bool) {
    let ((old_graph, old, old_digests), (graph, node, digests)) = (old, new);
    let (mut what, mut swaps) = (Vec::new(), true);
    if old.transform.kind() != node.transform.kind() {
        what.push(Setting::new("type", old.transform.kind(), node.transform.kind()));
        swaps = false;
    }
    let (before, after) = (inputs(old_graph, old), inputs(graph, node));
    if before != after {
        what.push(Setting::new("input", before, after));
        swaps = false;
    }
    let values = changed_values(&old.written, &node.written);
    // Of a grouping the settings of plugins' aggregates may differ.
    let in_aggregates = aggregates_of(node).next().is_some() && definition(old) == definition(node);
    swaps &= values.is_empty() || in_aggregates || is_replaceable(&node.transform);
    let (before, after) = (settings(old), settings(node));
    if values.is_empty() && before != after {
        what.push(Setting { name: "config of aggregates".into(), from: before, to: after });
    }
    what.extend(values);
    let (before, after) = (plugin(old_graph, old, old_digests), plugin(graph, node, digests));
    if before != after {
        what.push(Setting { name: "plugin".into(), from: before, to: after });
    }
    let (before, after) = (limits(old_graph, old), limits(graph, node));
    if before != after {
        what.push(Setting { name: "limits".into(), from: before, to: after });
        swaps = false;
    }
    let (before, after) = (grants(old_graph, old), grants(graph, node));
    if before != after {
        what.push(Setting { name: "grants".into(), from: before, to: after });
        swaps = false;
    }
    let (before, after) = (definition(old), definition(node));
    if before != after {
        swaps &= is_replaceable(&node.transform) && offered(old) == offered(node);
        if what.is_empty() {
            let (shown, shows) = (pelton_pipeline::draw::detail(old), pelton_pipeline::draw::detail(node));
            what.push(match shown == shows {
                true => Setting::new("definition", cut(&before), cut(&after)),
                false => Setting::new("definition", shown, shows),
            });
        }
    }
    let rest = |node: &Node| format!("{:?} {:?} {:?} {:?}", node.windowing, node.error_output, node.error_threshold, node.outputs);
    if rest(old) != rest(node) {
        what.push(Setting::new("windowing and outputs", rest(old), rest(node)));
        swaps = false;
    }
    (what, swaps)
}

/// Inputs by name, so that other nodes may move.
fn inputs(graph: &Graph, node: &Node) -> String {
    let inputs = node.inputs.iter().map(|input| match input.output.as_str() {
        "" => graph.nodes[input.node].name.clone(),
        output => format!("{}.{output}", graph.nodes[input.node].name),
    });
    inputs.collect::<Vec<_>>().join(", ")
}

/// Whether another version of it may take its place while it runs.
fn is_replaceable(transform: &Transform) -> bool {
    matches!(transform, Transform::Plugin { .. } | Transform::Filter { .. } | Transform::MapToFields { .. })
}

/// Which of its plugin's transforms it is.
fn offered(node: &Node) -> Option<&str> {
    match &node.transform {
        Transform::Plugin { transform, .. } => Some(transform),
        _ => None,
    }
}

fn changed_values(old: &Value, new: &Value) -> Vec<Setting> {
    let empty = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    changed
        .map(|key| Setting { name: key.clone(), from: old.get(key).map(Value::to_string), to: new.get(key).map(Value::to_string) })
        .collect()
}

/// The digest of a transform's plugin, or of those of its aggregates.
fn plugin(graph: &Graph, node: &Node, digests: &Digests) -> Option<String> {
    told(graph, node, |provider| digests.get(&*provider.path.to_string_lossy()).cloned().unwrap_or_default())
}

fn limits(graph: &Graph, node: &Node) -> Option<String> {
    told(graph, node, |provider| provider.limits.to_string())
}

/// Names of what is granted, and of where its secrets come from; no secret is among them.
fn grants(graph: &Graph, node: &Node) -> Option<String> {
    told(graph, node, |provider| provider.grants.to_string())
}

/// Something of the plugins of a node, in their order; `None`: it has none.
fn told(graph: &Graph, node: &Node, tell: impl Fn(&Provider) -> String) -> Option<String> {
    let numbers: Vec<usize> = match &node.transform {
        Transform::Plugin { provider, .. } => vec![*provider],
        _ => aggregates_of(node).map(|(_, provider, _)| provider).collect(),
    };
    let texts: Vec<String> = numbers.iter().filter_map(|number| graph.providers.get(*number)).map(tell).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// The configs of plugins' aggregates.
fn settings(node: &Node) -> Option<String> {
    let texts: Vec<String> = aggregates_of(node).map(|(_, _, config)| config.to_string()).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// All that a transform is by itself: without the places where it stands, and without the numbers of its plugins and the configs of its aggregates.
fn definition(node: &Node) -> String {
    let mut transform = node.transform.clone();
    if let Transform::Combine { combine, .. } | Transform::RollUp { combine, .. } = &mut transform {
        for aggregate in combine {
            if let AggregateFunction::Plugin { provider, config, .. } = &mut aggregate.function {
                (*provider, *config) = (0, Value::Null);
            }
        }
    }
    let transform = match &transform {
        Transform::Plugin { transform, config, key, .. } => format!("{transform} {config} {key:?}"),
        Transform::Source { kind, config } | Transform::Sink { kind, config } => format!("{kind} {config}"),
        other => format!("{other:?}"),
    };
    without_places(&format!("{transform} {:?}", node.sides))
}

fn without_places(text: &str) -> String {
    let mut parts = text.split("Place {");
    let mut kept = parts.next().unwrap_or_default().to_string();
    for part in parts {
        kept.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    kept
}

fn cut(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

fn options(old: &Options, new: &Options) -> Vec<Setting> {
    let table = |options: &Options| {
        let Options { name: _, parallelism, memory, weight, watermark, limits, durable, trust } = options;
        [
            ("parallelism", format!("{parallelism:?}")),
            ("memory", format!("{memory:?}")),
            ("weight", format!("{weight:?}")),
            ("watermark", format!("{watermark:?}")),
            ("limits", limits.to_string()),
            ("trust", format!("{trust:?}")),
            ("delivery, checkpoint, state, uids", format!("{durable:?}")),
        ]
    };
    let changed = table(old).into_iter().zip(table(new)).filter(|((_, from), (_, to))| from != to);
    changed.map(|((name, from), (_, to))| Setting::new(name, from, to)).collect()
}

fn changed_digests(old: &Digests, new: &Digests) -> Vec<Setting> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed.map(|name| Setting { name: name.clone(), from: old.get(name).cloned(), to: new.get(name).cloned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_pipeline::{Settings, UncheckedPlugins};

    const BASE: &str = "
pipeline:
  type: chain
  transforms:
    - {type: Create, config: {elements: [{a: 1}]}}
    - {type: Filter, name: Keep, config: {language: sql, keep: a > 1}}
    - {type: Up, config: {by: 3}}
    - {type: WriteToJson, config: {path: out}}
providers:
  - {type: wasm, config: {plugin: up.wasm}, transforms: {Up: up}}
";

    fn graph(text: &str) -> Graph {
        let settings = Settings { file: "p.yaml".into(), text: text.into(), ..Settings::default() };
        pelton_pipeline::load(&settings, &pelton_connect::catalog(), &UncheckedPlugins).unwrap()
    }

    fn digests(digest: &str) -> Digests {
        Digests::from([("up.wasm".into(), digest.into())])
    }

    /// What changes, in words, and whether it can be done in place.
    fn check(new: &str, digest: &str) -> (Vec<String>, bool) {
        let diff = diff(Some((&graph(BASE), &digests("sha256:1"))), (&graph(new), &digests(digest)));
        let word = |setting: &Setting| {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            format!("{}: {} to {}", setting.name, text(&setting.from), text(&setting.to))
        };
        let transforms = diff.transforms.iter().flat_map(|change| {
            let whole = format!("{} {}", change.change, change.transform);
            match change.what.is_empty() {
                true => vec![whole],
                false => change.what.iter().map(|what| format!("{whole} {}", word(what))).collect(),
            }
        });
        (transforms.chain(diff.settings.iter().map(word)).collect(), diff.in_place)
    }

    #[test]
    fn moving_a_file_about_changes_nothing() {
        let moved = BASE.replace("- {type: Filter, name: Keep,", "# a comment\n    -   {type: Filter, name: Keep, ");
        assert_eq!(check(&moved, "sha256:1"), (vec![], false));
    }

    #[test]
    fn changes_are_named() {
        let table = [
            (BASE.replace("a > 1", "a > 2"), "sha256:1", "changed Keep keep: \"a > 1\" to \"a > 2\"", true),
            (BASE.replace("by: 3", "by: 4"), "sha256:1", "changed Up by: 3 to 4", true),
            (BASE.to_string(), "sha256:2", "changed Up plugin: sha256:1 to sha256:2", true),
            (BASE.replace("path: out", "path: other"), "sha256:1", "changed WriteToJson path: \"out\" to \"other\"", false),
            (BASE.to_string() + "options: {pelton: {weight: 50}}\n", "sha256:1", "weight: None to Some(50)", false),
        ];
        for (text, digest, expected, in_place) in table {
            assert_eq!(check(&text, digest), (vec![expected.to_string()], in_place), "{expected}");
        }
        let renamed = check(&BASE.replace("name: Keep", "name: Kept"), "sha256:1");
        assert!(
            renamed.0.contains(&"removed Keep".to_string()) && renamed.0.contains(&"added Kept".to_string()) && !renamed.1,
            "{renamed:?}"
        );
    }

    #[test]
    fn the_first_version_adds_everything() {
        let diff = diff(None, (&graph(BASE), &digests("sha256:1")));
        assert!(diff.transforms.len() >= 4 && diff.transforms.iter().all(|change| change.change == "added"), "{diff:?}");
        assert_eq!(diff.plugins[0].from, None);
    }
}
