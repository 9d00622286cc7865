//! What a run counts. Workers add with relaxed atomics; the command line and the report read.
//!
//! The balance that must hold for each transform at the end of a run: rows in = rows that led to an output + filtered +
//! errors + late + held. "Held" are rows in open windows; nothing else may be missing.

use crate::checkpoint::figures::{DurationFigures, Durations};
use crate::recording::Recorder;
use pelton_core::{Batch, Instant};
use pelton_plugin::{Meters, PluginFigures};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// The counters of one transform, over all its tasks.
#[derive(Debug)]
pub struct NodeMetrics {
    /// Full name.
    pub name: String,
    /// Its `type:`.
    pub kind: String,
    /// Names of the outputs, in the order of ports.
    pub ports: Vec<String>,
    /// Rows that came in. Of a source: rows and refused records that it read.
    pub rows_in: AtomicU64,
    /// Rows that came out, by port.
    pub rows_out: Vec<AtomicU64>,
    /// Rows in that led to at least one row out (of a sink: that were written).
    pub led: AtomicU64,
    /// Rows in that led to nothing because the transform says so.
    pub filtered: AtomicU64,
    /// Rows in that were refused.
    pub errors: AtomicU64,
    /// Rows in that came after their window was closed.
    pub late: AtomicU64,
    /// Rows in that are in open windows, as of the end of the run.
    pub held: AtomicU64,
    /// Bytes read or written, for sources and sinks.
    pub bytes: AtomicU64,
    /// Time spent in the transform, nanoseconds, over all tasks.
    pub busy_nanos: AtomicU64,
    /// Times that a send had to wait for room.
    pub waits: AtomicU64,
    /// Records behind the end, for sources that know it; -1 = unknown.
    pub lag: AtomicI64,
    /// The smallest output watermark of its tasks is not tracked here; this is the last one that a task gave out.
    pub watermark: AtomicI64,
    /// How far the fastest split is ahead of the slowest, microseconds, in the task that said so last; -1 = unknown.
    pub drift: AtomicI64,
    /// How long it stood still for barriers. Of a sink: until what it had was durable.
    pub pauses: Durations,
    /// The user's metrics, by name.
    pub user: Mutex<UserMetrics>,
    /// Rows to try a new version with.
    pub sample: Tasting,
    /// Of plugins: what their sandboxes used, and the limits that they met.
    pub plugin: Arc<Meters>,
    /// Records what comes and goes, when somebody asks for it.
    pub recorder: Recorder,
    /// Keys that had a tenth of some task's rows, and how many they have at least.
    hot: Mutex<BTreeMap<String, u64>>,
}

/// Some rows of a transform's input, when somebody asks for them.
#[derive(Debug, Default)]
pub struct Tasting {
    wanted: AtomicBool,
    rows: Mutex<Option<Batch>>,
}

impl Tasting {
    /// At most so many rows.
    const ROWS: usize = 256;

    /// A batch passes.
    #[inline]
    pub fn offer(&self, batch: &Batch) {
        if self.wanted.load(Relaxed) {
            self.take(batch);
        }
    }

    #[cold]
    fn take(&self, batch: &Batch) {
        let rows = batch.slice(0, batch.num_rows().min(Tasting::ROWS));
        *self.rows.lock().expect("no holder of this lock panics") = Some(rows);
        self.wanted.store(false, Relaxed);
    }

    /// Asks for the rows that pass next.
    pub fn want(&self) {
        self.wanted.store(true, Relaxed);
    }

    /// What has passed since somebody asked.
    pub fn rows(&self) -> Option<Batch> {
        self.rows.lock().expect("no holder of this lock panics").take()
    }
}

/// A key of a grouping that has so many rows that the task which owns it may be what everything waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HotKey {
    /// Its values, in the order of `group_by`.
    pub key: String,
    /// Its share of the rows, about.
    pub share: f64,
}

/// The share of the rows from which a key is hot.
const HOT_SHARE: f64 = 0.1;
/// With fewer rows no key is hot.
const HOT_MIN_ROWS: u64 = 10_000;

/// Metrics of the user, by name.
pub type UserMetrics = BTreeMap<String, UserMetric>;

/// A metric that a plugin counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum UserMetric {
    /// A sum of additions.
    Counter { value: f64 },
    /// The last value.
    Gauge { value: f64 },
    /// Four figures of many observations.
    Distribution { count: u64, sum: f64, min: f64, max: f64 },
}

impl UserMetric {
    /// Takes in what was counted besides, or later: a gauge has the later value. Of two kinds the first stays.
    pub fn merge(&mut self, other: &UserMetric) {
        match (self, other) {
            (UserMetric::Counter { value }, UserMetric::Counter { value: more }) => *value += more,
            (UserMetric::Gauge { value }, UserMetric::Gauge { value: later }) => *value = *later,
            (
                UserMetric::Distribution { count, sum, min, max },
                UserMetric::Distribution { count: more, sum: sums, min: least, max: most },
            ) => {
                *count += more;
                *sum += sums;
                *min = min.min(*least);
                *max = max.max(*most);
            }
            _ => {}
        }
    }
}

/// Merges metrics into others, name by name.
pub fn merge_user(into: &mut UserMetrics, from: &UserMetrics) {
    for (name, metric) in from {
        match into.get_mut(name) {
            Some(known) => known.merge(metric),
            None => drop(into.insert(name.clone(), metric.clone())),
        }
    }
}

/// How the rows of one message fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Led to an output.
    pub led: u64,
    /// Led to nothing, as told.
    pub filtered: u64,
    /// Refused.
    pub errors: u64,
    /// Too late.
    pub late: u64,
    /// Rows in besides those that arrived: a row in n windows counts n times where windows are told apart.
    pub copies: u64,
}

impl Account {
    /// Takes note that `rows` rows became one for each entry of `origin`, which ascends. A row in no window is filtered.
    pub fn assigned(&mut self, rows: usize, origin: &[u32]) {
        let in_some = origin.chunk_by(|a, b| a == b).count();
        self.filtered += (rows - in_some) as u64;
        self.copies += (origin.len() - in_some) as u64;
    }
}

impl NodeMetrics {
    /// All zero.
    pub fn new(name: String, kind: String, ports: Vec<String>) -> NodeMetrics {
        NodeMetrics {
            rows_out: ports.iter().map(|_| AtomicU64::new(0)).collect(),
            name,
            kind,
            ports,
            rows_in: AtomicU64::new(0),
            led: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            late: AtomicU64::new(0),
            held: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            lag: AtomicI64::new(-1),
            watermark: AtomicI64::new(Instant::MIN.micros()),
            drift: AtomicI64::new(-1),
            pauses: Durations::default(),
            user: Mutex::new(BTreeMap::new()),
            sample: Tasting::default(),
            plugin: Arc::default(),
            recorder: Recorder::default(),
            hot: Mutex::new(BTreeMap::new()),
        }
    }

    /// The heaviest keys of one task, which no other task has.
    pub fn heaviest(&self, keys: Vec<(String, u64)>) {
        if !keys.is_empty() {
            let rows = self.rows_in.load(Relaxed) as f64;
            let mut hot = self.hot.lock().expect("no holder of this lock panics");
            hot.extend(keys);
            // What was hot once and is no longer near it would fill the memory in the end.
            hot.retain(|_, own| *own as f64 >= HOT_SHARE / 2.0 * rows);
        }
    }

    fn hot_keys(&self) -> Vec<HotKey> {
        let rows = self.rows_in.load(Relaxed);
        let hot = self.hot.lock().expect("no holder of this lock panics");
        let shares = hot.iter().map(|(key, own)| HotKey { key: key.clone(), share: *own as f64 / rows.max(1) as f64 });
        let mut keys: Vec<HotKey> = shares.filter(|key| rows >= HOT_MIN_ROWS && key.share > HOT_SHARE).collect();
        keys.sort_by(|a, b| b.share.total_cmp(&a.share));
        keys
    }

    /// Adds what a call says of itself.
    pub fn account(&self, account: Account, drift: Option<i64>) {
        if let Some(drift) = drift {
            self.drift.store(drift, Relaxed);
        }
        self.rows_in.fetch_add(account.copies, Relaxed);
        self.led.fetch_add(account.led, Relaxed);
        self.filtered.fetch_add(account.filtered, Relaxed);
        self.errors.fetch_add(account.errors, Relaxed);
        self.late.fetch_add(account.late, Relaxed);
    }

    /// A copy of the figures at `now`.
    pub fn snapshot(&self, now: Instant) -> NodeFigures {
        let lag = self.lag.load(Relaxed);
        let watermark =
            Some(Instant::from_micros_saturating(self.watermark.load(Relaxed))).filter(|at| *at > Instant::MIN && *at < Instant::MAX);
        let drift = self.drift.load(Relaxed);
        NodeFigures {
            name: self.name.clone(),
            kind: self.kind.clone(),
            rows_in: self.rows_in.load(Relaxed),
            rows_out: self.ports.iter().cloned().zip(self.rows_out.iter().map(|rows| rows.load(Relaxed))).collect(),
            led: self.led.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            errors: self.errors.load(Relaxed),
            late: self.late.load(Relaxed),
            held: self.held.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            busy_seconds: self.busy_nanos.load(Relaxed) as f64 / 1e9,
            waits: self.waits.load(Relaxed),
            lag: (lag >= 0).then_some(lag),
            watermark: watermark.map(|at| at.to_string()),
            watermark_lag_seconds: watermark.map(|at| (now.micros() - at.micros()) as f64 / 1e6),
            watermark_drift_seconds: (drift >= 0).then_some(drift as f64 / 1e6),
            barrier_pauses: self.pauses.figures(),
            user: self.user.lock().expect("no holder of this lock panics").clone(),
            plugin: self.plugin.figures(),
            hot_keys: self.hot_keys(),
        }
    }
}

/// The figures of one transform at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct NodeFigures {
    /// Full name.
    pub name: String,
    /// Its `type:`.
    pub kind: String,
    /// See [`NodeMetrics`].
    pub rows_in: u64,
    /// By output; the main one is `""`.
    pub rows_out: Vec<(String, u64)>,
    /// See [`NodeMetrics`].
    pub led: u64,
    /// See [`NodeMetrics`].
    pub filtered: u64,
    /// See [`NodeMetrics`].
    pub errors: u64,
    /// See [`NodeMetrics`].
    pub late: u64,
    /// See [`NodeMetrics`].
    pub held: u64,
    /// See [`NodeMetrics`].
    pub bytes: u64,
    /// Time spent in the transform over all tasks.
    pub busy_seconds: f64,
    /// See [`NodeMetrics`].
    pub waits: u64,
    /// Records behind the end.
    pub lag: Option<i64>,
    /// RFC 3339, once it has left the beginning and before the end.
    pub watermark: Option<String>,
    /// How far the watermark is behind the clock.
    pub watermark_lag_seconds: Option<f64>,
    /// Where watermarks are made: how far the fastest split of a task is ahead of its slowest.
    pub watermark_drift_seconds: Option<f64>,
    /// How long its tasks stood still for barriers; of a sink: until what it had was durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barrier_pauses: Option<DurationFigures>,
    /// The user's metrics.
    pub user: UserMetrics,
    /// Of plugins: what their sandboxes used, and the limits that they met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginFigures>,
    /// Of a grouping: keys with more than a tenth of the rows, the heaviest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hot_keys: Vec<HotKey>,
}

impl NodeFigures {
    /// Whether every row that came in is accounted for.
    pub fn balanced(&self) -> bool {
        self.rows_in == self.led + self.filtered + self.errors + self.late + self.held
    }
}

/// Points (event time, processing time), the stride, and rows that were offered.
type Sample = (Vec<(i64, i64)>, u64, u64);

/// A sample of (event time, processing time) for the report's scatter plot, bounded: when it is full every second point
/// goes and from then on only every 2nd, 4th … row is taken, so that the sample stays even and deterministic.
#[derive(Debug)]
pub struct Scatter {
    points: Mutex<Sample>,
}

/// Points that a scatter plot keeps at most.
pub const MAX_POINTS: usize = 8_000;

impl Default for Scatter {
    fn default() -> Self {
        Scatter { points: Mutex::new((Vec::new(), 1, 0)) }
    }
}

impl Scatter {
    /// Offers the event times of rows that were seen at `now`.
    pub fn offer(&self, times: &[i64], now: Instant) {
        let mut guard = self.points.lock().expect("no holder of this lock panics");
        let (points, stride, skipped) = &mut *guard;
        let mut at = (*stride - *skipped % *stride) as usize % *stride as usize;
        while at < times.len() {
            points.push((times[at], now.micros()));
            at += *stride as usize;
            if points.len() >= MAX_POINTS {
                let mut keep = false;
                points.retain(|_| {
                    keep = !keep;
                    keep
                });
                *stride *= 2;
            }
        }
        *skipped += times.len() as u64;
    }

    /// The points so far: event time, processing time, microseconds.
    pub fn points(&self) -> Vec<(i64, i64)> {
        self.points.lock().expect("no holder of this lock panics").0.clone()
    }
}

/// Rows given out per window start, for the report; bounded.
#[derive(Debug, Default)]
pub struct WindowCounts {
    counts: Mutex<BTreeMap<i64, u64>>,
}

/// Windows that are remembered at most; the oldest go first.
pub const MAX_WINDOWS: usize = 2_000;

impl WindowCounts {
    /// `rows` input rows ended in the window that starts here.
    pub fn add(&self, start: i64, rows: u64) {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        *counts.entry(start).or_default() += rows;
        if counts.len() > MAX_WINDOWS {
            counts.pop_first();
        }
    }

    /// Window start (microseconds) and rows.
    pub fn counts(&self) -> Vec<(i64, u64)> {
        self.counts.lock().expect("no holder of this lock panics").iter().map(|(start, rows)| (*start, *rows)).collect()
    }
}
