//! One long-lived instance of a transform: calls it, retries and halves what fails, and replaces the sandbox when it is worn.
//!
//! The rule of retrying is [`pelton_core::bisect`]; this carries its decisions out. All durable state is the host's, so a sandbox may be
//! thrown away between any two calls.

use crate::binding::{Binding, Needs};
use crate::contract::{Input, batch, data};
use crate::error::PluginError;
use crate::flatten::{bytes_of, flatten};
use crate::guest::{Fault, Guest};
use crate::limits::OnBudget;
use crate::outcome::{Committed, MetricUpdate, commit};
use arrow::array::Array;
use pelton_core::batch::{PaneTiming, RowWindows};
use pelton_core::bisect::{Bisection, Decision};
use pelton_core::{Batch, RowError};
use std::ops::Range;
use std::sync::Arc;

/// An opened transform. It belongs to one task.
pub struct Instance {
    binding: Arc<Binding>,
    /// `None` after a failure or a wearing call; opened anew by the next.
    guest: Option<Guest>,
    recycled: u64,
}

/// What a batch has become.
#[derive(Debug, Default)]
pub struct Processed {
    /// Port and rows; a port may occur several times, in the order of the input rows.
    pub outputs: Vec<(usize, Batch)>,
    /// Refused rows, ascending.
    pub errors: Vec<RowError>,
    /// Metric updates of all calls that succeeded.
    pub metrics: Vec<MetricUpdate>,
    /// Distinct input rows that are the origin of at least one output row, over all ports.
    pub led_to_output: usize,
    /// Calls beyond the first.
    pub retries: u32,
    /// Calls that failed.
    pub traps: u32,
}

impl Instance {
    pub(crate) fn new(binding: Arc<Binding>, guest: Guest) -> Instance {
        Instance { binding, guest: Some(guest), recycled: 0 }
    }

    /// Processes a batch of the bound schema. When the binding needs windows or panes, the batch's windows are fixed already.
    ///
    /// # Errors
    /// Those that stop a pipeline; rows that fail are in [`Processed::errors`]. After an error nothing of the batch is applied.
    pub async fn process(&mut self, batch: &Batch) -> Result<Processed, PluginError> {
        let needs = self.binding.needs;
        if (needs.windows || needs.panes) && batch.windows.is_none() {
            return Err(self
                .binding
                .broken("it needs the windows of rows, but those of this batch are not fixed yet (a fault of the host)".into()));
        }
        let mut processed = Processed::default();
        let rows = batch.num_rows() as u32;
        if rows == 0 {
            return Ok(processed);
        }
        match self.call(batch, 0..rows).await? {
            Ok(committed) => processed.append(committed, 0),
            Err(fault) => self.search(batch, fault, &mut processed).await?,
        }
        Ok(processed)
    }

    /// Ends the instance; the guest may say its farewell.
    pub async fn close(self) {
        if let Some(guest) = self.guest {
            guest.close();
        }
    }

    /// How often the sandbox was replaced because its memory had grown.
    pub fn recycled(&self) -> u64 {
        self.recycled
    }

    async fn search(&mut self, batch: &Batch, mut last: Fault, processed: &mut Processed) -> Result<(), PluginError> {
        let mut search = Bisection::after_failure(batch.num_rows() as u32, last.time, self.binding.limits.budget());
        processed.traps = 1;
        loop {
            match search.next_step() {
                Decision::Call { rows, fresh } => {
                    if fresh {
                        self.guest = None;
                    }
                    processed.retries += 1;
                    match self.call(batch, rows.clone()).await? {
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

    /// One call. The outer error stops the pipeline, the inner one is for the rule of retrying.
    async fn call(&mut self, batch: &Batch, rows: Range<u32>) -> Result<Result<Committed, Fault>, PluginError> {
        // Taken, so that a call that is cancelled or fails leaves no half-used sandbox behind.
        let mut guest = match self.guest.take() {
            Some(guest) => guest,
            None => self.binding.open_guest()?,
        };
        let slice;
        let part = if rows.len() == batch.num_rows() {
            batch
        } else {
            slice = batch.slice(rows.start as usize, rows.len());
            &slice
        };
        let outcome = match call(&mut guest, &self.binding, part).await {
            Ok(outcome) => outcome,
            Err(fault) => return Ok(Err(fault)),
        };
        let committed = commit(&self.binding, part, outcome).map_err(|message| self.binding.broken(message))?;
        if guest.is_worn(&self.binding.limits) {
            self.recycled += 1;
            guest.close();
        } else {
            self.guest = Some(guest);
        }
        Ok(Ok(committed))
    }
}

impl Processed {
    fn append(&mut self, committed: Committed, start: u32) {
        self.outputs.extend(committed.outputs);
        self.errors.extend(committed.errors.into_iter().map(|error| RowError { row: error.row + start, ..error }));
        self.metrics.extend(committed.metrics);
        self.led_to_output += committed.led_to_output;
    }
}

async fn call(guest: &mut Guest, binding: &Binding, batch: &Batch) -> Result<crate::contract::Outcome, Fault> {
    let flat = flatten(binding.reads.iter().map(|column| batch.rows.column(*column) as &dyn Array));
    let buffers: Vec<&[u8]> = flat.buffers.iter().map(|buffer| &**buffer).collect();
    let columns = data::ColumnsParam { rows: batch.num_rows() as u32, nodes: &flat.nodes, buffers: &buffers };
    let (window_table, pane_table) = tables(binding.needs, batch.windows.as_ref());
    let zeros = if binding.needs.panes { vec![0; 4 * batch.num_rows()] } else { vec![] };
    let context = (binding.needs != Needs::default()).then(|| batch::Context {
        event_times: if binding.needs.event_times { bytes_of(&batch.times) } else { &[] },
        windows: batch.windows.as_ref().filter(|_| binding.needs.windows).map_or(&[], |windows| bytes_of(&windows.index)),
        window_table: &window_table,
        // One pane for the batch.
        panes: &zeros,
        pane_table: &pane_table,
    });
    guest.process(Input { columns, context }, &binding.limits).await
}

/// `window-table` and `pane-table` of the contract.
fn tables(needs: Needs, windows: Option<&RowWindows>) -> (Vec<u8>, Vec<u8>) {
    let Some(windows) = windows else { return (vec![], vec![]) };
    let mut window_table = vec![];
    if needs.windows {
        window_table.extend(windows.table.iter().flat_map(|window| [window.start, window.end]).flat_map(|end| end.micros().to_le_bytes()));
    }
    let mut pane_table = vec![];
    if needs.panes {
        let pane = windows.pane;
        let timing: u32 = match pane.timing {
            PaneTiming::Early => 0,
            PaneTiming::OnTime => 1,
            PaneTiming::Late => 2,
            PaneTiming::Unknown => 3,
        };
        let flags = u32::from(pane.is_first) | u32::from(pane.is_last) << 1;
        pane_table.extend([pane.index, pane.nonspeculative_index].iter().flat_map(|index| index.to_le_bytes()));
        pane_table.extend([timing, flags].iter().flat_map(|value| value.to_le_bytes()));
    }
    (window_table, pane_table)
}
