//! What a run shows while it runs: one live block on a terminal, a plain line every few seconds elsewhere; and the
//! throughput over time, for the report.

use crate::commands::run::Output;
use indicatif::{ProgressBar, ProgressStyle};
use pelton_runtime::Progress;
use pelton_runtime::clock::Stopwatch;
use pelton_server::status::rows_read;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

/// A terminal is refreshed this often.
const LIVE: Duration = Duration::from_millis(250);
/// A log gets a line this often.
const PLAIN: Duration = Duration::from_secs(5);
/// Points of the timeline at most; then every second one goes and the step doubles.
const MAX_TIMELINE: usize = 1_200;

/// Rows read since the start, by seconds since the start.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub points: Vec<(f64, u64)>,
    pub seconds: f64,
}

pub struct Display {
    task: tokio::task::JoinHandle<Timeline>,
    end: tokio::sync::oneshot::Sender<()>,
}

impl Display {
    pub fn start(progress: Arc<Progress>, quiet: bool, output: Output) -> Display {
        let (end, ended) = tokio::sync::oneshot::channel();
        Display { task: tokio::spawn(show(progress, quiet, output, ended)), end }
    }

    pub async fn finish(self) -> Timeline {
        let _ = self.end.send(());
        self.task.await.unwrap_or_default()
    }
}

async fn show(progress: Arc<Progress>, quiet: bool, output: Output, mut ended: tokio::sync::oneshot::Receiver<()>) -> Timeline {
    let watch = Stopwatch::start();
    let live = !quiet && output == Output::Text && std::io::stderr().is_terminal();
    let bar = live.then(|| {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar
    });
    let mut ticks = tokio::time::interval(LIVE);
    let mut timeline = Timeline { points: vec![(0.0, 0)], seconds: 0.0 };
    let (mut step, mut last_plain, mut last) = (LIVE.as_secs_f64(), 0.0, (0.0, 0));
    loop {
        let over = tokio::select! {
            _ = &mut ended => true,
            _ = ticks.tick() => false,
        };
        let seconds = watch.elapsed().as_secs_f64();
        let read = rows_read(&progress);
        if over || seconds - timeline.points.last().map_or(0.0, |point| point.0) >= step {
            timeline.points.push((seconds, read));
            if timeline.points.len() > MAX_TIMELINE {
                let mut keep = false;
                timeline.points.retain(|_| {
                    keep = !keep;
                    keep
                });
                step *= 2.0;
            }
        }
        if over {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            timeline.seconds = seconds;
            return timeline;
        }
        if let Some(bar) = &bar {
            let rate = (read - last.1) as f64 / (seconds - last.0).max(1e-3);
            last = (seconds, read);
            bar.set_message(block(&progress, seconds, rate));
        } else if !quiet && seconds - last_plain >= PLAIN.as_secs_f64() {
            let rate = (read - last.1) as f64 / (seconds - last.0).max(1e-3);
            last = (seconds, read);
            last_plain = seconds;
            match output {
                Output::Text => eprintln!("{}", line(&progress, seconds, rate)),
                Output::Json => eprintln!(
                    "{}",
                    serde_json::json!({"seconds": seconds, "rows_read": read, "rows_per_second": rate, "transforms": progress.figures()})
                ),
            }
        }
    }
}

fn line(progress: &Progress, seconds: f64, rate: f64) -> String {
    let figures = progress.figures();
    let errors: u64 = figures.iter().map(|node| node.errors).sum();
    let late: u64 = figures.iter().map(|node| node.late).sum();
    let watermark = figures.iter().filter_map(|node| node.watermark.clone()).min().unwrap_or_else(|| "-".into());
    let lag: i64 = figures.iter().filter_map(|node| node.lag).sum();
    let lag = if figures.iter().any(|node| node.lag.is_some()) { format!(", lag {lag} records") } else { String::new() };
    format!("{seconds:.0} s: {} rows read, {rate:.0} rows/s, watermark {watermark}{lag}, {errors} errors, {late} late", rows_read(progress))
}

fn block(progress: &Progress, seconds: f64, rate: f64) -> String {
    let mut text = line(progress, seconds, rate);
    for node in progress.figures() {
        let out: u64 = node.rows_out.iter().map(|(_, rows)| rows).sum();
        text.push_str(&format!("\n    {:<32} in {:>12}  out {:>12}", node.name, node.rows_in, out));
        if let (Some(watermark), Some(lag)) = (&node.watermark, node.watermark_lag_seconds) {
            text.push_str(&format!("  watermark {watermark}, {lag:.1} s behind the clock"));
        }
        if let Some(drift) = node.watermark_drift_seconds.filter(|drift| *drift > 0.0) {
            text.push_str(&format!(", partitions {drift:.1} s apart"));
        }
        for (word, rows) in [("errors", node.errors), ("late", node.late), ("waits", node.waits)] {
            if rows > 0 {
                text.push_str(&format!("  {word} {rows}"));
            }
        }
    }
    text
}
