//! Who reads a table, and when: first before the pipeline runs, then whenever the time between two readings has passed, on the
//! I/O runtime, so that no worker waits for it. A reading takes the place of the one before when it is whole.
//!
//! A reading that fails leaves the last one where it is; it is counted, and told once a minute. Two rows of one key are no
//! failed reading but a wrong table, and stop the pipeline whenever they are found.
//!
//! The table is no state: it can be read again. Its memory counts all the same (`TablePlan::limit`).

use super::table::{Fault, Rows, TablePlan};
use crate::metrics::{NodeMetrics, UserMetric};
use pelton_connect::{ConnectError, SourceContext, open_source};
use pelton_core::{Duration, Instant};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::watch;

/// Between two warnings of readings that fail.
const WARN_EVERY: Duration = Duration::from_micros(60_000_000);
/// Metrics of a table that is read again.
pub const READINGS: &str = "table_readings";
/// See [`READINGS`].
pub const FAILED_READINGS: &str = "table_readings_failed";

/// A table that the tasks of a lookup join share.
pub struct Shared {
    plan: TablePlan,
    context: SourceContext,
    /// Never says stop: half a table would be a wrong one.
    _go_on: watch::Sender<bool>,
    rows: RwLock<Arc<Rows>>,
    schedule: Mutex<Schedule>,
}

#[derive(Default)]
struct Schedule {
    /// When to read again; `None`: nobody has told the time yet.
    next: Option<Instant>,
    reading: bool,
    /// How the last reading went, until somebody looks.
    outcome: Option<Result<(), Fault>>,
    /// Failed readings since the last warning.
    failed: u64,
    warned: Option<Instant>,
}

impl Shared {
    /// Reads the table for the first time. `context` is a source's in the same place.
    pub async fn start(plan: TablePlan, context: SourceContext) -> Result<Arc<Shared>, ConnectError> {
        let (go_on, stop) = watch::channel(false);
        let context = SourceContext { parallelism: 1, stop, ..context };
        let rows = read(&plan, &context).await.map_err(Fault::into_error)?;
        Ok(Arc::new(Shared { plan, context, _go_on: go_on, rows: RwLock::new(Arc::new(rows)), schedule: Mutex::default() }))
    }

    /// The last whole reading.
    pub fn current(&self) -> Arc<Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a reading when it is time, and tells how the last one went. An error is for the pipeline to stop with.
    pub fn tick(self: &Arc<Shared>, now: Instant, metrics: &NodeMetrics) -> Result<(), ConnectError> {
        let Some(period) = self.plan.refresh else { return Ok(()) };
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = schedule.outcome.take() {
            schedule.reading = false;
            match outcome {
                Ok(()) => count(metrics, READINGS),
                Err(Fault::Stop(error)) => return Err(error),
                Err(Fault::Keep(error)) => {
                    count(metrics, FAILED_READINGS);
                    schedule.warn(now, &self.context.transform, &error);
                }
            }
        }
        let next = *schedule.next.get_or_insert(now.saturating_add(period));
        if !schedule.reading && now >= next {
            schedule.reading = true;
            schedule.next = Some(now.saturating_add(period));
            let shared = self.clone();
            self.context.io.spawn(async move { shared.read_again().await });
        }
        Ok(())
    }

    async fn read_again(&self) {
        let outcome = read(&self.plan, &self.context).await.map(|rows| {
            *self.rows.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rows);
        });
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner).outcome = Some(outcome);
    }
}

impl Schedule {
    fn warn(&mut self, now: Instant, transform: &str, error: &ConnectError) {
        self.failed += 1;
        if self.warned.is_none_or(|warned| now >= warned.saturating_add(WARN_EVERY)) {
            tracing::warn!(transform, failed = self.failed, %error, "the table cannot be read again; the last reading holds");
            self.failed = 0;
            self.warned = Some(now);
        }
    }
}

async fn read(plan: &TablePlan, context: &SourceContext) -> Result<Rows, Fault> {
    let source = open_source(&plan.kind, &plan.config, context.clone()).await?;
    plan.read(source).await
}

fn count(metrics: &NodeMetrics, name: &str) {
    let mut user = metrics.user.lock().unwrap_or_else(PoisonError::into_inner);
    if let UserMetric::Counter { value } = user.entry(name.to_string()).or_insert(UserMetric::Counter { value: 0.0 }) {
        *value += 1.0;
    }
}
