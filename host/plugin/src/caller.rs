//! Keeps one sandbox for calls: retries and halves what fails, and replaces the sandbox when it is worn.
//!
//! The rule of retrying is [`pelton_core::bisect`], that of no longer calling [`pelton_core::breaker`]; this carries their decisions out. All
//! durable state is the host's, so a sandbox may be thrown away between any two calls.

use crate::binding::Binding;
use crate::error::PluginError;
use crate::guest::{Fault, Guest, duration};
use crate::instance::Processed;
use crate::limits::OnBudget;
use crate::meters::Meters;
use crate::outcome::Committed;
use crate::renewal;
use crate::ticker::{Clock, ticks_of};
use pelton_core::RowError;
use pelton_core::bisect::{Bisection, Decision};
use pelton_core::breaker::{Admission, Breaker, Change, Policy};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// An opened sandbox and its binding.
pub(crate) struct Caller {
    pub(crate) binding: Arc<Binding>,
    /// `None` after a failure or a wearing call; opened anew by the next.
    guest: Option<Guest>,
    pub(crate) recycled: u64,
    /// Requests to make it anew that are done.
    renewals: u64,
    /// It failed when it was closed: it is thrown away from then on.
    is_rude: bool,
    breaker: Breaker,
    /// It counts among the open breakers.
    is_open: bool,
    last: Option<String>,
    clock: Arc<Clock>,
}

/// What became of one call. The outer error stops the pipeline, the inner one is for the rule of retrying.
pub(crate) type Called<T> = Result<Result<T, Fault>, PluginError>;

impl Caller {
    pub(crate) fn new(binding: Arc<Binding>, guest: Guest) -> Caller {
        let (breaker, clock) = (Breaker::new(binding.limits.breaker.rule()), binding.plugin.clock());
        let (guest, renewals) = (Some(guest), renewal::asked());
        Caller { binding, guest, recycled: 0, renewals, is_rude: false, breaker, is_open: false, last: None, clock }
    }

    /// The sandbox, taken, so that a call that is cancelled or fails leaves no half-used one behind.
    pub(crate) fn take(&mut self) -> Result<Guest, PluginError> {
        let asked = renewal::asked();
        if self.renewals != asked {
            self.renewals = asked;
            if let Some(guest) = self.guest.take() {
                self.say_farewell(guest);
                renewal::count();
            }
        }
        match self.guest.take() {
            Some(guest) => Ok(guest),
            None => self.binding.open_guest(),
        }
    }

    /// After a call that succeeded.
    pub(crate) fn give_back(&mut self, guest: Guest) {
        if guest.is_worn(&self.binding.limits) {
            self.recycled += 1;
            Meters::add(&self.binding.meters.recycled, 1);
            self.say_farewell(guest);
        } else {
            self.guest = Some(guest);
        }
    }

    /// Bytes of memory that the sandbox has.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.guest.as_ref().map_or(0, Guest::memory_bytes)
    }

    /// Ends the sandbox; the guest may say its farewell.
    pub(crate) fn close(mut self) {
        if let Some(guest) = self.guest.take() {
            self.say_farewell(guest);
        }
    }

    fn say_farewell(&mut self, guest: Guest) {
        // A farewell that fails may take as long as it is let, on the thread of the task.
        self.is_rude = self.is_rude || !guest.close(&self.binding.limits);
    }

    /// Calls with all of `rows` rows, and with parts of them where that fails. Each part is committed before the next is called.
    pub(crate) async fn run(
        &mut self,
        rows: u32,
        mut call: impl AsyncFnMut(&mut Caller, Range<u32>) -> Called<Committed>,
    ) -> Result<Processed, PluginError> {
        let mut processed = Processed::default();
        if rows == 0 {
            return Ok(processed);
        }
        if !self.is_admitted().await? {
            let message = format!("not called: the breaker is open because the plugin failed again and again, last with: {}", self.last());
            processed.errors.extend((0..rows).map(|row| RowError { row, message: message.clone(), stack: String::new() }));
            return Ok(processed);
        }
        match call(self, 0..rows).await? {
            Ok(committed) => {
                self.succeeded();
                processed.append(committed, 0);
            }
            Err(fault) => {
                self.breached(&fault)?;
                self.search(rows, fault, &mut processed, &mut call).await?;
                Meters::add(&self.binding.meters.retries, u64::from(processed.retries));
            }
        }
        Ok(processed)
    }

    /// Whether the guest is to be called with the next batch, when it may be.
    async fn is_admitted(&mut self) -> Result<bool, PluginError> {
        loop {
            match self.breaker.admit(self.clock.elapsed()) {
                Admission::Call => return Ok(true),
                Admission::Refuse => return Ok(false),
                Admission::Stop => return Err(self.stopped()),
                Admission::Wait { until } => self.clock.until(ticks_of(until)).await,
            }
        }
    }

    fn succeeded(&mut self) {
        if self.breaker.succeeded() == Some(Change::Closed) {
            self.count_open(false);
            let (plugin, transform) = (self.binding.plugin.digest(), &self.binding.transform);
            tracing::info!(plugin, transform, "the breaker is closed again: a batch succeeded");
        }
    }

    fn breached(&mut self, fault: &Fault) -> Result<(), PluginError> {
        self.last = Some(fault.message.clone());
        let Some(change) = self.breaker.breached(self.clock.elapsed()) else { return Ok(()) };
        let rule = *self.breaker.rule();
        let (plugin, transform, cause) = (self.binding.plugin.digest(), &self.binding.transform, fault.breach.name());
        let then = match rule.policy {
            Policy::Stop => "the pipeline stops".to_string(),
            Policy::Pause => format!("rows wait for {}", duration(rule.pause)),
            Policy::ErrorOutput => format!("rows go to the error output for {}", duration(rule.pause)),
        };
        match change {
            Change::Opened => {
                let (after, within) = (rule.after, duration(rule.within));
                tracing::warn!(
                    plugin,
                    transform,
                    cause,
                    last = fault.message,
                    "the breaker is open: {after} batches failed within {within}; {then}"
                );
            }
            _ => tracing::warn!(
                plugin,
                transform,
                cause,
                last = fault.message,
                "the breaker stays open: the batch that was tried failed; {then}"
            ),
        }
        Meters::add(&self.binding.meters.breakers_opened, 1);
        self.count_open(true);
        if rule.policy == Policy::Stop { Err(self.stopped()) } else { Ok(()) }
    }

    fn stopped(&self) -> PluginError {
        let rule = self.breaker.rule();
        PluginError::BreakerOpen {
            plugin: self.binding.plugin.digest().into(),
            transform: self.binding.transform.clone(),
            after: rule.after,
            within: duration(rule.within),
            last: self.last().into(),
        }
    }

    fn last(&self) -> &str {
        self.last.as_deref().unwrap_or_default()
    }

    fn count_open(&mut self, is_open: bool) {
        let open = &self.binding.meters.breakers_open;
        match (self.is_open, is_open) {
            (false, true) => drop(open.fetch_add(1, Relaxed)),
            (true, false) => drop(open.fetch_sub(1, Relaxed)),
            _ => {}
        }
        self.is_open = is_open;
    }

    async fn search(
        &mut self,
        rows: u32,
        mut last: Fault,
        processed: &mut Processed,
        call: &mut impl AsyncFnMut(&mut Caller, Range<u32>) -> Called<Committed>,
    ) -> Result<(), PluginError> {
        let mut search = Bisection::after_failure(rows, last.time, self.binding.limits.budget());
        processed.traps = 1;
        loop {
            match search.next_step() {
                Decision::Call { rows, fresh } => {
                    if fresh {
                        self.guest = None;
                    }
                    processed.retries += 1;
                    match call(self, rows.clone()).await? {
                        Ok(committed) => {
                            processed.append(committed, rows.start);
                            // A call that succeeds is paid for in calls: only failures last until a deadline.
                            search.succeeded(std::time::Duration::ZERO);
                        }
                        Err(fault) => {
                            processed.traps += 1;
                            search.failed(fault.time);
                            last = fault;
                        }
                    }
                }
                Decision::Poison { row } => {
                    Meters::add(&self.binding.meters.poison, 1);
                    processed.errors.push(RowError { row, message: last.message.clone(), stack: last.stack.clone() })
                }
                Decision::Spent { rows } => return self.spent(rows, search.calls(), last, processed),
                Decision::Done => return Ok(()),
            }
        }
    }

    fn spent(&self, rows: Range<u32>, calls: u32, last: Fault, processed: &mut Processed) -> Result<(), PluginError> {
        let binding = &self.binding;
        if binding.limits.on_budget == OnBudget::Stop {
            return Err(PluginError::BudgetSpent {
                plugin: binding.plugin.digest().into(),
                transform: binding.transform.clone(),
                rows,
                calls,
                last: last.message,
            });
        }
        let message = format!(
            "not isolated: the row was never seen to fail alone, but it stood among {} rows of a batch that failed until the budget of {calls} calls was spent; the last failure was: {}",
            rows.len(),
            last.message
        );
        processed.errors.extend(rows.map(|row| RowError { row, message: message.clone(), stack: last.stack.clone() }));
        Ok(())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.count_open(false);
    }
}
