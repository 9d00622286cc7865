//! Transforms for trying things out: LogForTesting.

use crate::fields::{Fields, text};
use crate::graph::{LogLevel, Transform};
use crate::report::{Report, suggestion};

pub(super) fn log_for_testing(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Transform> {
    let prefix = fields.text("prefix", report).map(str::to_string);
    let level = match fields.get("level").and_then(|entry| Some((text(&entry.value, "`level`", report)?, entry.value.mark))) {
        None | Some(("INFO", _)) => LogLevel::Info,
        Some(("ERROR", _)) => LogLevel::Error,
        Some(("DEBUG", _)) => LogLevel::Debug,
        Some((other, mark)) => {
            report.error_with_help(mark, format!("unknown level `{other}`"), suggestion(other, ["ERROR", "INFO", "DEBUG"]));
            LogLevel::Info
        }
    };
    Some(Transform::LogForTesting { level, prefix })
}
