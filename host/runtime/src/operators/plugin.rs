//! A plugin's transform: one instance a task.

use crate::failure::Failure;
use crate::message::End;
use crate::metrics::{NodeMetrics, UserMetric};
use crate::operator::{Operator, Out, Port, Refusals};
use crate::windows;
use async_trait::async_trait;
use pelton_core::{Batch, WindowFn};
use pelton_plugin::{Binding, Instance, MetricKind, MetricSpec, MetricUpdate};
use std::sync::Arc;

/// The operator.
pub struct Plugin {
    /// What was agreed when the plan was bound.
    pub binding: Binding,
    /// The guest; `None` once closed.
    pub instance: Option<Instance>,
    /// Our port of each of the plugin's outputs.
    pub ports: Vec<Port>,
    /// Window function of the input, for plugins that ask for windows.
    pub window_fn: WindowFn,
    /// For the user's metrics.
    pub metrics: Arc<NodeMetrics>,
    /// What becomes of refused rows.
    pub refusals: Refusals,
}

#[async_trait(?Send)]
impl Operator for Plugin {
    async fn data(&mut self, _input: usize, mut batch: Batch, out: &mut Out) -> Result<(), Failure> {
        if self.binding.needs.windows {
            batch = windows::fixed(batch, self.window_fn, &mut out.account);
        }
        let instance = self.instance.as_mut().expect("no rows follow the end");
        let processed =
            instance.process(&batch).await.map_err(|error| Failure::Plugin { transform: self.refusals.transform.clone(), error })?;
        self.refusals.refuse(&batch, &processed.errors, out)?;
        out.account.led += processed.led_to_output as u64;
        out.account.filtered += (batch.num_rows() - processed.led_to_output - processed.errors.len()) as u64;
        for (output, rows) in processed.outputs {
            out.rows(self.ports[output], rows);
        }
        count(&self.metrics, &self.binding.metrics, &processed.metrics);
        Ok(())
    }

    async fn end(&mut self, _end: End, _out: &mut Out) -> Result<(), Failure> {
        if let Some(instance) = self.instance.take() {
            instance.close().await;
        }
        Ok(())
    }
}

/// Merges updates into the metrics of a transform.
pub fn count(metrics: &NodeMetrics, specs: &[MetricSpec], updates: &[MetricUpdate]) {
    if updates.is_empty() {
        return;
    }
    let mut user = metrics.user.lock().expect("no holder of this lock panics");
    for update in updates {
        let spec = &specs[update.metric];
        let zero = match spec.kind {
            MetricKind::Counter => UserMetric::Counter { value: 0.0 },
            MetricKind::Gauge => UserMetric::Gauge { value: 0.0 },
            MetricKind::Distribution => UserMetric::Distribution { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY },
        };
        match user.entry(spec.name.clone()).or_insert(zero) {
            UserMetric::Counter { value } => *value += update.sum,
            UserMetric::Gauge { value } => *value = update.max,
            UserMetric::Distribution { count, sum, min, max } => {
                *count += update.count;
                *sum += update.sum;
                *min = min.min(update.min);
                *max = max.max(update.max);
            }
        }
    }
}
