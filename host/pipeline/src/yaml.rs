//! YAML to a tree whose every value knows where it stands.
//!
//! Scalars are read as PyYAML reads them, since Beam does: `yes`, `no`, `on` and `off` are booleans, `0755` is octal, `1e5`
//! (no point) is a string. Four differences, because Beam's reading surprises or cannot be said in JSON: dates stay strings,
//! `12:30` stays a string (PyYAML: 750), `.nan` and `.inf` are refused, and keys are always the text as written. Duplicate
//! keys, which PyYAML lets win silently, are errors.
//!
//! Invariants: the tree is at most [`MAX_DEPTH`] deep and has at most [`MAX_NODES`] nodes, aliases counted where they are used.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use crate::number::number;
use crate::report::Report;
use crate::source::Mark;

/// Deeper files are refused, so that recursion is bounded.
pub(crate) const MAX_DEPTH: usize = 64;
/// Larger files are refused, so that aliases of aliases cannot fill the memory.
pub(crate) const MAX_NODES: usize = 500_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Yaml {
    pub mark: Mark,
    pub content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Yaml>),
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub mark: Mark,
    pub value: Yaml,
}

impl Yaml {
    /// As JSON, for those who check configs.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::String(value.clone()),
            Content::List(values) => Value::Array(values.iter().map(Yaml::to_json).collect()),
            Content::Mapping(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// In the words of a message.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "null",
            Content::Bool(_) => "a boolean",
            Content::Number(_) => "a number",
            Content::Text(_) => "a string",
            Content::List(_) => "a list",
            Content::Mapping(_) => "a mapping",
        }
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.content {
            Content::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// Whether it says nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// The place of the value at a path of keys and indices, or of the last part of the path that exists. The key is meant
    /// where a key is at fault.
    pub fn mark_at(&self, path: &[String]) -> Option<Mark> {
        let (first, rest) = path.split_first()?;
        match &self.content {
            Content::Mapping(entries) => {
                let entry = entries.iter().find(|entry| entry.key == *first)?;
                let own = if entry.value.entries().is_some() || entry.value.is_null() { entry.mark } else { entry.value.mark };
                Some(entry.value.mark_at(rest).unwrap_or(own))
            }
            Content::List(values) => {
                let value = values.get(first.parse::<usize>().ok()?)?;
                Some(value.mark_at(rest).unwrap_or(value.mark))
            }
            _ => None,
        }
    }

    /// Nodes and depth.
    fn measure(&self) -> (usize, usize) {
        fn below<'y>(children: impl Iterator<Item = &'y Yaml>) -> (usize, usize) {
            children.map(Yaml::measure).fold((1, 1), |(size, depth), child| (size + child.0, depth.max(child.1 + 1)))
        }
        match &self.content {
            Content::List(values) => below(values.iter()),
            Content::Mapping(entries) => below(entries.iter().map(|entry| &entry.value)),
            _ => (1, 1),
        }
    }

    fn place_all(&mut self, mark: Mark) {
        self.mark = mark;
        match &mut self.content {
            Content::List(values) => values.iter_mut().for_each(|value| value.place_all(mark)),
            Content::Mapping(entries) => entries.iter_mut().for_each(|entry| {
                entry.mark = mark;
                entry.value.place_all(mark);
            }),
            _ => {}
        }
    }
}

/// Reads the one document of a text, whose number is told for the marks. `None`: a finding says why.
pub(crate) fn parse(text: &str, number: usize, report: &mut Report<'_>) -> Option<Yaml> {
    let mut builder = Builder { parser: Parser::new_from_str(text), number, report, anchors: HashMap::new(), nodes: 0, fixed: None };
    builder.document()
}

/// Reads YAML that is written inside a string, such as `windowing: "{type: global}"`. Everything in it stands at `mark`.
pub(crate) fn parse_inside(text: &str, mark: Mark, report: &mut Report<'_>) -> Option<Yaml> {
    let mut builder =
        Builder { parser: Parser::new_from_str(text), number: mark.text, report, anchors: HashMap::new(), nodes: 0, fixed: Some(mark) };
    let mut yaml = builder.document()?;
    yaml.place_all(mark);
    Some(yaml)
}

/// An error has been reported; there is nothing more to read.
struct Stop;

struct Builder<'r, 's, 't> {
    parser: Parser<'t, StrInput<'t>>,
    /// Of the text.
    number: usize,
    report: &'r mut Report<'s>,
    anchors: HashMap<usize, Yaml>,
    nodes: usize,
    /// Where all findings go, for text that is not a file of its own.
    fixed: Option<Mark>,
}

impl<'t> Builder<'_, '_, 't> {
    fn document(&mut self) -> Option<Yaml> {
        self.try_document().unwrap_or(None)
    }

    fn try_document(&mut self) -> Result<Option<Yaml>, Stop> {
        let mut found = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if found.is_some() => {
                    return self.stop(span, "a second document: a pipeline file is one YAML document");
                }
                Event::DocumentStart(_) => {}
                event => found = Some(self.node(event, span, 1)?),
            }
        }
        Ok(Some(found.unwrap_or(Yaml { mark: Mark { text: self.number, line: 1, column: 1, length: 1 }, content: Content::Null })))
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let mark = self.mark(Span::empty(*error.marker()));
                let line = self.report.source().expanded_line(mark);
                let indentation = &line[..line.len() - line.trim_start().len()];
                if self.fixed.is_none() && indentation.contains('\t') {
                    let column = indentation.chars().take_while(|c| *c != '\t').count() + 1;
                    self.report.error_with_help(
                        Mark { column, length: 1, ..mark },
                        "a tab cannot indent YAML",
                        Some("use blanks".to_string()),
                    );
                } else {
                    self.report.error(mark, format!("not YAML: {}", error.info()));
                }
                Err(Stop)
            }
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
        }
    }

    fn mark(&self, span: Span) -> Mark {
        if let Some(mark) = self.fixed {
            return mark;
        }
        let (start, end) = (span.start, span.end);
        let length = if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
        Mark { text: self.number, line: start.line().max(1), column: start.col() + 1, length: length.max(1) }
    }

    fn stop<T>(&mut self, span: Span, message: &str) -> Result<T, Stop> {
        let mark = self.mark(span);
        self.report.error(mark, message);
        Err(Stop)
    }

    fn count(&mut self, nodes: usize, depth: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if depth > MAX_DEPTH {
            return self.stop(span, &format!("nested more than {MAX_DEPTH} deep"));
        }
        if self.nodes > MAX_NODES {
            return self.stop(span, &format!("more than {MAX_NODES} values, aliases counted where they are used"));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Yaml, Stop> {
        self.count(1, depth, span)?;
        let mark = self.mark(span);
        let (content, anchor) = match event {
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id).cloned() else {
                    return self.stop(span, "an alias inside the value that it stands for");
                };
                let (size, below) = target.measure();
                self.count(size, depth + below, span)?;
                return Ok(Yaml { mark, content: target.content });
            }
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref(), mark), anchor),
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", mark);
                (Content::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", mark);
                (Content::Mapping(self.mapping(depth)?), anchor)
            }
            _ => return self.stop(span, "not YAML: a value is missing here"),
        };
        let yaml = Yaml { mark, content };
        if anchor > 0 {
            self.anchors.insert(anchor, yaml.clone());
        }
        Ok(yaml)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Yaml>, Stop> {
        let mut values = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(values);
            }
            values.push(self.node(event, span, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<Entry>, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Yaml> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = match &event {
                Event::Scalar(text, ..) => Some(text.to_string()),
                _ => None,
            };
            let place = self.node(event, span, depth + 1)?;
            let key = match (key, &place.content) {
                (Some(key), _) => key,
                (None, Content::Text(key)) => key.clone(),
                (None, _) => return self.stop(span, &format!("a key must be a string, not {}", place.kind())),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if merge {
                merged.push(value);
            } else if let Some(first) = index.get(&key) {
                let line = self.report.place(entries[*first].mark).line;
                let help = format!("it is given first in line {line}");
                self.report.error_with_help(place.mark, format!("the key `{key}` is given twice"), Some(help));
            } else {
                index.insert(key.clone(), entries.len());
                entries.push(Entry { key, mark: place.mark, value });
            }
        }
        for value in merged {
            self.merge(value, &mut entries);
        }
        Ok(entries)
    }

    /// `<<: *base`: the keys of another mapping, unless given here.
    fn merge(&mut self, value: Yaml, entries: &mut Vec<Entry>) {
        match value.content {
            Content::Mapping(others) => {
                for other in others {
                    if !entries.iter().any(|entry| entry.key == other.key) {
                        entries.push(other);
                    }
                }
            }
            Content::List(values) => values.into_iter().for_each(|value| self.merge(value, entries)),
            _ => self.report.error(value.mark, format!("`<<` takes a mapping, not {}", value.kind())),
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, allowed: &str, mark: Mark) {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == allowed)) {
            self.report.error(mark, format!("unknown tag `{tag}`"));
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, mark: Mark) -> Content {
        let plain = style == ScalarStyle::Plain;
        match tag {
            None if plain => self.plain(text, mark),
            None => Content::Text(text.to_string()),
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Content::Text(text.to_string()),
            Some(tag) if tag.is_yaml_core_schema() && ["int", "float", "bool", "null"].contains(&tag.suffix.as_str()) => {
                self.plain(text, mark)
            }
            Some(tag) => {
                self.report.error(mark, format!("unknown tag `{tag}`"));
                Content::Text(text.to_string())
            }
        }
    }

    fn plain(&mut self, text: &str, mark: Mark) -> Content {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Content::Null,
            "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Content::Bool(true),
            "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Content::Bool(false),
            _ => match number(text) {
                None => Content::Text(text.to_string()),
                Some(Some(number)) => Content::Number(number),
                Some(None) => {
                    self.report.error_with_help(
                        mark,
                        format!("`{text}` is outside the range of numbers"),
                        Some("quote it, if it is meant as a string".to_string()),
                    );
                    Content::Text(text.to_string())
                }
            },
        }
    }
}
