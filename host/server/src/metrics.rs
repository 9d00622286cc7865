//! The figures of a host for Prometheus, in its text format.
//!
//! Counters begin anew with each life of a pipeline, as Prometheus expects of what restarts.

use crate::host::Host;
use crate::hosted::{Hosted, Phase};
use pelton_core::Instant;
use pelton_plugin::PluginFigures;
use pelton_runtime::Progress;
use pelton_runtime::metrics::NodeMetrics;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How requests ended, by the first digit of their status: 2 to 5.
#[derive(Debug, Default)]
pub struct Requests(pub [AtomicU64; 4]);

impl Requests {
    /// One more.
    pub fn count(&self, status: u16) {
        let class = (status / 100).clamp(2, 5) - 2;
        self.0[usize::from(class)].fetch_add(1, Relaxed);
    }
}

/// A family of figures: name, kind, and what it is.
type Family = (&'static str, &'static str, &'static str);
/// One figure of a transform; `None` where there is none.
type OfNode = fn(&NodeMetrics) -> Option<f64>;

/// The figures of transforms.
const NODES: [(Family, OfNode); 10] = [
    (("pelton_rows_in_total", "counter", "Rows that came into a transform."), |node| Some(node.rows_in.load(Relaxed) as f64)),
    (("pelton_rows_refused_total", "counter", "Rows that a transform refused."), |node| Some(node.errors.load(Relaxed) as f64)),
    (("pelton_rows_late_total", "counter", "Rows that came after their window was closed."), |node| Some(node.late.load(Relaxed) as f64)),
    (("pelton_rows_filtered_total", "counter", "Rows that led to nothing, as told."), |node| Some(node.filtered.load(Relaxed) as f64)),
    (("pelton_bytes_total", "counter", "Bytes that a source read or a sink wrote."), |node| Some(node.bytes.load(Relaxed) as f64)),
    (("pelton_busy_seconds_total", "counter", "Time spent in a transform, over all tasks."), |node| {
        Some(node.busy_nanos.load(Relaxed) as f64 / 1e9)
    }),
    (("pelton_backpressure_waits_total", "counter", "Times that a send had to wait for room."), |node| {
        Some(node.waits.load(Relaxed) as f64)
    }),
    (("pelton_lag_records", "gauge", "Records behind the end of a source."), |node| {
        Some(node.lag.load(Relaxed)).filter(|lag| *lag >= 0).map(|lag| lag as f64)
    }),
    (("pelton_watermark_seconds", "gauge", "The watermark of a transform, seconds since 1970."), watermark),
    (("pelton_barrier_pause_seconds_max", "gauge", "The longest stop of a transform for a barrier."), |node| {
        node.pauses.figures().map(|figures| figures.max_millis / 1e3)
    }),
];

fn watermark(node: &NodeMetrics) -> Option<f64> {
    let at = Instant::from_micros_saturating(node.watermark.load(Relaxed));
    (at > Instant::MIN && at < Instant::MAX).then(|| at.micros() as f64 / 1e6)
}

/// All figures.
pub fn text(host: &Host, requests: &Requests) -> String {
    let mut out = String::new();
    let pipelines = host.pipelines();
    process(&mut out, host, requests);
    states(&mut out, &pipelines);
    let lives: Vec<_> = pipelines.iter().filter_map(|hosted| Some((&hosted.name, hosted.life().progress?))).collect();
    for (family, figure) in NODES {
        begin(&mut out, family);
        for (pipeline, progress) in &lives {
            for node in &progress.nodes {
                if let Some(value) = figure(node) {
                    line(&mut out, family.0, &[("pipeline", pipeline), ("transform", &node.name), ("type", &node.kind)], value);
                }
            }
        }
    }
    let family = ("pelton_rows_out_total", "counter", "Rows that came out of an output of a transform.");
    begin(&mut out, family);
    for (pipeline, progress) in &lives {
        for node in &progress.nodes {
            for (port, rows) in node.ports.iter().zip(&node.rows_out) {
                let labels = [("pipeline", pipeline.as_str()), ("transform", &node.name), ("output", port)];
                line(&mut out, family.0, &labels, rows.load(Relaxed) as f64);
            }
        }
    }
    plugins(&mut out, &lives);
    checkpoints(&mut out, &pipelines);
    out
}

/// What plugins cost, and how they failed.
fn plugins(out: &mut String, lives: &[(&String, Arc<Progress>)]) {
    type OfPlugin = fn(&PluginFigures) -> f64;
    let families: [(Family, OfPlugin); 8] = [
        (("pelton_plugin_calls_total", "counter", "Calls of a plugin."), |plugin| plugin.calls as f64),
        (("pelton_plugin_seconds_total", "counter", "Time that a plugin computed."), |plugin| plugin.guest_seconds),
        (("pelton_plugin_throttled_seconds_total", "counter", "Time that a plugin was made to wait by its limit."), |plugin| {
            plugin.throttled_seconds
        }),
        (("pelton_plugin_memory_bytes_peak", "gauge", "The most memory that one instance had."), |plugin| plugin.memory_bytes_peak as f64),
        (("pelton_plugin_instances_recycled_total", "counter", "Instances that were replaced because they had grown."), |plugin| {
            plugin.instances_recycled as f64
        }),
        (("pelton_plugin_instances_discarded_total", "counter", "Instances that were thrown away after a failed call."), |plugin| {
            plugin.instances_discarded as f64
        }),
        (("pelton_plugin_poison_rows_total", "counter", "Rows that failed alone."), |plugin| plugin.poison_rows as f64),
        (("pelton_plugin_breakers_open", "gauge", "Circuit breakers that are open."), |plugin| plugin.breakers_open as f64),
    ];
    let figures: Vec<_> =
        lives.iter().flat_map(|(pipeline, progress)| progress.figures().into_iter().map(move |node| (*pipeline, node))).collect();
    for (family, figure) in families {
        begin(out, family);
        for (pipeline, node) in &figures {
            if let Some(plugin) = &node.plugin {
                line(out, family.0, &[("pipeline", pipeline), ("transform", &node.name)], figure(plugin));
            }
        }
    }
    let family = ("pelton_plugin_traps_total", "counter", "Calls of a plugin that failed as a whole, by cause.");
    begin(out, family);
    for (pipeline, node) in &figures {
        for (cause, count) in node.plugin.iter().flat_map(|plugin| &plugin.breaches) {
            line(out, family.0, &[("pipeline", pipeline), ("transform", &node.name), ("cause", cause)], *count as f64);
        }
    }
}

fn checkpoints(out: &mut String, pipelines: &[Arc<Hosted>]) {
    let figures: Vec<_> =
        pipelines.iter().filter_map(|hosted| Some((&hosted.name, hosted.life().progress?.checkpoints.as_ref()?.figures()))).collect();
    type OfCheckpoints = fn(&pelton_runtime::checkpoint::figures::CheckpointFigures) -> Option<f64>;
    let families: [(Family, OfCheckpoints); 5] = [
        (("pelton_checkpoint_epoch", "gauge", "The last epoch that was decided."), |figures| Some(figures.last as f64)),
        (("pelton_checkpoint_bytes_total", "counter", "Bytes of state that checkpoints wrote."), |figures| Some(figures.bytes as f64)),
        (("pelton_checkpoints_total", "counter", "Checkpoints of this life."), |figures| {
            Some(figures.took.map_or(0.0, |took| took.count as f64))
        }),
        (("pelton_checkpoint_seconds_p99", "gauge", "From barrier to decision, 99 of 100 within."), |figures| {
            figures.took.map(|took| took.p99_millis / 1e3)
        }),
        (("pelton_recovery_seconds", "gauge", "From the beginning of the last start until every task had its state."), |figures| {
            Some(figures.recovery_millis / 1e3)
        }),
    ];
    for (family, figure) in families {
        begin(out, family);
        for (pipeline, figures) in &figures {
            if let Some(value) = figure(figures) {
                line(out, family.0, &[("pipeline", pipeline)], value);
            }
        }
    }
}

fn states(out: &mut String, pipelines: &[Arc<Hosted>]) {
    begin(out, ("pelton_pipeline_state", "gauge", "1 for the state that a pipeline is in."));
    let phases =
        [Phase::Starting, Phase::Running, Phase::Restarting, Phase::Stopping, Phase::Paused, Phase::Stopped, Phase::Ended, Phase::Failed];
    for hosted in pipelines {
        let now = hosted.phase();
        for phase in phases {
            let name = format!("{phase:?}").to_lowercase();
            line(out, "pelton_pipeline_state", &[("pipeline", &hosted.name), ("state", &name)], f64::from(u8::from(phase == now)));
        }
    }
    begin(out, ("pelton_pipeline_restarts_total", "counter", "Lives after the first since the pipeline was started."));
    for hosted in pipelines {
        line(out, "pelton_pipeline_restarts_total", &[("pipeline", &hosted.name)], hosted.life().restarts as f64);
    }
}

fn process(out: &mut String, host: &Host, requests: &Requests) {
    let figures = [
        (("pelton_host_uptime_seconds", "gauge", "Since the start of the host."), Some(host.began.elapsed().as_secs_f64())),
        (("process_resident_memory_bytes", "gauge", "Memory of the process."), resident_bytes()),
        (("process_cpu_seconds_total", "counter", "Processor time of the process."), cpu_seconds()),
    ];
    for (family, value) in figures {
        begin(out, family);
        if let Some(value) = value {
            line(out, family.0, &[], value);
        }
    }
    begin(out, ("pelton_api_requests_total", "counter", "Requests to the API by how they ended."));
    for (class, count) in ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(&requests.0) {
        line(out, "pelton_api_requests_total", &[("status", class)], count.load(Relaxed) as f64);
    }
}

fn begin(out: &mut String, (name, kind, what): Family) {
    let _ = writeln!(out, "# HELP {name} {what}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    let _ = write!(out, "{name}");
    for (number, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{label}=\"{text}\"", if number == 0 { "{" } else { "," });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

/// Of `/proc`; nothing elsewhere.
pub fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    /// What Linux counts in for programs, whatever its own clock.
    const TICKS_A_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // `pid (name) state …`; user and system time are the 14th and 15th field of all.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        let mut out = String::new();
        line(&mut out, "a", &[("b", "x\"y\\z\n"), ("c", "")], 1.5);
        line(&mut out, "d", &[], 2.0);
        assert_eq!(out, "a{b=\"x\\\"y\\\\z\\n\",c=\"\"} 1.5\nd 2\n");
    }

    #[test]
    fn the_process_has_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1e6));
        assert!(cpu_seconds().is_some());
    }
}
