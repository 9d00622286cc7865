//! `WindowIntoWithTriggers`: the config that names a whole windowing strategy. docs/reference/pelton-transforms.md is its text.

use pelton_core::strategy::{Accumulation, Closing, TimestampCombiner, Trigger};
use pelton_core::time::Duration;
use pelton_core::{WindowFn, WindowingStrategy};

use crate::fields::{Fields, text};
use crate::graph::Transform;
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::windowing::{Windows, number, windowing};
use crate::yaml::{Content, Yaml};

/// Nesting beyond this is a mistake or an attack on the stack.
const MAX_DEPTH: usize = 16;
/// The largest `count` of `after_count`.
const MAX_COUNT: u32 = 1_000_000_000;

/// Reads the config. `None`: reported.
pub(crate) fn window_into_with_triggers(fields: &mut Fields<'_>, default_lateness: Duration, report: &mut Report<'_>) -> Option<Transform> {
    let window_fn = fields.require("windowing", report).and_then(|entry| windowing(&entry.value, Windows::Ours, report));
    let trigger = match fields.get("trigger") {
        None => Some(Trigger::Default),
        Some(entry) => trigger(&entry.value, 0, report),
    };
    let accumulation = choice(fields, "accumulation_mode", &ACCUMULATION, report).unwrap_or(Accumulation::Discarding);
    let timestamp_combiner = choice(fields, "timestamp_combiner", &COMBINERS, report).unwrap_or(TimestampCombiner::EndOfWindow);
    let closing = choice(fields, "closing_behavior", &CLOSING, report).unwrap_or(Closing::IfNonEmpty);
    let allowed_lateness = fields.duration("allowed_lateness", report).unwrap_or(default_lateness);
    let allow_data_loss = fields.boolean("allow_data_loss", report).unwrap_or(false);
    let strategy =
        WindowingStrategy { window_fn: window_fn?, trigger: trigger?, accumulation, allowed_lateness, timestamp_combiner, closing };
    Some(Transform::WindowInto { strategy, kind: "WindowIntoWithTriggers", allow_data_loss })
}

/// Beam's WindowInto: windows only.
pub(crate) fn plain(window: WindowFn, allowed_lateness: Duration) -> Transform {
    let strategy = WindowingStrategy::new(window, allowed_lateness);
    Transform::WindowInto { strategy, kind: "WindowInto", allow_data_loss: false }
}

const ACCUMULATION: [(&str, Accumulation); 2] = [("discarding", Accumulation::Discarding), ("accumulating", Accumulation::Accumulating)];
const COMBINERS: [(&str, TimestampCombiner); 3] =
    [("end_of_window", TimestampCombiner::EndOfWindow), ("earliest", TimestampCombiner::Earliest), ("latest", TimestampCombiner::Latest)];
const CLOSING: [(&str, Closing); 2] = [("fire_if_non_empty", Closing::IfNonEmpty), ("fire_always", Closing::Always)];

fn choice<T: Copy>(fields: &mut Fields<'_>, key: &'static str, choices: &[(&'static str, T)], report: &mut Report<'_>) -> Option<T> {
    let entry = fields.get(key)?;
    let name = text(&entry.value, &format!("`{key}`"), report)?;
    match choices.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Some(*value),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let help = suggestion(name, names.iter().copied()).or_else(|| Some(format!("it is one of {}", names.join(", "))));
            report.error_with_help(entry.value.mark, format!("`{key}` cannot be `{name}`"), help);
            None
        }
    }
}

const TRIGGERS: [&str; 11] = [
    "default",
    "never",
    "always",
    "after_watermark",
    "after_processing_time",
    "after_count",
    "repeatedly",
    "after_any",
    "after_all",
    "after_each",
    "or_finally",
];

fn trigger(yaml: &Yaml, depth: usize, report: &mut Report<'_>) -> Option<Trigger> {
    if depth > MAX_DEPTH {
        report.error(yaml.mark, format!("triggers are nested more than {MAX_DEPTH} deep"));
        return None;
    }
    if let Content::Text(name) = &yaml.content {
        return named(name, yaml.mark, &mut Fields::of(None, yaml.mark, "the trigger", report), depth, report);
    }
    let mut fields = Fields::of(Some(yaml), yaml.mark, "the trigger", report);
    yaml.entries()?;
    let kind = fields.require("type", report)?;
    let name = text(&kind.value, "`type`", report)?;
    let trigger = named(name, kind.value.mark, &mut fields, depth, report)?;
    fields.finish(report);
    Some(trigger)
}

fn named(name: &str, mark: Mark, fields: &mut Fields<'_>, depth: usize, report: &mut Report<'_>) -> Option<Trigger> {
    Some(match name {
        "default" => Trigger::Default,
        "never" => Trigger::Never,
        "always" => Trigger::Always,
        "after_watermark" => {
            let (early, late) = (fields.get("early"), fields.get("late"));
            let early = early.map(|entry| trigger(&entry.value, depth + 1, report).map(Box::new));
            let late = late.map(|entry| trigger(&entry.value, depth + 1, report).map(Box::new));
            // A part that was given and not understood has been reported.
            if early == Some(None) || late == Some(None) {
                return None;
            }
            Trigger::AfterWatermark { early: early.flatten(), late: late.flatten() }
        }
        "after_processing_time" => {
            fields.require("delay", report)?;
            Trigger::AfterProcessingTime { delay: fields.duration("delay", report)? }
        }
        "after_count" => {
            fields.require("count", report)?;
            Trigger::AfterCount(number(fields, "count", 1, MAX_COUNT, report)?)
        }
        "repeatedly" => Trigger::Repeatedly(inner(fields, "trigger", depth, report)?),
        "after_any" => Trigger::AfterAny(several(fields, depth, report)?),
        "after_all" => Trigger::AfterAll(several(fields, depth, report)?),
        "after_each" => Trigger::AfterEach(several(fields, depth, report)?),
        "or_finally" => {
            let (first, until) = (inner(fields, "trigger", depth, report), inner(fields, "until", depth, report));
            Trigger::OrFinally(first?, until?)
        }
        other => {
            report.error_with_help(mark, format!("there is no trigger `{other}`"), suggestion(other, TRIGGERS));
            return None;
        }
    })
}

fn inner(fields: &mut Fields<'_>, key: &'static str, depth: usize, report: &mut Report<'_>) -> Option<Box<Trigger>> {
    let entry = fields.require(key, report)?;
    trigger(&entry.value, depth + 1, report).map(Box::new)
}

fn several(fields: &mut Fields<'_>, depth: usize, report: &mut Report<'_>) -> Option<Vec<Trigger>> {
    let entry = fields.require("triggers", report)?;
    let Content::List(items) = &entry.value.content else {
        report.error(entry.value.mark, format!("`triggers` must be a list, not {}", entry.value.kind()));
        return None;
    };
    if items.is_empty() {
        report.error(entry.value.mark, "`triggers` is empty");
        return None;
    }
    let read: Vec<Option<Trigger>> = items.iter().map(|item| trigger(item, depth + 1, report)).collect();
    read.into_iter().collect()
}
