//! Names to edges: scopes, references, implicit flattens, inserted windowing.
//!
//! First every transform of the file is declared in the scope that it stands in (a composite opens one of its own, in which
//! only the names of its inputs are visible from outside), then every reference is looked up.

mod names;
mod testing;

use std::collections::HashSet;

use crate::draft::{Draft, Edge};
use crate::graph::Transform;
use crate::json_schema::JsonSchema;
use crate::report::Report;
use crate::source::Mark;
use crate::syntax::{Body, Spec};
use crate::test_blocks::TestBlock;
use crate::transform::side_inputs::MAIN;
use crate::transform::{Arity, Context, lower};
use crate::triggering;
use crate::windowing::{Windows, windowing as windowing_of};
use crate::yaml::Yaml;

/// What comes out: the drafts, and those whose outputs were misspelt somewhere, so that nothing more is said of them.
pub(crate) struct Connected {
    pub drafts: Vec<Draft>,
    pub excused: HashSet<usize>,
}

/// Connects everything in the pipeline; with a test, what is left of it then.
pub(crate) fn connect(pipeline: &Spec<'_>, test: Option<&TestBlock<'_>>, context: &Context<'_>, report: &mut Report<'_>) -> Connected {
    let mut connector = Connector {
        context,
        report,
        drafts: Vec::new(),
        scopes: vec![Scope::default()],
        items: Vec::new(),
        names: HashSet::new(),
        excused: HashSet::new(),
    };
    connector.declare_body(&pipeline.body, 0, pipeline.windowing);
    for item in 0..connector.items.len() {
        connector.connect_item(item);
    }
    if let Some(test) = test {
        connector.test(test);
    }
    Connected { drafts: connector.drafts, excused: connector.excused }
}

struct Connector<'c, 'y, 's, 'r> {
    context: &'c Context<'c>,
    report: &'r mut Report<'s>,
    drafts: Vec<Draft>,
    scopes: Vec<Scope>,
    items: Vec<Item<'y>>,
    /// Full names in use.
    names: HashSet<String>,
    excused: HashSet<usize>,
}

/// The names that a reference can mean.
#[derive(Default)]
struct Scope {
    prefix: String,
    items: Vec<usize>,
    /// Inputs of the composite: (tag, draft).
    ports: Vec<(String, usize)>,
    parent: Option<usize>,
}

struct Item<'y> {
    spec: &'y Spec<'y>,
    scope: usize,
    /// Full name.
    name: String,
    windowing: Option<&'y Yaml>,
    link: Link,
    target: Target,
}

/// What an item reads.
#[derive(Clone, Copy)]
enum Link {
    /// What its `input` says.
    Named,
    /// The item before it in a chain.
    Previous(usize),
    /// The inputs of the chain that it begins.
    Chain,
}

/// Where an item's inputs go and outputs come from.
enum Target {
    Leaf {
        draft: usize,
        main: Option<usize>,
        /// Where its refused rows are, if not at an output of the draft.
        errors: Option<usize>,
        arity: Option<Arity>,
    },
    Composite {
        ports: Vec<(String, usize)>,
        outputs: Vec<(String, usize)>,
        scope: usize,
    },
}

impl<'y> Connector<'_, 'y, '_, '_> {
    fn declare_body(&mut self, body: &'y Body<'y>, scope: usize, push: Option<&'y Yaml>) {
        match body {
            Body::Leaf => {}
            Body::Composite(specs) if self.is_implicit_chain(specs, scope) => self.declare_chain(specs, scope, push),
            Body::Composite(specs) => {
                let labels = labels(specs.iter());
                for spec in specs {
                    self.declare(spec, scope, Link::Named, push, &labels);
                }
            }
            Body::Chain { transforms, extra } => {
                let labels = labels(transforms.iter().chain(extra));
                let mut previous = None;
                for spec in transforms {
                    let link = previous.map_or(Link::Chain, Link::Previous);
                    previous = Some(self.declare(spec, scope, link, push, &labels));
                }
                for spec in extra {
                    self.declare(spec, scope, Link::Named, push, &labels);
                }
            }
        }
    }

    /// A composite with inputs whose transforms do not say what they read is a chain, as in Beam.
    fn is_implicit_chain(&self, specs: &[Spec<'y>], scope: usize) -> bool {
        let silent = |spec: &Spec<'_>| spec.inputs.as_ref().is_none_or(Vec::is_empty) && spec.outputs.is_none();
        !self.scopes[scope].ports.is_empty() && specs.iter().all(silent)
    }

    fn declare_chain(&mut self, specs: &'y [Spec<'y>], scope: usize, push: Option<&'y Yaml>) {
        let labels = labels(specs.iter());
        let mut previous = None;
        for spec in specs {
            let link = previous.map_or(Link::Chain, Link::Previous);
            previous = Some(self.declare(spec, scope, link, push, &labels));
        }
    }

    fn declare(&mut self, spec: &'y Spec<'y>, scope: usize, link: Link, push: Option<&'y Yaml>, labels: &[&str]) -> usize {
        let name = self.full_name(spec, scope, labels);
        let is_root = match link {
            Link::Named => spec.inputs.as_ref().is_none_or(Vec::is_empty),
            Link::Previous(_) => false,
            Link::Chain => self.scopes[scope].ports.is_empty(),
        };
        let windowing = spec.windowing.or(if is_root { push } else { None });
        let target = match &spec.body {
            Body::Leaf => self.declare_leaf(spec, &name, is_root, windowing),
            body => self.declare_composite(spec, body, &name, scope, link, windowing.filter(|_| is_root)),
        };
        let index = self.items.len();
        self.items.push(Item { spec, scope, name, windowing, link, target });
        self.scopes[scope].items.push(index);
        index
    }

    fn full_name(&mut self, spec: &Spec<'_>, scope: usize, labels: &[&str]) -> String {
        let prefix = &self.scopes[scope].prefix;
        if let Some((name, mark)) = &spec.name {
            let full = format!("{prefix}{name}");
            if self.names.contains(&full) {
                self.report.error(*mark, format!("the name `{name}` is used twice"));
            }
            return self.unique(full);
        }
        let repeated = labels.iter().filter(|label| **label == spec.kind).count() > 1;
        let full = match repeated {
            // As in Beam, so that adding a transform elsewhere does not rename this one's neighbours.
            true => format!("{prefix}{}@{}", spec.kind, self.report.place(spec.mark).line),
            false => format!("{prefix}{}", spec.kind),
        };
        self.unique(full)
    }

    fn unique(&mut self, name: String) -> String {
        let mut candidate = name.clone();
        let mut number = 2;
        while !self.names.insert(candidate.clone()) {
            candidate = format!("{name}-{number}");
            number += 1;
        }
        candidate
    }

    fn add(&mut self, draft: Draft) -> usize {
        self.drafts.push(draft);
        self.drafts.len() - 1
    }

    fn declare_leaf(&mut self, spec: &'y Spec<'y>, name: &str, is_root: bool, windowing: Option<&'y Yaml>) -> Target {
        let changed = self.context.changes.config(name, spec, self.report);
        let offered = self.context.changes.offered(name, spec, self.context.offered, self.report);
        let mut lowered = match &changed {
            Some(config) => lower(name, &spec.with_config(config), offered.as_ref(), self.context, self.report),
            None => lower(name, spec, offered.as_ref(), self.context, self.report),
        };
        let written = changed.as_ref().or(spec.config).map_or(serde_json::Value::Null, Yaml::to_json);
        let (arity, has_main, schema) = (lowered.arity, lowered.has_main, lowered.output_schema.take());
        let draft = self.add(Draft::written(name.to_string(), spec.mark, lowered, written));
        let (mut main, mut errors) = (has_main.then_some(draft), None);
        if let Some((schema, mark)) = schema.filter(|_| has_main) {
            let validated = self.validate(draft, name, schema, mark);
            main = Some(validated.0);
            errors = validated.1;
        }
        if let (Some(yaml), Some(draft)) = (windowing.filter(|_| is_root && spec.kind != "WindowInto"), main) {
            let edge = Edge { draft, output: String::new(), mark: yaml.mark };
            main = Some(self.window(edge, yaml, name, "output").draft);
        }
        Target::Leaf { draft, main, errors, arity }
    }

    /// Puts a ValidateWithSchema behind a transform. Its errors join those of the transform, in one more node.
    fn validate(&mut self, draft: usize, name: &str, schema: JsonSchema, mark: Mark) -> (usize, Option<usize>) {
        let edge = |draft, output: &str| Edge { draft, output: output.to_string(), mark };
        let full = self.unique(format!("{name}/EnforceOutputSchema"));
        let own = self.drafts[draft].error_output.clone();
        let validate = Transform::Validate { schema: Box::new(schema) };
        let validated = self.add(Draft { error_output: own.clone(), ..Draft::inserted(full, mark, validate, vec![edge(draft, "")]) });
        let errors = own.map(|own| {
            let both = vec![edge(draft, &own.name), edge(validated, &own.name)];
            let full = self.unique(format!("{name}/FlattenErrors"));
            self.add(Draft { hands_on: true, ..Draft::inserted(full, mark, Transform::Flatten, both) })
        });
        (validated, errors)
    }

    fn declare_composite(
        &mut self,
        spec: &'y Spec<'y>,
        body: &'y Body<'y>,
        name: &str,
        outer: usize,
        link: Link,
        push: Option<&'y Yaml>,
    ) -> Target {
        let tags: Vec<String> = match link {
            Link::Named => spec.inputs.iter().flatten().map(|port| port.tag.clone()).collect(),
            Link::Previous(_) => vec!["input".to_string()],
            Link::Chain => self.scopes[outer].ports.iter().map(|(tag, _)| tag.clone()).collect(),
        };
        let mut ports = Vec::new();
        for tag in tags {
            let draft = self.add(Draft::pass(format!("{name}[{tag}]"), spec.mark));
            ports.push((tag, draft));
        }
        let scope = self.scopes.len();
        self.scopes.push(Scope { prefix: format!("{name}/"), items: Vec::new(), ports: ports.clone(), parent: Some(outer) });
        let implicit = matches!(body, Body::Composite(specs) if self.is_implicit_chain(specs, scope));
        self.declare_body(body, scope, push);
        let mut outputs = Vec::new();
        match (&spec.outputs, body) {
            (Some(written), _) => {
                for (output, _) in written {
                    let draft = self.add(Draft::pass(format!("{name}.{output}"), spec.mark));
                    outputs.push((output.clone(), draft));
                }
            }
            (None, Body::Chain { transforms, .. } | Body::Composite(transforms)) if matches!(body, Body::Chain { .. }) || implicit => {
                // What the last of a chain gives out is what the chain gives out.
                let last = transforms.len().checked_sub(1).and_then(|last| self.scopes[scope].items.get(last));
                if let Some(edge) = last.and_then(|&last| self.main_of(last, spec.mark).ok()) {
                    let draft = self.add(Draft::pass(name.to_string(), spec.mark));
                    self.drafts[draft].inputs.push(edge);
                    outputs.push((String::new(), draft));
                }
            }
            _ => {}
        }
        Target::Composite { ports, outputs, scope }
    }

    fn connect_item(&mut self, item: usize) {
        let (spec, scope, link) = (self.items[item].spec, self.items[item].scope, self.items[item].link);
        let mut ports: Vec<(String, Vec<Edge>)> = Vec::new();
        let mut complete = true;
        match link {
            Link::Named => {
                for port in spec.inputs.iter().flatten() {
                    let edges: Vec<Edge> = port.references.iter().filter_map(|reference| self.resolve(reference, scope)).collect();
                    complete &= edges.len() == port.references.len() && !edges.is_empty();
                    ports.push((port.tag.clone(), edges));
                }
            }
            Link::Previous(previous) => match self.main_of(previous, spec.kind_mark) {
                Ok(edge) => ports.push(("input".to_string(), vec![edge])),
                Err(message) => {
                    complete = false;
                    let help = "in a chain each transform reads the one before; a sink ends it".to_string();
                    self.report.error_with_help(spec.kind_mark, message, Some(help));
                }
            },
            Link::Chain => {
                for (tag, draft) in self.scopes[scope].ports.clone() {
                    ports.push((tag, vec![Edge { draft, output: String::new(), mark: spec.mark }]));
                }
            }
        }
        if complete {
            self.check_arity(item, ports.len());
        }
        if matches!(self.items[item].target, Target::Leaf { arity: Some(Arity::Sided), .. }) {
            ports.sort_by_key(|(tag, _)| tag != MAIN);
        }
        for (tag, edges) in ports {
            self.connect_port(item, &tag, edges);
        }
        self.connect_outputs(item);
    }

    fn check_arity(&mut self, item: usize, ports: usize) {
        let Item { spec, target, link, .. } = &self.items[item];
        let Target::Leaf { arity, .. } = target else { return };
        let kind = &spec.kind;
        let mark = spec.inputs.iter().flatten().map(|port| port.mark).next().unwrap_or(spec.kind_mark);
        match (arity, ports) {
            (Some(Arity::None), 1..) => self.report.error(mark, format!("`{kind}` is a source and reads no input")),
            (Some(Arity::One | Arity::Many | Arity::Named | Arity::Sided), 0) => {
                let help = match link {
                    Link::Chain => "a chain begins with a source, or has an `input` itself",
                    _ => "say which transform it reads with `input`",
                };
                self.report.error_with_help(spec.kind_mark, format!("`{kind}` needs an input"), Some(help.to_string()));
            }
            (Some(Arity::One), 2..) => {
                let help = "a list of names is one input with the rows of all of them".to_string();
                self.report.error_with_help(mark, format!("`{kind}` has one input, not {ports}"), Some(help));
            }
            _ => {}
        }
    }

    fn connect_port(&mut self, item: usize, tag: &str, edges: Vec<Edge>) {
        let Item { spec, name, target, .. } = &self.items[item];
        let (many, reader) = match target {
            Target::Leaf { draft, arity, .. } => (*arity == Some(Arity::Many), Some(*draft)),
            Target::Composite { ports, .. } => (false, ports.iter().find(|(own, _)| own == tag).map(|(_, draft)| *draft)),
        };
        let Some(reader) = reader else { return };
        let (name, mark, kind) = (name.clone(), spec.mark, spec.kind.as_str());
        let windowing = self.items[item].windowing.filter(|_| kind != "WindowInto");
        if let Some(yaml) = windowing.filter(|_| edges.is_empty()) {
            // Nothing to window, since a name was not found; what is wrong with the windowing is said all the same.
            windowing_of(yaml, Windows::Beam, self.report);
        }
        let edges = match edges.len() {
            2.. if !many => {
                let mark_of_edge = edges[0].mark;
                let flatten = self.unique(format!("{name}-Flatten[{tag}]"));
                let draft = self.add(Draft::inserted(flatten, mark, Transform::Flatten, edges));
                vec![Edge { draft, output: String::new(), mark: mark_of_edge }]
            }
            _ => edges,
        };
        let single = edges.len() == 1;
        for (index, edge) in edges.into_iter().enumerate() {
            let edge = match windowing {
                Some(yaml) if single => self.window(edge, yaml, &name, tag),
                Some(yaml) => self.window(edge, yaml, &name, &format!("{tag}{index}")),
                None => edge,
            };
            self.drafts[reader].inputs.push(edge);
        }
    }

    /// Puts a WindowInto behind an edge.
    fn window(&mut self, edge: Edge, yaml: &Yaml, name: &str, tag: &str) -> Edge {
        let Some(window) = windowing_of(yaml, Windows::Beam, self.report) else { return edge };
        let transform = triggering::plain(window, self.context.allowed_lateness);
        let name = self.unique(format!("{name}/WindowInto[{tag}]"));
        let mark = edge.mark;
        let draft = self.add(Draft::inserted(name, yaml.mark, transform, vec![edge]));
        Edge { draft, output: String::new(), mark }
    }

    fn connect_outputs(&mut self, item: usize) {
        let Target::Composite { outputs, scope, .. } = &self.items[item].target else { return };
        let (outputs, scope) = (outputs.clone(), *scope);
        let written = self.items[item].spec.outputs.iter().flatten();
        for ((_, reference), (_, draft)) in written.zip(outputs) {
            if let Some(edge) = self.resolve(reference, scope) {
                self.drafts[draft].inputs.push(edge);
            }
        }
    }
}

/// What the transforms of one scope are called as far as they do not say it themselves: their types.
fn labels<'y>(specs: impl Iterator<Item = &'y Spec<'y>>) -> Vec<&'y str> {
    specs.map(Spec::label).collect()
}
