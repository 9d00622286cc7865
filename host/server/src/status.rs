//! What a pipeline of a host is doing, in figures.

use crate::folder::{Deployment, Wanted};
use crate::host::Host;
use crate::hosted::{Failed, Hosted, Life, Phase, Sample};
use crate::refusal::Refusal;
use crate::versions::Asked;
use pelton_core::Instant;
use pelton_runtime::Progress;
use pelton_runtime::checkpoint::figures::CheckpointFigures;
use pelton_runtime::metrics::{NodeFigures, NodeMetrics};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// One line of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Name of the pipeline.
    pub name: String,
    /// Where it is in its life.
    pub state: Phase,
    /// Since when, RFC 3339.
    pub since: String,
    /// What is to be with it.
    pub wanted: Wanted,
    /// The version that is to run.
    pub version: u64,
    /// Lives after the first since it was started.
    pub restarts: u64,
    /// Its last failure, also one that passed.
    pub last_failure: Option<Failed>,
    /// Rows that sources have read.
    pub rows_read: u64,
    /// The same a second, over the last seconds.
    pub rows_per_second: f64,
    /// The lowest watermark of a transform, RFC 3339.
    pub watermark: Option<String>,
    /// How far that is behind the clock.
    pub watermark_lag_seconds: Option<f64>,
    /// Records behind the end, where sources know it.
    pub lag: Option<i64>,
    /// Rows that were refused.
    pub errors: u64,
    /// Rows that came too late.
    pub late: u64,
    /// Processors that its transforms keep busy.
    pub busy: f64,
}

/// All that is known.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// In short.
    #[serde(flatten)]
    pub summary: Summary,
    /// Tasks side by side.
    pub parallelism: usize,
    /// Digests of its plugins.
    pub plugins: BTreeMap<String, String>,
    /// Transforms that swaps have made other than the file says.
    pub changes: Vec<Asked>,
    /// Its checkpoints since it was started.
    pub checkpoints: Option<CheckpointFigures>,
    /// Its transforms, sources first.
    pub transforms: Vec<Transform>,
}

/// One transform.
#[derive(Clone, Debug, Serialize)]
pub struct Transform {
    /// Its figures since the start.
    #[serde(flatten)]
    pub figures: NodeFigures,
    /// Rows in a second, over the last seconds.
    pub rows_in_per_second: f64,
    /// Rows out a second.
    pub rows_out_per_second: f64,
    /// Processors that it keeps busy.
    pub busy: f64,
}

/// Rows that sources have read.
pub fn rows_read(progress: &Progress) -> u64 {
    progress.nodes.iter().filter(|node| is_source(node)).map(|node| node.rows_in.load(Relaxed)).sum()
}

fn is_source(node: &NodeMetrics) -> bool {
    node.kind.starts_with("ReadFrom") || node.kind == "Create" || node.kind == "GenerateEvents"
}

/// In short.
pub fn summary(host: &Host, hosted: &Hosted) -> Result<Summary, Refusal> {
    let desired = host.folder.desired(&hosted.name)?;
    let life = hosted.life();
    let figures = life.progress.as_ref().map(|progress| progress.figures()).unwrap_or_default();
    let rates = rates(&life);
    let is_source = |number: usize| life.progress.as_ref().is_some_and(|progress| is_source(&progress.nodes[number]));
    let lags: Vec<i64> = figures.iter().filter_map(|node| node.lag).collect();
    let slowest = figures.iter().filter(|node| node.watermark.is_some()).min_by_key(|node| node.watermark.clone());
    Ok(Summary {
        name: hosted.name.clone(),
        state: life.phase,
        since: life.since.to_string(),
        wanted: desired.state,
        version: desired.version,
        restarts: life.restarts,
        rows_read: life.progress.as_ref().map_or(0, |progress| rows_read(progress)),
        rows_per_second: rates
            .iter()
            .enumerate()
            .filter(|(number, _)| is_source(*number))
            .map(|(_, rate)| rate.0)
            .fold(0.0, |sum, rate| sum + rate),
        watermark: slowest.and_then(|node| node.watermark.clone()),
        watermark_lag_seconds: slowest.and_then(|node| node.watermark_lag_seconds),
        lag: (!lags.is_empty()).then(|| lags.iter().sum()),
        errors: figures.iter().map(|node| node.errors).sum(),
        late: figures.iter().map(|node| node.late).sum(),
        busy: rates.iter().map(|rate| rate.2).fold(0.0, |sum, rate| sum + rate),
        last_failure: life.last_failure,
    })
}

/// All that is known.
pub fn status(host: &Host, hosted: &Hosted) -> Result<Status, Refusal> {
    let summary = summary(host, hosted)?;
    let Deployment { plugins, changes, .. } = host.folder.version(&hosted.name, summary.version)?.deployment;
    let life = hosted.life();
    let rates = rates(&life).into_iter().chain(std::iter::repeat((0.0, 0.0, 0.0)));
    let figures = life.progress.as_ref().map(|progress| progress.figures()).unwrap_or_default();
    let transforms = figures.into_iter().zip(rates).map(|(figures, (rows_in_per_second, rows_out_per_second, busy))| Transform {
        figures,
        rows_in_per_second,
        rows_out_per_second,
        busy,
    });
    Ok(Status {
        parallelism: life.parallelism,
        plugins,
        changes,
        checkpoints: life.progress.as_ref().and_then(|progress| Some(progress.checkpoints.as_ref()?.figures())),
        transforms: transforms.collect(),
        summary,
    })
}

/// Of each node: rows in and out a second, and processors kept busy; empty while nothing is known.
fn rates(life: &Life) -> Vec<(f64, f64, f64)> {
    let (Some(first), Some(last)) = (life.samples.front(), life.samples.back()) else { return Vec::new() };
    match life.phase {
        Phase::Running => between(first, last),
        _ => Vec::new(),
    }
}

fn between(first: &Sample, last: &Sample) -> Vec<(f64, f64, f64)> {
    let seconds = seconds(first.at, last.at);
    let nodes = first.nodes.iter().zip(&last.nodes);
    let a_second = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
    nodes.map(|(from, to)| (a_second(from.0, to.0), a_second(from.1, to.1), a_second(from.2, to.2) / 1e9)).collect()
}

/// At least a tenth, so that nothing is divided by zero.
fn seconds(from: Instant, to: Instant) -> f64 {
    ((to.micros() - from.micros()) as f64 / 1e6).max(0.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let at = |micros, nodes| Sample { at: Instant::from_micros_saturating(micros), nodes };
        let rates = between(&at(0, vec![(10, 5, 0), (0, 0, 0)]), &at(2_000_000, vec![(110, 25, 1_000_000_000), (0, 4, 0)]));
        assert_eq!(rates, [(50.0, 10.0, 0.5), (0.0, 2.0, 0.0)]);
    }
}
