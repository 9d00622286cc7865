//! What every operator with state gives out does not depend on barriers, restarts and the number of tasks that take its state over.
//!
//! A run is a list of actions. The operator that is tested is sealed at each barrier and persisted cell by cell while it goes on; at a
//! restart all its tasks are dropped, and new ones, of another number, get the rows of all epochs so far. One that never stops is the judge.

use super::combine::{Combine, CombinePlan};
use super::join::{Join, JoinPlan, JoinSide};
use super::late::late_schema;
use super::{combine, stateful, timed_join};
use crate::message::{End, Message};
use crate::metrics::Account;
use crate::operator::{Operator, Out, Refusals};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use pelton_core::batch::RowWindows;
use pelton_core::evolution::Book;
use pelton_core::key::{KeyEncoder, Keys, group_owner, key_group, key_hash};
use pelton_core::strategy::{Accumulation, Closing, TimestampCombiner, Trigger};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, Positions, WindowFn, WindowingStrategy};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::{AggregateFunction, TimedRule};
use pelton_state::{Rows, Scratch};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Event time, key, value.
type Row = (i64, i64, i64);

#[derive(Clone, Debug)]
enum Action {
    /// Of an input.
    Rows(usize, Vec<Row>),
    Watermark(i64),
    /// The clock goes on by so much, and everybody is told.
    Wait(i64),
    Barrier,
    /// A barrier; then all tasks die, and so many take over.
    Restart(usize),
}

fn actions(inputs: usize, span: i64) -> impl Strategy<Value = Vec<Action>> {
    let row = (0..span, 0i64..5, 1i64..50);
    let action = prop_oneof![
        6 => (0..inputs, proptest::collection::vec(row, 1..10)).prop_map(|(input, rows)| Action::Rows(input, rows)),
        3 => (0..span + 20).prop_map(Action::Watermark),
        1 => (0i64..15).prop_map(Action::Wait),
        2 => Just(Action::Barrier),
        2 => (1usize..4).prop_map(Action::Restart),
    ];
    proptest::collection::vec(action, 0..24)
}

/// An operator to test.
struct Subject<'a> {
    make: &'a dyn Fn() -> Box<dyn Operator>,
    batch: &'a dyn Fn(&[Row]) -> Batch,
    /// The column of a key, as the operator encodes it.
    key: fn(i64) -> ArrayRef,
    /// Microseconds in a unit of the actions.
    unit: i64,
    /// At a restart, with what the tasks before say of their state: the plugin changes.
    change: Option<&'a dyn Fn(Vec<Arc<Book>>)>,
    /// Of the run that goes on, not of the judge: cells leave memory after each message, but for a few where there is some.
    scratch: Option<Arc<Scratch>>,
}

fn number_key(key: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![key]))
}

fn user_key(key: i64) -> ArrayRef {
    Arc::new(StringArray::from(vec![format!("u{key}")]))
}

/// What came out.
#[derive(Default)]
struct Given {
    rows: Vec<String>,
    account: Account,
}

struct Run<'a> {
    subject: &'a Subject<'a>,
    tasks: Vec<Box<dyn Operator>>,
    /// By name of the cells: the rows of all epochs, older ones first.
    state: HashMap<&'static str, Rows>,
    now: i64,
    given: Given,
}

impl<'a> Run<'a> {
    fn new(subject: &'a Subject<'a>, durable: bool) -> Run<'a> {
        let mut task = (subject.make)();
        if durable {
            subject.evict(&mut *task);
            task.visit_cells(&mut |_, cells| cells.record());
        }
        Run { subject, tasks: vec![task], state: HashMap::new(), now: 0, given: Given::default() }
    }

    fn out(&self) -> Out {
        Out::new(self.at(self.now))
    }

    fn at(&self, time: i64) -> Instant {
        Instant::from_micros_saturating(time.saturating_mul(self.subject.unit))
    }

    async fn step(&mut self, action: &Action) {
        if let Action::Wait(time) = action {
            self.now += time;
        }
        for number in 0..self.tasks.len() {
            let mut out = self.out();
            let at = if let Action::Watermark(at) = action { self.at(*at) } else { Instant::MIN };
            let tasks = self.tasks.len();
            let task = &mut self.tasks[number];
            if let Action::Watermark(_) = action {
                while task.portion(at, &mut out).await.expect("all of it is sound") {
                    task.make_room().expect("the disk works");
                }
            }
            let done = match action {
                Action::Rows(input, rows) => {
                    let own: Vec<Row> = rows.iter().filter(|row| self.subject.owner(row.1, tasks) == number).copied().collect();
                    match own.is_empty() {
                        true => Ok(()),
                        false => task.data(*input, (self.subject.batch)(&own), &mut out).await,
                    }
                }
                Action::Watermark(_) => task.watermark(Watermark::Active(at), &mut out).await,
                Action::Wait(_) | Action::Restart(_) => task.tick(&mut out).await,
                Action::Barrier => Ok(()),
            };
            done.expect("all of it is sound");
            if matches!(action, Action::Wait(_)) && task.is_settling() {
                task.settle().await.expect("all of it is sound");
            }
            task.make_room().expect("the disk works");
            self.given.take(out);
        }
    }

    async fn end(mut self) -> (Given, u64) {
        let held = self.tasks.iter().map(|task| task.held()).sum();
        for number in 0..self.tasks.len() {
            let mut out = self.out();
            while self.tasks[number].portion(Instant::MAX, &mut out).await.expect("all of it is sound") {}
            self.tasks[number].end(End::Drained, &mut out).await.expect("all of it is sound");
            self.given.take(out);
        }
        self.given.rows.sort();
        (self.given, held)
    }

    /// So many cells of each task; `usize::MAX`: to the end.
    fn persist(&mut self, budget: usize) {
        for task in &mut self.tasks {
            task.visit_cells(&mut |name, cells| {
                let done = cells.persist(budget, self.state.entry(name).or_default());
                assert!(done || budget < usize::MAX);
            });
        }
    }

    fn seal(&mut self) {
        self.persist(usize::MAX);
        self.tasks.iter_mut().for_each(|task| task.visit_cells(&mut |_, cells| cells.seal()));
    }

    fn restart(&mut self, tasks: usize) {
        self.seal();
        self.persist(usize::MAX);
        if let Some(change) = self.subject.change {
            change(self.tasks.iter().filter_map(|task| task.book()).collect());
        }
        let unkeyed: Vec<(String, Vec<u8>)> = self.tasks.iter().flat_map(|task| task.unkeyed()).collect();
        let state: HashMap<&str, Rows> = self.state.iter().map(|(name, rows)| (*name, rows.sorted())).collect();
        let task = |number: usize| {
            let mut task = (self.subject.make)();
            self.subject.evict(&mut *task);
            for (name, rows) in &state {
                let own: Vec<_> = rows.iter().filter(|row| group_owner(row.group(), tasks) == number).collect();
                for portion in own.chunks(4) {
                    task.visit_cells(&mut |of, cells| {
                        if of == *name {
                            cells.restore(portion.iter().copied()).expect("what was written is read");
                        }
                    });
                    task.make_room().expect("the disk works");
                }
            }
            task.visit_cells(&mut |_, cells| cells.record());
            task.restore(&unkeyed).expect("what was given is taken");
            task
        };
        self.tasks = (0..tasks).map(task).collect();
    }
}

impl Subject<'_> {
    fn evict(&self, task: &mut dyn Operator) {
        if let Some(scratch) = &self.scratch {
            task.evict_to(scratch).expect("a tree");
        }
    }

    fn owner(&self, key: i64, tasks: usize) -> usize {
        let column = (self.key)(key);
        let mut keys = Keys::default();
        KeyEncoder::new(&[column.data_type().clone()]).expect("a type of keys").encode(&[column], &mut keys);
        group_owner(key_group(key_hash(keys.get(0))), tasks)
    }

    /// Restarts change nothing.
    fn check(&self, actions: &[Action]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut judge, mut run) = (Run::new(self, false), Run::new(self, true));
            for action in actions {
                match action {
                    Action::Barrier => run.seal(),
                    Action::Restart(tasks) => run.restart(*tasks),
                    _ => {}
                }
                judge.step(action).await;
                run.step(action).await;
                run.persist(1);
            }
            let ((want, held), (got, still)) = (judge.end().await, run.end().await);
            let missing = |from: &Given, of: &Given| of.rows.iter().filter(|row| !from.rows.contains(row)).cloned().collect::<Vec<_>>();
            let (lost, wrong) = (missing(&got, &want), missing(&want, &got));
            assert!(got.rows == want.rows, "lost: {lost:#?}\nwrong: {wrong:#?}");
            assert_eq!(still, held, "rows inside");
            let account = |given: &Given| (given.account.led, given.account.late, given.account.filtered, given.account.copies);
            assert_eq!(account(&got), account(&want));
        });
    }
}

impl Given {
    fn take(&mut self, out: Out) {
        self.account.led += out.account.led;
        self.account.late += out.account.late;
        self.account.filtered += out.account.filtered;
        self.account.copies += out.account.copies;
        for (port, message) in out.messages {
            let Message::Data(batch) = message else { continue };
            for row in 0..batch.num_rows() {
                let columns = batch.rows.columns().iter().map(|column| array_value_to_string(column, row).expect("a value in words"));
                let window = |windows: &RowWindows| (windows.table[windows.index[row] as usize], windows.pane);
                let window = batch.windows.as_ref().map(window);
                self.rows.push(format!("{port:?} {} {window:?} {}", batch.times[row], columns.collect::<Vec<_>>().join(", ")));
            }
        }
    }
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros)
}

fn window_fns() -> impl Strategy<Value = WindowFn> {
    prop_oneof![
        Just(WindowFn::Global),
        (1i64..30).prop_map(|size| WindowFn::Fixed { size: micros(size), offset: micros(0) }),
        (1i64..6, 2i64..9).prop_map(|(period, times)| WindowFn::Sliding {
            size: micros(period * times),
            period: micros(period),
            offset: micros(0)
        }),
        (2i64..30, 2i64..30).prop_map(|(size, period)| WindowFn::Sliding { size: micros(size), period: micros(period), offset: micros(0) }),
        (1i64..15).prop_map(|gap| WindowFn::Sessions { gap: micros(gap) }),
    ]
}

fn triggers() -> impl Strategy<Value = Trigger> {
    let leaf = || {
        prop_oneof![
            Just(Trigger::Always),
            (1u32..4).prop_map(Trigger::AfterCount),
            (0i64..12).prop_map(|delay| Trigger::AfterProcessingTime { delay: micros(delay) }),
        ]
    };
    prop_oneof![
        4 => Just(Trigger::Default),
        1 => leaf().prop_map(|leaf| Trigger::Repeatedly(Box::new(leaf))),
        1 => leaf(),
        2 => (proptest::option::of(leaf()), proptest::option::of(leaf()))
            .prop_map(|(early, late)| Trigger::AfterWatermark { early: early.map(Box::new), late: late.map(Box::new) }),
    ]
}

fn strategies() -> impl Strategy<Value = WindowingStrategy> {
    (window_fns(), triggers(), any::<bool>(), 0u8..3, prop_oneof![Just(0i64), 0i64..40], any::<bool>()).prop_map(
        |(window_fn, trigger, accumulates, combiner, allowed, always)| WindowingStrategy {
            trigger,
            accumulation: if accumulates { Accumulation::Accumulating } else { Accumulation::Discarding },
            timestamp_combiner: [TimestampCombiner::EndOfWindow, TimestampCombiner::Earliest, TimestampCombiner::Latest][combiner as usize],
            closing: if always { Closing::Always } else { Closing::IfNonEmpty },
            ..WindowingStrategy::new(window_fn, micros(allowed))
        },
    )
}

/// Aggregates whose state is in columns of every type.
fn all_aggregates(strategy: WindowingStrategy) -> Combine {
    use AggregateFunction::*;
    let input = combine::tests::schema();
    let column = |name: &str| Expression::compile(Language::Generic, name, &input).expect("a column");
    let functions = [
        Group,
        Mean,
        Min,
        First,
        Last,
        Top { n: 2, smallest: false },
        CountDistinct,
        ApproxCountDistinct { precision: 10 },
        Quantile(0.5),
        Variance { population: true },
    ];
    let made = |function: &AggregateFunction| super::aggregate::output_type(function, Some(&DataType::Int64)).expect("takes numbers");
    let columns = functions.iter().map(|function| Field::new(function.name(), made(function), true));
    let plan = CombinePlan {
        group_by: vec![column("k")],
        group_types: vec![DataType::Int64],
        schema: Arc::new(Schema::new(std::iter::once(Field::new("k", DataType::Int64, true)).chain(columns).collect::<Vec<_>>())),
        aggregates: functions.into_iter().map(|function| (function, Some(column("v")))).collect(),
        late_schema: late_schema(&input),
        plugins: vec![],
        levels: vec![],
        spread: false,
        late_port: 1,
        strategy,
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Combine".into(), plugin: None, port: None };
    Combine::new(plan, Arc::default(), refusals).expect("the plan is sound")
}

fn join(window_fn: WindowFn, allowed: i64, kept: [bool; 2]) -> Join {
    let schema: SchemaRef = combine::tests::schema();
    let key = || Expression::compile(Language::Generic, "k", &schema).expect("a column");
    let side = |kept: bool| JoinSide {
        keys: vec![key()],
        key_types: vec![DataType::Int64],
        columns: vec!["v".into()],
        types: vec![DataType::Int64],
        kept,
    };
    let out = ["l", "r"].map(|name| Field::new(name, DataType::Int64, true));
    let plan = JoinPlan {
        sides: kept.map(side),
        output: vec![(0, 0), (1, 0)],
        schema: Arc::new(Schema::new(out.to_vec())),
        late_schema: None,
        late_port: 1,
        window_fn,
        allowed_lateness: micros(allowed),
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Join".into(), plugin: None, port: None };
    Join::new(plan, vec![0, 1], Arc::default(), refusals).expect("the plan is sound")
}

fn batch(rows: &[Row]) -> Batch {
    let column = |of: fn(&Row) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) };
    let made = RecordBatch::try_new(combine::tests::schema(), vec![column(|row| row.1), column(|row| row.2)]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.0).collect(), Positions::None)
}

fn check(make: &dyn Fn() -> Box<dyn Operator>, actions: &[Action]) {
    Subject { make, batch: &batch, key: number_key, unit: 1, change: None, scratch: None }.check(actions);
}

/// The same with cells on disk.
fn check_evicting(make: &dyn Fn() -> Box<dyn Operator>, memory: u64, actions: &[Action]) {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = Some(Scratch::open(folder.path(), memory, 1).expect("a folder"));
    Subject { make, batch: &batch, key: number_key, unit: 1, change: None, scratch }.check(actions);
}

/// No memory, or that of a few cells.
fn memories() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), 0u64..6_000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn groupings_go_on(strategy in strategies(), actions in actions(1, 120)) {
        check(&|| Box::new(combine::tests::operator(strategy.clone(), &[])), &actions);
    }

    #[test]
    fn all_aggregates_go_on(window_fn in window_fns(), allowed in 0i64..40, actions in actions(1, 120)) {
        check(&|| Box::new(all_aggregates(WindowingStrategy::new(window_fn, micros(allowed)))), &actions);
    }

    #[test]
    fn levels_go_on(allowed in 0i64..30, actions in actions(1, 120)) {
        let strategy = WindowingStrategy::new(WindowFn::Global, micros(allowed));
        check(&|| Box::new(combine::tests::operator(strategy.clone(), &[10, 20, 60])), &actions);
    }

    #[test]
    fn joins_go_on(window_fn in window_fns(), allowed in 0i64..30, kept in any::<[bool; 2]>(), actions in actions(2, 80)) {
        check(&|| Box::new(join(window_fn, allowed, kept)), &actions);
    }

    #[test]
    fn joins_by_time_go_on(
        interval in any::<bool>(), before in 0i64..20, after in 0i64..20, allowed in 0i64..15, kept in any::<[bool; 2]>(), left in 0usize..2,
        actions in actions(2, 80),
    ) {
        let rule = if interval {
            TimedRule::Interval { before: micros(before), after: micros(after) }
        } else {
            TimedRule::AsOf { tolerance: micros(before) }
        };
        let case = timed_join::tests::Case { rule, kept, left, allowed };
        let of = |rows: &[Row]| {
            timed_join::tests::batch(&rows.iter().map(|(time, key, value)| (*time, Some(*key), *value)).collect::<Vec<_>>())
        };
        let make = || -> Box<dyn Operator> { Box::new(timed_join::tests::operator(case)) };
        Subject { make: &make, batch: &of, key: number_key, unit: 1, change: None, scratch: None }.check(&actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn groupings_on_disk_go_on(strategy in strategies(), memory in memories(), actions in actions(1, 120)) {
        check_evicting(&|| Box::new(combine::tests::operator(strategy.clone(), &[])), memory, &actions);
    }

    #[test]
    fn sessions_on_disk_go_on(gap in 1i64..15, allowed in 0i64..30, memory in memories(), actions in actions(1, 120)) {
        let strategy = WindowingStrategy::new(WindowFn::Sessions { gap: micros(gap) }, micros(allowed));
        check_evicting(&|| Box::new(all_aggregates(strategy.clone())), memory, &actions);
    }

    #[test]
    fn levels_on_disk_go_on(allowed in 0i64..30, memory in memories(), actions in actions(1, 120)) {
        let strategy = WindowingStrategy::new(WindowFn::Global, micros(allowed));
        check_evicting(&|| Box::new(combine::tests::operator(strategy.clone(), &[10, 20, 60])), memory, &actions);
    }

    /// Timers of both clocks, holds, values with a time to live; lists by window.
    #[test]
    fn states_of_plugins_go_on(collects in any::<bool>(), memory in proptest::option::of(memories()), actions in actions(1, 200)) {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = memory.map(|memory| Scratch::open(folder.path(), memory, 1).expect("a folder"));
        let of = |rows: &[Row]| {
            // The sign says which clock a timer of `alarm` follows.
            let number = |value: i64| if collects { value } else { value % 60 - 20 };
            stateful::tests::batch(&rows.iter().map(|(time, key, value)| (*key as u8, *time, number(*value))).collect::<Vec<_>>())
        };
        let make = || -> Box<dyn Operator> {
            let window = WindowFn::Fixed { size: micros(10_000_000), offset: micros(0) };
            match collects {
                true => Box::new(stateful::tests::operator("collect", window, 5, None)),
                false => Box::new(stateful::tests::operator("alarm", WindowFn::Global, 0, None)),
            }
        };
        Subject { make: &make, batch: &of, key: user_key, unit: 1_000_000, change: None, scratch }.check(&actions);
    }

    /// At each restart the plugin is another one, also in the middle of what the last one has begun; the judge keeps the first.
    #[test]
    fn accumulators_of_plugins_go_on_through_versions(
        strategy in strategies(), memory in proptest::option::of(memories()), actions in actions(1, 120),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = memory.map(|memory| Scratch::open(folder.path(), memory, 1).expect("a folder"));
        let now: RefCell<(usize, Option<Book>)> = RefCell::default();
        let make = || -> Box<dyn Operator> {
            let (version, book) = &*now.borrow();
            Box::new(combine::tests::versions::total(*version, &strategy, book.as_ref()))
        };
        let change = |books: Vec<Arc<Book>>| {
            let mut now = now.borrow_mut();
            let joined = books.iter().map(|book| Book::clone(book)).reduce(|all, book| all.join(&book)).expect("there is a task");
            let stored = Book::read(&joined.write()).expect("what was written is read");
            *now = ((now.0 + 1).min(combine::tests::versions::VERSIONS - 1), stored);
        };
        Subject { make: &make, batch: &batch, key: number_key, unit: 1, change: Some(&change), scratch }.check(&actions);
    }
}
