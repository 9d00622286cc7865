//! Transforms with state and timers: `tests/programs/stateful`, its state kept in plain maps here.

use crate::*;
use pelton_core::{Instant, Window};
use pelton_plugin::{CellRef, Fired, KeyedState, Role, StateKind, StateWrite, StatefulInstance, Stored, Work};
use std::collections::BTreeMap;
use std::sync::Mutex;

static STATEFUL: LazyLock<Arc<Plugin>> = LazyLock::new(|| ENGINE.load_bytes("stateful", &component_of("stateful")).unwrap());

type Owned = (Vec<u8>, Instant);

/// The slow and obvious way to keep state.
#[derive(Default, Debug, PartialEq, Clone)]
struct Plain {
    values: BTreeMap<(usize, u32), Owned>,
    items: BTreeMap<(usize, u32), BTreeMap<Vec<u8>, Owned>>,
    timers: BTreeMap<(usize, u32), (Instant, Instant)>,
    appended: u64,
}

fn lent((bytes, expires): &Owned) -> Stored<'_> {
    (bytes, *expires)
}

fn owned((bytes, expires): Stored<'_>) -> Owned {
    (bytes.to_vec(), expires)
}

impl KeyedState for Plain {
    fn value(&self, state: usize, cell: u32) -> Option<Stored<'_>> {
        self.values.get(&(state, cell)).map(lent)
    }

    fn item(&self, state: usize, cell: u32, key: &[u8]) -> Option<Stored<'_>> {
        self.items.get(&(state, cell))?.get(key).map(lent)
    }

    fn items(&self, state: usize, cell: u32, after: Option<&[u8]>, each: &mut dyn FnMut(&[u8], Stored<'_>) -> bool) {
        for (key, value) in self.items.get(&(state, cell)).into_iter().flatten() {
            if after.is_none_or(|after| &**key > after) && !each(key, lent(value)) {
                return;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.values.values().chain(self.items.values().flat_map(BTreeMap::values)).map(|(bytes, _)| bytes.len()).sum()
    }

    fn apply(&mut self, write: StateWrite<'_>) {
        match write {
            StateWrite::Value { state, cell, value: Some(value) } => drop(self.values.insert((state, cell), owned(value))),
            StateWrite::Value { state, cell, value: None } => drop(self.values.remove(&(state, cell))),
            StateWrite::Clear { state, cell } => drop(self.items.remove(&(state, cell))),
            StateWrite::Append { state, cell, item } => {
                self.appended += 1;
                self.items.entry((state, cell)).or_default().insert(self.appended.to_be_bytes().to_vec(), owned(item));
            }
            StateWrite::Put { state, cell, key, value: Some(value) } => {
                self.items.entry((state, cell)).or_default().insert(key.to_vec(), owned(value));
            }
            StateWrite::Put { state, cell, key, value: None } => {
                self.items.entry((state, cell)).or_default().remove(key);
            }
            StateWrite::Timer { timer, cell, at: Some(at) } => drop(self.timers.insert((timer, cell), at)),
            StateWrite::Timer { timer, cell, at: None } => drop(self.timers.remove(&(timer, cell))),
        }
    }
}

/// A transform with its state.
struct Keeper {
    instance: StatefulInstance,
    state: Arc<Mutex<Plain>>,
}

const WINDOW: Window = Window { start: Instant::from_micros_saturating(0), end: Instant::from_micros_saturating(1_000_000_000) };

fn open(transform: &str, config: serde_json::Value, limits: &Limits) -> Keeper {
    // The key is the text, of which these transforms know nothing.
    let binding = STATEFUL.bind_stateful(transform, &config, &batch([]).schema(), &[0], limits).unwrap();
    Keeper { instance: binding.open().unwrap(), state: Arc::default() }
}

impl Keeper {
    /// Rows (cell, number), sorted by cell; row i has event time i seconds.
    fn try_rows(&mut self, rows: &[(u32, i64)], watermark: i64) -> Result<Processed, PluginError> {
        let mut cells: Vec<u32> = rows.iter().map(|(cell, _)| *cell).collect();
        let starts = (0..=rows.len()).filter(|row| *row == rows.len() || *row == 0 || cells[*row] != cells[row - 1]).map(|row| row as u32);
        let starts: Vec<u32> = starts.collect();
        cells.dedup();
        let cells: Vec<_> = cells.into_iter().map(|id| CellRef { id, window: WINDOW }).collect();
        let batch = batch(rows.iter().map(|(_, number)| *number));
        self.work(&Work {
            batch: &batch,
            cells: &cells,
            starts: &starts,
            fired: &[],
            keys: &[],
            watermark: seconds(watermark),
            now: seconds(500),
        })
    }

    fn rows(&mut self, rows: &[(u32, i64)]) -> Processed {
        self.try_rows(rows, 0).unwrap()
    }

    /// Fires timer 0 of cells, each with its time, which is its output time too.
    fn fire(&mut self, fired: &[(u32, i64)]) -> Result<Processed, PluginError> {
        let texts = StringArray::from_iter_values(fired.iter().map(|(cell, _)| format!("cell {cell}")));
        let rows =
            RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)])), vec![Arc::new(texts)]).unwrap();
        let batch = Batch::new(rows, fired.iter().map(|(_, time)| *time * 1_000_000).collect(), Positions::None);
        let cells: Vec<_> = fired.iter().map(|(cell, _)| CellRef { id: *cell, window: WINDOW }).collect();
        let starts: Vec<u32> = (0..=fired.len() as u32).collect();
        let timers: Vec<_> = fired.iter().map(|(_, time)| Fired { timer: 0, time: seconds(*time) }).collect();
        let work =
            Work { batch: &batch, cells: &cells, starts: &starts, fired: &timers, keys: &[], watermark: seconds(900), now: seconds(500) };
        self.work(&work)
    }

    fn work(&mut self, work: &Work<'_>) -> Result<Processed, PluginError> {
        block_on(self.instance.process(work, &self.state))
    }

    fn state(&self) -> Plain {
        self.state.lock().unwrap().clone()
    }
}

fn seconds(seconds: i64) -> Instant {
    Instant::from_micros(seconds * 1_000_000).unwrap()
}

#[test]
fn a_component_has_transforms_of_every_role_and_names_its_states() {
    let specs = &STATEFUL.descriptor().transforms;
    let find = |name: &str| specs.iter().find(|spec| spec.name == name).unwrap();
    assert_eq!((find("positive").role, find("geometric-mean").role), (Role::Transform, Role::Combine));
    let dedup = find("dedup");
    assert_eq!(
        (dedup.role, dedup.states[0].kind, dedup.states[0].ttl.unwrap().micros),
        (Role::StatefulTransform, StateKind::Value, 60_000_000)
    );
    let kept: Vec<_> =
        find("collect").states.iter().map(|state| (state.name.as_str(), state.kind, state.value.as_deref().unwrap())).collect();
    assert_eq!(kept, [("order", StateKind::List, "Int64"), ("counts", StateKind::Map, "Int64")]);
    assert_eq!(find("alarm").timers.iter().map(|timer| timer.name.as_str()).collect::<Vec<_>>(), ["event", "processing"]);
    let error = STATEFUL.bind("dedup", &serde_json::json!({}), &batch([]).schema(), &Limits::default()).err().unwrap().to_string();
    assert!(error.contains("is a stateful transform") && error.contains("`key: [..]`"), "{error}");
    let error = STATEFUL.bind_stateful("positive", &serde_json::json!({}), &batch([]).schema(), &[0], &Limits::default()).err().unwrap();
    assert!(error.to_string().contains("take `key` out"), "{error}");
}

#[test]
fn state_is_there_for_later_rows_of_the_cell_alone() {
    let mut keeper = open("dedup", serde_json::json!({}), &Limits::default());
    let kept = keeper.rows(&[(1, 10), (1, 11), (2, 12)]);
    assert_eq!((numbers(&kept, 0, "number"), kept.led_to_output), (vec![10, 12], 2));
    assert_eq!(keeper.rows(&[(1, 13), (3, 14)]).led_to_output, 1);
    let state = keeper.state();
    assert_eq!(state.values.keys().map(|(_, cell)| *cell).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(state.values[&(0, 1)], (10_i64.to_le_bytes().to_vec(), seconds(60)));
    // What the keeper still has, but the row's time has passed.
    let many: Vec<_> = (0..62).map(|row| (1, row)).collect();
    assert_eq!(numbers(&keeper.rows(&many), 0, "number"), [60]);
    // By the watermark, which is later than the row's own time.
    assert_eq!(numbers(&keeper.try_rows(&[(1, 99)], 500).unwrap(), 0, "number"), [99]);
    assert_eq!(keeper.state().values[&(0, 1)].1, seconds(560));
}

#[test]
fn timers_are_set_fire_and_give_out_rows_of_their_key() {
    let mut keeper = open("sessions", serde_json::json!({"seconds": 5}), &Limits::default());
    assert!(keeper.rows(&[(1, 3), (1, 4), (2, 7)]).outputs.is_empty());
    assert_eq!(keeper.state().timers, BTreeMap::from([((0, 1), (seconds(6), seconds(6))), ((0, 2), (seconds(7), seconds(7)))]));
    let fired = keeper.fire(&[(1, 6), (2, 7)]).unwrap();
    assert_eq!((numbers(&fired, 0, "sum"), fired.outputs[0].1.times.to_vec()), (vec![7, 7], vec![6_000_000, 7_000_000]));
    let keys = fired.outputs[0].1.rows.column_by_name("text").unwrap().as_any().downcast_ref::<StringArray>().unwrap();
    assert_eq!((keys.value(0), keys.value(1)), ("cell 1", "cell 2"));
    assert!(keeper.state().values.is_empty());
}

#[test]
fn lists_and_maps_are_read_in_batches_and_written_with_the_call() {
    // All in one call, also on a loaded machine.
    let limits = Limits { call_deadline: std::time::Duration::from_secs(10), ..Limits::default() };
    let mut keeper = open("collect", serde_json::json!({}), &limits);
    // More cells than one read takes.
    let rows: Vec<_> = (0..3_000).flat_map(|cell| [(cell, 5), (cell, i64::from(cell) + 6), (cell, 5)]).collect();
    keeper.rows(&rows[..4_500]);
    keeper.rows(&rows[4_500..]);
    keeper.rows(&[(0, -5), (1, 0), (1, 9)]);
    let fired = keeper.fire(&(0..3_000).map(|cell| (cell, 1_000)).collect::<Vec<_>>()).unwrap();
    let lists = fired.outputs[0].1.rows.column_by_name("order").unwrap().clone();
    let list = |cell: usize| -> Vec<i64> {
        let list = lists.as_any().downcast_ref::<arrow::array::ListArray>().unwrap().value(cell);
        list.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
    };
    let maps = fired.outputs[0].1.rows.column_by_name("counts").unwrap().clone();
    let map = |cell: usize| maps.as_any().downcast_ref::<arrow::array::MapArray>().unwrap().value(cell).len();
    assert_eq!((list(0), map(0)), (vec![5, 6, 5], 1));
    assert_eq!((list(1), map(1)), (vec![9], 1));
    for cell in 2..3_000 {
        assert_eq!((list(cell), map(cell)), (vec![5, cell as i64 + 6, 5], 2));
    }
}

#[test]
fn a_refused_row_leaves_no_state_no_timer_and_no_metric() {
    let mut keeper = open("picky", serde_json::json!({}), &Limits::default());
    let processed = keeper.rows(&[(1, 1), (1, 5), (1, 2), (1, 10), (1, 15), (1, 3), (2, 20)]);
    assert_eq!(processed.errors.iter().map(|error| error.row).collect::<Vec<_>>(), [1, 3, 4, 6]);
    assert_eq!(numbers(&processed, 0, "total"), [1, 3, 6]);
    let unsigned = |name: &str| {
        let column = processed.outputs[0].1.rows.column_by_name(name).unwrap().clone();
        column.as_any().downcast_ref::<arrow::array::UInt64Array>().unwrap().values().to_vec()
    };
    assert_eq!((unsigned("listed"), unsigned("mapped")), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!((processed.metrics[0].count, processed.traps), (3, 0));
    let state = keeper.state();
    assert!(state.timers.is_empty() && state.values.len() == 1, "{state:?}");
    assert_eq!((state.items[&(1, 1)].len(), state.items[&(2, 1)].len()), (3, 3));
}

#[test]
fn a_trap_discards_the_call_and_its_row_is_found() {
    let mut keeper = open("picky", serde_json::json!({}), &Limits::default());
    let rows: Vec<_> = (1..=40).map(|number| (number as u32 / 10, number)).filter(|(_, number)| number % 5 != 0).collect();
    let processed = keeper.rows(&rows);
    assert_eq!(processed.errors.len(), 1, "{:?}", processed.errors);
    assert_eq!(rows[processed.errors[0].row as usize].1, 13);
    assert!(processed.errors[0].message.contains("13 is no number") && processed.traps > 1);
    // As if the row had never been there.
    let mut spared = open("picky", serde_json::json!({}), &Limits::default());
    let without: Vec<_> = rows.iter().copied().filter(|(_, number)| *number != 13).collect();
    let honest = spared.rows(&without);
    assert_eq!(numbers(&processed, 0, "total"), numbers(&honest, 0, "total"));
    assert_eq!(keeper.state().values, spared.state().values);
    let items = |state: Plain| state.items.into_iter().map(|(of, items)| (of, items.into_values().collect::<Vec<_>>())).collect::<Vec<_>>();
    assert_eq!(items(keeper.state()), items(spared.state()));
}

static LIAR: LazyLock<Arc<Plugin>> = LazyLock::new(|| ENGINE.load_bytes("hostile-state", &component_of("hostile-state")).unwrap());

/// One call with two cells of two rows, then what the state is.
fn lie(transform: &str, state: Arc<Mutex<Plain>>) -> (Result<Processed, PluginError>, Plain) {
    let limits = Limits { max_row_bytes: 1 << 20, ..Limits::default() };
    let binding = LIAR.bind_stateful(transform, &serde_json::json!({}), &batch([]).schema(), &[0], &limits).unwrap();
    let mut keeper = Keeper { instance: binding.open().unwrap(), state };
    let answer = keeper.rows_of_two();
    (answer, keeper.state())
}

impl Keeper {
    fn rows_of_two(&mut self) -> Result<Processed, PluginError> {
        let batch = batch([1, 2, 3, 4]);
        let keys = vec![batch.rows.column(0).slice(1, 2)];
        let cells = [7, 9].map(|id| CellRef { id, window: WINDOW });
        self.work(&Work {
            batch: &batch,
            cells: &cells,
            starts: &[0, 2, 4],
            fired: &[],
            keys: &keys,
            watermark: seconds(0),
            now: seconds(0),
        })
    }
}

fn names(first: &str, end: &str) -> Vec<String> {
    let names = LIAR.descriptor().transforms.iter().map(|spec| spec.name.clone());
    names.skip_while(|name| name != first).take_while(|name| name != end).collect()
}

#[test]
fn writes_of_every_kind_reach_their_cells() {
    let state: Arc<Mutex<Plain>> = Arc::default();
    let (answer, kept) = lie("all-kinds", state.clone());
    assert_eq!(answer.unwrap().traps, 0);
    assert_eq!(kept.values.keys().copied().collect::<Vec<_>>(), [(0, 7), (0, 9), (1, 7), (1, 9)]);
    assert_eq!((kept.values[&(1, 9)].1, kept.values[&(0, 9)].1), (seconds(60), Instant::MAX));
    assert_eq!((kept.items[&(2, 7)].len(), kept.items[&(2, 9)].len(), kept.items[&(3, 7)].len()), (3, 1, 1));
    assert_eq!(kept.timers, BTreeMap::from([7, 9].map(|cell| ((0, cell), (seconds(7), seconds(7))))));
    let (answer, kept) = lie("reads", state.clone());
    assert_eq!(answer.unwrap().traps, 0);
    assert_eq!((&kept.values[&(0, 7)].0, &kept.values[&(0, 9)].0), (&vec![3, 1], &vec![1, 1]));
    let (_, kept) = lie("pages", state);
    assert_eq!(kept.values[&(0, 7)].0, [3, 2]);
}

#[test]
fn writes_that_break_the_contract_are_refused_and_leave_nothing() {
    let lies = names("state-beyond", "read-value");
    assert!(lies.len() > 25, "{lies:?}");
    for name in lies {
        let (answer, kept) = lie(&name, Arc::default());
        assert!(matches!(answer, Err(PluginError::Contract { .. })), "{name}: {answer:?}");
        assert_eq!(kept, Plain::default(), "{name}");
    }
}

#[test]
fn reads_that_break_the_contract_fail_the_call_and_leave_nothing() {
    let faults = names("read-value", "fires-panic");
    assert!(faults.len() > 8, "{faults:?}");
    for name in faults {
        let (answer, kept) = lie(&name, Arc::default());
        let processed = answer.unwrap();
        assert_eq!(processed.errors.len(), 4, "{name}: {processed:?}");
        assert_eq!(kept, Plain::default(), "{name}");
        let wanted = match name.as_str() {
            "early" => "earlier than",
            "huge-value" => "state value of 2000000 bytes",
            "reads-endless" => "limits.call_deadline",
            _ => "it read state wrongly",
        };
        assert!(processed.errors.iter().all(|error| error.message.contains(wanted)), "{name}: {:?}", processed.errors);
    }
}
