//! Cells that do not fit into memory (decision 0017): those that were not used lately lie in a [`Scratch`], and come back when they are asked for.
//!
//! ```text
//! 0 | address (see crate::rows)        length of the cell: varint | the cell (see crate::layout)
//!                                      of each set of items: varint count, then of each: key, value: varint length, bytes | expiry: 8 bytes
//! 1 + alarm | time | address           nothing: the cell is to be back at this time; i64 big-endian with the sign flipped
//! ```
//!
//! Alarms 0 and 1 are the timers of cells by clock, 2 is that of cells of earlier eras, others are the operator's. An alarm that no longer holds does no harm: it brings a cell
//! back in vain.
//!
//! Cells leave in [`Cells::make_room`] only, so that slots hold in between. An error is kept until then: a look-up that fails finds nothing, and
//! what was done since must not be passed on.
//!
//! Invariants: a cell is in memory as a whole or on disk as a whole; a row on disk whose cell is in memory is older than it, and goes with
//! it; for each timer of a cell on disk there is an alarm, and `first` is not after it.

use crate::cells::{CellKey, Cells, Slot, spread};
use crate::layout::{CellState, Layout, StateError};
use crate::rows::{WINDOW_BYTES, put_cell, read_address};
use crate::scratch::{Scratch, ScratchError, Tree};
use crate::timers::{Clock, TimerTag};
use pelton_core::key::key_hash;
use pelton_core::{Instant, failpoint, varint};
use std::collections::BTreeMap;

/// What an operator keeps by slot beyond a message.
pub trait Indexes {
    /// A cell leaves memory: it is to be forgotten. What is added to `leaving` goes for it.
    fn leave(&mut self, cells: &Cells, slot: Slot, leaving: &mut Leaving);
}

/// Of an operator that keeps nothing by slot.
impl Indexes for () {
    fn leave(&mut self, _cells: &Cells, _slot: Slot, _leaving: &mut Leaving) {}
}

/// What goes for a cell that leaves memory.
#[derive(Debug, Default)]
pub struct Leaving {
    /// When it is to be back at the latest, for [`Cells::bring_due`].
    pub alarms: Vec<(Alarm, Instant)>,
    /// Cells that leave with it.
    pub with: Vec<Slot>,
}

/// Which of an operator's own alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm(pub u8);

/// The alarm of cells of earlier eras; it rings at any time.
const OLD: usize = 2;
/// The operator's first alarm.
const OWN: usize = 3;
/// Rows of cells.
const CELLS: u8 = 0;
/// Cells that come back at once, at most.
const PORTION: usize = 4_096;
/// The share of the budget that a portion may take: one in so many.
const PORTION_SHARE: usize = 4;
/// Of the budget, what is left free when cells leave: one in so many, so that they do not leave one at a time.
const SPARE: usize = 8;
/// Bytes of a timer or hold beside its cell's slot, about.
const OF_TIMER: usize = 24;

/// How a slot was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    /// Not since the clock's hand came by.
    #[default]
    Cold,
    /// Since then.
    Warm,
    /// Since cells left last; its size may have changed.
    Hot,
}

/// What is known of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    used: Use,
    /// Bytes that count for it; 0: it is free.
    bytes: usize,
    /// There is an older row of its cell.
    stored: bool,
}

/// The cells of one operator that are on disk, and which of the others go next.
#[derive(Debug)]
pub(crate) struct Evicted {
    tree: Tree,
    layout: Layout,
    /// Bytes of cells that may be in memory.
    budget: usize,
    /// Bytes of a cell without what its columns and items hold elsewhere.
    each: usize,
    places: Vec<Place>,
    hot: Vec<Slot>,
    /// Of all places.
    bytes: usize,
    hand: Slot,
    /// Slots of cells that came back, for the operator.
    arrived: Vec<Slot>,
    /// Cells on disk.
    pub(crate) cells: usize,
    /// By set: how many of them have a hold at a time.
    holds: Vec<BTreeMap<Instant, usize>>,
    /// By alarm: the first key that there is.
    first: Vec<Option<Vec<u8>>>,
    failed: Option<ScratchError>,
}

impl Evicted {
    /// Notes that a slot is used.
    pub(crate) fn touch(&mut self, slot: Slot) {
        let at = slot as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, Place::default());
        }
        if self.places[at].used != Use::Hot {
            self.places[at].used = Use::Hot;
            self.hot.push(slot);
        }
    }

    /// The smallest hold of cells on disk.
    pub(crate) fn earliest_hold(&self, set: usize) -> Option<Instant> {
        self.holds[set].first_key_value().map(|(at, _)| *at)
    }

    /// When the first alarm rings.
    pub(crate) fn first(&self, alarm: usize) -> Option<Instant> {
        self.first.get(alarm)?.as_deref().and_then(alarm_time)
    }

    fn keep<T>(&mut self, result: Result<T, ScratchError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    fn damaged<T>(&mut self, message: &str) -> Option<T> {
        let error = ScratchError::damaged(self.tree.folder(), message);
        self.keep(Err(error))
    }

    fn set_alarm(&mut self, alarm: usize, at: Instant, address: &[u8]) {
        let mut key = vec![1 + alarm as u8];
        key.extend_from_slice(&((at.micros() as u64) ^ (1 << 63)).to_be_bytes());
        key.extend_from_slice(address);
        let written = self.tree.put(&key, &[]);
        self.keep(written);
        if self.first.len() <= alarm {
            self.first.resize(alarm + 1, None);
        }
        if self.first[alarm].as_ref().is_none_or(|first| key < *first) {
            self.first[alarm] = Some(key);
        }
    }

    /// Takes the alarms that ring at or before a time: a portion of them, with all of the last one's key at its time. Gives addresses, and the
    /// key's part of the last one if there are more until then.
    fn take_alarms(&mut self, alarm: usize, until: Instant) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        if self.first(alarm).is_none_or(|at| at > until) {
            return (Vec::new(), None);
        }
        let Some(first) = self.first[alarm].take() else { return (Vec::new(), None) };
        let live = self.places.iter().filter(|place| place.bytes > 0).count();
        let average = self.bytes / live.max(1) + 1;
        let portion = (self.budget / PORTION_SHARE / average).clamp(1, PORTION);
        let (mut taken, mut more): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
        let (mut next, mut failed) = (None, None);
        for key in self.tree.keys(&first, &[2 + alarm as u8]) {
            let key = match key {
                Ok(key) => key,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let rings = alarm_time(&key).is_some_and(|at| at <= until);
            let last = taken.last().map(|last| alarm_key(last));
            if !rings || (taken.len() >= portion && last.is_some_and(|last| last != alarm_key(&key))) {
                more = last.filter(|_| rings).map(|last| last[9..].to_vec());
                next = Some(key);
                break;
            }
            taken.push(key);
        }
        if let Some(error) = failed {
            self.first[alarm] = Some(first);
            self.keep::<()>(Err(error));
            return (Vec::new(), None);
        }
        self.first[alarm] = next;
        for key in &taken {
            let removed = self.tree.remove(key);
            self.keep(removed);
        }
        (taken.into_iter().map(|mut key| key.split_off(9)).collect(), more)
    }
}

/// The time in an alarm's key.
fn alarm_time(key: &[u8]) -> Option<Instant> {
    let bytes = key.get(1..9)?.first_chunk::<8>()?;
    Some(Instant::from_micros_saturating((u64::from_be_bytes(*bytes) ^ (1 << 63)) as i64))
}

/// An alarm's key without the window of the cell.
fn alarm_key(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(WINDOW_BYTES)]
}

fn row_key(cell: CellKey<'_>) -> Vec<u8> {
    let mut key = vec![CELLS];
    put_cell(cell.key, cell.window, &mut key);
    key
}

impl Cells {
    /// From here on cells that take more than their share of a scratch's memory lie there. To be called before the first cell.
    pub fn evict_to(&mut self, scratch: &Scratch) -> Result<(), ScratchError> {
        assert!(self.is_empty(), "where cells lie is said before the first one");
        let columns: usize = self.columns.iter().map(|column| column.width()).sum();
        let timers = OF_TIMER * (1 + self.holds.len() + self.items.len());
        self.evicted = Some(Box::new(Evicted {
            tree: scratch.tree()?,
            layout: self.layout(),
            budget: scratch.cells(),
            each: Cells::SLOT_BYTES + columns + timers,
            places: Vec::new(),
            hot: Vec::new(),
            bytes: 0,
            hand: 0,
            arrived: Vec::new(),
            cells: 0,
            holds: vec![BTreeMap::new(); self.holds.len()],
            first: Vec::new(),
            failed: None,
        }));
        Ok(())
    }

    /// Whether cells may lie on disk.
    pub fn evicts(&self) -> bool {
        self.evicted.is_some()
    }

    /// Lets cells leave that were not used lately, until the others fit; fails with what has failed since the last time. No slot is valid afterwards.
    pub fn make_room(&mut self, indexes: &mut dyn Indexes) -> Result<(), ScratchError> {
        let Some(mut evicted) = self.evicted.take() else { return Ok(()) };
        evicted.arrived.clear();
        self.measure_hot(&mut evicted);
        if evicted.bytes > evicted.budget && evicted.failed.is_none() {
            self.evict(&mut evicted, indexes);
        }
        let failed = evicted.failed.clone();
        self.evicted = Some(evicted);
        failed.map_or(Ok(()), Err)
    }

    fn measure_hot(&mut self, evicted: &mut Evicted) {
        for slot in std::mem::take(&mut evicted.hot) {
            let bytes = match self.is_live(slot) {
                true => evicted.each + self.bytes_elsewhere(slot),
                false => 0,
            };
            let place = &mut evicted.places[slot as usize];
            place.used = Use::Warm;
            evicted.bytes = evicted.bytes - place.bytes + bytes;
            place.bytes = bytes;
        }
    }

    /// Goes round the slots: the first time past one that was used spares it.
    fn evict(&mut self, evicted: &mut Evicted, indexes: &mut dyn Indexes) {
        let target = evicted.budget - evicted.budget / SPARE;
        let mut leaving = Leaving::default();
        let mut steps = 2 * evicted.places.len();
        while evicted.bytes > target && steps > 0 {
            steps -= 1;
            let slot = evicted.hand;
            evicted.hand = (slot + 1) % evicted.places.len() as Slot;
            let place = &mut evicted.places[slot as usize];
            if place.bytes == 0 || std::mem::take(&mut place.used) != Use::Cold {
                continue;
            }
            leaving.with.push(slot);
            while let Some(slot) = leaving.with.pop() {
                if self.is_live(slot) {
                    indexes.leave(self, slot, &mut leaving);
                    self.write_out(evicted, slot, &leaving.alarms);
                    leaving.alarms.clear();
                    self.vacate(slot);
                    self.columns.iter_mut().for_each(|column| column.release(slot));
                    evicted.bytes -= evicted.places[slot as usize].bytes;
                    evicted.places[slot as usize] = Place::default();
                    evicted.cells += 1;
                }
            }
        }
    }

    fn write_out(&mut self, evicted: &mut Evicted, slot: Slot, alarms: &[(Alarm, Instant)]) {
        self.capture_leaving(slot);
        let key = row_key(self.key(slot));
        let (mut cell, mut row) = (Vec::new(), Vec::new());
        self.encode_cell(slot, &mut cell);
        varint::write(&mut row, cell.len() as u64);
        row.append(&mut cell);
        self.items.iter().for_each(|items| items.encode(slot, &mut row));
        let written = evicted.tree.put(&key, &row);
        evicted.keep(written);
        failpoint::hit("evict.written");
        let address = &key[1..];
        for clock in Clock::ALL {
            for (_, at) in self.timers[clock as usize].pending_of(slot) {
                evicted.set_alarm(clock as usize, at, address);
            }
        }
        if self.is_old(slot) {
            evicted.set_alarm(OLD, Instant::MIN, address);
        }
        for (alarm, at) in alarms {
            evicted.set_alarm(OWN + alarm.0 as usize, *at, address);
        }
        for (set, holds) in self.holds.iter().enumerate() {
            if let Some(at) = holds.get(slot) {
                *evicted.holds[set].entry(at).or_default() += 1;
            }
        }
    }

    /// A cell that is not in memory, from disk; `None`: it is not there either.
    #[cold]
    pub(crate) fn bring(&mut self, hash: u64, cell: CellKey<'_>) -> Option<Slot> {
        let evicted = self.evicted.as_mut().filter(|evicted| evicted.cells > 0)?;
        let read = evicted.tree.get(&row_key(cell));
        let row = evicted.keep(read)??;
        self.take_in(hash, cell, row.as_ref())
    }

    fn take_in(&mut self, hash: u64, cell: CellKey<'_>, row: &[u8]) -> Option<Slot> {
        let mut evicted = self.evicted.take()?;
        let mut rest = row;
        let mut state = CellState::default();
        let length = varint::read(&mut rest).and_then(|length| usize::try_from(length).ok());
        let decoded = match length.and_then(|length| varint::read_bytes(&mut rest, length)) {
            Some(bytes) => evicted.layout.decode(bytes, &mut state),
            None => Err(StateError::Damaged("it is cut off")),
        };
        let slot = match decoded {
            Ok(()) => {
                let slot = self.insert_clean(hash, cell);
                self.fill(slot, &mut state);
                for (set, at) in &state.holds {
                    if let Some(count) = evicted.holds[*set].get_mut(at) {
                        *count -= 1;
                        if *count == 0 {
                            evicted.holds[*set].remove(at);
                        }
                    }
                }
                if self.items.iter_mut().any(|items| items.decode(slot, &mut rest).is_none()) {
                    evicted.damaged::<()>("items of a cell are cut off");
                }
                evicted.touch(slot);
                evicted.places[slot as usize].stored = true;
                evicted.cells -= 1;
                evicted.arrived.push(slot);
                failpoint::hit("evict.brought");
                Some(slot)
            }
            Err(error) => evicted.damaged(&error.to_string()),
        };
        self.evicted = Some(evicted);
        slot
    }

    /// Brings the cells of a key back, all of them.
    pub fn bring_key(&mut self, key: &[u8]) {
        let Some(evicted) = self.evicted.as_mut().filter(|evicted| evicted.cells > 0) else { return };
        let hash = key_hash(key);
        let mut prefix = vec![CELLS];
        prefix.extend_from_slice(&pelton_core::key::key_group(hash).to_be_bytes());
        prefix.extend_from_slice(key);
        let read: Result<Vec<_>, _> = evicted.tree.entries(&prefix).collect();
        for (address, row) in evicted.keep(read).unwrap_or_default() {
            let Some((found, window)) = read_address(&address[1..]) else { continue };
            let cell = CellKey { key, window };
            let hash = hash ^ spread(window);
            if found == key && self.indexed(hash, cell).is_none() {
                self.take_in(hash, cell, &row);
            }
        }
    }

    /// Brings cells back whose alarm rings at or before a time, a portion of them. True: there may be more.
    pub fn bring_due(&mut self, alarm: Alarm, until: Instant) -> bool {
        self.bring_rung(OWN + alarm.0 as usize, until)
    }

    /// Brings back cells of earlier eras ([`Cells::is_old`]), a portion of them.
    pub fn bring_old(&mut self) {
        self.bring_rung(OLD, Instant::MIN);
    }

    fn bring_rung(&mut self, alarm: usize, until: Instant) -> bool {
        let Some(evicted) = &mut self.evicted else { return false };
        let (addresses, _) = evicted.take_alarms(alarm, until);
        self.bring_addresses(&addresses);
        self.evicted.as_ref().is_some_and(|evicted| evicted.failed.is_none() && evicted.first(alarm).is_some_and(|at| at <= until))
    }

    /// When a cell on disk is to be back for one of the operator's own alarms.
    pub fn next_alarm(&self, alarm: Alarm) -> Option<Instant> {
        self.evicted.as_ref()?.first(OWN + alarm.0 as usize)
    }

    fn bring_addresses(&mut self, addresses: &[Vec<u8>]) {
        for address in addresses {
            let Some((key, window)) = read_address(address) else { continue };
            let (hash, cell) = (key_hash(key) ^ spread(window), CellKey { key, window });
            if self.indexed(hash, cell).is_none() {
                self.bring(hash, cell);
            }
        }
    }

    /// Slots of cells that came back since this was asked, or since [`Cells::make_room`].
    pub fn take_arrived(&mut self) -> Vec<Slot> {
        self.evicted.as_mut().map_or_else(Vec::new, |evicted| std::mem::take(&mut evicted.arrived))
    }

    /// Notes that a restored cell is one that came back.
    pub(crate) fn note_arrival(&mut self, slot: Slot) {
        if let Some(evicted) = &mut self.evicted {
            evicted.touch(slot);
            evicted.arrived.push(slot);
        }
    }

    /// A cell goes for good: what is on disk of it goes too.
    pub(crate) fn forget(&mut self, slot: Slot) {
        let Some(mut evicted) = self.evicted.take() else { return };
        evicted.touch(slot);
        if std::mem::take(&mut evicted.places[slot as usize].stored) {
            let removed = evicted.tree.remove(&row_key(self.key(slot)));
            evicted.keep(removed);
        }
        self.evicted = Some(evicted);
    }

    /// [`Cells::due_timers`] where cells may lie on disk: all timers of a key at one time come together, and not more than a portion from disk.
    pub(crate) fn due_with_evicted(&mut self, clock: Clock, now: Instant) -> Option<(Instant, Vec<(Slot, TimerTag)>)> {
        loop {
            let evicted = self.evicted.as_mut().filter(|evicted| evicted.failed.is_none())?;
            let first = evicted.first(clock as usize);
            let at = first.into_iter().chain(self.timers[clock as usize].next()).min().filter(|at| *at <= now)?;
            let mut bound = None;
            if first == Some(at) {
                let (addresses, more) = evicted.take_alarms(clock as usize, at);
                self.bring_addresses(&addresses);
                bound = more;
            }
            let Some((at, mut due)) = self.timers[clock as usize].take_bucket(at) else { continue };
            if let Some(bound) = bound {
                let mut address = Vec::new();
                let (rest, portion) = due.into_iter().partition(|(slot, _)| {
                    address.clear();
                    let cell = self.names.get(*slot);
                    put_cell(cell.key, cell.window, &mut address);
                    address[..address.len() - WINDOW_BYTES] > bound[..]
                });
                self.timers[clock as usize].put_back(at, rest);
                due = portion;
            }
            for (slot, tag) in &due {
                self.clear_timer(clock, *slot, *tag);
                self.used(*slot);
            }
            if !due.is_empty() {
                return Some((at, due));
            }
        }
    }

    /// Shows the cells that are on disk.
    pub fn visit_evicted(&self, mut visit: impl FnMut(CellKey<'_>, &CellState)) -> Result<(), ScratchError> {
        let Some(evicted) = &self.evicted else { return Ok(()) };
        let mut state = CellState::default();
        for entry in evicted.tree.entries(&[CELLS]) {
            let (address, row) = entry?;
            let Some((key, window)) = read_address(&address[1..]) else { continue };
            let cell = CellKey { key, window };
            let mut rest = &row[..];
            let length = varint::read(&mut rest).and_then(|length| usize::try_from(length).ok());
            let bytes = length.and_then(|length| varint::read_bytes(&mut rest, length)).unwrap_or_default();
            if self.indexed(key_hash(key) ^ spread(window), cell).is_none() && evicted.layout.decode(bytes, &mut state).is_ok() {
                visit(cell, &state);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::ColumnId;
    use pelton_core::Window;
    use std::collections::HashMap;

    const WINDOW: Window = Window { start: Instant::from_micros_saturating(0), end: Instant::from_micros_saturating(10) };

    fn cells(scratch: &Scratch) -> (Cells, ColumnId) {
        let mut cells = Cells::default();
        let column = cells.declare(Vec::<u8>::new());
        cells.evict_to(scratch).expect("a tree");
        (cells, column)
    }

    fn key(number: u32) -> Vec<u8> {
        [&[1][..], &number.to_be_bytes()].concat()
    }

    /// Enough for flushes and compactions: 20,000 cells, of which a few hundred fit.
    #[test]
    fn many_cells_are_what_a_map_has_and_memory_stays_in_its_budget() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::open(folder.path(), 256 << 10, 1).expect("a folder");
        let (mut cells, column) = cells(&scratch);
        let mut model: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut random = 7u64;
        for batch in 0..1_000 {
            for _ in 0..100 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let number = (random >> 33) as u32 % 20_000;
                let (slot, new) = cells.entry(CellKey { key: &key(number), window: WINDOW });
                assert_eq!(new, !model.contains_key(&number));
                if random.is_multiple_of(11) {
                    cells.remove(slot);
                    model.remove(&number);
                    continue;
                }
                let value = &mut cells.write::<Vec<u8>>(column, &[slot])[slot as usize];
                let kept = model.entry(number).or_default();
                assert_eq!(value, kept);
                value.extend_from_slice(&random.to_le_bytes());
                kept.extend_from_slice(&random.to_le_bytes());
                cells.set_timer(Clock::Event, slot, TimerTag(0), Instant::from_micros_saturating(i64::from(number % 50)));
            }
            cells.make_room(&mut ()).expect("the disk works");
            assert_eq!(cells.len(), model.len());
            let bytes = cells.bytes();
            assert!(batch < 20 || bytes < 700 << 10, "{bytes} bytes after {batch} batches");
        }
        let mut fired = 0;
        while let Some((at, due)) = cells.due_timers(Clock::Event, Instant::MAX) {
            for (slot, _) in due {
                let number = u32::from_be_bytes(*cells.key(slot).key[1..].first_chunk().expect("four bytes"));
                assert_eq!(i64::from(number % 50), at.micros());
                assert_eq!(cells.column::<Vec<u8>>(column)[slot as usize], model.remove(&number).expect("a cell fires once"));
                cells.remove(slot);
                fired += 1;
            }
            cells.make_room(&mut ()).expect("the disk works");
        }
        assert!(model.is_empty() && cells.is_empty() && fired > 10_000, "{fired} fired, {} are left", model.len());
    }

    #[test]
    fn a_disk_that_fails_is_told_with_the_folder_and_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::open(folder.path(), 0, 1).expect("a folder");
        let (mut cells, column) = cells(&scratch);
        for entry in std::fs::read_dir(folder.path()).expect("a folder").flatten() {
            std::fs::remove_dir_all(entry.path()).expect("removed");
        }
        let failed = (0..1_000).find_map(|number| {
            let (slot, _) = cells.entry(CellKey { key: &key(number), window: WINDOW });
            cells.write::<Vec<u8>>(column, &[slot])[slot as usize] = vec![7; 1_000];
            cells.make_room(&mut ()).err()
        });
        let message = failed.expect("nothing can be written").to_string();
        assert!(message.contains(&folder.path().display().to_string()) && message.contains("\n  next: "), "{message}");
        assert!(cells.make_room(&mut ()).is_err(), "it has failed for good");
    }
}
