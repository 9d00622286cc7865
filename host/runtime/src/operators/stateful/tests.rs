//! The operator with a guest in it, told rows, watermarks and times at random, against a loop that does the same slowly.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
use pelton_core::Positions;
use pelton_expr::Language;
use pelton_plugin::{Engine, EngineOptions, Limits, Plugin};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(EngineOptions::default()).unwrap());
pub(crate) static PLUGIN: LazyLock<Arc<Plugin>> = LazyLock::new(|| {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let folders = std::env::var_os("PELTON_TEST_COMPONENTS").map(PathBuf::from).into_iter();
    let folders = folders.chain([tests.join(".cache/components"), tests.join("programs/stateful/target")]);
    let found = folders.map(|folder| folder.join("stateful.wasm")).find_map(|path| std::fs::read(path).ok());
    ENGINE.load_bytes("stateful", &found.expect("the test component stateful.wasm is missing: run `cargo xtask setup`")).unwrap()
});

const SECOND: i64 = 1_000_000;

fn at(seconds: i64) -> Instant {
    Instant::from_micros_saturating(seconds * SECOND)
}

mod versions;

pub(crate) fn operator(transform: &str, window_fn: WindowFn, allowed: i64, error_port: Option<Port>) -> Stateful {
    going_on(transform, window_fn, allowed, error_port, None)
}

/// With state that another version has left.
fn going_on(transform: &str, window_fn: WindowFn, allowed: i64, error_port: Option<Port>, evolved: Option<Arc<Evolved>>) -> Stateful {
    let input: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("user", DataType::Utf8, false), Field::new("number", DataType::Int64, false)]));
    let binding = PLUGIN.bind_stateful(transform, &serde_json::json!({}), &input, &[0], &Limits::default()).unwrap();
    let nullable = input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    let plan = StatefulPlan {
        key: vec![Expression::compile(Language::Generic, "user", &input).unwrap()],
        key_types: vec![DataType::Utf8],
        ports: (0..binding.base.outputs.len()).collect(),
        binding,
        element: Arc::new(Schema::new(nullable)),
        late_schema: crate::operators::late::late_schema(&input),
        late_port: 7,
        window_fn,
        allowed_lateness: Duration::from_micros(allowed * SECOND),
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Test".into(), plugin: None, port: error_port };
    Stateful::new(plan, evolved, Arc::new(NodeMetrics::new("Test".into(), "test".into(), vec![])), refusals).unwrap()
}

/// Rows (user, event time in seconds, number).
pub(crate) fn batch(rows: &[(u8, i64, i64)]) -> Batch {
    let fields = vec![Field::new("user", DataType::Utf8, false), Field::new("number", DataType::Int64, false)];
    let users = StringArray::from_iter_values(rows.iter().map(|(user, _, _)| format!("u{user}")));
    let numbers = Int64Array::from_iter_values(rows.iter().map(|(_, _, number)| *number));
    let made = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(users), Arc::new(numbers)]).unwrap();
    Batch::new(made, rows.iter().map(|(_, time, _)| time * SECOND).collect(), Positions::None)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// What a message does.
#[derive(Clone, Debug)]
enum Step {
    Rows(Vec<(u8, i64, i64)>),
    Watermark(i64),
    Tick,
    /// The clock goes on.
    Wait(i64),
    End,
}

fn run(operator: &mut Stateful, now: i64, step: &Step) -> Out {
    let mut out = Out::new(at(now));
    block_on(async {
        match step {
            Step::Rows(rows) => operator.data(0, batch(rows), &mut out).await,
            Step::Watermark(to) => operator.watermark(Watermark::Active(at(*to)), &mut out).await,
            Step::Tick => operator.tick(&mut out).await,
            Step::Wait(_) => Ok(()),
            Step::End => operator.end(End::Drained, &mut out).await,
        }
    })
    .unwrap();
    out
}

/// A fired timer as `Alarm` gives it out: user, what, event time in seconds, fires since the last row, whether `last` was alive.
type Fired = (String, String, i64, i64, bool);

fn fired(out: &Out) -> Vec<Fired> {
    let mut all = vec![];
    for (port, message) in &out.messages {
        let (Some(0), Message::Data(batch)) = (port, message) else { continue };
        let column = |name: &str| batch.rows.column_by_name(name).unwrap().clone();
        for row in 0..batch.num_rows() {
            let told = column("at").as_primitive::<TimestampMicrosecondType>().value(row);
            assert_eq!(told, batch.times[row], "a timer's output has its output time");
            all.push((
                column("user").as_string::<i32>().value(row).to_owned(),
                column("what").as_string::<i32>().value(row).to_owned(),
                told / SECOND,
                column("rows").as_primitive::<Int64Type>().value(row),
                column("alive").as_boolean().value(row),
            ));
        }
    }
    all
}

fn told(out: &Out) -> Option<i64> {
    out.messages.iter().rev().find_map(|(_, message)| match message {
        Message::Watermark(Watermark::Active(at)) => Some(at.micros() / SECOND),
        _ => None,
    })
}

/// `Alarm`, cell by cell and second by second.
#[derive(Default)]
struct Model {
    cells: BTreeMap<u8, Cell>,
    watermark: Option<i64>,
}

#[derive(Default, Clone)]
struct Cell {
    /// Written at this time of day.
    last: Option<i64>,
    fires: i64,
    /// Of event time.
    event: Option<i64>,
    /// Of processing time: when, and the output time.
    processing: Option<(i64, i64)>,
}

const EVER: i64 = i64::MAX / SECOND;

impl Model {
    fn step(&mut self, step: &Step, now: i64) -> Vec<Fired> {
        let mut fired = vec![];
        let watermark = self.watermark.unwrap_or(i64::MIN / SECOND);
        match step {
            Step::Rows(rows) => {
                // Timers before rows.
                self.processing(now, &mut fired);
                for (user, time, number) in rows {
                    let cell = self.cells.entry(*user).or_default();
                    (cell.last, cell.fires) = (Some(now), 0);
                    match number {
                        0 => (cell.event, cell.processing) = (None, None),
                        number if *number > 0 => cell.event = Some(time + number),
                        _ => cell.processing = Some((now - number, (*time).max(watermark))),
                    }
                }
                self.event(now, &mut fired);
                self.processing(now, &mut fired);
            }
            Step::Watermark(to) => {
                self.watermark = Some(watermark.max(*to));
                self.event(now, &mut fired);
                self.processing(now, &mut fired);
            }
            Step::Tick => self.processing(now, &mut fired),
            Step::Wait(_) => {}
            Step::End => {
                self.watermark = Some(EVER);
                self.event(now, &mut fired);
                self.processing(EVER, &mut fired);
            }
        }
        fired
    }

    fn event(&mut self, now: i64, fired: &mut Vec<Fired>) {
        for (user, cell) in &mut self.cells {
            while let Some(time) = cell.event.filter(|time| self.watermark.is_some_and(|watermark| *time <= watermark)) {
                cell.fires += 1;
                cell.event = (cell.fires < 3).then_some(time + 7);
                fired.push((format!("u{user}"), "event".into(), time, cell.fires, cell.last.is_some_and(|last| now < last + 10)));
            }
        }
    }

    fn processing(&mut self, upto: i64, fired: &mut Vec<Fired>) {
        for (user, cell) in &mut self.cells {
            if let Some((time, output)) = cell.processing.filter(|(time, _)| *time <= upto) {
                let _ = time;
                cell.fires += 1;
                cell.processing = None;
                // `upto` is the time of day, but at the end.
                fired.push((format!("u{user}"), "processing".into(), output, cell.fires, false));
            }
        }
    }

    fn hold(&self) -> Option<i64> {
        let held = |cell: &Cell| [cell.event, cell.processing.map(|(_, output)| output)].into_iter().flatten().min();
        self.cells.values().filter_map(held).min()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0u8..4, 0i64..200, -20i64..60);
    let step = prop_oneof![
        4 => proptest::collection::vec(row, 1..12).prop_map(Step::Rows),
        3 => (0i64..220).prop_map(Step::Watermark),
        2 => Just(Step::Tick),
        2 => (0i64..15).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Timers of both clocks, ones that set themselves again, a time to live, holds, and everything that is pending at the end.
    #[test]
    fn timers_fire_as_in_a_plain_loop(steps in steps()) {
        let mut operator = operator("alarm", WindowFn::Global, 0, None);
        let mut model = Model::default();
        let (mut now, mut given) = (1_000, i64::MIN);
        for step in steps.into_iter().chain([Step::End]) {
            if let Step::Wait(seconds) = step {
                now += seconds;
            }
            let out = run(&mut operator, now, &step);
            let ending = matches!(step, Step::End);
            // Whether the value is alive when a timer of processing time fires depends on the clock, which at the end has not come so far.
            let plain = |fired: Vec<Fired>| -> Vec<Fired> {
                let mut plain: Vec<_> =
                    fired.into_iter().map(|(user, what, at, rows, alive)| { let alive = alive && what == "event"; (user, what, at, rows, alive) }).collect();
                plain.sort();
                plain
            };
            prop_assert_eq!(plain(fired(&out)), plain(model.step(&step, now)), "{:?} at {}", step, now);
            if let Some(told) = told(&out) {
                prop_assert!(told > given, "watermarks never go back");
                prop_assert!(model.hold().is_none_or(|hold| told <= hold || given >= hold), "{told} is beyond what is held, {:?}", model.hold());
                given = told;
            }
            if let (Some(watermark), false) = (model.watermark, ending) {
                let want = model.hold().map_or(watermark, |hold| watermark.min(hold));
                prop_assert!(given >= want, "held back at {given} for nothing: {want} at {:?}", step);
            }
        }
        prop_assert!(operator.with_states(|states| states.keyed.is_empty()), "the global window has closed");
    }

    /// Per key and window, in every order of batches: the rows on time, once; the late ones in the output for them.
    #[test]
    fn windows_close_with_their_state(rows in proptest::collection::vec((0u8..3, 0i64..60, 1i64..5), 1..40), cut in 1usize..7, watermark in 0i64..70) {
        let window = WindowFn::Fixed { size: Duration::from_micros(10 * SECOND), offset: Duration::ZERO };
        let mut operator = operator("collect", window, 5, None);
        let (before, after) = rows.split_at(rows.len() / 2);
        let mut outs = vec![];
        before.chunks(cut).for_each(|rows| outs.push(run(&mut operator, 0, &Step::Rows(rows.to_vec()))));
        outs.push(run(&mut operator, 0, &Step::Watermark(watermark)));
        after.chunks(cut).for_each(|rows| outs.push(run(&mut operator, 0, &Step::Rows(rows.to_vec()))));
        outs.push(run(&mut operator, 0, &Step::End));

        let (mut got, mut late) = (vec![], 0);
        for (port, batch) in outs.iter().flat_map(|out| &out.messages).filter_map(|(port, message)| match message {
            Message::Data(batch) => Some((port.unwrap(), batch)),
            _ => None,
        }) {
            if port == 7 {
                late += batch.num_rows();
                continue;
            }
            for row in 0..batch.num_rows() {
                let order = batch.rows.column_by_name("order").unwrap().as_list::<i32>().value(row);
                let start = batch.rows.column_by_name("start").unwrap().as_primitive::<TimestampMicrosecondType>().value(row);
                let user = batch.rows.column_by_name("user").unwrap().as_string::<i32>().value(row).to_owned();
                got.push((user, start / SECOND, order.as_primitive::<Int64Type>().values().to_vec()));
            }
        }
        // A timer at the end of the window fires when the watermark passes it, and again for what came late, at once.
        let mut kept: BTreeMap<(String, i64), Vec<i64>> = BTreeMap::new();
        let (mut want, mut dropped) = (vec![], 0);
        for (user, time, number) in before {
            kept.entry((format!("u{user}"), time / 10 * 10)).or_default().push(*number);
        }
        let mut pending: BTreeSet<_> = kept.keys().cloned().collect();
        pending.retain(|(user, start)| {
            let fires = start + 10 <= watermark;
            if fires {
                want.push((user.clone(), *start, kept[&(user.clone(), *start)].clone()));
            }
            !fires
        });
        kept.retain(|(_, start), _| start + 15 > watermark);
        for rows in after.chunks(cut) {
            let mut again = BTreeSet::new();
            for (user, time, number) in rows {
                let cell = (format!("u{user}"), time / 10 * 10);
                if cell.1 + 15 <= watermark {
                    dropped += 1;
                    continue;
                }
                kept.entry(cell.clone()).or_default().push(*number);
                if cell.1 + 10 <= watermark { again.insert(cell) } else { pending.insert(cell) };
            }
            want.extend(again.into_iter().map(|cell| (cell.0.clone(), cell.1, kept[&cell].clone())));
        }
        want.extend(pending.into_iter().map(|cell| (cell.0.clone(), cell.1, kept[&cell].clone())));
        got.sort();
        want.sort();
        prop_assert_eq!((got, late), (want, dropped));
        prop_assert!(operator.with_states(|states| states.keyed.is_empty()));
    }
}

#[test]
fn an_idle_input_is_told_on_once_nothing_is_held() {
    let mut operator = operator("alarm", WindowFn::Global, 0, None);
    let idle = |operator: &mut Stateful| {
        let mut out = Out::new(at(0));
        block_on(operator.watermark(Watermark::Idle, &mut out)).unwrap();
        out.messages
    };
    run(&mut operator, 0, &Step::Rows(vec![(1, 5, -3)]));
    assert_eq!(told(&run(&mut operator, 0, &Step::Watermark(9))), Some(5));
    assert!(idle(&mut operator).is_empty());
    let out = run(&mut operator, 3, &Step::Tick);
    assert_eq!(fired(&out).len(), 1);
    assert!(matches!(out.messages.last(), Some((None, Message::Watermark(Watermark::Idle)))));
    assert_eq!(told(&run(&mut operator, 3, &Step::Watermark(9))), Some(9));
}

#[test]
fn refused_rows_go_to_the_error_output_and_count_once() {
    let mut operator = operator("picky", WindowFn::Global, 0, Some(3));
    let out = run(&mut operator, 0, &Step::Rows(vec![(1, 1, 1), (1, 2, 5), (1, 3, 13), (2, 3, 10), (1, 4, 2)]));
    let of = |wanted: Port| {
        out.messages.iter().filter_map(move |(port, message)| match message {
            Message::Data(batch) if *port == Some(wanted) => Some(batch.num_rows()),
            _ => None,
        })
    };
    assert_eq!((of(0).sum::<usize>(), of(3).sum::<usize>()), (2, 3));
    assert_eq!((out.account.led, out.account.errors, out.account.filtered), (2, 3, 0));
}
