//! Runs a transform natively, in a unit test: rows in, rows, errors and metrics out, by the same code that runs in a component.
//!
//! ```
//! use pelton_sdk::prelude::*;
//! #[derive(Row)] struct Line<'a> { line: &'a str }
//! #[transform] fn keep(row: Line<'_>) -> bool { row.line != "no" }
//! let run = testing::run::<keep>([Line { line: "yes" }, Line { line: "no" }]);
//! assert_eq!(run.origins(""), [0]);
//! ```
//!
//! [`stateful`] does the same for a transform with state, [`combine`] for an aggregation.

pub(crate) mod fakes;
mod keyed;

pub use fakes::{fake_clock, fake_env, fake_http};
pub use keyed::{Keyed, combine, stateful};
pub use serde_json::Value;

use crate::read::Flat;
use crate::row::{ReadRow, WriteRow};
use crate::state::State;
use crate::state::encode::{StateKey, StateValue};
use crate::transform::{Transform, open};
use crate::values::Timestamp;
use crate::wire::{Columns, Failure, Field, Input, OpenRequest, Opened, Outcome, Output, numbers};
use crate::write::Buffers;

/// What a value, item or accumulator of a state becomes that was written under another version of its type; none: it is dropped.
pub fn migrate<S: State, A: StateValue, T: StateValue>(state: &str, version: u32, old: &A) -> Result<Option<T>, String> {
    let new = entry::<S>(state, version, &[], old)?;
    Ok(new.and_then(|(_, value)| T::decode(&mut &*value)))
}

/// The same for an entry of a map.
pub fn migrate_entry<S: State, A: StateKey, B: StateValue, K: StateKey, V: StateValue>(
    state: &str,
    version: u32,
    old: (A, B),
) -> Result<Option<(K, V)>, String> {
    let new = entry::<S>(state, version, &old.0.encode_key(), &old.1)?;
    Ok(new.and_then(|(key, value)| Some((K::decode_key(&key)?, V::decode(&mut &*value)?))))
}

/// The same for the accumulator of an aggregation.
pub fn migrate_accumulator<C: crate::combine::Described, A: StateValue>(version: u32, old: &A) -> Result<Option<C::Accumulator>, String> {
    let mut bytes = vec![];
    old.encode(&mut bytes);
    let new = C::migrate(version, &bytes).unwrap_or_else(|| Err(format!("there is no migration from version {version}")))?;
    Ok(new.and_then(|(_, accumulator)| C::Accumulator::decode(&mut &*accumulator)))
}

fn entry<S: State>(state: &str, version: u32, key: &[u8], old: &impl StateValue) -> crate::state::migrate::Entry {
    let mut bytes = vec![];
    old.encode(&mut bytes);
    S::migrate(state, version, key, &bytes).unwrap_or_else(|| Err(format!("the state `{state}` has no migration from version {version}")))
}

/// What a transform gave for a batch.
#[derive(Debug)]
pub struct Run {
    opened: Opened,
    outcome: Outcome,
    input_rows: u32,
    /// Row number and message, ascending.
    pub errors: Vec<(usize, String)>,
}

/// Runs a transform that has no config. Panics when it cannot be opened.
pub fn run<T: Transform>(rows: impl IntoIterator<Item = impl WriteRow>) -> Run {
    run_with::<T>(Value::Object(serde_json::Map::new()), rows)
}

/// Runs a transform with a config, as a pipeline would give it. Panics when it cannot be opened.
pub fn run_with<T: Transform>(config: Value, rows: impl IntoIterator<Item = impl WriteRow>) -> Run {
    match try_run::<T>(config, rows) {
        Ok(run) => run,
        Err(failure) => panic!("{}", failure.message),
    }
}

/// As [`run_with`], but answers why the transform cannot be opened. Row i has event time i seconds.
pub fn try_run<T: Transform>(config: Value, rows: impl IntoIterator<Item = impl WriteRow>) -> Result<Run, Failure> {
    let (schema, columns) = columns_of(rows);
    let request = OpenRequest { transform: T::NAME.to_owned(), config: config.to_string(), schema };
    let (opened, instance) = open::<T>(&request)?;
    let input_rows = columns.rows;
    let times = if opened.needs.event_times { 0..i64::from(input_rows) } else { 0..0 };
    let input = Input {
        columns: project(&request.schema, columns, &opened.reads),
        event_times: times.flat_map(|row| (row * 1_000_000).to_le_bytes()).collect(),
        ..Input::default()
    };
    let outcome = instance.process(&input);
    let offsets: Vec<_> = numbers(&outcome.errors.offsets).map(|offset| offset as usize).collect();
    let messages = offsets.windows(2).map(|pair| String::from_utf8_lossy(&outcome.errors.messages[pair[0]..pair[1]]).into_owned());
    let errors = numbers(&outcome.errors.rows).map(|row| row as usize).zip(messages).collect();
    Ok(Run { opened, outcome, input_rows, errors })
}

impl Run {
    /// The new columns of the rows of an output, `""` for the main one.
    pub fn rows<'a, R: ReadRow<'a>>(&'a self, tag: &str) -> Vec<R> {
        let (port, schema) = self.port(tag);
        let mut rows = vec![];
        for output in self.outputs(port) {
            let flat = Flat { fields: schema, columns: &output.columns };
            let readers = R::readers(flat, Flat::TOP);
            for row in 0..output.columns.rows {
                match R::read(&readers, row as usize) {
                    Ok(row) => rows.push(row),
                    Err(null) => panic!("{null}"),
                }
            }
        }
        rows
    }

    /// For each row of an output, the input row that it comes from.
    pub fn origins(&self, tag: &str) -> Vec<usize> {
        let (port, _) = self.port(tag);
        let mut origins = vec![];
        for output in self.outputs(port) {
            match &output.origin {
                Some(origin) => origins.extend(numbers(origin).map(|row| row as usize)),
                None => origins.extend(0..self.input_rows as usize),
            }
        }
        origins
    }

    /// The event times that the rows of an output set; empty when they keep their origins'.
    pub fn event_times(&self, tag: &str) -> Vec<Timestamp> {
        let (port, _) = self.port(tag);
        let bytes: Vec<u8> = self.outputs(port).filter_map(|output| output.event_times.as_deref()).flatten().copied().collect();
        bytes.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok()).map(|bytes| Timestamp(i64::from_le_bytes(bytes))).collect()
    }

    /// A metric after the run: the sum of a counter or distribution, the value of a gauge; 0 when nothing was observed.
    pub fn metric(&self, name: &str) -> f64 {
        let Some(number) = self.opened.metrics.iter().position(|metric| metric.name == name) else {
            panic!("the transform lists no metric `{name}`");
        };
        let update = self.outcome.metrics.iter().find(|update| update.metric == number as u32);
        update.map_or(0.0, |update| match self.opened.metrics[number].kind {
            crate::metrics::MetricKind::Gauge => update.max,
            _ => update.sum,
        })
    }

    /// The answer of `open`.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    fn port(&self, tag: &str) -> (u32, &[Field]) {
        match self.opened.outputs.iter().position(|output| output.tag == tag) {
            Some(port) => (port as u32, &self.opened.outputs[port].adds),
            None => {
                let tags: Vec<_> = self.opened.outputs.iter().map(|output| output.tag.as_str()).collect();
                panic!("the transform has no output `{tag}`; it has {tags:?}");
            }
        }
    }

    fn outputs(&self, port: u32) -> impl Iterator<Item = &Output> {
        self.outcome.outputs.iter().filter(move |output| output.port == port)
    }
}

pub(crate) fn columns_of<R: WriteRow>(rows: impl IntoIterator<Item = R>) -> (Vec<Field>, Columns) {
    let mut schema = vec![];
    R::fields(&mut schema);
    let mut writers = R::writers(0);
    let mut count = 0;
    for row in rows {
        row.write(&mut writers);
        count += 1;
    }
    let mut buffers = Buffers::default();
    R::finish(writers, &mut buffers);
    (schema, Columns { rows: count, nodes: buffers.nodes, buffers: buffers.buffers })
}

/// Sends only the columns that are read, in their order, as the host does.
pub(crate) fn project(schema: &[Field], columns: Columns, reads: &[u32]) -> Columns {
    let flat = Flat { fields: schema, columns: &columns };
    let mut sent = Columns { rows: columns.rows, ..Columns::default() };
    let roots = crate::schema::roots(schema);
    for read in reads {
        let fields = roots[*read as usize]..crate::schema::after(schema, roots[*read as usize]);
        sent.nodes.extend_from_slice(&columns.nodes[fields.start * 8..fields.end * 8]);
        sent.buffers.extend_from_slice(&columns.buffers[flat.buffers(fields)]);
    }
    sent
}
