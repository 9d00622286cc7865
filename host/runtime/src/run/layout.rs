//! A graph becomes tasks and the channels between them, as the last checkpoint has it.
//!
//! Invariant: nothing runs and no row is read here, but tables of lookup joins; what can be refused before the first row is refused here.

use super::memory::state_share;
use super::task_plan::{Exit, Feed, TaskPlan};
use super::{Crasher, Prepared, Progress, Resumed, RunOptions, StopMode};
use crate::bind::rebind::Sources;
use crate::bind::{Binder, Bound, BoundNode, OperatorPlan};
use crate::channel::channel;
use crate::checkpoint::crashes::Counter;
use crate::checkpoint::driver::CheckpointProgress;
use crate::checkpoint::keep::NodeEntry;
use crate::checkpoint::load::Reading;
use crate::checkpoint::overlay::Overlay;
use crate::checkpoint::restored::RestoredOperator;
use crate::checkpoint::start::{Starting, start};
use crate::checkpoint::wiring::{Driving, Durable, wire};
use crate::checkpoint::{CheckpointOptions, Started};
use crate::error_budget::{ErrorBudget, TaskBudget};
use crate::failure::Failure;
use crate::operators::lookup_join;
use crate::swap::Swapper;
use crate::swap::swapper::{Running, Site};
use pelton_connect::{CommitTarget, Sink, SinkContext, open_sink, shows_at_once, sink_shards};
use pelton_core::Epoch;
use pelton_core::swap::Versions;
use pelton_pipeline::graph::{Graph, Transform};
use pelton_pipeline::options::{Backend, Delivery};
use pelton_pipeline::physical::{Physical, StageKind};
use pelton_plugin::Plugin;
use pelton_state::Scratch;
use pelton_state::durable::Checkpoints;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;

/// Binds a graph and lays it out; with checkpoints as the last one has it.
pub(super) async fn lay_out(
    graph: Graph,
    plugins: &[Arc<Plugin>],
    options: RunOptions,
    checkpoints: Option<&CheckpointOptions>,
) -> Result<Resumed, Failure> {
    let (stop, stop_seen) = watch::channel(StopMode::Run);
    let (stop_reading, reading_stops) = watch::channel(false);
    let state_limit = state_share(&graph) as usize;
    let binder =
        Binder { graph: &graph, written: &graph, file: options.file.clone(), plugins, parallelism: options.parallelism, state_limit };
    let bound = binder.bind(|node| options.source_context(node.name.clone(), &reading_stops)).await?;
    let Bound { graph, nodes, mut sources, known } = bound;
    let tables = Arc::new(read_tables(&graph, &nodes, &options, &reading_stops).await?);
    let (watched, wishes) = checkpoints.map(|_| CheckpointProgress::new()).map(|(progress, wishes)| (Arc::new(progress), wishes)).unzip();
    let progress = Arc::new(Progress::new(&graph, &nodes, watched));
    let crasher = Crasher { cancel: Arc::new(watch::channel(false).0), crashed: Arc::new(AtomicBool::new(false)) };
    let unbounded = nodes.iter().any(|node| matches!(node.plan, OperatorPlan::Source { bounded: false }));
    let mut layout = Layout {
        physical: Physical::of(&graph),
        graph: Arc::new(graph),
        bound: Arc::new(nodes),
        options,
        progress: progress.clone(),
        unbounded,
        stop: stop_seen,
        tables,
        durable: None,
        scratch: None,
        crashed: crasher.crashed.clone(),
        state_limit,
    };
    layout.scratch = layout.open_scratch(checkpoints)?;
    let mut going_on = match checkpoints.zip(progress.checkpoints.clone()) {
        Some((checkpoints, watched)) => match layout.go_on(checkpoints, watched, &crasher, &mut sources).await? {
            GoesOn::From(going_on) => Some(going_on),
            GoesOn::Not(resumed) => return Ok(resumed),
        },
        None => None,
    };
    let tasks = match (layout.tasks(sources).await, &mut going_on) {
        (Ok(tasks), _) => tasks,
        (Err(failure), Some(going_on)) => return Err(going_on.driving.explain(failure).await),
        (Err(failure), None) => return Err(failure),
    };
    let resumed = going_on.as_ref().map_or(0, |going_on| going_on.resumed);
    let (mut swapper, mut driver) = (None, None);
    if let (Some(going_on), Some((watched, wishes))) = (going_on, progress.checkpoints.clone().zip(wishes)) {
        let GoingOn { driving, store, versions, .. } = *going_on;
        let site = layout.swap_site(&tasks, known);
        swapper = Some(Arc::new(Swapper::new(site, store, watched.clone(), layout.running(versions))));
        let indexes = tasks.iter().map(|task| task.index).collect();
        let retain = layout.graph.options.durable.retain;
        driver = Some(driving.driver(indexes, progress.nodes.clone(), layout.stop.clone(), retain, (watched, wishes)));
    }
    let (workers, io) = (layout.options.parallelism, layout.options.io.clone());
    let Crasher { cancel, crashed } = crasher;
    let prepared = Prepared { progress, unbounded, resumed, stop, swapper, tasks, workers, stop_reading, driver, io, cancel, crashed };
    Ok(Resumed::Run(Box::new(prepared)))
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
    durable: Option<Durable>,
    /// Where cells go that do not fit into memory, if they may leave it.
    scratch: Option<Arc<Scratch>>,
    crashed: Arc<AtomicBool>,
    /// Bytes of state for each task of a grouping.
    state_limit: usize,
}

/// What lookup joins look up in, by node.
pub(super) type Tables = Arc<HashMap<usize, Arc<lookup_join::refresh::Shared>>>;

/// The checkpoints of a pipeline that goes on.
struct GoingOn {
    driving: Driving,
    /// The epoch that it goes on from.
    resumed: Epoch,
    store: Arc<Checkpoints>,
    versions: Versions,
}

/// Whether a pipeline goes on.
enum GoesOn {
    From(Box<GoingOn>),
    Not(Resumed),
}

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
    /// Recovers: the state of tasks, and where sources are.
    async fn go_on(
        &mut self,
        checkpoints: &CheckpointOptions,
        watched: Arc<CheckpointProgress>,
        crasher: &Crasher,
        sources: &mut HashMap<usize, Box<dyn pelton_connect::Source>>,
    ) -> Result<GoesOn, Failure> {
        let nodes = Arc::new(self.node_entries());
        let start = match start(self.starting(nodes.clone()), checkpoints).await? {
            Started::Run(start) => *start,
            Started::Ended(epoch) => return Ok(GoesOn::Not(Resumed::Ended(epoch))),
            Started::Otherwise(versions) => return Ok(GoesOn::Not(Resumed::Otherwise(versions))),
        };
        let (store, versions, resumed) = (start.store.clone(), start.keep.versions.clone(), start.epoch - 1);
        let counting = |crashes| Arc::new(Counter::new(crashes, watched.clone(), resumed, crasher.clone()));
        let counter = checkpoints.crashes.clone().map(counting);
        let overlay = Overlay::new(self.state_memory(), watched.clone());
        let (durable, mut driving) = wire(start, nodes, overlay, counter);
        driving.plans(self.restore_sources(&durable.restored, sources)?);
        for (node, restored) in durable.restored.iter() {
            restored.counts.add_to(&self.progress.nodes[*node]);
        }
        self.durable = Some(durable);
        Ok(GoesOn::From(Box::new(GoingOn { driving, resumed, store, versions })))
    }

    async fn tasks(&self, sources: HashMap<usize, Box<dyn pelton_connect::Source>>) -> Result<Vec<TaskPlan>, Failure> {
        let mut feeds = self.feeds(sources)?;
        let exits = self.exits(&mut feeds);
        let mut plans = Vec::new();
        for (number, ((stage, feeds), exits)) in self.physical.stages.iter().zip(feeds).zip(exits).enumerate() {
            let of = feeds.len();
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
                    of,
                    budgets: HashMap::new(),
                    base_dir: self.options.base_dir.clone(),
                    io: self.options.io.clone(),
                    stop: self.stop.clone(),
                    gates: Vec::new(),
                    tables: self.tables.clone(),
                    links: self.durable.as_ref().map(|durable| (plans.len(), durable.links.clone())),
                    sink_by_epochs: self.durable.is_some(),
                    crashed: self.crashed.clone(),
                    scratch: self.scratch.clone(),
                    snapshot: self.durable.as_ref().and_then(|durable| durable.snapshot.clone()),
                    restored: self.durable.as_ref().map(|durable| durable.restored.clone()).unwrap_or_default(),
                });
            }
        }
        self.share_budgets(&mut plans)?;
        Ok(plans)
    }

    /// What each task of each stage will read.
    fn feeds(&self, mut sources: HashMap<usize, Box<dyn pelton_connect::Source>>) -> Result<Vec<Vec<Feed>>, Failure> {
        let feeds = self.physical.stages.iter().map(|stage| match stage.kind {
            StageKind::Source => {
                let source = sources.remove(&stage.head).expect("every source was opened");
                let transform = || self.graph.nodes[stage.head].name.clone();
                let readers = source.readers(self.options.parallelism);
                let readers = readers.map_err(|error| Failure::Connect { transform: transform(), error })?;
                Ok(readers.into_iter().map(Feed::Reader).collect())
            }
            StageKind::Keyed | StageKind::Spread | StageKind::Sided | StageKind::Sink => {
                Ok((0..self.width(stage.head)).map(|_| Feed::Channels(Vec::new())).collect())
            }
        });
        feeds.collect()
    }

    /// The edges out of each task of each stage: one channel for each producing and consuming task of an exchange.
    fn exits(&self, feeds: &mut [Vec<Feed>]) -> Vec<Vec<Vec<Exit>>> {
        let mut exits: Vec<Vec<Vec<Exit>>> = feeds.iter().map(|tasks| tasks.iter().map(|_| Vec::new()).collect()).collect();
        for (target, stage) in self.physical.stages.iter().enumerate() {
            for (number, input) in self.graph.nodes[stage.head].inputs.iter().enumerate() {
                let port = self.bound[input.node].ports.iter().position(|port| *port == input.output).expect("checked when bound");
                let producers = self.physical.stages.iter().zip(&mut exits).filter(|(producer, _)| producer.nodes.contains(&input.node));
                for task_exits in producers.flat_map(|(_, tasks)| tasks) {
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
        exits
    }

    /// Gives each task its part of every `error_handling.threshold`.
    fn share_budgets(&self, plans: &mut [TaskPlan]) -> Result<(), Failure> {
        for node in &self.graph.nodes {
            let (Some(threshold), Some(port)) = (node.error_threshold, self.bound[node.id].refusals.port) else { continue };
            let source = matches!(node.transform, Transform::Source { .. });
            let tasks: Vec<&mut TaskPlan> = plans.iter_mut().filter(|plan| plan.nodes.contains(&node.id)).collect();
            let budget = Arc::new(ErrorBudget::new(node.name.clone(), threshold, self.bound[node.id].window_fn, tasks.len()));
            if let Some(restored) = self.durable.as_ref().and_then(|durable| durable.restored.get(&node.id)) {
                budget.restore(&restored.unkeyed)?;
            }
            for (number, plan) in tasks.into_iter().enumerate() {
                plan.budgets.insert(node.id, TaskBudget { budget: budget.clone(), task: number, port, source });
            }
        }
        Ok(())
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
            _ if self.bound[head].sides.is_some() => self.options.parallelism,
            _ => 1,
        }
    }

    /// Bytes that cells may take in memory, of all tasks.
    fn state_memory(&self) -> u64 {
        let durable = &self.graph.options.durable;
        durable.cache.filter(|_| durable.backend == Backend::Fjall).unwrap_or_else(|| state_share(&self.graph))
    }

    /// Opens the store of cells that do not fit into memory, if the pipeline wants one.
    fn open_scratch(&self, checkpoints: Option<&CheckpointOptions>) -> Result<Option<Arc<Scratch>>, Failure> {
        let durable = &self.graph.options.durable;
        if durable.backend == Backend::Memory {
            return Ok(None);
        }
        let mut users = 0;
        for (node, bound) in self.graph.nodes.iter().zip(self.bound.iter()) {
            let evicts = matches!(bound.plan, OperatorPlan::Combine(_) | OperatorPlan::Stateful(_));
            users += if evicts { self.tasks_of(node.id) } else { 0 };
            let keeps = matches!(bound.plan, OperatorPlan::Join(_) | OperatorPlan::TimedJoin(_) | OperatorPlan::Lookup(_));
            if keeps || bound.sides.is_some() {
                tracing::warn!(
                    transform = node.name,
                    "the rows that this transform waits with or looks up stay in memory, under `options.pelton.memory`, also with the backend `fjall`"
                );
            }
        }
        let parent = checkpoints.map_or_else(|| std::env::temp_dir().join("pelton"), |checkpoints| checkpoints.state.clone());
        let opened = Scratch::open(&parent.join("scratch"), self.state_memory(), users);
        opened.map(Some).map_err(|error| Failure::Scratch { transform: self.graph.name.clone(), error })
    }

    /// What a swap has to know of the pipeline.
    fn swap_site(&self, tasks: &[TaskPlan], sources: Sources) -> Site {
        let mut by_node: HashMap<usize, usize> = HashMap::new();
        tasks.iter().flat_map(|task| &task.nodes).for_each(|node| *by_node.entry(*node).or_default() += 1);
        let mut guests = by_node.clone();
        tasks.iter().flat_map(TaskPlan::lifted).for_each(|node| *guests.entry(node).or_default() += 1);
        let visible = |(node, bound): (&pelton_pipeline::graph::Node, &BoundNode)| match &bound.plan {
            OperatorPlan::Sink { kind, .. } => (!self.by_epochs(kind)).then(|| node.name.clone()),
            _ => None,
        };
        Site {
            file: self.options.file.clone(),
            parallelism: self.options.parallelism,
            state_limit: self.state_limit,
            sources,
            tasks: by_node,
            guests,
            metrics: self.progress.nodes.clone(),
            evicts: self.scratch.is_some(),
            visible_sinks: self.graph.nodes.iter().zip(self.bound.iter()).filter_map(visible).collect(),
        }
    }

    fn running(&self, versions: Versions) -> Running {
        let restored = self.durable.iter().flat_map(|durable| durable.restored.iter());
        let books = restored.filter_map(|(node, restored)| Some((*node, restored.evolved.as_ref()?.book.clone()))).collect();
        Running { graph: (*self.graph).clone(), nodes: (*self.bound).clone(), versions, books }
    }

    /// What manifests say of the nodes.
    fn node_entries(&self) -> Vec<NodeEntry> {
        let uids = &self.graph.options.durable.uids;
        let entry = |(node, bound): (&pelton_pipeline::graph::Node, &BoundNode)| NodeEntry {
            uid: uids.get(&node.name).unwrap_or(&node.name).clone(),
            kind: node.transform.kind().to_string(),
            tasks: self.tasks_of(node.id),
            plugin: bound.refusals.plugin.clone(),
            is_sink: matches!(bound.plan, OperatorPlan::Sink { .. }),
            declared: bound.declared(),
        };
        self.graph.nodes.iter().zip(self.bound.iter()).map(entry).collect()
    }

    /// Tasks of the stage that a node with keyed state is the head of; of other nodes it does not matter.
    fn tasks_of(&self, node: usize) -> usize {
        let stage = self.physical.stages.iter().find(|stage| stage.head == node);
        stage.map_or(1, |stage| if stage.kind == StageKind::Source { self.options.parallelism } else { self.width(node) })
    }

    fn starting(&self, nodes: Arc<Vec<NodeEntry>>) -> Starting<'_> {
        let durable = &self.graph.options.durable;
        let sinks = self.graph.nodes.iter().zip(self.bound.iter()).filter_map(|(node, bound)| match &bound.plan {
            OperatorPlan::Sink { kind, config } if self.by_epochs(kind) => Some(CommitTarget {
                uid: nodes[node.id].uid.clone(),
                transform: node.name.clone(),
                kind: kind.clone(),
                config: config.clone(),
                base_dir: self.options.base_dir.clone(),
            }),
            _ => None,
        });
        let reading = if self.scratch.is_some() { Reading::Later } else { Reading::Now };
        Starting { name: &self.graph.name, sinks: sinks.collect(), nodes, interval: durable.interval, reading, io: self.options.io.clone() }
    }

    /// Whether the rows of a sink become visible by epochs, if the pipeline takes checkpoints.
    fn by_epochs(&self, sink: &str) -> bool {
        self.graph.options.durable.delivery == Delivery::ExactlyOnce || !shows_at_once(sink)
    }

    /// Puts sources where they were; gives what each wants to remember of its plan.
    fn restore_sources(
        &self,
        restored: &HashMap<usize, RestoredOperator>,
        sources: &mut HashMap<usize, Box<dyn pelton_connect::Source>>,
    ) -> Result<HashMap<usize, Vec<u8>>, Failure> {
        let mut plans = HashMap::new();
        for (node, source) in sources {
            if let Some((plan, positions)) = restored.get(node).and_then(|restored| restored.read.as_ref()) {
                let put = source.restore(plan, positions.clone());
                put.map_err(|error| Failure::Connect { transform: self.graph.nodes[*node].name.clone(), error })?;
            }
            plans.insert(*node, source.plan());
        }
        Ok(plans)
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
            exactly_once: self.durable.as_ref().filter(|_| self.by_epochs(kind)).map(|durable| durable.exactly_once(head, shard)),
        };
        open_sink(kind, config, context).await.map_err(|error| Failure::Connect { transform: node.name.clone(), error })
    }
}
