//! What a run says at its end: where every row went.

use crate::progress::{Timeline, rows_read};
use pelton_runtime::metrics::{NodeFigures, UserMetric};
use pelton_runtime::{Progress, StopMode};
use serde::Serialize;
use std::fmt::Write;

#[derive(Debug, Serialize)]
pub struct Summary {
    pub pipeline: String,
    /// `ended`, `stopped` or `drained`.
    pub end: &'static str,
    pub seconds: f64,
    pub rows_read: u64,
    pub rows_per_second: f64,
    pub transforms: Vec<NodeFigures>,
    pub written: Vec<Written>,
}

#[derive(Debug, Serialize)]
pub struct Written {
    pub transform: String,
    pub rows: u64,
    pub bytes: u64,
    pub files: Vec<String>,
}

impl Summary {
    pub fn of(pipeline: &str, progress: &Progress, timeline: &Timeline, stopped: StopMode) -> Summary {
        let rows = rows_read(progress);
        Summary {
            pipeline: pipeline.into(),
            end: match stopped {
                StopMode::Run => "ended",
                StopMode::Stop => "stopped",
                StopMode::Drain => "drained",
            },
            seconds: timeline.seconds,
            rows_read: rows,
            rows_per_second: rows as f64 / timeline.seconds.max(1e-6),
            transforms: progress.figures(),
            written: progress
                .written()
                .into_iter()
                .map(|(transform, sink)| Written { transform, rows: sink.rows, bytes: sink.bytes, files: sink.files })
                .collect(),
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.transforms.iter().map(|node| node.name.chars().count()).max().unwrap_or(0).max(9);
        let _ = writeln!(
            text,
            "{} {} after {:.2} s: {} rows read, {:.0} rows/s",
            self.pipeline, self.end, self.seconds, self.rows_read, self.rows_per_second
        );
        let _ = writeln!(
            text,
            "\n{:<width$}  {:>12} {:>12} {:>10} {:>8} {:>8} {:>8}  rows out",
            "transform", "rows in", "led to out", "filtered", "errors", "late", "held"
        );
        for node in &self.transforms {
            let out: Vec<String> = node
                .rows_out
                .iter()
                .filter(|(_, rows)| *rows > 0)
                .map(|(name, rows)| if name.is_empty() { rows.to_string() } else { format!("{name}: {rows}") })
                .collect();
            let _ = writeln!(
                text,
                "{:<width$}  {:>12} {:>12} {:>10} {:>8} {:>8} {:>8}  {}",
                node.name,
                node.rows_in,
                node.led,
                node.filtered,
                node.errors,
                node.late,
                node.held,
                out.join(", ")
            );
            if let Some(watermark) = &node.watermark {
                let drift = node.watermark_drift_seconds.filter(|drift| *drift > 0.0);
                let drift = drift.map(|drift| format!(", partitions {drift:.1} s apart")).unwrap_or_default();
                let _ = writeln!(text, "{:<width$}    watermark {watermark}{drift}", "");
            }
            if !node.balanced() {
                let _ = writeln!(text, "{:<width$}  these do not add up: please report it", "");
            }
            for hot in &node.hot_keys {
                let _ = writeln!(text, "{:<width$}    the key {} has {:.0} % of the rows", "", hot.key, 100.0 * hot.share);
            }
            for (name, metric) in &node.user {
                let shown = match metric {
                    UserMetric::Counter { value } => value.to_string(),
                    UserMetric::Gauge { value } => value.to_string(),
                    UserMetric::Distribution { count, sum, min, max } => {
                        format!("count {count}, mean {:.3}, min {min}, max {max}", sum / *count as f64)
                    }
                };
                let _ = writeln!(text, "{:<width$}    {name} = {shown}", "");
            }
        }
        for written in self.written.iter().filter(|written| !written.files.is_empty()) {
            let _ = writeln!(text, "\n{} wrote {} rows, {} bytes:", written.transform, written.rows, written.bytes);
            for file in written.files.iter().take(MAX_FILES) {
                let _ = writeln!(text, "  {file}");
            }
            if written.files.len() > MAX_FILES {
                let _ = writeln!(text, "  … and {} more", written.files.len() - MAX_FILES);
            }
        }
        let held: u64 = self.transforms.iter().map(|node| node.held).sum();
        if held > 0 {
            let _ = writeln!(text, "\n{held} rows are held in windows that had not ended; `--drain` fires them at Ctrl-C.");
        }
        text
    }
}

/// Files that the summary names for each sink.
const MAX_FILES: usize = 10;
