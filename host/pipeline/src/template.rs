//! Jinja: variables, control flow, and `include`, `import` and `extends` of files beside the pipeline.
//!
//! A template may add and remove lines. So that a message still shows the line that the user wrote, the template is rendered
//! twice: once plainly, which is the text that counts, and once with a mark at the start of each line. If both agree once the
//! marks are gone, they say which line of which file each line of the result came from; if not (a template that computes with its
//! own text), lines are counted as if there were no tags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};

use crate::Settings;
use crate::datetime;
use crate::diagnostic::{Diagnostic, Severity};
use crate::report::suggestion;
use crate::source::{Origin, Source};

/// How many undefined variables are looked for in one go: each costs a rendering.
const MAX_UNDEFINED: usize = 32;

/// What is filled in.
pub(crate) type Variables = BTreeMap<String, Value>;

/// A text that is a template, and where its lines stand.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub text: String,
    pub origin: Vec<Origin>,
}

impl Unit {
    /// A file as a whole.
    pub fn of_file(text: String, file: usize) -> Unit {
        let origin = (0..text.lines().count()).map(|line| (file, line)).collect();
        Unit { text, origin }
    }

    fn at(&self, line: usize) -> Origin {
        self.origin.get(line).or(self.origin.last()).copied().unwrap_or_default()
    }
}

/// A mistake of a template.
pub(crate) struct TemplateError {
    pub at: Origin,
    /// The piece of the line that is meant; may be empty.
    pub piece: String,
    pub message: String,
    pub help: Option<String>,
}

/// The variables that the user has set, and Beam's `datetime`.
pub(crate) fn variables(settings: &Settings) -> Variables {
    let set = settings.variables.iter().map(|(name, value)| (name.clone(), of_json(value)));
    std::iter::once(("datetime".to_string(), datetime::module(settings.now))).chain(set).collect()
}

/// A JSON value as Jinja sees it.
pub(crate) fn of_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(of_json).collect::<Vec<_>>()),
        Json::Object(entries) => Value::from_pairs(entries.iter().map(|(key, value)| (key.clone(), of_json(value)))),
    }
}

/// As in Beam comments at the head of a file are no template: a licence may say what it likes. Lines stay lines.
pub(crate) fn without_leading_comments(text: &str) -> String {
    let mut head = true;
    let blank = |line: &str| if line.ends_with('\n') { "#\n".to_string() } else { "#".to_string() };
    let keep = |line: &str| {
        head &= line.starts_with('#') && !line.starts_with("#}");
        if head && (line.contains("{{") || line.contains("{%") || line.contains("{#")) { blank(line) } else { line.to_string() }
    };
    text.split_inclusive('\n').map(keep).collect()
}

/// A template with its variables filled in.
pub(crate) struct Filled {
    pub text: String,
    /// Where each line came from.
    pub origin: Vec<Origin>,
    /// The variables that it names, in branches that were not taken, too.
    pub named: BTreeSet<String>,
}

/// Fills in the variables; or gives every undefined one: each is given an empty value in turn until no more are found.
pub(crate) fn render(source: &Source, unit: Unit, variables: &Variables, settings: &Settings) -> Result<Filled, Vec<TemplateError>> {
    let units = Units::new(unit, settings);
    let mut names: Vec<String> = Vec::new();
    let mut errors = Vec::new();
    loop {
        let mut known = variables.clone();
        known.extend(names.iter().map(|name| (name.clone(), Value::from(""))));
        let error = match units.render(&known, false) {
            Ok(expanded) if errors.is_empty() => {
                let origin = units.origins(source, &known, &expanded);
                return Ok(Filled { text: expanded, origin, named: units.named_variables() });
            }
            Ok(_) => return Err(errors),
            Err(error) => error,
        };
        let unit = units.named(source, error.name());
        let undefined = undefined_name(&unit.text, &error).filter(|name| !known.contains_key(name.as_str()));
        match undefined {
            Some(name) => {
                errors.push(undefined_error(&unit, &error, &name));
                names.push(name);
            }
            // What goes wrong with an empty value in place of a missing one says nothing about the file.
            None if errors.is_empty() => errors.push(other_error(&unit, &error)),
            None => return Err(errors),
        }
        if names.is_empty() || names.len() >= MAX_UNDEFINED {
            return Err(errors);
        }
    }
}

/// A slip in the name of a variable that somebody has set, where the file has a default for the right one.
pub(crate) fn unread(settings: &Settings, named: &BTreeSet<String>) -> Vec<Diagnostic> {
    let unread = settings.variables.iter().map(|(name, _)| name).filter(|name| !named.contains(*name)).collect::<BTreeSet<_>>();
    let finding = |name: &String| Diagnostic {
        severity: Severity::Warning,
        message: format!("the variable `{name}` is set, and nothing in the file reads it"),
        help: suggestion(name, named.iter().map(String::as_str)),
        file: settings.file.clone(),
        line: 1,
        column: 1,
        source_line: String::new(),
        length: 1,
    };
    unread.into_iter().map(finding).collect()
}

/// The template and all that it includes, which is known once it has been rendered.
struct Units {
    first: Unit,
    settings: Settings,
    /// Name and text of what was included; `first` is number 0, these go on from 1.
    included: Arc<Mutex<Vec<(String, String)>>>,
}

impl Units {
    fn new(first: Unit, settings: &Settings) -> Units {
        Units { first, settings: settings.clone(), included: Arc::default() }
    }

    /// Of all that has been rendered.
    fn named_variables(&self) -> BTreeSet<String> {
        let included = self.included.lock().expect("no holder of this lock panics");
        let environment = Environment::new();
        let texts = std::iter::once(&self.first.text).chain(included.iter().map(|(_, text)| text));
        let templates = texts.filter_map(|text| environment.template_from_str(text).ok());
        templates.flat_map(|template| template.undeclared_variables(false)).collect()
    }

    fn render(&self, variables: &Variables, marked: bool) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_debug(true);
        let (settings, included) = (self.settings.clone(), self.included.clone());
        environment.set_loader(move |name| {
            let mut included = included.lock().expect("no holder of this lock panics");
            let number = match included.iter().position(|(known, _)| known == name) {
                Some(number) => number,
                None => {
                    let path = settings.beside(name);
                    let text = settings.files.read(&path).map_err(|message| {
                        minijinja::Error::new(ErrorKind::TemplateNotFound, format!("cannot read {}: {message}", path.display()))
                    })?;
                    included.push((name.to_string(), text));
                    included.len() - 1
                }
            };
            let text = &included[number].1;
            Ok(Some(if marked { mark_lines(text, number + 1) } else { text.clone() }))
        });
        let text = if marked { mark_lines(&self.first.text, 0) } else { self.first.text.clone() };
        environment.render_str(&text, Value::from_pairs(variables.iter().map(|(name, value)| (name.clone(), value.clone()))))
    }

    fn included(&self, source: &Source, number: usize) -> Unit {
        let included = self.included.lock().expect("no holder of this lock panics");
        match included.get(number) {
            Some((name, text)) => Unit::of_file(text.clone(), source.file(self.settings.beside(name), text)),
            None => self.first.clone(),
        }
    }

    /// The template that an error is in.
    fn named(&self, source: &Source, name: Option<&str>) -> Unit {
        let number = {
            let included = self.included.lock().expect("no holder of this lock panics");
            included.iter().position(|(known, _)| Some(known.as_str()) == name)
        };
        number.map_or_else(|| self.first.clone(), |number| self.included(source, number))
    }

    fn origins(&self, source: &Source, variables: &Variables, expanded: &str) -> Vec<Origin> {
        let count = expanded.lines().count();
        let same = || (0..count).map(|line| self.first.at(line)).collect();
        let text = &self.first.text;
        if !text.contains("{%") && !text.contains("{#") && count == text.lines().count() {
            return same();
        }
        let marked = match self.render(variables, true) {
            Ok(marked) if !expanded.contains(START) => marked,
            _ => return same(),
        };
        let mut units = vec![self.first.clone()];
        let included = self.included.lock().expect("no holder of this lock panics").len();
        units.extend((0..included).map(|number| self.included(source, number)));
        let mut origin = self.first.at(0);
        let mut origins = Vec::with_capacity(count);
        let mut plain = String::with_capacity(expanded.len());
        for line in marked.split_inclusive('\n') {
            // The last mark in front of the line's text: what includes stands in front of what is included.
            let (mut first, mut blank) = (None, true);
            for (index, part) in line.split(START).enumerate() {
                let rest = match part.split_once(END) {
                    Some((number, rest)) if index > 0 => {
                        first = if blank { marked_origin(number, &units).or(first) } else { first };
                        rest
                    }
                    _ => part,
                };
                blank &= rest.trim().is_empty();
                plain.push_str(rest);
            }
            origin = first.unwrap_or(origin);
            origins.push(origin);
        }
        if plain == expanded { origins } else { same() }
    }
}

fn marked_origin(mark: &str, units: &[Unit]) -> Option<Origin> {
    let (unit, line) = mark.split_once(':')?;
    Some(units.get(unit.parse::<usize>().ok()?)?.at(line.parse().ok()?))
}

fn undefined_name(text: &str, error: &minijinja::Error) -> Option<String> {
    if error.kind() != ErrorKind::UndefinedError {
        return None;
    }
    let piece = text.get(error.range()?)?.trim_start_matches(|c: char| !(c.is_alphabetic() || c == '_'));
    let name: String = piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some(name).filter(|name| !name.is_empty())
}

fn undefined_error(unit: &Unit, error: &minijinja::Error, name: &str) -> TemplateError {
    TemplateError {
        at: unit.at(error.line().unwrap_or(1).saturating_sub(1)),
        piece: name.to_string(),
        message: format!("the variable `{name}` is not defined"),
        help: Some(format!("set it with `--set {name}=value`, or give a default: `{{{{ {name} | default('value') }}}}`")),
    }
}

fn other_error(unit: &Unit, error: &minijinja::Error) -> TemplateError {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let help = match error.kind() {
        ErrorKind::TemplateNotFound => Some("paths of `include`, `import` and `extends` start at the pipeline's folder".to_string()),
        _ => Some("pipeline files are Jinja templates first; write `{% raw %}…{% endraw %}` around text with braces of its own".into()),
    };
    let piece = error.range().and_then(|range| unit.text.get(range)).unwrap_or_default().to_string();
    TemplateError { at: unit.at(error.line().unwrap_or(1).saturating_sub(1)), piece, message: format!("template: {detail}"), help }
}

const START: char = '\u{f8f0}';
const END: char = '\u{f8f1}';

/// Puts the number of each line in front of its first character that is not blank, outside of tags. Behind the indentation and
/// not in front of tags that trim, so that `-` in tags trims the same.
fn mark_lines(text: &str, unit: usize) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut closer: Option<&str> = None;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim_start();
        let trims = ["{%-", "{{-", "{#-"].iter().any(|tag| content.starts_with(tag));
        if closer.is_none() && !content.is_empty() && !trims {
            out.push_str(&line[..line.len() - content.len()]);
            out.push_str(&format!("{START}{unit}:{number}{END}"));
            out.push_str(content);
        } else {
            out.push_str(line);
        }
        closer = open_tag(line, closer);
    }
    out
}

/// The closing sequence of the tag that is open at the end of a line.
fn open_tag(line: &str, mut closer: Option<&'static str>) -> Option<&'static str> {
    let mut rest = line;
    loop {
        match closer {
            Some(end) => {
                let Some(at) = rest.find(end) else { return closer };
                rest = &rest[at + 2..];
                closer = None;
            }
            None => {
                let tags = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];
                let first = tags.iter().filter_map(|(open, close)| rest.find(open).map(|at| (at, *close))).min();
                let (at, close) = first?;
                rest = &rest[at + 2..];
                closer = Some(close);
            }
        }
    }
}
