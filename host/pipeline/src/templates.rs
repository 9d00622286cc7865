//! Providers that are made of YAML: `type: yaml` (transforms that are pipelines with parameters), `type: renaming`, and `include`
//! of a file with a list of providers.
//!
//! All of it happens on the tree, before the grammar is looked at: a use of such a transform is replaced by what it stands for, so
//! nothing further on knows that there was one. Positions go on pointing at the text where the body is written.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::fields::{Fields, text};
use crate::json_schema::JsonSchema;
use crate::report::Report;
use crate::source::Mark;
use crate::template::{self, Unit};
use crate::yaml::{self, Content, Entry, Yaml};
use crate::{Settings, datetime};

/// Files with providers that include one another, and transforms that stand for one another, end here.
const MAX_DEPTH: usize = 16;

/// The type of a transform that was not understood and that nothing more is said of.
pub(crate) const UNKNOWN: &str = "?";

/// The tree with every use of a YAML provider replaced, and the providers that are left, of whichever file.
pub(crate) fn expand(mut root: Yaml, taken: &[&str], settings: &Settings, report: &mut Report<'_>) -> Yaml {
    let Content::Mapping(entries) = &mut root.content else { return root };
    let mut templates = Templates { settings, found: Vec::new(), names: taken.iter().map(ToString::to_string).collect() };
    if let Some(providers) = entries.iter_mut().find(|entry| entry.key == "providers") {
        providers.value = templates.providers(std::mem::replace(&mut providers.value, nothing()), 0, report);
    }
    if !templates.found.is_empty()
        && let Some(pipeline) = entries.iter_mut().find(|entry| entry.key == "pipeline")
    {
        pipeline.value = templates.children(std::mem::replace(&mut pipeline.value, nothing()), 0, report);
    }
    root
}

fn nothing() -> Yaml {
    Yaml { mark: Mark::default(), content: Content::Null }
}

struct Templates<'a> {
    settings: &'a Settings,
    found: Vec<Template>,
    /// Types that there are already.
    names: HashSet<String>,
}

/// A transform type that stands for something else.
#[derive(Clone)]
struct Template {
    name: String,
    stands_for: StandsFor,
}

#[derive(Clone)]
enum StandsFor {
    /// Its definition is wrong, which has been told.
    Nothing,
    /// A pipeline with parameters.
    Body { schema: Box<JsonSchema>, body: Yaml, requires_inputs: bool },
    /// Another type, with other names for the keys of its config.
    Renamed { kind: String, keys: Vec<(String, String)>, defaults: Vec<Entry> },
}

impl Templates<'_> {
    /// Takes the YAML providers out of a list, and puts what is included in.
    fn providers(&mut self, list: Yaml, depth: usize, report: &mut Report<'_>) -> Yaml {
        let Content::List(providers) = list.content else { return list };
        let mut left = Vec::new();
        for provider in providers {
            let key = |key: &str| provider.entries().into_iter().flatten().find(|entry| entry.key == key);
            let kind = key("type").and_then(|entry| match &entry.value.content {
                Content::Text(kind) => Some(kind.as_str()),
                _ => None,
            });
            match (key("include"), kind) {
                (Some(include), _) => left.extend(self.include(&provider, include, depth, report)),
                (None, Some("yaml")) => self.yaml_provider(&provider, report),
                (None, Some("renaming")) => left.extend(self.renaming(&provider, report)),
                _ => left.push(provider),
            }
        }
        Yaml { mark: list.mark, content: Content::List(left) }
    }

    fn include(&mut self, provider: &Yaml, include: &Entry, depth: usize, report: &mut Report<'_>) -> Vec<Yaml> {
        if provider.entries().is_some_and(|entries| entries.len() > 1) {
            report.error(include.mark, "`include` stands alone in a provider");
        }
        let Some(name) = text(&include.value, "`include`", report) else { return Vec::new() };
        if depth >= MAX_DEPTH {
            report.error(include.value.mark, "files with providers include one another without an end");
            return Vec::new();
        }
        let folder = report.source().path(provider.mark);
        let path = folder.parent().map_or_else(|| name.into(), |folder| folder.join(name));
        let read = self.settings.files.read(&path);
        let found = read.map_err(|message| {
            let help = "a path starts at the folder of the file that includes it".to_string();
            report.error_with_help(include.value.mark, format!("cannot read {}: {message}", path.display()), Some(help));
        });
        let Ok(found) = found else { return Vec::new() };
        let unit = Unit::of_file(found.clone(), report.source().file(path, &found));
        let Some(number) = report.source().text(&found, unit.origin) else { return Vec::new() };
        match yaml::parse(&found, number, report) {
            Some(list) if matches!(list.content, Content::List(_)) => match self.providers(list, depth + 1, report).content {
                Content::List(providers) => providers,
                _ => Vec::new(),
            },
            Some(other) => {
                report.error(other.mark, format!("a file with providers is a list of them, not {}", other.kind()));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn add(&mut self, mark: Mark, template: Template, report: &mut Report<'_>) {
        if self.names.insert(template.name.clone()) {
            self.found.push(template);
        } else {
            report.error(mark, format!("there is already a transform type `{}`", template.name));
        }
    }

    fn yaml_provider(&mut self, provider: &Yaml, report: &mut Report<'_>) {
        let mut fields = Fields::of(Some(provider), provider.mark, "a provider", report);
        fields.get("type");
        fields.get("config");
        let transforms = fields.require("transforms", report);
        fields.finish(report);
        let Some(transforms) = transforms else { return };
        for entry in Fields::of(Some(&transforms.value), transforms.mark, "`transforms`", report).into_entries() {
            let stands_for = body(entry, report).unwrap_or(StandsFor::Nothing);
            self.add(entry.mark, Template { name: entry.key.clone(), stands_for }, report);
        }
    }

    /// The provider below it, with its transforms under their new names, if it is one that is left.
    fn renaming(&mut self, provider: &Yaml, report: &mut Report<'_>) -> Option<Yaml> {
        let mut fields = Fields::of(Some(provider), provider.mark, "a provider", report);
        fields.get("type");
        let (transforms, config) = (fields.require("transforms", report), fields.require("config", report));
        fields.finish(report);
        let (transforms, config) = (transforms?, config?);
        let mut fields = Fields::of(Some(&config.value), config.mark, "the provider's config", report);
        let mappings = fields.require("mappings", report);
        let underlying = fields.require("underlying_provider", report);
        let defaults = fields.get("defaults");
        fields.finish(report);
        let (mappings, underlying) = (mappings?, underlying?);
        let before = self.found.len();
        // What is below is hidden, and may have any names.
        let names = std::mem::take(&mut self.names);
        let below = self.providers(Yaml { mark: underlying.mark, content: Content::List(vec![underlying.value.clone()]) }, 0, report);
        let own: Vec<Template> = self.found.drain(before..).collect();
        self.names = names;
        let Content::List(below) = below.content else { return None };
        let mut moved = Vec::new();
        for entry in Fields::of(Some(&transforms.value), transforms.mark, "`transforms`", report).into_entries() {
            let Some(old) = text(&entry.value, "the name of a transform", report) else { continue };
            let keys = keys(&mappings.value, &entry.key, entry.mark, report);
            let given = defaults.and_then(|defaults| defaults.value.entries()?.iter().find(|own| own.key == entry.key));
            let defaults = given.and_then(|given| given.value.entries()).unwrap_or_default().to_vec();
            // What is below is known by a name that no file can write.
            let kind = format!("{}→{old}", entry.key);
            match own.iter().find(|template| template.name == old) {
                Some(template) => self.add(entry.mark, Template { name: kind.clone(), ..template.clone() }, report),
                None => moved.push((kind.clone(), old.to_string(), entry)),
            }
            self.add(entry.mark, Template { name: entry.key.clone(), stands_for: StandsFor::Renamed { kind, keys, defaults } }, report);
        }
        below.into_iter().next().map(|below| with_transforms(below, &moved))
    }

    /// The transforms inside of a pipeline, a composite or a chain.
    fn children(&self, mut yaml: Yaml, depth: usize, report: &mut Report<'_>) -> Yaml {
        let Content::Mapping(entries) = &mut yaml.content else { return yaml };
        for entry in entries {
            let value = &mut entry.value;
            match (entry.key.as_str(), &mut value.content) {
                ("source" | "sink", Content::Mapping(_)) => {
                    *value = self.transform(std::mem::replace(value, nothing()), &[], depth, report);
                }
                ("transforms" | "extra_transforms", Content::List(list)) => {
                    let kinds: Vec<String> = list.iter().filter(|one| value_of(one, "name").is_none()).filter_map(kind_of).collect();
                    let taken = std::mem::take(list);
                    *list = taken.into_iter().map(|one| self.transform(one, &kinds, depth, report)).collect();
                }
                _ => {}
            }
        }
        yaml
    }

    /// One transform; `kinds` are the types of those beside it that have no name.
    fn transform(&self, yaml: Yaml, kinds: &[String], depth: usize, report: &mut Report<'_>) -> Yaml {
        let Some(kind) = kind_of(&yaml) else { return yaml };
        let Some(template) = self.found.iter().find(|template| template.name == kind) else {
            return if matches!(kind.as_str(), "composite" | "chain") { self.children(yaml, depth, report) } else { yaml };
        };
        if depth >= MAX_DEPTH {
            report.error(yaml.mark, format!("`{kind}` stands for something that needs `{kind}`, without an end"));
            return yaml;
        }
        let label = match kinds.iter().filter(|other| **other == kind).count() {
            0 | 1 => kind.trim_end_matches(|c| c != '→').trim_end_matches('→').to_string(),
            _ => format!("{kind}@{}", report.place(yaml.mark).line),
        };
        let label = if label.is_empty() { kind } else { label };
        let made = match &template.stands_for {
            StandsFor::Nothing => None,
            StandsFor::Renamed { kind, keys, defaults } => Some(renamed(yaml.clone(), kind, keys, defaults, &label)),
            StandsFor::Body { schema, body, requires_inputs } => {
                let body = self.fill(&yaml, schema, body, report);
                body.and_then(|body| in_place_of(&yaml, body, &label, *requires_inputs, report))
            }
        };
        match made {
            Some(made) => self.transform(made, &[], depth + 1, report),
            None => unknown(yaml, label),
        }
    }

    /// The body with the parameters of one use.
    fn fill(&self, used: &Yaml, schema: &JsonSchema, body: &Yaml, report: &mut Report<'_>) -> Option<Yaml> {
        let config = value_of(used, "config");
        let given = match config.map(Yaml::to_json) {
            None | Some(Value::Null) => json!({}),
            Some(config) => config,
        };
        if let Some(fault) = schema.fault(&given) {
            let fault = fault.strip_prefix("the row ").map_or_else(|| fault.clone(), |rest| format!("the config {rest}"));
            report.error(config.map_or(used.mark, |config| config.mark), fault);
            return None;
        }
        let mut variables: template::Variables =
            given.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), template::of_json(value))).collect();
        variables.insert("datetime".to_string(), datetime::module(self.settings.now));
        let fill = |text: &str, mark: Mark, report: &mut Report<'_>| {
            let unit = Unit { text: text.to_string(), origin: report.source().origins_of_block(mark, text) };
            match template::render(report.source(), unit, &variables, self.settings) {
                Ok(filled) => Some(filled),
                Err(errors) => {
                    let help = "a parameter is a key of the config; one that may be absent needs `| default(…)`".to_string();
                    report.template_errors(errors, &help);
                    None
                }
            }
        };
        match &body.content {
            Content::Text(block) => {
                let filled = fill(block, body.mark, report)?;
                let number = report.source().text(&filled.text, filled.origin)?;
                yaml::parse(&filled.text, number, report)
            }
            _ => {
                let mut filled = body.clone();
                fill_strings(&mut filled, &mut |text, mark| Some(fill(text, mark, report)?.text))?;
                Some(filled)
            }
        }
    }
}

/// A transform of which nothing more is said, since its definition or its use is wrong; others may still read it.
fn unknown(mut yaml: Yaml, label: String) -> Yaml {
    let mark = yaml.mark;
    if let Content::Mapping(entries) = &mut yaml.content {
        entries.retain(|entry| matches!(entry.key.as_str(), "name" | "input"));
        set(entries, "type", Content::Text(UNKNOWN.to_string()), mark);
        if value_of_entries(entries, "name").is_none() {
            set(entries, "name", Content::Text(label), mark);
        }
    }
    yaml
}

/// What a transform of a `yaml` provider says of itself.
fn body(entry: &Entry, report: &mut Report<'_>) -> Option<StandsFor> {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, format!("`{}`", entry.key), report);
    fields.get("description");
    let requires_inputs = fields.boolean("requires_inputs", report).unwrap_or(true);
    let schema = fields.get("config_schema");
    let body = fields.require("body", report);
    fields.finish(report);
    let mut whole = Map::from_iter([("type".to_string(), json!("object")), ("additionalProperties".to_string(), json!(false))]);
    if let Some(Value::Object(own)) = schema.map(|schema| schema.value.to_json()) {
        whole.extend(own);
    }
    let schema = JsonSchema::read(&Value::Object(whole)).map_err(|fault| {
        let mark = schema.map(|schema| schema.value.mark_at(&fault.path).unwrap_or(schema.value.mark));
        report.error(mark.unwrap_or(entry.mark), format!("`config_schema`: {}", fault.message));
    });
    let body = body?;
    if !matches!(body.value.content, Content::Text(_) | Content::Mapping(_)) {
        report.error(body.value.mark, format!("`body` must be a transform, or a block of text with one, not {}", body.value.kind()));
        return None;
    }
    Some(StandsFor::Body { schema: Box::new(schema.ok()?), body: body.value.clone(), requires_inputs })
}

/// New names of config keys to old ones. A string names another transform that has the same.
fn keys(mappings: &Yaml, name: &str, mark: Mark, report: &mut Report<'_>) -> Vec<(String, String)> {
    let find = |name: &str| mappings.entries().into_iter().flatten().find(|entry| entry.key == name);
    let mut found = find(name);
    if let Some(Content::Text(same)) = found.map(|entry| &entry.value.content) {
        found = find(same);
    }
    match found.and_then(|entry| entry.value.entries()) {
        Some(entries) => entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), text(&entry.value, "the name of a key", report)?.to_string())))
            .collect(),
        None => {
            report.error(mark, format!("`mappings` says nothing of `{name}`"));
            Vec::new()
        }
    }
}

/// A provider with other transforms: (new name, old name, where).
fn with_transforms(mut provider: Yaml, moved: &[(String, String, &Entry)]) -> Yaml {
    let Content::Mapping(entries) = &mut provider.content else { return provider };
    let Some(transforms) = entries.iter_mut().find(|entry| entry.key == "transforms") else { return provider };
    let below = |old: &str| value_of_entries(transforms.value.entries().unwrap_or_default(), old).cloned();
    let moved = moved.iter().map(|(new, old, entry)| {
        let value = below(old).unwrap_or(Yaml { mark: entry.value.mark, content: Content::Text(old.clone()) });
        Entry { key: new.clone(), mark: entry.mark, value }
    });
    transforms.value.content = Content::Mapping(moved.collect());
    provider
}

fn renamed(mut yaml: Yaml, kind: &str, keys: &[(String, String)], defaults: &[Entry], label: &str) -> Yaml {
    let mark = yaml.mark;
    let Content::Mapping(entries) = &mut yaml.content else { return yaml };
    let mut config = match entries.iter_mut().find(|entry| entry.key == "config") {
        Some(config) => match std::mem::replace(&mut config.value.content, Content::Null) {
            Content::Mapping(config) => config,
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    for entry in &mut config {
        if let Some((_, old)) = keys.iter().find(|(new, _)| *new == entry.key) {
            entry.key = old.clone();
        }
    }
    for default in defaults.iter().filter(|default| value_of_entries(&config, &default.key).is_none()).cloned().collect::<Vec<_>>() {
        config.push(default);
    }
    set(entries, "config", Content::Mapping(config), mark);
    set(entries, "type", Content::Text(kind.to_string()), mark);
    if value_of_entries(entries, "name").is_none() {
        set(entries, "name", Content::Text(label.to_string()), mark);
    }
    yaml
}

/// The filled body with the name, the inputs and the windowing of the use.
fn in_place_of(used: &Yaml, body: Yaml, label: &str, requires_inputs: bool, report: &mut Report<'_>) -> Option<Yaml> {
    let Content::Mapping(mut entries) = body.content else {
        report.error(body.mark, format!("the body of `{label}` must be a transform, not {}", body.kind()));
        return None;
    };
    let inner = entries.iter().position(|entry| entry.key == "input").map(|input| entries.remove(input));
    if let Some(inner) = inner.filter(|inner| !hands_on(&inner.value)) {
        let help = "leave its `input` out, and read `input`, or the names that the user gives, inside".to_string();
        report.error_with_help(inner.mark, format!("the body of `{label}` must read the inputs as they come"), Some(help));
    }
    entries.retain(|entry| entry.key != "name");
    let used_entries = used.entries().unwrap_or_default();
    for key in ["name", "input", "windowing", "output_schema"] {
        if let Some(entry) = used_entries.iter().find(|entry| entry.key == key) {
            entries.retain(|own| own.key != key);
            entries.push(entry.clone());
        }
    }
    if value_of_entries(used_entries, "input").is_some() && !requires_inputs {
        report.error(used.mark, format!("`{label}` reads no input"));
    }
    let known = ["type", "name", "input", "windowing", "output_schema", "config", "resource_hints"];
    for other in used_entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        report.error(other.mark, format!("unknown key `{}` of a transform", other.key));
    }
    if value_of_entries(&entries, "name").is_none() {
        set(&mut entries, "name", Content::Text(label.to_string()), used.mark);
    }
    Some(Yaml { mark: used.mark, content: Content::Mapping(entries) })
}

/// Whether an inner `input` names the outer inputs by their own names, and so says nothing.
fn hands_on(input: &Yaml) -> bool {
    match &input.content {
        Content::Text(name) => name == "input",
        Content::Mapping(entries) => entries.iter().all(|entry| matches!(&entry.value.content, Content::Text(name) if *name == entry.key)),
        _ => false,
    }
}

fn fill_strings(yaml: &mut Yaml, fill: &mut impl FnMut(&str, Mark) -> Option<String>) -> Option<()> {
    match &mut yaml.content {
        Content::Text(text) if text.contains('{') => *text = fill(text, yaml.mark)?,
        Content::List(values) => values.iter_mut().try_for_each(|value| fill_strings(value, fill))?,
        Content::Mapping(entries) => {
            for entry in entries {
                if entry.key.contains('{') {
                    entry.key = fill(&entry.key, entry.mark)?;
                }
                fill_strings(&mut entry.value, fill)?;
            }
        }
        _ => {}
    }
    Some(())
}

fn kind_of(yaml: &Yaml) -> Option<String> {
    match &value_of(yaml, "type")?.content {
        Content::Text(kind) => Some(kind.clone()),
        _ => None,
    }
}

fn value_of<'y>(yaml: &'y Yaml, key: &str) -> Option<&'y Yaml> {
    value_of_entries(yaml.entries()?, key)
}

fn value_of_entries<'y>(entries: &'y [Entry], key: &str) -> Option<&'y Yaml> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn set(entries: &mut Vec<Entry>, key: &str, content: Content, mark: Mark) {
    match entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value.content = content,
        None => entries.push(Entry { key: key.to_string(), mark, value: Yaml { mark, content } }),
    }
}
