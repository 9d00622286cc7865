//! The end of a branch: hands rows to a connector.

use crate::clock;
use crate::failure::Failure;
use crate::message::End;
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Out, Refusals};
use crate::windows;
use async_trait::async_trait;
use pelton_connect::{Sink, SinkSummary, Staged};
use pelton_core::{Batch, Duration, Epoch, Instant, WindowFn};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// How often a connector is told the time.
const SINK_TICK: Duration = Duration::from_micros(1_000_000);

/// What sinks wrote, by transform, for the summary.
pub type Summaries = Arc<Mutex<Vec<(String, SinkSummary)>>>;

/// The operator.
pub struct SinkOperator {
    /// The connector; `None` once it is finished or aborted.
    pub sink: Option<Box<dyn Sink>>,
    /// Where to leave its summary.
    pub summaries: Summaries,
    /// For bytes written.
    pub metrics: Arc<NodeMetrics>,
    /// Windows of the input.
    pub window_fn: WindowFn,
    /// What becomes of rows that the connector refuses.
    pub refusals: Refusals,
    /// When the connector was last told the time.
    pub ticked: Instant,
    /// Rows become visible by epochs, so that the end of the input makes none of them visible.
    pub by_epochs: bool,
}

impl SinkOperator {
    fn wrote(&self, summary: SinkSummary) {
        self.metrics.bytes.fetch_add(summary.bytes, Relaxed);
        self.summaries.lock().expect("no holder of this lock panics").push((self.refusals.transform.clone(), summary));
    }

    fn failed(&self, error: pelton_connect::ConnectError) -> Failure {
        Failure::Connect { transform: self.refusals.transform.clone(), error }
    }
}

#[async_trait(?Send)]
impl Operator for SinkOperator {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        // As in Beam, a row is written once for each of its windows.
        let batch = if self.window_fn.is_single() { batch } else { windows::fixed(batch, self.window_fn, &mut out.account) };
        let sink = self.sink.as_mut().expect("no rows follow the end");
        let errors = match sink.write(&batch).await {
            Ok(errors) => errors,
            Err(error) => return Err(self.failed(error)),
        };
        out.account.led += (batch.num_rows() - errors.len()) as u64;
        self.refusals.refuse(&batch, &errors, out)
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        if out.now < self.ticked.saturating_add(SINK_TICK) {
            return Ok(());
        }
        self.ticked = out.now;
        match &mut self.sink {
            Some(sink) => sink.tick(out.now).await.map_err(|error| self.failed(error)),
            None => Ok(()),
        }
    }

    async fn end(&mut self, _end: End, _out: &mut Out) -> Result<(), Failure> {
        if self.by_epochs {
            return Ok(());
        }
        let Some(sink) = self.sink.take() else { return Ok(()) };
        let watch = clock::Stopwatch::start();
        let summary = sink.finish().await.map_err(|error| self.failed(error))?;
        self.metrics.busy_nanos.fetch_add(watch.nanos(), Relaxed);
        self.wrote(summary);
        Ok(())
    }

    async fn barrier(&mut self, epoch: Epoch, last: bool) -> Result<Option<Staged>, Failure> {
        let Some(sink) = &mut self.sink else { return Ok(None) };
        let watch = clock::Stopwatch::start();
        let staged = sink.prepare(epoch, last).await;
        self.metrics.busy_nanos.fetch_add(watch.nanos(), Relaxed);
        let summary = last.then(|| sink.written());
        let staged = staged.map_err(|error| self.failed(error))?;
        if let Some(summary) = summary {
            self.sink = None;
            self.wrote(summary);
        }
        Ok(Some(staged))
    }

    async fn abort(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.abort().await;
        }
    }
}
