//! Joins by time against loops over all rows, over random rows, batches, watermarks, lateness and orders of inputs.

use super::{LATE_COLUMN, TimedJoin, TimedJoinPlan};
use crate::message::{End, Message};
use crate::metrics::Account;
use crate::operator::{MAIN, Operator, Out, Refusals};
use crate::operators::join::JoinSide;
use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, Positions};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::TimedRule;
use proptest::prelude::*;
use std::sync::Arc;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, false)]))
}

/// What is tested: `kept[0]` is of `left`, which is the input number `left`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub rule: TimedRule,
    pub kept: [bool; 2],
    pub left: usize,
    pub allowed: i64,
}

pub(crate) fn operator(case: Case) -> TimedJoin {
    let key = || Expression::compile(Language::Generic, "k", &schema()).expect("a column");
    let side = |number: usize| JoinSide {
        keys: vec![key()],
        key_types: vec![DataType::Int64],
        columns: vec!["v".into()],
        types: vec![DataType::Int64],
        kept: case.kept[usize::from(number != case.left)],
    };
    let mut late = schema().fields().to_vec();
    late.push(Arc::new(Field::new(LATE_COLUMN, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false)));
    let out = ["l", "r"].map(|name| Field::new(name, DataType::Int64, true));
    let plan = TimedJoinPlan {
        sides: [side(0), side(1)],
        left: case.left,
        rule: case.rule,
        output: vec![(case.left, 0), (1 - case.left, 0)],
        schema: Arc::new(Schema::new(out.to_vec())),
        late_schema: Some(Arc::new(Schema::new(late))),
        late_port: 1,
        allowed_lateness: Duration::from_micros(case.allowed),
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Join".into(), plugin: None, port: None };
    TimedJoin::new(plan, vec![0, 1], refusals).expect("the plan is sound")
}

/// Event time, key, number of the row.
pub(crate) type Row = (i64, Option<i64>, i64);

#[derive(Clone, Debug)]
enum Event {
    /// Of `left` or not.
    Rows(bool, Vec<Row>),
    Watermark(i64),
}

pub(crate) fn batch(rows: &[Row]) -> Batch {
    let keys: Int64Array = rows.iter().map(|row| row.1).collect();
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let made = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.0).collect(), Positions::None)
}

/// A row that came out: left, right, event time.
type Pair = (Option<i64>, Option<i64>, i64);

#[derive(Default)]
struct Results {
    /// After each event, what it led to, sorted.
    steps: Vec<Vec<Pair>>,
    late: Vec<i64>,
    account: Account,
    held: u64,
    bytes: usize,
}

fn run(case: Case, events: &[Event], drain: bool) -> Results {
    let mut operator = operator(case);
    let mut results = Results::default();
    let mut given = i64::MIN;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let end = if drain { End::Drained } else { End::Stopped };
    runtime.block_on(async {
        for event in events.iter().map(Some).chain([None]) {
            let mut out = Out::new(Instant::MIN);
            match event {
                Some(Event::Rows(left, rows)) => {
                    let input = if *left { case.left } else { 1 - case.left };
                    operator.data(input, batch(rows), &mut out).await.expect("rows are sound");
                }
                Some(Event::Watermark(at)) => {
                    let watermark = Watermark::Active(Instant::from_micros_saturating(*at));
                    operator.watermark(watermark, &mut out).await.expect("pairs are sound");
                }
                None => operator.end(end, &mut out).await.expect("pairs are sound"),
            }
            results.account.led += out.account.led;
            results.account.late += out.account.late;
            results.account.filtered += out.account.filtered;
            let mut step = Vec::new();
            for (port, message) in out.messages {
                match (port, message) {
                    (Some(MAIN), Message::Data(batch)) => {
                        assert!(batch.windows.is_none(), "windows follow from event times");
                        let column = |number: usize| batch.rows.column(number).as_primitive::<Int64Type>().clone();
                        let (left, right) = (column(0), column(1));
                        let of = |column: &Int64Array, row: usize| column.is_valid(row).then(|| column.value(row));
                        step.extend((0..batch.num_rows()).map(|row| (of(&left, row), of(&right, row), batch.times[row])));
                        assert!(batch.times.iter().all(|time| *time >= given), "a row is before the output watermark {given}");
                    }
                    (Some(_), Message::Data(batch)) => {
                        results.late.extend(batch.rows.column(1).as_primitive::<Int64Type>().values().iter());
                    }
                    (None, Message::Watermark(Watermark::Active(at))) => {
                        assert!(at.micros() > given, "a watermark goes on");
                        given = at.micros();
                    }
                    _ => {}
                }
            }
            step.sort_unstable();
            results.steps.push(step);
        }
    });
    results.held = operator.held();
    results.bytes = operator.rule.bytes();
    results
}

/// A row that the model has taken: of `left` or not, the row, and whether it has led to something.
#[derive(Clone, Debug)]
struct Taken {
    left: bool,
    row: Row,
    led: bool,
    /// Nothing will come of it any more.
    done: bool,
}

/// All rows that ever came.
struct Model {
    case: Case,
    taken: Vec<Taken>,
    late: Vec<i64>,
    watermark: i64,
}

impl Model {
    fn kept(&self, left: bool) -> bool {
        self.case.kept[usize::from(!left)]
    }

    fn pairs(&self, left: &Row, right: &Row) -> bool {
        let near = match self.case.rule {
            TimedRule::Interval { before, after } => left.0 - before.micros() <= right.0 && right.0 <= left.0 + after.micros(),
            TimedRule::AsOf { tolerance } => left.0 - tolerance.micros() <= right.0 && right.0 <= left.0,
        };
        near && left.1.is_some() && left.1 == right.1
    }

    fn alone(&mut self, at: usize, step: &mut Vec<Pair>) {
        let Taken { left, row, .. } = self.taken[at];
        if self.kept(left) {
            step.push(if left { (Some(row.2), None, row.0) } else { (None, Some(row.2), row.0) });
            self.taken[at].led = true;
        }
        self.taken[at].done = true;
    }

    fn take(&mut self, left: bool, row: Row, step: &mut Vec<Pair>) {
        if row.0 + self.case.allowed < self.watermark {
            self.late.push(row.2);
            return;
        }
        let at = self.taken.len();
        self.taken.push(Taken { left, row, led: false, done: false });
        if row.1.is_none() {
            return self.alone(at, step);
        }
        if matches!(self.case.rule, TimedRule::AsOf { .. }) {
            return;
        }
        for other in 0..at {
            let (l, r) = if left { (at, other) } else { (other, at) };
            if self.taken[other].left != left && self.pairs(&self.taken[l].row, &self.taken[r].row) {
                let (l, r) = (l.min(r), l.max(r));
                let time = self.taken[l].row.0.max(self.taken[r].row.0);
                let (own, partner) = (row.2, self.taken[other].row.2);
                step.push(if left { (Some(own), Some(partner), time) } else { (Some(partner), Some(own), time) });
                self.taken[l].led = true;
                self.taken[r].led = true;
            }
        }
    }

    fn advance(&mut self, to: i64, step: &mut Vec<Pair>) {
        self.watermark = self.watermark.max(to);
        for at in 0..self.taken.len() {
            let Taken { left, row, led, done } = self.taken[at];
            let forth = match self.case.rule {
                TimedRule::Interval { before, after } => {
                    if left {
                        after.micros()
                    } else {
                        before.micros()
                    }
                }
                TimedRule::AsOf { .. } => 0,
            };
            if done || row.0.saturating_add(forth + self.case.allowed) >= self.watermark {
                continue;
            }
            match self.case.rule {
                TimedRule::Interval { .. } if !led => self.alone(at, step),
                TimedRule::AsOf { .. } if left => {
                    let meant = (0..self.taken.len()).filter(|right| !self.taken[*right].left && self.pairs(&row, &self.taken[*right].row));
                    // Of equal times the largest value: numbers of one sign compare as their bytes do.
                    match meant.max_by_key(|right| (self.taken[*right].row.0, self.taken[*right].row.2)) {
                        None => self.alone(at, step),
                        Some(right) => {
                            step.push((Some(row.2), Some(self.taken[right].row.2), row.0));
                            self.taken[at].led = true;
                            self.taken[at].done = true;
                            self.taken[right].led = true;
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn rules() -> impl Strategy<Value = TimedRule> {
    let micros = Duration::from_micros;
    prop_oneof![
        (0i64..25, 0i64..25).prop_map(move |(before, after)| TimedRule::Interval { before: micros(before), after: micros(after) }),
        (0i64..50).prop_map(move |tolerance| TimedRule::AsOf { tolerance: micros(tolerance) }),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    (rules(), any::<[bool; 2]>(), 0usize..2, prop_oneof![Just(0i64), 0i64..30]).prop_map(|(rule, mut kept, left, allowed)| {
        if matches!(rule, TimedRule::AsOf { .. }) {
            kept[1] = false;
        }
        Case { rule, kept, left, allowed }
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let row = (0i64..100, prop_oneof![9 => (0i64..3).prop_map(Some), 1 => Just(None)]);
    let event = prop_oneof![
        3 => (any::<bool>(), proptest::collection::vec(row, 1..10)).prop_map(|(left, rows)| {
            Event::Rows(left, rows.into_iter().map(|(time, key)| (time, key, 0)).collect())
        }),
        2 => (0i64..130).prop_map(Event::Watermark),
    ];
    proptest::collection::vec(event, 0..16).prop_map(|mut events| {
        // Rows are told apart by their numbers; a seventh of them are equal to another.
        let mut number = 0;
        for event in &mut events {
            if let Event::Rows(_, rows) = event {
                rows.iter_mut().for_each(|row| {
                    number += 1;
                    row.2 = number - i64::from(number % 7 == 0);
                });
            }
        }
        events
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn what_comes_out_is_what_loops_find(case in cases(), events in events(), drain in any::<bool>()) {
        let mut model = Model { case, taken: vec![], late: vec![], watermark: i64::MIN };
        let mut steps: Vec<Vec<Pair>> = Vec::new();
        for event in &events {
            let mut step = Vec::new();
            match event {
                Event::Rows(left, rows) => rows.iter().for_each(|row| model.take(*left, *row, &mut step)),
                Event::Watermark(at) => model.advance(*at, &mut step),
            }
            step.sort_unstable();
            steps.push(step);
        }
        let mut last = Vec::new();
        if drain { model.advance(i64::MAX, &mut last); }
        last.sort_unstable();
        steps.push(last);
        let got = run(case, &events, drain);
        prop_assert_eq!(&got.steps, &steps);
        prop_assert_eq!(&got.late, &model.late);

        // Every row is accounted for, once.
        let read: usize = events.iter().map(|event| match event { Event::Rows(_, rows) => rows.len(), _ => 0 }).sum();
        prop_assert_eq!(read as u64, got.account.led + got.account.late + got.account.filtered + got.held);
        prop_assert_eq!(got.account.led, model.taken.iter().filter(|taken| taken.led).count() as u64);
        if drain { prop_assert_eq!(got.held, 0); }

        // One row a batch: the same.
        let one = |event: &Event| match event {
            Event::Rows(left, rows) => rows.iter().map(|row| Event::Rows(*left, vec![*row])).collect(),
            other => vec![other.clone()],
        };
        let singles: Vec<Event> = events.iter().flat_map(one).collect();
        let sorted = |results: Results| { let mut all = results.steps.concat(); all.sort_unstable(); all };
        prop_assert_eq!(sorted(run(case, &singles, drain)), sorted(got));
    }
}

/// A stream that goes on does not make the state grow: it holds a span of time.
#[test]
fn state_is_bounded_by_time() {
    let micros = Duration::from_micros;
    for rule in [TimedRule::Interval { before: micros(40), after: micros(10) }, TimedRule::AsOf { tolerance: micros(40) }] {
        let case = Case { rule, kept: [true, false], left: 0, allowed: 20 };
        let stream = |until: i64| -> Vec<Event> {
            let rows = |at: i64| (0..10).map(|number| (at + number, Some(number % 4), at + number)).collect::<Vec<Row>>();
            let step = |at: i64| [Event::Rows(true, rows(at)), Event::Rows(false, rows(at)), Event::Watermark(at)];
            (0..until).flat_map(|number| step(number * 10)).collect()
        };
        let (short, long) = (run(case, &stream(40), false), run(case, &stream(2_000), false));
        assert!(long.bytes < 2 * short.bytes, "{rule:?}: {} bytes after 40 steps, {} after 2,000", short.bytes, long.bytes);
        assert!(long.held < 80, "{rule:?} holds {} rows", long.held);
    }
}
