//! A plugin's transform with keyed state and timers: one instance a task, which owns a range of key groups.
//!
//! A call is about rows or about fired timers, never both. Rows come first as a batch sorted by cell; then the timers that are due fire in
//! rounds, the earliest of each cell, until none is, so that a timer set at or below the watermark fires in the same round of messages.
//! Whatever a call wrote is in the state before the next one is made ([`call`]).
//!
//! The output watermark is the input's or the earliest hold, whichever is earlier: a pending timer holds its output time. An input that is
//! idle is told on as such only while nothing is held.
//!
//! Windows close at their end plus the allowed lateness; timers that are still pending fire then, and the state is dropped. Rows for
//! a window that has closed go to the output `late`.

mod call;

use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Out, Port, Refusals};
use crate::operators::late::late_batch;
use crate::windows;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use call::States;
use pelton_core::batch::MAX_ROWS;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::watermark::{Lateness, Watermark, lateness};
use pelton_core::{Batch, Duration, Instant, WindowFn};
use pelton_expr::Expression;
use pelton_plugin::{StatefulBinding, StatefulInstance};
use pelton_state::keyed::{Clock, Due};
use pelton_state::{CellKey, Slot};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How often timers of one cell may fire in a row because they set themselves again: a bound on what is most likely an endless loop.
const MAX_FIRES: u32 = 100_000;
/// Messages between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;

/// What a stateful transform does; the same for all its tasks.
#[derive(Clone)]
pub struct StatefulPlan {
    /// The key.
    pub key: Vec<Expression>,
    /// Types of its columns.
    pub key_types: Vec<DataType>,
    /// What was agreed when the plan was bound.
    pub binding: StatefulBinding,
    /// Our port of each of the plugin's outputs.
    pub ports: Vec<Port>,
    /// What stands as `element` in the error output: the input's columns, each nullable, because a timer has none but its key's.
    pub element: SchemaRef,
    /// Columns of the output `late`.
    pub late_schema: SchemaRef,
    /// Its port.
    pub late_port: Port,
    /// Windows of the input.
    pub window_fn: WindowFn,
    /// How long after its end a window takes rows.
    pub allowed_lateness: Duration,
    /// Bytes of state that this task may hold.
    pub state_limit: usize,
}

/// The operator.
pub struct Stateful {
    plan: StatefulPlan,
    /// The guest; `None` once closed.
    instance: Option<StatefulInstance>,
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    keys: Keys,
    states: Arc<Mutex<States>>,
    /// Whether the input is idle.
    idle: bool,
    /// The last watermark that was given out.
    given: Option<Watermark>,
    /// The largest one.
    highest: Instant,
    messages: u32,
    metrics: Arc<NodeMetrics>,
    refusals: Refusals,
}

impl Stateful {
    /// With no state.
    pub fn new(plan: StatefulPlan, metrics: Arc<NodeMetrics>, refusals: Refusals) -> Result<Stateful, Failure> {
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        let instance = plan.binding.open().map_err(|error| Failure::Plugin { transform: refusals.transform.clone(), error })?;
        Ok(Stateful {
            instance: Some(instance),
            encoder: KeyEncoder::new(&plan.key_types).map_err(failed)?,
            decoder: KeyDecoder::new(&plan.key_types).map_err(failed)?,
            keys: Keys::default(),
            states: Arc::new(Mutex::new(States::new(&plan))),
            idle: false,
            given: None,
            highest: Instant::MIN,
            messages: 0,
            metrics,
            refusals,
            plan,
        })
    }

    fn with_states<T>(&self, run: impl FnOnce(&mut States) -> T) -> T {
        run(&mut self.states.lock().expect("no holder of this lock panics"))
    }

    /// Fires timers until none is due, closes windows that have ended, and drops what has expired.
    async fn advance(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.with_states(|states| states.keyed.at.now = out.now);
        self.fire_due(out).await?;
        let closing = self.with_states(|states| states.keyed.closing());
        if !closing.is_empty() {
            loop {
                let last: Vec<Due> = self.with_states(|states| closing.iter().filter_map(|slot| states.keyed.last_of(*slot)).collect());
                if last.is_empty() {
                    break;
                }
                self.fire(&last, out).await?;
                self.fire_due(out).await?;
            }
            // A cell without state has gone already, and its place may be another's.
            self.with_states(|states| closing.iter().for_each(|slot| states.keyed.drop_closed(*slot)));
        }
        self.with_states(|states| [Clock::Event, Clock::Processing].into_iter().for_each(|clock| states.keyed.sweep(clock)));
        self.measure()
    }

    async fn fire_due(&mut self, out: &mut Out) -> Result<(), Failure> {
        let mut fires: HashMap<Slot, u32> = HashMap::new();
        loop {
            let mut due = self.with_states(|states| states.keyed.due(Clock::Event, MAX_ROWS));
            if due.is_empty() {
                due = self.with_states(|states| states.keyed.due(Clock::Processing, MAX_ROWS));
            }
            if due.is_empty() {
                return Ok(());
            }
            for due in &due {
                let count = fires.entry(due.slot).or_default();
                *count += 1;
                if *count > MAX_FIRES {
                    return Err(self.endless(due));
                }
            }
            self.fire(&due, out).await?;
        }
    }

    fn endless(&self, due: &Due) -> Failure {
        let timer = &self.plan.binding.timers[due.timer].name;
        let message = format!(
            "timers of one key fired {MAX_FIRES} times without a new row or watermark, the last of them `{timer}` for {}: a timer that always sets \
             itself again never comes to an end once the input has ended. Let it stop, for example when the watermark is at the end of time",
            due.time
        );
        Failure::Aggregate { transform: self.refusals.transform.clone(), message }
    }

    async fn fire(&mut self, due: &[Due], out: &mut Out) -> Result<(), Failure> {
        for due in due.chunks(MAX_ROWS) {
            self.call_timers(due, out).await?;
        }
        Ok(())
    }

    /// Tells how far event time has come here, where that has changed.
    fn tell(&mut self, out: &mut Out) {
        let (watermark, hold) = self.with_states(|states| (states.keyed.at.watermark, states.keyed.hold()));
        let watermark = match hold {
            None if self.idle => Watermark::Idle,
            // A hold that was set below what has been told cannot take it back.
            hold => Watermark::Active(hold.map_or(watermark, |hold| hold.min(watermark)).max(self.highest)),
        };
        let first = self.given.is_none() && watermark == Watermark::Active(Instant::MIN);
        if self.given == Some(watermark) || first {
            return;
        }
        if let Watermark::Active(at) = watermark {
            self.highest = at;
        }
        self.given = Some(watermark);
        out.control(Message::Watermark(watermark));
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.messages = self.messages.wrapping_add(1);
        if !self.messages.is_multiple_of(MEASURE_EVERY) {
            return Ok(());
        }
        let (held, limit) = (self.with_states(|states| states.keyed.bytes()), self.plan.state_limit);
        if held > limit {
            let mib = |bytes: usize| bytes / (1 << 20);
            return Err(Failure::State { transform: self.refusals.transform.clone(), held: mib(held), limit: mib(limit) });
        }
        Ok(())
    }

    /// Sends rows without a slot to the output for them.
    fn late(&self, batch: &Batch, slots: &[Option<Slot>], out: &mut Out) {
        let windows = batch.windows.as_ref().expect("the windows of rows were fixed");
        let missed = slots.iter().enumerate().filter(|(_, slot)| slot.is_none());
        let rows: Vec<_> = missed.map(|(row, _)| (row as u32, windows.table[windows.index[row] as usize])).collect();
        if !rows.is_empty() {
            out.account.late += rows.len() as u64;
            let watermark = self.with_states(|states| states.keyed.at.watermark);
            out.rows(self.plan.late_port, late_batch(batch, &rows, watermark, &self.plan.late_schema));
        }
    }

    /// The cells of rows: for each row its slot, or none if its window has closed.
    fn place(&mut self, batch: &Batch) -> Result<Vec<Option<Slot>>, Failure> {
        let columns = group_columns(&self.refusals.transform, &self.plan.key, batch)?;
        encode(&self.encoder, &columns, batch.num_rows(), &mut self.keys);
        let mut slots = Vec::with_capacity(batch.num_rows());
        let (keys, allowed, window_fn) = (&self.keys, self.plan.allowed_lateness, self.plan.window_fn);
        let mut states = self.states.lock().expect("no holder of this lock panics");
        let watermark = states.keyed.at.watermark;
        windows::for_each(batch, window_fn, |row, window| {
            let dropped = lateness(window, allowed, watermark) == Lateness::Dropped;
            slots.push((!dropped).then(|| states.keyed.entry(CellKey { key: keys.get(row), window })));
        });
        Ok(slots)
    }
}

#[async_trait(?Send)]
impl Operator for Stateful {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), Failure> {
        self.with_states(|states| states.keyed.at.now = out.now);
        // Timers before rows.
        if self.with_states(|states| states.keyed.is_due(Clock::Processing)) {
            self.advance(out).await?;
        }
        let batch = windows::fixed(batch, self.plan.window_fn, &mut out.account);
        for start in (0..batch.num_rows()).step_by(MAX_ROWS) {
            let part = batch.slice(start, MAX_ROWS.min(batch.num_rows() - start));
            let slots = self.place(&part)?;
            self.late(&part, &slots, out);
            self.call_rows(&part, &slots, out).await?;
            self.fire_due(out).await?;
        }
        self.tell(out);
        self.measure()
    }

    async fn watermark(&mut self, watermark: Watermark, out: &mut Out) -> Result<(), Failure> {
        self.idle = watermark == Watermark::Idle;
        if let Watermark::Active(at) = watermark {
            self.with_states(|states| states.keyed.at.watermark = states.keyed.at.watermark.max(at));
            self.advance(out).await?;
        }
        self.tell(out);
        Ok(())
    }

    async fn tick(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.with_states(|states| states.keyed.at.now = out.now);
        if self.instance.is_some() && self.with_states(|states| states.keyed.is_due(Clock::Processing)) {
            self.advance(out).await?;
            self.tell(out);
        }
        Ok(())
    }

    async fn end(&mut self, end: End, out: &mut Out) -> Result<(), Failure> {
        if end == End::Drained {
            self.with_states(|states| states.keyed.at.watermark = Instant::MAX);
            self.advance(out).await?;
        }
        if let Some(instance) = self.instance.take() {
            instance.close().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
