//! One long-lived instance of a stateless transform.

use crate::binding::{Binding, Needs};
use crate::caller::{Called, Caller};
use crate::contract::{Input, batch, data};
use crate::error::PluginError;
use crate::flatten::{bytes_of, flatten};
use crate::guest::{Fault, Guest};
use crate::meters::Breach;
use crate::outcome::{Cells, Committed, MetricUpdate, check};
use arrow::array::Array;
use pelton_core::batch::{PaneTiming, RowWindows};
use pelton_core::{Batch, RowError};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// An opened transform. It belongs to one task.
pub struct Instance {
    caller: Caller,
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
        Instance { caller: Caller::new(binding, guest) }
    }

    /// Processes a batch of the bound schema. When the binding needs windows or panes, the batch's windows are fixed already.
    ///
    /// # Errors
    /// Those that stop a pipeline; rows that fail are in [`Processed::errors`]. After an error nothing of the batch is applied.
    pub async fn process(&mut self, batch: &Batch) -> Result<Processed, PluginError> {
        let needs = self.caller.binding.needs;
        if (needs.windows || needs.panes) && batch.windows.is_none() {
            let message = "it needs the windows of rows, but those of this batch are not fixed yet (a fault of the host)";
            return Err(self.caller.binding.broken(message.into()));
        }
        self.caller.run(batch.num_rows() as u32, async |caller, rows| call_part(caller, batch, rows).await).await
    }

    /// Ends the instance; the guest may say its farewell.
    pub async fn close(self) {
        self.caller.close();
    }

    /// Bytes of memory that the sandbox has; none while it is to be opened anew.
    pub fn memory_bytes(&self) -> usize {
        self.caller.memory_bytes()
    }

    /// How often the sandbox was replaced because its memory had grown.
    pub fn recycled(&self) -> u64 {
        self.caller.recycled
    }
}

impl Processed {
    pub(crate) fn append(&mut self, committed: Committed, start: u32) {
        self.outputs.extend(committed.outputs);
        self.errors.extend(committed.errors.into_iter().map(|error| RowError { row: error.row + start, ..error }));
        self.metrics.extend(committed.metrics);
        self.led_to_output += committed.led_to_output;
    }
}

async fn call_part(caller: &mut Caller, batch: &Batch, rows: Range<u32>) -> Called<Committed> {
    let mut guest = caller.take()?;
    let part = part_of(batch, rows);
    let outcome = match call(&mut guest, &caller.binding, &part).await {
        Ok(outcome) => outcome,
        Err(fault) => return Ok(Err(fault)),
    };
    let broken = |message| caller.binding.broken(message);
    let cells = Cells { rows: &part, are_timers: false };
    let checked = check(&caller.binding, &cells, outcome.into()).map_err(broken)?;
    if let Some(message) = checked.larger_than(&caller.binding, &cells).map_err(broken)? {
        return Ok(Err(guest.fail(Breach::Output, message)));
    }
    let committed = checked.commit(&caller.binding, &cells).map_err(broken)?;
    caller.give_back(guest);
    Ok(Ok(committed))
}

/// Some of the rows of a batch.
pub(crate) fn part_of(batch: &Batch, rows: Range<u32>) -> Cow<'_, Batch> {
    if rows.len() == batch.num_rows() { Cow::Borrowed(batch) } else { Cow::Owned(batch.slice(rows.start as usize, rows.len())) }
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
pub(crate) fn tables(needs: Needs, windows: Option<&RowWindows>) -> (Vec<u8>, Vec<u8>) {
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
