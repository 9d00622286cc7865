//! The texts of a pipeline on their way to YAML: the file itself, and what it includes. Variables are filled in before anything
//! is parsed, so a text that is parsed is not the one that was written; here positions find their way back.
//!
//! A [`Mark`] is a place in a parsed text, a [`Place`] one in a written file. Each parsed text knows for each of its lines the
//! file and the line that it came from (`template` finds that out); columns are found by comparing both lines.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::Settings;
use crate::diagnostic::{Diagnostic, Severity};
use crate::graph::Place;
use crate::template::{self, Filled, TemplateError, Unit};

/// More texts than this are a template that expands into itself.
pub(crate) const MAX_TEXTS: usize = 10_000;

/// A piece of a parsed text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Which text; 0 is the pipeline itself.
    pub text: usize,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters; at least 1.
    pub length: usize,
}

/// A line of a written file, both from 0.
pub(crate) type Origin = (usize, usize);

/// All files and texts of one pipeline.
#[derive(Debug, Default)]
pub(crate) struct Source {
    known: RefCell<Known>,
}

#[derive(Debug, Default)]
struct Known {
    files: Vec<Written>,
    texts: Vec<Parsed>,
}

#[derive(Debug)]
struct Written {
    path: PathBuf,
    lines: Vec<String>,
}

#[derive(Debug)]
struct Parsed {
    lines: Vec<String>,
    /// One a line.
    origin: Vec<Origin>,
}

impl Source {
    /// Reads the pipeline's own text and fills in its variables; gives the text to parse, which is number 0, and what is odd.
    pub fn expand(settings: &Settings) -> Result<(Source, String, Vec<Diagnostic>), Vec<Diagnostic>> {
        let text = settings.text.strip_prefix('\u{feff}').unwrap_or(&settings.text);
        let source = Source::default();
        let file = source.file(settings.file.clone(), text);
        let unit = Unit::of_file(template::without_leading_comments(text), file);
        match template::render(&source, unit, &template::variables(settings), settings) {
            Ok(Filled { text, origin, named }) => {
                source.text(&text, origin);
                Ok((source, text, template::unread(settings, &named)))
            }
            Err(errors) => Err(errors.into_iter().map(|error| source.template_error(error)).collect()),
        }
    }

    /// Of a file that is parsed as it is.
    pub fn of_text(path: PathBuf, text: &str) -> Source {
        let source = Source::default();
        let file = source.file(path, text);
        source.text(text, (0..lines(text).len().max(1)).map(|line| (file, line)).collect());
        source
    }

    /// A file that was read.
    pub fn file(&self, path: PathBuf, text: &str) -> usize {
        let mut known = self.known.borrow_mut();
        if let Some(number) = known.files.iter().position(|file| file.path == path) {
            return number;
        }
        known.files.push(Written { path, lines: lines(text) });
        known.files.len() - 1
    }

    /// A text that will be parsed. `None`: there are too many.
    pub fn text(&self, text: &str, origin: Vec<Origin>) -> Option<usize> {
        let mut known = self.known.borrow_mut();
        known.texts.push(Parsed { lines: lines(text), origin });
        (known.texts.len() <= MAX_TEXTS).then(|| known.texts.len() - 1)
    }

    /// The files in the order of their numbers.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.known.borrow().files.iter().map(|file| file.path.clone()).collect()
    }

    /// The file in which a mark lies.
    pub fn path(&self, mark: Mark) -> PathBuf {
        let file = self.place(mark).file;
        self.known.borrow().files.get(file).map(|file| file.path.clone()).unwrap_or_default()
    }

    /// Where the lines of a block of text stand that is a value at `mark`, as far as they stand there as they are.
    pub fn origins_of_block(&self, mark: Mark, block: &str) -> Vec<Origin> {
        let known = self.known.borrow();
        let Some(parsed) = known.texts.get(mark.text) else { return Vec::new() };
        let at = |line: usize| parsed.origin.get(line).copied().unwrap_or_default();
        let here = mark.line.saturating_sub(1);
        let first = block.lines().enumerate().find(|(_, line)| !line.trim().is_empty());
        // The block begins at its mark or in the lines below; blank lines in front of it count.
        let start = first.and_then(|(blank, first)| {
            let found = (here..parsed.lines.len()).find(|line| parsed.lines[*line].trim() == first.trim());
            found.and_then(|line| line.checked_sub(blank))
        });
        let line = |(number, text): (usize, &str)| match start.map(|start| start + number) {
            Some(line) if parsed.lines.get(line).is_some_and(|own| own.trim() == text.trim()) => at(line),
            _ => at(here),
        };
        block.lines().enumerate().map(line).collect()
    }

    /// Where a piece of a parsed text stands in its file.
    pub fn place(&self, mark: Mark) -> Place {
        let known = self.known.borrow();
        let found = known.texts.get(mark.text).and_then(|parsed| {
            let line = mark.line.saturating_sub(1);
            Some((*parsed.origin.get(line)?, parsed.lines.get(line)?))
        });
        let Some(((file, line), expanded)) = found else {
            // What is missing is missing at the end.
            let last = known.texts.get(mark.text).and_then(|parsed| parsed.origin.last()).map_or(0, |(file, _)| *file);
            let lines = known.files.get(last).map(|file| file.lines.as_slice()).unwrap_or_default();
            let column = lines.last().map_or(0, |line| line.chars().count()) + 1;
            return Place { file: last, line: lines.len().max(1), column };
        };
        let written = known.files.get(file).and_then(|file| file.lines.get(line)).map_or("", String::as_str);
        Place { file, line: line + 1, column: column_before_expansion(written, expanded, mark.column) }
    }

    /// A finding at a piece of a parsed text.
    pub fn diagnostic(&self, severity: Severity, mark: Mark, message: String, help: Option<String>) -> Diagnostic {
        let place = self.place(mark);
        let (file, source_line) = self.line(place.file, place.line);
        let rest = source_line.chars().count().saturating_sub(place.column - 1);
        let length = mark.length.clamp(1, rest.max(1));
        Diagnostic { severity, message, help, file, line: place.line, column: place.column, source_line, length }
    }

    /// The parsed line in which a mark lies.
    pub fn expanded_line(&self, mark: Mark) -> String {
        let known = self.known.borrow();
        let parsed = known.texts.get(mark.text);
        parsed.and_then(|parsed| parsed.lines.get(mark.line.saturating_sub(1))).cloned().unwrap_or_default()
    }

    /// A mistake of a template.
    pub fn template_error(&self, error: TemplateError) -> Diagnostic {
        let TemplateError { at: (file, line), piece, message, help } = error;
        let (file, source_line) = self.line(file, line + 1);
        let (found, length) = match source_line.find(&piece) {
            Some(at) => (source_line[..at].chars().count(), piece.chars().count()),
            None => (source_line.chars().take_while(|c| c.is_whitespace()).count(), 1),
        };
        let (line, column, length) = (line + 1, found + 1, length.max(1));
        Diagnostic { severity: Severity::Error, message, help, file, line, column, source_line, length }
    }

    /// Path of a file and a line of it, counted from 1.
    fn line(&self, file: usize, line: usize) -> (PathBuf, String) {
        let known = self.known.borrow();
        let file = known.files.get(file);
        let path = file.map_or_else(|| Path::new("").to_path_buf(), |file| file.path.clone());
        (path, file.and_then(|file| file.lines.get(line.saturating_sub(1))).cloned().unwrap_or_default())
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_string).collect()
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
