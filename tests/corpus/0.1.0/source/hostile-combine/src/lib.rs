//! A component of aggregations for the tests of `host/plugin`, written against the raw bindings. Each sums whole numbers in accumulators of
//! eight bytes, but for what its name says: `add-…`, `merge-…`, `extract-…`, `create-…` and `open-…` name the call that goes wrong.

wit_bindgen::generate!({ world: "combine", path: "../../../wit" });

use exports::pelton::plugin::combine_fn::*;
use exports::pelton::plugin::plugin::{Descriptor, Guest as Plugin};
use pelton::plugin::batch::{MetricKind, MetricSpec, Needs, OutputSchema};
use pelton::plugin::data::Field;
use pelton::plugin::log;
use pelton::plugin::spec::{Role, TransformSpec};
use std::cell::{Cell, RefCell};
use std::hint::black_box;

/// Those that are honest.
const HONEST: &[&str] = &["sum", "add-refuses"];
/// An answer of these breaks the contract.
const LIES: &[&str] = &[
    "add-few", "add-many", "add-no-offsets", "add-offsets-down", "add-offsets-beyond", "add-data-unused", "add-absent", "add-validity-short",
    "add-error-beyond", "add-error-twice", "add-error-not-utf8", "add-metric-beyond", "merge-few", "merge-many", "merge-absent",
    "merge-offsets-down", "merge-nothing", "extract-few", "extract-many", "extract-rows-only", "extract-no-columns", "extract-not-utf8",
    "extract-numbers", "extract-offsets-down", "extract-nulls",
];
/// A call of these fails where it meets the number 13, and as a whole in the other calls.
const FAULTS: &[&str] = &[
    "add-panics", "add-loops", "add-hoards", "add-fails", "add-huge", "merge-panics", "merge-loops", "merge-hoards", "merge-fails", "merge-huge",
    "extract-panics", "extract-loops", "extract-hoards", "extract-fails", "extract-huge", "create-panics", "create-loops", "create-huge",
];
/// These fail in an instance that was called before: a fresh one helps.
const WORN: &[&str] = &["merge-worn", "extract-worn"];
/// These cannot be opened.
const OPENS: &[&str] = &[
    "open-no-output", "open-two-outputs", "open-passes", "open-adds-nothing", "open-reads-beyond", "open-same-name", "open-bad-format", "open-panics",
    "open-loops", "open-fails",
];

thread_local! {
    static TRANSFORM: RefCell<String> = const { RefCell::new(String::new()) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Descriptor {
        let spec = |name: &&str| TransformSpec {
            name: name.to_string(),
            summary: String::new(),
            role: Role::Combine,
            config_schema: "{}".into(),
            reads: vec![],
            outputs: vec!["".into()],
            states: vec![],
            timers: vec![],
        };
        let names = [HONEST, LIES, FAULTS, WORN, OPENS].concat();
        Descriptor { name: "hostile-combine".into(), version: "0.1.0".into(), transforms: names.iter().map(spec).collect() }
    }
}

impl Guest for Hostile {
    fn open(request: OpenRequest) -> Result<Opened, Failure> {
        std::panic::set_hook(Box::new(|info| log::panicked(&info.to_string())));
        TRANSFORM.set(request.transform.clone());
        let text = Field { name: "sum".into(), format: "u".into(), nullable: false, children: 0 };
        let output = OutputSchema { tag: String::new(), passes: vec![], adds: vec![text.clone()] };
        let metrics = vec![MetricSpec { name: "added".into(), kind: MetricKind::Counter, unit: String::new() }];
        let mut opened = Opened { reads: vec![0], needs: Needs::empty(), outputs: vec![output.clone()], metrics };
        match request.transform.as_str() {
            "open-no-output" => opened.outputs = vec![],
            "open-two-outputs" => opened.outputs.push(OutputSchema { tag: "more".into(), ..output }),
            "open-passes" => opened.outputs[0].passes = vec![0],
            "open-adds-nothing" => opened.outputs[0].adds = vec![],
            "open-reads-beyond" => opened.reads = vec![1],
            "open-same-name" => opened.outputs[0].adds.push(text),
            "open-bad-format" => opened.outputs[0].adds[0].format = "vu".into(),
            "open-panics" => panic!("there is no sum"),
            "open-loops" => spin(),
            "open-fails" => return Err(failure("it does not want to")),
            _ => {}
        }
        Ok(opened)
    }

    fn create() -> Result<Vec<u8>, Failure> {
        misbehave("create")?;
        Ok(if is("create-huge") { huge() } else { vec![0; 8] })
    }

    fn add(rows: Input, groups: Vec<u8>, accumulators: BytesColumn) -> Result<Added, Failure> {
        let numbers = i64s(&rows.columns.buffers[1]);
        let mut sums: Vec<i64> = entries(&accumulators).map(|bytes| bytes.map_or(0, i64_of)).collect();
        let mut errors = no_errors();
        for (row, (number, group)) in numbers.iter().zip(u32s(&groups)).enumerate() {
            match (number, is("add-refuses")) {
                (13, true) => errors = row_errors(&[row as u32], b"13 is refused"),
                (13, false) => misbehave("add")?,
                _ => sums[group as usize] += number,
            }
        }
        let mut new: Vec<Vec<u8>> = sums.iter().map(|sum| sum.to_le_bytes().to_vec()).collect();
        if is("add-huge") && numbers.contains(&13) {
            new[0] = huge();
        }
        let update = MetricUpdate { metric: 0, count: 1, sum: numbers.len() as f64, min: 0.0, max: 0.0 };
        let mut added = Added { accumulators: column(&new), errors, metrics: vec![update] };
        let answer = &mut added.accumulators;
        match name().as_str() {
            "add-few" => *answer = column(&new[1..]),
            "add-many" => *answer = column(&[new, vec![vec![]]].concat()),
            "add-no-offsets" => answer.offsets = vec![],
            "add-offsets-down" => answer.offsets = bytes(&[0, 9, 8]),
            "add-offsets-beyond" => answer.offsets = bytes(&[0, 8, u32::MAX]),
            "add-data-unused" => answer.data.push(0),
            "add-absent" => *answer = absent(new.len()),
            "add-validity-short" => answer.validity = vec![255; 9],
            "add-error-beyond" => added.errors = row_errors(&[numbers.len() as u32], b"no such row"),
            "add-error-twice" => added.errors = row_errors(&[0, 0], b"twice"),
            "add-error-not-utf8" => added.errors = row_errors(&[0], &[0xff, 0xfe]),
            "add-metric-beyond" => added.metrics[0].metric = 1,
            _ => {}
        }
        Ok(added)
    }

    fn merge(accumulators: BytesColumn, groups: Vec<u8>, count: u32) -> Result<BytesColumn, Failure> {
        misbehave("merge")?;
        let mut sums = vec![0; count as usize];
        entries(&accumulators).zip(u32s(&groups)).for_each(|(bytes, group)| sums[group as usize] += i64_of(bytes.unwrap()));
        let mut merged: Vec<Vec<u8>> = sums.iter().map(|sum: &i64| sum.to_le_bytes().to_vec()).collect();
        Ok(match name().as_str() {
            "merge-few" => column(&merged[1..]),
            "merge-many" => column(&[merged, vec![vec![]]].concat()),
            "merge-absent" => absent(count as usize),
            "merge-offsets-down" => BytesColumn { offsets: bytes(&[0, 9, 8]), ..column(&merged) },
            "merge-nothing" => column(&[]),
            "merge-huge" => {
                merged[0] = huge();
                column(&merged)
            }
            _ => column(&merged),
        })
    }

    fn extract(accumulators: BytesColumn) -> Result<Columns, Failure> {
        misbehave("extract")?;
        let sums: Vec<Vec<u8>> = entries(&accumulators).map(|bytes| i64_of(bytes.unwrap()).to_string().into_bytes()).collect();
        let mut made = texts(&sums);
        let rows = made.rows;
        match name().as_str() {
            "extract-few" => made = texts(&sums[1..]),
            "extract-many" => made = texts(&[sums, vec![vec![b'0']]].concat()),
            "extract-rows-only" => made = Columns { rows, ..texts(&sums[1..]) },
            "extract-no-columns" => made = Columns { rows, nodes: vec![], buffers: vec![] },
            "extract-not-utf8" => made.buffers[2][0] = 0xff,
            "extract-numbers" => made.buffers = vec![vec![], vec![0; 8 * rows as usize]],
            "extract-offsets-down" => made.buffers[1] = bytes(&[0, 2, 1]),
            "extract-nulls" => (made.nodes, made.buffers[0]) = (bytes(&[rows, 1]), vec![0b1110]),
            "extract-huge" => made = texts(&vec![huge(); rows as usize]),
            _ => {}
        }
        Ok(made)
    }

    fn migrate(_: u32, accumulators: BytesColumn) -> Result<BytesColumn, Failure> {
        Ok(accumulators)
    }

    fn close() {}
}

export!(Hostile);

fn name() -> String {
    TRANSFORM.with_borrow(Clone::clone)
}

fn is(transform: &str) -> bool {
    name() == transform
}

/// What a transform of [`FAULTS`] or [`WORN`] does in its call.
fn misbehave(call: &str) -> Result<(), Failure> {
    let calls = CALLS.replace(CALLS.get() + 1);
    match name().strip_prefix(call) {
        Some("-panics") => panic!("{call} has no brakes"),
        Some("-loops") => spin(),
        Some("-hoards") => hoard(),
        Some("-fails") => return Err(failure(&format!("{call} does not want to"))),
        Some("-worn") => assert!(calls == 0, "this instance is worn out"),
        _ => {}
    }
    Ok(())
}

fn spin() {
    let mut turns = 0u64;
    while black_box(true) {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn hoard() {
    let mut hoard = vec![];
    loop {
        hoard.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// More than a row may have in the tests.
fn huge() -> Vec<u8> {
    vec![b'7'; 2_000_000]
}

fn failure(message: &str) -> Failure {
    Failure { message: message.into(), detail: String::new() }
}

fn no_errors() -> RowErrors {
    RowErrors { rows: vec![], offsets: vec![], messages: vec![] }
}

/// The first row has the message, the others have none.
fn row_errors(rows: &[u32], message: &[u8]) -> RowErrors {
    let ends: Vec<u32> = rows.iter().map(|_| message.len() as u32).collect();
    RowErrors { rows: bytes(rows), offsets: bytes(&[&[0], ends.as_slice()].concat()), messages: message.to_vec() }
}

fn bytes(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(i64_of).collect()
}

fn i64_of(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().unwrap())
}

/// The entries of a column; absent ones have none.
fn entries(column: &BytesColumn) -> impl Iterator<Item = Option<&[u8]>> {
    let offsets = u32s(&column.offsets);
    (0..offsets.len() - 1).map(move |entry| {
        let present = column.validity.is_empty() || column.validity[entry / 8] & 1 << (entry % 8) != 0;
        present.then(|| &column.data[offsets[entry] as usize..offsets[entry + 1] as usize])
    })
}

fn column(entries: &[Vec<u8>]) -> BytesColumn {
    BytesColumn { validity: vec![], offsets: offsets(entries), data: entries.concat() }
}

fn absent(entries: usize) -> BytesColumn {
    BytesColumn { validity: vec![0; entries.div_ceil(8)], offsets: bytes(&vec![0; entries + 1]), data: vec![] }
}

fn texts(entries: &[Vec<u8>]) -> Columns {
    let rows = entries.len() as u32;
    Columns { rows, nodes: bytes(&[rows, 0]), buffers: vec![vec![], offsets(entries), entries.concat()] }
}

fn offsets(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut end = 0;
    let ends = entries.iter().map(|entry| {
        end += entry.len() as u32;
        end
    });
    bytes(&[vec![0], ends.collect()].concat())
}
