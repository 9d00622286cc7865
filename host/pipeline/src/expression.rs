//! Expressions as the file writes them. Their grammar is checked here; they are compiled later, when the columns are known.

use crate::fields::{Fields, text};
use crate::graph::{Expression, Language};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::yaml::{Content, Yaml};

/// The language of a transform's expressions; `None`: one that we do not have, which has been reported once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect(Option<Language>);

impl Default for Dialect {
    fn default() -> Dialect {
        Dialect(Some(Language::Generic))
    }
}

impl Dialect {
    /// `language` of a config, if given.
    pub fn read(self, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Dialect {
        match fields.get("language") {
            None => self,
            Some(entry) => match text(&entry.value, "`language`", report) {
                Some(name) => dialect(name, entry.value.mark, report),
                None => Dialect(None),
            },
        }
    }
}

/// A language by name.
pub(crate) fn dialect(name: &str, mark: Mark, report: &mut Report<'_>) -> Dialect {
    match name {
        "generic" => Dialect(Some(Language::Generic)),
        "sql" => Dialect(Some(Language::Sql)),
        "python" | "javascript" | "java" | "calcite" => {
            let help = "use `language: generic` (a field, a literal, one comparison), `language: sql`, or a plugin".to_string();
            report.error_with_help(mark, format!("expressions in {name} are not available"), Some(help));
            Dialect(None)
        }
        other => {
            let help = suggestion(other, ["generic", "sql"]);
            report.error_with_help(mark, format!("unknown language `{other}`"), help);
            Dialect(None)
        }
    }
}

/// An expression: a scalar, or `{expression, output_type}`.
pub(crate) fn field(yaml: &Yaml, dialect: Dialect, report: &mut Report<'_>) -> Option<Expression> {
    let Content::Mapping(entries) = &yaml.content else { return scalar(yaml, dialect, None, report) };
    if let Some(entry) = entries.iter().find(|entry| matches!(entry.key.as_str(), "callable" | "path" | "name")) {
        let help = "use an expression in `language: generic` or `language: sql`, or a plugin".to_string();
        report.error_with_help(entry.mark, format!("`{}` is code in Python or JavaScript, which is not available", entry.key), Some(help));
        return None;
    }
    let mut fields = Fields::of(Some(yaml), yaml.mark, "an expression", report);
    let output_type = fields.text("output_type", report).map(str::to_string);
    let expression = fields.require("expression", report);
    fields.finish(report);
    scalar(&expression?.value, dialect, output_type, report)
}

fn scalar(yaml: &Yaml, dialect: Dialect, output_type: Option<String>, report: &mut Report<'_>) -> Option<Expression> {
    let text = match &yaml.content {
        Content::Text(text) if text.trim().is_empty() => {
            report.error(yaml.mark, "an expression is missing here");
            return None;
        }
        Content::Text(text) => text.clone(),
        Content::Number(number) => number.to_string(),
        Content::Bool(value) => value.to_string(),
        _ => {
            report.error(yaml.mark, format!("an expression must be a string, a number or a boolean, not {}", yaml.kind()));
            return None;
        }
    };
    let language = dialect.0?;
    check_syntax(language, &text, yaml.mark, report);
    Some(Expression { language, text, place: report.place(yaml.mark), output_type })
}

/// Reports what no columns could make right.
fn check_syntax(language: Language, text: &str, mark: Mark, report: &mut Report<'_>) {
    let language = match language {
        Language::Generic => pelton_expr::Language::Generic,
        Language::Sql => pelton_expr::Language::Sql,
    };
    if report.is_wrong_at(mark) {
        return;
    }
    if let Err(error) = pelton_expr::check_syntax(language, text) {
        let mark = error.offset.and_then(|offset| inside(text, offset, mark, report)).unwrap_or(mark);
        report.error_with_help(mark, format!("in `{text}`: {}", error.message), error.help);
    }
}

/// The place of a byte of a text, if the file has the text on one line as it is, with or without quotes.
pub(crate) fn inside(text: &str, offset: usize, mark: Mark, report: &Report<'_>) -> Option<Mark> {
    let line: String = report.source().expanded_line(mark).chars().skip(mark.column - 1).collect();
    let quotes = usize::from(line.starts_with(['\'', '"']));
    let found = line.get(quotes..)?.starts_with(text);
    let before = text.get(..offset)?.chars().count();
    found.then_some(Mark { column: mark.column + quotes + before, length: 1, ..mark })
}

/// A column by its name.
pub(crate) fn column(name: &str, mark: Mark, report: &Report<'_>) -> Expression {
    Expression { language: Language::Generic, text: name.to_string(), place: report.place(mark), output_type: None }
}
