//! Transforms about event time and windows: AssignTimestamps, WindowInto, ExtractWindowingInfo.

use super::Context;
use crate::expression::{self, Dialect};
use crate::fields::{Fields, text, texts};
use crate::graph::{TimeUnit, Transform, WindowingInfo};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::syntax::Spec;
use crate::triggering;
use crate::windowing::{Windows, windowing};
use crate::yaml::Content;

pub(super) fn assign_timestamps(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report);
    fields.not_yet("dependencies", report);
    let units = ["s", "ms", "us", "ns"];
    let unit = match fields.get("unit").and_then(|entry| Some((text(&entry.value, "`unit`", report)?, entry.value.mark))) {
        None | Some(("s", _)) => TimeUnit::Seconds,
        Some(("ms", _)) => TimeUnit::Milliseconds,
        Some(("us", _)) => TimeUnit::Microseconds,
        Some(("ns", _)) => TimeUnit::Nanoseconds,
        Some((other, mark)) => {
            report.error_with_help(mark, format!("unknown unit `{other}`"), suggestion(other, units));
            TimeUnit::Seconds
        }
    };
    let time_zone = fields.text("time_zone", report).map(str::to_string);
    let timestamp = fields.require("timestamp", report)?;
    let timestamp = expression::field(&timestamp.value, dialect, report)?;
    Some(Transform::AssignTimestamps { timestamp, unit, time_zone })
}

pub(super) fn window_into(spec: &Spec<'_>, fields: &mut Fields<'_>, context: &Context<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let inner = fields.get("windowing").map(|entry| &entry.value);
    let Some(yaml) = inner.or(spec.windowing) else {
        report.error(spec.kind_mark, "`WindowInto` needs `windowing`");
        return None;
    };
    let window = windowing(yaml, Windows::Beam, report)?;
    Some(triggering::plain(window, context.allowed_lateness))
}

const WINDOWING_INFO: [(&str, WindowingInfo); 7] = [
    ("timestamp", WindowingInfo::Timestamp),
    ("window_start", WindowingInfo::WindowStart),
    ("window_end", WindowingInfo::WindowEnd),
    ("window_string", WindowingInfo::WindowString),
    ("window_type", WindowingInfo::WindowType),
    ("pane_info", WindowingInfo::PaneInfo),
    ("processing_timestamp", WindowingInfo::ProcessingTimestamp),
];

pub(super) fn extract_windowing_info(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let named: Vec<(&str, &str, Mark)> = match fields.get("fields") {
        // Beam's default.
        None => WINDOWING_INFO[..3].iter().map(|(name, _)| (*name, *name, Mark::default())).collect(),
        Some(entry) => match &entry.value.content {
            Content::Mapping(entries) => entries
                .iter()
                .filter_map(|field| Some((field.key.as_str(), text(&field.value, "a kind of windowing info", report)?, field.value.mark)))
                .collect(),
            Content::Text(_) => {
                let help = "write a list, or a mapping of new names to what they hold".to_string();
                report.error_with_help(entry.value.mark, "`fields` must be a list or a mapping, not a text", Some(help));
                Vec::new()
            }
            _ => texts(&entry.value, "`fields`", report).into_iter().map(|(name, mark)| (name, name, mark)).collect(),
        },
    };
    let mut found = Vec::new();
    for (name, kind, mark) in named {
        match WINDOWING_INFO.iter().find(|(known, _)| *known == kind) {
            Some((_, info)) => found.push((name.to_string(), *info)),
            None => {
                let help = suggestion(kind, WINDOWING_INFO.map(|(name, _)| name));
                report.error_with_help(mark, format!("unknown windowing info `{kind}`"), help);
            }
        }
    }
    Some(Transform::ExtractWindowingInfo { fields: found })
}
