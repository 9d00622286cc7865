//! State and timers of a plugin's cells: values, lists and maps as bytes, with a time to live; timers of both clocks; holds.
//!
//! The moment ([`KeyedStates::at`]) is the watermark and the time of day of the call that is being made; what has expired by it is not read.
//!
//! Windows. A cell's state lives until its window closes, at its end plus the allowed lateness. A timer of event time beyond that is moved
//! to it, and one of processing time that is still pending then fires then ([`KeyedStates::last_of`]): no timer is lost, and none is set in a
//! window that has closed.
//!
//! Invariants: a pending timer holds its output time; a cell without state and timers is dropped ([`KeyedStates::drop_if_empty`]); what has
//! expired is dropped at the next watermark or tick.

use crate::cells::{CellKey, Cells, Slot};
use crate::columns::ColumnId;
use crate::holds::Holds;
use crate::items::Items;
use crate::timers::{TimerTag, Timers};
use pelton_core::watermark::closes_at;
use pelton_core::{Duration, Instant, Window};
use std::collections::HashSet;

/// Which clock something follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The watermark.
    Event,
    /// The time of day.
    Processing,
}

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

/// The states of one operator over one range of key groups.
#[derive(Debug)]
pub struct KeyedStates {
    /// When anything was read or written last; set before each call.
    pub at: Moment,
    cells: Cells,
    layouts: Vec<StateLayout>,
    places: Vec<Place>,
    clocks: Vec<Clock>,
    timers: [Timers; 2],
    /// By timer.
    holds: Vec<Holds>,
    /// When windows close.
    closes: Timers,
    /// When a state of a cell may have something that has expired, by clock; the tag is the state.
    sweeps: [Timers; 2],
    allowed_lateness: Duration,
}

/// Where a state is kept.
#[derive(Debug)]
enum Place {
    /// Absent: no bytes. Else 8 bytes of expiry (i64, little-endian, microseconds), then the value.
    Value(ColumnId),
    Items(Items),
}

const CLOSE: TimerTag = TimerTag(0);
/// Sweeps of cells that expire at about the same time fall together.
const SWEEP_GRAIN_MICROS: i64 = 1_000_000;

impl KeyedStates {
    /// Without cells. There are at most 256 states and 256 timers.
    pub fn new(layouts: Vec<StateLayout>, clocks: Vec<Clock>, allowed_lateness: Duration) -> KeyedStates {
        let mut cells = Cells::default();
        let places = layouts.iter().map(|layout| match layout.kind {
            StateKind::Value => Place::Value(cells.declare(Vec::<u8>::new())),
            StateKind::Items => Place::Items(Items::default()),
        });
        KeyedStates {
            at: Moment { watermark: Instant::MIN, now: Instant::MIN },
            places: places.collect(),
            cells,
            layouts,
            timers: Default::default(),
            holds: clocks.iter().map(|_| Holds::default()).collect(),
            clocks,
            closes: Timers::default(),
            sweeps: Default::default(),
            allowed_lateness,
        }
    }

    /// The slot of a cell, made if it does not exist.
    pub fn entry(&mut self, cell: CellKey<'_>) -> Slot {
        let (slot, new) = self.cells.entry(cell);
        if new {
            self.closes.set(slot, CLOSE, closes_at(cell.window, self.allowed_lateness));
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
        let Place::Value(column) = &self.places[state] else { return None };
        let stored = read_value(&self.cells.column::<Vec<u8>>(*column)[slot as usize])?;
        Some(stored).filter(|(_, expires)| self.is_alive(state, *expires))
    }

    /// Sets or clears a value.
    pub fn set_value(&mut self, state: usize, slot: Slot, value: Option<Stored<'_>>) {
        let Place::Value(column) = &self.places[state] else { return };
        let place = &mut self.cells.write::<Vec<u8>>(*column, &[slot])[slot as usize];
        place.clear();
        match value {
            Some((bytes, expires)) => {
                place.extend_from_slice(&expires.micros().to_le_bytes());
                place.extend_from_slice(bytes);
                self.sweep_at(state, slot, expires);
            }
            None => *place = Vec::new(),
        }
    }

    /// The value at a key.
    pub fn item(&self, state: usize, slot: Slot, key: &[u8]) -> Option<Stored<'_>> {
        let Place::Items(items) = &self.places[state] else { return None };
        items.get(slot, key).filter(|(_, expires)| self.is_alive(state, *expires))
    }

    /// Items after a key that have not expired, ascending by key.
    pub fn items(&self, state: usize, slot: Slot, after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], Stored<'_>)> {
        let items = match &self.places[state] {
            Place::Items(items) => Some(items.after(slot, after)),
            Place::Value(_) => None,
        };
        let alive = move |item: &(&[u8], Stored<'_>)| self.is_alive(state, item.1.1);
        items.into_iter().flatten().map(|(key, value, expires)| (key, (value, expires))).filter(alive)
    }

    /// Sets or removes the value at a key.
    pub fn put(&mut self, state: usize, slot: Slot, key: &[u8], value: Option<Stored<'_>>) {
        self.cells.touch(&[slot]);
        let Place::Items(items) = &mut self.places[state] else { return };
        match value {
            Some((value, expires)) => {
                items.put(slot, key, value, expires);
                self.sweep_at(state, slot, expires);
            }
            None => items.remove(slot, key),
        }
    }

    /// Puts an item after the last one.
    pub fn append(&mut self, state: usize, slot: Slot, (value, expires): Stored<'_>) {
        self.cells.touch(&[slot]);
        let Place::Items(items) = &mut self.places[state] else { return };
        items.append(slot, value, expires);
        self.sweep_at(state, slot, expires);
    }

    /// Removes all items.
    pub fn clear(&mut self, state: usize, slot: Slot) {
        self.cells.touch(&[slot]);
        if let Place::Items(items) = &mut self.places[state] {
            items.clear(slot);
        }
    }

    /// Sets a timer to (fire time, output time), or clears it.
    pub fn set_timer(&mut self, timer: usize, slot: Slot, at: Option<(Instant, Instant)>) {
        let (tag, clock) = (TimerTag(timer as u8), self.clocks[timer]);
        let close = closes_at(self.cells.key(slot).window, self.allowed_lateness);
        let at = match clock {
            Clock::Event => at.map(|(time, output)| (time.min(close), output.min(close))),
            // It would have to fire at once, and again if it sets itself again.
            Clock::Processing => at.filter(|_| self.at.watermark < close),
        };
        self.cells.touch(&[slot]);
        self.holds[timer].set(slot, at.map(|(_, output)| output));
        match at {
            Some((time, _)) => self.timers[clock as usize].set(slot, tag, time),
            None => self.timers[clock as usize].clear(slot, tag),
        }
    }

    /// Takes the timers of a clock that are due: of each cell the earliest, by time and then by number. Whole buckets of one time are taken
    /// until there are at least `enough`.
    pub fn due(&mut self, clock: Clock, enough: usize) -> Vec<Due> {
        let (mut taken, mut put_back, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        while taken.len() < enough
            && let Some((time, bucket)) = self.timers[clock as usize].due(self.at.of(clock))
        {
            for (slot, tag) in bucket {
                if seen.insert(slot) {
                    taken.push(self.take(slot, tag, time));
                } else {
                    put_back.push((slot, tag, time));
                }
            }
        }
        put_back.into_iter().for_each(|(slot, tag, time)| self.timers[clock as usize].set(slot, tag, time));
        taken
    }

    fn take(&mut self, slot: Slot, tag: TimerTag, time: Instant) -> Due {
        let timer = tag.0 as usize;
        let output = self.holds[timer].get(slot).unwrap_or(time);
        self.holds[timer].set(slot, None);
        Due { slot, timer, time, output }
    }

    /// Whether a timer or a sweep of processing time may be due.
    pub fn is_due(&self, clock: Clock) -> bool {
        let at = self.at.of(clock);
        [&self.timers, &self.sweeps].iter().any(|timers| timers[clock as usize].next().is_some_and(|next| next <= at))
    }

    /// Takes the cells whose windows have closed; each is to be dropped after its last timers have fired.
    pub fn closing(&mut self) -> Vec<Slot> {
        let mut slots = Vec::new();
        while let Some((_, bucket)) = self.closes.due(self.at.watermark) {
            slots.extend(bucket.into_iter().map(|(slot, _)| slot));
        }
        slots
    }

    /// Takes the earliest pending timer of a cell that is closing.
    pub fn last_of(&mut self, slot: Slot) -> Option<Due> {
        if !self.cells.is_live(slot) {
            return None;
        }
        let pending = (0..self.clocks.len()).filter_map(|timer| {
            let tag = TimerTag(timer as u8);
            Some((self.timers[self.clocks[timer] as usize].pending(slot, tag)?, tag))
        });
        let (time, tag) = pending.min_by_key(|(time, tag)| (*time, tag.0))?;
        self.timers[self.clocks[tag.0 as usize] as usize].clear(slot, tag);
        Some(self.take(slot, tag, time))
    }

    /// Drops what has expired by now.
    pub fn sweep(&mut self, clock: Clock) {
        while let Some((_, bucket)) = self.sweeps[clock as usize].due(self.at.of(clock)) {
            for (slot, tag) in bucket {
                let state = tag.0 as usize;
                let next = match &mut self.places[state] {
                    Place::Items(items) => items.sweep(slot, self.at.of(clock)),
                    Place::Value(column) => {
                        let expires = read_value(&self.cells.column::<Vec<u8>>(*column)[slot as usize]).map(|(_, expires)| expires);
                        if expires.is_some_and(|expires| expires <= self.at.of(clock)) {
                            self.cells.write::<Vec<u8>>(*column, &[slot])[slot as usize] = Vec::new();
                        }
                        expires.filter(|expires| *expires > self.at.of(clock))
                    }
                };
                match next {
                    Some(expires) => self.sweep_at(state, slot, expires),
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
            Place::Items(items) => items.is_empty(slot),
        };
        let pending = |timer: usize| self.timers[self.clocks[timer] as usize].pending(slot, TimerTag(timer as u8)).is_some();
        if self.places.iter().all(empty) && !(0..self.clocks.len()).any(pending) {
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
        for (timer, clock) in self.clocks.iter().enumerate() {
            self.timers[*clock as usize].clear(slot, TimerTag(timer as u8));
            self.holds[timer].set(slot, None);
        }
        for (state, place) in self.places.iter_mut().enumerate() {
            self.sweeps.iter_mut().for_each(|sweeps| sweeps.clear(slot, TimerTag(state as u8)));
            if let Place::Items(items) = place {
                items.clear(slot);
            }
        }
        self.closes.clear(slot, CLOSE);
        self.cells.remove(slot);
    }

    /// The earliest event time of what pending timers will give out.
    pub fn hold(&self) -> Option<Instant> {
        self.holds.iter().filter_map(Holds::earliest).min()
    }

    /// When a window's cells are dropped.
    pub fn closes_at(&self, window: Window) -> Instant {
        closes_at(window, self.allowed_lateness)
    }

    /// About how much memory the states take, bytes.
    pub fn bytes(&self) -> usize {
        let items = self.places.iter().map(|place| match place {
            Place::Items(items) => items.bytes(),
            Place::Value(_) => 0,
        });
        self.cells.bytes() + items.sum::<usize>()
    }

    fn is_alive(&self, state: usize, expires: Instant) -> bool {
        self.layouts[state].expires_by.is_none_or(|clock| self.at.of(clock) < expires)
    }

    fn sweep_at(&mut self, state: usize, slot: Slot, expires: Instant) {
        let Some(clock) = self.layouts[state].expires_by else { return };
        let (sweeps, tag) = (&mut self.sweeps[clock as usize], TimerTag(state as u8));
        if sweeps.pending(slot, tag).is_none() {
            let late = expires.micros().rem_euclid(SWEEP_GRAIN_MICROS);
            let up = if late == 0 { 0 } else { SWEEP_GRAIN_MICROS - late };
            sweeps.set(slot, tag, expires.saturating_add(Duration::from_micros(up)));
        }
    }
}

fn read_value(bytes: &[u8]) -> Option<Stored<'_>> {
    let (expires, value) = bytes.split_first_chunk::<8>()?;
    Some((value, Instant::from_micros_saturating(i64::from_le_bytes(*expires))))
}

#[cfg(test)]
mod tests;
