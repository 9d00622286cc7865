//! What checkpoints cost: how long each transform stood still for a barrier, how long epochs took, and what they wrote.

use crate::clock;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Longer durations count as this one: an hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;

/// Durations, of which quantiles are known to two digits.
#[derive(Debug)]
pub struct Durations(Mutex<Histogram<u64>>);

impl Default for Durations {
    fn default() -> Durations {
        Durations(Mutex::new(Histogram::new_with_max(LONGEST, 2).expect("the bounds are sound")))
    }
}

impl Durations {
    /// One more.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
        self.0.lock().expect("no holder of this lock panics").saturating_record(micros);
    }

    /// Of all so far; `None` before the first.
    pub fn figures(&self) -> Option<DurationFigures> {
        let all = self.0.lock().expect("no holder of this lock panics");
        let millis = |micros: u64| micros as f64 / 1e3;
        (!all.is_empty()).then(|| DurationFigures {
            count: all.len(),
            p50_millis: millis(all.value_at_quantile(0.5)),
            p99_millis: millis(all.value_at_quantile(0.99)),
            max_millis: millis(all.max()),
        })
    }
}

/// Durations at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DurationFigures {
    /// So many.
    pub count: u64,
    /// Their median, milliseconds.
    pub p50_millis: f64,
    /// The one that 99 of 100 do not exceed.
    pub p99_millis: f64,
    /// The longest.
    pub max_millis: f64,
}

/// What is counted of epochs, by the driver, and of the start, by tasks.
#[derive(Debug)]
pub struct EpochMetrics {
    began: clock::Stopwatch,
    /// Until the last task had what it goes on from, microseconds.
    recovery: AtomicU64,
    /// Bytes of segments that were written for epochs; what merging writes is not among them.
    bytes: AtomicU64,
    last_bytes: AtomicU64,
    /// From barrier to decision.
    took: Durations,
}

impl EpochMetrics {
    /// None yet; the start begins now.
    pub fn start() -> EpochMetrics {
        let (bytes, last_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        EpochMetrics { began: clock::Stopwatch::start(), recovery: AtomicU64::new(0), bytes, last_bytes, took: Durations::default() }
    }

    /// A task has what it goes on from.
    pub fn recovered(&self) {
        self.recovery.fetch_max(self.began.elapsed().as_micros() as u64, Relaxed);
    }

    /// An epoch is prepared: bytes of its own segments.
    pub fn prepared(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.last_bytes.store(bytes, Relaxed);
    }

    /// An epoch is decided.
    pub fn decided(&self, took: Duration) {
        self.took.record(took);
    }

    /// The figures now.
    pub fn figures(&self, last: u64) -> CheckpointFigures {
        let (bytes, last_bytes) = (self.bytes.load(Relaxed), self.last_bytes.load(Relaxed));
        let recovery_millis = self.recovery.load(Relaxed) as f64 / 1e3;
        CheckpointFigures { last, recovery_millis, bytes, last_bytes, took: self.took.figures() }
    }
}

/// Checkpoints of one life of a pipeline at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointFigures {
    /// The last decided epoch.
    pub last: u64,
    /// From the beginning of the start until every task had its state.
    pub recovery_millis: f64,
    /// Bytes that epochs wrote, and the last of them.
    pub bytes: u64,
    /// See `bytes`.
    pub last_bytes: u64,
    /// From barrier to decision.
    pub took: Option<DurationFigures>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_a_sorted_list() {
        let durations = Durations::default();
        assert!(durations.figures().is_none());
        for millis in (1..=1_000u64).rev() {
            durations.record(Duration::from_millis(millis));
        }
        let figures = durations.figures().expect("there are some");
        let near = |found: f64, wanted: f64| (found - wanted).abs() <= wanted / 50.0;
        assert_eq!(figures.count, 1_000);
        assert!(near(figures.p50_millis, 500.0) && near(figures.p99_millis, 990.0) && near(figures.max_millis, 1_000.0), "{figures:?}");
        durations.record(Duration::from_secs(1 << 40));
        assert!(durations.figures().is_some_and(|figures| near(figures.max_millis, 3_600_000.0)), "the longest is an hour");
    }
}
