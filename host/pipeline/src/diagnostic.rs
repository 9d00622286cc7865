//! What is wrong with a pipeline file, and where: shown as a compiler does.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Whether it stops the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the pipeline.
    pub severity: Severity,
    /// One sentence without a full stop.
    pub message: String,
    /// What to do, where that can be said.
    pub help: Option<String>,
    /// The file, as the user named it.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// The line as it stands in the file.
    pub source_line: String,
    /// How many characters the caret underlines; at least 1.
    pub length: usize,
}

/// All findings as text, one empty line between them.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        render_one(&mut out, diagnostic);
    }
    out
}

fn render_one(out: &mut String, diagnostic: &Diagnostic) {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Diagnostic { message, file, line, column, source_line, length, .. } = diagnostic;
    let number = line.to_string();
    let blank = " ".repeat(number.len());
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{severity}: {message}");
    let _ = writeln!(out, "{blank}--> {}:{line}:{column}", file.display());
    if !source_line.trim().is_empty() {
        // Tabs stay tabs in front of the caret, so that it stands below its character at any tab width.
        let lead: String = source_line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let _ = writeln!(out, "{blank} |");
        let _ = writeln!(out, "{number} | {source_line}");
        let _ = writeln!(out, "{blank} | {lead}{}", "^".repeat(*length));
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "{blank} = help: {help}");
    }
}
