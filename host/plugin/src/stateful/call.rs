//! One call of a stateful transform: what is sent, and what is applied.

use super::reads::Reads;
use super::writes::Writes;
use super::{CellRef, Fired, KeyedState, Work};
use crate::binding::Binding;
use crate::bytes::BytesBuilder;
use crate::caller::{Called, Caller};
use crate::contract::stateful_do_fn::{FiredTimers, Groups, KeyedInput, KeyedOutcome, ValueColumn};
use crate::contract::{Input, batch, data};
use crate::descriptor::{StateKind, StateSpec, TimerSpec};
use crate::flatten::{bytes_of, flatten};
use crate::guest::{Fault, Guest};
use crate::instance::{part_of, tables};
use crate::meters::Breach;
use crate::outcome::{Cells, Committed, Told, check};
use arrow::array::{Array, ArrayRef};
use pelton_core::Batch;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The part of some work that one call is about.
struct Part<'a> {
    rows: &'a Batch,
    cells: &'a [CellRef],
    /// One more than cells, from 0.
    starts: Vec<u32>,
    fired: &'a [Fired],
    keys: Vec<ArrayRef>,
}

impl<'a> Part<'a> {
    fn of(work: &'a Work<'_>, rows: &'a Batch, range: Range<u32>) -> Part<'a> {
        // Cells whose rows overlap the range; none is empty.
        let first = work.starts.partition_point(|start| *start <= range.start) - 1;
        let end = work.starts.partition_point(|start| *start < range.end);
        let starts = work.starts[first..=end].iter().map(|start| start.clamp(&range.start, &range.end) - range.start).collect();
        let fired = if work.fired.is_empty() { &[] } else { &work.fired[first..end] };
        let keys = work.keys.iter().map(|key| key.slice(first, end - first)).collect();
        Part { rows, cells: &work.cells[first..end], starts, fired, keys }
    }
}

/// How much state there is, without measuring it at each call.
#[derive(Debug, Default)]
pub(super) struct Held {
    measured: usize,
    /// Bytes written since, as if nothing had been replaced or dropped.
    written: usize,
}

impl Held {
    /// A sentence if some writes would bring the state beyond its limit.
    fn refuses(&mut self, writes: &Writes, binding: &Binding, states: &dyn KeyedState) -> Option<String> {
        let (limit, new) = (binding.limits.state_bytes?, writes.bytes());
        if self.measured + self.written + new > limit {
            *self = Held { measured: states.bytes(), written: 0 };
            // What writes nothing may go on, so that the state can shrink.
            if new > 0 && self.measured + new > limit {
                return Some(format!(
                    "its state would have {} bytes, more than the {limit} of a task's share of limits.state_bytes",
                    self.measured + new
                ));
            }
        }
        self.written += new;
        None
    }
}

/// Calls with the rows `range` of some work and applies what they did.
pub(super) async fn part(
    caller: &mut Caller,
    specs: &Arc<[StateSpec]>,
    timers: &[TimerSpec],
    work: &Work<'_>,
    range: Range<u32>,
    states: &Arc<Mutex<dyn KeyedState>>,
    held: &mut Held,
) -> Called<Committed> {
    let rows = part_of(work.batch, range.clone());
    let part = Part::of(work, &rows, range);
    let mut guest = caller.take()?;
    let outcome = match call(&mut guest, &caller.binding, specs, work, &part, states).await {
        Ok(outcome) => outcome,
        Err(fault) => return Ok(Err(fault)),
    };
    let binding = &caller.binding;
    let broken = |message| binding.broken(message);
    let KeyedOutcome { outputs, errors, metrics, values, lists, maps, timers: timer_writes } = outcome;
    let cells = Cells { rows: &rows, are_timers: !part.fired.is_empty() };
    let checked = check(binding, &cells, Told { outputs, errors, metrics }).map_err(broken)?;
    let writes = Writes::check(specs, timers, part.cells.len(), values, lists, maps, timer_writes).map_err(broken)?;
    // The host cannot take back what a row wrote: all of the call goes, and the row is found by halving.
    if let Some(message) = checked.early.values().next() {
        return Ok(Err(guest.fail(Breach::Failure, message.clone())));
    }
    if let Some(message) = writes.larger_than(binding.limits.max_row_bytes) {
        return Ok(Err(guest.fail(Breach::Row, message)));
    }
    if let Some(message) = held.refuses(&writes, binding, &*states.lock().expect("no holder of this lock panics")) {
        return Ok(Err(guest.fail(Breach::State, message)));
    }
    if let Some(message) = checked.larger_than(binding, &cells).map_err(broken)? {
        return Ok(Err(guest.fail(Breach::Output, message)));
    }
    let committed = checked.commit(binding, &cells).map_err(broken)?;
    writes.apply(part.cells, &mut *states.lock().expect("no holder of this lock panics"));
    caller.give_back(guest);
    Ok(Ok(committed))
}

async fn call(
    guest: &mut Guest,
    binding: &Binding,
    specs: &Arc<[StateSpec]>,
    work: &Work<'_>,
    part: &Part<'_>,
    states: &Arc<Mutex<dyn KeyedState>>,
) -> Result<KeyedOutcome, Fault> {
    let timers = !part.fired.is_empty();
    let values = values(specs, part.cells, &*states.lock().expect("no holder of this lock panics"));
    let value_columns: Vec<_> =
        values.iter().map(|(values, expires)| ValueColumn { values: values.param(), expires: bytes_of(expires) }).collect();
    // A call about timers has no rows: its batch has the timers' keys, which cross only if they were asked for.
    let empty;
    let rows = if timers {
        empty = arrow::array::RecordBatch::new_empty(binding.input.clone());
        &empty
    } else {
        &part.rows.rows
    };
    let flat = flatten(binding.reads.iter().map(|column| rows.column(*column) as &dyn Array));
    let buffers: Vec<&[u8]> = flat.buffers.iter().map(|buffer| &**buffer).collect();
    let columns = data::ColumnsParam { rows: rows.num_rows() as u32, nodes: &flat.nodes, buffers: &buffers };
    let (_, pane_table) = tables(binding.needs, part.rows.windows.as_ref().filter(|_| !timers));
    let zeros = if pane_table.is_empty() { vec![] } else { vec![0; 4 * rows.num_rows()] };
    let needs = binding.needs;
    let context = (needs.event_times || needs.panes).then(|| batch::Context {
        event_times: if needs.event_times && !timers { bytes_of(&part.rows.times) } else { &[] },
        windows: &[],
        window_table: &[],
        panes: &zeros,
        pane_table: &pane_table,
    });
    let keys = if needs.keys { part.keys.as_slice() } else { &[] };
    let flat_keys = flatten(keys.iter().map(|key| key as &dyn Array));
    let key_buffers: Vec<&[u8]> = flat_keys.buffers.iter().map(|buffer| &**buffer).collect();
    let row_starts = if timers { vec![0; part.cells.len() + 1] } else { part.starts.clone() };
    let windows: Vec<i64> = match needs.windows {
        true => part.cells.iter().flat_map(|cell| [cell.window.start.micros(), cell.window.end.micros()]).collect(),
        false => vec![],
    };
    let fired_groups: Vec<u32> = (0..part.fired.len() as u32).collect();
    let fired_timers: Vec<u32> = part.fired.iter().map(|fired| fired.timer).collect();
    let fired_times: Vec<i64> = part.fired.iter().map(|fired| fired.time.micros()).collect();
    let input = KeyedInput {
        rows: Input { columns, context },
        groups: Groups {
            row_starts: bytes_of(&row_starts),
            windows: bytes_of(&windows),
            keys: data::ColumnsParam { rows: part.cells.len() as u32, nodes: &flat_keys.nodes, buffers: &key_buffers },
        },
        fired: FiredTimers {
            groups: bytes_of(&fired_groups),
            timers: bytes_of(&fired_timers),
            times: bytes_of(&fired_times),
            output_times: if timers { bytes_of(&part.rows.times) } else { &[] },
        },
        values: &value_columns,
        watermark: work.watermark.micros(),
        now: work.now.micros(),
    };
    let reads = Reads {
        states: states.clone(),
        specs: specs.clone(),
        cells: part.cells.iter().map(|cell| cell.id).collect(),
        limit: binding.limits.call_bytes(),
    };
    guest.process_keyed(input, reads, &binding.limits).await
}

/// The value states of some cells, a column each, and when the values expire.
fn values(specs: &[StateSpec], cells: &[CellRef], states: &dyn KeyedState) -> Vec<(BytesBuilder, Vec<i64>)> {
    let of_state = |(state, spec): (usize, &StateSpec)| {
        let (mut values, mut expires) = (BytesBuilder::default(), vec![]);
        for cell in cells {
            let stored = states.value(state, cell.id);
            values.push(stored.map(|(bytes, _)| bytes));
            if spec.ttl.is_some() {
                expires.push(stored.map_or(0, |(_, expires)| expires.micros()));
            }
        }
        (values, expires)
    };
    specs.iter().enumerate().filter(|(_, spec)| spec.kind == StateKind::Value).map(of_state).collect()
}
