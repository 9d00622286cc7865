//! What a run says at its end: where every row went.

use crate::progress::Timeline;
use pelton_plugin::PluginFigures;
use pelton_runtime::checkpoint::figures::CheckpointFigures;
use pelton_runtime::metrics::{NodeFigures, UserMetric};
use pelton_runtime::{Progress, StopMode};
use pelton_server::status::rows_read;
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
    /// Where the pipeline takes checkpoints: those since its last start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointFigures>,
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
            checkpoints: progress.checkpoints.as_ref().map(|checkpoints| checkpoints.figures()),
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
            for line in node.plugin.iter().flat_map(plugin_lines) {
                let _ = writeln!(text, "{:<width$}    {line}", "");
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
        if let Some(checkpoints) = &self.checkpoints {
            text.push_str(&self.checkpoints_text(checkpoints));
        }
        let held: u64 = self.transforms.iter().map(|node| node.held).sum();
        if held > 0 {
            let _ = writeln!(text, "\n{held} rows are held in windows that had not ended; `--drain` fires them at Ctrl-C.");
        }
        text
    }
}

impl Summary {
    fn checkpoints_text(&self, checkpoints: &CheckpointFigures) -> String {
        let CheckpointFigures { last, bytes, took: Some(took), .. } = checkpoints else { return String::new() };
        let pauses = self.transforms.iter().filter_map(|node| Some((node.barrier_pauses?.max_millis, &node.name)));
        let longest = pauses.max_by(|a, b| a.0.total_cmp(&b.0));
        let longest =
            longest.map(|(millis, name)| format!("; the longest stop for a barrier {millis:.1} ms, in {name}")).unwrap_or_default();
        format!(
            "\nepochs {} to {last}: {bytes} bytes of state; from barrier to decision {:.0} ms, 99 of 100 within {:.0} ms{longest}\n",
            last + 1 - took.count.min(*last),
            took.p50_millis,
            took.p99_millis
        )
    }
}

/// What of a plugin somebody should know: nothing where nothing happened.
fn plugin_lines(plugin: &PluginFigures) -> Vec<String> {
    let mut lines = Vec::new();
    if !plugin.breaches.is_empty() {
        let causes: Vec<String> = plugin.breaches.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        lines.push(format!("plugin: {} rows failed alone; breaches: {}", plugin.poison_rows, causes.join(", ")));
    }
    if plugin.throttled_seconds > 0.0 {
        lines.push(format!("plugin: waited {:.1} s because of limits.cpu_per_second", plugin.throttled_seconds));
    }
    if plugin.log_lines_dropped > 0 {
        lines.push(format!("plugin: {} log lines were dropped", plugin.log_lines_dropped));
    }
    if plugin.breakers_opened > 0 {
        lines.push(format!("plugin: the breaker opened {} times", plugin.breakers_opened));
    }
    lines
}

/// Files that the summary names for each sink.
const MAX_FILES: usize = 10;
