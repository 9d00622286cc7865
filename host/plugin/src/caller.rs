//! Keeps one sandbox for calls: retries and halves what fails, and replaces the sandbox when it is worn.
//!
//! The rule of retrying is [`pelton_core::bisect`]; this carries its decisions out. All durable state is the host's, so a sandbox may be
//! thrown away between any two calls.

use crate::binding::Binding;
use crate::error::PluginError;
use crate::guest::{Fault, Guest};
use crate::instance::Processed;
use crate::limits::OnBudget;
use crate::outcome::Committed;
use pelton_core::RowError;
use pelton_core::bisect::{Bisection, Decision};
use std::ops::Range;
use std::sync::Arc;

/// An opened sandbox and its binding.
pub(crate) struct Caller {
    pub(crate) binding: Arc<Binding>,
    /// `None` after a failure or a wearing call; opened anew by the next.
    guest: Option<Guest>,
    pub(crate) recycled: u64,
}

/// What became of one call. The outer error stops the pipeline, the inner one is for the rule of retrying.
pub(crate) type Called<T> = Result<Result<T, Fault>, PluginError>;

impl Caller {
    pub(crate) fn new(binding: Arc<Binding>, guest: Guest) -> Caller {
        Caller { binding, guest: Some(guest), recycled: 0 }
    }

    /// The sandbox, taken, so that a call that is cancelled or fails leaves no half-used one behind.
    pub(crate) fn take(&mut self) -> Result<Guest, PluginError> {
        match self.guest.take() {
            Some(guest) => Ok(guest),
            None => self.binding.open_guest(),
        }
    }

    /// After a call that succeeded.
    pub(crate) fn give_back(&mut self, guest: Guest) {
        if guest.is_worn(&self.binding.limits) {
            self.recycled += 1;
            guest.close();
        } else {
            self.guest = Some(guest);
        }
    }

    /// Ends the sandbox; the guest may say its farewell.
    pub(crate) fn close(self) {
        if let Some(guest) = self.guest {
            guest.close();
        }
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
        match call(self, 0..rows).await? {
            Ok(committed) => processed.append(committed, 0),
            Err(fault) => self.search(rows, fault, &mut processed, &mut call).await?,
        }
        Ok(processed)
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
