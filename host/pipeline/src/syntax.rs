//! The grammar of Beam YAML: which keys stand where. Nothing is resolved here; a tree of [`Spec`]s comes out, as far as the file
//! makes sense, so that later steps can find more mistakes in the same go.

use crate::fields::{Fields, text, texts};
use crate::report::Report;
use crate::source::Mark;
use crate::test_blocks::{self, TestBlock};
use crate::yaml::{Content, Entry, Yaml};

/// The parts of a file.
pub(crate) struct File<'y> {
    pub pipeline: Spec<'y>,
    pub providers: Option<&'y Yaml>,
    pub options: Option<&'y Yaml>,
    pub tests: Vec<TestBlock<'y>>,
}

/// A transform, or the pipeline itself.
pub(crate) struct Spec<'y> {
    pub mark: Mark,
    /// `type`
    pub kind: String,
    pub kind_mark: Mark,
    /// `name`, if given.
    pub name: Option<(String, Mark)>,
    /// `None`: not written. `Some(vec![])`: written and empty.
    pub inputs: Option<Vec<Port>>,
    /// Of a composite: (output, what it is inside).
    pub outputs: Option<Vec<(String, Reference)>>,
    pub config: Option<&'y Yaml>,
    /// Beam's grammar allows it here, its code reads it in the config; both are the same to us.
    pub output_schema: Option<&'y Entry>,
    pub windowing: Option<&'y Yaml>,
    pub body: Body<'y>,
}

/// What is inside.
pub(crate) enum Body<'y> {
    Leaf,
    Composite(Vec<Spec<'y>>),
    /// Each reads the one before; `extra` says itself what it reads.
    Chain {
        transforms: Vec<Spec<'y>>,
        extra: Vec<Spec<'y>>,
    },
}

/// One input: several references are flattened.
#[derive(Clone)]
pub(crate) struct Port {
    pub tag: String,
    pub references: Vec<Reference>,
    pub mark: Mark,
}

/// A name that is to be found.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub text: String,
    pub mark: Mark,
}

impl Spec<'_> {
    /// A transform without others inside, with another config.
    pub fn with_config<'c>(&'c self, config: &'c Yaml) -> Spec<'c> {
        let Spec { mark, kind_mark, output_schema, windowing, .. } = *self;
        let (kind, name, inputs) = (self.kind.clone(), self.name.clone(), self.inputs.clone());
        Spec { mark, kind, kind_mark, name, inputs, outputs: None, config: Some(config), output_schema, windowing, body: Body::Leaf }
    }

    /// The name that it has without looking at its neighbours.
    pub fn label(&self) -> &str {
        self.name.as_ref().map_or(self.kind.as_str(), |(name, _)| name)
    }
}

/// Reads the whole file.
pub(crate) fn file<'y>(root: &'y Yaml, report: &mut Report<'_>) -> Option<File<'y>> {
    match &root.content {
        Content::Mapping(_) => {}
        Content::Null => {
            report.error_with_help(root.mark, "the file is empty", Some("a pipeline file has the key `pipeline`".to_string()));
            return None;
        }
        _ => {
            let help = "a pipeline file has the keys `pipeline`, `providers`, `options` and `tests`".to_string();
            report.error_with_help(root.mark, format!("a pipeline file is a mapping, not {}", root.kind()), Some(help));
            return None;
        }
    }
    let mut fields = Fields::of(Some(root), root.mark, "a pipeline file", report);
    let pipeline = fields.require("pipeline", report);
    let providers = fields.get("providers").map(|entry| &entry.value);
    let options = fields.get("options").map(|entry| &entry.value);
    let tests = fields.get("tests").map(|entry| test_blocks::tests(&entry.value, report)).unwrap_or_default();
    fields.finish(report);
    let pipeline = pipeline?;
    if pipeline.value.entries().is_none() {
        report.error(pipeline.value.mark, format!("`pipeline` must be a mapping, not {}", pipeline.value.kind()));
        return None;
    }
    Some(File { pipeline: self::pipeline(&pipeline.value, pipeline.mark, report), providers, options, tests })
}

fn pipeline<'y>(yaml: &'y Yaml, mark: Mark, report: &mut Report<'_>) -> Spec<'y> {
    let mut fields = Fields::of(Some(yaml), mark, "`pipeline`", report);
    let kind = fields.get("type");
    let (kind, kind_mark) = match kind {
        Some(entry) => (text(&entry.value, "`type`", report).unwrap_or("composite"), entry.value.mark),
        None => ("composite", mark),
    };
    if !matches!(kind, "composite" | "chain") {
        report.error(kind_mark, format!("the type of a pipeline is `composite` or `chain`, not `{kind}`"));
    }
    let body = body(&mut fields, kind == "chain", mark, report);
    let windowing = fields.get("windowing").map(|entry| &entry.value);
    fields.get("resource_hints");
    fields.finish(report);
    let kind = kind.to_string();
    Spec { mark, kind, kind_mark, name: None, inputs: None, outputs: None, config: None, output_schema: None, windowing, body }
}

fn body<'y>(fields: &mut Fields<'y>, chain: bool, mark: Mark, report: &mut Report<'_>) -> Body<'y> {
    let mut transforms = Vec::new();
    if let Some(entry) = fields.get("source") {
        transforms.push(spec(&entry.value, chain, report));
    }
    let given = fields.get("transforms");
    transforms.extend(given.iter().flat_map(|entry| specs(&entry.value, "`transforms`", chain, report)));
    if let Some(entry) = fields.get("sink") {
        transforms.push(spec(&entry.value, chain, report));
    }
    if transforms.is_empty() && given.is_none_or(|entry| matches!(entry.value.content, Content::List(_))) {
        report.error(given.map_or(mark, |entry| entry.mark), "there are no transforms here");
    }
    if !chain {
        return Body::Composite(transforms);
    }
    let extra = fields.get("extra_transforms");
    let extra = extra.iter().flat_map(|entry| specs(&entry.value, "`extra_transforms`", false, report)).collect();
    Body::Chain { transforms, extra }
}

fn specs<'y>(yaml: &'y Yaml, what: &str, in_chain: bool, report: &mut Report<'_>) -> Vec<Spec<'y>> {
    match &yaml.content {
        Content::List(values) => values.iter().map(|value| spec(value, in_chain, report)).collect(),
        _ => {
            report.error(yaml.mark, format!("{what} must be a list, not {}", yaml.kind()));
            Vec::new()
        }
    }
}

fn spec<'y>(yaml: &'y Yaml, in_chain: bool, report: &mut Report<'_>) -> Spec<'y> {
    let mark = yaml.mark;
    let mut fields = Fields::of(Some(yaml), mark, "a transform", report);
    let kind = match yaml.entries() {
        Some(_) => fields.require("type", report),
        None => fields.get("type"),
    };
    let kind_mark = kind.map_or(mark, |entry| entry.value.mark);
    let kind = kind.and_then(|entry| text(&entry.value, "`type`", report)).unwrap_or_default().to_string();
    let name_entry = fields.get("name");
    let name = name_entry.and_then(|entry| Some((text(&entry.value, "`name`", report)?.to_string(), entry.value.mark)));
    if let Some((name, mark)) = name.as_ref().filter(|(name, _)| name.is_empty() || name.contains('/')) {
        report.error(*mark, format!("`{name}` is no name: it must have a character and no `/`"));
    }
    let composite = matches!(kind.as_str(), "composite" | "chain");
    // A spec that is no mapping has been reported; an empty mapping has no type.
    let body = if composite { body(&mut fields, kind == "chain", kind_mark, report) } else { Body::Leaf };
    let input = fields.get_even_null("input");
    let output = fields.get("output");
    if in_chain {
        for entry in input.iter().chain(&output) {
            let message = format!("`{}` has no place in a chain: each transform reads the one before", entry.key);
            report.error_with_help(entry.mark, message, Some("use `type: composite` to connect transforms by name".to_string()));
        }
    }
    let inputs = input.filter(|_| !in_chain).map(|entry| ports(&entry.value, report));
    let outputs = output.filter(|_| !in_chain).and_then(|entry| outputs(&entry.value, composite, report));
    let output_schema = fields.get("output_schema");
    fields.get("resource_hints");
    let windowing = fields.get("windowing").map(|entry| &entry.value);
    let config = fields.get("config").map(|entry| &entry.value);
    if let Some(config) = config.filter(|_| composite) {
        report.error(config.mark, format!("a {kind} has no `config`"));
    }
    if !kind.is_empty() {
        fields.finish(report);
    }
    if let Some(schema) = output_schema.filter(|_| composite) {
        let help = "put it on the transform inside that gives the rows".to_string();
        report.error_with_help(schema.mark, format!("a {kind} has no `output_schema`"), Some(help));
    }
    Spec { mark, kind, kind_mark, name, inputs, outputs, config, output_schema, windowing, body }
}

fn ports(yaml: &Yaml, report: &mut Report<'_>) -> Vec<Port> {
    let port = |tag: &str, yaml: &Yaml, report: &mut Report<'_>| Port {
        tag: tag.to_string(),
        references: references(yaml, report),
        mark: yaml.mark,
    };
    match &yaml.content {
        Content::Null => Vec::new(),
        Content::List(values) if values.is_empty() => Vec::new(),
        Content::Mapping(entries) => entries.iter().map(|entry| port(&entry.key, &entry.value, report)).collect(),
        _ => vec![port("input", yaml, report)],
    }
}

fn references(yaml: &Yaml, report: &mut Report<'_>) -> Vec<Reference> {
    if matches!(&yaml.content, Content::List(values) if values.is_empty()) {
        report.error(yaml.mark, "this input names nothing");
    }
    let found = texts(yaml, "an input", report);
    found.into_iter().map(|(text, mark)| Reference { text: text.to_string(), mark }).collect()
}

fn outputs(yaml: &Yaml, composite: bool, report: &mut Report<'_>) -> Option<Vec<(String, Reference)>> {
    if !composite {
        let help = "others read it as `Name`, and its other outputs as `Name.output`".to_string();
        report.error_with_help(yaml.mark, "only a composite says what its `output` is", Some(help));
        return None;
    }
    let reference =
        |yaml: &Yaml, report: &mut Report<'_>| Some(Reference { text: text(yaml, "an output", report)?.to_string(), mark: yaml.mark });
    match &yaml.content {
        Content::Mapping(entries) => {
            Some(entries.iter().filter_map(|entry| Some((entry.key.clone(), reference(&entry.value, report)?))).collect())
        }
        _ => Some(reference(yaml, report).map(|reference| (String::new(), reference)).into_iter().collect()),
    }
}
