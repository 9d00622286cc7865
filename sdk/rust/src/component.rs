//! The generated bindings of `wit/`, and the exports of every component.
//!
//! Buffers are moved between the generated records and those of [`crate::wire`], never copied.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::log::Level;
use crate::transform::{Instance, Plugin};
use crate::wire;

pub mod bindings {
    wit_bindgen::generate!({
        world: "transform",
        path: "wit",
        pub_export_macro: true,
        export_macro_name: "export_transform",
    });
}

pub use bindings::export_transform;

use bindings::exports::pelton::plugin::do_fn;
use bindings::exports::pelton::plugin::plugin;
use bindings::pelton::plugin::batch::{MetricKind, MetricSpec, Needs, OutputSchema};
use bindings::pelton::plugin::data::{Columns, Field};
use bindings::pelton::plugin::spec::{ColumnNeed, Role, TransformSpec};

thread_local! {
    /// The transform that this instance serves, once it is open.
    static INSTANCE: RefCell<Option<Box<dyn Instance>>> = const { RefCell::new(None) };
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
        std::panic::set_hook(Box::new(|panic| bindings::pelton::plugin::log::panicked(&last_words(panic))));
        let schema = request.schema.into_iter().map(field_in).collect();
        let request = wire::OpenRequest { transform: request.transform, config: request.config, schema };
        let (opened, instance) = P::open(&request).map_err(failure)?;
        INSTANCE.set(Some(instance));
        Ok(opened_out(opened))
    }

    fn process(rows: do_fn::Input) -> Result<do_fn::Outcome, do_fn::Failure> {
        let columns = wire::Columns { rows: rows.columns.rows, nodes: rows.columns.nodes, buffers: rows.columns.buffers };
        let event_times = rows.context.map(|context| context.event_times).unwrap_or_default();
        let input = wire::Input { columns, event_times };
        INSTANCE.with_borrow(|instance| match instance {
            Some(instance) => Ok(outcome_out(instance.process(&input))),
            None => Err(failure(wire::Failure::new("process was called before open"))),
        })
    }

    fn close() {
        INSTANCE.set(None);
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
    wire::Field { name: field.name, format: field.format, nullable: field.nullable, children: field.children }
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
        needs: if opened.needs_event_times { Needs::EVENT_TIMES } else { Needs::empty() },
        outputs: opened.outputs.into_iter().map(output).collect(),
        metrics: opened.metrics.into_iter().map(metric).collect(),
    }
}

fn outcome_out(outcome: wire::Outcome) -> do_fn::Outcome {
    let output = |output: wire::Output| do_fn::Output {
        port: output.port,
        columns: Columns { rows: output.columns.rows, nodes: output.columns.nodes, buffers: output.columns.buffers },
        origin: output.origin,
        event_times: output.event_times,
    };
    let update = |update: wire::MetricUpdate| do_fn::MetricUpdate {
        metric: update.metric,
        count: update.count,
        sum: update.sum,
        min: update.min,
        max: update.max,
    };
    do_fn::Outcome {
        outputs: outcome.outputs.into_iter().map(output).collect(),
        errors: do_fn::RowErrors { rows: outcome.errors.rows, offsets: outcome.errors.offsets, messages: outcome.errors.messages },
        metrics: outcome.metrics.into_iter().map(update).collect(),
    }
}

fn transform_spec(spec: wire::TransformSpec) -> TransformSpec {
    TransformSpec {
        name: spec.name,
        summary: spec.summary,
        role: Role::Transform,
        config_schema: spec.config_schema,
        reads: spec.reads.into_iter().map(|need| ColumnNeed { name: need.name, formats: need.formats }).collect(),
        outputs: spec.outputs,
        states: vec![],
        timers: vec![],
    }
}
