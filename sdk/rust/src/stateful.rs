//! From a type with `#[stateful]` to the contract's `open` and `process` of a stateful transform.
//!
//! As in [`crate::transform`], the macro implements one method of substance, `visit`, which hands the author's functions to a visitor.
//!
//! Invariant: a row or timer that fails leaves nothing: its answer is not written, and its state and timers are undone.

use std::rc::Rc;

use crate::answer::{Answer, Outputs, Shape};
use crate::config::{self, Config};
use crate::context::{Context, Pane, Window};
use crate::keyed::{KeyedInput, KeyedOpenRequest, KeyedOutcome, Reads, StateItems, StateWrites, TimerWrites};
use crate::metrics::{self, Collected, Metric};
use crate::read::Flat;
use crate::row::ReadRow;
use crate::schema::{Want, resolve, roots};
use crate::state::{self, Call, Cell, Moment, State};
use crate::timers::{TimerSet, Timers};
use crate::transform::{Opener, Registered, event_time, output, subtree};
use crate::values::{EventTime, Timestamp};
use crate::wire::{ColumnNeed, Failure, Field, Needs, Opened, Role, RowErrors, StateKind, TransformSpec, numbers, wide_numbers};

/// A stateful transform; `#[stateful]` implements it.
pub trait Stateful: 'static {
    /// Kebab-case.
    const NAME: &'static str;
    /// The first sentence of the documentation.
    const SUMMARY: &'static str;
    /// Whether all of the input's columns pass beside the new ones; those of the key always do.
    const APPENDS: bool;
    type Config: Config + 'static;
    const METRICS: &'static [&'static Metric];
    type State: State;
    type Timer: TimerSet;
    fn visit<'a, V: Visit<'a, Self>>(visitor: V) -> V::Done;
}

/// What is done with the author's functions.
pub trait Visit<'a, T: Stateful + ?Sized>: Sized {
    type Done;

    fn cells<I, A, B, F, G>(self, process: F, on_timer: G) -> Self::Done
    where
        I: ReadRow<'a>,
        A: Answer,
        B: Answer<Element = A::Element>,
        F: Fn(&'a T::Config, I, &mut T::State, &mut Timers<T::Timer>, &Context) -> A,
        G: Fn(&'a T::Config, T::Timer, &mut T::State, &mut Timers<T::Timer>, &Context) -> B;

    /// Without `on_timer`: timers that fire do nothing.
    fn rows<I, A, F>(self, process: F) -> Self::Done
    where
        I: ReadRow<'a>,
        A: Answer,
        F: Fn(&'a T::Config, I, &mut T::State, &mut Timers<T::Timer>, &Context) -> A,
        T::Config: 'a,
    {
        self.cells(process, |_, _, _, _, _| None::<A::Element>)
    }
}

/// Asks what the functions read and give out, without calling them.
struct Plan;

impl<'a, T: Stateful> Visit<'a, T> for Plan {
    type Done = (Vec<Want>, Vec<Shape>);
    fn cells<I, A, B, F, G>(self, _: F, _: G) -> Self::Done
    where
        I: ReadRow<'a>,
        A: Answer,
        B: Answer<Element = A::Element>,
    {
        (I::wants(), A::Element::shapes())
    }
}

/// One row or timer: its answer is written, or it says why not.
type Step<'s, T> = dyn FnMut(&mut <T as Stateful>::State, &mut Timers<<T as Stateful>::Timer>, &Context) -> Result<(), String> + 's;

/// Calls the functions for the groups of a call.
struct Run<'a, C> {
    config: &'a C,
    flat: Flat<'a>,
    input: &'a KeyedInput,
    call: Rc<Call>,
    metrics: &'static [&'static Metric],
}

impl<'a, T: Stateful> Visit<'a, T> for Run<'a, T::Config> {
    type Done = KeyedOutcome;

    fn cells<I, A, B, F, G>(self, process: F, on_timer: G) -> KeyedOutcome
    where
        I: ReadRow<'a>,
        A: Answer,
        B: Answer<Element = A::Element>,
        F: Fn(&'a T::Config, I, &mut T::State, &mut Timers<T::Timer>, &Context) -> A,
        G: Fn(&'a T::Config, T::Timer, &mut T::State, &mut Timers<T::Timer>, &Context) -> B,
    {
        let rows = self.flat.columns.rows;
        let fired = Fired::of(self.input);
        let cells = rows + fired.len() as u32;
        let readers = I::readers(self.flat, Flat::TOP);
        let mut ports = A::Element::ports(cells as usize);
        let (mut errors, mut late_errors) = (vec![], vec![]);
        let mut metrics = Collected::new(self.metrics);
        let mut states =
            (0..T::State::specs().len() as u32).map(|state| StateWrites { state, ..StateWrites::default() }).collect::<Vec<_>>();
        let mut timer_writes =
            (0..T::Timer::specs().len() as u32).map(|timer| TimerWrites { timer, ..TimerWrites::default() }).collect::<Vec<_>>();
        let mut timers = Timers::<T::Timer>::new();
        let mut fired = fired.into_iter().enumerate().peekable();
        let starts: Vec<u32> = numbers(&self.input.groups.row_starts).collect();
        for (group, range) in starts.windows(2).enumerate() {
            let group = group as u32;
            let mut state = T::State::load(&Cell { call: self.call.clone(), group });
            let window = self.window(group);
            let mut step = |context: Context, run: &mut Step<'_, T>| {
                let moment = Moment { event: context.event_time.0.max(self.input.watermark), now: self.input.now };
                state.each(&mut |handle| handle.begin(moment));
                timers.begin(moment);
                let done = run(&mut state, &mut timers, &context);
                state.each(&mut |handle| handle.end(done.is_ok()));
                timers.end(done.is_ok());
                match &done {
                    Ok(()) => metrics.settle(),
                    Err(_) => metrics::discard(),
                }
                done
            };
            while let Some((number, timer)) = fired.next_if(|(_, timer)| timer.group == group) {
                let context = self.context(Timestamp(timer.output_time), window, None, Some(Timestamp(timer.time)));
                let Some(which) = T::Timer::of(timer.timer) else { continue };
                let done = step(context, &mut |state, timers, context| {
                    on_timer(self.config, which, state, timers, context).give(&mut ports, rows + number as u32)
                });
                late_errors.extend(done.err().map(|message| (rows + number as u32, message)));
            }
            for row in range[0]..range[1] {
                let EventTime(time) = event_time(&self.input.rows.event_times, row as usize);
                let context = self.context(time, window, self.pane(row), None);
                let done = step(context, &mut |state, timers, context| match I::read(&readers, row as usize) {
                    Ok(input) => process(self.config, input, state, timers, context).give(&mut ports, row),
                    Err(null) => Err(null.to_string()),
                });
                errors.extend(done.err().map(|message| (row, message)));
            }
            let mut writes = states.iter_mut();
            state.each(&mut |handle| handle.finish(group, writes.next().expect("one a handle")));
            timers.finish(group, &mut timer_writes);
        }
        let mut outputs = vec![];
        A::Element::finish(ports, cells, &mut outputs);
        let mut told = RowErrors::default();
        errors.iter().chain(&late_errors).for_each(|(row, message)| told.push(*row, message));
        states.retain(|writes| !writes.groups.is_empty() || !writes.cleared.is_empty());
        timer_writes.retain(|writes| !writes.groups.is_empty());
        KeyedOutcome { outputs, errors: told, metrics: metrics.finish(), states, timers: timer_writes }
    }
}

impl<C> Run<'_, C> {
    fn context(&self, event_time: Timestamp, window: Window, pane: Option<Pane>, fired_at: Option<Timestamp>) -> Context {
        let (watermark, now) = (Timestamp(self.input.watermark), Timestamp(self.input.now));
        Context { event_time, window, pane, watermark, now, fired_at }
    }

    fn window(&self, group: u32) -> Window {
        let mut ends = wide_numbers(&self.input.groups.windows).skip(group as usize * 2).map(Timestamp);
        let mut end = || ends.next().unwrap_or_default();
        Window { start: end(), end: end() }
    }

    fn pane(&self, row: u32) -> Option<Pane> {
        let bytes = self.input.rows.panes.get(row as usize * 4..)?.first_chunk::<4>()?;
        Pane::read(&self.input.rows.pane_table, u32::from_le_bytes(*bytes))
    }
}

/// A fired timer of the call.
struct Fired {
    group: u32,
    timer: u32,
    time: i64,
    output_time: i64,
}

impl Fired {
    fn of(input: &KeyedInput) -> Vec<Fired> {
        let fired = &input.fired;
        let numbers = numbers(&fired.groups).zip(numbers(&fired.timers));
        let times = wide_numbers(&fired.times).zip(wide_numbers(&fired.output_times));
        numbers.zip(times).map(|((group, timer), (time, output_time))| Fired { group, timer, time, output_time }).collect()
    }
}

/// An opened stateful transform.
pub trait Instance {
    /// Kinds of the states by number.
    fn kinds(&self) -> Vec<StateKind>;
    fn process(&self, input: &mut KeyedInput, reads: Rc<dyn Reads>) -> KeyedOutcome;
    /// Items that were written under another version.
    fn migrate(&self, state: &str, version: u32, items: &StateItems) -> Result<StateItems, Failure>;
}

struct Open<T: Stateful> {
    config: T::Config,
    /// The schema of the columns that are read.
    fields: Vec<Field>,
}

impl<T: Stateful> Instance for Open<T> {
    fn kinds(&self) -> Vec<StateKind> {
        T::State::specs().into_iter().map(|spec| spec.kind).collect()
    }

    fn process(&self, input: &mut KeyedInput, reads: Rc<dyn Reads>) -> KeyedOutcome {
        let groups = (input.groups.row_starts.len() / 4).saturating_sub(1) as u32;
        let call = Call::new(&T::State::specs(), std::mem::take(&mut input.values), groups, reads);
        let flat = Flat { fields: &self.fields, columns: &input.rows.columns };
        T::visit(Run { config: &self.config, flat, input, call, metrics: T::METRICS })
    }

    fn migrate(&self, state: &str, version: u32, items: &StateItems) -> Result<StateItems, Failure> {
        state::migrate::all::<T::State>(state, version, items).map_err(Failure::new)
    }
}

/// What is known of a stateful transform before it is opened.
pub fn spec<T: Stateful>() -> TransformSpec {
    let (wants, shapes) = plan::<T>();
    TransformSpec {
        name: T::NAME.to_owned(),
        summary: T::SUMMARY.to_owned(),
        role: Role::StatefulTransform,
        config_schema: T::Config::schema().to_string(),
        reads: wants.into_iter().map(|want| ColumnNeed { name: want.name.to_owned(), formats: want.formats }).collect(),
        outputs: shapes.iter().map(|shape| shape.tag.to_owned()).collect(),
        states: T::State::specs(),
        timers: T::Timer::specs(),
    }
}

fn plan<T: Stateful>() -> (Vec<Want>, Vec<Shape>) {
    T::visit(Plan)
}

/// Opens a stateful transform for an input schema and a key.
pub fn open<T: Stateful>(request: &KeyedOpenRequest) -> Result<(Opened, Box<dyn Instance>), Failure> {
    let (wants, shapes) = plan::<T>();
    let base = &request.base;
    let about = |error: String| Failure::new(format!("{}: {error}", T::NAME));
    let config = config::read(&base.config).map_err(about)?;
    let reads = resolve(&wants, &base.schema).map_err(about)?;
    let roots = roots(&base.schema);
    let fields = reads.iter().flat_map(|read| subtree(&base.schema, roots[*read as usize])).cloned().collect();
    let outputs = shapes.into_iter().map(|shape| output(shape, &base.schema, &roots, T::APPENDS, &request.key)).collect();
    let needs = Needs { event_times: true, windows: true, panes: true, keys: false };
    let opened = Opened { reads, needs, outputs, metrics: T::METRICS.to_vec() };
    Ok((opened, Box::new(Open::<T> { config, fields })))
}

/// Opens a stateful transform with a request.
pub type OpenFn = fn(&KeyedOpenRequest) -> Result<(Opened, Box<dyn Instance>), Failure>;

pub fn registered<T: Stateful>() -> Registered {
    Registered { spec: spec::<T>, open: Opener::Stateful(open::<T>), name: T::NAME }
}
