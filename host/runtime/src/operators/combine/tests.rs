//! The operator against a model that keeps every row of every window, over random rows, batches and watermarks.

use super::{Combine, CombinePlan};
use crate::message::{End, Message};
use crate::metrics::Account;
use crate::operator::{Operator, Out, Refusals};
use crate::operators::late::late_schema;
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use pelton_core::batch::{PaneInfo, PaneTiming};
use pelton_core::calendar::{Calendar, CalendarUnit, Tz};
use pelton_core::watermark::{Lateness, Watermark, lateness};
use pelton_core::{Batch, Duration, Instant, Positions, Window, WindowFn, WindowingStrategy};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::AggregateFunction;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) mod versions;

/// The port of late rows, and that of the first level of a roll-up.
const LATE: usize = 1;
const LEVELS: usize = 2;

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Int64, false)]))
}

pub(crate) fn operator(strategy: WindowingStrategy, levels: &[i64]) -> Combine {
    let input = schema();
    let column = |name: &str| Expression::compile(Language::Generic, name, &input).expect("a column");
    let out = ["k", "n", "s", "m"].map(|name| Field::new(name, DataType::Int64, true));
    let plan = CombinePlan {
        group_by: vec![column("k")],
        group_types: vec![DataType::Int64],
        aggregates: vec![
            (AggregateFunction::Count, None),
            (AggregateFunction::Sum, Some(column("v"))),
            (AggregateFunction::Max, Some(column("v"))),
        ],
        schema: Arc::new(Schema::new(out.to_vec())),
        plugins: vec![],
        late_schema: late_schema(&input),
        late_port: LATE,
        strategy,
        spread: false,
        levels: levels.iter().enumerate().map(|(number, size)| (Duration::from_micros(*size), number + LEVELS)).collect(),
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Combine".into(), plugin: None, port: None };
    Combine::new(plan, Arc::default(), refusals).expect("the plan is sound")
}

pub(super) fn batch(rows: &[(i64, i64, i64)]) -> Batch {
    let columns = |of: fn(&(i64, i64, i64)) -> i64| Int64Array::from_iter_values(rows.iter().map(of));
    let made = RecordBatch::try_new(schema(), vec![Arc::new(columns(|row| row.1)), Arc::new(columns(|row| row.2))]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.0).collect(), Positions::None)
}

/// A pane as it came out: key, window, count, sum, max, timing, number, event time.
pub(super) type Seen = (i64, i64, i64, i64, i64, i64, String, i64, i64);

/// What came out, in order: panes, then (time, key, window) of late rows.
#[derive(Default)]
pub(super) struct Results {
    pub panes: Vec<Seen>,
    pub late: Vec<(i64, i64, i64)>,
    pub account: Account,
    pub watermarks: Vec<i64>,
}

impl Results {
    pub fn take(&mut self, out: Out) {
        self.account.led += out.account.led;
        self.account.late += out.account.late;
        self.account.copies += out.account.copies;
        self.account.filtered += out.account.filtered;
        for (port, message) in out.messages {
            match (port, message) {
                (Some(port), Message::Data(batch)) if port != LATE => self.panes.extend(panes(&batch)),
                (Some(_), Message::Data(batch)) => {
                    let column = |name: &str| batch.rows.column_by_name(name).expect("a column of the late rows").clone();
                    let starts = column("window_start");
                    let starts = starts.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
                    let keys = column("k");
                    for row in 0..batch.num_rows() {
                        self.late.push((batch.times[row], keys.as_primitive::<Int64Type>().value(row), starts.value(row)));
                    }
                }
                (None, Message::Watermark(Watermark::Active(at))) => self.watermarks.push(at.micros()),
                _ => {}
            }
        }
    }
}

fn panes(batch: &Batch) -> Vec<Seen> {
    let windows = batch.windows.as_ref().expect("a grouping fixes windows");
    let PaneInfo { timing, index, .. } = windows.pane;
    (0..batch.num_rows())
        .map(|row| {
            let column = |number: usize| batch.rows.column(number).as_primitive::<Int64Type>().value(row);
            let window = windows.table[windows.index[row] as usize];
            let (start, end) = (window.start.micros(), window.end.micros());
            (column(0), start, end, column(1), column(2), column(3), format!("{timing:?}"), index, batch.times[row])
        })
        .collect()
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Rows(Vec<(i64, i64, i64)>),
    Watermark(i64),
}

pub(super) fn run(strategy: WindowingStrategy, events: &[Event], drain: bool) -> (Results, u64) {
    run_levels(strategy, &[], events, drain)
}

fn run_levels(strategy: WindowingStrategy, levels: &[i64], events: &[Event], drain: bool) -> (Results, u64) {
    let mut operator = operator(strategy, levels);
    let mut results = Results::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for event in events {
            let mut out = Out::new(Instant::MIN);
            match event {
                Event::Rows(rows) => operator.data(0, batch(rows), &mut out).await.expect("rows are sound"),
                Event::Watermark(at) => {
                    let watermark = Watermark::Active(Instant::from_micros_saturating(*at));
                    operator.watermark(watermark, &mut out).await.expect("panes are sound");
                }
            }
            results.take(out);
        }
        let mut out = Out::new(Instant::MIN);
        let end = if drain { End::Drained } else { End::Stopped };
        operator.end(end, &mut out).await.expect("panes are sound");
        results.take(out);
    });
    let held = operator.held();
    (results, held)
}

/// All rows of all windows.
#[derive(Default)]
struct Model {
    open: BTreeMap<(i64, i64, i64), Vec<i64>>,
    fired: BTreeMap<(i64, i64, i64), i64>,
    panes: Vec<Seen>,
    late: Vec<(i64, i64, i64)>,
    /// Rows in no window.
    nowhere: u64,
}

impl Model {
    fn give(&mut self, (end, start, key): (i64, i64, i64), values: Vec<i64>, timing: PaneTiming) {
        let number = self.fired.entry((end, start, key)).or_default();
        let (sum, max) = (values.iter().sum(), *values.iter().max().expect("a pane has rows"));
        self.panes.push((key, start, end, values.len() as i64, sum, max, format!("{timing:?}"), *number, end - 1));
        *number += 1;
    }

    fn advance(&mut self, to: i64) {
        while let Some(entry) = self.open.first_entry().filter(|entry| entry.key().0 <= to) {
            let (cell, values) = entry.remove_entry();
            self.give(cell, values, PaneTiming::OnTime);
        }
    }

    fn run(strategy: &WindowingStrategy, events: &[Event]) -> Model {
        let mut model = Model::default();
        let mut watermark = Instant::MIN;
        for event in events {
            match event {
                Event::Watermark(at) => {
                    watermark = watermark.max(Instant::from_micros_saturating(*at));
                    model.advance(watermark.micros());
                }
                Event::Rows(rows) => rows.iter().for_each(|(time, key, value)| {
                    let mut windows: Vec<Window> = Vec::new();
                    strategy.window_fn.each(Instant::from_micros_saturating(*time), |window| windows.push(window));
                    model.nowhere += u64::from(windows.is_empty());
                    for window in windows {
                        let cell = (window.end.micros(), window.start.micros(), *key);
                        match lateness(window, strategy.allowed_lateness, watermark) {
                            Lateness::OnTime => model.open.entry(cell).or_default().push(*value),
                            Lateness::Allowed => model.give(cell, vec![*value], PaneTiming::Late),
                            Lateness::Dropped => model.late.push((*time, *key, window.start.micros())),
                        }
                    }
                }),
            }
        }
        model
    }
}

fn window_fns() -> impl Strategy<Value = WindowFn> {
    let micros = Duration::from_micros;
    prop_oneof![
        (1i64..30, 0i64..30).prop_map(move |(size, offset)| WindowFn::Fixed { size: micros(size), offset: micros(offset % size) }),
        (1i64..40, 1i64..40, 0i64..40).prop_map(move |(size, period, offset)| {
            WindowFn::Sliding { size: micros(size), period: micros(period), offset: micros(offset % period) }
        }),
        (1i64..6, 2i64..12).prop_map(move |(period, times)| {
            WindowFn::Sliding { size: micros(period * times), period: micros(period), offset: micros(0) }
        }),
        Just(WindowFn::Global),
        Just(WindowFn::Calendar(Calendar { unit: CalendarUnit::Days, count: 1, zone: Tz::Europe__Berlin })),
    ]
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let row = (0i64..120, 0i64..3, -5i64..50);
    let event = prop_oneof![
        3 => proptest::collection::vec(row, 1..12).prop_map(Event::Rows),
        2 => (0i64..140).prop_map(Event::Watermark),
    ];
    proptest::collection::vec(event, 0..14)
}

/// The same rows and watermarks, each row a batch of its own.
fn split(events: &[Event]) -> Vec<Event> {
    let one = |event: &Event| match event {
        Event::Rows(rows) => rows.iter().map(|row| Event::Rows(vec![*row])).collect(),
        other => vec![other.clone()],
    };
    events.iter().flat_map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn panes_are_those_of_the_model(window_fn in window_fns(), allowed in prop_oneof![Just(0i64), 0i64..40], events in events(), drain in any::<bool>()) {
        let strategy = WindowingStrategy::new(window_fn, Duration::from_micros(allowed));
        let mut model = Model::run(&strategy, &events);
        if drain { model.advance(i64::MAX); }
        let (mut got, held) = run(strategy.clone(), &events, drain);
        let (mut single, _) = run(strategy, &split(&events), drain);
        for results in [&mut got, &mut single] { results.panes.sort(); results.late.sort(); }
        model.panes.sort();
        model.late.sort();
        prop_assert_eq!(&got.panes, &model.panes);
        prop_assert_eq!(&single.panes, &model.panes);
        prop_assert_eq!(&got.late, &model.late);
        // Every row is accounted for, once for each of its windows.
        let inside: usize = model.open.values().map(Vec::len).sum();
        prop_assert_eq!(held, inside as u64);
        let read: u64 = events.iter().map(|event| match event { Event::Rows(rows) => rows.len() as u64, _ => 0 }).sum();
        prop_assert_eq!(got.account.filtered, model.nowhere);
        prop_assert_eq!(read + got.account.copies, got.account.led + got.account.late + got.account.filtered + held);
        prop_assert!(got.watermarks.is_sorted());
    }
}

/// Sessions of rows that all came in time: rows of a key less than `gap` apart, in order.
fn sessions(rows: &[(i64, i64, i64)], gap: i64) -> Vec<Seen> {
    let mut sorted = rows.to_vec();
    sorted.sort_by_key(|(time, key, _)| (*key, *time));
    let mut found: Vec<Vec<(i64, i64, i64)>> = Vec::new();
    for row in sorted {
        match found.last_mut() {
            Some(session) if session[0].1 == row.1 && row.0 < session[session.len() - 1].0 + gap => session.push(row),
            _ => found.push(vec![row]),
        }
    }
    let pane = |session: Vec<(i64, i64, i64)>| {
        let (start, end) = (session[0].0, session[session.len() - 1].0 + gap);
        let (sum, max) = (session.iter().map(|row| row.2).sum(), session.iter().map(|row| row.2).max().expect("a session has rows"));
        (session[0].1, start, end, session.len() as i64, sum, max, "OnTime".to_string(), 0, end - 1)
    };
    found.into_iter().map(pane).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// In whatever order rows come, and however they are cut into batches, the sessions are the same.
    #[test]
    fn sessions_do_not_depend_on_the_order_of_rows(
        rows in proptest::collection::vec((0i64..100, 0i64..3, -5i64..50), 0..30),
        order in any::<u64>(), gap in 1i64..15, cut in 1usize..9, watermark in 0i64..100,
    ) {
        let mut shuffled = rows.clone();
        // Rows before the watermark come before it; the rest in any order.
        shuffled.sort_by_key(|row| (row.0 >= watermark, xxhash_rust::xxh3::xxh3_64_with_seed(format!("{row:?}").as_bytes(), order)));
        let late = shuffled.iter().position(|row| row.0 >= watermark).unwrap_or(shuffled.len());
        let mut events: Vec<Event> = shuffled[..late].chunks(cut).map(|rows| Event::Rows(rows.to_vec())).collect();
        events.push(Event::Watermark(watermark));
        events.extend(shuffled[late..].chunks(cut).map(|rows| Event::Rows(rows.to_vec())));
        let strategy = WindowingStrategy::new(WindowFn::Sessions { gap: Duration::from_micros(gap) }, Duration::ZERO);
        let (mut got, held) = run(strategy, &events, true);
        let mut want = sessions(&rows, gap);
        got.panes.sort();
        want.sort();
        prop_assert_eq!(got.panes, want);
        prop_assert_eq!(got.late, vec![]);
        prop_assert_eq!((held, got.account.led), (0, rows.len() as u64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Each level holds every row that was not late, once, in the window of its time; panes only ever hold the change.
    #[test]
    fn levels_add_up(events in events(), allowed in 0i64..30, drain in any::<bool>()) {
        let levels = [10, 20, 60];
        let finest = WindowFn::Fixed { size: Duration::from_micros(10), offset: Duration::ZERO };
        let allowed = Duration::from_micros(allowed);
        let (got, held) = run_levels(WindowingStrategy::new(WindowFn::Global, allowed), &levels, &events, drain);
        let mut model = Model::run(&WindowingStrategy::new(finest, allowed), &events);
        model.late.sort();
        let mut late = got.late.clone();
        late.sort();
        prop_assert_eq!(&late, &model.late);
        let inside: usize = if drain { 0 } else { model.open.values().map(Vec::len).sum() };
        prop_assert_eq!(held, inside as u64);
        if drain {
            model.advance(i64::MAX);
        }
        let reached = events.iter().map(|event| if let Event::Watermark(at) = event { *at } else { 0 }).max().unwrap_or(0);
        for size in levels {
            let (mut want, mut have) = (BTreeMap::new(), BTreeMap::new());
            for (key, start, _, count, sum, ..) in &model.panes {
                let cell: &mut (i64, i64) = want.entry((*key, start.div_euclid(size) * size)).or_default();
                *cell = (cell.0 + count, cell.1 + sum);
            }
            let mut numbers: BTreeMap<(i64, i64), Vec<i64>> = BTreeMap::new();
            for (key, start, end, count, sum, _, _, number, _) in got.panes.iter().filter(|pane| pane.2 - pane.1 == size) {
                let cell: &mut (i64, i64) = have.entry((*key, *start)).or_default();
                *cell = (cell.0 + count, cell.1 + sum);
                numbers.entry((*key, *start)).or_default().push(*number);
                prop_assert!(drain || *end <= reached);
            }
            // Without a drain, coarse windows that have not ended keep theirs.
            if drain {
                prop_assert_eq!(&have, &want, "windows of {}", size);
            } else {
                for (cell, held) in &have { prop_assert!(held.0 <= want[cell].0); }
            }
            for numbers in numbers.values() { prop_assert!(numbers.iter().copied().eq(0..numbers.len() as i64), "{:?} {:?}", numbers, got.panes); }
        }
    }
}
