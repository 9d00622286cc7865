//! Expressions as the file writes them. Their grammar is checked here; they are compiled later, when the columns are known.

use crate::fields::{Fields, text};
use crate::graph::{Expression, Language};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::yaml::{Content, Yaml};

/// What a transform's expressions may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    /// `None`: one that we do not have, which has been reported once.
    language: Option<Language>,
    /// Whether there are side inputs to look something up in.
    lookups: bool,
}

impl Default for Dialect {
    fn default() -> Dialect {
        Dialect::of(Some(Language::Generic))
    }
}

impl Dialect {
    fn of(language: Option<Language>) -> Dialect {
        Dialect { language, lookups: false }
    }

    /// `language` of a config, if given.
    pub fn read(self, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Dialect {
        let Some(entry) = fields.get("language") else { return self };
        let language = match text(&entry.value, "`language`", report) {
            Some(name) => dialect(name, entry.value.mark, report).language,
            None => None,
        };
        Dialect { language, ..self }
    }

    /// The same where the transform has side inputs, if it has.
    pub fn beside(self, side_inputs: bool) -> Dialect {
        Dialect { lookups: side_inputs, ..self }
    }
}

/// A language by name.
pub(crate) fn dialect(name: &str, mark: Mark, report: &mut Report<'_>) -> Dialect {
    match name {
        "generic" => Dialect::of(Some(Language::Generic)),
        "sql" => Dialect::of(Some(Language::Sql)),
        "python" | "javascript" | "java" | "calcite" => {
            let help = "use `language: generic` (a field, a literal, one comparison), `language: sql`, or a plugin".to_string();
            report.error_with_help(mark, format!("expressions in {name} are not available"), Some(help));
            Dialect::of(None)
        }
        other => {
            let help = suggestion(other, ["generic", "sql"]);
            report.error_with_help(mark, format!("unknown language `{other}`"), help);
            Dialect::of(None)
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
    let language = dialect.language?;
    check_syntax(language, dialect.lookups, &text, yaml.mark, report);
    Some(Expression { language, text, place: report.place(yaml.mark), output_type })
}

/// Reports what no columns could make right.
fn check_syntax(language: Language, lookups: bool, text: &str, mark: Mark, report: &mut Report<'_>) {
    let language = match language {
        Language::Generic => pelton_expr::Language::Generic,
        Language::Sql => pelton_expr::Language::Sql,
    };
    if report.is_wrong_at(mark) {
        return;
    }
    let checked = match lookups && language == pelton_expr::Language::Sql {
        true => pelton_expr::lower_lookups(text).and_then(|lowered| {
            // Places in the lowered text are none in the file.
            let own = lowered.text == text;
            let checked = pelton_expr::check_syntax(language, &lowered.text).map(drop);
            checked.map_err(|error| if own { error } else { pelton_expr::ExpressionError { offset: None, ..error } })
        }),
        false => pelton_expr::check_syntax(language, text).map(drop),
    };
    if let Err(error) = checked {
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
