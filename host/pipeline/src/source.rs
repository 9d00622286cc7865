//! The text of a pipeline file on its way to YAML: variables are filled in first, and positions find their way back.
//!
//! A template may add and remove lines. So that a message still shows the line that the user wrote, the template is rendered
//! twice: once plainly, which is the text that counts, and once with a mark at the start of each line. If both agree once the
//! marks are gone, they say which line each line of the result came from; if not (a template that computes with its own
//! text), positions refer to the result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use crate::Settings;
use crate::diagnostic::{Diagnostic, Severity};
use crate::graph::Place;

/// How many undefined variables are looked for in one go: each costs a rendering.
const MAX_UNDEFINED: usize = 32;

/// A piece of the expanded text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters; at least 1.
    pub length: usize,
}

/// The file and what became of it.
#[derive(Debug)]
pub(crate) struct Source {
    file: PathBuf,
    written: Vec<String>,
    pub expanded: String,
    expanded_lines: Vec<String>,
    /// For each line of `expanded_lines` the index of a line of `written`.
    origin: Vec<usize>,
}

impl Source {
    /// Fills in the variables. Undefined ones and mistakes of the template are findings.
    pub fn expand(settings: &Settings) -> Result<Source, Vec<Diagnostic>> {
        let text = settings.text.strip_prefix('\u{feff}').unwrap_or(&settings.text);
        let mut source = Source {
            file: settings.file.clone(),
            written: lines(text),
            expanded: String::new(),
            expanded_lines: Vec::new(),
            origin: Vec::new(),
        };
        let variables: BTreeMap<&str, &str> = settings.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        match render_all(text, &variables) {
            Ok(expanded) => {
                source.expanded_lines = lines(&expanded);
                source.origin = origins(text, &variables, &expanded, source.written.len());
                source.expanded = expanded;
                Ok(source)
            }
            Err(errors) => Err(errors.into_iter().map(|error| source.template_error(error)).collect()),
        }
    }

    /// Where a piece of the expanded text stands in the file.
    pub fn place(&self, mark: Mark) -> Place {
        let Some(&origin) = self.origin.get(mark.line.saturating_sub(1)) else {
            // What is missing is missing at the end.
            let last = self.written.last().map_or(0, |line| line.chars().count());
            return Place { line: self.written.len().max(1), column: last + 1 };
        };
        let (expanded, written) = (&self.expanded_lines[mark.line - 1], &self.written[origin]);
        Place { line: origin + 1, column: column_before_expansion(written, expanded, mark.column) }
    }

    /// A finding at a piece of the expanded text.
    pub fn diagnostic(&self, severity: Severity, mark: Mark, message: String, help: Option<String>) -> Diagnostic {
        let place = self.place(mark);
        let source_line = self.written.get(place.line - 1).cloned().unwrap_or_default();
        let rest = source_line.chars().count().saturating_sub(place.column - 1);
        let length = mark.length.clamp(1, rest.max(1));
        Diagnostic { severity, message, help, file: self.file.clone(), line: place.line, column: place.column, source_line, length }
    }

    /// The expanded line in which a mark lies.
    pub fn expanded_line(&self, line: usize) -> &str {
        self.expanded_lines.get(line.saturating_sub(1)).map_or("", String::as_str)
    }

    fn template_error(&self, error: TemplateError) -> Diagnostic {
        let line = error.line.clamp(1, self.written.len().max(1));
        let source_line = self.written.get(line - 1).cloned().unwrap_or_default();
        let (found, length) = match source_line.find(&error.piece) {
            Some(at) => (source_line[..at].chars().count(), error.piece.chars().count()),
            None => (source_line.chars().take_while(|c| c.is_whitespace()).count(), 1),
        };
        Diagnostic {
            severity: Severity::Error,
            message: error.message,
            help: error.help,
            file: self.file.clone(),
            line,
            column: found + 1,
            source_line,
            length: length.max(1),
        }
    }
}

struct TemplateError {
    line: usize,
    /// The piece of the line that is meant; may be empty.
    piece: String,
    message: String,
    help: Option<String>,
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_string).collect()
}

fn render(text: &str, variables: &BTreeMap<&str, &str>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_debug(true);
    let context = variables.iter().map(|(name, value)| (name.to_string(), minijinja::Value::from(*value)));
    environment.render_str(text, minijinja::Value::from_pairs(context))
}

/// The rendered text, or every undefined variable: each is given an empty value in turn until no more are found.
fn render_all(text: &str, variables: &BTreeMap<&str, &str>) -> Result<String, Vec<TemplateError>> {
    let mut names: Vec<String> = Vec::new();
    let mut errors = Vec::new();
    loop {
        let mut known = variables.clone();
        known.extend(names.iter().map(|name| (name.as_str(), "")));
        let error = match render(text, &known) {
            Ok(expanded) if errors.is_empty() => return Ok(expanded),
            Ok(_) => return Err(errors),
            Err(error) => error,
        };
        let undefined = undefined_name(text, &error).filter(|name| !known.contains_key(name.as_str()));
        match undefined {
            Some(name) => {
                errors.push(undefined_error(&error, &name));
                names.push(name);
            }
            // What goes wrong with an empty value in place of a missing one says nothing about the file.
            None if errors.is_empty() => errors.push(other_error(text, &error)),
            None => return Err(errors),
        }
        if names.is_empty() || names.len() >= MAX_UNDEFINED {
            return Err(errors);
        }
    }
}

fn undefined_name(text: &str, error: &minijinja::Error) -> Option<String> {
    if error.kind() != ErrorKind::UndefinedError {
        return None;
    }
    let piece = text.get(error.range()?)?.trim_start_matches(|c: char| !(c.is_alphabetic() || c == '_'));
    let name: String = piece.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some(name).filter(|name| !name.is_empty())
}

fn undefined_error(error: &minijinja::Error, name: &str) -> TemplateError {
    TemplateError {
        line: error.line().unwrap_or(1),
        piece: name.to_string(),
        message: format!("the variable `{name}` is not defined"),
        help: Some(format!("set it with `--set {name}=value`, or give a default: `{{{{ {name} | default('value') }}}}`")),
    }
}

fn other_error(text: &str, error: &minijinja::Error) -> TemplateError {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let help = match error.kind() {
        ErrorKind::TemplateNotFound => Some("`include`, `import` and `extends` are not available".to_string()),
        _ => Some("pipeline files are Jinja templates first; write `{% raw %}…{% endraw %}` around text with braces of its own".into()),
    };
    let piece = error.range().and_then(|range| text.get(range)).unwrap_or_default().to_string();
    TemplateError { line: error.line().unwrap_or(1), piece, message: format!("template: {detail}"), help }
}

const START: char = '\u{f8f0}';
const END: char = '\u{f8f1}';

fn origins(text: &str, variables: &BTreeMap<&str, &str>, expanded: &str, written: usize) -> Vec<usize> {
    let same = |count: usize| (0..count).map(|line| line.min(written.saturating_sub(1))).collect();
    let count = expanded.lines().count();
    if !text.contains("{%") && !text.contains("{#") && count == written {
        return same(count);
    }
    let marked = match render(&mark_lines(text), variables) {
        Ok(marked) if !text.contains(START) => marked,
        _ => return same(count),
    };
    let mut origin = 0;
    let mut origins = Vec::with_capacity(count);
    let mut plain = String::with_capacity(expanded.len());
    for line in marked.split_inclusive('\n') {
        let mut first = None;
        for (index, part) in line.split(START).enumerate() {
            let rest = match part.split_once(END) {
                Some((number, rest)) if index > 0 => {
                    first = first.or(number.parse().ok());
                    rest
                }
                _ => part,
            };
            plain.push_str(rest);
        }
        origin = first.unwrap_or(origin).min(written.saturating_sub(1));
        origins.push(origin);
    }
    if plain == expanded { origins } else { same(count) }
}

/// Puts the number of each line in front of its first character that is not blank, outside of tags. Behind the indentation and
/// not in front of tags that trim, so that `-` in tags trims the same.
fn mark_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut closer: Option<&str> = None;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim_start();
        let trims = ["{%-", "{{-", "{#-"].iter().any(|tag| content.starts_with(tag));
        if closer.is_none() && !content.is_empty() && !trims {
            out.push_str(&line[..line.len() - content.len()]);
            out.push_str(&format!("{START}{number}{END}"));
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

/// Outside of what was filled in, columns shift with the length of the value; inside, the tag's start is meant.
fn column_before_expansion(written: &str, expanded: &str, column: usize) -> usize {
    if written == expanded {
        return column;
    }
    let (written, expanded): (Vec<char>, Vec<char>) = (written.chars().collect(), expanded.chars().collect());
    let prefix = written.iter().zip(&expanded).take_while(|(a, b)| a == b).count();
    let suffix = written.iter().rev().zip(expanded.iter().rev()).take_while(|(a, b)| a == b).count();
    let suffix = suffix.min(written.len() - prefix).min(expanded.len() - prefix);
    if column <= prefix {
        column
    } else if column > expanded.len() - suffix {
        (column + written.len()).saturating_sub(expanded.len())
    } else {
        prefix + 1
    }
}
