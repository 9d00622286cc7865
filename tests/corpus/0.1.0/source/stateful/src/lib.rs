//! Stateful transforms and aggregations for the tests of the host and of the SDK, each of the kind that users write.
//!
//! What [`Dedup`], [`Sessions`] and [`RateLimit`] give out depends on the event times of a key's rows alone, in order, and not on when the
//! watermark moves: timers do only what a later row would have done. So tests can compare runs with other batches and parallelism.

use std::collections::BTreeMap;
use std::time::Duration;

use pelton_sdk::prelude::*;

pub mod versions;

use versions::{FiguresFour, FiguresOne, FiguresThree, FiguresTwo, TotalOne, TotalThree, TotalTwo};

/// A row of most tests: `at` is its event time in seconds.
#[derive(Row)]
pub struct Event {
    pub number: i64,
}

#[derive(State)]
pub struct Seen {
    #[state(ttl = "60s", time = "event")]
    seen: Value<i64>,
}

pub struct Dedup;

/// Keeps the first row of a key, and the next one a minute after it.
#[stateful]
impl Dedup {
    fn process(row: Event, state: &mut Seen) -> bool {
        let new = state.seen.get().is_none();
        if new {
            state.seen.set(row.number);
        }
        new
    }
}

#[derive(StateValue, Clone)]
pub struct Span {
    first: Timestamp,
    last: Timestamp,
}

#[derive(State)]
pub struct Session {
    span: Value<Span>,
    sum: Aggregating<Sum<i64>>,
    largest: Aggregating<Max<i64>>,
    rows: Aggregating<Count>,
}

#[derive(Timer)]
pub enum Close {
    Gap,
}

#[derive(Row, Debug, PartialEq, Clone)]
pub struct Summary {
    pub first: Timestamp,
    pub last: Timestamp,
    pub rows: u64,
    pub sum: i64,
    pub largest: i64,
}

#[derive(Config)]
pub struct Gap {
    /// Seconds without a row that end a session.
    #[config(default = 30_u32)]
    pub seconds: u32,
}

pub struct Sessions;

/// Sums up rows of a key that are no more than a gap apart.
#[stateful]
impl Sessions {
    fn process(config: &Gap, row: Event, state: &mut Session, timers: &mut Timers<Close>, ctx: &Context) -> Option<At<Summary>> {
        let gap = Duration::from_secs(config.seconds.into());
        let at = ctx.event_time();
        let ended = state.span.get().is_some_and(|span| span.last + gap <= at).then(|| Sessions::end(state)).flatten();
        let first = state.span.get().map_or(at, |span| span.first);
        state.span.set(Span { first, last: at });
        state.sum.add(row.number);
        state.largest.add(row.number);
        state.rows.add(());
        timers.set(Close::Gap, at + gap);
        ended.map(|ended| At(at, ended))
    }

    fn on_timer(_timer: Close, state: &mut Session, ctx: &Context) -> Option<At<Summary>> {
        Sessions::end(state).map(|summary| At(ctx.event_time(), summary))
    }

    fn end(state: &mut Session) -> Option<Summary> {
        let span = state.span.get()?.clone();
        let (rows, sum, largest) = (state.rows.get(), state.sum.get(), state.largest.get().unwrap_or_default());
        state.span.clear();
        state.sum.clear();
        state.largest.clear();
        state.rows.clear();
        Some(Summary { first: span.first, last: span.last, rows, sum, largest })
    }
}

#[derive(State)]
pub struct Bucket {
    /// When the bucket is full again, and what is left of it.
    bucket: Value<(Timestamp, u32)>,
}

#[derive(Timer)]
pub enum Refill {
    Refill,
}

#[derive(Outputs)]
pub enum Limited {
    #[output(main)]
    Passed,
    Limited,
}

#[derive(Config)]
pub struct Rate {
    pub rows: u32,
    pub seconds: u32,
}

pub struct RateLimit;

/// Passes so many rows of a key in an interval that begins with the first; the others go to `limited`.
#[stateful]
impl RateLimit {
    fn process(config: &Rate, row: Event, state: &mut Bucket, timers: &mut Timers<Refill>, ctx: &Context) -> Limited {
        let _ = row;
        let at = ctx.event_time();
        let (until, left) = match state.bucket.get() {
            Some((until, left)) if at < *until => (*until, *left),
            _ => {
                let until = at + Duration::from_secs(config.seconds.into());
                timers.set(Refill::Refill, until);
                (until, config.rows)
            }
        };
        state.bucket.set((until, left.saturating_sub(1)));
        if left > 0 { Limited::Passed } else { Limited::Limited }
    }

    fn on_timer(_timer: Refill, state: &mut Bucket) -> Option<Limited> {
        state.bucket.clear();
        None
    }
}

#[derive(State)]
pub struct Kept {
    order: List<i64>,
    counts: Map<i64, i64>,
}

#[derive(Timer)]
pub enum AtEnd {
    End,
}

#[derive(Row, Debug, PartialEq)]
pub struct Collected {
    pub order: Vec<i64>,
    pub counts: BTreeMap<i64, i64>,
    pub start: Timestamp,
}

pub struct Collect;

/// Gives out at the end of a window all its numbers in order, and how often each of them came. A negative number takes back what it is the
/// negative of; 0 clears everything.
#[stateful]
impl Collect {
    fn process(row: Event, state: &mut Kept, timers: &mut Timers<AtEnd>, ctx: &Context) -> Option<Collected> {
        match row.number {
            0 => {
                state.order.clear();
                state.counts.clear();
            }
            number if number < 0 => state.counts.remove(&-number),
            number => {
                state.order.push(number);
                let count = state.counts.get(&number).copied().unwrap_or(0);
                state.counts.insert(&number, count + 1);
            }
        }
        timers.set(AtEnd::End, ctx.window().end);
        None
    }

    fn on_timer(_timer: AtEnd, state: &mut Kept, ctx: &Context) -> Vec<Collected> {
        let order = state.order.iter().copied().collect();
        let counts = state.counts.iter().map(|(number, count)| (number, *count)).collect();
        vec![Collected { order, counts, start: ctx.window().start }]
    }
}

static TALLIED: Counter = Counter::new("tallied");

#[derive(State)]
pub struct Tally {
    total: Value<i64>,
    all: List<i64>,
    by: Map<i64, i64>,
}

#[derive(Row, Debug, PartialEq)]
pub struct Total {
    pub total: i64,
    pub listed: u64,
    pub mapped: u64,
}

pub struct Picky;

/// A running total. Numbers divisible by 5 are refused after they have changed everything; 13 panics then.
#[stateful(append, metrics(TALLIED))]
impl Picky {
    fn process(row: Event, state: &mut Tally, timers: &mut Timers<AtEnd>, ctx: &Context) -> Result<Total, String> {
        let total = state.total.get_or(0) + row.number;
        TALLIED.add(1);
        state.total.set(total);
        if row.number % 10 == 5 {
            // Refused rows undo a clear as well.
            state.all.clear();
            state.by.clear();
        }
        state.all.push(row.number);
        state.by.insert(&row.number, total);
        if row.number % 5 == 0 {
            timers.set(AtEnd::End, ctx.event_time());
            return Err(format!("{} is divisible by 5", row.number));
        }
        if row.number == 13 {
            panic!("13 is no number");
        }
        Ok(Total { total, listed: state.all.len() as u64, mapped: state.by.iter().count() as u64 })
    }
}

#[derive(Timer)]
pub enum Clock {
    Event,
    #[timer(time = "processing")]
    Processing,
}

#[derive(State)]
pub struct Pending {
    #[state(ttl = "10s", time = "processing")]
    last: Value<i64>,
    rows: Value<i64>,
}

#[derive(Row, Debug, PartialEq)]
pub struct Fired {
    pub what: String,
    pub at: Timestamp,
    pub rows: i64,
    pub alive: bool,
}

pub struct Alarm;

/// Number n > 0 sets a timer of event time n seconds after the row, n < 0 one of processing time -n seconds after the call, 0 clears both. A
/// timer of event time that fires sets itself again 7 seconds later until it has fired thrice.
#[stateful]
impl Alarm {
    fn process(row: Event, state: &mut Pending, timers: &mut Timers<Clock>, ctx: &Context) -> Option<Fired> {
        state.last.set(row.number);
        state.rows.set(0);
        let seconds = Duration::from_secs(row.number.unsigned_abs());
        match row.number {
            0 => {
                timers.clear(Clock::Event);
                timers.clear(Clock::Processing);
            }
            number if number > 0 => timers.set(Clock::Event, ctx.event_time() + seconds),
            _ => timers.set(Clock::Processing, ctx.now() + seconds),
        }
        None
    }

    fn on_timer(timer: Clock, state: &mut Pending, timers: &mut Timers<Clock>, ctx: &Context) -> Option<Fired> {
        let rows = state.rows.get_or(0) + 1;
        state.rows.set(rows);
        let what = match timer {
            Clock::Event => "event",
            Clock::Processing => "processing",
        };
        if matches!(timer, Clock::Event) && rows < 3 {
            timers.set(Clock::Event, ctx.event_time() + Duration::from_secs(7));
        }
        Some(Fired { what: what.to_owned(), at: ctx.event_time(), rows, alive: state.last.get().is_some() })
    }
}

#[derive(Row)]
pub struct Number {
    pub value: f64,
}

pub struct GeometricMean;

/// The n-th root of the product of n numbers.
#[combine]
impl CombineFn for GeometricMean {
    type Config = ();
    type Row<'a> = Number;
    type Accumulator = (f64, u64);
    type Output = Option<f64>;

    fn create(_: &()) -> (f64, u64) {
        (0.0, 0)
    }

    fn add(_: &(), accumulator: &mut (f64, u64), row: Number) -> Result<(), String> {
        // Counted before it is checked: the SDK undoes it.
        accumulator.1 += 1;
        if row.value <= 0.0 {
            return Err(format!("{} has no logarithm", row.value));
        }
        accumulator.0 += row.value.ln();
        Ok(())
    }

    fn merge(_: &(), into: &mut (f64, u64), from: (f64, u64)) {
        into.0 += from.0;
        into.1 += from.1;
    }

    fn extract(_: &(), (logs, count): &(f64, u64)) -> Option<f64> {
        (*count > 0).then(|| (logs / *count as f64).exp())
    }
}

#[derive(Config)]
pub struct Largest {
    pub n: u32,
}

#[derive(Row)]
pub struct Whole {
    pub value: i64,
}

pub struct TopDistinct;

/// The n largest numbers, each once, largest first.
#[combine(columns)]
impl CombineFn for TopDistinct {
    type Config = Largest;
    type Row<'a> = Whole;
    type Accumulator = Vec<i64>;
    type Output = Vec<i64>;

    fn create(_: &Largest) -> Vec<i64> {
        vec![]
    }

    fn add(config: &Largest, kept: &mut Vec<i64>, row: Whole) -> Result<(), String> {
        TopDistinct::keep(config, kept, row.value);
        Ok(())
    }

    fn add_columns(config: &Largest, kept: &mut [Vec<i64>], input: &ColumnsOf<'_, Whole>, groups: &[u32], errors: &mut Vec<(u32, String)>) {
        let values = input.column::<i64>("value");
        for (row, group) in groups.iter().enumerate() {
            match values.get(row) {
                Ok(value) => TopDistinct::keep(config, &mut kept[*group as usize], value),
                Err(null) => errors.push((row as u32, null.to_string())),
            }
        }
    }

    fn merge(config: &Largest, into: &mut Vec<i64>, from: Vec<i64>) {
        from.into_iter().for_each(|value| TopDistinct::keep(config, into, value));
    }

    fn extract(_: &Largest, kept: &Vec<i64>) -> Vec<i64> {
        kept.clone()
    }
}

impl TopDistinct {
    fn keep(config: &Largest, kept: &mut Vec<i64>, value: i64) {
        if let Err(place) = kept.binary_search_by(|other| value.cmp(other)) {
            kept.insert(place, value);
            kept.truncate(config.n as usize);
        }
    }
}

#[derive(Row)]
pub struct Rated {
    pub number: i64,
    /// Of a side input.
    #[row(name = "rates.rate")]
    pub rate: Option<i64>,
}

#[derive(State)]
pub struct Spent {
    total: Aggregating<Sum<i64>>,
}

#[derive(Row, Debug, PartialEq)]
pub struct SoFar {
    pub so_far: i64,
}

pub struct Spending;

/// The sum of a key's numbers so far, each at the rate that a side input has for it; 1 without one.
#[stateful(append)]
impl Spending {
    fn process(row: Rated, state: &mut Spent) -> SoFar {
        state.total.add(row.number * row.rate.unwrap_or(1));
        SoFar { so_far: state.total.get() }
    }
}

/// A stateless neighbour in the same component.
#[transform]
pub fn positive(row: Event) -> bool {
    row.number > 0
}

plugin!(
    Dedup, Sessions, RateLimit, Collect, Picky, Alarm, GeometricMean, TopDistinct, Spending, positive, FiguresOne, FiguresTwo, FiguresThree,
    FiguresFour, TotalOne, TotalTwo, TotalThree
);

#[cfg(test)]
mod tests;
