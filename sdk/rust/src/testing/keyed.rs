//! Runs a stateful transform natively, row by row, with a watermark and a clock that the test moves.
//!
//! ```
//! use pelton_sdk::prelude::*;
//! #[derive(Row)] struct Event { number: i64 }
//! #[derive(Row, Debug, PartialEq)] struct Total { total: i64 }
//! #[derive(State)] struct Sums { sum: Aggregating<Sum<i64>> }
//! #[derive(Timer)] enum Tick { End }
//!
//! struct SumUp;
//! #[stateful]
//! impl SumUp {
//!     fn process(row: Event, state: &mut Sums, timers: &mut Timers<Tick>, ctx: &Context) -> Option<Total> {
//!         state.sum.add(row.number);
//!         timers.set(Tick::End, ctx.window().end);
//!         None
//!     }
//!     fn on_timer(_timer: Tick, state: &mut Sums) -> Option<Total> {
//!         Some(Total { total: state.sum.get() })
//!     }
//! }
//!
//! let mut test = testing::stateful::<SumUp>(testing::Value::Null).with_windows(std::time::Duration::from_secs(60));
//! test.row("ann", Timestamp(1_000_000), Event { number: 2 });
//! test.row("bob", Timestamp(2_000_000), Event { number: 5 });
//! test.row("ann", Timestamp(3_000_000), Event { number: 3 });
//! test.watermark(Timestamp(60_000_000));
//! assert_eq!(test.take::<Total>(""), [("ann".to_owned(), Total { total: 5 }), ("bob".to_owned(), Total { total: 5 })]);
//! ```

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::{Value, columns_of, project};
use crate::context::Window;
use crate::keyed::{
    BytesColumn, FiredTimers, Found, Groups, Items, KeyedInput, KeyedOpenRequest, Reads, StateWrites, TimerWrites, ValueColumn,
};
use crate::read::Flat;
use crate::row::{ReadRow, WriteRow};
use crate::stateful::{Instance, Stateful, open, spec};
use crate::values::Timestamp;
use crate::wire::{Columns, Field, Input, OpenRequest, Opened, Output, StateKind, TimeDomain, TransformSpec, Ttl, numbers, wide_numbers};

/// A stateful transform with its state in memory. One window for all of time, unless [`Keyed::with_windows`] is called.
pub struct Keyed<T: Stateful> {
    config: Value,
    spec: TransformSpec,
    opened: Option<(Opened, Box<dyn Instance>, Vec<Field>)>,
    /// By key and start of the window.
    cells: BTreeMap<(String, i64), Cell>,
    window: Option<i64>,
    watermark: i64,
    now: i64,
    outputs: Vec<(String, Output)>,
    /// Key and message of refused rows and timers, in order.
    pub errors: Vec<(String, String)>,
    transform: std::marker::PhantomData<T>,
}

#[derive(Default, Clone)]
struct Cell {
    /// By state.
    values: Vec<Option<Stored>>,
    items: Vec<BTreeMap<Vec<u8>, Stored>>,
    /// By timer: fire time and output time.
    timers: Vec<Option<(i64, i64)>>,
    appended: u64,
}

type Stored = (Vec<u8>, i64);

/// Begins with no state, at the beginning of event time and at 1970-01-01 of processing time. `Value::Null` is no config.
pub fn stateful<T: Stateful>(config: Value) -> Keyed<T> {
    Keyed {
        config: if config.is_null() { Value::Object(serde_json::Map::new()) } else { config },
        spec: spec::<T>(),
        opened: None,
        cells: BTreeMap::new(),
        window: None,
        watermark: -Timestamp::MAX.0,
        now: 0,
        outputs: vec![],
        errors: vec![],
        transform: std::marker::PhantomData,
    }
}

impl<T: Stateful> Keyed<T> {
    /// Windows of equal length, one of which starts at 1970-01-01.
    pub fn with_windows(mut self, size: Duration) -> Keyed<T> {
        self.window = Some(size.as_micros() as i64);
        self
    }

    /// Processes a row of a key. Panics when the transform cannot be opened, or panics itself.
    pub fn row(&mut self, key: &str, at: Timestamp, row: impl WriteRow) {
        let (schema, columns) = columns_of([row]);
        if self.opened.is_none() {
            let base = OpenRequest { transform: T::NAME.to_owned(), config: self.config.to_string(), schema: schema.clone() };
            match open::<T>(&KeyedOpenRequest { base, key: vec![] }) {
                Ok((opened, instance)) => self.opened = Some((opened, instance, schema.clone())),
                Err(failure) => panic!("{}", failure.message),
            }
        }
        let (opened, _, first) = self.opened.as_ref().expect("opened just now");
        assert_eq!(*first, schema, "all rows of a test have one type");
        let cell = (key.to_owned(), self.window.map_or(-Timestamp::MAX.0, |size| at.0.div_euclid(size) * size));
        if self.window_of(&cell).end.0 <= self.watermark {
            self.errors.push((key.to_owned(), "late: the window has closed".to_owned()));
            return;
        }
        let mut pane = vec![0; 24];
        (pane[16], pane[20]) = (3, 3);
        let rows = Input {
            columns: project(&schema, columns, &opened.reads),
            event_times: at.0.to_le_bytes().to_vec(),
            panes: vec![0; 4],
            pane_table: pane,
        };
        self.call(&cell, rows, 1, FiredTimers::default());
        self.fire(TimeDomain::EventTime);
    }

    /// Moves the watermark: timers fire, windows that have ended close.
    pub fn watermark(&mut self, to: Timestamp) {
        self.watermark = self.watermark.max(to.0);
        self.fire(TimeDomain::EventTime);
        let ended: Vec<_> = self.cells.keys().filter(|cell| self.window_of(cell).end.0 <= self.watermark).cloned().collect();
        for cell in ended {
            // What is still pending fires once.
            for timer in 0..self.spec.timers.len() {
                if let Some(at) = self.cells.get_mut(&cell).and_then(|cell| cell.timers[timer].take()) {
                    self.fire_one(&cell, timer, at);
                }
            }
            self.cells.remove(&cell);
        }
    }

    /// Moves the clock: timers of processing time fire.
    pub fn time(&mut self, to: Timestamp) {
        self.now = self.now.max(to.0);
        self.fire(TimeDomain::ProcessingTime);
    }

    /// Takes the new columns of the rows of an output, `""` for the main one, each with its key.
    pub fn take<R: for<'r> ReadRow<'r>>(&mut self, tag: &str) -> Vec<(String, R)> {
        let Some((opened, _, _)) = &self.opened else { return vec![] };
        let Some(port) = opened.outputs.iter().position(|output| output.tag == tag) else {
            panic!("the transform has no output `{tag}`; it has {:?}", self.spec.outputs);
        };
        let fields = &opened.outputs[port].adds;
        let (taken, rest) = std::mem::take(&mut self.outputs).into_iter().partition(|(_, output)| output.port == port as u32);
        self.outputs = rest;
        let taken: Vec<(String, Output)> = taken;
        let mut rows = vec![];
        for (key, output) in &taken {
            let readers = R::readers(Flat { fields, columns: &output.columns }, Flat::TOP);
            for row in 0..output.columns.rows as usize {
                match R::read(&readers, row) {
                    Ok(row) => rows.push((key.clone(), row)),
                    Err(null) => panic!("{null}"),
                }
            }
        }
        rows
    }

    /// How many cells have state or timers.
    pub fn cells(&self) -> usize {
        let full = |cell: &&Cell| {
            cell.values.iter().any(Option::is_some)
                || cell.items.iter().any(|items| !items.is_empty())
                || cell.timers.iter().any(Option::is_some)
        };
        self.cells.values().filter(full).count()
    }

    fn window_of(&self, (_, start): &(String, i64)) -> Window {
        let end = self.window.map_or(Timestamp::MAX.0 - 86_400_000_000, |size| start + size);
        Window { start: Timestamp(*start), end: Timestamp(end) }
    }

    /// In rounds, the earliest timer of each cell, until none is due.
    fn fire(&mut self, domain: TimeDomain) {
        let upto = if domain == TimeDomain::EventTime { self.watermark } else { self.now };
        for _ in 0..100_000 {
            let mut due = vec![];
            for (name, cell) in &mut self.cells {
                let mut of = |timer: usize| Some((cell.timers[timer]?, timer)).filter(|(at, _)| at.0 <= upto);
                let timers = (0..self.spec.timers.len()).filter(|timer| self.spec.timers[*timer].domain == domain);
                if let Some((at, timer)) = timers.filter_map(&mut of).min() {
                    cell.timers[timer] = None;
                    due.push((name.clone(), timer, at));
                }
            }
            if due.is_empty() {
                return;
            }
            due.into_iter().for_each(|(cell, timer, at)| self.fire_one(&cell, timer, at));
        }
        panic!("a timer of {} sets itself again without an end", T::NAME);
    }

    fn fire_one(&mut self, cell: &(String, i64), timer: usize, (time, output): (i64, i64)) {
        let fired = FiredTimers {
            groups: 0_u32.to_le_bytes().to_vec(),
            timers: (timer as u32).to_le_bytes().to_vec(),
            times: time.to_le_bytes().to_vec(),
            output_times: output.to_le_bytes().to_vec(),
        };
        let outputs = self.outputs.len();
        let (opened, _, schema) = self.opened.as_ref().expect("a timer was set by a row");
        let none = columns_without_rows(schema, opened);
        self.call(cell, Input { columns: none, ..Input::default() }, 0, fired);
        let (opened, _, _) = self.opened.as_ref().expect("a timer was set by a row");
        if let Some((_, output)) =
            self.outputs[outputs..].iter().find(|(_, output)| !opened.outputs[output.port as usize].passes.is_empty())
        {
            let tag = &opened.outputs[output.port as usize].tag;
            panic!("`on_timer` gave out a row for the output `{tag}`, which passes columns of the input: a timer has no row to pass");
        }
    }

    fn call(&mut self, name: &(String, i64), rows: Input, count: u32, fired: FiredTimers) {
        let window = self.window_of(name);
        let cell = self.cells.entry(name.clone()).or_insert_with(|| Cell {
            values: vec![None; self.spec.states.len()],
            items: vec![BTreeMap::new(); self.spec.states.len()],
            timers: vec![None; self.spec.timers.len()],
            appended: 0,
        });
        let (watermark, now) = (self.watermark, self.now);
        let moment = |ttl: Ttl| if ttl.domain == TimeDomain::EventTime { watermark } else { now };
        for (number, state) in self.spec.states.iter().enumerate() {
            if let Some(ttl) = state.ttl {
                cell.values[number].take_if(|(_, expires)| *expires <= moment(ttl));
                cell.items[number].retain(|_, (_, expires)| *expires > moment(ttl));
            }
        }
        let values = self.spec.states.iter().enumerate().filter(|(_, state)| state.kind == StateKind::Value);
        let values = values.map(|(number, state)| {
            let mut column = ValueColumn::default();
            column.values.push(cell.values[number].as_ref().map(|(bytes, _)| bytes.as_slice()));
            if state.ttl.is_some() {
                column.expires = cell.values[number].as_ref().map_or(0, |(_, expires)| *expires).to_le_bytes().to_vec();
            }
            column
        });
        let mut input = KeyedInput {
            rows,
            groups: Groups {
                row_starts: [0, count].iter().flat_map(|start| start.to_le_bytes()).collect(),
                windows: [window.start.0, window.end.0].iter().flat_map(|end| end.to_le_bytes()).collect(),
                keys: Columns::default(),
            },
            fired,
            values: values.collect(),
            watermark,
            now,
        };
        let reads = Rc::new(Memory { items: cell.items.clone(), spec: self.spec.clone() });
        let (_, instance, _) = self.opened.as_ref().expect("a call follows the opening");
        let outcome = instance.process(&mut input, reads);
        outcome.states.into_iter().for_each(|writes| cell.write(&self.spec, writes));
        outcome.timers.into_iter().for_each(|writes| cell.set(&self.spec, writes, window, watermark));
        self.outputs.extend(outcome.outputs.into_iter().map(|output| (name.0.clone(), output)));
        if !outcome.errors.rows.is_empty() {
            self.errors.push((name.0.clone(), String::from_utf8_lossy(&outcome.errors.messages).into_owned()));
        }
    }
}

impl Cell {
    fn write(&mut self, spec: &TransformSpec, writes: StateWrites) {
        let number = writes.state as usize;
        if !writes.cleared.is_empty() {
            self.items[number].clear();
        }
        let mut expires = wide_numbers(&writes.expires);
        for entry in 0..writes.values.len() {
            let expires = expires.next().unwrap_or(i64::MAX);
            let stored = writes.values.get(entry).map(|bytes| (bytes.to_vec(), expires));
            match (spec.states[number].kind, stored) {
                (StateKind::Value, stored) => self.values[number] = stored,
                (StateKind::List, stored) => {
                    self.items[number].extend(stored.map(|stored| (self.appended.to_be_bytes().to_vec(), stored)));
                    self.appended += 1;
                }
                (StateKind::Map, stored) => {
                    let key = writes.keys.get(entry).unwrap_or_default();
                    self.items[number].remove(key);
                    self.items[number].extend(stored.map(|stored| (key.to_vec(), stored)));
                }
            }
        }
    }

    fn set(&mut self, spec: &TransformSpec, writes: TimerWrites, window: Window, watermark: i64) {
        let at = wide_numbers(&writes.times).zip(wide_numbers(&writes.output_times)).last();
        let at = at.filter(|(time, _)| *time != i64::MAX);
        self.timers[writes.timer as usize] = match spec.timers[writes.timer as usize].domain {
            TimeDomain::EventTime => at.map(|(time, output)| (time.min(window.end.0), output.min(window.end.0))),
            // Not in a window that has closed.
            TimeDomain::ProcessingTime => at.filter(|_| watermark < window.end.0),
        };
    }
}

/// The items of one cell, for its call.
struct Memory {
    items: Vec<BTreeMap<Vec<u8>, Stored>>,
    spec: TransformSpec,
}

impl Reads for Memory {
    fn read(&self, state: u32, _: &[u32], _: u32) -> Items {
        let mut items = Items::default();
        for (key, (value, expires)) in &self.items[state as usize] {
            items.keys.push(Some(key));
            items.values.push(Some(value));
            items.expires.extend_from_slice(&expires.to_le_bytes());
        }
        items.starts = [0, items.keys.len() as u32].iter().flat_map(|start| start.to_le_bytes()).collect();
        if self.spec.states[state as usize].ttl.is_none() {
            items.expires.clear();
        }
        items
    }

    fn get(&self, state: u32, _: &[u32], keys: &BytesColumn) -> Found {
        let mut found = Found::default();
        for entry in 0..keys.len() {
            let stored = self.items[state as usize].get(keys.get(entry).unwrap_or_default());
            found.values.push(stored.map(|(value, _)| value.as_slice()));
            if self.spec.states[state as usize].ttl.is_some() {
                found.expires.extend_from_slice(&stored.map_or(0, |(_, expires)| *expires).to_le_bytes());
            }
        }
        found
    }
}

/// The columns that are read, with no rows.
fn columns_without_rows(schema: &[Field], opened: &Opened) -> Columns {
    let empty = Columns { rows: 0, nodes: vec![0; schema.len() * 8], buffers: vec![] };
    let buffers = schema.iter().flat_map(|field| match field.format.as_bytes() {
        [b'n', ..] => vec![],
        [b'u' | b'z', ..] => vec![vec![], vec![0; 4], vec![]],
        [b'+', b's' | b'w', ..] => vec![vec![]],
        [b'+', ..] => vec![vec![], vec![0; 4]],
        _ => vec![vec![], vec![]],
    });
    project(schema, Columns { buffers: buffers.collect(), ..empty }, &opened.reads)
}

/// Runs an aggregation over rows: in three parts that are merged, then extracted. Answers the result and the refused rows.
pub fn combine<T, O>(config: Value, rows: impl IntoIterator<Item = impl WriteRow>) -> (O, Vec<(usize, String)>)
where
    T: crate::combine::Described,
    O: for<'r> crate::read::Read<'r>,
{
    let config = if config.is_null() { Value::Object(serde_json::Map::new()) } else { config };
    let (schema, columns) = columns_of(rows);
    let request = OpenRequest { transform: T::NAME.to_owned(), config: config.to_string(), schema: schema.clone() };
    let (opened, instance) = crate::combine::open::<T>(&request).unwrap_or_else(|failure| panic!("{}", failure.message));
    let groups: Vec<u8> = (0..columns.rows).flat_map(|row| (row % 3).to_le_bytes()).collect();
    let input = Input { columns: project(&schema, columns, &opened.reads), ..Input::default() };
    let mut empty = BytesColumn::default();
    (0..3).for_each(|_| empty.push(None));
    let added = instance.add(&input, &groups, &empty);
    let merged = instance.merge(&added.accumulators, &[0; 12], 1);
    let extracted = instance.extract(&merged);
    let fields = &opened.outputs[0].adds;
    let reader = O::reader(Flat { fields, columns: &extracted }, Flat::TOP);
    let value = O::read(&reader, 0).unwrap_or_else(|null| panic!("{null}"));
    let offsets: Vec<_> = numbers(&added.errors.offsets).map(|offset| offset as usize).collect();
    let messages = offsets.windows(2).map(|pair| String::from_utf8_lossy(&added.errors.messages[pair[0]..pair[1]]).into_owned());
    (value, numbers(&added.errors.rows).map(|row| row as usize).zip(messages).collect())
}
