//! Transforms with keyed state and timers: one call is a batch of rows sorted by cell, or one fired timer of each of several cells.
//!
//! A *cell* is one key in one window; the contract calls it a group, and numbers it inside a call. The caller keeps the state
//! ([`KeyedState`]) and knows cells by numbers of its own; this crate moves values out with a call and checked writes back.
//!
//! Invariant: state changes only by [`KeyedState::apply`], after all of a call's result has been checked, and a part of a batch that
//! succeeded is applied before the next part is called.

mod call;
mod migrate;
mod reads;
mod writes;

pub use migrate::Item;
pub(crate) use reads::Reads;
#[cfg(test)]
pub(crate) use writes::Writes;

use crate::binding::Binding;
use crate::caller::Caller;
use crate::descriptor::{StateSpec, TimerSpec, declared};
use crate::error::PluginError;
use crate::instance::Processed;
use arrow::array::ArrayRef;
use pelton_core::evolution::Declared;
use pelton_core::{Batch, Instant, Window};
use std::sync::{Arc, Mutex};

/// A stateful transform, opened with a config, an input schema and a key.
#[derive(Clone)]
pub struct StatefulBinding {
    /// Columns that cross and come back.
    pub base: Binding,
    /// States by number.
    pub states: Arc<[StateSpec]>,
    /// Timers by number.
    pub timers: Arc<[TimerSpec]>,
}

/// An opened stateful transform. It belongs to one task.
pub struct StatefulInstance {
    caller: Caller,
    states: Arc<[StateSpec]>,
    timers: Arc<[TimerSpec]>,
    held: call::Held,
}

/// A cell as its keeper knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellRef {
    /// The keeper's number, at which state is read and written.
    pub id: u32,
    /// The cell's window.
    pub window: Window,
}

/// A timer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Number in [`StatefulBinding::timers`].
    pub timer: u32,
    /// The time that it was set for.
    pub time: Instant,
}

/// What a call is about.
#[derive(Debug)]
pub struct Work<'a> {
    /// Rows of the bound schema, sorted by cell. Of fired timers: one row a cell with its key's columns (in the key's order), the timer's
    /// output time as event time and the cell's window.
    pub batch: &'a Batch,
    /// The cells, each once.
    pub cells: &'a [CellRef],
    /// Row numbers where each cell's rows start, and the number of rows at the end.
    pub starts: &'a [u32],
    /// One a cell if the call is about fired timers, else empty.
    pub fired: &'a [Fired],
    /// The key's columns, one row a cell; needed only when the binding needs keys.
    pub keys: &'a [ArrayRef],
    /// Input watermark.
    pub watermark: Instant,
    /// Processing time of the call.
    pub now: Instant,
}

/// A stored value and when it expires; [`Instant::MAX`] without a TTL.
pub type Stored<'a> = (&'a [u8], Instant);

/// Who keeps the state of a stateful transform. Reads leave out what has expired by the watermark or the time of the call.
pub trait KeyedState: Send {
    /// The value of a value state.
    fn value(&self, state: usize, cell: u32) -> Option<Stored<'_>>;
    /// The value at a key of a map state.
    fn item(&self, state: usize, cell: u32, key: &[u8]) -> Option<Stored<'_>>;
    /// Items of a list or map state after the key `after`, ascending by key, until `each` gives false. A list's keys are its items'
    /// numbers, 8 bytes big-endian.
    fn items(&self, state: usize, cell: u32, after: Option<&[u8]>, each: &mut dyn FnMut(&[u8], Stored<'_>) -> bool);
    /// Bytes that all of it takes in memory.
    fn bytes(&self) -> usize;
    /// One write of a call that has succeeded. Those of a call come in the contract's order.
    fn apply(&mut self, write: StateWrite<'_>);
}

/// One change. Numbers of states and timers, and kinds, have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateWrite<'a> {
    /// Sets or clears a value.
    Value { state: usize, cell: u32, value: Option<Stored<'a>> },
    /// Empties a list or map.
    Clear { state: usize, cell: u32 },
    /// Appends to a list.
    Append { state: usize, cell: u32, item: Stored<'a> },
    /// Sets or removes an entry of a map.
    Put { state: usize, cell: u32, key: &'a [u8], value: Option<Stored<'a>> },
    /// Sets a timer to (fire time, output time), or clears it.
    Timer { timer: usize, cell: u32, at: Option<(Instant, Instant)> },
}

impl StatefulBinding {
    /// Its states and timers, to be compared with what is stored.
    pub fn declared(&self) -> Declared {
        declared(&self.states, &self.timers)
    }

    /// A new instance, opened as at `bind`.
    pub fn open(&self) -> Result<StatefulInstance, PluginError> {
        let caller = Caller::new(Arc::new(self.base.clone()), self.base.open_guest()?);
        Ok(StatefulInstance { caller, states: self.states.clone(), timers: self.timers.clone(), held: call::Held::default() })
    }
}

impl StatefulInstance {
    /// Calls with some work, and with parts of it where that fails; state is read from and written to `states`. Errors number the work's
    /// rows; of fired timers, its cells.
    ///
    /// # Errors
    /// Those that stop a pipeline. Parts that had succeeded before are applied then.
    pub async fn process<S: KeyedState + 'static>(&mut self, work: &Work<'_>, states: &Arc<Mutex<S>>) -> Result<Processed, PluginError> {
        let (specs, timers, held) = (self.states.clone(), self.timers.clone(), &mut self.held);
        let states: Arc<Mutex<dyn KeyedState>> = states.clone();
        self.caller
            .run(work.batch.num_rows() as u32, async |caller, rows| call::part(caller, &specs, &timers, work, rows, &states, held).await)
            .await
    }

    /// Bytes of memory that the sandbox has; none while it is to be opened anew.
    pub fn memory_bytes(&self) -> usize {
        self.caller.memory_bytes()
    }

    /// Ends the instance; the guest may say its farewell.
    pub async fn close(self) {
        self.caller.close();
    }
}
