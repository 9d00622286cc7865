//! State of a cell: handles of typed state in a struct with `#[derive(State)]`.
//!
//! ```
//! use pelton_sdk::prelude::*;
//!
//! #[derive(State)]
//! struct Seen {
//!     /// Dropped an hour of event time after it was set.
//!     #[state(ttl = "1h", time = "event")]
//!     last: Value<i64>,
//!     total: Aggregating<Sum<f64>>,
//!     names: List<String>,
//!     by_day: Map<Date, i64>,
//! }
//! ```
//!
//! A type that changes: the host brings stored values to a type with wider numbers, with fields that may be absent or have a
//! `#[state(default = ..)]`, without some, or in another order. For other changes a state says its version and how older values become today's:
//!
//! ```
//! # use pelton_sdk::prelude::*;
//! #[derive(State)]
//! struct Totals {
//!     #[state(version = 2, migrate(1 = from_euros))]
//!     cents: Value<i64>,
//! }
//!
//! fn from_euros(euros: f64) -> i64 {
//!     (euros * 100.0).round() as i64
//! }
//!
//! assert_eq!(testing::migrate::<Totals, f64, i64>("cents", 1, &12.5), Ok(Some(1_250)));
//! ```
//!
//! Values and aggregates come with the call; lists and maps are read when they are first asked for. All that a row writes stays in the
//! handles until the call ends and is undone when the row fails.
//!
//! Time to live. What was written at time t is absent from t + ttl on. In event time, "now" is the event time of the row or timer, or
//! the watermark where that is later; in processing time it is the time of the call.

pub mod aggregate;
pub mod encode;
mod list;
mod map;
pub mod migrate;
mod value;

use std::cell::{Cell as StdCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

pub use aggregate::{Aggregate, Aggregating};
pub use list::List;
pub use map::Map;
pub use migrate::Migrated;
pub use value::Value;

use crate::keyed::{Found, Items, Reads, StateWrites, ValueColumn};
use crate::wire::{StateKind, StateSpec, TimeDomain, Ttl, numbers, wide_numbers};

/// A struct of handles; `#[derive(State)]` implements it.
#[diagnostic::on_unimplemented(message = "`{Self}` is not the state of a transform", label = "needs `#[derive(State)]`")]
pub trait State: Sized {
    fn specs() -> Vec<StateSpec>;
    fn load(cell: &Cell) -> Self;
    /// Every handle, in the order of the specs.
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Handle));
    /// An item of the named state that was written under another version; `None`: there is no migration from it.
    fn migrate(name: &str, version: u32, key: &[u8], value: &[u8]) -> Option<migrate::Entry>;
}

/// No state at all.
impl State for () {
    fn specs() -> Vec<StateSpec> {
        vec![]
    }
    fn load(_: &Cell) {}
    fn each(&mut self, _: &mut dyn FnMut(&mut dyn Handle)) {}
    fn migrate(_: &str, _: u32, _: &[u8], _: &[u8]) -> Option<migrate::Entry> {
        None
    }
}

/// What every handle does around a row or timer.
pub trait Handle {
    /// A row or timer begins at this time.
    fn begin(&mut self, moment: Moment);
    /// It has succeeded, or all that it wrote is undone.
    fn end(&mut self, succeeded: bool);
    /// The call ends: writes what has changed.
    fn finish(&mut self, group: u32, writes: &mut StateWrites);
}

/// The type of a state field.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of state",
    note = "a field of a state is a `Value<T>`, `List<T>`, `Map<K, V>` or `Aggregating<A>`"
)]
pub trait Kind: Handle + Sized {
    fn spec(name: &'static str, version: u32, ttl: Option<Ttl>) -> StateSpec;
    fn load(cell: &Cell, number: u32, name: &'static str, ttl: Option<Ttl>) -> Self;
    fn handle(&mut self) -> &mut dyn Handle {
        self
    }
}

/// The times of a row or timer, microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    /// Event time, or the watermark where that is later.
    pub event: i64,
    /// Processing time.
    pub now: i64,
}

/// When something written at a moment expires; never without a TTL.
const NEVER: i64 = i64::MAX;

impl Moment {
    fn of(self, domain: TimeDomain) -> i64 {
        match domain {
            TimeDomain::EventTime => self.event,
            TimeDomain::ProcessingTime => self.now,
        }
    }

    pub(crate) fn expiry(self, ttl: Option<Ttl>) -> i64 {
        ttl.map_or(NEVER, |ttl| self.of(ttl.domain).saturating_add(ttl.micros))
    }

    pub(crate) fn is_past(self, expires: i64, ttl: Option<Ttl>) -> bool {
        ttl.is_some_and(|ttl| expires <= self.of(ttl.domain))
    }
}

/// What the states of one call share.
pub struct Call {
    /// By number of the state; `None` for lists and maps.
    values: Vec<Option<ValueColumn>>,
    groups: u32,
    reads: Rc<dyn Reads>,
    /// Items that came with those of an earlier group, by state and group.
    ahead: RefCell<HashMap<(u32, u32), Vec<Item>>>,
    /// How many groups the next read takes with it.
    width: StdCell<u32>,
}

/// A group of a call, for its handles to load.
pub struct Cell {
    pub(crate) call: Rc<Call>,
    pub(crate) group: u32,
}

/// A stored item: key, value, expiry.
pub(crate) type Item = (Vec<u8>, Vec<u8>, i64);

/// Items of further groups come with a read up to this many bytes.
const AHEAD_BYTES: u32 = 1 << 20;
/// And up to this many groups.
const AHEAD_GROUPS: u32 = 1024;

impl Call {
    pub(crate) fn new(specs: &[StateSpec], values: Vec<ValueColumn>, groups: u32, reads: Rc<dyn Reads>) -> Rc<Call> {
        let mut values = values.into_iter();
        let values = specs.iter().map(|spec| if spec.kind == StateKind::Value { values.next() } else { None }).collect();
        Rc::new(Call { values, groups, reads, ahead: RefCell::default(), width: StdCell::new(1) })
    }
}

impl Cell {
    pub(crate) fn value(&self, number: u32) -> Option<(&[u8], i64)> {
        let column = self.call.values[number as usize].as_ref().expect("the host sends a column for each value state");
        let bytes = column.values.get(self.group as usize)?;
        let expires = wide_numbers(&column.expires).nth(self.group as usize).unwrap_or(NEVER);
        Some((bytes, expires))
    }
}

impl Call {
    /// All items of a group. Groups are mostly read one after the other, so a read takes more and more of the following with it.
    pub(crate) fn items(&self, state: u32, group: u32) -> Vec<Item> {
        if let Some(items) = self.ahead.borrow_mut().remove(&(state, group)) {
            return items;
        }
        let width = self.width.get();
        self.width.set((width * 2).min(AHEAD_GROUPS));
        let wanted: Vec<u32> = (group..self.groups.min(group.saturating_add(width))).collect();
        let Items { starts, keys, values, expires } = self.reads.read(state, &wanted, AHEAD_BYTES);
        let starts: Vec<u32> = numbers(&starts).collect();
        let expires: Vec<i64> = wide_numbers(&expires).collect();
        let item = |at: u32| {
            let at = at as usize;
            (keys.get(at)?.to_vec(), values.get(at)?.to_vec(), expires.get(at).copied().unwrap_or(NEVER)).into()
        };
        let mut ahead = self.ahead.borrow_mut();
        for (group, range) in wanted.into_iter().zip(starts.windows(2)) {
            ahead.insert((state, group), (range[0]..range[1]).filter_map(item).collect());
        }
        ahead.remove(&(state, group)).unwrap_or_default()
    }

    /// The value at a key, and its expiry.
    pub(crate) fn get(&self, state: u32, group: u32, key: &[u8]) -> Option<(Vec<u8>, i64)> {
        let mut keys = crate::keyed::BytesColumn::default();
        keys.push(Some(key));
        let Found { values, expires } = self.reads.get(state, &[group], &keys);
        let value = values.get(0)?.to_vec();
        Some((value, wide_numbers(&expires).next().unwrap_or(NEVER)))
    }
}

/// Appends an entry to writes.
fn write(writes: &mut StateWrites, group: u32, expires: i64, ttl: Option<Ttl>) {
    writes.groups.extend_from_slice(&group.to_le_bytes());
    if ttl.is_some() {
        writes.expires.extend_from_slice(&expires.to_le_bytes());
    }
}

/// For `BTreeMap`s of what is stored by key.
pub(crate) type ByKey<T> = BTreeMap<Vec<u8>, T>;
