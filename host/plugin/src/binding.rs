//! One transform of a component, opened with a config for an input schema: what crosses, and what comes back.

use crate::contract::{Opened, batch};
use crate::descriptor::Role;
use crate::error::PluginError;
use crate::granted::Effects;
use crate::guest::Guest;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::meters::Meters;
use crate::plugin::Plugin;
use crate::schema::{FlatField, can_cross, unflatten_schema};
use arrow::datatypes::{FieldRef, Fields, Schema, SchemaRef};
use pelton_core::batch::SIDE_INPUT;
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;

/// Outputs of a transform.
const MAX_OUTPUTS: usize = 64;
/// Metrics of a transform.
const MAX_METRICS: usize = 256;

/// What is fixed between a transform and its input. Cheap to keep, and cloned for each task.
#[derive(Clone)]
pub struct Binding {
    /// Name of the transform in the component.
    pub transform: String,
    /// The schema of every batch.
    pub input: SchemaRef,
    /// Top-level input columns that cross, in the order in which the guest wants them.
    pub reads: Vec<usize>,
    /// Outputs by port.
    pub outputs: Vec<OutputBinding>,
    /// Which parts of the rows' context cross.
    pub needs: Needs,
    /// Metrics by number.
    pub metrics: Vec<MetricSpec>,
    /// Bounds of each instance and call.
    pub limits: Limits,
    /// Where its instances count.
    pub meters: Arc<Meters>,
    /// Whether requests that it is granted are made.
    pub effects: Effects,
    pub(crate) role: Role,
    /// Key columns of the input, of a stateful transform.
    pub(crate) key: Vec<usize>,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) config: String,
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputBinding {
    /// Name; `""` is the main output.
    pub tag: String,
    /// Passed columns, then added ones.
    pub schema: SchemaRef,
    /// Top-level input columns that the host copies from the origin row.
    pub passes: Vec<usize>,
    /// Columns that the guest makes.
    pub adds: SchemaRef,
}

/// Which parts of the context a transform asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Event time of each row.
    pub event_times: bool,
    /// Window of each row; the caller gives batches whose windows are fixed.
    pub windows: bool,
    /// Pane of each row; as for windows.
    pub panes: bool,
    /// Key of each group, of a stateful transform.
    pub keys: bool,
}

/// A metric of the author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricSpec {
    /// Name, without the host's prefix.
    pub name: String,
    /// How updates are merged.
    pub kind: MetricKind,
    /// UCUM unit, may be empty.
    pub unit: String,
}

/// How updates of a metric are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// `sum` is added.
    Counter,
    /// `max` is the new value.
    Gauge,
    /// Count, sum, min and max of the observations.
    Distribution,
}

impl Binding {
    pub(crate) fn bind(
        plugin: &Arc<Plugin>,
        transform: &str,
        role: Role,
        key: Vec<usize>,
        config: &serde_json::Value,
        input: &SchemaRef,
        limits: &Limits,
    ) -> Result<Binding, PluginError> {
        plugin.check_own_grants()?;
        let mut binding = Binding {
            transform: transform.into(),
            input: input.clone(),
            reads: vec![],
            outputs: vec![],
            needs: Needs::default(),
            metrics: vec![],
            limits: limits.clone(),
            meters: Arc::default(),
            effects: plugin.effects(),
            role,
            key,
            plugin: plugin.clone(),
            config: config.to_string(),
        };
        let (_, opened) = Guest::open(&binding)?;
        let shape = Shape::check(opened, input).map_err(|message| binding.broken(message))?;
        if let Some(column) = shape.reads.iter().map(|column| input.field(*column)).find(|field| !can_cross(field.data_type())) {
            return Err(PluginError::Schema {
                transform: transform.into(),
                column: column.name().clone(),
                message: format!(
                    "its type {} does not cross to plugins; cast it before, for example to string, int64 or timestamp",
                    column.data_type()
                ),
            });
        }
        Shape { reads: binding.reads, needs: binding.needs, outputs: binding.outputs, metrics: binding.metrics } = shape;
        Ok(binding)
    }

    /// A new instance, opened as at `bind`.
    pub fn open(&self) -> Result<Instance, PluginError> {
        Ok(Instance::new(Arc::new(self.clone()), self.open_guest()?))
    }

    /// The component.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// What it was opened with.
    pub fn config(&self) -> serde_json::Value {
        serde_json::from_str(&self.config).unwrap_or_default()
    }

    /// Names of the key's columns, of a stateful transform.
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().map(|column| self.input.field(*column).name().clone()).collect()
    }

    /// Names of the columns that cross.
    pub fn reads_names(&self) -> Vec<String> {
        self.reads.iter().map(|column| self.input.field(*column).name().clone()).collect()
    }

    pub(crate) fn open_guest(&self) -> Result<Guest, PluginError> {
        let (guest, opened) = Guest::open(self)?;
        let shape = Shape::check(opened, &self.input).map_err(|message| self.broken(message))?;
        let same = shape.reads == self.reads && shape.needs == self.needs && shape.outputs == self.outputs && shape.metrics == self.metrics;
        if same { Ok(guest) } else { Err(self.broken("`open` gave another answer for the same config and schema".into())) }
    }

    pub(crate) fn broken(&self, message: String) -> PluginError {
        PluginError::Contract { plugin: self.plugin.digest().into(), transform: self.transform.clone(), message }
    }
}

/// The checked answer of `open`.
struct Shape {
    reads: Vec<usize>,
    needs: Needs,
    outputs: Vec<OutputBinding>,
    metrics: Vec<MetricSpec>,
}

impl Shape {
    fn check(opened: Opened, input: &Schema) -> Result<Shape, String> {
        let reads = columns(&opened.reads, input).map_err(|why| format!("`reads` {why}"))?;
        if opened.outputs.is_empty() || opened.outputs.len() > MAX_OUTPUTS {
            return Err(format!("it has {} outputs; 1 to {MAX_OUTPUTS} are allowed", opened.outputs.len()));
        }
        if opened.metrics.len() > MAX_METRICS {
            return Err(format!("it has {} metrics; {MAX_METRICS} are allowed", opened.metrics.len()));
        }
        let outputs = opened.outputs.into_iter().map(|told| output(told, input)).collect::<Result<Vec<_>, _>>()?;
        let mut tags = HashSet::new();
        if let Some(twice) = outputs.iter().find(|output| !tags.insert(&output.tag)) {
            return Err(format!("two outputs have the tag `{}`", twice.tag));
        }
        let needs = Needs {
            event_times: opened.needs.contains(batch::Needs::EVENT_TIMES),
            windows: opened.needs.contains(batch::Needs::WINDOWS),
            panes: opened.needs.contains(batch::Needs::PANES),
            keys: opened.needs.contains(batch::Needs::KEYS),
        };
        Ok(Shape { reads, needs, outputs, metrics: opened.metrics.into_iter().map(metric).collect() })
    }
}

fn output(told: batch::OutputSchema, input: &Schema) -> Result<OutputBinding, String> {
    let about = |why: String| format!("output `{}`: {why}", told.tag);
    let mut passes = columns(&told.passes, input).map_err(|why| about(format!("`passes` {why}")))?;
    passes.retain(|column| !input.field(*column).metadata().contains_key(SIDE_INPUT));
    let adds = unflatten_schema(&told.adds.into_iter().map(FlatField::from).collect::<Vec<_>>()).map_err(about)?;
    let fields: Vec<FieldRef> = passes.iter().map(|column| input.fields()[*column].clone()).chain(adds.iter().cloned()).collect();
    let mut names = HashSet::new();
    if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
        return Err(about(format!("two columns have the name `{}`", twice.name())));
    }
    let schema_of = |fields: Fields| Arc::new(Schema::new(fields));
    Ok(OutputBinding { schema: schema_of(fields.into()), adds: schema_of(adds), passes, tag: told.tag })
}

/// Numbers of top-level columns, each in range and at most once.
fn columns(numbers: &[u32], input: &Schema) -> Result<Vec<usize>, String> {
    let mut seen = HashSet::new();
    numbers
        .iter()
        .map(|number| match *number as usize {
            column if column >= input.fields().len() => Err(format!("names column {column} of {}", input.fields().len())),
            column if !seen.insert(column) => Err(format!("names column {column} twice")),
            column => Ok(column),
        })
        .collect()
}

fn metric(told: batch::MetricSpec) -> MetricSpec {
    let kind = match told.kind {
        batch::MetricKind::Counter => MetricKind::Counter,
        batch::MetricKind::Gauge => MetricKind::Gauge,
        batch::MetricKind::Distribution => MetricKind::Distribution,
    };
    MetricSpec { name: told.name, kind, unit: told.unit }
}
