//! A component of many transforms for the tests of `host/plugin`, written against the raw bindings: it answers what no SDK would.
//!
//! - [`honest`]: identity, filter, map, flat-map, tagged outputs, row errors, context, metrics.
//! - [`poison`]: rows with a negative number panic, loop for ever or exhaust memory.
//! - [`lies`]: results and answers of `open` that break the contract, one breach a transform.
//!
//! Every transform but those of `open` reads the first column of format `l`, which tests call `number`.

wit_bindgen::generate!({ world: "transform", path: "../../../wit" });

mod honest;
mod lies;
mod poison;

use exports::pelton::plugin::do_fn::{Failure, Guest as DoFn, Input, Opened, OpenRequest, Outcome, Output, RowErrors};
use exports::pelton::plugin::plugin::{Descriptor, Guest as Plugin};
use pelton::plugin::batch::{MetricKind, MetricSpec, Needs, OutputSchema};
use pelton::plugin::data::{Columns, Field};
use pelton::plugin::log;
use pelton::plugin::spec::{Role, TransformSpec};
use std::cell::RefCell;

thread_local! { static TRANSFORM: RefCell<String> = const { RefCell::new(String::new()) }; }

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Descriptor {
        let names = honest::NAMES.iter().chain(poison::NAMES).chain(lies::NAMES);
        let spec = |name: &&str| TransformSpec {
            name: name.to_string(),
            summary: format!("Tests `{name}`."),
            role: Role::Transform,
            config_schema: "{\"type\":\"object\"}".into(),
            reads: vec![],
            outputs: vec!["".into()],
            states: vec![],
            timers: vec![],
        };
        Descriptor { name: "hostile".into(), version: "0.1.0".into(), transforms: names.map(spec).collect() }
    }
}

impl DoFn for Hostile {
    fn open(request: OpenRequest) -> Result<Opened, Failure> {
        std::panic::set_hook(Box::new(|info| log::panicked(&info.to_string())));
        TRANSFORM.set(request.transform.clone());
        let number = number_column(&request.schema);
        honest::open(&request, number).or_else(|| lies::open(&request, number)).unwrap_or_else(|| Ok(passing(&request, number)))
    }

    fn process(rows: Input) -> Result<Outcome, Failure> {
        let transform = TRANSFORM.with_borrow(Clone::clone);
        let number = |row: usize| i64_at(&rows.columns.buffers[1], row);
        if let Some(answer) = poison::process(&transform, rows.columns.rows as usize, number) {
            return answer;
        }
        if honest::NAMES.contains(&transform.as_str()) { honest::process(&transform, rows) } else { Ok(lies::process(&transform, rows)) }
    }

    fn close() {}
}

export!(Hostile);

/// Reads the number, passes all columns, adds nothing.
fn passing(request: &OpenRequest, number: u32) -> Opened {
    let all = (0..roots(&request.schema).len() as u32).collect();
    Opened { reads: vec![number], needs: Needs::empty(), outputs: vec![main_output(all, vec![])], metrics: vec![] }
}

fn main_output(passes: Vec<u32>, adds: Vec<Field>) -> OutputSchema {
    OutputSchema { tag: String::new(), passes, adds }
}

fn leaf(name: &str, format: &str, nullable: bool) -> Field {
    Field { name: name.into(), format: format.into(), nullable, children: 0 }
}

/// Where the flattened nodes of each top-level field start.
fn roots(schema: &[Field]) -> Vec<usize> {
    fn skip(schema: &[Field], at: usize) -> usize {
        (0..schema[at].children).fold(at + 1, |at, _| skip(schema, at))
    }
    let (mut at, mut roots) = (0, vec![]);
    while at < schema.len() {
        roots.push(at);
        at = skip(schema, at);
    }
    roots
}

fn number_column(schema: &[Field]) -> u32 {
    roots(schema).iter().position(|at| schema[*at].format == "l").unwrap_or(0) as u32
}

fn i64_at(bytes: &[u8], row: usize) -> i64 {
    i64::from_le_bytes(bytes[8 * row..8 * row + 8].try_into().unwrap())
}

fn u32s(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn i64s(values: impl IntoIterator<Item = i64>) -> Vec<u8> {
    values.into_iter().flat_map(i64::to_le_bytes).collect()
}

fn no_columns(rows: u32) -> Columns {
    Columns { rows, nodes: vec![], buffers: vec![] }
}

/// One column without nulls.
fn one_column(rows: u32, buffers: Vec<Vec<u8>>) -> Columns {
    Columns { rows, nodes: u32s([rows, 0]), buffers }
}

fn output(port: u32, columns: Columns, origin: Option<Vec<u32>>) -> Output {
    Output { port, columns, origin: origin.map(u32s), event_times: None }
}

fn no_errors() -> RowErrors {
    RowErrors { rows: vec![], offsets: vec![], messages: vec![] }
}

fn row_errors(errors: &[(u32, &str)]) -> RowErrors {
    let mut end = 0;
    let ends = errors.iter().map(|(_, message)| {
        end += message.len() as u32;
        end
    });
    RowErrors {
        offsets: u32s([0].into_iter().chain(ends)),
        rows: u32s(errors.iter().map(|(row, _)| *row)),
        messages: errors.iter().flat_map(|(_, message)| message.bytes()).collect(),
    }
}

fn outcome(outputs: Vec<Output>) -> Outcome {
    Outcome { outputs, errors: no_errors(), metrics: vec![] }
}

fn counter(name: &str) -> MetricSpec {
    MetricSpec { name: name.into(), kind: MetricKind::Counter, unit: "1".into() }
}
