//! A plugin's transform: one instance a task.

use crate::bind::OperatorPlan;
use crate::failure::Failure;
use crate::message::End;
use crate::metrics::{NodeMetrics, UserMetric, UserMetrics, merge_user};
use crate::operator::{Operator, Out, Port, Refusals, Renewed};
use crate::swap::{Guest, NewVersion, farewell};
use crate::windows;
use async_trait::async_trait;
use pelton_core::{Batch, WindowFn};
use pelton_plugin::{Binding, Instance, MetricKind, MetricSpec, MetricUpdate};
use std::sync::Arc;

/// The operator.
pub struct Plugin {
    /// What was agreed when the plan was bound.
    pub binding: Box<Binding>,
    /// The guest; `None` once closed.
    pub instance: Option<Instance>,
    /// Our port of each of the plugin's outputs.
    pub ports: Vec<Port>,
    /// Window function of the input, for plugins that ask for windows.
    pub window_fn: WindowFn,
    /// For the user's metrics.
    pub metrics: Arc<NodeMetrics>,
    /// Of these what this task has counted.
    pub counted: UserMetrics,
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
        count(&self.metrics, &mut self.counted, &self.binding.metrics, &processed.metrics);
        Ok(())
    }

    async fn renew(&mut self, version: &NewVersion) -> Result<Renewed, Failure> {
        let (OperatorPlan::Plugin { binding, ports }, Some(Guest::Stateless(instance))) = (&version.bound.plan, version.guest()) else {
            return Err(version.not_prepared());
        };
        (self.binding, self.ports, self.refusals) = (binding.clone(), ports.clone(), version.bound.refusals.clone());
        if let Some(old) = self.instance.replace(*instance) {
            farewell(old.close());
        }
        Ok(Renewed::Itself)
    }

    fn counted(&self) -> Option<&UserMetrics> {
        Some(&self.counted)
    }

    async fn end(&mut self, _end: End, _out: &mut Out) -> Result<(), Failure> {
        if let Some(instance) = self.instance.take() {
            instance.close().await;
        }
        Ok(())
    }
}

/// Merges updates into the metrics of a transform, and into what one of its tasks has counted.
pub fn count(metrics: &NodeMetrics, counted: &mut UserMetrics, specs: &[MetricSpec], updates: &[MetricUpdate]) {
    if updates.is_empty() {
        return;
    }
    let one = |update: &MetricUpdate| {
        let spec = &specs[update.metric];
        let metric = match spec.kind {
            MetricKind::Counter => UserMetric::Counter { value: update.sum },
            MetricKind::Gauge => UserMetric::Gauge { value: update.max },
            MetricKind::Distribution => UserMetric::Distribution { count: update.count, sum: update.sum, min: update.min, max: update.max },
        };
        (spec.name.clone(), metric)
    };
    let mut all = metrics.user.lock().expect("no holder of this lock panics");
    for updated in updates.iter().map(one) {
        let updated = UserMetrics::from([updated]);
        merge_user(&mut all, &updated);
        merge_user(counted, &updated);
    }
}
