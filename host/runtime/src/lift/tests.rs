//! Lifted or not, a grouping gives the same: two producers, two tasks, random rows and watermarks, idle times, tiny tables.

use super::*;
use crate::channel::{Receiver, channel};
use crate::exchange::{Division, Exchange, KeyDivision};
use crate::message::Message;
use crate::operator::{MAIN, Operator};
use crate::operators::combine::Combine;
use crate::operators::late::late_schema;
use arrow::util::display::array_value_to_string;
use pelton_core::watermark::{Merged, Watermark};
use pelton_core::{Duration, WindowFn, WindowingStrategy};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::AggregateFunction;
use proptest::prelude::*;
use std::task::{Context, Poll, Waker};

const PRODUCERS: usize = 2;
const TASKS: usize = 2;

#[derive(Clone, Debug)]
enum Event {
    /// Key, event time, value.
    Rows(usize, Vec<(i64, i64, Option<i64>)>),
    Watermark(usize, i64),
    Idle(usize),
}

fn plan(allowed_lateness: i64) -> CombinePlan {
    let fields = [("k", false), ("v", true)].map(|(name, nullable)| Field::new(name, DataType::Int64, nullable));
    let input: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let column = |name: &str| Expression::compile(Language::Generic, name, &input).expect("a column");
    let functions = [
        AggregateFunction::Count,
        AggregateFunction::Sum,
        AggregateFunction::Max,
        AggregateFunction::First,
        AggregateFunction::Last,
        AggregateFunction::Top { n: 2, smallest: false },
        AggregateFunction::ApproxCountDistinct { precision: 12 },
        AggregateFunction::Variance { population: true },
    ];
    let made =
        |function: &AggregateFunction| crate::operators::aggregate::output_type(function, Some(&DataType::Int64)).expect("takes numbers");
    let columns = functions.iter().map(|function| Field::new(function.name(), made(function), true));
    let window_fn = WindowFn::Fixed { size: Duration::from_micros(10), offset: Duration::ZERO };
    CombinePlan {
        group_by: vec![column("k")],
        group_types: vec![DataType::Int64],
        schema: Arc::new(Schema::new(std::iter::once(Field::new("k", DataType::Int64, true)).chain(columns).collect::<Vec<_>>())),
        aggregates: functions.into_iter().map(|function| (function, Some(column("v")))).collect(),
        late_schema: late_schema(&input),
        plugins: vec![],
        levels: vec![],
        spread: false,
        late_port: 1,
        strategy: WindowingStrategy::new(window_fn, Duration::from_micros(allowed_lateness)),
        state_limit: usize::MAX,
    }
}

fn batch(rows: &[(i64, i64, Option<i64>)]) -> Batch {
    let fields = [("k", false), ("v", true)].map(|(name, nullable)| Field::new(name, DataType::Int64, nullable));
    let keys = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let values = Int64Array::from_iter(rows.iter().map(|row| row.2));
    let made = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), vec![Arc::new(keys), Arc::new(values)]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.1).collect(), Positions::None)
}

/// A grouping and all that leads to it.
struct Grouping {
    exchanges: Vec<Exchange>,
    /// By task, then by producer.
    receivers: Vec<Vec<Receiver>>,
    tasks: Vec<(Combine, Merged)>,
    /// Rows that came out, in words; in no order that counts.
    panes: Vec<String>,
    late: Vec<String>,
    account: (u64, u64, u64),
    /// Messages with rows as they are, and with partial results.
    messages: (usize, usize),
}

impl Grouping {
    fn new(plan: &CombinePlan, lifted: bool) -> Grouping {
        let mut receivers: Vec<Vec<Receiver>> = (0..TASKS).map(|_| Vec::new()).collect();
        let exchange = |receivers: &mut Vec<Vec<Receiver>>| {
            let targets = receivers.iter_mut().map(|own| {
                let (sender, receiver) = channel();
                own.push(receiver);
                sender
            });
            let lift = lifted.then(|| {
                let mut lift = Lift::new(plan, "Combine").expect("the plan is sound");
                lift.limit = 4;
                Box::new(lift)
            });
            let division = Division::ByKey(Box::new(KeyDivision {
                transform: "Combine".into(),
                group_by: plan.group_by.clone(),
                encoder: KeyEncoder::new(&plan.group_types).expect("a key"),
                keys: Keys::default(),
            }));
            Exchange { division, targets: targets.collect(), lift }
        };
        let refusals = Refusals { transform: "Combine".into(), plugin: None, port: None };
        let exchanges = (0..PRODUCERS).map(|_| exchange(&mut receivers)).collect();
        let combine = || Combine::new(plan.clone(), Arc::default(), refusals.clone()).expect("the plan is sound");
        let tasks = (0..TASKS).map(|_| (combine(), Merged::new(PRODUCERS))).collect();
        Grouping { exchanges, receivers, tasks, panes: vec![], late: vec![], account: (0, 0, 0), messages: (0, 0) }
    }

    async fn send(&mut self, producer: usize, message: Message) {
        self.exchanges[producer].send(message).await.expect("the grouping takes it");
        for task in 0..TASKS {
            for producer in 0..PRODUCERS {
                while let Poll::Ready(Some(message)) = self.receivers[task][producer].poll_next(&mut Context::from_waker(Waker::noop())) {
                    self.deliver(task, producer, message).await;
                }
            }
        }
    }

    async fn deliver(&mut self, task: usize, producer: usize, message: Message) {
        let (combine, merged) = &mut self.tasks[task];
        let mut out = Out::new(Instant::MIN);
        match message {
            Message::Data(batch) => {
                self.messages.0 += 1;
                self.account.0 += batch.num_rows() as u64;
                combine.data(producer, batch, &mut out).await.expect("in range");
            }
            Message::Partial(batch) => {
                self.messages.1 += 1;
                self.account.0 += combine.partial(producer, batch, &mut out).await.expect("before the watermark");
            }
            Message::Watermark(watermark) => {
                if let Some(watermark) = merged.update(producer, Some(watermark)) {
                    combine.watermark(watermark, &mut out).await.expect("in range");
                }
            }
            other => panic!("no test sends {other:?}"),
        }
        self.account.1 += out.account.led;
        self.account.2 += out.account.late;
        for (port, message) in out.messages {
            if let (Some(port), Message::Data(batch)) = (port, message) {
                let shown = |row: usize| {
                    let window = batch.windows.as_ref().map(|windows| windows.table[windows.index[row] as usize]);
                    let pane = batch.windows.as_ref().map(|windows| windows.pane);
                    let values: Vec<String> =
                        batch.rows.columns().iter().map(|column| array_value_to_string(column, row).expect("shows")).collect();
                    format!("{values:?} at {} in {window:?} {pane:?}", batch.times[row])
                };
                let rows = (0..batch.num_rows()).map(shown);
                if port == MAIN { self.panes.extend(rows) } else { self.late.extend(rows) }
            }
        }
    }

    async fn run(plan: &CombinePlan, lifted: bool, events: &[Event]) -> Grouping {
        let mut grouping = Grouping::new(plan, lifted);
        for event in events {
            match event {
                Event::Rows(producer, rows) => grouping.send(*producer, Message::Data(batch(rows))).await,
                Event::Watermark(producer, at) => {
                    let watermark = Watermark::Active(Instant::from_micros_saturating(*at));
                    grouping.send(*producer, Message::Watermark(watermark)).await;
                }
                Event::Idle(producer) => grouping.send(*producer, Message::Watermark(Watermark::Idle)).await,
            }
        }
        for producer in 0..PRODUCERS {
            grouping.send(producer, Message::Watermark(Watermark::Active(Instant::MAX))).await;
        }
        grouping.panes.sort();
        grouping.late.sort();
        grouping
    }
}

fn on_executor<T>(work: impl Future<Output = T>) -> T {
    // Without a budget: channels would otherwise seem empty to a test that never yields.
    let work = tokio::task::unconstrained(work);
    tokio::runtime::Builder::new_current_thread().build().expect("an executor").block_on(work)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let rows = proptest::collection::vec((0i64..4, 0i64..60, proptest::option::weighted(0.9, 0i64..9)), 1..6);
    let event = prop_oneof![
        6 => (0..PRODUCERS, rows).prop_map(|(producer, rows)| Event::Rows(producer, rows)),
        3 => (0..PRODUCERS, 0i64..15).prop_map(|(producer, step)| Event::Watermark(producer, step)),
        1 => (0..PRODUCERS).prop_map(Event::Idle),
    ];
    proptest::collection::vec(event, 0..40).prop_map(|mut events| {
        // Watermarks only rise: a step becomes a time.
        let mut at = [0; PRODUCERS];
        for event in &mut events {
            if let Event::Watermark(producer, step) = event {
                at[*producer] += *step;
                *step = at[*producer];
            }
        }
        events
    })
}

proptest! {
    #[test]
    fn lifting_changes_nothing(events in events(), allowed_lateness in prop_oneof![Just(0i64), Just(12)]) {
        on_executor(async {
            let plan = plan(allowed_lateness);
            let plain = Grouping::run(&plan, false, &events).await;
            let lifted = Grouping::run(&plan, true, &events).await;
            prop_assert_eq!(&plain.panes, &lifted.panes);
            prop_assert_eq!(&plain.late, &lifted.late);
            prop_assert_eq!(plain.account, lifted.account);
            prop_assert_eq!(plain.messages.1, 0);
            Ok(())
        })?;
    }
}

/// What is certainly on time becomes partial results; what is late, and what comes after an idle time, stays rows.
#[test]
fn only_rows_on_time_are_lifted() {
    on_executor(async {
        let same = |time| vec![(1, time, Some(1)); 3];
        let cases = [
            (vec![Event::Rows(0, same(5))], (0, 1)),
            (vec![Event::Watermark(0, 10), Event::Rows(0, same(10))], (0, 1)),
            (vec![Event::Watermark(0, 10), Event::Rows(0, same(9))], (1, 0)),
            (vec![Event::Rows(0, same(5)), Event::Watermark(0, 9), Event::Rows(0, same(6))], (0, 1)),
            (vec![Event::Rows(0, same(5)), Event::Watermark(0, 10), Event::Rows(0, same(6))], (1, 1)),
            (vec![Event::Idle(0), Event::Watermark(0, 3), Event::Rows(0, same(5))], (1, 0)),
        ];
        for (events, expected) in cases {
            let lifted = Grouping::run(&plan(0), true, &events).await;
            assert_eq!(lifted.messages, expected, "rows and partial results after {events:?}");
        }
    });
}

/// What comes before a barrier is aggregated by the version before it, and nothing of that is left when the next one begins.
#[test]
fn an_edge_takes_the_new_version_when_the_barrier_passes() {
    use crate::operators::combine::tests::versions::{plan, ready, sums, total};
    on_executor(async {
        let window_fn = WindowFn::Fixed { size: Duration::from_micros(100), offset: Duration::ZERO };
        let strategy = WindowingStrategy::new(window_fn, Duration::ZERO);
        let mut lift = Lift::new(&plan(0, &strategy), "Combine").expect("the plan is sound");
        lift.node = 7;
        let cut = |version, guests| Cut::new([(7, ready(version, &strategy, guests))].into());
        let (mut operator, mut seen) = (total(0, &strategy, None), Vec::new());
        for version in 0..3 {
            if version > 0 {
                // One guest for the edge, one for the task behind it; nobody waits for the other.
                let cut = cut(version, 2);
                lift.renew(&cut).expect("it was prepared");
                operator.renew(cut.version(7).expect("the grouping changes")).await.expect("it was prepared");
            }
            let rows: Vec<(i64, i64, Option<i64>)> = (0..12).map(|row| (row % 3, row, Some(row + 10 * version as i64))).collect();
            assert!(lift.take(batch(&rows)).await.expect("in range").is_none(), "all are on time");
            for (_, partial) in lift.flush(Due::All, 1).expect("they fit") {
                let mut out = Out::new(Instant::MIN);
                operator.partial(0, partial, &mut out).await.expect("before the watermark");
                seen.extend(sums(out));
            }
            assert!(lift.cells.is_empty(), "nothing is held over a barrier");
        }
        let mut out = Out::new(Instant::MIN);
        operator.end(crate::message::End::Drained, &mut out).await.expect("panes are sound");
        seen.extend(sums(out));
        assert_eq!(seen.len(), 3, "a pane for each key");
        assert!(seen.iter().all(|(own, plugin)| own == plugin), "{seen:?}");
    });
}
