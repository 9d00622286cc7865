//! State and timers of a plugin's cells: values, lists and maps as bytes, with a time to live; timers of both clocks; holds.
//!
//! The moment ([`KeyedStates::at`]) is the watermark and the time of day of the call that is being made; what has expired by it is not read.
//!
//! Windows. A cell's state lives until its window closes, at its end plus the allowed lateness. A timer of event time beyond that is moved
//! to it, and one of processing time that is still pending then fires then ([`KeyedStates::last_of`]): no timer is lost, and none is set in a
//! window that has closed.
//!
//! When windows close and when something expires are indexes over the cells: [`KeyedStates::reindex`] makes them anew.
//!
//! Invariants: a pending timer holds its output time; a cell without state and timers is dropped ([`KeyedStates::drop_if_empty`]); what has
//! expired is dropped at the next watermark or tick.

use crate::cells::{CellKey, Cells, HoldsId, ItemsId, Slot};
use crate::columns::ColumnId;
use crate::evicted::{Alarm, Indexes, Leaving};
use crate::layout::StateError;
use crate::rows::Rows;
use crate::scratch::ScratchError;
use crate::timers::{TimerTag, Timers};
use pelton_core::watermark::closes_at;
use pelton_core::{Duration, Instant, Window};
use std::collections::HashSet;

pub use crate::timers::Clock;

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLayout {
    /// One value, or items by key.
    pub kind: StateKind,
    /// The clock by which what is written expires; `None`: it does not.
    pub expires_by: Option<Clock>,
}

/// What a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// One value.
    Value,
    /// Items: of a list by number, of a map by key.
    Items,
}

/// The watermark and the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Watermark.
    pub watermark: Instant,
    /// Processing time.
    pub now: Instant,
}

impl Moment {
    fn of(self, clock: Clock) -> Instant {
        match clock {
            Clock::Event => self.watermark,
            Clock::Processing => self.now,
        }
    }
}

/// A timer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its cell.
    pub slot: Slot,
    /// Its number.
    pub timer: usize,
    /// The time that it was set for.
    pub time: Instant,
    /// The event time of what it gives out.
    pub output: Instant,
}

/// A stored value and when it expires; [`Instant::MAX`]: never.
pub type Stored<'a> = (&'a [u8], Instant);

/// An item that was taken from its cell: key, value, expiry.
pub type Taken = (Vec<u8>, Vec<u8>, Instant);

/// The states of one operator over one range of key groups.
#[derive(Debug)]
pub struct KeyedStates {
    /// When anything was read or written last; set before each call.
    pub at: Moment,
    cells: Cells,
    clocks: Vec<Clock>,
    /// By timer.
    holds: Vec<HoldsId>,
    /// Likewise: nothing sets it again, and what is pending of it is dropped where it is met.
    forgotten: Vec<bool>,
    times: Times,
}

/// Where states are kept, and when something becomes of their cells.
#[derive(Debug)]
struct Times {
    layouts: Vec<StateLayout>,
    places: Vec<Place>,
    /// When windows close.
    closes: Timers,
    /// When a state of a cell may have something that has expired, by clock; the tag is the state.
    sweeps: [Timers; 2],
    allowed_lateness: Duration,
}

/// Where a state is kept.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Absent: no bytes. Else 8 bytes of expiry (i64, little-endian, microseconds), then the value.
    Value(ColumnId),
    Items(ItemsId),
}

const CLOSE: TimerTag = TimerTag(0);
/// Of cells that are not in memory: when their windows close.
const CLOSES: Alarm = Alarm(0);
/// Likewise by clock: when something of them expires.
const SWEEPS: [Alarm; 2] = [Alarm(1), Alarm(2)];
/// Sweeps of cells that expire at about the same time fall together.
const SWEEP_GRAIN_MICROS: i64 = 1_000_000;

impl KeyedStates {
    /// Without cells. There are at most 256 states and 256 timers.
    pub fn new(layouts: Vec<StateLayout>, clocks: Vec<Clock>, allowed_lateness: Duration) -> KeyedStates {
        let mut cells = Cells::default();
        let places = layouts.iter().map(|layout| match layout.kind {
            StateKind::Value => Place::Value(cells.declare(Vec::<u8>::new())),
            StateKind::Items => Place::Items(cells.declare_items()),
        });
        let places = places.collect();
        KeyedStates {
            at: Moment { watermark: Instant::MIN, now: Instant::MIN },
            holds: clocks.iter().map(|_| cells.declare_holds()).collect(),
            forgotten: vec![false; clocks.len()],
            cells,
            clocks,
            times: Times { layouts, places, closes: Timers::default(), sweeps: Default::default(), allowed_lateness },
        }
    }

    /// Goes on with the states and timers of another, which has all of these and may have more, and with its era. See [`Cells::add_column`] for when.
    pub fn grow_to(&mut self, shape: &KeyedStates, era: u32) {
        for layout in &shape.times.layouts[self.times.places.len()..] {
            self.times.places.push(match layout.kind {
                StateKind::Value => Place::Value(self.cells.add_column(Vec::<u8>::new())),
                StateKind::Items => Place::Items(self.cells.add_items()),
            });
        }
        for clock in &shape.clocks[self.clocks.len()..] {
            self.holds.push(self.cells.add_holds());
            self.forgotten.push(false);
            self.clocks.push(*clock);
        }
        // When values expire may be another matter now.
        self.times.layouts.clone_from(&shape.times.layouts);
        self.cells.begin_era(era);
    }

    /// The cells, to be captured and restored.
    pub fn cells_mut(&mut self) -> &mut Cells {
        &mut self.cells
    }

    /// After cells were restored: when their windows close, and when something of them expires.
    pub fn reindex(&mut self) {
        let slots: Vec<Slot> = self.cells.slots().collect();
        slots.into_iter().for_each(|slot| self.times.index(&self.cells, slot));
    }

    /// Lets cells leave memory that were not used lately: no slot is valid afterwards.
    pub fn make_room(&mut self) -> Result<(), ScratchError> {
        self.index_arrived();
        self.cells.make_room(&mut self.times)
    }

    /// Cells that came back have closes and sweeps again. Gives them.
    fn index_arrived(&mut self) -> Vec<Slot> {
        let mut arrived = self.cells.take_arrived();
        arrived.retain(|slot| self.cells.is_live(*slot));
        for slot in &arrived {
            self.clear_forgotten(*slot);
            self.times.index(&self.cells, *slot);
        }
        arrived
    }

    /// The slot of a cell, made if it does not exist.
    pub fn entry(&mut self, cell: CellKey<'_>) -> Slot {
        let (slot, new) = self.cells.entry(cell);
        if new {
            self.times.closes.set(slot, CLOSE, self.times.closes_at(cell.window));
        } else if self.cells.evicts() {
            self.index_arrived();
        }
        slot
    }

    /// Which cell a slot is. The slot is live.
    pub fn key(&self, slot: Slot) -> CellKey<'_> {
        self.cells.key(slot)
    }

    /// Live cells.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// No live cell.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The value of a cell, unless it has none or it has expired.
    pub fn value(&self, state: usize, slot: Slot) -> Option<Stored<'_>> {
        let Place::Value(column) = &self.times.places[state] else { return None };
        let stored = read_value(&self.cells.column::<Vec<u8>>(*column)[slot as usize])?;
        Some(stored).filter(|(_, expires)| self.is_alive(state, *expires))
    }

    /// Sets or clears a value.
    pub fn set_value(&mut self, state: usize, slot: Slot, value: Option<Stored<'_>>) {
        let Place::Value(column) = &self.times.places[state] else { return };
        let place = &mut self.cells.write::<Vec<u8>>(*column, &[slot])[slot as usize];
        place.clear();
        match value {
            Some((bytes, expires)) => {
                place.extend_from_slice(&expires.micros().to_le_bytes());
                place.extend_from_slice(bytes);
                self.times.sweep_at(state, slot, expires);
            }
            None => *place = Vec::new(),
        }
    }

    /// The value at a key.
    pub fn item(&self, state: usize, slot: Slot, key: &[u8]) -> Option<Stored<'_>> {
        let Place::Items(items) = &self.times.places[state] else { return None };
        self.cells.items(*items).get(slot, key).filter(|(_, expires)| self.is_alive(state, *expires))
    }

    /// Items after a key that have not expired, ascending by key.
    pub fn items(&self, state: usize, slot: Slot, after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let items = match &self.times.places[state] {
            Place::Items(items) => Some(self.cells.items(*items).after(slot, after)),
            Place::Value(_) => None,
        };
        let alive = move |item: &(&[u8], Stored<'_>)| self.is_alive(state, item.1.1);
        items.into_iter().flatten().map(|(key, value, expires)| (key, (value, expires))).filter(alive)
    }

    /// Sets or removes the value at a key.
    pub fn put(&mut self, state: usize, slot: Slot, key: &[u8], value: Option<Stored<'_>>) {
        let Place::Items(items) = self.times.places[state] else { return };
        match value {
            Some((value, expires)) => {
                self.cells.put_item(items, slot, key, value, expires);
                self.times.sweep_at(state, slot, expires);
            }
            None => self.cells.remove_item(items, slot, key),
        }
    }

    /// Puts an item after the last one.
    pub fn append(&mut self, state: usize, slot: Slot, (value, expires): Stored<'_>) {
        let Place::Items(items) = self.times.places[state] else { return };
        self.cells.append_item(items, slot, value, expires);
        self.times.sweep_at(state, slot, expires);
    }

    /// Removes all items.
    pub fn clear(&mut self, state: usize, slot: Slot) {
        if let Place::Items(items) = self.times.places[state] {
            self.cells.clear_items(items, slot);
        }
    }

    /// Cells of earlier eras: a portion of those on disk, or those that are in memory.
    pub fn find_old(&mut self) -> Vec<Slot> {
        self.index_arrived();
        self.cells.bring_old();
        let arrived = self.index_arrived();
        let old = |slot: &Slot| self.cells.is_old(*slot);
        let found: Vec<Slot> = arrived.into_iter().filter(old).collect();
        if found.is_empty() { self.cells.slots().filter(old).collect() } else { found }
    }

    /// Takes the value of a cell, expired or not.
    pub fn take_value(&mut self, state: usize, slot: Slot) -> Option<(Vec<u8>, Instant)> {
        let Place::Value(column) = &self.times.places[state] else { return None };
        let (value, expires) = read_value(&self.cells.column::<Vec<u8>>(*column)[slot as usize])?;
        let taken = (value.to_vec(), expires);
        self.set_value(state, slot, None);
        Some(taken)
    }

    /// Takes the first items of a cell, expired or not, up to so many and as long as they have fewer bytes: key, value, expiry. True: there are no others.
    pub fn take_items(&mut self, state: usize, slot: Slot, most: usize, bytes: usize) -> (Vec<Taken>, bool) {
        let Place::Items(items) = self.times.places[state] else { return (Vec::new(), true) };
        let (mut taken, mut held) = (Vec::new(), 0);
        let mut all = self.cells.items(items).after(slot, None);
        let is_last = loop {
            if taken.len() >= most || held >= bytes {
                break all.next().is_none();
            }
            let Some((key, value, expires)) = all.next() else { break true };
            held += key.len() + value.len();
            taken.push((key.to_vec(), value.to_vec(), expires));
        };
        drop(all);
        match is_last {
            true => self.cells.clear_items(items, slot),
            false => taken.iter().for_each(|(key, ..)| self.cells.remove_item(items, slot, key)),
        }
        (taken, is_last)
    }

    /// Appends the rows of one cell.
    pub fn copy(&mut self, slot: Slot, rows: &mut Rows) {
        self.cells.copy(slot, rows);
    }

    /// Takes a cell over from others of the same states; what is here of it goes.
    pub fn adopt(&mut self, cell: CellKey<'_>, rows: &Rows) -> Result<(), StateError> {
        if let Some(slot) = self.cells.find(cell) {
            self.drop(slot);
        }
        if let Some(slot) = self.cells.adopt(rows)? {
            self.times.index(&self.cells, slot);
        }
        Ok(())
    }

    /// How many timers there are.
    pub fn timers(&self) -> usize {
        self.clocks.len()
    }

    /// Forgets a timer that nothing will set again, in all cells; after they were restored. It does not fire and holds nothing; cells on disk
    /// lose it when they are back.
    pub fn forget_timer(&mut self, timer: usize) {
        self.forgotten[timer] = true;
        let slots: Vec<Slot> = self.cells.slots().collect();
        for slot in slots {
            if self.clear_forgotten(slot) {
                self.drop_if_empty(slot);
            }
        }
    }

    /// Whether a cell had a timer that is forgotten.
    fn clear_forgotten(&mut self, slot: Slot) -> bool {
        let mut had = false;
        for timer in (0..self.forgotten.len()).filter(|timer| self.forgotten[*timer]) {
            let tag = TimerTag(timer as u8);
            // It may have had another clock.
            for clock in Clock::ALL {
                had |= self.cells.pending_timer(clock, slot, tag).is_some();
                self.cells.clear_timer(clock, slot, tag);
            }
            self.cells.set_hold(self.holds[timer], slot, None);
        }
        had
    }

    /// Sets a timer to (fire time, output time), or clears it.
    pub fn set_timer(&mut self, timer: usize, slot: Slot, at: Option<(Instant, Instant)>) {
        let (tag, clock) = (TimerTag(timer as u8), self.clocks[timer]);
        let close = self.times.closes_at(self.cells.key(slot).window);
        let at = match clock {
            Clock::Event => at.map(|(time, output)| (time.min(close), output.min(close))),
            // It would have to fire at once, and again if it sets itself again.
            Clock::Processing => at.filter(|_| self.at.watermark < close),
        };
        self.cells.set_hold(self.holds[timer], slot, at.map(|(_, output)| output));
        match at {
            Some((time, _)) => self.cells.set_timer(clock, slot, tag, time),
            None => self.cells.clear_timer(clock, slot, tag),
        }
    }

    /// Takes the timers of a clock that are due: of each cell the earliest, by time and then by number. Whole buckets of one time are taken
    /// until there are at least `enough`.
    pub fn due(&mut self, clock: Clock, enough: usize) -> Vec<Due> {
        let (mut taken, mut put_back, mut seen, mut left) = (Vec::new(), Vec::new(), HashSet::new(), Vec::new());
        while taken.len() < enough
            && let Some((time, bucket)) = self.cells.due_timers(clock, self.at.of(clock))
        {
            for (slot, tag) in bucket {
                if self.forgotten[tag.0 as usize] {
                    left.push(slot);
                } else if seen.insert(slot) {
                    taken.push(self.take(slot, tag, time));
                } else {
                    put_back.push((slot, tag, time));
                }
            }
        }
        put_back.into_iter().for_each(|(slot, tag, time)| self.cells.set_timer(clock, slot, tag, time));
        self.index_arrived();
        for slot in left.into_iter().filter(|slot| !seen.contains(slot)) {
            self.clear_forgotten(slot);
            self.drop_if_empty(slot);
        }
        taken
    }

    fn take(&mut self, slot: Slot, tag: TimerTag, time: Instant) -> Due {
        let timer = tag.0 as usize;
        let output = self.cells.hold(self.holds[timer], slot).unwrap_or(time);
        self.cells.set_hold(self.holds[timer], slot, None);
        Due { slot, timer, time, output }
    }

    /// Whether a timer or a sweep of processing time may be due.
    pub fn is_due(&self, clock: Clock) -> bool {
        let at = self.at.of(clock);
        let sweeps = [self.times.sweeps[clock as usize].next(), self.cells.next_alarm(SWEEPS[clock as usize])];
        sweeps.into_iter().chain([self.cells.next_timer(clock)]).flatten().any(|next| next <= at)
    }

    /// Takes cells whose windows have closed; each is to be dropped after its last timers have fired. To be called until there are none.
    pub fn closing(&mut self) -> Vec<Slot> {
        let mut slots = Vec::new();
        loop {
            let more = self.cells.bring_due(CLOSES, self.at.watermark);
            self.index_arrived();
            while let Some((_, bucket)) = self.times.closes.due(self.at.watermark) {
                slots.extend(bucket.into_iter().map(|(slot, _)| slot));
            }
            if !slots.is_empty() || !more {
                return slots;
            }
        }
    }

    /// Takes the earliest pending timer of a cell that is closing.
    pub fn last_of(&mut self, slot: Slot) -> Option<Due> {
        if !self.cells.is_live(slot) {
            return None;
        }
        let pending = (0..self.clocks.len()).filter_map(|timer| {
            let tag = TimerTag(timer as u8);
            Some((self.cells.pending_timer(self.clocks[timer], slot, tag)?, tag))
        });
        let (time, tag) = pending.min_by_key(|(time, tag)| (*time, tag.0))?;
        self.cells.clear_timer(self.clocks[tag.0 as usize], slot, tag);
        Some(self.take(slot, tag, time))
    }

    /// Drops what has expired by now. As [`KeyedStates::make_room`]: no slot is valid afterwards.
    pub fn sweep(&mut self, clock: Clock) -> Result<(), ScratchError> {
        loop {
            let more = self.cells.bring_due(SWEEPS[clock as usize], self.at.of(clock));
            self.index_arrived();
            self.sweep_memory(clock);
            if !more {
                return Ok(());
            }
            self.make_room()?;
        }
    }

    fn sweep_memory(&mut self, clock: Clock) {
        while let Some((_, bucket)) = self.times.sweeps[clock as usize].due(self.at.of(clock)) {
            for (slot, tag) in bucket {
                let state = tag.0 as usize;
                self.cells.used(slot);
                let next = match &self.times.places[state] {
                    Place::Items(items) => self.cells.sweep_items(*items, slot, self.at.of(clock)),
                    Place::Value(column) => {
                        let expires = read_value(&self.cells.column::<Vec<u8>>(*column)[slot as usize]).map(|(_, expires)| expires);
                        if expires.is_some_and(|expires| expires <= self.at.of(clock)) {
                            self.cells.write::<Vec<u8>>(*column, &[slot])[slot as usize] = Vec::new();
                        }
                        expires.filter(|expires| *expires > self.at.of(clock))
                    }
                };
                match next {
                    Some(expires) => self.times.sweep_at(state, slot, expires),
                    None => self.drop_if_empty(slot),
                }
            }
        }
    }

    /// Drops a cell that has no state and no timer.
    pub fn drop_if_empty(&mut self, slot: Slot) {
        if !self.cells.is_live(slot) {
            return;
        }
        let empty = |place: &Place| match place {
            Place::Value(column) => self.cells.column::<Vec<u8>>(*column)[slot as usize].is_empty(),
            Place::Items(items) => self.cells.items(*items).is_empty(slot),
        };
        let pending = |timer: usize| self.cells.pending_timer(self.clocks[timer], slot, TimerTag(timer as u8)).is_some();
        if self.times.places.iter().all(empty) && !(0..self.clocks.len()).any(pending) {
            self.drop(slot);
        }
    }

    /// Drops a cell whose window has closed, if it is still there.
    pub fn drop_closed(&mut self, slot: Slot) {
        if self.cells.is_live(slot) && self.closes_at(self.cells.key(slot).window) <= self.at.watermark {
            self.drop(slot);
        }
    }

    /// Drops a cell with all its state and timers.
    pub fn drop(&mut self, slot: Slot) {
        self.times.forget(slot);
        self.cells.remove(slot);
    }

    /// The earliest event time of what pending timers will give out.
    pub fn hold(&self) -> Option<Instant> {
        let kept = self.holds.iter().zip(&self.forgotten).filter(|(_, forgotten)| !**forgotten);
        kept.filter_map(|(holds, _)| self.cells.earliest_hold(*holds)).min()
    }

    /// When a window's cells are dropped.
    pub fn closes_at(&self, window: Window) -> Instant {
        self.times.closes_at(window)
    }

    /// Something that stands for a cell as long as it lives, wherever it lies.
    pub fn hash(&self, slot: Slot) -> u64 {
        self.cells.hash(slot)
    }

    /// About how much memory the states take, bytes.
    pub fn bytes(&self) -> usize {
        let indexes: usize = self.times.sweeps.iter().chain([&self.times.closes]).map(Timers::bytes).sum();
        self.cells.bytes() + indexes
    }

    fn is_alive(&self, state: usize, expires: Instant) -> bool {
        self.times.layouts[state].expires_by.is_none_or(|clock| self.at.of(clock) < expires)
    }
}

impl Times {
    fn closes_at(&self, window: Window) -> Instant {
        closes_at(window, self.allowed_lateness)
    }

    /// Of a cell that was restored or came back.
    fn index(&mut self, cells: &Cells, slot: Slot) {
        self.closes.set(slot, CLOSE, self.closes_at(cells.key(slot).window));
        for state in 0..self.places.len() {
            let expires = match &self.places[state] {
                Place::Value(column) => read_value(&cells.column::<Vec<u8>>(*column)[slot as usize]).map(|(_, expires)| expires),
                Place::Items(items) => cells.items(*items).next_expiry(slot),
            };
            if let Some(expires) = expires {
                self.sweep_at(state, slot, expires);
            }
        }
    }

    fn sweep_at(&mut self, state: usize, slot: Slot, expires: Instant) {
        let Some(clock) = self.layouts[state].expires_by else { return };
        let (sweeps, tag) = (&mut self.sweeps[clock as usize], TimerTag(state as u8));
        let late = expires.micros().rem_euclid(SWEEP_GRAIN_MICROS);
        let up = if late == 0 { 0 } else { SWEEP_GRAIN_MICROS - late };
        let at = expires.saturating_add(Duration::from_micros(up));
        // A restored list may show its earliest item last.
        if sweeps.pending(slot, tag).is_none_or(|pending| at < pending) {
            sweeps.set(slot, tag, at);
        }
    }

    fn forget(&mut self, slot: Slot) {
        self.sweeps.iter_mut().for_each(|sweeps| sweeps.clear_all(slot));
        self.closes.clear(slot, CLOSE);
    }
}

impl Indexes for Times {
    fn leave(&mut self, _cells: &Cells, slot: Slot, leaving: &mut Leaving) {
        leaving.alarms.extend(self.closes.pending(slot, CLOSE).map(|at| (CLOSES, at)));
        for clock in Clock::ALL {
            let sweeps = self.sweeps[clock as usize].pending_of(slot);
            leaving.alarms.extend(sweeps.map(|(_, at)| (SWEEPS[clock as usize], at)));
        }
        self.forget(slot);
    }
}

fn read_value(bytes: &[u8]) -> Option<Stored<'_>> {
    let (expires, value) = bytes.split_first_chunk::<8>()?;
    Some((value, Instant::from_micros_saturating(i64::from_le_bytes(*expires))))
}

#[cfg(test)]
mod tests;
