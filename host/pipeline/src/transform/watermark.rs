//! SetWatermark: how event time advances behind one source.

use pelton_core::time::Duration;
use pelton_core::watermark::Rule;

use crate::expression::{self, Dialect};
use crate::fields::{Fields, text};
use crate::graph::{Alignment, Expression, Transform};
use crate::report::{Report, suggestion};
use crate::yaml::{Content, Entry};

/// Beam has no words for it; these are ours.
const POLICIES: [&str; 4] = ["fixed_delay", "adaptive", "punctuated", "processing_time"];
const DEFAULT_QUANTILE: u32 = 990_000;
const DEFAULT_MAX: Duration = Duration::from_micros(300_000_000);

pub(super) fn set_watermark(fields: &mut Fields<'_>, dialect: Dialect, report: &mut Report<'_>) -> Option<Transform> {
    let dialect = dialect.read(fields, report);
    let policy = fields.require("policy", report).and_then(|entry| policy(entry, dialect, report));
    let ingestion = match fields.get("time").and_then(|entry| Some((text(&entry.value, "`time`", report)?, entry.value.mark))) {
        None | Some(("event", _)) => false,
        Some(("ingestion", _)) => true,
        Some((other, mark)) => {
            report.error_with_help(mark, format!("`time` cannot be `{other}`"), suggestion(other, ["event", "ingestion"]));
            return None;
        }
    };
    let idle_timeout = fields.duration("idle_timeout", report);
    let align = fields.get("align").and_then(|entry| align(entry, report));
    let (rule, marker) = policy?;
    Some(Transform::SetWatermark { rule, marker, ingestion, idle_timeout, align })
}

fn policy(entry: &Entry, dialect: Dialect, report: &mut Report<'_>) -> Option<(Rule, Option<Expression>)> {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`policy`", report);
    entry.value.entries()?;
    let kind = fields.require("type", report)?;
    let read = match text(&kind.value, "`type`", report)? {
        "fixed_delay" => {
            fields.require("delay", report);
            fields.duration("delay", report).map(|delay| (Rule::FixedDelay(delay), None))
        }
        "adaptive" => {
            let quantile = fields.get("quantile").map_or(Some(DEFAULT_QUANTILE), |entry| quantile(entry, report));
            let min = fields.duration("min", report).unwrap_or(Duration::ZERO);
            let max = fields.duration("max", report).unwrap_or(DEFAULT_MAX);
            if min > max {
                report.error(entry.value.mark, format!("`min` is {min}, which is more than `max`, {max}"));
                return None;
            }
            quantile.map(|quantile| (Rule::Adaptive { quantile, min, max }, None))
        }
        "punctuated" => {
            let marker = fields.require("marker", report).and_then(|entry| expression::field(&entry.value, dialect, report));
            marker.map(|marker| (Rule::Punctuated, Some(marker)))
        }
        "processing_time" => Some((Rule::ProcessingTime, None)),
        other => {
            report.error_with_help(kind.value.mark, format!("there is no watermark policy `{other}`"), suggestion(other, POLICIES));
            return None;
        }
    };
    fields.finish(report);
    read
}

/// A share, in millionths.
fn quantile(entry: &Entry, report: &mut Report<'_>) -> Option<u32> {
    let share = match &entry.value.content {
        Content::Number(number) => number.as_f64().filter(|share| *share > 0.0 && *share <= 1.0),
        _ => None,
    };
    if share.is_none() {
        report.error(entry.value.mark, "`quantile` must be a number above 0 and at most 1");
    }
    share.map(|share| ((share * 1e6).round() as u32).max(1))
}

fn align(entry: &Entry, report: &mut Report<'_>) -> Option<Alignment> {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "`align`", report);
    entry.value.entries()?;
    let group = fields.require("group", report).and_then(|entry| text(&entry.value, "`group`", report));
    fields.require("max_drift", report);
    let max_drift = fields.duration("max_drift", report);
    fields.finish(report);
    Some(Alignment { group: group?.to_string(), max_drift: max_drift? })
}
