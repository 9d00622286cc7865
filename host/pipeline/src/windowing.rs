//! `windowing:`, the same at all three places where Beam has it, and the windows that only transforms of ours can name.

use pelton_core::calendar::{Calendar, CalendarUnit, TIME_ZONES, Tz, Weekday};
use pelton_core::time::Duration;
use pelton_core::window::WindowFn;

use crate::fields::{Fields, text};
use crate::report::{Report, suggestion};
use crate::yaml::{Content, Yaml, parse_inside};

/// Whose windows may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    /// Those of Beam YAML.
    Beam,
    /// Those and ours.
    Ours,
}

const BEAM: [&str; 4] = ["global", "fixed", "sliding", "sessions"];
const OURS: [&str; 5] = ["global", "fixed", "sliding", "sessions", "calendar"];

/// Reads a windowing; a string holds YAML or JSON, as Beam allows. `None`: reported.
pub(crate) fn windowing(yaml: &Yaml, windows: Windows, report: &mut Report<'_>) -> Option<WindowFn> {
    match &yaml.content {
        Content::Mapping(_) => mapping(yaml, windows, report),
        Content::Text(text) => match parse_inside(text, yaml.mark, report)? {
            inside if inside.entries().is_some() => mapping(&inside, windows, report),
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

fn mapping(yaml: &Yaml, windows: Windows, report: &mut Report<'_>) -> Option<WindowFn> {
    let mut fields = Fields::of(Some(yaml), yaml.mark, "`windowing`", report);
    let kind = fields.require("type", report)?;
    let window = match text(&kind.value, "`type`", report)? {
        "global" => Some(WindowFn::Global),
        "fixed" => fixed(&mut fields, yaml, report),
        "sliding" => sliding(&mut fields, yaml, report),
        "sessions" => length("gap", &mut fields, yaml, report).map(|gap| WindowFn::Sessions { gap }),
        "calendar" if windows == Windows::Ours => calendar(&mut fields, report),
        "calendar" => {
            let help = "name them in the config of `WindowIntoWithTriggers`, so that other runners can still read the file".to_string();
            report.error_with_help(kind.value.mark, "Beam's `windowing` has no calendar windows", Some(help));
            return None;
        }
        other => {
            let known = if windows == Windows::Ours { &OURS[..] } else { &BEAM[..] };
            report.error_with_help(kind.value.mark, format!("there are no `{other}` windows"), suggestion(other, known.iter().copied()));
            return None;
        }
    };
    fields.finish(report);
    window
}

/// A duration that must be given and more than 0.
fn length(key: &'static str, fields: &mut Fields<'_>, yaml: &Yaml, report: &mut Report<'_>) -> Option<Duration> {
    fields.require(key, report)?;
    let length = fields.duration(key, report)?;
    if length.micros() <= 0 {
        let mark = yaml.mark_at(&[key.to_string()]).unwrap_or(yaml.mark);
        report.error(mark, format!("the {key} of a window must be more than 0"));
        return None;
    }
    Some(length)
}

/// The grid repeats every `step`, so a larger offset means the rest, as in Beam.
fn offset(step: Duration, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Duration {
    let offset = fields.duration("offset", report).unwrap_or(Duration::ZERO);
    Duration::from_micros(offset.micros().rem_euclid(step.micros()))
}

fn fixed(fields: &mut Fields<'_>, yaml: &Yaml, report: &mut Report<'_>) -> Option<WindowFn> {
    let size = length("size", fields, yaml, report);
    let offset = offset(size.unwrap_or(Duration::from_micros(1)), fields, report);
    Some(WindowFn::Fixed { size: size?, offset })
}

fn sliding(fields: &mut Fields<'_>, yaml: &Yaml, report: &mut Report<'_>) -> Option<WindowFn> {
    let size = length("size", fields, yaml, report);
    let period = length("period", fields, yaml, report);
    let offset = offset(period.unwrap_or(Duration::from_micros(1)), fields, report);
    let (size, period) = (size?, period?);
    if period > size {
        let mark = yaml.mark_at(&["period".to_string()]).unwrap_or(yaml.mark);
        let help = Some("rows between two windows are in none; they are counted as filtered".to_string());
        report.warning(mark, format!("the period {period} is longer than the size {size}"), help);
    }
    Some(WindowFn::Sliding { size, period, offset })
}

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Mon),
    ("tuesday", Weekday::Tue),
    ("wednesday", Weekday::Wed),
    ("thursday", Weekday::Thu),
    ("friday", Weekday::Fri),
    ("saturday", Weekday::Sat),
    ("sunday", Weekday::Sun),
];

fn calendar(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<WindowFn> {
    let unit = fields.require("unit", report)?;
    let count = number(fields, "count", 1, 10_000, report).unwrap_or(1);
    let zone = match fields.get("time_zone").and_then(|entry| Some((text(&entry.value, "`time_zone`", report)?, entry.value.mark))) {
        None => Tz::UTC,
        Some((name, mark)) => match name.parse::<Tz>() {
            Ok(zone) => zone,
            Err(_) => {
                let help = suggestion(name, TIME_ZONES.iter().map(|zone| zone.name()));
                report.error_with_help(mark, format!("`{name}` is no time zone of the IANA database"), help);
                return None;
            }
        },
    };
    let unit = match text(&unit.value, "`unit`", report)? {
        "days" => CalendarUnit::Days,
        "weeks" => {
            let first = match fields.get("first_day").and_then(|entry| Some((text(&entry.value, "`first_day`", report)?, entry.value.mark)))
            {
                None => Weekday::Mon,
                Some((name, mark)) => match WEEKDAYS.iter().find(|(known, _)| *known == name) {
                    Some((_, day)) => *day,
                    None => {
                        report.error_with_help(mark, format!("`{name}` is no weekday"), suggestion(name, WEEKDAYS.map(|(name, _)| name)));
                        return None;
                    }
                },
            };
            CalendarUnit::Weeks { first }
        }
        "months" => CalendarUnit::Months { day: number(fields, "day_of_month", 1, 28, report).unwrap_or(1) },
        other => {
            let help = suggestion(other, ["days", "weeks", "months"]);
            report.error_with_help(unit.value.mark, format!("a calendar window has no unit `{other}`"), help);
            return None;
        }
    };
    Some(WindowFn::Calendar(Calendar { unit, count, zone }))
}

/// A whole number within bounds; `None`: absent or reported.
pub(crate) fn number(fields: &mut Fields<'_>, key: &'static str, least: u32, most: u32, report: &mut Report<'_>) -> Option<u32> {
    let entry = fields.get(key)?;
    let found = match &entry.value.content {
        Content::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        _ => None,
    };
    let found = found.filter(|number| (least..=most).contains(number));
    if found.is_none() {
        report.error(entry.value.mark, format!("`{key}` must be a whole number from {least} to {most}"));
    }
    found
}
