//! Binding: opens sources and plugins, and gives every output its schema and every node what it needs to become an operator.
//!
//! Done twice. The first pass finds all schemas; then sources are told which columns anybody needs, and the second pass
//! binds against what is left. Nothing runs yet: what fails here is the user's to mend.

use crate::failure::Failure;
use crate::operator::{MAIN, Port, Refusals};
use crate::operators::combine::{CombinePlan, late_schema};
use crate::operators::map::Column;
use crate::operators::{aggregate, flatten, strip, timestamps, windowing_info};
use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pelton_connect::{Source, SourceContext, open_source};
use pelton_core::fault::{element_type, error_schema};
use pelton_core::{Duration, WindowFn};
use pelton_expr::{Expression, Language};
use pelton_pipeline::columns::{ColumnUse, Passes, needed};
use pelton_pipeline::graph::{self, Graph, LATE, LogLevel, Node, TimeUnit, Transform, WindowingInfo};
use pelton_plugin::{Binding, Limits, Plugin};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A graph with its schemas.
pub struct Bound {
    /// In the order of the graph's nodes.
    pub nodes: Vec<BoundNode>,
    /// Open sources by node.
    pub sources: HashMap<usize, Box<dyn Source>>,
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
}

/// What a node does, with schemas known.
#[derive(Clone)]
pub enum OperatorPlan {
    /// Reads.
    Source { bounded: bool },
    /// Writes.
    Sink { kind: String, config: serde_json::Value },
    /// Calls a guest; `ports[i]` is the port of its output i.
    Plugin { binding: Binding, ports: Vec<Port> },
    /// Sets event times.
    AssignTimestamps { timestamp: Expression, unit: TimeUnit, zone: Option<Tz> },
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
    /// Joins inputs.
    Flatten,
    /// Logs.
    Log { level: LogLevel, prefix: String },
    /// Undoes an error output.
    Strip { column: String },
}

/// What binding knows of an open source: the columns that its batches have, which are fewer once others are pruned.
struct OpenSource {
    schema: SchemaRef,
    bounded: bool,
    element: DataType,
}

/// What binding needs besides the graph.
pub struct Binder<'a> {
    /// The checked pipeline.
    pub graph: &'a Graph,
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
        let first = self.pass(&known)?;
        let uses: Vec<ColumnUse> = self.graph.nodes.iter().map(|node| self.column_use(node, &first)).collect();
        for (node, wanted) in needed(self.graph, &uses).into_iter().enumerate() {
            if let (Some(source), Some(known), Some(wanted)) = (sources.get_mut(&node), known.get_mut(&node), wanted) {
                let kept = known.schema.fields().iter().filter(|field| wanted.contains(field.name())).cloned();
                known.schema = Arc::new(Schema::new(kept.collect::<Vec<_>>()));
                source.project(&wanted.into_iter().collect::<Vec<_>>());
            }
        }
        let nodes = self.pass(&known)?;
        Ok(Bound { nodes, sources })
    }

    fn pass(&self, sources: &HashMap<usize, OpenSource>) -> Result<Vec<BoundNode>, Failure> {
        let mut bound: Vec<BoundNode> = Vec::with_capacity(self.graph.nodes.len());
        for node in &self.graph.nodes {
            let made = self.node(node, &bound, sources)?;
            bound.push(made);
        }
        Ok(bound)
    }

    fn wrong(&self, node: &Node, place: graph::Place, message: impl Into<String>, help: Option<String>) -> Failure {
        Failure::Bind {
            transform: node.name.clone(),
            file: self.file.clone(),
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
        Expression::compile(language, &expression.text, input)
            .map_err(|error| self.wrong(node, expression.place, format!("in `{}`: {}", expression.text, error.message), error.help))
    }

    fn node(&self, node: &Node, bound: &[BoundNode], sources: &HashMap<usize, OpenSource>) -> Result<BoundNode, Failure> {
        let inputs: Vec<SchemaRef> = node
            .inputs
            .iter()
            .map(|input| {
                let from = &bound[input.node];
                from.schemas[from.ports.iter().position(|port| *port == input.output).expect("the graph names outputs that exist")].clone()
            })
            .collect();
        let window_fn =
            node.inputs.first().map_or(WindowFn::Global, |input| self.graph.nodes[input.node].windowing.unwrap_or(WindowFn::Global));
        let input = inputs.first().cloned().unwrap_or_else(|| Arc::new(Schema::empty()));
        let mut ports = vec![String::new()];
        ports.extend(node.outputs.iter().cloned());
        let mut plugin = None;
        let mut element = element_type(&input);
        let mut late = None;
        let failed = |message: String| self.wrong(node, node.place, message, None);
        let port_of = |ports: &[String], name: &str| ports.iter().position(|port| port == name);
        let (plan, main): (OperatorPlan, SchemaRef) = match &node.transform {
            Transform::Source { .. } => {
                let source = &sources[&node.id];
                element = source.element.clone();
                (OperatorPlan::Source { bounded: source.bounded }, source.schema.clone())
            }
            Transform::Sink { kind, config } => {
                (OperatorPlan::Sink { kind: kind.clone(), config: config.clone() }, Arc::new(Schema::empty()))
            }
            Transform::Plugin { provider, transform, config } => {
                let loaded = &self.plugins[*provider];
                let limits = self.limits(node, *provider)?;
                let binding = loaded
                    .bind(transform, config, &input, &limits)
                    .map_err(|error| Failure::Plugin { transform: node.name.clone(), error })?;
                plugin = Some(loaded.digest().to_string());
                let mut schemas: HashMap<String, SchemaRef> = HashMap::new();
                let mut own = Vec::new();
                for output in &binding.outputs {
                    let port = port_of(&ports, &output.tag).unwrap_or_else(|| {
                        ports.push(output.tag.clone());
                        ports.len() - 1
                    });
                    own.push(port);
                    schemas.insert(output.tag.clone(), output.schema.clone());
                }
                let main = schemas.get("").cloned().unwrap_or_else(|| Arc::new(Schema::empty()));
                let made = OperatorPlan::Plugin { ports: own, binding };
                let node_schemas = ports.iter().map(|port| schemas.get(port).cloned().unwrap_or_else(|| main.clone())).collect();
                return Ok(self.finish(node, ports, node_schemas, element, None, plugin, made, window_fn));
            }
            Transform::AssignTimestamps { timestamp, unit, time_zone } => {
                let compiled = self.compile(node, timestamp, &input)?;
                if !timestamps::is_time(compiled.data_type()) {
                    return Err(self.wrong(
                        node,
                        timestamp.place,
                        format!("`{}` is {}, not a time", timestamp.text, compiled.data_type()),
                        Some("give a timestamp, a number of seconds or an RFC 3339 string".into()),
                    ));
                }
                let zone = time_zone
                    .as_ref()
                    .map(|zone| {
                        zone.parse::<Tz>().map_err(|_| {
                            failed(format!(
                                "`{zone}` is no time zone; write an IANA name such as Europe/Berlin, or an offset such as +02:00"
                            ))
                        })
                    })
                    .transpose()?;
                (OperatorPlan::AssignTimestamps { timestamp: compiled, unit: *unit, zone }, input.clone())
            }
            Transform::WindowInto { .. } => (OperatorPlan::WindowInto, input.clone()),
            Transform::ExtractWindowingInfo { fields } => {
                let passed: Vec<String> = input
                    .fields()
                    .iter()
                    .map(|field| field.name().clone())
                    .filter(|name| !fields.iter().any(|(new, _)| new == name))
                    .collect();
                let kept = passed.iter().map(|name| input.field_with_name(name).expect("a column of the input").clone());
                let added = fields.iter().map(|(name, info)| Field::new(name, windowing_info::data_type(*info), false));
                let schema = Schema::new(kept.chain(added).collect::<Vec<_>>());
                (OperatorPlan::ExtractWindowingInfo { passed, fields: fields.iter().map(|(_, info)| *info).collect() }, Arc::new(schema))
            }
            Transform::MapToFields { fields, append, drop } => {
                let (columns, schema) = self.map(node, &input, fields, *append, drop)?;
                (OperatorPlan::Map { columns }, schema)
            }
            Transform::Filter { keep } => {
                let compiled = self.compile(node, keep, &input)?;
                if !matches!(compiled.data_type(), DataType::Boolean) {
                    return Err(self.wrong(node, keep.place, format!("`{}` is {}, not a boolean", keep.text, compiled.data_type()), None));
                }
                (OperatorPlan::Filter { keep: compiled }, input.clone())
            }
            Transform::Partition { by, outputs, unknown_output } => {
                let compiled = self.compile(node, by, &input)?;
                if *compiled.data_type() != DataType::Utf8 {
                    return Err(self.wrong(
                        node,
                        by.place,
                        format!("`{}` is {}, not a string: it must be the name of an output", by.text, compiled.data_type()),
                        None,
                    ));
                }
                let port = |name: &String| port_of(&ports, name).expect("every output of a partition is declared");
                let outputs = outputs.iter().map(|name| (name.clone(), port(name))).collect();
                let unknown = unknown_output.as_ref().map(port);
                (OperatorPlan::Partition { by: compiled, outputs, unknown }, input.clone())
            }
            Transform::Combine { group_by, combine } => {
                let (plan, schema) = self.combine(node, &input, window_fn, group_by, combine)?;
                late = Some(plan.late_schema.clone());
                (OperatorPlan::Combine(Box::new(plan)), schema)
            }
            Transform::Flatten => (OperatorPlan::Flatten, flatten::union(&inputs).map_err(failed)?),
            Transform::LogForTesting { level, prefix } => {
                (OperatorPlan::Log { level: *level, prefix: prefix.clone().unwrap_or_default() }, input.clone())
            }
            Transform::StripErrorMetadata => {
                let (schema, column) = strip::output(&input).map_err(failed)?;
                (OperatorPlan::Strip { column }, schema)
            }
        };
        let schemas = vec![main; ports.len()];
        Ok(self.finish(node, ports, schemas, element, late, plugin, plan, window_fn))
    }

    #[allow(clippy::too_many_arguments, reason = "one call site for each kind of node, no sense in a struct that lives for a line")]
    fn finish(
        &self,
        node: &Node,
        mut ports: Vec<String>,
        mut schemas: Vec<SchemaRef>,
        element: DataType,
        late: Option<SchemaRef>,
        plugin: Option<String>,
        mut plan: OperatorPlan,
        window_fn: WindowFn,
    ) -> BoundNode {
        let error_port = node.error_output.as_ref().map(|name| match ports.iter().position(|port| port == name) {
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
        if let (Some(late), OperatorPlan::Combine(combine)) = (late, &mut plan) {
            ports.push(LATE.into());
            schemas.push(late);
            combine.late_port = ports.len() - 1;
        }
        let refusals = Refusals { transform: node.name.clone(), plugin, port: error_port };
        BoundNode { ports, schemas, refusals, plan, window_fn }
    }

    fn limits(&self, node: &Node, provider: usize) -> Result<Limits, Failure> {
        let mut merged = self.graph.options.limits.clone();
        let provider = &self.graph.providers[provider];
        match (&mut merged, &provider.limits) {
            (_, serde_json::Value::Null) => {}
            (serde_json::Value::Object(all), serde_json::Value::Object(own)) => all.extend(own.clone()),
            (merged, own) => *merged = own.clone(),
        }
        if merged.is_null() {
            return Ok(Limits::default());
        }
        serde_json::from_value(merged).map_err(|error| self.wrong(node, provider.place, format!("limits: {error}"), None))
    }

    fn map(
        &self,
        node: &Node,
        input: &SchemaRef,
        fields: &[(String, graph::Expression)],
        append: bool,
        drop: &[String],
    ) -> Result<(Vec<Column>, SchemaRef), Failure> {
        let (mut columns, mut schema) = (Vec::new(), Vec::new());
        for name in drop {
            if input.field_with_name(name).is_err() {
                let near = pelton_core::catalog::nearest(name, input.fields().iter().map(|field| field.name().as_str()));
                return Err(self.wrong(
                    node,
                    node.place,
                    format!("`drop` names `{name}`, which is no column of the input"),
                    near.map(|near| format!("did you mean `{near}`?")),
                ));
            }
        }
        if append {
            for field in
                input.fields().iter().filter(|field| !drop.contains(field.name()) && !fields.iter().any(|(name, _)| name == field.name()))
            {
                columns.push(Column::Passed(field.name().clone()));
                schema.push(field.as_ref().clone());
            }
        }
        for (name, expression) in fields {
            let compiled = self.compile(node, expression, input)?;
            schema.push(Field::new(name, compiled.data_type().clone(), compiled.nullable()));
            columns.push(Column::Made(compiled));
        }
        Ok((columns, Arc::new(Schema::new(schema))))
    }

    fn combine(
        &self,
        node: &Node,
        input: &SchemaRef,
        window_fn: WindowFn,
        group_by: &[(String, graph::Expression)],
        combine: &[graph::Aggregate],
    ) -> Result<(CombinePlan, SchemaRef), Failure> {
        let (mut keys, mut types, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        for (name, expression) in group_by {
            let compiled = self.compile(node, expression, input)?;
            types.push(compiled.data_type().clone());
            fields.push(Field::new(name, compiled.data_type().clone(), compiled.nullable()));
            keys.push(compiled);
        }
        pelton_core::key::KeyEncoder::new(&types).map_err(|message| self.wrong(node, node.place, format!("group_by: {message}"), None))?;
        let mut aggregates = Vec::new();
        for wanted in combine {
            let value = wanted.value.as_ref().map(|value| self.compile(node, value, input)).transpose()?;
            let made = aggregate::output_type(wanted.function, value.as_ref().map(Expression::data_type)).map_err(|message| {
                self.wrong(
                    node,
                    wanted.value.as_ref().map_or(node.place, |value| value.place),
                    format!("{:?} for `{}` {message}", wanted.function, wanted.name).to_lowercase(),
                    None,
                )
            })?;
            let nullable = made != DataType::Int64 || wanted.function != graph::AggregateFunction::Count;
            fields.push(Field::new(&wanted.name, made, nullable));
            aggregates.push((wanted.function, value));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        // `state_limit` is for all tasks together; keys spread evenly enough.
        let plan = CombinePlan {
            group_by: keys,
            group_types: types,
            aggregates,
            schema: schema.clone(),
            late_schema: late_schema(input),
            late_port: MAIN,
            window_fn,
            allowed_lateness: node.inputs.first().map_or(Duration::ZERO, |input| self.graph.nodes[input.node].allowed_lateness),
            state_limit: self.state_limit / self.parallelism.max(1),
        };
        Ok((plan, schema))
    }

    fn column_use(&self, node: &Node, bound: &[BoundNode]) -> ColumnUse {
        let own = &bound[node.id];
        let columns = |expressions: &mut dyn Iterator<Item = &Expression>| -> BTreeSet<String> {
            expressions.flat_map(|expression| expression.columns()).collect()
        };
        let all = ColumnUse { reads: None, passes: Passes::Nothing };
        match &own.plan {
            OperatorPlan::Source { .. } | OperatorPlan::Sink { .. } | OperatorPlan::Log { .. } | OperatorPlan::Strip { .. } => all,
            OperatorPlan::Plugin { binding, .. } => {
                let mut made = BTreeSet::new();
                let mut passes_any = false;
                for output in &binding.outputs {
                    passes_any |= !output.passes.is_empty();
                    made.extend(output.adds.fields().iter().map(|field| field.name().clone()));
                }
                let reads = Some(binding.reads_names().into_iter().collect());
                ColumnUse { reads, passes: if passes_any { Passes::AllBut(made) } else { Passes::Nothing } }
            }
            OperatorPlan::AssignTimestamps { timestamp, .. } => {
                ColumnUse { reads: Some(columns(&mut [timestamp].into_iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::WindowInto | OperatorPlan::Flatten => {
                ColumnUse { reads: Some(BTreeSet::new()), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::ExtractWindowingInfo { passed, .. } => {
                let added = own.schemas[MAIN].fields().iter().map(|field| field.name().clone()).filter(|name| !passed.contains(name));
                ColumnUse { reads: Some(BTreeSet::new()), passes: Passes::AllBut(added.collect()) }
            }
            OperatorPlan::Map { columns: made } => {
                let Transform::MapToFields { fields, append, drop } = &node.transform else { return all };
                let reads = columns(&mut made.iter().filter_map(|column| match column {
                    Column::Made(expression) => Some(expression),
                    Column::Passed(_) => None,
                }));
                // Dropped columns are named in the file and must be there to be dropped.
                let reads = reads.into_iter().chain(drop.iter().cloned()).collect();
                let passes = if *append { Passes::AllBut(fields.iter().map(|(name, _)| name.clone()).collect()) } else { Passes::Nothing };
                ColumnUse { reads: Some(reads), passes }
            }
            OperatorPlan::Filter { keep } => {
                ColumnUse { reads: Some(columns(&mut [keep].into_iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::Partition { by, .. } => {
                ColumnUse { reads: Some(columns(&mut [by].into_iter())), passes: Passes::AllBut(BTreeSet::new()) }
            }
            OperatorPlan::Combine(plan) => {
                let late_is_read =
                    self.graph.nodes.iter().any(|reader| reader.inputs.iter().any(|input| input.node == node.id && input.output == LATE));
                let reads = columns(&mut plan.group_by.iter().chain(plan.aggregates.iter().filter_map(|(_, value)| value.as_ref())));
                ColumnUse { reads: (!late_is_read).then_some(reads), passes: Passes::Nothing }
            }
        }
    }
}
