//! `windowing:`, the same at all three places where Beam has it.

use pelton_core::time::Duration;
use pelton_core::window::WindowFn;

use crate::fields::Fields;
use crate::report::{Report, suggestion};
use crate::yaml::{Content, Yaml, parse_inside};

/// Reads a windowing; a string holds YAML or JSON, as Beam allows. `None`: reported.
pub(crate) fn windowing(yaml: &Yaml, report: &mut Report<'_>) -> Option<WindowFn> {
    match &yaml.content {
        Content::Mapping(_) => mapping(yaml, report),
        Content::Text(text) => match parse_inside(text, yaml.mark, report)? {
            inside if inside.entries().is_some() => mapping(&inside, report),
            _ => wrong(yaml, report),
        },
        _ => wrong(yaml, report),
    }
}

fn wrong(yaml: &Yaml, report: &mut Report<'_>) -> Option<WindowFn> {
    let message = format!("`windowing` must be a mapping, not {}", yaml.kind());
    report.error_with_help(yaml.mark, message, Some("for example {type: fixed, size: 60s}".to_string()));
    None
}

fn mapping(yaml: &Yaml, report: &mut Report<'_>) -> Option<WindowFn> {
    let mut fields = Fields::of(Some(yaml), yaml.mark, "`windowing`", report);
    let kind = fields.require("type", report)?;
    let window = match crate::fields::text(&kind.value, "`type`", report)? {
        "global" => Some(WindowFn::Global),
        "fixed" => fixed(&mut fields, yaml, report),
        name @ ("sliding" | "sessions") => {
            report.error_with_help(
                kind.value.mark,
                format!("{name} windows are not available yet"),
                Some("`global` and `fixed` are".to_string()),
            );
            return None;
        }
        other => {
            let help = suggestion(other, ["global", "fixed"]);
            report.error_with_help(kind.value.mark, format!("there are no `{other}` windows"), help);
            return None;
        }
    };
    fields.finish(report);
    window
}

fn fixed(fields: &mut Fields<'_>, yaml: &Yaml, report: &mut Report<'_>) -> Option<WindowFn> {
    let given = fields.require("size", report).is_some();
    let size = fields.duration("size", report);
    let offset = fields.duration("offset", report).unwrap_or(Duration::ZERO);
    let size = size.filter(|_| given)?;
    if size == Duration::ZERO {
        report.error(yaml.mark_at(&["size".to_string()]).unwrap_or(yaml.mark), "the size of a window must be more than 0");
        return None;
    }
    // The grid repeats every `size`, so a larger offset means the rest, as in Beam.
    Some(WindowFn::Fixed { size, offset: Duration::from_micros(offset.micros() % size.micros()) })
}
