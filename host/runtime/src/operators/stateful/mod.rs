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

mod beside;
mod call;
mod evolve;

use crate::bind::OperatorPlan;
use crate::exchange::{encode, group_columns};
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::{NodeMetrics, UserMetrics};
use crate::operator::{Operator, Out, Port, Refusals, Renewed};
use crate::operators::evolving::Evolving;
use crate::operators::late::late_batch;
use crate::swap::{Guest, NewVersion, farewell};
use crate::unkeyed;
use crate::windows;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
pub use beside::Output;
use call::States;
use pelton_core::batch::MAX_ROWS;
use pelton_core::evolution::{Book, Evolved};
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::key_decode::KeyDecoder;
use pelton_core::watermark::{Lateness, Watermark, lateness};
use pelton_core::{Batch, Duration, Instant, WindowFn};
use pelton_expr::Expression;
use pelton_plugin::{StatefulBinding, StatefulInstance};
use pelton_state::keyed::{Clock, Due};
use pelton_state::{CellKey, Cells, Scratch, ScratchError, Slot};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Cells whose firing timers are counted; those that have fired once are forgotten beyond it.
const MAX_COUNTED: usize = 1 << 20;
/// Messages between two looks at how much memory the state takes.
const MEASURE_EVERY: u32 = 32;

/// How often timers of cells fired, by the hash of the cell: its slot may change.
type Fires = HashMap<u64, u32>;

/// Whether cells may leave memory between two rounds of timers: not while others' slots are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Make,
    Keep,
}

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
    evolving: Evolving,
    /// Whether the input is idle.
    idle: bool,
    /// The last watermark that was given out.
    given: Option<Watermark>,
    /// The largest one.
    highest: Instant,
    messages: u32,
    /// Of the portions of one message.
    fires: Fires,
    metrics: Arc<NodeMetrics>,
    /// Of the user's metrics what this task has counted.
    counted: UserMetrics,
    /// Hashes of cells that a candidate was handed.
    handed: HashSet<u64>,
    /// What these give out here is dropped.
    drops_handed: bool,
    refusals: Refusals,
}

impl Stateful {
    /// With no state; `evolved` says how what will be restored was made.
    pub fn new(
        plan: StatefulPlan,
        evolved: Option<Arc<Evolved>>,
        metrics: Arc<NodeMetrics>,
        refusals: Refusals,
    ) -> Result<Stateful, Failure> {
        let instance = plan.binding.open().map_err(|error| Failure::Plugin { transform: refusals.transform.clone(), error })?;
        Stateful::with(plan, instance, evolved, metrics, refusals)
    }

    /// The same, with a guest that is open already.
    pub fn with(
        plan: StatefulPlan,
        instance: StatefulInstance,
        evolved: Option<Arc<Evolved>>,
        metrics: Arc<NodeMetrics>,
        refusals: Refusals,
    ) -> Result<Stateful, Failure> {
        let evolved = evolved.unwrap_or_else(|| Arc::new(Evolved::new(&plan.binding.declared())));
        let failed = |message: String| Failure::Internal { transform: refusals.transform.clone(), message };
        Ok(Stateful {
            instance: Some(instance),
            encoder: KeyEncoder::new(&plan.key_types).map_err(failed)?,
            decoder: KeyDecoder::new(&plan.key_types).map_err(failed)?,
            keys: Keys::default(),
            states: Arc::new(Mutex::new(States::new(&plan, &evolved))),
            evolving: Evolving::new(&evolved),
            idle: false,
            given: None,
            highest: Instant::MIN,
            messages: 0,
            fires: Fires::new(),
            metrics,
            counted: UserMetrics::new(),
            handed: HashSet::new(),
            drops_handed: false,
            refusals,
            plan,
        })
    }

    /// Bytes of memory that its guest has.
    pub fn guest_bytes(&self) -> usize {
        self.instance.as_ref().map_or(0, StatefulInstance::memory_bytes)
    }

    fn with_states<T>(&self, run: impl FnOnce(&mut States) -> T) -> T {
        run(&mut self.states.lock().expect("no holder of this lock panics"))
    }

    /// Fires timers until none is due, closes windows that have ended, and drops what has expired.
    async fn advance(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.with_states(|states| states.keyed.at.now = out.now);
        self.fire_due(Room::Make, out).await?;
        while self.close_some(out).await? {}
        for clock in [Clock::Event, Clock::Processing] {
            let swept = self.with_states(|states| states.keyed.sweep(clock));
            swept.map_err(|error| self.scratch(error))?;
        }
        self.measure()
    }

    /// Closes windows that have ended: all, or a portion. False: there are none.
    async fn close_some(&mut self, out: &mut Out) -> Result<bool, Failure> {
        let closing = self.with_states(|states| states.keyed.closing());
        if closing.is_empty() {
            return Ok(false);
        }
        loop {
            let last: Vec<Due> = self.with_states(|states| closing.iter().filter_map(|slot| states.keyed.last_of(*slot)).collect());
            if last.is_empty() {
                break;
            }
            self.fire(&last, out).await?;
            self.fire_due(Room::Keep, out).await?;
        }
        // A cell without state has gone already, and its place may be another's.
        self.with_states(|states| closing.iter().for_each(|slot| states.keyed.drop_closed(*slot)));
        self.make_room()?;
        Ok(true)
    }

    async fn fire_due(&mut self, room: Room, out: &mut Out) -> Result<(), Failure> {
        let mut fires = Fires::new();
        while self.fire_some(room, &mut fires, out).await? {}
        Ok(())
    }

    /// Fires a round of timers. False: none is due.
    async fn fire_some(&mut self, room: Room, fires: &mut Fires, out: &mut Out) -> Result<bool, Failure> {
        if room == Room::Make {
            self.make_room()?;
        }
        let mut due = self.with_states(|states| states.keyed.due(Clock::Event, MAX_ROWS));
        if due.is_empty() {
            due = self.with_states(|states| states.keyed.due(Clock::Processing, MAX_ROWS));
        }
        if due.is_empty() {
            return Ok(false);
        }
        if fires.len() > MAX_COUNTED {
            fires.retain(|_, count| *count > 1);
        }
        let most = self.plan.binding.base.limits.timer_fires;
        let mut endless = Vec::new();
        for (number, due) in due.iter().enumerate() {
            let count = fires.entry(self.with_states(|states| states.keyed.hash(due.slot))).or_default();
            *count += 1;
            if *count > most {
                endless.push(number);
            }
        }
        if !endless.is_empty() {
            // They have left the state by being due: not to fire them is to clear them.
            let ended: Vec<Due> = endless.iter().rev().map(|number| due.remove(*number)).collect();
            self.refuse_endless(&ended, out)?;
        }
        self.fire(&due, out).await?;
        Ok(true)
    }

    async fn fire(&mut self, due: &[Due], out: &mut Out) -> Result<(), Failure> {
        self.bring(due.iter().map(|due| due.slot)).await?;
        if !self.drops_handed {
            return self.call_all(due, out).await;
        }
        let is_handed = |due: &Due| self.handed.contains(&self.with_states(|states| states.keyed.hash(due.slot)));
        let (handed, own): (Vec<Due>, Vec<Due>) = due.iter().copied().partition(is_handed);
        self.call_all(&own, out).await?;
        self.call_all(&handed, &mut Out::new(out.now)).await
    }

    async fn call_all(&mut self, due: &[Due], out: &mut Out) -> Result<(), Failure> {
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

    fn scratch(&self, error: ScratchError) -> Failure {
        Failure::Scratch { transform: self.refusals.transform.clone(), error }
    }

    fn measure(&mut self) -> Result<(), Failure> {
        self.messages = self.messages.wrapping_add(1);
        if !self.messages.is_multiple_of(MEASURE_EVERY) || self.with_states(|states| states.keyed.cells_mut().evicts()) {
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
        self.begin().await?;
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
            self.bring(slots.iter().copied().flatten()).await?;
            self.call_rows(&part, &slots, out).await?;
            self.fire_due(Room::Make, out).await?;
        }
        self.tell(out);
        self.measure()
    }

    async fn portion(&mut self, until: Instant, out: &mut Out) -> Result<bool, Failure> {
        if self.instance.is_none() || !self.with_states(|states| states.keyed.cells_mut().evicts()) {
            return Ok(false);
        }
        self.with_states(|states| {
            (states.keyed.at.now, states.keyed.at.watermark) = (out.now, states.keyed.at.watermark.max(until));
        });
        let mut fires = std::mem::take(&mut self.fires);
        let fired = self.fire_some(Room::Make, &mut fires, out).await? || self.close_some(out).await?;
        if fired {
            self.fires = fires;
        }
        Ok(fired)
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
        self.begin().await?;
        self.with_states(|states| states.keyed.at.now = out.now);
        if self.instance.is_some() && self.with_states(|states| states.keyed.is_due(Clock::Processing)) {
            self.advance(out).await?;
        }
        self.tell(out);
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

    fn visit_cells(&mut self, visit: &mut dyn FnMut(&'static str, &mut Cells)) {
        self.with_states(|states| visit("cells", states.keyed.cells_mut()));
    }

    fn evict_to(&mut self, scratch: &Scratch) -> Result<(), Failure> {
        let opened = self.with_states(|states| states.keyed.cells_mut().evict_to(scratch));
        opened.map_err(|error| self.scratch(error))
    }

    fn make_room(&mut self) -> Result<(), Failure> {
        let made = self.with_states(|states| match states.keyed.cells_mut().evicts() {
            true => states.keyed.make_room(),
            false => Ok(()),
        });
        made.map_err(|error| self.scratch(error))
    }

    fn stateful(&mut self) -> Option<&mut Stateful> {
        Some(self)
    }

    async fn renew(&mut self, version: &NewVersion) -> Result<Renewed, Failure> {
        let (OperatorPlan::Stateful(plan), Some(Guest::Stateful(instance))) = (&version.bound.plan, version.guest()) else {
            return Err(version.not_prepared());
        };
        let evolved = self.evolving.book().evolve(&plan.binding.declared(), &|_| false).map_err(|_| version.not_prepared())?;
        self.with_states(|states| states.renew(plan, &evolved));
        (self.plan, self.refusals) = ((**plan).clone(), version.bound.refusals.clone());
        self.evolving = Evolving::new(&evolved);
        self.look_for_old();
        if let Some(old) = self.instance.replace(*instance) {
            farewell(old.close());
        }
        Ok(Renewed::Itself)
    }

    fn counted(&self) -> Option<&UserMetrics> {
        Some(&self.counted)
    }

    fn book(&self) -> Option<Arc<Book>> {
        Some(self.evolving.book())
    }

    fn is_settling(&self) -> bool {
        self.evolving.is_settling() && self.instance.is_some()
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        self.sweep_some().await
    }

    fn unkeyed(&self) -> Vec<(String, Vec<u8>)> {
        vec![unkeyed::of_watermark(self.with_states(|states| states.keyed.at.watermark))]
    }

    fn restore(&mut self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        let watermark = unkeyed::earliest_watermark(unkeyed)?;
        self.with_states(|states| {
            states.keyed.at.watermark = watermark;
            states.forget_timers();
            states.keyed.reindex();
        });
        self.look_for_old();
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
