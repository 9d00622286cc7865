//! One transform of a plugin alone: fed by hand, told the time, and what it gives is handed back. Authors test and measure plugins with it, and
//! recordings of a running pipeline are run again in it ([`crate::recording`]).
//!
//! Invariant: it runs the operator that a pipeline runs, and nothing else; the same steps give the same rows.

use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Out, Port, Refusals};
use crate::operators::late::late_schema;
use crate::operators::plugin;
use crate::operators::stateful::{Stateful, StatefulPlan};
use arrow::datatypes::{Field, Schema, SchemaRef};
use pelton_core::evolution::{Book, Problem};
use pelton_core::key::KeyEncoder;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, WindowFn};
use pelton_expr::{Expression, Language};
use pelton_plugin::{Instance, Limits, Plugin, PluginError, Role};
use pelton_state::Rows;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Refused rows go here.
pub const ERRORS: &str = "errors";
/// Rows of a stateful transform whose window has closed go here.
pub const LATE: &str = "late";

/// What a run is called where effects are refused.
const RUN: &str = "a test or a replay";

/// What is tried.
pub struct Setup {
    /// The component.
    pub plugin: Arc<Plugin>,
    /// Name of the transform in it.
    pub transform: String,
    /// Its config, an object.
    pub config: Value,
    /// Columns of its input.
    pub input: SchemaRef,
    /// Key columns of a stateful transform.
    pub key: Vec<String>,
    /// Windows of the input.
    pub window_fn: WindowFn,
    /// How long after its end a window takes rows.
    pub allowed_lateness: Duration,
    /// Bounds of its calls.
    pub limits: Limits,
    /// Of a stateful transform: what it begins with.
    pub restored: Option<Restored>,
}

/// State of a stateful transform, of one task.
#[derive(Debug, Default)]
pub struct Restored {
    /// What it is made of.
    pub book: Option<Book>,
    /// Layouts of its cells by name.
    pub layouts: BTreeMap<String, String>,
    /// Its cells by name.
    pub rows: Vec<(String, Rows)>,
    /// What else it keeps.
    pub unkeyed: Vec<(String, Vec<u8>)>,
}

/// What comes to a transform.
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows.
    Rows(Batch),
    /// Event time has come to here.
    Watermark(Watermark),
    /// Nothing but the time.
    Tick,
    /// The input has ended; open windows close and timers fire.
    End,
}

/// A transform on the bench.
pub struct Lab {
    executor: tokio::runtime::Runtime,
    tried: Tried,
    outputs: Vec<String>,
}

enum Tried {
    Stateless(Box<plugin::Plugin>),
    Stateful(Box<Stateful>),
}

impl Tried {
    fn operator(&mut self) -> &mut dyn Operator {
        match self {
            Tried::Stateless(operator) => &mut **operator,
            Tried::Stateful(operator) => &mut **operator,
        }
    }
}

impl Lab {
    /// Opens the transform, with no state. An error is a sentence.
    pub fn new(setup: Setup) -> Result<Lab, String> {
        let executor = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| error.to_string())?;
        let spec = setup.plugin.descriptor().transforms.iter().find(|spec| spec.name == setup.transform);
        let (tried, outputs) = match spec.map(|spec| spec.role) {
            Some(Role::StatefulTransform) => stateful(setup)?,
            _ => stateless(setup)?,
        };
        Ok(Lab { executor, tried, outputs })
    }

    /// Names of its outputs: the plugin's (`""` is the main one), then [`ERRORS`], and [`LATE`] of a stateful one.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Does a step at a processing time; gives rows by number of the output, in the order in which they came.
    pub fn feed(&mut self, step: Step, now: Instant) -> Result<Vec<(Port, Batch)>, Failure> {
        let mut out = Out::new(now);
        let operator = self.tried.operator();
        self.executor.block_on(async {
            match step {
                Step::Rows(batch) => operator.data(0, batch, &mut out).await,
                Step::Watermark(watermark) => operator.watermark(watermark, &mut out).await,
                Step::Tick => operator.tick(&mut out).await,
                Step::End => {
                    operator.watermark(Watermark::Active(Instant::MAX), &mut out).await?;
                    operator.end(End::Drained, &mut out).await
                }
            }
        })?;
        Ok(rows_of(out.messages))
    }

    /// Bytes of memory that its sandbox has.
    pub fn memory_bytes(&self) -> usize {
        match &self.tried {
            Tried::Stateless(operator) => operator.instance.as_ref().map_or(0, Instance::memory_bytes),
            Tried::Stateful(operator) => operator.guest_bytes(),
        }
    }
}

/// The rows among messages.
pub(crate) fn rows_of(messages: Vec<(Option<Port>, Message)>) -> Vec<(Port, Batch)> {
    let rows = messages.into_iter().filter_map(|(port, message)| match message {
        Message::Data(batch) => Some((port?, batch)),
        _ => None,
    });
    rows.collect()
}

fn stateless(setup: Setup) -> Result<(Tried, Vec<String>), String> {
    let Setup { plugin, transform, config, input, window_fn, limits, .. } = setup;
    let failed = |error: PluginError| error.to_string();
    let plugin = plugin.harmless(RUN);
    let binding = plugin.bind(&transform, &config, &input, &limits).map_err(failed)?;
    let instance = binding.open().map_err(failed)?;
    let mut outputs: Vec<String> = binding.outputs.iter().map(|output| output.tag.clone()).collect();
    let ports = (0..outputs.len()).collect();
    outputs.push(ERRORS.into());
    let refusals = Refusals { transform: transform.clone(), plugin: Some(plugin.digest().into()), port: Some(outputs.len() - 1) };
    let metrics = Arc::new(NodeMetrics::new(transform, String::new(), outputs.clone()));
    let counted = Default::default();
    let operator = plugin::Plugin { binding: Box::new(binding), instance: Some(instance), ports, window_fn, metrics, counted, refusals };
    Ok((Tried::Stateless(Box::new(operator)), outputs))
}

fn stateful(setup: Setup) -> Result<(Tried, Vec<String>), String> {
    let Setup { plugin, transform, config, input, key, window_fn, allowed_lateness, limits, restored } = setup;
    let mut columns = Vec::new();
    let mut keys = Vec::new();
    for name in &key {
        columns.push(input.index_of(name).map_err(|_| format!("`key` names `{name}`, which is no column of the input"))?);
        let compiled = Expression::compile(Language::Generic, name, &input).map_err(|error| format!("key: {}", error.message))?;
        KeyEncoder::new(&[compiled.data_type().clone()]).map_err(|message| format!("key: {message}"))?;
        keys.push(compiled);
    }
    if key.is_empty() {
        return Err(format!("`{transform}` is stateful: name the columns of its `key`"));
    }
    let plugin = plugin.harmless(RUN);
    let bound = plugin.bind_stateful(&transform, &config, &input, &columns, &limits);
    let binding = bound.map_err(|error| error.to_string())?;
    let mut outputs: Vec<String> = binding.base.outputs.iter().map(|output| output.tag.clone()).collect();
    let ports = (0..outputs.len()).collect();
    outputs.extend([ERRORS.into(), LATE.into()]);
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let plan = StatefulPlan {
        key_types: keys.iter().map(|key| key.data_type().clone()).collect(),
        key: keys,
        ports,
        element: Arc::new(Schema::new(input.fields().iter().map(nullable).collect::<Vec<_>>())),
        late_schema: late_schema(&input),
        late_port: outputs.len() - 1,
        window_fn,
        allowed_lateness,
        state_limit: STATE_LIMIT,
        binding,
    };
    let refusals = Refusals { transform: transform.clone(), plugin: Some(plugin.digest().into()), port: Some(outputs.len() - 2) };
    let metrics = Arc::new(NodeMetrics::new(transform.clone(), String::new(), outputs.clone()));
    let restored = restored.unwrap_or_default();
    let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ");
    let evolved = restored.book.as_ref().map(|book| book.evolve(&plan.binding.declared(), &|_| false));
    let evolved = evolved.transpose().map_err(|problems| format!("it cannot go on with the recorded state: {}", told(problems)))?;
    let mut operator = Stateful::new(plan, evolved.map(Arc::new), metrics, refusals).map_err(|failure| failure.to_string())?;
    fill(&mut operator, &restored)?;
    Ok((Tried::Stateful(Box::new(operator)), outputs))
}

/// Gives an operator what it begins with.
fn fill(operator: &mut Stateful, restored: &Restored) -> Result<(), String> {
    let mut filled = Ok(());
    operator.visit_cells(&mut |name, cells| {
        let check = restored.layouts.get(name).map_or(Ok(()), |layout| cells.check_layout(layout));
        let mut all = || restored.rows.iter().filter(|(of, _)| of == name).try_for_each(|(_, rows)| cells.restore(rows.iter()));
        if filled.is_ok() {
            filled = check.and_then(|()| all());
        }
    });
    filled.map_err(|error| format!("the recorded state does not fit: {error}"))?;
    operator.restore(&restored.unkeyed).map_err(|failure| failure.to_string())
}

/// Bytes of state on the bench: as much as a pipeline's task may have without more being said.
const STATE_LIMIT: usize = 1 << 30;
