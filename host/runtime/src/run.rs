//! Runs a pipeline: binds the graph, lays tasks and channels out over workers, supervises them to their end.
//!
//! Workers are threads, each a cooperative executor that owns its tasks; tasks of different workers meet only in channels.
//! Connectors' I/O lives on the multi-thread runtime that the caller hands in, so that a slow plugin delays no broker.
//!
//! Invariants: a task belongs to one worker for life; the first failure is the one reported, and it cancels the rest; a run
//! that failed leaves no sink half published.

use crate::alignment::{Alignment, Gate};
use crate::bind::{Binder, Bound, BoundNode, OperatorPlan};
use crate::channel::{Inputs, Receiver, Sender, channel};
use crate::clock;

use crate::error_budget::{ErrorBudget, TaskBudget};
use crate::exchange::{Division, Exchange, KeyDivision};
use crate::failure::Failure;
use crate::lift::{Lift, can_lift};
use crate::message::End;
use crate::metrics::{NodeFigures, NodeMetrics, Scatter, WindowCounts};
use crate::operator::{MAIN, Operator};
use crate::operators::sink::{SinkOperator, Summaries};
use crate::operators::{
    combine, explode, filter, flatten, join, log, lookup_join, map, match_all, partition, plugin, reshuffle, set_watermark, stateful,
    strip, timed_join, timestamps, validate, window_into, windowing_info,
};
use crate::source_task::{Head, SourceTask, run_source};
use crate::splits::Splits;
use crate::task::{Operators, Route, Slot, run_fed};
use pelton_connect::{Reader, Sink, SinkContext, SinkSummary, SourceContext, open_sink, sink_shards};
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::watermark::{Merged, Policy};
use pelton_core::{Duration, Instant};
use pelton_pipeline::graph::{Graph, Transform};
use pelton_pipeline::physical::{Physical, StageKind};
use pelton_plugin::Plugin;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// How far out of order rows of unbounded input are taken to be where the pipeline does not say.
pub const DEFAULT_DELAY: Duration = Duration::from_micros(5_000_000);
/// After how long without rows a split of unbounded input is idle where the pipeline does not say.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_micros(30_000_000);
/// Memory of a pipeline where it does not say.
pub const DEFAULT_MEMORY: u64 = 1 << 30;
/// The share of the memory that state may take, in percent.
const STATE_SHARE: u64 = 50;

/// What the user wants of the running pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Go on.
    Run,
    /// Finish what is in flight, flush, leave open windows open.
    Stop,
    /// The same, but move the watermark to the end first, so that every window fires.
    Drain,
}

/// How to run.
pub struct RunOptions {
    /// The pipeline file, for messages.
    pub file: String,
    /// Relative paths in configs start here.
    pub base_dir: PathBuf,
    /// Tasks side by side.
    pub parallelism: usize,
    /// For connectors.
    pub io: tokio::runtime::Handle,
}

impl RunOptions {
    fn source_context(&self, transform: String, stop: &watch::Receiver<bool>) -> SourceContext {
        let RunOptions { parallelism, base_dir, io, .. } = self;
        SourceContext { transform, parallelism: *parallelism, base_dir: base_dir.clone(), io: io.clone(), stop: stop.clone() }
    }
}

/// What can be watched while a pipeline runs, and read after it.
pub struct Progress {
    /// By node.
    pub nodes: Vec<Arc<NodeMetrics>>,
    /// Event time against processing time.
    pub scatter: Arc<Scatter>,
    /// Rows per window.
    pub windows: Arc<WindowCounts>,
    /// What sinks wrote.
    pub summaries: Summaries,
    /// Sources that keep pace with each other.
    pub(crate) alignment: Alignment,
}

impl Progress {
    /// The figures of every transform now.
    pub fn figures(&self) -> Vec<NodeFigures> {
        self.nodes.iter().map(|node| node.snapshot(clock::now())).collect()
    }

    /// What sinks wrote, by transform.
    pub fn written(&self) -> Vec<(String, SinkSummary)> {
        let mut written = self.summaries.lock().expect("no holder of this lock panics").clone();
        written.sort_by(|a, b| (&a.0, &a.1.files).cmp(&(&b.0, &b.1.files)));
        written
    }
}

/// A pipeline that is ready to run: everything that could be checked without reading data has been.
pub struct Prepared {
    /// To watch.
    pub progress: Arc<Progress>,
    /// Whether any source never ends by itself.
    pub unbounded: bool,
    /// To stop: `send(StopMode::Stop)`.
    pub stop: watch::Sender<StopMode>,
    tasks: Vec<TaskPlan>,
    workers: usize,
    stop_reading: watch::Sender<bool>,
}

struct TaskPlan {
    worker: usize,
    nodes: Vec<usize>,
    bound: Arc<Vec<BoundNode>>,
    graph: Arc<Graph>,
    progress: Arc<Progress>,
    feed: Feed,
    sink: Option<Box<dyn Sink>>,
    exits: Vec<Exit>,
    /// Number among the tasks of its stage.
    index: usize,
    /// What its transforms may refuse, by node.
    budgets: HashMap<usize, TaskBudget>,
    base_dir: PathBuf,
    io: tokio::runtime::Handle,
    stop: watch::Receiver<StopMode>,
    /// Groups that this source task keeps pace with.
    gates: Vec<Gate>,
    tables: Tables,
}

/// An edge out of a task.
struct Exit {
    node: usize,
    port: usize,
    /// Head of the consuming stage, and which of its inputs this is.
    head: usize,
    input: usize,
    /// One channel for each task of that stage.
    targets: Vec<Sender>,
}

enum Feed {
    Reader(Box<dyn Reader>),
    /// Which input of the head each one feeds, and the channel.
    Channels(Vec<(usize, Receiver)>),
}

/// Binds and lays out a pipeline.
pub async fn prepare(graph: Graph, plugins: &[Arc<Plugin>], options: RunOptions) -> Result<Prepared, Failure> {
    let (stop, stop_seen) = watch::channel(StopMode::Run);
    let (stop_reading, reading_stops) = watch::channel(false);
    let memory = graph.options.memory.unwrap_or(DEFAULT_MEMORY);
    let binder = Binder {
        graph: &graph,
        written: &graph,
        file: options.file.clone(),
        plugins,
        parallelism: options.parallelism,
        state_limit: (memory * STATE_SHARE / 100) as usize,
    };
    let bound = binder.bind(|node| options.source_context(node.name.clone(), &reading_stops)).await?;
    let Bound { graph, nodes, sources } = bound;
    let tables = Arc::new(read_tables(&graph, &nodes, &options, &reading_stops).await?);
    let progress = Arc::new(Progress {
        nodes: graph
            .nodes
            .iter()
            .zip(&nodes)
            .map(|(node, bound)| Arc::new(NodeMetrics::new(node.name.clone(), node.transform.kind().to_string(), bound.ports.clone())))
            .collect(),
        scatter: Arc::default(),
        windows: Arc::default(),
        summaries: Summaries::default(),
        alignment: Alignment::default(),
    });
    let unbounded = nodes.iter().any(|node| matches!(node.plan, OperatorPlan::Source { bounded: false }));
    let layout = Layout {
        physical: Physical::of(&graph),
        graph: Arc::new(graph),
        bound: Arc::new(nodes),
        options,
        progress: progress.clone(),
        unbounded,
        stop: stop_seen,
        tables,
    };
    let workers = layout.options.parallelism;
    let tasks = layout.tasks(sources).await?;
    Ok(Prepared { progress, unbounded, stop, tasks, workers, stop_reading })
}

struct Layout {
    physical: Physical,
    graph: Arc<Graph>,
    bound: Arc<Vec<BoundNode>>,
    options: RunOptions,
    progress: Arc<Progress>,
    unbounded: bool,
    stop: watch::Receiver<StopMode>,
    tables: Tables,
}

/// What lookup joins look up in, by node.
type Tables = Arc<HashMap<usize, Arc<lookup_join::refresh::Shared>>>;

/// Reads the table of every lookup join, before any row is read.
async fn read_tables(
    graph: &Graph,
    nodes: &[BoundNode],
    options: &RunOptions,
    stop: &watch::Receiver<bool>,
) -> Result<HashMap<usize, Arc<lookup_join::refresh::Shared>>, Failure> {
    let mut tables = HashMap::new();
    for (node, bound) in graph.nodes.iter().zip(nodes) {
        let OperatorPlan::Lookup(plan) = &bound.plan else { continue };
        let context = options.source_context(node.name.clone(), stop);
        let table = lookup_join::refresh::Shared::start(plan.table.clone(), context).await;
        tables.insert(node.id, table.map_err(|error| Failure::Connect { transform: node.name.clone(), error })?);
    }
    Ok(tables)
}

impl Layout {
    async fn tasks(&self, mut sources: HashMap<usize, Box<dyn pelton_connect::Source>>) -> Result<Vec<TaskPlan>, Failure> {
        let mut feeds: Vec<Vec<Feed>> = Vec::new();
        for stage in &self.physical.stages {
            let name = &self.graph.nodes[stage.head].name;
            feeds.push(match stage.kind {
                StageKind::Source => {
                    let source = sources.remove(&stage.head).expect("every source was opened");
                    let readers =
                        source.readers(self.options.parallelism).map_err(|error| Failure::Connect { transform: name.clone(), error })?;
                    readers.into_iter().map(Feed::Reader).collect()
                }
                StageKind::Keyed | StageKind::Spread | StageKind::Sink => {
                    (0..self.width(stage.head)).map(|_| Feed::Channels(Vec::new())).collect()
                }
            });
        }
        // One channel for each producing and consuming task of an exchange.
        let mut exits: Vec<Vec<Vec<Exit>>> = feeds.iter().map(|tasks| tasks.iter().map(|_| Vec::new()).collect()).collect();
        for (target, stage) in self.physical.stages.iter().enumerate() {
            for (number, input) in self.graph.nodes[stage.head].inputs.iter().enumerate() {
                let port = self.bound[input.node].ports.iter().position(|port| *port == input.output).expect("checked when bound");
                let producers = self.physical.stages.iter().zip(&mut exits).filter(|(producer, _)| producer.nodes.contains(&input.node));
                for (_, tasks) in producers {
                    for task_exits in tasks {
                        let senders = feeds[target].iter_mut().map(|feed| {
                            let (sender, receiver) = channel();
                            match feed {
                                Feed::Channels(receivers) => receivers.push((number, receiver)),
                                Feed::Reader(_) => unreachable!("a source has no inputs"),
                            }
                            sender
                        });
                        task_exits.push(Exit { node: input.node, port, head: stage.head, input: number, targets: senders.collect() });
                    }
                }
            }
        }
        let mut plans = Vec::new();
        for (number, ((stage, feeds), exits)) in self.physical.stages.iter().zip(feeds).zip(exits).enumerate() {
            for (index, (feed, exits)) in feeds.into_iter().zip(exits).enumerate() {
                let sink = match stage.kind {
                    StageKind::Sink => Some(self.open_sink(stage.head, index).await?),
                    _ => None,
                };
                // Sources and groupings spread alike; each sink begins at another worker.
                let worker = (index + if stage.kind == StageKind::Sink { number } else { 0 }) % self.options.parallelism;
                plans.push(TaskPlan {
                    worker,
                    nodes: stage.nodes.clone(),
                    bound: self.bound.clone(),
                    graph: self.graph.clone(),
                    progress: self.progress.clone(),
                    feed,
                    sink,
                    exits,
                    index,
                    budgets: HashMap::new(),
                    base_dir: self.options.base_dir.clone(),
                    io: self.options.io.clone(),
                    stop: self.stop.clone(),
                    gates: Vec::new(),
                    tables: self.tables.clone(),
                });
            }
        }
        self.share_budgets(&mut plans);
        Ok(plans)
    }

    /// Gives each task its part of every `error_handling.threshold`.
    fn share_budgets(&self, plans: &mut [TaskPlan]) {
        for node in &self.graph.nodes {
            let (Some(threshold), Some(port)) = (node.error_threshold, self.bound[node.id].refusals.port) else { continue };
            let source = matches!(node.transform, Transform::Source { .. });
            let tasks: Vec<&mut TaskPlan> = plans.iter_mut().filter(|plan| plan.nodes.contains(&node.id)).collect();
            let budget = Arc::new(ErrorBudget::new(node.name.clone(), threshold, self.bound[node.id].window_fn, tasks.len()));
            for (number, plan) in tasks.into_iter().enumerate() {
                plan.budgets.insert(node.id, TaskBudget { budget: budget.clone(), task: number, port, source });
            }
        }
    }

    fn width(&self, head: usize) -> usize {
        match &self.bound[head].plan {
            OperatorPlan::Combine(plan) if plan.group_by.is_empty() => 1,
            OperatorPlan::Join(plan) if plan.sides[0].keys.is_empty() => 1,
            OperatorPlan::Combine(_) | OperatorPlan::Join(_) | OperatorPlan::TimedJoin(_) | OperatorPlan::Stateful(_) => {
                self.options.parallelism
            }
            OperatorPlan::Reshuffle { buckets } => buckets.unwrap_or(usize::MAX).min(self.options.parallelism),
            OperatorPlan::Sink { kind, config } => sink_shards(kind, config),
            _ => 1,
        }
    }

    async fn open_sink(&self, head: usize, shard: usize) -> Result<Box<dyn Sink>, Failure> {
        let node = &self.graph.nodes[head];
        let OperatorPlan::Sink { kind, config } = &self.bound[head].plan else { unreachable!("the stage is a sink's") };
        let input = &node.inputs[0];
        let from = &self.bound[input.node];
        let port = from.ports.iter().position(|port| *port == input.output).expect("checked when bound");
        let context = SinkContext {
            transform: node.name.clone(),
            base_dir: self.options.base_dir.clone(),
            io: self.options.io.clone(),
            schema: from.schemas[port].clone(),
            unbounded: self.unbounded,
            window: self.bound[head].window_fn,
            shard,
            shards: self.width(head),
        };
        open_sink(kind, config, context).await.map_err(|error| Failure::Connect { transform: node.name.clone(), error })
    }
}

impl TaskPlan {
    /// Makes the operators; called on the worker that will run them.
    fn operators(&mut self, cancelled: watch::Receiver<bool>) -> Result<Operators, Failure> {
        let mut exchanges = Vec::new();
        let mut routes: HashMap<(usize, usize), Vec<Route>> = HashMap::new();
        for Exit { node, port, head, input, targets } in std::mem::take(&mut self.exits) {
            let by_key = match &self.bound[head].plan {
                OperatorPlan::Combine(plan) => Some((&plan.group_by, &plan.group_types)),
                OperatorPlan::Join(plan) => Some((&plan.sides[input].keys, &plan.sides[input].key_types)),
                OperatorPlan::Stateful(plan) => Some((&plan.key, &plan.key_types)),
                OperatorPlan::TimedJoin(plan) => Some((&plan.sides[input].keys, &plan.sides[input].key_types)),
                _ => None,
            };
            let division = match by_key {
                Some((keys, types)) => Division::ByKey(Box::new(KeyDivision {
                    transform: self.graph.nodes[head].name.clone(),
                    group_by: keys.clone(),
                    encoder: KeyEncoder::new(types).map_err(|message| self.internal(head, message))?,
                    keys: Keys::default(),
                })),
                // Producers begin at different tasks.
                None if matches!(self.bound[head].plan, OperatorPlan::Reshuffle { .. }) => Division::InTurn(self.index),
                None => Division::To(self.index),
            };
            routes.entry((node, port)).or_default().push(Route::Remote { exchange: exchanges.len() });
            // One task that aggregates what it reads itself has nothing to gain.
            let lift = match &self.bound[head].plan {
                OperatorPlan::Combine(plan) if can_lift(plan) && (targets.len() > 1 || plan.group_by.is_empty()) => {
                    let mut lift = Lift::new(plan, &self.graph.nodes[head].name)?;
                    lift.metrics = Some(self.progress.nodes[head].clone());
                    Some(Box::new(lift))
                }
                _ => None,
            };
            exchanges.push(Exchange { division, targets, lift });
        }
        for (slot, node) in self.nodes.iter().enumerate().skip(1) {
            for (input, from) in self.graph.nodes[*node].inputs.iter().enumerate() {
                if self.nodes.contains(&from.node) {
                    let port = self.bound[from.node].ports.iter().position(|port| *port == from.output).expect("checked when bound");
                    routes.entry((from.node, port)).or_default().push(Route::Local { slot, input });
                }
            }
        }
        let mut slots = Vec::with_capacity(self.nodes.len());
        for (number, node) in self.nodes.clone().into_iter().enumerate() {
            let inputs: Vec<(usize, usize)> = match (&self.feed, number) {
                (Feed::Channels(receivers), 0) => (0..receivers.len()).map(|input| (input, input)).collect(),
                (Feed::Reader(_), 0) => Vec::new(),
                _ => {
                    let here = self.graph.nodes[node].inputs.iter().enumerate().filter(|(_, input)| self.nodes.contains(&input.node));
                    here.enumerate().map(|(number, (logical, _))| (logical, number)).collect()
                }
            };
            slots.push(Slot {
                operator: self.operator(node)?,
                budget: self.budgets.remove(&node),
                metrics: self.progress.nodes[node].clone(),
                routes: (0..self.bound[node].ports.len()).map(|port| routes.remove(&(node, port)).unwrap_or_default()).collect(),
                merged: Merged::new(inputs.len()),
                open: inputs.len(),
                inputs,
                end: End::Drained,
            });
        }
        Ok(Operators { slots, exchanges, cancelled })
    }

    fn internal(&self, node: usize, message: String) -> Failure {
        Failure::Internal { transform: self.graph.nodes[node].name.clone(), message }
    }

    fn operator(&mut self, node: usize) -> Result<Box<dyn Operator>, Failure> {
        let bound = self.bound[node].clone();
        let (refusals, window_fn, schema) = (bound.refusals, bound.window_fn, bound.schemas[MAIN].clone());
        Ok(match bound.plan {
            OperatorPlan::Source { .. } => Box::new(Head),
            OperatorPlan::Sink { .. } => Box::new(SinkOperator {
                sink: self.sink.take(),
                summaries: self.progress.summaries.clone(),
                metrics: self.progress.nodes[node].clone(),
                window_fn,
                refusals,
                ticked: Instant::MIN,
            }),
            OperatorPlan::Plugin { binding, ports } => {
                let instance = binding.open().map_err(|error| Failure::Plugin { transform: refusals.transform.clone(), error })?;
                Box::new(plugin::Plugin {
                    binding,
                    instance: Some(instance),
                    ports,
                    window_fn,
                    metrics: self.progress.nodes[node].clone(),
                    refusals,
                })
            }
            OperatorPlan::Stateful(plan) => Box::new(stateful::Stateful::new(*plan, self.progress.nodes[node].clone(), refusals)?),
            OperatorPlan::AssignTimestamps { timestamp, unit, zone } => Box::new(timestamps::AssignTimestamps {
                timestamp,
                unit,
                zone,
                splits: Splits::new(self.policy()),
                scatter: self.progress.scatter.clone(),
                refusals,
            }),
            OperatorPlan::SetWatermark { policy, marker, ingestion, align } => {
                let gate = align.map(|align| self.progress.alignment.join(&align.group, align.max_drift));
                // Behind an exchange there is nothing to hold back.
                if let (Some(gate), Feed::Reader(_)) = (&gate, &self.feed) {
                    self.gates.push(gate.clone());
                }
                Box::new(set_watermark::SetWatermark { marker, ingestion, splits: Splits::new(policy), gate, refusals })
            }
            OperatorPlan::WindowInto => Box::new(window_into::WindowInto { window_fn }),
            OperatorPlan::ExtractWindowingInfo { passed, fields } => {
                Box::new(windowing_info::ExtractWindowingInfo { schema, passed, fields, window_fn })
            }
            OperatorPlan::Map { columns } => Box::new(map::Map { schema, columns, refusals }),
            OperatorPlan::Filter { keep } => Box::new(filter::Filter { keep, refusals }),
            OperatorPlan::Partition { by, outputs, unknown } => Box::new(partition::Partition { by, outputs, unknown, refusals }),
            OperatorPlan::Combine(plan) => {
                let combine = combine::Combine::new(*plan, self.progress.windows.clone(), refusals)?;
                Box::new(combine.with_metrics(self.progress.nodes[node].clone()))
            }
            OperatorPlan::Join(plan) => Box::new(join::Join::new(*plan, self.inputs_of_head(), self.progress.windows.clone(), refusals)?),
            OperatorPlan::Lookup(plan) => {
                let table = self.tables[&node].clone();
                Box::new(lookup_join::LookupJoin::new(*plan, table, self.progress.nodes[node].clone(), refusals)?)
            }
            OperatorPlan::TimedJoin(plan) => Box::new(timed_join::TimedJoin::new(*plan, self.inputs_of_head(), refusals)?),
            OperatorPlan::Flatten => Box::new(flatten::Flatten { schema }),
            OperatorPlan::Log { level, prefix } => Box::new(log::Log { level, prefix }),
            OperatorPlan::Strip { column } => Box::new(strip::Strip { schema, column }),
            OperatorPlan::Explode { fields, cross_product } => Box::new(explode::Explode { schema, fields, cross_product, refusals }),
            OperatorPlan::Reshuffle { .. } => Box::new(reshuffle::Reshuffle),
            OperatorPlan::Validate { schema } => Box::new(validate::Validate { schema, refusals }),
            OperatorPlan::MatchAll { column, empty } => {
                Box::new(match_all::MatchAll { column, empty, base_dir: self.base_dir.clone(), io: self.io.clone(), refusals })
            }
        })
    }

    /// Which logical input of the head each channel feeds.
    fn inputs_of_head(&self) -> Vec<usize> {
        match &self.feed {
            Feed::Channels(receivers) => receivers.iter().map(|(input, _)| *input).collect(),
            Feed::Reader(_) => Vec::new(),
        }
    }

    /// How watermarks follow from the rows of this task's source: the source's own setting, else the pipeline's, else by
    /// whether it ends by itself.
    fn policy(&self) -> Policy {
        let head = self.nodes[0];
        let all = &self.graph.options.watermark;
        let own = all.sources.get(&self.graph.nodes[head].name);
        let delay = own.and_then(|own| own.delay).or(all.delay);
        let idle_timeout = own.and_then(|own| own.idle_timeout).or(all.idle_timeout);
        match (&self.bound[head].plan, delay) {
            (OperatorPlan::Source { bounded: true }, None) => Policy::AT_END,
            // A bounded split is never idle: it ends.
            (OperatorPlan::Source { bounded: true }, Some(delay)) => Policy::fixed_delay(delay, None),
            _ => Policy::fixed_delay(delay.unwrap_or(DEFAULT_DELAY), Some(idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT))),
        }
    }

    async fn run(mut self, cancelled: watch::Receiver<bool>) -> Result<(), Failure> {
        let operators = match self.operators(cancelled) {
            Ok(operators) => operators,
            Err(failure) => {
                if let Some(sink) = self.sink.take() {
                    sink.abort().await;
                }
                return Err(failure);
            }
        };
        let policy = self.policy();
        let head = self.nodes[0];
        let samples = !self.nodes.iter().any(|node| matches!(self.graph.nodes[*node].transform, Transform::AssignTimestamps { .. }));
        match self.feed {
            Feed::Channels(receivers) => {
                run_fed(operators, Inputs::new(receivers.into_iter().map(|(_, receiver)| receiver).collect())).await
            }
            Feed::Reader(reader) => {
                let bounded = matches!(self.bound[head].plan, OperatorPlan::Source { bounded: true });
                let refusals = self.bound[head].refusals.clone();
                run_source(
                    operators,
                    SourceTask {
                        reader,
                        policy,
                        bounded,
                        samples,
                        scatter: self.progress.scatter.clone(),
                        refusals,
                        stop: self.stop,
                        gates: self.gates,
                    },
                )
                .await
            }
        }
    }
}

impl Prepared {
    /// Runs to the end: of the input, of a stop, or at the first failure.
    pub async fn run(self) -> Result<Arc<Progress>, Failure> {
        let Prepared { progress, tasks, workers, stop_reading, stop, .. } = self;
        let mut stops = stop.subscribe();
        let watcher = tokio::spawn(async move {
            // Readers are told to stop; why is asked when they have.
            let _ = stops.wait_for(|mode| *mode != StopMode::Run).await.map(drop);
            let _ = stop_reading.send(true);
            // Kept, so that readers see a value and not a closed channel.
            std::future::pending::<()>().await;
        });
        let (cancel, cancelled) = watch::channel(false);
        let cancel = Arc::new(cancel);
        let mut by_worker: Vec<Vec<TaskPlan>> = (0..workers).map(|_| Vec::new()).collect();
        for task in tasks {
            by_worker[task.worker].push(task);
        }
        let (results, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for (number, tasks) in by_worker.into_iter().enumerate().filter(|(_, tasks)| !tasks.is_empty()) {
            let (results, cancelled, cancel) = (results.clone(), cancelled.clone(), cancel.clone());
            threads.push(spawn_worker(number, move || work(tasks, cancelled, cancel, results))?);
        }
        drop(results);
        let mut first = None;
        while let Some(result) = ended.recv().await {
            if let Err(failure) = result
                && (first.is_none() || matches!(first, Some(Failure::Cancelled)))
            {
                first = Some(failure);
            }
        }
        for thread in threads {
            if thread.join().is_err() && first.is_none() {
                first = Some(Failure::Internal { transform: "worker".into(), message: "a worker's thread panicked".into() });
            }
        }
        watcher.abort();
        drop(stop);
        match first {
            Some(failure) => Err(failure),
            None => Ok(progress),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "workers are the threads that this module owns")]
fn spawn_worker(number: usize, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Failure> {
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(work)
        .map_err(|error| Failure::Internal { transform: "worker".into(), message: format!("the system gives no thread: {error}") })
}

/// The body of a worker's thread.
fn work(
    tasks: Vec<TaskPlan>,
    cancelled: watch::Receiver<bool>,
    cancel: Arc<watch::Sender<bool>>,
    results: tokio::sync::mpsc::UnboundedSender<Result<(), Failure>>,
) {
    let executor = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(executor) => executor,
        Err(error) => {
            let _ = results.send(Err(Failure::Internal { transform: "worker".into(), message: error.to_string() }));
            let _ = cancel.send(true);
            return;
        }
    };
    let set = tokio::task::LocalSet::new();
    let handles: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let (cancelled, cancel, results) = (cancelled.clone(), cancel.clone(), results.clone());
            set.spawn_local(async move {
                let name = task.graph.nodes[task.nodes[0]].name.clone();
                let run = tokio::task::spawn_local(task.run(cancelled));
                // A panic of ours ends the pipeline with a message, not the process.
                let result = run.await.unwrap_or_else(|panic| Err(Failure::Internal { transform: name, message: panic.to_string() }));
                if result.is_err() {
                    let _ = cancel.send(true);
                }
                let _ = results.send(result);
            })
        })
        .collect();
    set.block_on(&executor, async {
        for handle in handles {
            let _ = handle.await;
        }
    });
}

/// How a pipeline's memory is divided, bytes. State is checked against its share as it grows; channels and connectors are
/// bounded by their own constants and fit theirs; guests are limited one by one (`limits.memory`).
pub fn memory_accounts(graph: &Graph) -> Vec<(&'static str, u64)> {
    let memory = graph.options.memory.unwrap_or(DEFAULT_MEMORY);
    let state = memory * STATE_SHARE / 100;
    let guests = memory * GUEST_SHARE / 100;
    let channels = memory * CHANNEL_SHARE / 100;
    vec![("state", state), ("guests", guests), ("channels", channels), ("connectors", memory - state - guests - channels)]
}

/// The share of guests, in percent.
const GUEST_SHARE: u64 = 25;
/// The share of channels, in percent.
const CHANNEL_SHARE: u64 = 15;
