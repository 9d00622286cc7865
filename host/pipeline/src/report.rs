//! Where findings are gathered, so that all mistakes of a file are told in one go.

use crate::diagnostic::{Diagnostic, Severity};
use crate::graph::Place;
use crate::source::{Mark, Source};
use crate::template::TemplateError;

/// The findings of one file.
pub(crate) struct Report<'s> {
    source: &'s Source,
    findings: Vec<Diagnostic>,
}

impl<'s> Report<'s> {
    pub fn new(source: &'s Source) -> Report<'s> {
        Report { source, findings: Vec::new() }
    }

    /// A mistake.
    pub fn error(&mut self, mark: Mark, message: impl Into<String>) {
        self.findings.push(self.source.diagnostic(Severity::Error, mark, message.into(), None));
    }

    /// A mistake and what to do about it.
    pub fn error_with_help(&mut self, mark: Mark, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.findings.push(self.source.diagnostic(Severity::Error, mark, message.into(), help.into()));
    }

    /// A mistake that has been told turns out to follow from another.
    pub fn take_back(&mut self, mark: Mark, message: &str) {
        let place = self.place(mark);
        self.findings.retain(|finding| finding.message != message || (finding.line, finding.column) != (place.line, place.column));
    }

    /// Something odd.
    pub fn warning(&mut self, mark: Mark, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.findings.push(self.source.diagnostic(Severity::Warning, mark, message.into(), help.into()));
    }

    /// Mistakes of a template that is filled in while the pipeline is read.
    pub fn template_errors(&mut self, errors: Vec<TemplateError>, help: &str) {
        for error in errors {
            let finding = self.source.template_error(error);
            self.findings.push(Diagnostic { help: Some(help.to_string()), ..finding });
        }
    }

    /// Position in the file as written.
    pub fn place(&self, mark: Mark) -> Place {
        self.source.place(mark)
    }

    /// The texts that are parsed.
    pub fn source(&self) -> &'s Source {
        self.source
    }

    /// Whether there is a mistake at this place already; what follows from it is not told.
    pub fn is_wrong_at(&self, mark: Mark) -> bool {
        let place = self.place(mark);
        let path = self.source.path(mark);
        let here = |finding: &&Diagnostic| (finding.line, finding.column) == (place.line, place.column) && finding.file == path;
        self.findings.iter().filter(here).any(|finding| finding.severity == Severity::Error)
    }

    /// Whether there are mistakes so far.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The findings in the order of the file, each once: what is used twice is also checked twice.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        let files = self.source.paths();
        let file = |finding: &Diagnostic| files.iter().position(|file| *file == finding.file);
        self.findings.sort_by_key(|finding| (file(finding), finding.line, finding.column));
        let mut once: Vec<Diagnostic> = Vec::with_capacity(self.findings.len());
        for finding in self.findings {
            if !once.contains(&finding) {
                once.push(finding);
            }
        }
        once
    }
}

/// "; did you mean …?" for a wrong name, or the names to choose from.
pub(crate) fn suggestion<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    /// More names than this do not help.
    const MAX_LISTED: usize = 40;
    let names: Vec<&str> = names.into_iter().collect();
    match pelton_core::catalog::nearest(wrong, names.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if names.is_empty() || names.len() > MAX_LISTED => None,
        None => Some(format!("known names: {}", names.join(", "))),
    }
}
