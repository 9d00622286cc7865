//! Calls of the guest with rows or timers, and its state between `pelton_state` and `pelton_plugin`.

use super::{Stateful, StatefulPlan};
use crate::failure::Failure;
use crate::operator::Out;
use crate::operators::plugin::count;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::datatypes::{FieldRef, Schema};
use pelton_core::batch::{PaneInfo, RowWindows};
use pelton_core::evolution::Evolved;
use pelton_core::{Batch, Positions, RowError, Window};
use pelton_plugin::{Breach, CellRef, Fired, KeyedState, Processed, StateWrite, Stored, TimeDomain, Work};
use pelton_state::keyed::{Clock, Due, KeyedStates, StateLayout};
use pelton_state::{Slot, keyed};
use std::collections::HashMap;
use std::sync::Arc;

/// The state of one task's cells, as the plugin's contract reads and writes it.
pub(super) struct States {
    pub(super) keyed: KeyedStates,
    /// By the plugin's number of a state: its place.
    places: Vec<usize>,
    /// By the plugin's number of a timer: its tag.
    tags: Vec<usize>,
    /// By place.
    are_values: Vec<bool>,
}

impl States {
    /// Places and tags of which the plugin has none are of states that were dropped.
    pub(super) fn new(plan: &StatefulPlan, evolved: &Evolved) -> States {
        let kind = |is_value: &bool| if *is_value { keyed::StateKind::Value } else { keyed::StateKind::Items };
        let mut layouts: Vec<StateLayout> =
            evolved.book.columns.iter().map(|is_value| StateLayout { kind: kind(is_value), expires_by: None }).collect();
        for (place, spec) in evolved.places.iter().zip(&*plan.binding.states) {
            layouts[*place].expires_by = spec.ttl.map(|ttl| clock(ttl.domain));
        }
        let mut clocks = vec![Clock::Event; evolved.book.timers.len()];
        for (tag, spec) in evolved.tags.iter().zip(&*plan.binding.timers) {
            clocks[*tag] = clock(spec.domain);
        }
        let mut keyed = KeyedStates::new(layouts, clocks, plan.allowed_lateness);
        keyed.cells_mut().keep_growing_eras(evolved.book.present().number);
        States { keyed, places: evolved.places.clone(), tags: evolved.tags.clone(), are_values: evolved.book.columns.clone() }
    }

    /// Another version of the plugin goes on with the cells.
    pub(super) fn renew(&mut self, plan: &StatefulPlan, evolved: &Evolved) {
        let States { keyed, places, tags, are_values } = States::new(plan, evolved);
        self.keyed.grow_to(&keyed, evolved.book.present().number);
        (self.places, self.tags, self.are_values) = (places, tags, are_values);
    }

    pub(super) fn is_value(&self, place: usize) -> bool {
        self.are_values[place]
    }

    /// Timers that the plugin has not got any more, in what was restored.
    pub(super) fn forget_timers(&mut self) {
        for tag in (0..self.keyed.timers()).filter(|tag| !self.tags.contains(tag)) {
            self.keyed.forget_timer(tag);
        }
    }

    /// The plugin's number of a timer.
    pub(super) fn timer_of(&self, tag: usize) -> u32 {
        self.tags.iter().position(|known| *known == tag).unwrap_or_default() as u32
    }
}

fn clock(domain: TimeDomain) -> Clock {
    match domain {
        TimeDomain::EventTime => Clock::Event,
        TimeDomain::ProcessingTime => Clock::Processing,
    }
}

impl KeyedState for States {
    fn value(&self, state: usize, cell: u32) -> Option<Stored<'_>> {
        self.keyed.value(self.places[state], cell)
    }

    fn item(&self, state: usize, cell: u32, key: &[u8]) -> Option<Stored<'_>> {
        self.keyed.item(self.places[state], cell, key)
    }

    fn items(&self, state: usize, cell: u32, after: Option<&[u8]>, each: &mut dyn FnMut(&[u8], Stored<'_>) -> bool) {
        let _ = self.keyed.items(self.places[state], cell, after).all(|(key, stored)| each(key, stored));
    }

    fn bytes(&self) -> usize {
        self.keyed.bytes()
    }

    fn apply(&mut self, write: StateWrite<'_>) {
        let place = |state: usize| self.places[state];
        match write {
            StateWrite::Value { state, cell, value } => self.keyed.set_value(place(state), cell, value),
            StateWrite::Clear { state, cell } => self.keyed.clear(place(state), cell),
            StateWrite::Append { state, cell, item } => self.keyed.append(place(state), cell, item),
            StateWrite::Put { state, cell, key, value } => self.keyed.put(place(state), cell, key, value),
            StateWrite::Timer { timer, cell, at } => self.keyed.set_timer(self.tags[timer], cell, at),
        }
    }
}

impl Stateful {
    /// Calls with the rows that have a slot.
    pub(super) async fn call_rows(&mut self, batch: &Batch, slots: &[Option<Slot>], out: &mut Out) -> Result<(), Failure> {
        let Grouped { order, cells, starts } = group(slots);
        if order.is_empty() {
            return Ok(());
        }
        let in_order = order.len() == batch.num_rows() && order.iter().enumerate().all(|(place, row)| place as u32 == *row);
        let sorted = if in_order { batch.clone() } else { batch.take(&UInt32Array::from(order)) };
        let keys = if self.plan.binding.base.needs.keys { self.keys_of(&cells)? } else { vec![] };
        let cells = self.refs(&cells);
        let processed = self.call(&sorted, &cells, &starts, &[], &keys, out).await?;
        let Processed { errors, led_to_output, .. } = &processed;
        out.account.led += *led_to_output as u64;
        out.account.filtered += (sorted.num_rows() - led_to_output - errors.len()) as u64;
        if !errors.is_empty() {
            self.refusals.refuse(&sorted.with_columns(self.refusable(&sorted.rows)), errors, out)?;
        }
        self.finish(processed, &cells, out)
    }

    /// Timers of a key that fired too often in a row are not fired again.
    pub(super) fn refuse_endless(&mut self, due: &[Due], out: &mut Out) -> Result<(), Failure> {
        let most = self.plan.binding.base.limits.timer_fires;
        let message = format!(
            "timers of this key fired {most} times without a new row or watermark (limits.timer_fires), so it is cleared: a timer that always sets itself \
             again never comes to an end once the input has ended. Let it stop, for example when the watermark is at the end of time"
        );
        due.iter().for_each(|_| self.metrics.plugin.breached(Breach::Timers));
        let (batch, cells, _) = self.timers(due)?;
        let errors = (0..due.len() as u32).map(|row| RowError { row, message: message.clone(), stack: String::new() }).collect();
        self.refuse_timers(due, &batch, errors, out)?;
        self.with_states(|states| cells.iter().for_each(|cell| states.keyed.drop_if_empty(cell.id)));
        Ok(())
    }

    /// Timers as rows: their keys' columns and output times.
    fn timers(&self, due: &[Due]) -> Result<(Batch, Vec<CellRef>, Vec<ArrayRef>), Failure> {
        let slots: Vec<Slot> = due.iter().map(|due| due.slot).collect();
        let keys = self.keys_of(&slots)?;
        let cells = self.refs(&slots);
        let fields: Vec<FieldRef> =
            self.plan.key.iter().zip(&keys).map(|(key, column)| key_field(&self.plan, &key.columns(), column)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(due.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), keys.clone(), &options)
            .map_err(|error| self.internal(error.to_string()))?;
        let table: Vec<Window> = cells.iter().map(|cell| cell.window).collect();
        let windows = RowWindows { index: (0..due.len() as u32).collect(), table: table.into(), pane: PaneInfo::UNWINDOWED };
        let times = due.iter().map(|due| due.output.micros()).collect();
        Ok((Batch { rows, times, windows: Some(windows), positions: Positions::None }, cells, keys))
    }

    fn refuse_timers(&mut self, due: &[Due], batch: &Batch, errors: Vec<RowError>, out: &mut Out) -> Result<(), Failure> {
        let named = |error: RowError| {
            let due = due[error.row as usize];
            let timer = &self.plan.binding.timers[self.timer_of(&due) as usize].name;
            RowError { message: format!("timer `{timer}`, set for {}: {}", due.time, error.message), ..error }
        };
        let errors: Vec<_> = errors.into_iter().map(named).collect();
        let account = out.account;
        self.refusals.refuse(&batch.with_columns(self.refusable(&batch.rows)), &errors, out)?;
        // A timer is no row that came in.
        out.account = account;
        Ok(())
    }

    /// Calls with timers, one a cell.
    pub(super) async fn call_timers(&mut self, due: &[Due], out: &mut Out) -> Result<(), Failure> {
        let (batch, cells, keys) = self.timers(due)?;
        let starts: Vec<u32> = (0..=due.len() as u32).collect();
        let fired: Vec<Fired> = due.iter().map(|due| Fired { timer: self.timer_of(due), time: due.time }).collect();
        let mut processed = self.call(&batch, &cells, &starts, &fired, &keys, out).await?;
        if !processed.errors.is_empty() {
            let errors = std::mem::take(&mut processed.errors);
            self.refuse_timers(due, &batch, errors, out)?;
        }
        self.finish(processed, &cells, out)
    }

    async fn call(
        &mut self,
        batch: &Batch,
        cells: &[CellRef],
        starts: &[u32],
        fired: &[Fired],
        keys: &[ArrayRef],
        out: &Out,
    ) -> Result<Processed, Failure> {
        let watermark = self.with_states(|states| states.keyed.at.watermark);
        let work = Work { batch, cells, starts, fired, keys, watermark, now: out.now };
        let instance = self.instance.as_mut().expect("nothing follows the end");
        let processed = instance.process(&work, &self.states).await;
        processed.map_err(|error| Failure::Plugin { transform: self.refusals.transform.clone(), error })
    }

    /// Gives out what came of a call, and drops cells that it left empty.
    fn finish(&mut self, processed: Processed, cells: &[CellRef], out: &mut Out) -> Result<(), Failure> {
        for (output, rows) in processed.outputs {
            out.rows(self.plan.ports[output], rows);
        }
        count(&self.metrics, &mut self.counted, &self.plan.binding.base.metrics, &processed.metrics);
        self.with_states(|states| cells.iter().for_each(|cell| states.keyed.drop_if_empty(cell.id)));
        Ok(())
    }

    fn refs(&self, slots: &[Slot]) -> Vec<CellRef> {
        self.with_states(|states| slots.iter().map(|slot| CellRef { id: *slot, window: states.keyed.key(*slot).window }).collect())
    }

    /// The plugin's number of a timer.
    pub(super) fn timer_of(&self, due: &Due) -> u32 {
        self.with_states(|states| states.timer_of(due.timer))
    }

    /// The key's columns, one row a cell.
    pub(super) fn keys_of(&self, slots: &[Slot]) -> Result<Vec<ArrayRef>, Failure> {
        let decoded = self.with_states(|states| self.decoder.decode(slots.iter().map(|slot| states.keyed.key(*slot).key)));
        decoded.map_err(|message| self.internal(message))
    }

    /// Rows with all of the input's columns for the error output; those that are not there are null.
    fn refusable(&self, rows: &RecordBatch) -> RecordBatch {
        let schema = &self.plan.element;
        let absent = |field: &FieldRef| new_null_array(field.data_type(), rows.num_rows());
        let columns = schema.fields().iter().map(|field| rows.column_by_name(field.name()).cloned().unwrap_or_else(|| absent(field)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(schema.clone(), columns.collect(), &options).expect("every column of the element is nullable")
    }

    pub(super) fn internal(&self, message: String) -> Failure {
        Failure::Internal { transform: self.refusals.transform.clone(), message }
    }
}

/// The input's field of a key column.
fn key_field(plan: &StatefulPlan, columns: &[String], values: &ArrayRef) -> FieldRef {
    let name = columns.first().map(String::as_str).unwrap_or_default();
    let nullable = plan.binding.base.input.field_with_name(name).is_ok_and(|field| field.is_nullable());
    Arc::new(arrow::datatypes::Field::new(name, values.data_type().clone(), nullable))
}

/// Rows by cell.
struct Grouped {
    /// Row numbers: cells in the order of their first rows, the rows of a cell in order.
    order: Vec<u32>,
    cells: Vec<Slot>,
    /// Where each cell's rows start in `order`, and its length.
    starts: Vec<u32>,
}

fn group(slots: &[Option<Slot>]) -> Grouped {
    let mut numbers: HashMap<Slot, u32> = HashMap::new();
    let mut cells = Vec::new();
    let mut counts: Vec<u32> = Vec::new();
    let placed = slots.iter().map(|slot| {
        slot.map(|slot| {
            let number = *numbers.entry(slot).or_insert_with(|| {
                cells.push(slot);
                counts.push(0);
                cells.len() as u32 - 1
            });
            counts[number as usize] += 1;
            number
        })
    });
    let placed: Vec<Option<u32>> = placed.collect();
    let mut starts = vec![0];
    counts.iter().for_each(|count| starts.push(starts[starts.len() - 1] + count));
    let mut next = starts.clone();
    let mut order = vec![0; starts[cells.len()] as usize];
    for (row, number) in placed.iter().enumerate() {
        if let Some(number) = number {
            order[next[*number as usize] as usize] = row as u32;
            next[*number as usize] += 1;
        }
    }
    Grouped { order, cells, starts }
}
