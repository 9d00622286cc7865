//! Ties a laid-out pipeline to its checkpoints.

use super::Links;
use super::contents::Collector;
use super::crashes::Counter;
use super::driver::{CheckpointProgress, Driver, Wish, overtaken};
use super::keep::{NodeEntry, StoreKeep};
use super::overlay::Overlay;
use super::restored::RestoredOperator;
use super::seals::TaskReport;
use super::start::Start;
use crate::failure::Failure;
use crate::message::Barrier;
use crate::metrics::NodeMetrics;
use crate::run::StopMode;
use pelton_connect::{Committer, Decider, ExactlyOnce, Identity};
use pelton_core::Epoch;
use pelton_core::checkpoint::{Coordinator, Life, Settings};
use pelton_state::durable::Snapshot;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// A barrier in flight for so many intervals is reported as slow.
const SLOW_INTERVALS: u32 = 10;

/// What tasks need of checkpoints.
pub struct Durable {
    /// To the driver and back.
    pub links: Links,
    /// What tasks go on from, by node.
    pub restored: Arc<HashMap<usize, RestoredOperator>>,
    /// Where they read rows themselves.
    pub snapshot: Option<Arc<Snapshot>>,
    identity: Identity,
    shared: HashMap<String, Arc<dyn Any + Send + Sync>>,
    nodes: Arc<Vec<NodeEntry>>,
}

/// What becomes the driver once the tasks are known.
pub struct Driving {
    decider: Box<dyn Decider>,
    committers: Vec<(String, Box<dyn Committer>)>,
    keep: StoreKeep,
    identity: Identity,
    epoch: Epoch,
    reports: mpsc::UnboundedReceiver<TaskReport>,
    barriers: watch::Sender<Barrier>,
    decided: watch::Sender<Epoch>,
    nodes: Arc<Vec<NodeEntry>>,
    /// By node: what was counted before this start.
    before: BTreeMap<usize, Vec<(String, Vec<u8>)>>,
}

/// Takes a start apart: for tasks, and for the driver.
pub fn wire(start: Start, nodes: Arc<Vec<NodeEntry>>, overlay: Overlay, counter: Option<Arc<Counter>>) -> (Durable, Driving) {
    let Start { store: _, identity, epoch, restored, snapshot, decider, committers, shared, keep } = start;
    let (reporting, reports) = mpsc::unbounded_channel();
    let (barriers, barriers_seen) = watch::channel(Barrier::default());
    let (decided, decided_seen) = watch::channel(0);
    let before = restored.iter().map(|(node, restored)| (*node, restored.counts.partitions())).collect();
    let durable = Durable {
        links: Links { epoch, reports: reporting, barriers: barriers_seen, decided: decided_seen, overlay: Arc::new(overlay), counter },
        restored: Arc::new(restored),
        snapshot,
        identity: identity.clone(),
        shared: shared.into_iter().collect(),
        nodes: nodes.clone(),
    };
    (durable, Driving { decider, committers, keep, identity, epoch, reports, barriers, decided, nodes, before })
}

impl Durable {
    /// What a shard of a sink is given.
    pub fn exactly_once(&self, node: usize, shard: usize) -> ExactlyOnce {
        let uid = self.nodes[node].uid.clone();
        let restored = self.restored.get(&node).and_then(|restored| restored.staged.get(shard)).cloned();
        let shared = self.shared.get(&uid).cloned();
        ExactlyOnce { identity: self.identity.clone(), uid, epoch: self.links.epoch, restored, shared }
    }
}

impl Driving {
    /// What sources want to remember of their plans, by node.
    pub fn plans(&mut self, plans: HashMap<usize, Vec<u8>>) {
        self.keep.plans = plans;
    }

    /// Why the tasks could not be made: another process may have taken over meanwhile.
    pub async fn explain(&mut self, failure: Failure) -> Failure {
        overtaken(&mut *self.decider).await.unwrap_or(failure)
    }

    /// For tasks, each by its number among those of its stage.
    pub fn driver(
        self,
        indexes: Vec<usize>,
        metrics: Vec<Arc<NodeMetrics>>,
        stop: watch::Receiver<StopMode>,
        retained: u64,
        (progress, wishes): (Arc<CheckpointProgress>, mpsc::UnboundedReceiver<Wish>),
    ) -> Driver {
        let Driving { before, decider, committers, keep, identity, epoch, reports, barriers, decided, nodes } = self;
        let interval = identity.interval;
        let settings = Settings { interval, slow_after: interval * SLOW_INTERVALS, retained };
        let node_of = |uid: &str| nodes.iter().position(|node| node.uid == uid).unwrap_or_default();
        let followers: Vec<_> = committers.into_iter().map(|(uid, committer)| (uid.clone(), node_of(&uid), committer)).collect();
        let coordinator = Coordinator::new(
            Life { pipeline: identity.pipeline.clone(), generation: identity.generation },
            settings,
            indexes.len(),
            followers.len(),
            epoch - 1,
            Duration::ZERO,
        );
        Driver {
            coordinator,
            collector: Collector::new(indexes, before),
            reports,
            barriers,
            decided,
            keep: Box::new(keep),
            decider,
            followers,
            staged: HashMap::new(),
            nodes: metrics,
            stop,
            progress,
            wishes,
            granted: HashMap::new(),
            cutting: None,
            copies: JoinSet::new(),
        }
    }
}
