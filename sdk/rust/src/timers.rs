//! Timers of a cell: an enum with `#[derive(Timer)]`, set and cleared through [`Timers`].
//!
//! ```
//! use pelton_sdk::prelude::*;
//!
//! #[derive(Timer)]
//! enum Alarm {
//!     /// Fires when the watermark reaches its time.
//!     Gap,
//!     /// Fires at a time of day.
//!     #[timer(time = "processing")]
//!     Flush,
//! }
//! ```
//!
//! A cell has one pending time a timer; setting it again moves it. What a timer gives out has its output time as event time, and the
//! output watermark waits for it.

use crate::keyed::TimerWrites;
use crate::state::Moment;
use crate::values::Timestamp;
use crate::wire::{TimeDomain, TimerSpec};

/// The timers of a transform; `#[derive(Timer)]` implements it for an enum.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a set of timers", label = "needs `#[derive(Timer)]`, on an enum")]
pub trait TimerSet: Copy + 'static {
    fn specs() -> Vec<TimerSpec>;
    fn number(self) -> u32;
    fn of(number: u32) -> Option<Self>;
}

/// The set of a transform without timers.
#[derive(Debug, Clone, Copy)]
pub enum NoTimer {}

impl TimerSet for NoTimer {
    fn specs() -> Vec<TimerSpec> {
        vec![]
    }
    fn number(self) -> u32 {
        match self {}
    }
    fn of(_: u32) -> Option<NoTimer> {
        None
    }
}

/// Sets and clears the timers of a cell.
pub struct Timers<T> {
    domains: Vec<TimeDomain>,
    /// (timer, fire time and output time or none), in order.
    writes: Vec<(u32, Option<(i64, i64)>)>,
    /// Writes of rows before this one.
    mark: usize,
    moment: Moment,
    set: std::marker::PhantomData<T>,
}

impl<T: TimerSet> Timers<T> {
    pub(crate) fn new() -> Timers<T> {
        let domains = T::specs().into_iter().map(|spec| spec.domain).collect();
        Timers { domains, writes: vec![], mark: 0, moment: Moment::default(), set: std::marker::PhantomData }
    }

    /// Sets or moves a timer. One of event time fires when the watermark reaches `at`, its output time; what one of processing time gives
    /// out has the event time of the row or timer that set it, or the watermark where that is later.
    pub fn set(&mut self, timer: T, at: Timestamp) {
        let output = match self.domains[timer.number() as usize] {
            TimeDomain::EventTime => at,
            TimeDomain::ProcessingTime => Timestamp(self.moment.event),
        };
        self.set_with_output_time(timer, at, output);
    }

    /// Sets or moves a timer whose outputs have the event time `output`; the output watermark waits for it. For a timer of event time it
    /// is cut to `at`.
    pub fn set_with_output_time(&mut self, timer: T, at: Timestamp, output: Timestamp) {
        let number = timer.number();
        let at = at.min(Timestamp::MAX);
        let output = match self.domains[number as usize] {
            TimeDomain::EventTime => output.min(at),
            TimeDomain::ProcessingTime => output,
        };
        self.writes.push((number, Some((at.0, output.0))));
    }

    /// Forgets a timer, if it is set.
    pub fn clear(&mut self, timer: T) {
        self.writes.push((timer.number(), None));
    }

    pub(crate) fn begin(&mut self, moment: Moment) {
        self.moment = moment;
        self.mark = self.writes.len();
    }

    pub(crate) fn end(&mut self, succeeded: bool) {
        if !succeeded {
            self.writes.truncate(self.mark);
        }
    }

    /// Moves what a group wrote into the call's result; only the last write of a timer counts.
    pub(crate) fn finish(&mut self, group: u32, out: &mut [TimerWrites]) {
        for (number, writes) in out.iter_mut().enumerate() {
            let Some((_, at)) = self.writes.iter().rev().find(|(timer, _)| *timer == number as u32) else { continue };
            let (at, output) = at.unwrap_or((i64::MAX, 0));
            writes.groups.extend_from_slice(&group.to_le_bytes());
            writes.times.extend_from_slice(&at.to_le_bytes());
            writes.output_times.extend_from_slice(&output.to_le_bytes());
        }
        self.writes.clear();
    }
}
