//! Binding: opens sources and plugins, and gives every output its schema and every node what it needs to become an operator.
//!
//! Done twice. The first pass finds all schemas; then sources are told which columns anybody needs, and the second pass
//! binds against what is left. Nothing runs yet: what fails here is the user's to mend.

mod column_use;
mod combine;
mod join;
mod lookup;
mod plugin;
pub mod rebind;
mod rows;
mod side_inputs;
mod time;

use crate::expand::{Expanded, expand};
use crate::failure::Failure;
use crate::operator::{Port, Refusals};
use crate::operators::combine::CombinePlan;
use crate::operators::join::JoinPlan;
use crate::operators::lookup_join::LookupPlan;
use crate::operators::map::Column;
use crate::operators::sided::SidedPlan;
use crate::operators::stateful::StatefulPlan;
use crate::operators::timed_join::TimedJoinPlan;
use crate::operators::{flatten, match_all, strip};
use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use pelton_connect::{Source, SourceContext, open_source};
use pelton_core::evolution::Declared;
use pelton_core::fault::{element_type, error_schema};
use pelton_core::watermark::Policy;
use pelton_core::{WindowFn, WindowingStrategy};
use pelton_expr::{Expression, Language};
use pelton_pipeline::columns::{ColumnUse, Needed, needed};
use pelton_pipeline::graph::{self, EmptyMatch, Graph, LATE, LogLevel, Node, TimeUnit, Transform, WindowingInfo};
use pelton_pipeline::json_schema::JsonSchema;
use pelton_plugin::{Binding, Meters, Plugin};
use rebind::Sources;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A graph with its schemas.
pub struct Bound {
    /// What runs: the binder's graph, expanded.
    pub graph: Graph,
    /// In the order of the graph's nodes.
    pub nodes: Vec<BoundNode>,
    /// Open sources by node.
    pub sources: HashMap<usize, Box<dyn Source>>,
    /// What they have, to bind again.
    pub known: Sources,
}

/// One node, ready to become an operator in each of its tasks.
#[derive(Clone)]
pub struct BoundNode {
    /// Names of its outputs by port; the main one is `""`.
    pub ports: Vec<String>,
    /// Schemas by port.
    pub schemas: Vec<SchemaRef>,
    /// What becomes of rows that it refuses.
    pub refusals: Refusals,
    /// What it does.
    pub plan: OperatorPlan,
    /// Windows of its input.
    pub window_fn: WindowFn,
    /// Its side inputs, if it has any.
    pub sides: Option<Arc<SidedPlan>>,
}

impl BoundNode {
    /// Columns of an output.
    pub fn schema_of(&self, output: &str) -> SchemaRef {
        let port = self.ports.iter().position(|port| port == output).expect("the graph names outputs that exist");
        self.schemas[port].clone()
    }

    /// The same, its plugins counting here.
    pub fn counting_in(mut self, meters: &Arc<Meters>) -> BoundNode {
        self.bindings_mut().for_each(|binding| binding.meters = meters.clone());
        self
    }

    /// Its plugin, or those of its aggregates.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        let (one, several) = match &self.plan {
            OperatorPlan::Plugin { binding, .. } => (Some(&**binding), None),
            OperatorPlan::Stateful(plan) => (Some(&plan.binding.base), None),
            OperatorPlan::Combine(plan) => (None, Some(&plan.plugins)),
            _ => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten().flatten().map(|binding| &binding.base))
    }

    /// The same, to be changed.
    pub fn bindings_mut(&mut self) -> impl Iterator<Item = &mut Binding> {
        let (one, several) = match &mut self.plan {
            OperatorPlan::Plugin { binding, .. } => (Some(&mut **binding), None),
            OperatorPlan::Stateful(plan) => (Some(&mut plan.binding.base), None),
            OperatorPlan::Combine(plan) => (None, Some(&mut plan.plugins)),
            _ => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten().flatten().map(|binding| &mut binding.base))
    }

    /// What plugins keep in its state.
    pub fn declared(&self) -> Option<Declared> {
        match &self.plan {
            OperatorPlan::Stateful(plan) => Some(plan.binding.declared()),
            OperatorPlan::Combine(plan) if plan.has_plugins() => Some(plan.declared()),
            _ => None,
        }
    }
}

/// What a node does, with schemas known.
#[derive(Clone)]
pub enum OperatorPlan {
    /// Reads.
    Source { bounded: bool },
    /// Writes.
    Sink { kind: String, config: serde_json::Value },
    /// Calls a guest; `ports[i]` is the port of its output i.
    Plugin { binding: Box<Binding>, ports: Vec<Port> },
    /// Calls a guest that keeps state.
    Stateful(Box<StatefulPlan>),
    /// Sets event times.
    AssignTimestamps { timestamp: Expression, unit: TimeUnit, zone: Option<Tz> },
    /// Makes watermarks.
    SetWatermark { policy: Policy, marker: Option<Expression>, ingestion: bool, align: Option<graph::Alignment> },
    /// Changes the window function.
    WindowInto,
    /// Adds columns.
    ExtractWindowingInfo { passed: Vec<String>, fields: Vec<WindowingInfo> },
    /// Computes columns.
    Map { columns: Vec<Column> },
    /// Keeps rows.
    Filter { keep: Expression },
    /// Sends rows to outputs.
    Partition { by: Expression, outputs: Vec<(String, Port)>, unknown: Option<Port> },
    /// Groups.
    Combine(Box<CombinePlan>),
    /// Rows of two inputs side by side.
    Join(Box<JoinPlan>),
    /// The same, where event times are near each other.
    TimedJoin(Box<TimedJoinPlan>),
    /// Rows beside rows of a table.
    Lookup(Box<LookupPlan>),
    /// All rows of all inputs.
    Flatten,
    /// Logs.
    Log { level: LogLevel, prefix: String },
    /// Undoes an error output.
    Strip { column: String },
    /// Makes rows of lists.
    Explode { fields: Vec<String>, cross_product: bool },
    /// Heads a stage that rows are spread over.
    Reshuffle { buckets: Option<usize> },
    /// Checks rows.
    Validate { schema: Arc<JsonSchema> },
    /// Finds files.
    MatchAll { column: String, empty: EmptyMatch },
}

/// What binding knows of an open source: the columns that its batches have, which are fewer once others are pruned.
#[derive(Clone)]
pub(crate) struct OpenSource {
    schema: SchemaRef,
    bounded: bool,
    element: DataType,
}

/// What binding needs besides the graph.
pub struct Binder<'a> {
    /// The checked pipeline, or as much of it as has been expanded.
    pub graph: &'a Graph,
    /// The checked pipeline before it was expanded.
    pub written: &'a Graph,
    /// The pipeline file, for messages.
    pub file: String,
    /// Loaded plugins, by provider.
    pub plugins: &'a [Arc<Plugin>],
    /// Tasks side by side.
    pub parallelism: usize,
    /// Bytes of state for each task of a grouping.
    pub state_limit: usize,
}

impl Binder<'_> {
    /// Opens everything and binds every node.
    pub async fn bind(&self, context: impl Fn(&Node) -> SourceContext) -> Result<Bound, Failure> {
        let mut sources: HashMap<usize, Box<dyn Source>> = HashMap::new();
        for node in &self.graph.nodes {
            if let Transform::Source { kind, config } = &node.transform {
                let source = open_source(kind, config, context(node)).await;
                sources.insert(node.id, source.map_err(|error| Failure::Connect { transform: node.name.clone(), error })?);
            }
        }
        let mut known: HashMap<usize, OpenSource> = HashMap::new();
        for (node, source) in &sources {
            let open = OpenSource { schema: source.schema(), bounded: source.bounded(), element: source.error_element() };
            known.insert(*node, open);
        }
        for node in &self.graph.nodes {
            if let Transform::LookupJoin(lookup) = &node.transform {
                known.insert(node.id, self.open_table(node, &lookup.table, context(node)).await?);
            }
        }
        let all = known.clone();
        let Expanded { graph, moved } = expand(self, &known)?;
        let mut known: HashMap<usize, OpenSource> = known.into_iter().map(|(node, source)| (moved[node], source)).collect();
        let mut sources: HashMap<usize, Box<dyn Source>> = sources.into_iter().map(|(node, source)| (moved[node], source)).collect();
        let binder = self.over(&graph);
        let first = binder.pass(&known)?;
        let uses: Vec<ColumnUse> = graph.nodes.iter().map(|node| binder.column_use(node, &first)).collect();
        let sides: Vec<Vec<Needed>> = first.iter().map(column_use::of_sides).collect();
        for (node, wanted) in needed(&graph, &uses, &sides).into_iter().enumerate() {
            if let (Some(source), Some(known), Some(wanted)) = (sources.get_mut(&node), known.get_mut(&node), wanted) {
                let kept = known.schema.fields().iter().filter(|field| wanted.contains(field.name())).cloned();
                known.schema = Arc::new(Schema::new(kept.collect::<Vec<_>>()));
                source.project(&wanted.into_iter().collect::<Vec<_>>());
            }
        }
        let nodes = binder.pass(&known)?;
        Ok(Bound { graph, nodes, sources, known: Sources { all, read: known } })
    }

    /// The same for another graph.
    pub(crate) fn over<'g>(&'g self, graph: &'g Graph) -> Binder<'g> {
        Binder {
            graph,
            written: self.written,
            file: self.file.clone(),
            plugins: self.plugins,
            parallelism: self.parallelism,
            state_limit: self.state_limit,
        }
    }

    fn pass(&self, sources: &HashMap<usize, OpenSource>) -> Result<Vec<BoundNode>, Failure> {
        let mut bound: Vec<BoundNode> = Vec::with_capacity(self.graph.nodes.len());
        for node in &self.graph.nodes {
            let made = self.node(node, &bound, sources)?;
            bound.push(made);
        }
        Ok(bound)
    }

    pub(crate) fn wrong(&self, node: &Node, place: graph::Place, message: impl Into<String>, help: Option<String>) -> Failure {
        Failure::Bind {
            transform: node.name.clone(),
            file: self
                .graph
                .files
                .get(place.file)
                .filter(|_| place.file > 0)
                .map_or_else(|| self.file.clone(), |file| file.display().to_string()),
            line: place.line,
            column: place.column,
            message: message.into(),
            help,
        }
    }

    fn compile(&self, node: &Node, expression: &graph::Expression, input: &SchemaRef) -> Result<Expression, Failure> {
        let language = match expression.language {
            graph::Language::Generic => Language::Generic,
            graph::Language::Sql => Language::Sql,
        };
        let lowered = match language == Language::Sql && !node.sides.is_empty() {
            true => pelton_expr::lower_lookups(&expression.text).map(|lowered| lowered.text),
            false => Ok(expression.text.clone()),
        };
        lowered
            .and_then(|text| Expression::compile(language, &text, input))
            .map_err(|error| self.wrong(node, expression.place, format!("in `{}`: {}", expression.text, error.message), error.help))
    }

    /// One node, when those that it reads are bound.
    pub(crate) fn node(&self, node: &Node, bound: &[BoundNode], sources: &HashMap<usize, OpenSource>) -> Result<BoundNode, Failure> {
        let mut site = self.site(node, bound);
        let mut sides = self.side_inputs(&site, None)?;
        if let Some(sides) = &sides {
            site.beside = sides.schema.clone();
        }
        let input = site.input.clone();
        let failed = |message: String| self.wrong(node, node.place, message, None);
        let made = match &node.transform {
            Transform::Source { .. } => {
                let source = &sources[&node.id];
                let plan = OperatorPlan::Source { bounded: source.bounded };
                Made { element: source.element.clone(), ..site.made(plan, source.schema.clone()) }
            }
            Transform::Sink { kind, config } => {
                site.made(OperatorPlan::Sink { kind: kind.clone(), config: config.clone() }, Arc::new(Schema::empty()))
            }
            Transform::Plugin { provider, transform, config, key } => {
                let made = self.plugin(&site, *provider, transform, config, key)?;
                match sides.take() {
                    None => made,
                    Some(_) => {
                        // Only what the plugin reads is kept and looked up.
                        sides = self.side_inputs(&site, Some(&made.reads()))?;
                        site.beside = sides.as_ref().map_or(input, |sides| sides.schema.clone());
                        self.plugin(&site, *provider, transform, config, key)?
                    }
                }
            }
            Transform::AssignTimestamps { timestamp, unit, time_zone } => {
                self.assign_timestamps(&site, timestamp, *unit, time_zone.as_ref())?
            }
            Transform::SetWatermark { rule, marker, ingestion, idle_timeout, align } => {
                self.set_watermark(&site, *rule, marker.as_ref(), *ingestion, *idle_timeout, align.clone())?
            }
            Transform::WindowInto { .. } => site.made(OperatorPlan::WindowInto, input),
            Transform::ExtractWindowingInfo { fields } => self.extract_windowing_info(&site, fields)?,
            Transform::MapToFields { fields, append, drop } => self.map(&site, fields, *append, drop)?,
            Transform::Filter { keep } => self.filter(&site, keep)?,
            Transform::Partition { by, outputs, unknown_output } => self.partition(&site, by, outputs, unknown_output.as_ref())?,
            Transform::Combine { group_by, combine, .. } => self.combine(&site, group_by, combine, &[])?,
            Transform::RollUp { group_by, combine, levels } => self.combine(&site, group_by, combine, levels)?,
            Transform::Join(join) => self.join(&site, join)?,
            Transform::Sql { .. } => unreachable!("queries are expanded before they are bound"),
            Transform::TimedJoin(join) => self.timed_join(&site, join)?,
            Transform::LookupJoin(lookup) => self.lookup_join(&site, lookup, &sources[&node.id].schema)?,
            Transform::Flatten => site.made(OperatorPlan::Flatten, flatten::union(&site.inputs).map_err(failed)?),
            Transform::LogForTesting { level, prefix } => {
                site.made(OperatorPlan::Log { level: *level, prefix: prefix.clone().unwrap_or_default() }, input)
            }
            Transform::StripErrorMetadata => {
                let (schema, column) = strip::output(&input).map_err(failed)?;
                site.made(OperatorPlan::Strip { column }, schema)
            }
            Transform::Explode { fields, cross_product } => self.explode(&site, fields, *cross_product)?,
            Transform::Reshuffle { buckets } => site.made(OperatorPlan::Reshuffle { buckets: *buckets }, input),
            Transform::Validate { schema } => match schema.fault_of_columns(&input) {
                Some(fault) => return Err(failed(fault)),
                None => site.made(OperatorPlan::Validate { schema: Arc::new(schema.as_ref().clone()) }, input),
            },
            Transform::MatchAll { file_pattern, empty } => {
                let column = match_all::pattern_column(&input, file_pattern.as_deref()).map_err(failed)?;
                site.made(OperatorPlan::MatchAll { column, empty: *empty }, match_all::schema())
            }
        };
        Ok(site.finish(made, sides))
    }

    /// What is known of a node before its transform is looked at.
    fn site<'n>(&self, node: &'n Node, bound: &[BoundNode]) -> Site<'n> {
        let inputs: Vec<SchemaRef> = node.inputs.iter().map(|input| bound[input.node].schema_of(&input.output)).collect();
        let strategy = node.inputs.first().and_then(|input| self.graph.nodes[input.node].windowing_of(&input.output));
        let input = inputs.first().cloned().unwrap_or_else(|| Arc::new(Schema::empty()));
        Site {
            node,
            beside: input.clone(),
            input,
            inputs,
            strategy: strategy.unwrap_or_else(WindowingStrategy::global),
            ports: std::iter::once(String::new()).chain(node.outputs.iter().cloned()).collect(),
        }
    }
}

/// A node and what it reads: what every transform is bound from.
struct Site<'n> {
    node: &'n Node,
    /// Schemas of all inputs.
    inputs: Vec<SchemaRef>,
    /// The first of them; without columns for a source.
    input: SchemaRef,
    /// The same, and what is looked up in side inputs beside it.
    beside: SchemaRef,
    /// Windowing of the first input.
    strategy: WindowingStrategy,
    /// The main output and the declared ones.
    ports: Vec<String>,
}

/// A transform, bound: what [`Site::finish`] makes a node of.
struct Made {
    plan: OperatorPlan,
    ports: Vec<String>,
    /// One a port.
    schemas: Vec<SchemaRef>,
    /// What stands as `element` in its error output.
    element: DataType,
    /// Digest of the plugin, if it is one.
    plugin: Option<String>,
}

impl Made {
    /// Names of the columns that a plugin reads.
    fn reads(&self) -> BTreeSet<String> {
        match &self.plan {
            OperatorPlan::Plugin { binding, .. } => binding.reads_names().into_iter().collect(),
            OperatorPlan::Stateful(plan) => plan.binding.base.reads_names().into_iter().collect(),
            _ => BTreeSet::new(),
        }
    }
}

impl Site<'_> {
    /// A transform that is no plugin, with one schema for all its outputs.
    fn made(&self, plan: OperatorPlan, schema: SchemaRef) -> Made {
        let (ports, schemas) = (self.ports.clone(), vec![schema; self.ports.len()]);
        Made { plan, ports, schemas, element: element_type(&self.input), plugin: None }
    }

    /// A transform whose outputs differ.
    fn made_with(&self, plan: OperatorPlan, schemas: Vec<SchemaRef>) -> Made {
        Made { plan, ports: self.ports.clone(), schemas, element: element_type(&self.input), plugin: None }
    }

    fn port(&self, name: &str) -> Option<Port> {
        self.ports.iter().position(|port| port == name)
    }

    /// Adds what transforms have in common: the error output and the one for late rows.
    fn finish(self, made: Made, mut sides: Option<SidedPlan>) -> BoundNode {
        let Made { mut plan, mut ports, mut schemas, element, plugin } = made;
        let error_port = self.node.error_output.as_ref().map(|name| match ports.iter().position(|port| port == name) {
            Some(port) => {
                schemas[port] = error_schema(element.clone());
                port
            }
            None => {
                ports.push(name.clone());
                schemas.push(error_schema(element.clone()));
                ports.len() - 1
            }
        });
        if let OperatorPlan::Combine(combine) = &mut plan {
            ports.push(LATE.into());
            schemas.push(combine.late_schema.clone());
            combine.late_port = ports.len() - 1;
        }
        if let OperatorPlan::Stateful(stateful) = &mut plan {
            ports.push(LATE.into());
            schemas.push(stateful.late_schema.clone());
            stateful.late_port = ports.len() - 1;
        }
        if let OperatorPlan::Join(join) = &mut plan {
            ports.push(LATE.into());
            schemas.push(join.late_schema.clone().unwrap_or_else(|| Arc::new(Schema::empty())));
            join.late_port = ports.len() - 1;
        }
        if let OperatorPlan::TimedJoin(join) = &mut plan {
            ports.push(LATE.into());
            schemas.push(join.late_schema.clone().unwrap_or_else(|| Arc::new(Schema::empty())));
            join.late_port = ports.len() - 1;
        }
        if let Some(sides) = &mut sides {
            if let OperatorPlan::Stateful(stateful) = &plan {
                (sides.key, sides.key_types) = (stateful.key.clone(), stateful.key_types.clone());
            }
            // A transform that has late rows itself has the same columns there.
            sides.late_port = ports.iter().position(|port| port == LATE).unwrap_or_else(|| {
                ports.push(LATE.into());
                schemas.push(sides.late_schema.clone());
                ports.len() - 1
            });
        }
        let refusals = Refusals { transform: self.node.name.clone(), plugin, port: error_port };
        BoundNode { ports, schemas, refusals, plan, window_fn: self.strategy.window_fn, sides: sides.map(Arc::new) }
    }
}
