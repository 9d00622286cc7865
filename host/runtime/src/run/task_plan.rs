//! A task before it runs: its operators and what they go on from.
//!
//! Invariant: operators are made on the worker that runs them, and hold what they held before the first row comes.

use super::layout::Tables;
use super::{DEFAULT_DELAY, DEFAULT_IDLE_TIMEOUT, Progress, StopMode};
use crate::alignment::Gate;
use crate::bind::{BoundNode, OperatorPlan};
use crate::channel::{Inputs, Receiver, Sender};
use crate::checkpoint::Links;
use crate::checkpoint::load::portions;
use crate::checkpoint::restored::RestoredOperator;
use crate::checkpoint::seals::Seals;
use crate::counts::Counts;
use crate::error_budget::TaskBudget;
use crate::exchange::{Division, Exchange, KeyDivision};
use crate::failure::Failure;
use crate::lift::{Lift, can_lift};
use crate::message::{Barrier, End};
use crate::operator::Operator;
use crate::operators::combine::CombinePlan;
use crate::operators::sink::SinkOperator;
use crate::operators::{combine, join, lookup_join, match_all, plugin, set_watermark, sided, stateful, stateless, timed_join, timestamps};
use crate::source_task::{Head, Room, SourceTask, run_source};
use crate::splits::Splits;
use crate::task::{Operators, Route, Slot, run_fed};
use crate::unkeyed::latest_watermark;
use pelton_connect::{Reader, Sink};
use pelton_core::Instant;
use pelton_core::key::{KeyEncoder, Keys};
use pelton_core::watermark::{Merged, Policy};
use pelton_pipeline::graph::{Graph, Transform};
use pelton_state::durable::Snapshot;
use pelton_state::{Rows, Scratch};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch;

/// Where the rows of an output of a node go.
type Routes = HashMap<(usize, usize), Vec<Route>>;

/// A task that is to run.
pub(super) struct TaskPlan {
    pub(super) worker: usize,
    pub(super) nodes: Vec<usize>,
    pub(super) bound: Arc<Vec<BoundNode>>,
    pub(super) graph: Arc<Graph>,
    pub(super) progress: Arc<Progress>,
    pub(super) feed: Feed,
    pub(super) sink: Option<Box<dyn Sink>>,
    pub(super) exits: Vec<Exit>,
    /// Number among the tasks of its stage, and how many those are.
    pub(super) index: usize,
    pub(super) of: usize,
    /// What its transforms may refuse, by node.
    pub(super) budgets: HashMap<usize, TaskBudget>,
    pub(super) base_dir: PathBuf,
    pub(super) io: tokio::runtime::Handle,
    pub(super) stop: watch::Receiver<StopMode>,
    /// Groups that this source task keeps pace with.
    pub(super) gates: Vec<Gate>,
    pub(super) tables: Tables,
    /// Number among all tasks, and what checkpoints need.
    pub(super) links: Option<(usize, Links)>,
    /// Set when the process is to look as if it had died.
    pub(super) crashed: Arc<AtomicBool>,
    /// Its sink shows rows by epochs.
    pub(super) sink_by_epochs: bool,
    pub(super) scratch: Option<Arc<Scratch>>,
    /// Where it reads rows of state itself; until it has.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// What the task goes on from, by node.
    pub(super) restored: Arc<HashMap<usize, RestoredOperator>>,
}

/// An edge out of a task.
pub(super) struct Exit {
    pub(super) node: usize,
    pub(super) port: usize,
    /// Head of the consuming stage, and which of its inputs this is.
    pub(super) head: usize,
    pub(super) input: usize,
    /// One channel for each task of that stage.
    pub(super) targets: Vec<Sender>,
}

/// What a task reads.
pub(super) enum Feed {
    Reader(Box<dyn Reader>),
    /// Which input of the head each one feeds, and the channel.
    Channels(Vec<(usize, Receiver)>),
}

impl TaskPlan {
    /// Makes the operators; called on the worker that will run them.
    fn operators(&mut self, cancelled: watch::Receiver<bool>) -> Result<Operators, Failure> {
        let (exchanges, mut routes) = self.exchanges()?;
        self.local_routes(&mut routes);
        let mut slots = Vec::with_capacity(self.nodes.len());
        for (number, node) in self.nodes.clone().into_iter().enumerate() {
            let inputs = self.inputs(number, node);
            let mut operator = self.operator(node)?;
            if let Some(plan) = &self.bound[node].sides {
                let (metrics, refusals) = (self.progress.nodes[node].clone(), self.bound[node].refusals.clone());
                let task = (self.index, self.of);
                operator = Box::new(sided::Sided::new(plan.clone(), operator, self.inputs_of_head(), task, metrics, refusals)?);
            }
            if let Some(scratch) = &self.scratch {
                operator.evict_to(scratch)?;
            }
            slots.push(Slot {
                node,
                task: self.index,
                barriers: 0,
                evicts: self.scratch.is_some(),
                counts: Counts::new(self.bound[node].ports.len()),
                operator,
                budget: self.budgets.remove(&node),
                metrics: self.progress.nodes[node].clone(),
                routes: (0..self.bound[node].ports.len()).map(|port| routes.remove(&(node, port)).unwrap_or_default()).collect(),
                merged: Merged::new(inputs.len()),
                open: inputs.len(),
                inputs,
                end: End::Drained,
            });
        }
        let seals = self.links.as_ref().map(|(task, links)| Seals::new(*task, links));
        Ok(Operators { slots, exchanges, seals, cancelled, crashed: self.crashed.clone() })
    }

    /// The exchanges of its exits, and the routes to them.
    fn exchanges(&mut self) -> Result<(Vec<Exchange>, Routes), Failure> {
        let mut exchanges = Vec::new();
        let mut routes = Routes::new();
        for exit in std::mem::take(&mut self.exits) {
            routes.entry((exit.node, exit.port)).or_default().push(Route::Remote { exchange: exchanges.len() });
            let (division, lift) = (self.division(&exit)?, self.lift(&exit)?);
            exchanges.push(Exchange { division, targets: exit.targets, lift });
        }
        Ok((exchanges, routes))
    }

    /// Which task of the next stage gets a row.
    fn division(&self, exit: &Exit) -> Result<Division, Failure> {
        let Exit { head, input, .. } = *exit;
        let by_key = match &self.bound[head].plan {
            OperatorPlan::Combine(plan) => Some((&plan.group_by, &plan.group_types)),
            OperatorPlan::Join(plan) => Some((&plan.sides[input].keys, &plan.sides[input].key_types)),
            OperatorPlan::Stateful(plan) => Some((&plan.key, &plan.key_types)),
            OperatorPlan::TimedJoin(plan) => Some((&plan.sides[input].keys, &plan.sides[input].key_types)),
            _ => None,
        };
        Ok(match by_key {
            _ if self.graph.nodes[head].is_side(input) => Division::ToAll,
            Some((keys, types)) => Division::ByKey(Box::new(KeyDivision {
                transform: self.graph.nodes[head].name.clone(),
                group_by: keys.clone(),
                encoder: KeyEncoder::new(types).map_err(|message| self.internal(head, message))?,
                keys: Keys::default(),
            })),
            // Producers begin at different tasks.
            None if matches!(self.bound[head].plan, OperatorPlan::Reshuffle { .. }) => Division::InTurn(self.index),
            None => Division::To(self.index),
        })
    }

    /// The groupings for which it aggregates before rows cross, once for each edge.
    pub(super) fn lifted(&self) -> impl Iterator<Item = usize> {
        self.exits.iter().filter(|exit| self.lifts(exit).is_some()).map(|exit| exit.head)
    }

    /// The grouping for which rows are aggregated before they cross; one task that aggregates what it reads itself has nothing to gain.
    fn lifts(&self, exit: &Exit) -> Option<&CombinePlan> {
        match &self.bound[exit.head].plan {
            OperatorPlan::Combine(plan) => {
                Some(&**plan).filter(|plan| can_lift(plan) && (exit.targets.len() > 1 || plan.group_by.is_empty()))
            }
            _ => None,
        }
    }

    /// What aggregates there.
    fn lift(&self, exit: &Exit) -> Result<Option<Box<Lift>>, Failure> {
        let head = exit.head;
        let Some(plan) = self.lifts(exit) else { return Ok(None) };
        let mut lift = Lift::new(plan, &self.graph.nodes[head].name)?;
        (lift.node, lift.metrics) = (head, Some(self.progress.nodes[head].clone()));
        // As far as event time had come there, rows are late there.
        if let Some(restored) = self.restored.get(&head) {
            lift.passed(latest_watermark(&restored.unkeyed)?);
        }
        Ok(Some(Box::new(lift)))
    }

    /// Routes between its own operators.
    fn local_routes(&self, routes: &mut Routes) {
        for (slot, node) in self.nodes.iter().enumerate().skip(1) {
            for (input, from) in self.graph.nodes[*node].inputs.iter().enumerate().filter(|(_, from)| self.nodes.contains(&from.node)) {
                let port = self.bound[from.node].ports.iter().position(|port| *port == from.output).expect("checked when bound");
                routes.entry((from.node, port)).or_default().push(Route::Local { slot, input });
            }
        }
    }

    /// Each logical input of an operator with its number here: channels of the head, and what comes from operators of this task.
    fn inputs(&self, number: usize, node: usize) -> Vec<(usize, usize)> {
        match (&self.feed, number) {
            (Feed::Channels(receivers), 0) => (0..receivers.len()).map(|input| (input, input)).collect(),
            (Feed::Reader(_), 0) => Vec::new(),
            _ => {
                let here = self.graph.nodes[node].inputs.iter().enumerate().filter(|(_, input)| self.nodes.contains(&input.node));
                here.enumerate().map(|(number, (logical, _))| (logical, number)).collect()
            }
        }
    }

    /// Fills the operators with what they held, and has them keep what changes.
    async fn restore(&self, operators: &mut Operators) -> Result<(), Failure> {
        if self.links.is_none() {
            return Ok(());
        }
        for slot in &mut operators.slots {
            let none = RestoredOperator::default();
            let restored = self.restored.get(&slot.node).unwrap_or(&none);
            let transform = &self.graph.nodes[slot.node].name;
            let refused = |error| Failure::Checkpoint { message: format!("transform `{transform}`: {error}"), refused: true };
            let mut result = Ok(());
            slot.operator.visit_cells(&mut |name, cells| {
                if let Some(layout) = restored.layouts.get(name).filter(|_| result.is_ok()) {
                    result = cells.check_layout(layout);
                }
            });
            result.map_err(refused)?;
            let mut restore = |name: &str, rows: &Rows| {
                let mut result = Ok(());
                slot.operator.visit_cells(&mut |of, cells| {
                    if of == name {
                        result = cells.restore(rows.iter());
                    }
                });
                result.map_err(refused)?;
                slot.operator.make_room()
            };
            for (name, portions) in restored.cells.get(self.index).into_iter().flatten() {
                portions.iter().try_for_each(|rows| restore(name, rows))?;
            }
            if let Some(((uid, tasks), snapshot)) =
                restored.later.as_ref().zip(self.snapshot.as_ref()).filter(|((_, tasks), _)| self.index < *tasks)
            {
                for name in restored.layouts.keys() {
                    let mut portions = portions(snapshot.clone(), (uid.clone(), name.clone()), (self.index, *tasks), &self.io);
                    while let Some(rows) = portions.recv().await {
                        if *operators.cancelled.borrow() {
                            return Err(Failure::Cancelled);
                        }
                        restore(name, &rows?)?;
                    }
                }
            }
            slot.operator.visit_cells(&mut |_, cells| cells.record());
            slot.operator.restore(&restored.unkeyed)?;
        }
        Ok(())
    }

    fn internal(&self, node: usize, message: String) -> Failure {
        Failure::Internal { transform: self.graph.nodes[node].name.clone(), message }
    }

    fn operator(&mut self, node: usize) -> Result<Box<dyn Operator>, Failure> {
        let bound = match stateless(self.bound[node].clone()) {
            Ok(operator) => return Ok(operator),
            Err(bound) => bound.counting_in(&self.progress.nodes[node].plugin),
        };
        let (refusals, window_fn) = (bound.refusals, bound.window_fn);
        Ok(match bound.plan {
            OperatorPlan::Source { .. } => Box::new(Head),
            OperatorPlan::Sink { .. } => Box::new(SinkOperator {
                sink: self.sink.take(),
                summaries: self.progress.summaries.clone(),
                metrics: self.progress.nodes[node].clone(),
                window_fn,
                refusals,
                ticked: Instant::MIN,
                by_epochs: self.sink_by_epochs,
            }),
            OperatorPlan::Plugin { binding, ports } => {
                let instance = binding.open().map_err(|error| Failure::Plugin { transform: refusals.transform.clone(), error })?;
                Box::new(plugin::Plugin {
                    binding,
                    instance: Some(instance),
                    ports,
                    window_fn,
                    metrics: self.progress.nodes[node].clone(),
                    counted: Default::default(),
                    refusals,
                })
            }
            OperatorPlan::Stateful(plan) => {
                let evolved = self.restored.get(&node).and_then(|restored| restored.evolved.clone());
                Box::new(stateful::Stateful::new(*plan, evolved, self.progress.nodes[node].clone(), refusals)?)
            }
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
            OperatorPlan::Combine(plan) => {
                let evolved = self.restored.get(&node).and_then(|restored| restored.evolved.clone());
                let combine = combine::Combine::new(*plan, self.progress.windows.clone(), refusals)?.going_on(evolved.as_deref());
                Box::new(combine.with_metrics(self.progress.nodes[node].clone()))
            }
            OperatorPlan::Join(plan) => Box::new(join::Join::new(*plan, self.inputs_of_head(), self.progress.windows.clone(), refusals)?),
            OperatorPlan::Lookup(plan) => {
                let table = self.tables[&node].clone();
                Box::new(lookup_join::LookupJoin::new(*plan, table, self.progress.nodes[node].clone(), refusals)?)
            }
            OperatorPlan::TimedJoin(plan) => Box::new(timed_join::TimedJoin::new(*plan, self.inputs_of_head(), refusals)?),
            OperatorPlan::MatchAll { column, empty } => {
                Box::new(match_all::MatchAll { column, empty, base_dir: self.base_dir.clone(), io: self.io.clone(), refusals })
            }
            _ => return Err(self.internal(node, "no operator is known for it".into())),
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

    /// From the first row to the end of input, on the worker.
    pub(super) async fn run(mut self, cancelled: watch::Receiver<bool>) -> Result<(), Failure> {
        let operators = match self.operators(cancelled) {
            Ok(mut operators) => self.restore(&mut operators).await.map(|()| operators),
            Err(failure) => Err(failure),
        };
        // From here on its files may go.
        self.snapshot = None;
        let operators = match operators {
            Ok(operators) => operators,
            Err(failure) => {
                if let Some(sink) = self.sink.take() {
                    sink.abort().await;
                }
                return Err(failure);
            }
        };
        if let Some(checkpoints) = &self.progress.checkpoints {
            checkpoints.epochs.recovered();
        }
        let policy = self.policy();
        let head = self.nodes[0];
        let samples = !self.nodes.iter().any(|node| matches!(self.graph.nodes[*node].transform, Transform::AssignTimestamps { .. }));
        match self.feed {
            Feed::Channels(receivers) => {
                run_fed(operators, Inputs::new(receivers.into_iter().map(|(_, receiver)| receiver).collect())).await
            }
            Feed::Reader(reader) => {
                let (barriers, decided, counter, room) = match self.links {
                    Some((_, links)) => (links.barriers, links.decided, links.counter, Some(Room::new(links.overlay))),
                    None => (watch::channel(Barrier::default()).1, watch::channel(0).1, None, None),
                };
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
                        barriers,
                        decided,
                        counter,
                        watermarks: self.restored.get(&head).map(|restored| restored.unkeyed.clone()).unwrap_or_default(),
                        paused: Default::default(),
                        room,
                    },
                )
                .await
            }
        }
    }
}
