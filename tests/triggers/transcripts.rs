//! Transcripts: what comes into a grouping, and the panes that must come out, in the form of Beam's
//! `trigger_transcripts.yaml`. Times are seconds.
//!
//! Ours add the action `clock`, the strategy's `closing: always`, and `closes: true`: windows close, which Beam's Python does
//! not do. A transcript with `error` is a bad one and must be refused.

use crate::cells::{Cells, Pane};
use pelton_core::batch::PaneTiming;
use pelton_core::strategy::{Accumulation, Closing, TimestampCombiner, Trigger, WindowingStrategy};
use pelton_core::time::Duration;
use pelton_core::{Instant, Window, WindowFn};
use serde_json::Value;

const SECOND: i64 = 1_000_000;
/// Transcripts have one key.
const KEY: &str = "key";

/// Runs a transcript. The error says where and what.
pub fn run(document: &Value) -> Result<(), String> {
    let result = execute(document);
    let name = document["name"].as_str().unwrap_or("unnamed");
    match (document["error"].as_str(), result) {
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(format!("{name}: {error}")),
        (Some(want), Err(error)) if error.contains(want) => Ok(()),
        (Some(want), got) => Err(format!("{name}: wanted the error `{want}`, got {got:?}")),
    }
}

fn execute(document: &Value) -> Result<(), String> {
    let strategy = strategy(document)?;
    // A window function of Beam's tests whose output times are 100 s later.
    let window_fn = document["window_fn"].as_str().unwrap_or_default();
    let is_transformed = window_fn.starts_with("CustomTimestamping") && text(document, "timestamp_combiner").ends_with("TRANSFORMED");
    let shift = Duration::from_micros(if is_transformed { 100 * SECOND } else { 0 });
    let closes = document["closes"].as_bool().unwrap_or(false);
    let mut cells = Cells::new(strategy);
    let mut pending: Vec<Pane> = Vec::new();
    for (number, line) in document["transcript"].as_array().ok_or("no transcript")?.iter().enumerate() {
        let (action, value) = line.as_object().and_then(|line| line.iter().next()).ok_or("an empty line")?;
        if !pending.is_empty() && action != "expect" && action != "state" {
            return Err(format!("Unexpected output before line {number}: {pending:?}"));
        }
        cells.begin(number);
        match action.as_str() {
            "input" => {
                let rows: Vec<(i64, Instant)> = integers(value).into_iter().map(|time| (time, seconds(time))).collect();
                cells.rows(KEY, &rows, |time| time.saturating_add(shift));
                // Beam looks at its timers after each action.
                fire(&mut cells, None, closes);
            }
            "watermark" => fire(&mut cells, value.as_i64(), closes),
            "clock" => {
                let by = Duration::from_micros(value.as_i64().ok_or("clock takes seconds")? * SECOND);
                cells.processing_time(cells.now().saturating_add(by));
            }
            "expect" => expect(&mut pending, value)?,
            "state" => check_state(&cells, value)?,
            other => return Err(format!("unknown action {other}")),
        }
        pending.append(&mut cells.panes);
        pending.append(&mut cells.closing);
    }
    if pending.is_empty() { Ok(()) } else { Err(format!("Unexpected output at the end: {pending:?}")) }
}

fn fire(cells: &mut Cells, watermark: Option<i64>, closes: bool) {
    if let Some(watermark) = watermark {
        cells.watermark(seconds(watermark), closes);
    }
}

/// Each wanted pane is among those that came, as far as it is described.
fn expect(pending: &mut Vec<Pane>, wanted: &Value) -> Result<(), String> {
    for want in wanted.as_array().into_iter().flatten() {
        let found = pending.iter().position(|pane| matches(pane, want));
        match found {
            Some(at) => drop(pending.remove(at)),
            None => return Err(format!("Unmatched output {want} in {pending:?}")),
        }
    }
    Ok(())
}

fn matches(pane: &Pane, want: &Value) -> bool {
    let cut = |time: Instant| time.micros().div_euclid(SECOND);
    want.as_object().into_iter().flatten().all(|(field, value)| match field.as_str() {
        "window" => integers(value) == [cut(pane.window.start), cut(pane.window.max_timestamp())],
        "values" => integers(value) == pane.values,
        "timestamp" => value.as_i64() == Some(cut(pane.timestamp)),
        "index" => value.as_i64() == Some(pane.info.index),
        "nonspeculative_index" => value.as_i64() == Some(pane.info.nonspeculative_index),
        "early" => value.as_bool() == Some(pane.info.timing == PaneTiming::Early),
        "late" => value.as_bool() == Some(pane.info.timing == PaneTiming::Late),
        "final" => value.as_bool() == Some(pane.info.is_last),
        other => panic!("unknown field {other}"),
    })
}

/// `present`: cells with rows; `tombstone`: cells whose trigger has finished. Beam's own check of the state is not written
/// yet, and its one example calls a window of the second kind `absent`, so that holds of cells without rows.
fn check_state(cells: &Cells, want: &Value) -> Result<(), String> {
    for (kind, windows) in want.as_object().into_iter().flatten() {
        for window in windows.as_array().into_iter().flatten() {
            let bounds = integers(window);
            let window = Window { start: seconds(bounds[0]), end: seconds(bounds[1] + 1) };
            let cell = cells.cell(KEY, window);
            let holds = match (kind.as_str(), cell) {
                ("present", Some((values, false))) => !values.is_empty(),
                ("tombstone", Some((_, finished))) => finished,
                ("absent", Some((values, _))) => values.is_empty(),
                ("absent", None) => true,
                _ => false,
            };
            if !holds {
                return Err(format!("the cell {bounds:?} is not {kind}: {cell:?}"));
            }
        }
    }
    Ok(())
}

fn strategy(document: &Value) -> Result<WindowingStrategy, String> {
    let window_fn = match call(text(document, "window_fn")) {
        ("" | "GlobalWindows", _) => WindowFn::Global,
        ("FixedWindows" | "CustomTimestampingFixedWindowsWindowFn", size) => {
            WindowFn::Fixed { size: duration(size[0])?, offset: Duration::ZERO }
        }
        ("Sessions", gap) => WindowFn::Sessions { gap: duration(gap[0])? },
        other => return Err(format!("unknown window function {other:?}")),
    };
    let timestamp_combiner = match text(document, "timestamp_combiner") {
        "" | "OUTPUT_AT_EOW" => TimestampCombiner::EndOfWindow,
        "OUTPUT_AT_EARLIEST" | "OUTPUT_AT_EARLIEST_TRANSFORMED" => TimestampCombiner::Earliest,
        "OUTPUT_AT_LATEST" => TimestampCombiner::Latest,
        other => return Err(format!("unknown timestamp combiner {other}")),
    };
    let allowed_lateness = Duration::from_micros(document["allowed_lateness"].as_i64().unwrap_or(0) * SECOND);
    Ok(WindowingStrategy {
        trigger: trigger(text(document, "trigger_fn"))?,
        accumulation: if text(document, "accumulation_mode") == "discarding" {
            Accumulation::Discarding
        } else {
            Accumulation::Accumulating
        },
        timestamp_combiner,
        closing: if text(document, "closing") == "always" { Closing::Always } else { Closing::IfNonEmpty },
        ..WindowingStrategy::new(window_fn, allowed_lateness)
    })
}

/// Reads `AfterWatermark(early=AfterCount(3), late=AfterCount(1))` and the like.
fn trigger(source: &str) -> Result<Trigger, String> {
    let (name, arguments) = call(source);
    let named = |wanted: &str| arguments.iter().find_map(|argument| argument.strip_prefix(wanted)?.strip_prefix('='));
    let parts = || arguments.iter().map(|argument| trigger(argument)).collect::<Result<Vec<_>, _>>();
    let boxed = |source: Option<&str>| source.map(|source| trigger(source).map(Box::new)).transpose();
    Ok(match name {
        "" | "Default" | "DefaultTrigger" => Trigger::Default,
        "Never" => Trigger::Never,
        "Always" => Trigger::Always,
        "AfterCount" => Trigger::AfterCount(arguments[0].parse().map_err(|_| format!("not a count: {source}"))?),
        "AfterProcessingTime" => Trigger::AfterProcessingTime { delay: duration(arguments[0])? },
        "AfterWatermark" => Trigger::AfterWatermark { early: boxed(named("early"))?, late: boxed(named("late"))? },
        "Repeatedly" => Trigger::Repeatedly(Box::new(trigger(arguments[0])?)),
        "AfterAny" => Trigger::AfterAny(parts()?),
        "AfterAll" => Trigger::AfterAll(parts()?),
        "AfterEach" => Trigger::AfterEach(parts()?),
        "OrFinally" => Trigger::OrFinally(Box::new(trigger(arguments[0])?), Box::new(trigger(arguments[1])?)),
        other => return Err(format!("unknown trigger {other}")),
    })
}

/// `Name(a, b(c, d))` as the name and its arguments.
fn call(source: &str) -> (&str, Vec<&str>) {
    let source = source.trim();
    let Some((name, rest)) = source.split_once('(') else { return (source, Vec::new()) };
    let inside = rest.strip_suffix(')').unwrap_or(rest);
    let (mut arguments, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in inside.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(inside[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inside.trim().is_empty() {
        arguments.push(inside[start..].trim());
    }
    (name, arguments)
}

fn text<'d>(document: &'d Value, field: &str) -> &'d str {
    document[field].as_str().unwrap_or_default()
}

fn duration(seconds: &str) -> Result<Duration, String> {
    seconds.parse::<i64>().map(|seconds| Duration::from_micros(seconds * SECOND)).map_err(|_| format!("not seconds: {seconds}"))
}

fn seconds(seconds: i64) -> Instant {
    Instant::from_micros_saturating(seconds * SECOND)
}

fn integers(list: &Value) -> Vec<i64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}
