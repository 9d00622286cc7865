//! A component of stateful transforms for the tests of `host/plugin`, written against the raw bindings: each breaks the contract once, by
//! what it writes or by how it reads. Names say what is wrong.
//!
//! Each has a value state (0), a value state with a TTL (1), a list (2), a map (3), a timer of event time (0) and one of processing time (1).

wit_bindgen::generate!({ world: "stateful-transform", path: "../../../wit" });

use exports::pelton::plugin::plugin::{Descriptor, Guest as Plugin};
use exports::pelton::plugin::stateful_do_fn::*;
use pelton::plugin::batch::{MetricSpec, Needs, OutputSchema};
use pelton::plugin::bytes::BytesColumn;
use pelton::plugin::data::Columns;
use pelton::plugin::outputs::Output;
use pelton::plugin::spec::{Encoding, Role, StateKind, StateSpec, TimeDomain, TimerSpec, TransformSpec, Ttl};
use pelton::plugin::{log, state};
use std::cell::RefCell;

/// Those that are honest.
const HONEST: &[&str] = &["nothing", "all-kinds", "reads", "pages"];
/// A call of these is a breach of the contract.
const LIES: &[&str] = &[
    "state-beyond", "value-as-list", "list-as-value", "map-as-list", "group-beyond", "group-uneven", "value-twice", "value-twice-apart", "few-values",
    "many-values", "offsets-down", "offsets-short", "data-unused", "validity-short", "absent-with-bytes", "absent-item", "absent-key", "expires-missing",
    "expires-unasked", "expires-short", "cleared-beyond", "timer-beyond", "timer-group-beyond", "timer-times-short", "timer-output-late",
    "timer-output-missing", "origin-beyond", "error-beyond", "error-and-output",
];
/// These fail the call: by a trap in the import, or because it would leave too much or too early.
const FAULTS: &[&str] = &[
    "read-value", "read-beyond", "read-group-beyond", "read-uneven", "get-of-list", "get-short", "get-absent", "page-beyond", "early", "huge-value",
];

thread_local! { static TRANSFORM: RefCell<String> = const { RefCell::new(String::new()) }; }

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Descriptor {
        let state = |name: &str, kind: StateKind, ttl: Option<Ttl>| StateSpec {
            name: name.into(),
            kind,
            encoding: Encoding::Opaque,
            value: vec![],
            key: vec![],
            version: 1,
            migrates: vec![],
            defaults: vec![],
            ttl,
        };
        let minute = Ttl { duration_us: 60_000_000, domain: TimeDomain::EventTime };
        let spec = |name: &&str| TransformSpec {
            name: name.to_string(),
            summary: String::new(),
            role: Role::StatefulTransform,
            config_schema: "{}".into(),
            reads: vec![],
            outputs: vec!["".into()],
            states: vec![
                state("value", StateKind::Value, None),
                state("minute", StateKind::Value, Some(minute)),
                state("list", StateKind::ListState, None),
                state("map", StateKind::MapState, None),
            ],
            timers: vec![
                TimerSpec { name: "event".into(), domain: TimeDomain::EventTime },
                TimerSpec { name: "clock".into(), domain: TimeDomain::ProcessingTime },
            ],
        };
        let names = HONEST.iter().chain(LIES).chain(FAULTS);
        Descriptor { name: "hostile-state".into(), version: "0.1.0".into(), transforms: names.map(spec).collect() }
    }
}

impl Guest for Hostile {
    fn open(request: KeyedOpenRequest) -> Result<Opened, Failure> {
        std::panic::set_hook(Box::new(|info| log::panicked(&info.to_string())));
        TRANSFORM.set(request.base.transform.clone());
        let outputs = vec![OutputSchema { tag: String::new(), passes: request.key, adds: vec![] }];
        Ok(Opened { reads: vec![], needs: Needs::KEYS, outputs, metrics: Vec::<MetricSpec>::new() })
    }

    fn process(rows: KeyedInput) -> Result<KeyedOutcome, Failure> {
        let n = rows.rows.columns.rows;
        let groups = (rows.groups.row_starts.len() / 4 - 1) as u32;
        Ok(TRANSFORM.with_borrow(|transform| outcome(transform, n, groups)))
    }

    fn migrate(_: String, _: u32, items: StateItems) -> Result<StateItems, Failure> {
        Ok(items)
    }

    fn close() {}
}

export!(Hostile);

fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn i64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Entries of one byte each.
fn column(entries: u32) -> BytesColumn {
    BytesColumn { validity: vec![], offsets: u32s(&(0..=entries).collect::<Vec<_>>()), data: vec![b'x'; entries as usize] }
}

fn absent() -> BytesColumn {
    BytesColumn { validity: vec![0], offsets: u32s(&[0, 0]), data: vec![] }
}

fn value(state: u32, groups: &[u32]) -> ValueWrites {
    ValueWrites { state, groups: u32s(groups), values: column(groups.len() as u32), expires: vec![] }
}

fn list(state: u32, groups: &[u32]) -> ListWrites {
    ListWrites { state, cleared: vec![], groups: u32s(groups), items: column(groups.len() as u32), expires: vec![] }
}

fn map(state: u32, groups: &[u32]) -> MapWrites {
    let column = column(groups.len() as u32);
    MapWrites { state, cleared: vec![], groups: u32s(groups), keys: column.clone(), values: column, expires: vec![] }
}

fn timer(timer: u32, groups: &[u32]) -> TimerWrites {
    let times: Vec<i64> = groups.iter().map(|_| 7_000_000).collect();
    TimerWrites { timer, groups: u32s(groups), times: i64s(&times), output_times: i64s(&times) }
}

fn output(origin: &[u32]) -> Output {
    let columns = Columns { rows: origin.len() as u32, nodes: vec![], buffers: vec![] };
    Output { port: 0, columns, origin: Some(u32s(origin)), event_times: None }
}

fn errors(rows: &[u32]) -> RowErrors {
    RowErrors { rows: u32s(rows), offsets: u32s(&vec![0; rows.len() + 1]), messages: vec![] }
}

fn outcome(transform: &str, n: u32, groups: u32) -> KeyedOutcome {
    let mut made = KeyedOutcome { outputs: vec![], errors: errors(&[]), metrics: vec![], values: vec![], lists: vec![], maps: vec![], timers: vec![] };
    let minute = |groups: &[u32]| ValueWrites { expires: i64s(&vec![60_000_000; groups.len()]), ..value(1, groups) };
    let with_values = |values: BytesColumn| vec![ValueWrites { values, ..value(0, &[0]) }];
    match transform {
        "all-kinds" => {
            let all: Vec<u32> = (0..groups).collect();
            made.values = vec![value(0, &all), minute(&all)];
            made.lists = vec![list(2, &all), list(2, &[0, 0])];
            made.maps = vec![MapWrites { cleared: u32s(&[0]), ..map(3, &all) }];
            made.timers = vec![timer(0, &all), TimerWrites { times: i64s(&[i64::MAX]), ..timer(1, &[0]) }];
        }
        "reads" => {
            let all: Vec<u32> = (0..groups).collect();
            let lists = state::read(2, &u32s(&all), 1 << 20);
            let found = state::get(3, &u32s(&all), &column(groups));
            made.values = vec![value(0, &all)];
            made.values[0].values = BytesColumn { offsets: u32s(&all.iter().copied().chain([groups]).map(|g| g * 2).collect::<Vec<_>>()), ..column(groups * 2) };
            made.values[0].values.data = (0..groups as usize)
                .flat_map(|g| [(u32_at(&lists.starts, g + 1) - u32_at(&lists.starts, g)) as u8, u8::from(!found.values.data.is_empty())])
                .collect();
        }
        "pages" => {
            // Counts the items of group 0, two small ones a page.
            let (mut after, mut items, mut pages) = (None, 0, 0);
            loop {
                let page = state::page(2, 0, after.as_deref(), 18);
                let count = page.keys.offsets.len() / 4 - 1;
                if count == 0 {
                    break;
                }
                (items, pages) = (items + count as u8, pages + 1_u8);
                after = Some(page.keys.data[page.keys.data.len() - 8..].to_vec());
            }
            made.values = with_values(BytesColumn { validity: vec![], offsets: u32s(&[0, 2]), data: vec![items, pages] });
        }
        "state-beyond" => made.values = vec![value(4, &[0])],
        "value-as-list" => made.lists = vec![list(0, &[0])],
        "list-as-value" => made.values = vec![value(2, &[0])],
        "map-as-list" => made.lists = vec![list(3, &[0])],
        "group-beyond" => made.values = vec![value(0, &[groups])],
        "group-uneven" => made.values = vec![ValueWrites { groups: vec![0; 3], ..value(0, &[0]) }],
        "value-twice" => made.values = vec![value(0, &[0, 0])],
        "value-twice-apart" => made.values = vec![value(0, &[0]), value(0, &[0])],
        "few-values" => made.values = with_values(column(0)),
        "many-values" => made.values = with_values(column(2)),
        "offsets-down" => made.values = vec![ValueWrites { values: BytesColumn { offsets: u32s(&[0, 2, 1]), ..column(2) }, ..value(0, &[0, 1]) }],
        "offsets-short" => made.values = with_values(BytesColumn { offsets: vec![], ..column(1) }),
        "data-unused" => made.values = with_values(BytesColumn { data: vec![0; 9], ..column(1) }),
        "validity-short" => made.maps = vec![MapWrites { values: BytesColumn { validity: vec![255, 255], ..column(1) }, ..map(3, &[0]) }],
        "absent-with-bytes" => made.values = with_values(BytesColumn { validity: vec![0], ..column(1) }),
        "absent-item" => made.lists = vec![ListWrites { items: absent(), ..list(2, &[0]) }],
        "absent-key" => made.maps = vec![MapWrites { keys: absent(), ..map(3, &[0]) }],
        "expires-missing" => made.values = vec![value(1, &[0])],
        "expires-unasked" => made.values = vec![ValueWrites { expires: i64s(&[1]), ..value(0, &[0]) }],
        "expires-short" => made.values = vec![ValueWrites { expires: vec![0; 7], ..value(1, &[0]) }],
        "cleared-beyond" => made.lists = vec![ListWrites { cleared: u32s(&[groups]), ..list(2, &[0]) }],
        "timer-beyond" => made.timers = vec![timer(2, &[0])],
        "timer-group-beyond" => made.timers = vec![timer(0, &[groups])],
        "timer-times-short" => made.timers = vec![TimerWrites { times: vec![0; 9], ..timer(0, &[0]) }],
        "timer-output-late" => made.timers = vec![TimerWrites { output_times: i64s(&[7_000_001]), ..timer(0, &[0]) }],
        "timer-output-missing" => made.timers = vec![TimerWrites { output_times: vec![], ..timer(0, &[0]) }],
        "origin-beyond" => made.outputs = vec![output(&[n])],
        "error-beyond" => made.errors = errors(&[n]),
        "error-and-output" => (made.outputs, made.errors) = (vec![output(&[0])], errors(&[0])),
        "read-value" => drop(state::read(0, &u32s(&[0]), 10)),
        "read-beyond" => drop(state::read(4, &u32s(&[0]), 10)),
        "read-group-beyond" => drop(state::read(2, &u32s(&[groups]), 10)),
        "read-uneven" => drop(state::read(2, &[0; 5], 10)),
        "get-of-list" => drop(state::get(2, &u32s(&[0]), &column(1))),
        "get-short" => drop(state::get(3, &u32s(&[0]), &column(0))),
        "get-absent" => drop(state::get(3, &u32s(&[0]), &absent())),
        "page-beyond" => drop(state::page(3, groups, None, 10)),
        "early" => {
            made.values = vec![value(0, &[0])];
            made.outputs = vec![Output { event_times: Some(i64s(&[-1])), ..output(&[0]) }];
        }
        "huge-value" => {
            let data = vec![0; 2_000_000];
            made.values = with_values(BytesColumn { validity: vec![], offsets: u32s(&[0, data.len() as u32]), data });
        }
        _ => {}
    }
    made
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap())
}
