//! The generated bindings of `wit/`, and the exports of every component.
//!
//! Buffers are moved between the generated records and those of [`crate::wire`], never copied.

pub mod capabilities;
mod combine;
mod stateful;

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::log::Level;
use crate::transform::{Instance, Opener, Plugin, wrong_role};
use crate::wire;

pub mod bindings {
    wit_bindgen::generate!({
        world: "any-role",
        path: "wit",
        pub_export_macro: true,
        export_macro_name: "export_any_role",
    });
}

pub use bindings::export_any_role;

use bindings::exports::pelton::plugin::do_fn;
use bindings::exports::pelton::plugin::plugin;
use bindings::pelton::plugin::batch::{MetricKind, MetricSpec, Needs, OutputSchema};
use bindings::pelton::plugin::data::{Columns, Field};
use bindings::pelton::plugin::spec::{
    ColumnNeed, Encoding, FieldDefault, Migration, Role, StateKind, StateSpec, TimeDomain, TimerSpec, TransformSpec, Ttl,
};

thread_local! {
    /// The transform that this instance serves, once it is open.
    static INSTANCE: RefCell<Option<Served>> = const { RefCell::new(None) };
}

/// An opened transform of one role.
enum Served {
    Transform(Box<dyn Instance>),
    Stateful(Box<dyn crate::stateful::Instance>),
    Combine(Box<dyn crate::combine::Instance>),
}

/// The exports of a plugin.
pub struct Component<P>(PhantomData<P>);

impl<P: Plugin> plugin::Guest for Component<P> {
    fn describe() -> plugin::Descriptor {
        let transforms = P::transforms().into_iter().map(|transform| transform_spec((transform.spec)())).collect();
        plugin::Descriptor { name: P::NAME.to_owned(), version: P::VERSION.to_owned(), transforms }
    }
}

impl<P: Plugin> do_fn::Guest for Component<P> {
    fn open(request: do_fn::OpenRequest) -> Result<do_fn::Opened, do_fn::Failure> {
        let request = open_request(request);
        let Opener::Transform(open) = P::opener(&request.transform).map_err(failure)? else {
            return Err(failure(wrong_role(&request.transform)));
        };
        let (opened, instance) = open(&request).map_err(failure)?;
        INSTANCE.set(Some(Served::Transform(instance)));
        Ok(opened_out(opened))
    }

    fn process(rows: do_fn::Input) -> Result<do_fn::Outcome, do_fn::Failure> {
        let input = input_in(rows);
        INSTANCE.with_borrow(|instance| match instance {
            Some(Served::Transform(instance)) => Ok(outcome_out(instance.process(&input))),
            _ => Err(not_open()),
        })
    }

    fn close() {
        INSTANCE.set(None);
    }
}

/// Sets the panic hook too: `open` is the first call after `describe`.
pub(crate) fn open_request(request: do_fn::OpenRequest) -> wire::OpenRequest {
    std::panic::set_hook(Box::new(|panic| bindings::pelton::plugin::log::panicked(&last_words(panic))));
    wire::OpenRequest { transform: request.transform, config: request.config, schema: request.schema.into_iter().map(field_in).collect() }
}

fn not_open() -> do_fn::Failure {
    failure(wire::Failure::new("a transform was called before it was opened (a fault of the host)"))
}

fn columns_in(columns: Columns) -> wire::Columns {
    wire::Columns { rows: columns.rows, nodes: columns.nodes, buffers: columns.buffers }
}

fn columns_out(columns: wire::Columns) -> Columns {
    Columns { rows: columns.rows, nodes: columns.nodes, buffers: columns.buffers }
}

fn input_in(rows: do_fn::Input) -> wire::Input {
    let columns = columns_in(rows.columns);
    match rows.context {
        Some(context) => wire::Input { columns, event_times: context.event_times, panes: context.panes, pane_table: context.pane_table },
        None => wire::Input { columns, ..wire::Input::default() },
    }
}

/// Sends a line to the operator's log.
pub fn log(level: Level, message: &str) {
    use bindings::pelton::plugin::log;
    let level = match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message);
}

/// The panic's text with its file and line.
fn last_words(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let text = panic.payload_as_str().unwrap_or("a panic without a text");
    match panic.location() {
        Some(place) => format!("{text} (at {}:{})", place.file(), place.line()),
        None => text.to_owned(),
    }
}

fn failure(failure: wire::Failure) -> do_fn::Failure {
    do_fn::Failure { message: failure.message, detail: failure.detail }
}

fn field_in(field: Field) -> wire::Field {
    wire::Field { name: field.name, format: field.format, nullable: field.nullable, children: field.children, default: None }
}

fn field_out(field: wire::Field) -> Field {
    Field { name: field.name, format: field.format, nullable: field.nullable, children: field.children }
}

fn opened_out(opened: wire::Opened) -> do_fn::Opened {
    let output = |output: wire::OutputSchema| OutputSchema {
        tag: output.tag,
        passes: output.passes,
        adds: output.adds.into_iter().map(field_out).collect(),
    };
    let metric = |metric: &'static crate::metrics::Metric| MetricSpec {
        name: metric.name.to_owned(),
        kind: match metric.kind {
            crate::metrics::MetricKind::Counter => MetricKind::Counter,
            crate::metrics::MetricKind::Gauge => MetricKind::Gauge,
            crate::metrics::MetricKind::Distribution => MetricKind::Distribution,
        },
        unit: metric.unit.to_owned(),
    };
    do_fn::Opened {
        reads: opened.reads,
        needs: needs_out(opened.needs),
        outputs: opened.outputs.into_iter().map(output).collect(),
        metrics: opened.metrics.into_iter().map(metric).collect(),
    }
}

fn needs_out(needs: wire::Needs) -> Needs {
    let flag = |wanted: bool, flag: Needs| if wanted { flag } else { Needs::empty() };
    flag(needs.event_times, Needs::EVENT_TIMES)
        | flag(needs.windows, Needs::WINDOWS)
        | flag(needs.panes, Needs::PANES)
        | flag(needs.keys, Needs::KEYS)
}

fn outcome_out(outcome: wire::Outcome) -> do_fn::Outcome {
    do_fn::Outcome {
        outputs: outcome.outputs.into_iter().map(output_out).collect(),
        errors: errors_out(outcome.errors),
        metrics: outcome.metrics.into_iter().map(update_out).collect(),
    }
}

fn output_out(output: wire::Output) -> do_fn::Output {
    do_fn::Output { port: output.port, columns: columns_out(output.columns), origin: output.origin, event_times: output.event_times }
}

fn errors_out(errors: wire::RowErrors) -> do_fn::RowErrors {
    do_fn::RowErrors { rows: errors.rows, offsets: errors.offsets, messages: errors.messages }
}

fn update_out(update: wire::MetricUpdate) -> do_fn::MetricUpdate {
    do_fn::MetricUpdate { metric: update.metric, count: update.count, sum: update.sum, min: update.min, max: update.max }
}

fn transform_spec(spec: wire::TransformSpec) -> TransformSpec {
    TransformSpec {
        name: spec.name,
        summary: spec.summary,
        role: match spec.role {
            wire::Role::Transform => Role::Transform,
            wire::Role::StatefulTransform => Role::StatefulTransform,
            wire::Role::Combine => Role::Combine,
        },
        config_schema: spec.config_schema,
        reads: spec.reads.into_iter().map(|need| ColumnNeed { name: need.name, formats: need.formats }).collect(),
        outputs: spec.outputs,
        states: spec.states.into_iter().map(state_spec).collect(),
        timers: spec.timers.into_iter().map(|timer| TimerSpec { name: timer.name, domain: domain(timer.domain) }).collect(),
    }
}

fn state_spec(spec: wire::StateSpec) -> StateSpec {
    let defaults = spec.value.iter().enumerate();
    let defaults = defaults.filter_map(|(field, told)| Some(FieldDefault { field: field as u32, value: told.default.clone()? })).collect();
    StateSpec {
        name: spec.name,
        kind: match spec.kind {
            wire::StateKind::Value => StateKind::Value,
            wire::StateKind::List => StateKind::ListState,
            wire::StateKind::Map => StateKind::MapState,
        },
        encoding: Encoding::Plain,
        value: spec.value.into_iter().map(field_out).collect(),
        key: spec.key.into_iter().map(field_out).collect(),
        version: spec.version,
        migrates: spec.migrates.into_iter().map(migration).collect(),
        defaults,
        ttl: spec.ttl.map(|ttl| Ttl { duration_us: ttl.micros as u64, domain: domain(ttl.domain) }),
    }
}

fn migration(told: wire::Migration) -> Migration {
    let fields = |fields: Vec<wire::Field>| fields.into_iter().map(field_out).collect();
    Migration { version: told.version, value: fields(told.value), key: fields(told.key) }
}

fn domain(domain: wire::TimeDomain) -> TimeDomain {
    match domain {
        wire::TimeDomain::EventTime => TimeDomain::EventTime,
        wire::TimeDomain::ProcessingTime => TimeDomain::ProcessingTime,
    }
}
