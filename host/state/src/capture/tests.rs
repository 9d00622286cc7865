//! Cells against a plain map: what is captured at any seal and restored is what was there, whatever was done before, between and after.

use super::*;
use crate::cells::{HoldsId, ItemsId};
use crate::columns::ColumnId;
use crate::rows::newest;
use crate::scratch::Scratch;
use crate::timers::TimerTag;
use pelton_core::Window;
use pelton_core::key::group_owner;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn at(micros: i64) -> Instant {
    Instant::from_micros_saturating(micros)
}

/// Key and window.
type Name = (u8, i64);

/// Keys that end by themselves, short and long.
fn key(number: u8) -> Vec<u8> {
    let mut key = vec![number + 1; 1 + 9 * number as usize];
    key.push(0);
    key
}

fn window(number: i64) -> Window {
    Window { start: at(number * 10), end: at(number * 10 + 10) }
}

/// By key: value and expiry.
type Items = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Cell {
    number: i64,
    wide: i128,
    float: f64,
    bytes: Vec<u8>,
    timers: BTreeMap<(u8, u8), i64>,
    holds: [Option<i64>; 2],
    items: [Items; 2],
}

type Model = BTreeMap<Name, Cell>;

#[derive(Clone, Debug)]
enum Step {
    Write(Name, i64),
    Remove(Name),
    Timer(Name, u8, u8, Option<i64>),
    Fire(u8, i64),
    Hold(Name, usize, Option<i64>),
    Put(Name, usize, u8, i64),
    Append(Name, usize, i64),
    RemoveItem(Name, usize, u8),
    Clear(Name, usize),
    Sweep(Name, usize, i64),
    Persist(usize),
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || (0u8..4, 0i64..2);
    prop_oneof![
        6 => (name(), -9i64..9).prop_map(|(name, value)| Step::Write(name, value)),
        3 => name().prop_map(Step::Remove),
        3 => (name(), 0u8..2, 0u8..3, proptest::option::of(0i64..20)).prop_map(|(name, clock, tag, at)| Step::Timer(name, clock, tag, at)),
        1 => (0u8..2, 0i64..20).prop_map(|(clock, now)| Step::Fire(clock, now)),
        2 => (name(), 0usize..2, proptest::option::of(0i64..20)).prop_map(|(name, set, at)| Step::Hold(name, set, at)),
        4 => (name(), 0usize..2, 0u8..4, 1i64..20).prop_map(|(name, set, key, number)| Step::Put(name, set, key, number)),
        2 => (name(), 0usize..2, 1i64..20).prop_map(|(name, set, number)| Step::Append(name, set, number)),
        1 => (name(), 0usize..2, 0u8..4).prop_map(|(name, set, key)| Step::RemoveItem(name, set, key)),
        1 => (name(), 0usize..2).prop_map(|(name, set)| Step::Clear(name, set)),
        1 => (name(), 0usize..2, 0i64..20).prop_map(|(name, set, now)| Step::Sweep(name, set, now)),
        4 => (0usize..4).prop_map(Step::Persist),
        2 => Just(Step::Seal),
    ]
}

struct Subject {
    cells: Cells,
    number: ColumnId,
    wide: ColumnId,
    float: ColumnId,
    bytes: ColumnId,
    holds: [HoldsId; 2],
    items: [ItemsId; 2],
}

impl Subject {
    fn new() -> Subject {
        Subject::on(None)
    }

    /// In memory, or with cells that leave it after each step.
    fn on(scratch: Option<&Scratch>) -> Subject {
        let mut cells = Cells::default();
        let (number, wide, float) = (cells.declare(0i64), cells.declare(0i128), cells.declare(0f64));
        let bytes = cells.declare(Vec::<u8>::new());
        let holds = [cells.declare_holds(), cells.declare_holds()];
        let items = [cells.declare_items(), cells.declare_items()];
        if let Some(scratch) = scratch {
            cells.evict_to(scratch).expect("a tree");
        }
        Subject { cells, number, wide, float, bytes, holds, items }
    }

    fn slot(&mut self, (number, of): Name) -> Slot {
        self.cells.entry(CellKey { key: &key(number), window: window(of) }).0
    }

    fn make_room(&mut self) {
        self.cells.make_room(&mut ()).expect("the disk works");
    }

    /// Does a step both here and in the model, but for those about epochs.
    fn step(&mut self, model: &mut Model, step: &Step) {
        let expires = |number: i64| (vec![number as u8; number as usize], number);
        match *step {
            Step::Write(name, value) => {
                let (slot, cell) = (self.slot(name), model.entry(name).or_default());
                cell.number += value;
                cell.wide -= i128::from(value) << 70;
                cell.float = value as f64 / 4.0;
                cell.bytes.push(value as u8);
                self.cells.write::<i64>(self.number, &[slot])[slot as usize] += value;
                let mut touched = self.cells.touch(&[slot]);
                touched.column::<i128>(self.wide)[slot as usize] -= i128::from(value) << 70;
                touched.column::<f64>(self.float)[slot as usize] = value as f64 / 4.0;
                touched.column::<Vec<u8>>(self.bytes)[slot as usize].push(value as u8);
            }
            Step::Remove(name) => {
                if model.remove(&name).is_some() {
                    let slot = self.slot(name);
                    self.cells.remove(slot);
                }
            }
            Step::Timer(name, clock, tag, time) => {
                let (slot, cell, of) = (self.slot(name), model.entry(name).or_default(), Clock::ALL[clock as usize]);
                match time {
                    Some(time) => {
                        cell.timers.insert((clock, tag), time);
                        self.cells.set_timer(of, slot, TimerTag(tag), at(time));
                    }
                    None => {
                        cell.timers.remove(&(clock, tag));
                        self.cells.clear_timer(of, slot, TimerTag(tag));
                    }
                }
            }
            Step::Fire(clock, now) => {
                let fired = self.fire(clock, now);
                assert_eq!(fired, fire(model, clock, now));
            }
            Step::Hold(name, set, time) => {
                let slot = self.slot(name);
                model.entry(name).or_default().holds[set] = time;
                self.cells.set_hold(self.holds[set], slot, time.map(at));
            }
            Step::Put(name, set, key, number) => {
                let (slot, (value, time)) = (self.slot(name), expires(number));
                self.cells.put_item(self.items[set], slot, &[key], &value, at(time));
                model.entry(name).or_default().items[set].insert(vec![key], (value, time));
            }
            Step::Append(name, set, number) => {
                let (slot, (value, time)) = (self.slot(name), expires(number));
                self.cells.append_item(self.items[set], slot, &value, at(time));
                let items = &mut model.entry(name).or_default().items[set];
                let last = items.last_key_value().and_then(|(key, _)| key.first_chunk::<8>());
                let next = last.map_or(0, |last| u64::from_be_bytes(*last) + 1);
                items.insert(next.to_be_bytes().to_vec(), (value, time));
            }
            Step::RemoveItem(name, set, key) => {
                let slot = self.slot(name);
                self.cells.remove_item(self.items[set], slot, &[key]);
                model.entry(name).or_default().items[set].remove(&vec![key]);
            }
            Step::Clear(name, set) => {
                let slot = self.slot(name);
                self.cells.clear_items(self.items[set], slot);
                model.entry(name).or_default().items[set].clear();
            }
            Step::Sweep(name, set, now) => {
                let slot = self.slot(name);
                self.cells.sweep_items(self.items[set], slot, at(now));
                model.entry(name).or_default().items[set].retain(|_, (_, expires)| *expires > now);
            }
            Step::Persist(_) | Step::Seal => {}
        }
        self.make_room();
    }

    /// Time, cell and tag of what is due. All of a key that is due at one time comes at once.
    fn fire(&mut self, clock: u8, now: i64) -> Vec<(i64, Name, u8)> {
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        while let Some((time, fired)) = self.cells.due_timers(Clock::ALL[clock as usize], at(now)) {
            let fired: Vec<_> = fired.into_iter().map(|(slot, tag)| (time.micros(), self.name(slot), tag.0)).collect();
            let keys: BTreeSet<_> = fired.iter().map(|(time, (key, _), _)| (*time, *key)).collect();
            assert!(seen.is_disjoint(&keys), "{fired:?} after others of their keys");
            seen.extend(keys);
            all.extend(fired);
            self.make_room();
        }
        assert!(all.is_sorted_by_key(|(time, ..)| *time));
        all.sort_unstable();
        all
    }

    fn name(&self, slot: Slot) -> Name {
        let cell = self.cells.key(slot);
        (cell.key[0] - 1, cell.window.start.micros() / 10)
    }

    /// All that is there.
    fn read(&mut self) -> Model {
        (0..10).for_each(|number| self.cells.bring_key(&key(number)));
        assert_eq!(self.cells.len(), self.cells.slots().count(), "no other keys are used");
        let cell = |slot: Slot| {
            let number = slot as usize;
            let timers = (0u8..2).flat_map(|clock| (0u8..3).map(move |tag| (clock, tag)));
            let pending = |(clock, tag): (u8, u8)| self.cells.pending_timer(Clock::ALL[clock as usize], slot, TimerTag(tag));
            let items = self.items.map(|items| {
                let items = self.cells.items(items).after(slot, None);
                items.map(|(key, value, expires)| (key.to_vec(), (value.to_vec(), expires.micros()))).collect()
            });
            let cell = Cell {
                number: self.cells.column::<i64>(self.number)[number],
                wide: self.cells.column::<i128>(self.wide)[number],
                float: self.cells.column::<f64>(self.float)[number],
                bytes: self.cells.column::<Vec<u8>>(self.bytes)[number].clone(),
                timers: timers.filter_map(|timer| Some((timer, pending(timer)?.micros()))).collect(),
                holds: self.holds.map(|holds| self.cells.hold(holds, slot).map(Instant::micros)),
                items,
            };
            (self.name(slot), cell)
        };
        self.cells.slots().map(cell).collect()
    }

    /// Everything is as in the model: cells, the earliest holds, and timers in order of time, which are taken.
    fn check(mut self, model: &Model) {
        assert_eq!(&self.read(), model);
        for (set, holds) in self.holds.into_iter().enumerate() {
            let earliest = model.values().filter_map(|cell| cell.holds[set]).min();
            assert_eq!(self.cells.earliest_hold(holds), earliest.map(at));
        }
        let mut model = model.clone();
        for clock in 0..2 {
            assert_eq!(self.fire(clock, 100), fire(&mut model, clock, 100));
        }
    }
}

fn fire(model: &mut Model, clock: u8, now: i64) -> Vec<(i64, Name, u8)> {
    let mut due = Vec::new();
    for (name, cell) in model.iter_mut() {
        cell.timers.retain(|(of, tag), time| {
            let fires = *of == clock && *time <= now;
            if fires {
                due.push((*time, *name, *tag));
            }
            !fires
        });
    }
    due.sort_unstable();
    due
}

/// Runs steps; what the epochs left, sorted, and the model at each seal.
fn run(subject: &mut Subject, model: &mut Model, steps: &[Step]) -> Vec<(Rows, Model)> {
    let mut sealed: Vec<(Rows, Model)> = Vec::new();
    let finish = |subject: &mut Subject, sealed: &mut Vec<(Rows, Model)>| {
        if let Some((rows, _)) = sealed.last_mut() {
            while !subject.cells.persist(2, rows) {}
        }
    };
    for step in steps.iter().chain([&Step::Seal]) {
        match step {
            Step::Seal => {
                finish(subject, &mut sealed);
                subject.cells.seal();
                subject.make_room();
                sealed.push((Rows::default(), model.clone()));
            }
            Step::Persist(budget) => {
                if let Some((rows, _)) = sealed.last_mut() {
                    subject.cells.persist(*budget, rows);
                    subject.make_room();
                }
            }
            step => subject.step(model, step),
        }
    }
    finish(subject, &mut sealed);
    assert_eq!(subject.read(), *model);
    sealed.into_iter().map(|(rows, model)| (rows.sorted(), model)).collect()
}

/// The rows of several epochs as one list.
fn merge(segments: &[&Rows]) -> Rows {
    let mut ranked: Vec<(u64, Row<'_>)> = Vec::new();
    for (rank, rows) in segments.iter().enumerate() {
        ranked.extend(rows.iter().map(|row| (rank as u64, row)));
    }
    ranked.sort_by(|(rank, a), (other, b)| (a.address, rank).cmp(&(b.address, other)));
    let mut merged = Rows::default();
    newest(ranked.into_iter(), |row| merged.push(row));
    merged
}

/// Restored into so many tasks, each with its key groups.
fn restored(rows: &Rows, tasks: usize, scratch: Option<&Scratch>) -> Vec<Subject> {
    let restore = |task: usize| {
        let mut subject = Subject::on(scratch);
        let own: Vec<_> = rows.iter().filter(|row| group_owner(row.group(), tasks) == task).collect();
        for portion in own.chunks(3) {
            subject.cells.restore(portion.iter().copied()).expect("what was written is read");
            subject.make_room();
        }
        subject
    };
    (0..tasks).map(restore).collect()
}

/// What is captured at each seal is restored as it was, into cells that are where `into` says.
fn check_run(from: Option<&Scratch>, into: Option<&Scratch>, steps: &[Step], more: &[Step]) {
    let (mut subject, mut model) = (Subject::on(from), Model::new());
    subject.cells.record();
    let sealed = run(&mut subject, &mut model, steps);
    let segments: Vec<&Rows> = sealed.iter().map(|(rows, _)| rows).collect();
    for (epoch, (_, model)) in sealed.iter().enumerate() {
        let rows = merge(&segments[..=epoch]);
        // Trees are dear to open.
        for tasks in 1..=if into.is_some() { 1 } else { 3 } {
            let mut parts = restored(&rows, tasks, into);
            let mut own: Vec<Model> = parts.iter_mut().map(Subject::read).collect();
            for part in parts {
                let own = own.remove(0);
                assert!(own.iter().all(|cell| model.get(cell.0) == Some(cell.1)));
                part.check(&own);
            }
        }
        let [whole] = restored(&rows, 1, None).try_into().ok().expect("one task");
        whole.check(model);
    }
    // What goes on from a restored state leaves what fits behind the older epochs.
    let rows = merge(&segments);
    let [mut again] = restored(&rows, 1, into).try_into().ok().expect("one task");
    again.cells.record();
    let mut left = Rows::default();
    again.cells.seal();
    assert!(again.cells.persist(usize::MAX, &mut left) && left.is_empty(), "nothing has changed since");
    let later = run(&mut again, &mut model, more);
    let mut segments = vec![&rows];
    segments.extend(later.iter().map(|(rows, _)| rows));
    let [whole] = restored(&merge(&segments), 1, None).try_into().ok().expect("one task");
    whole.check(&model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_seal_is_restored_as_it_was(steps in proptest::collection::vec(step(), 0..120), more in proptest::collection::vec(step(), 0..30)) {
        check_run(None, None, &steps, &more);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// The same where nearly all cells leave memory after each step (a cell counts for 200 bytes and more), from and into either.
    #[test]
    fn cells_that_leave_memory_are_what_they_were(
        memory in prop_oneof![Just(0u64), 0u64..3_000],
        from in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..120), more in proptest::collection::vec(step(), 0..30),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::open(folder.path(), memory, 1).expect("a folder");
        let (from, into) = if from { (Some(&*scratch), None) } else { (None, Some(&*scratch)) };
        check_run(from, into, &steps, &more);
    }
}

#[test]
fn rows_are_as_many_as_changes() {
    let (mut subject, mut model) = (Subject::new(), Model::new());
    subject.cells.record();
    let names: Vec<Name> = (0..4).flat_map(|key| (0..2).map(move |window| (key, window))).collect();
    let writes: Vec<Step> = names.iter().map(|name| Step::Write(*name, 1)).collect();
    assert_eq!(run(&mut subject, &mut model, &writes)[0].0.len(), names.len());
    let short = [Step::Write((9, 9), 1), Step::Remove((9, 9)), Step::Write(names[0], 1), Step::Remove(names[1])];
    assert_eq!(run(&mut subject, &mut model, &short)[0].0.len(), 2, "a cell that came and went leaves nothing");
    // Before its time a cell is not there to be written: an entry alone is a change.
    subject.slot((9, 9));
    model.entry((9, 9)).or_default();
    assert_eq!(run(&mut subject, &mut model, &[])[0].0.len(), 1);
    subject.step(&mut model, &Step::Put((9, 9), 0, 1, 1));
    assert_eq!(run(&mut subject, &mut model, &[])[0].0.len(), 1, "an item is a row, its cell is none");
}

#[test]
fn cells_that_nobody_persists_keep_no_changes() {
    let (mut subject, mut model) = (Subject::new(), Model::new());
    let mut bytes = 0;
    for round in 0..1_000 {
        subject.step(&mut model, &Step::Put((0, 0), 0, 1, 5));
        subject.step(&mut model, &Step::Remove((0, 0)));
        if round == 10 {
            bytes = subject.cells.bytes();
        }
    }
    assert_eq!(subject.cells.bytes(), bytes);
}

#[test]
fn another_layout_is_refused_with_both_named() {
    let subject = Subject::new();
    let own = subject.cells.layout().to_string();
    assert_eq!(own, "v1: i64 i128 f64 bytes; holds 2; items 2");
    assert_eq!(subject.cells.check_layout(&own), Ok(()));
    let refused = subject.cells.check_layout("v1: i64; holds 0; items 0").expect_err("another layout").to_string();
    assert!(refused.contains("`v1: i64; holds 0; items 0`") && refused.contains(&own), "{refused}");
}

#[test]
fn damaged_rows_are_refused() {
    let mut address = Vec::new();
    put_cell(b"k", window(0), &mut address);
    let cell = address.len();
    let mut rows = Rows::default();
    address.push(CELL);
    rows.push(Row { address: &address, key_len: 1, change: Change::Put(&[1, 0]) });
    assert_eq!(Subject::new().cells.restore(rows.iter()), Err(StateError::Damaged("it is cut off")));
    address[cell] = 1;
    let mut rows = Rows::default();
    rows.push(Row { address: &address, key_len: 1, change: Change::Put(&[0; 8]) });
    assert_eq!(Subject::new().cells.restore(rows.iter()), Err(StateError::Damaged("an item without a cell")));
    let mut rows = Rows::default();
    rows.push(Row { address: &address[..9], key_len: 1, change: Change::Put(&[0; 8]) });
    assert_eq!(Subject::new().cells.restore(rows.iter()), Err(StateError::Damaged("a row without an address")));
}
