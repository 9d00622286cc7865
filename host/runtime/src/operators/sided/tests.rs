//! Side inputs against a search through all rows, in any order of messages; and what waits, and for how long.

use super::table::{Shape, SidePlan, Wanted, item};
use super::waiting::{Waiting, key_of_task};
use super::{Probe, Sided, SidedPlan};
use crate::message::{End, Message};
use crate::metrics::NodeMetrics;
use crate::operator::{MAIN, Operator, Out, Refusals};
use crate::operators::late::late_schema;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, new_empty_array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use pelton_core::batch::{PaneInfo, PaneTiming, RowWindows};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, Positions, Split, Window, WindowFn};
use pelton_expr::{Expression, Language};
use pelton_state::Rows;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn at(micros: i64) -> Instant {
    Instant::from_micros_saturating(micros)
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros)
}

fn fixed(size: i64) -> WindowFn {
    WindowFn::Fixed { size: micros(size), offset: Duration::ZERO }
}

fn sliding(size: i64, period: i64) -> WindowFn {
    WindowFn::Sliding { size: micros(size), period: micros(period), offset: Duration::ZERO }
}

/// Rows of `k` and `v`, of the main input and of side inputs alike; `v` is what tells rows apart.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, false)]))
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    time: i64,
    key: Option<i64>,
    value: i64,
}

fn batch(rows: &[Row]) -> Batch {
    let keys: Int64Array = rows.iter().map(|row| row.key).collect();
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.value));
    let made = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.time).collect(), Positions::None)
}

/// Gives out what comes.
struct Pass;

#[async_trait(?Send)]
impl Operator for Pass {
    async fn data(&mut self, _input: usize, batch: Batch, out: &mut Out) -> Result<(), crate::failure::Failure> {
        out.account.led += batch.num_rows() as u64;
        out.rows(MAIN, batch);
        Ok(())
    }
}

fn side(shape: Shape, window_fn: WindowFn) -> SidePlan {
    let dict = shape == Shape::Dict;
    let key = Expression::compile(Language::Generic, "k", &schema()).expect("a column");
    SidePlan {
        tag: "side".into(),
        shape,
        key: if dict { vec![key] } else { vec![] },
        key_types: if dict { vec![DataType::Int64] } else { vec![] },
        columns: vec!["v".into()],
        types: vec![DataType::Int64],
        window_fn,
        allowed_lateness: Duration::ZERO,
        from_first_row: false,
        refresh: None,
    }
}

/// The columns `v` of side inputs, as `side0`, `side1`, …
fn plan(window_fn: WindowFn, sides: Vec<SidePlan>) -> SidedPlan {
    let mut fields = schema().fields().to_vec();
    let mut probes = Vec::new();
    let name = |(number, side)| SidePlan { tag: format!("side{number}"), ..side };
    let sides: Vec<SidePlan> = sides.into_iter().enumerate().map(name).collect();
    for (number, side) in sides.iter().enumerate() {
        let (data_type, missing): (DataType, ArrayRef) = match side.shape {
            Shape::Iterable => {
                let item = Arc::new(item(&DataType::Int64));
                let empty = ListArray::new(item.clone(), OffsetBuffer::new(vec![0, 0].into()), new_empty_array(&DataType::Int64), None);
                (DataType::List(item), Arc::new(empty))
            }
            _ => (DataType::Int64, new_null_array(&DataType::Int64, 1)),
        };
        fields.push(Arc::new(Field::new(format!("side{number}"), data_type, true)));
        let key = side.key.first().map(|key| (key.clone(), DataType::Int64));
        probes.push(Probe { side: number, key, wanted: vec![Wanted { column: 0, missing }] });
    }
    SidedPlan {
        sides,
        probes,
        own: schema(),
        schema: Arc::new(Schema::new(fields)),
        key: vec![],
        key_types: vec![],
        window_fn,
        allowed_lateness: Duration::ZERO,
        gives_own: false,
        late_schema: late_schema(&schema()),
        late_port: 1,
        state_limit: usize::MAX,
    }
}

/// A row that came out, with what it found: a list where there are several.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
struct Seen {
    value: i64,
    found: Vec<Vec<i64>>,
}

struct Run {
    operator: Sided,
    sides: usize,
    seen: Vec<Seen>,
    late: u64,
    given: Instant,
    idle: bool,
    now: i64,
}

impl Run {
    /// Channel i of the task feeds the logical input `inputs[i]`.
    fn new(plan: SidedPlan, inputs: &[usize]) -> Run {
        let sides = plan.sides.len();
        let metrics = Arc::new(NodeMetrics::new("S".into(), "MapToFields".into(), vec![String::new(), "late".into()]));
        let refusals = Refusals { transform: "S".into(), plugin: None, port: None };
        let mut operator =
            Sided::new(Arc::new(plan), Box::new(Pass), inputs.to_vec(), (0, 1), metrics, refusals).expect("the plan is sound");
        operator.visit_cells(&mut |_, cells| cells.record());
        Run { operator, sides, seen: vec![], late: 0, given: Instant::MIN, idle: false, now: 0 }
    }

    /// Another process goes on with what this one had.
    fn restarted(mut self, plan: SidedPlan, inputs: &[usize]) -> Run {
        let mut next = Run { seen: self.seen, late: self.late, given: self.given, now: self.now, ..Run::new(plan, inputs) };
        let mut kept: BTreeMap<&'static str, Rows> = BTreeMap::new();
        self.operator.visit_cells(&mut |name, cells| {
            cells.seal();
            let mut rows = Rows::default();
            assert!(cells.persist(usize::MAX, &mut rows));
            kept.insert(name, rows);
        });
        next.operator.visit_cells(&mut |name, cells| cells.restore(kept[name].iter()).expect("rows are sound"));
        // Two former tasks had the same.
        let unkeyed = [self.operator.unkeyed(), self.operator.unkeyed()].concat();
        next.operator.restore(&unkeyed).expect("state is sound");
        next
    }

    fn rows(&mut self, channel: usize, rows: &[Row]) {
        let mut out = Out::new(at(self.now));
        block_on(self.operator.data(channel, batch(rows), &mut out));
        self.take(out);
    }

    fn watermark(&mut self, channel: usize, watermark: Watermark) {
        let mut out = Out::new(at(self.now));
        block_on(self.operator.input_watermark(channel, watermark, &mut out));
        self.take(out);
    }

    fn end(&mut self, channel: usize, end: End) {
        let mut out = Out::new(at(self.now));
        block_on(self.operator.input_end(channel, end, &mut out));
        self.take(out);
    }

    fn tick(&mut self, now: i64) {
        self.now = now;
        let mut out = Out::new(at(now));
        block_on(self.operator.tick(&mut out));
        self.take(out);
    }

    fn take(&mut self, out: Out) {
        self.late += out.account.late;
        for (port, message) in out.messages {
            match message {
                Message::Data(batch) if port == Some(MAIN) => self.came(&batch),
                Message::Watermark(Watermark::Active(at)) => {
                    assert!(at >= self.given);
                    (self.given, self.idle) = (at, false);
                }
                Message::Watermark(Watermark::Idle) => self.idle = true,
                _ => {}
            }
        }
    }

    fn came(&mut self, batch: &Batch) {
        for row in 0..batch.num_rows() {
            assert!(at(batch.times[row]) >= self.given, "a row came out behind the watermark {}", self.given);
            let value = batch.rows.column(1).as_primitive::<Int64Type>().value(row);
            let found = (0..self.sides).map(|side| match batch.rows.column(2 + side).as_primitive_opt::<Int64Type>() {
                Some(column) => column.is_valid(row).then(|| column.value(row)).into_iter().collect(),
                None => {
                    let list = batch.rows.column(2 + side).as_list::<i32>().value(row);
                    list.as_primitive::<Int64Type>().values().to_vec()
                }
            });
            let found = found.collect();
            self.seen.push(Seen { value, found });
        }
    }

    fn found(&mut self) -> Vec<(i64, Vec<i64>)> {
        std::mem::take(&mut self.seen).into_iter().map(|seen| (seen.value, seen.found.concat())).collect()
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, crate::failure::Failure>>) -> T {
    let executor = tokio::runtime::Builder::new_current_thread().build().expect("an executor");
    executor.block_on(future).expect("nothing fails")
}

/// All windows of a function that hold a time, by trying them one by one.
fn windows_with(window_fn: WindowFn, time: i64) -> Vec<(i64, i64)> {
    let grid = |size: i64, period: i64| -> Vec<(i64, i64)> {
        (-20..1_000).map(|number| (number * period, number * period + size)).filter(|(start, end)| *start <= time && time < *end).collect()
    };
    match window_fn {
        WindowFn::Fixed { size, .. } => grid(size.micros(), size.micros()),
        WindowFn::Sliding { size, period, .. } => grid(size.micros(), period.micros()),
        WindowFn::Sessions { gap } => vec![(time, time + gap.micros())],
        _ => vec![(i64::MIN, i64::MAX)],
    }
}

/// What each row finds when everything is known.
fn model(main_fn: WindowFn, sides: &[SidePlan], main: &[Row], rows: &[Vec<Row>]) -> Vec<Seen> {
    let all_global = sides.iter().all(|side| side.window_fn == WindowFn::Global);
    let mut seen = Vec::new();
    for row in main {
        let windows = if all_global { vec![(0, 1)] } else { windows_with(main_fn, row.time) };
        for (_, end) in windows {
            let found = sides.iter().zip(rows).map(|(side, rows)| {
                let window = *windows_with(side.window_fn, end - 1).iter().min().expect("there are no gaps");
                let mut inside: Vec<&Row> = rows.iter().filter(|other| window.0 <= other.time && other.time < window.1).collect();
                inside.sort_by_key(|other| (other.time, other.value));
                match side.shape {
                    Shape::Iterable => inside.iter().map(|other| other.value).collect(),
                    Shape::Singleton { .. } => inside.last().map(|other| other.value).into_iter().collect(),
                    Shape::Dict => {
                        let same = inside.iter().rfind(|other| row.key.is_some() && other.key == row.key);
                        same.map(|other| other.value).into_iter().collect::<Vec<i64>>()
                    }
                }
            });
            seen.push(Seen { value: row.value, found: found.collect() });
        }
    }
    seen.sort_by(|a, b| a.partial_cmp(b).expect("no floats"));
    seen
}

fn window_fns() -> impl Strategy<Value = WindowFn> {
    prop_oneof![
        (1i64..15).prop_map(fixed),
        (2i64..15, 1i64..8).prop_map(|(size, period)| sliding(size, period.min(size))),
        Just(WindowFn::Global)
    ]
}

fn main_window_fns() -> impl Strategy<Value = WindowFn> {
    prop_oneof![window_fns(), (1i64..10).prop_map(|gap| WindowFn::Sessions { gap: micros(gap) })]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Two channels feed the main input, two the first side input, one the second. Each moves its watermark by itself; rows are never before
    /// that of their channel.
    #[test]
    fn rows_find_what_a_search_finds(
        main_fn in main_window_fns(),
        side_fns in [window_fns(), window_fns()],
        shapes in [0usize..3, 0usize..3],
        steps in proptest::collection::vec((0usize..5, 0u8..4, 0i64..25, proptest::option::of(0i64..4)), 1..80),
        ends in Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle(),
        restart in 0usize..160,
    ) {
        // Rows of the global window read no windowed side input: refused when the pipeline is checked.
        let side_fns = side_fns.map(|side| if main_fn == WindowFn::Global { WindowFn::Global } else { side });
        let shapes = shapes.map(|shape| [Shape::Singleton { required: false }, Shape::Iterable, Shape::Dict][shape]);
        let sides: Vec<SidePlan> = shapes.into_iter().zip(side_fns).map(|(shape, window_fn)| side(shape, window_fn)).collect();
        let inputs = [0, 0, 1, 1, 2];
        let mut run = Run::new(plan(main_fn, sides.clone()), &inputs);
        let (mut main, mut rows) = (Vec::new(), vec![Vec::new(), Vec::new()]);
        let mut watermarks = [0i64; 5];
        for (number, (channel, action, ahead, key)) in steps.into_iter().enumerate() {
            if number == restart {
                run = run.restarted(plan(main_fn, sides.clone()), &inputs);
                (0..5).for_each(|channel| run.watermark(channel, Watermark::Active(at(watermarks[channel]))));
            }
            if action == 0 {
                watermarks[channel] += ahead / 3;
                run.watermark(channel, Watermark::Active(at(watermarks[channel])));
                continue;
            }
            let row = Row { time: watermarks[channel] + ahead, key, value: number as i64 };
            match inputs[channel] {
                0 => main.push(row),
                side => rows[side - 1].push(row),
            }
            run.rows(channel, &[row]);
        }
        for channel in ends {
            run.end(channel, End::Drained);
        }
        let want = model(main_fn, &sides, &main, &rows);
        run.seen.sort_by(|a, b| a.partial_cmp(b).expect("no floats"));
        prop_assert_eq!(&run.seen, &want);
        prop_assert_eq!((run.late, run.operator.held()), (0, 0));
    }

    /// Rows that waited are the rows that came.
    #[test]
    fn what_waits_comes_back_as_it_was(batches in proptest::collection::vec((0u8..4, proptest::option::of(0i64..3), proptest::collection::vec((0i64..30, 0i64..2), 1..5)), 0..12)) {
        let mut waiting = Waiting::new(schema()).expect("integers can be kept");
        let mut came: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (split, pane, rows) in batches {
            let made: Vec<Row> = rows.iter().map(|(time, value)| Row { time: *time, key: Some(*time), value: *value }).collect();
            let mut batch = batch(&made);
            let offsets = (0..made.len() as i64).collect();
            let split = match split {
                0 => None,
                1 => Some(Split::File { path: "a:b".into(), start: 5 }),
                2 => Some(Split::Kafka { topic: "a".into(), partition: 7 }),
                _ => Some(Split::Generated { name: "b".into(), part: 2 }),
            };
            batch.positions = split.map_or(Positions::None, |split| Positions::At { split: Arc::new(split), offsets });
            batch.windows = pane.map(|index| {
                let table: Vec<Window> = made.iter().map(|row| Window { start: at(row.time), end: at(row.time + 5) }).collect();
                let pane = PaneInfo { timing: PaneTiming::Late, is_first: index == 0, is_last: false, index, nonspeculative_index: index - 1 };
                RowWindows { index: (0..made.len() as u32).collect(), table: table.into(), pane }
            });
            let waits_for: Vec<Window> = made.iter().map(|row| fixed(1).assign(at(row.value))).collect();
            waiting.push(&batch, |_| b"task", &waits_for);
            for (number, row) in made.iter().enumerate() {
                came.entry(row.value).or_default().push(told(&batch, number));
            }
        }
        let total: usize = came.values().map(Vec::len).sum();
        prop_assert_eq!(waiting.len(), total as u64);
        for value in [1, 0] {
            let taken = waiting.take(|window| window.start == at(value)).expect("state is sound");
            let got: Vec<String> = taken.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| told(batch, row))).collect();
            prop_assert_eq!(got, came.remove(&value).unwrap_or_default());
        }
        prop_assert!(waiting.is_empty() && waiting.hold().is_none());
    }
}

/// All that is known of a row.
fn told(batch: &Batch, row: usize) -> String {
    let value = |column: usize| batch.rows.column(column).as_primitive::<Int64Type>().value(row);
    let windows = batch.windows.as_ref().map(|windows| (windows.table[windows.index[row] as usize], windows.pane));
    format!("{} {} {} {:?} {windows:?}", value(0), value(1), batch.times[row], batch.position(row))
}

fn row(time: i64, key: i64, value: i64) -> Row {
    Row { time, key: Some(key), value }
}

#[test]
fn a_slowly_changing_dict_is_read_from_its_first_row_on() {
    let side = SidePlan { from_first_row: true, ..side(Shape::Dict, WindowFn::Global) };
    let mut run = Run::new(plan(fixed(10), vec![side]), &[0, 1]);
    run.rows(0, &[row(5, 1, 100), row(3, 2, 101)]);
    run.watermark(0, Watermark::Active(at(20)));
    assert_eq!((run.found(), run.given, run.operator.held()), (vec![], at(3), 2));
    run.rows(1, &[row(2, 1, 7)]);
    assert_eq!((run.found(), run.given), (vec![(100, vec![7]), (101, vec![])], at(20)));
    // The newest counts, whenever it comes.
    run.rows(1, &[row(1, 1, 6), row(1, 2, 8)]);
    run.rows(0, &[row(21, 1, 102), row(21, 2, 103)]);
    run.rows(1, &[row(9, 1, 9)]);
    run.rows(0, &[row(22, 1, 104)]);
    assert_eq!(run.found(), [(102, vec![7]), (103, vec![8]), (104, vec![9])]);
}

#[test]
fn with_a_refresh_changes_are_seen_together() {
    let side = SidePlan { from_first_row: true, refresh: Some(micros(100)), ..side(Shape::Singleton { required: true }, WindowFn::Global) };
    let mut run = Run::new(plan(WindowFn::Global, vec![side]), &[0, 1]);
    run.rows(0, &[row(1, 0, 1)]);
    run.tick(50);
    run.rows(1, &[row(1, 0, 10)]);
    run.tick(149);
    assert_eq!(run.found(), []);
    run.tick(150);
    run.rows(1, &[row(2, 0, 20)]);
    run.rows(0, &[row(2, 0, 2)]);
    assert_eq!(run.found(), [(1, vec![10]), (2, vec![10])]);
    run.tick(300);
    run.rows(0, &[row(3, 0, 3)]);
    assert_eq!(run.found(), [(3, vec![20])]);
    // What nobody has seen is seen when nothing follows.
    run.rows(1, &[row(3, 0, 30)]);
    run.end(1, End::Drained);
    run.rows(0, &[row(4, 0, 4)]);
    assert_eq!(run.found(), [(4, vec![30])]);
}

#[test]
fn an_idle_side_input_holds_nothing_up_and_a_stopped_one_does() {
    let plan = || plan(fixed(10), vec![side(Shape::Iterable, fixed(10))]);
    let mut run = Run::new(plan(), &[0, 1]);
    run.rows(1, &[row(4, 0, 40)]);
    run.rows(0, &[row(5, 0, 1), row(15, 0, 2)]);
    run.watermark(1, Watermark::Idle);
    assert_eq!(run.found(), []);
    run.watermark(0, Watermark::Active(at(10)));
    assert_eq!((run.found(), run.given), (vec![(1, vec![40])], at(10)));
    run.watermark(0, Watermark::Idle);
    // One row waits, so that those behind must not be told that nothing comes.
    assert!(!run.idle);
    run.end(1, End::Stopped);
    run.end(0, End::Stopped);
    assert_eq!((run.found(), run.operator.held()), (vec![], 1));
}

#[test]
fn a_row_whose_window_has_gone_is_late() {
    let side = SidePlan { allowed_lateness: micros(5), ..side(Shape::Dict, fixed(10)) };
    let mut run = Run::new(plan(fixed(10), vec![side]), &[0, 1]);
    run.rows(1, &[row(4, 1, 40)]);
    run.end(1, End::Drained);
    run.watermark(0, Watermark::Active(at(14)));
    // Behind the watermark, and its side input is there.
    run.given = Instant::MIN;
    run.rows(0, &[row(4, 1, 1)]);
    assert_eq!(run.found(), [(1, vec![40])]);
    run.watermark(0, Watermark::Active(at(15)));
    run.rows(0, &[row(4, 1, 2)]);
    assert_eq!((run.found(), run.late), (vec![], 1));
}

/// Two tasks with one key would write over each other's rows in a checkpoint.
#[test]
fn rows_of_a_task_wait_in_a_key_group_that_it_owns() {
    for tasks in [1, 2, 3, 4, 64, 256] {
        for task in 0..tasks {
            let group = pelton_core::key::key_group(pelton_core::key::key_hash(&key_of_task(task, tasks)));
            assert_eq!(pelton_core::key::group_owner(group, tasks), task, "{task} of {tasks}");
        }
    }
}
