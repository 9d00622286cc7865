//! Epochs in the checkpoint store: what tasks sealed becomes a segment and a manifest.

use super::contents::{OperatorContents, partition_in_task};
use super::driver::{Copying, Keep, Kept, NewNode};
use super::outbox;
use crate::counts::{COUNTS, METRICS};
use crate::failure::Failure;
use async_trait::async_trait;
use pelton_connect::{ConnectError, DecideError, Decider};
use pelton_core::evolution::Declared;
use pelton_core::swap::{Armed, Positions, Versions};
use pelton_core::{Decision, Epoch};
use pelton_state::Layout;
use pelton_state::durable::{
    self, Checkpoints, Contents, EpochState, NOW, OperatorEntry, SinkEntry, SourceEntry, StagedEntry, StateEntry, StateParts, StateRows,
    StoreError, StoredEpoch,
};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The name of an operator's unkeyed state.
pub const UNKEYED: &str = "unkeyed";
/// The name under which its counts are kept: no state that would be missed.
pub const COUNTED: &str = "counts";
/// Version of the hash that gives keys their groups: xxh3-64 of canonical key bytes.
pub const HASH_VERSION: u32 = 1;

/// What a manifest says of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeEntry {
    /// What it is matched by.
    pub uid: String,
    /// Its transform type.
    pub kind: String,
    /// Its tasks.
    pub tasks: usize,
    /// Digest of its plugin.
    pub plugin: Option<String>,
    /// It is a sink.
    pub is_sink: bool,
    /// What its plugin keeps.
    pub declared: Option<Declared>,
}

/// Keeps epochs in a store.
pub struct StoreKeep {
    store: Arc<Checkpoints>,
    nodes: Arc<Vec<NodeEntry>>,
    /// Uids whose stored state was dropped: in the next epoch theirs begins anew.
    pub anew: HashSet<String>,
    /// Of sources, by node.
    pub plans: HashMap<usize, Vec<u8>>,
    decider: String,
    /// The last prepared epoch, for whoever decides it.
    prepared: Arc<Mutex<Option<StoredEpoch>>>,
    /// By what the next epoch is processed.
    pub versions: Versions,
    /// What this start was told to drop.
    pub dropped: Vec<String>,
    /// The outbox, where the store is elsewhere and keeps what is in it, too.
    pub outbox: Option<PathBuf>,
    /// What changes with the epoch that is persisted next.
    cut: Option<(Armed, Vec<(usize, NewNode)>)>,
    /// One merge of segments at a time.
    compaction: Option<tokio::task::JoinHandle<()>>,
    /// Nobody needs what is being merged any more: the pipeline is at its end, or recovers.
    over: Arc<AtomicBool>,
}

impl StoreKeep {
    /// For a pipeline of these nodes.
    pub fn new(store: Arc<Checkpoints>, nodes: Arc<Vec<NodeEntry>>, decider: String) -> StoreKeep {
        StoreKeep {
            store,
            nodes,
            anew: HashSet::new(),
            plans: HashMap::new(),
            decider,
            prepared: Arc::default(),
            versions: Versions::default(),
            dropped: Vec::new(),
            outbox: None,
            cut: None,
            compaction: None,
            over: Arc::default(),
        }
    }

    /// Decides in the store itself.
    pub fn decider(&self) -> LocalDecider {
        LocalDecider { store: self.store.clone(), prepared: self.prepared.clone() }
    }

    fn split(&mut self, ended: bool, operators: Vec<OperatorContents>) -> (Contents, EpochState) {
        let mut contents = Contents {
            decider: self.decider.clone(),
            ended,
            hash_version: HASH_VERSION,
            key_groups: pelton_core::key::KEY_GROUPS,
            time_zones: pelton_core::calendar::TIME_ZONES_VERSION.into(),
            dropped: self.dropped.clone(),
            ..Contents::default()
        };
        let mut state = EpochState::default();
        for operator in operators {
            let node = &self.nodes[operator.node];
            let uid = node.uid.clone();
            let mut states = Vec::new();
            for (name, (layout, rows)) in operator.cells {
                let schema = operator.book.as_ref().map(|book| book.write()).unwrap_or_default();
                states.push(StateEntry { schema, ..entry(name, layout.as_ref()) });
                if !rows.is_empty() {
                    state.rows.push(StateRows { uid: uid.clone(), name: name.into(), rows: vec![rows.sorted()] });
                }
            }
            let (counts, unkeyed): (Vec<_>, Vec<_>) =
                operator.unkeyed.into_iter().partition(|(partition, _)| matches!(partition_in_task(partition), COUNTS | METRICS));
            for (name, parts) in [(COUNTED, counts), (UNKEYED, unkeyed)] {
                if !parts.is_empty() {
                    states.push(StateEntry { name: name.into(), unkeyed: true, ..StateEntry::default() });
                    state.parts.push(StateParts { uid: uid.clone(), name: name.into(), parts });
                }
            }
            if self.anew.contains(&uid) {
                states.iter_mut().for_each(|state| state.since = NOW);
            }
            if !states.is_empty() {
                let (kind, plugin) = (node.kind.clone(), node.plugin.clone());
                contents.operators.push(OperatorEntry { uid: uid.clone(), kind, parallelism: node.tasks as u32, plugin, states });
            }
            if let Some(plan) = self.plans.get(&operator.node) {
                contents.sources.push(SourceEntry { uid: uid.clone(), plan: plan.clone(), positions: operator.positions });
            }
            if node.is_sink {
                let staged = operator.staged.into_iter().enumerate();
                let staged = staged.map(|(shard, staged)| StagedEntry { shard: shard as u32, bytes: staged.0 }).collect();
                contents.sinks.push(SinkEntry { uid, kind: node.kind.clone(), staged, outbox: Vec::new() });
            }
        }
        self.anew.clear();
        (contents, state)
    }
}

impl Drop for StoreKeep {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Where sources stand, as people read it.
fn positions(contents: &Contents) -> Positions {
    let of = |source: &SourceEntry| {
        let splits = source.positions.iter().map(|at| (at.split.clone(), String::from_utf8_lossy(&at.position).into_owned()));
        (source.uid.clone(), splits.collect())
    };
    contents.sources.iter().map(of).collect()
}

/// What a manifest says of a state.
pub fn entry(name: &str, layout: Option<&Layout>) -> StateEntry {
    let layout = layout.cloned().unwrap_or_default();
    StateEntry { name: name.into(), layout: layout.to_string(), ..StateEntry::default() }
}

#[async_trait]
impl Keep for StoreKeep {
    async fn persist(&mut self, epoch: Epoch, ended: bool, operators: Vec<OperatorContents>) -> Result<Kept, Failure> {
        // Sorting is work; this runtime has connections to serve.
        let (mut contents, state) = tokio::task::block_in_place(|| self.split(ended, operators));
        let cut = self.cut.take();
        if let Some((armed, _)) = &cut {
            self.versions = self.versions.after(armed, epoch, positions(&contents));
        }
        contents.versions = self.versions.clone();
        if let Some(folder) = &self.outbox {
            outbox::keep(&self.store, folder, epoch, &mut contents.sinks).await?;
        }
        let prepared = self.store.write_epoch(epoch, contents, state).await.map_err(Failure::store)?;
        let own = prepared.manifest.segments.iter().filter(|segment| segment.first == epoch);
        let kept = Kept { manifest: prepared.hash, bytes: own.map(|segment| segment.bytes).sum() };
        *self.prepared.lock().expect("no holder of this lock panics") = Some(prepared);
        // This epoch was processed by the old versions.
        for (node, new) in cut.into_iter().flat_map(|(_, nodes)| nodes) {
            let entry = &mut Arc::make_mut(&mut self.nodes)[node];
            (entry.plugin, entry.declared) = (new.plugin, new.declared);
        }
        Ok(kept)
    }

    async fn record(&mut self, epoch: Epoch) -> Result<(), Failure> {
        let prepared = self.prepared.lock().expect("no holder of this lock panics").clone();
        let Some(prepared) = prepared.filter(|prepared| prepared.id.epoch == epoch) else {
            return Err(Failure::Internal {
                transform: "checkpoint".into(),
                message: format!("epoch {epoch} is not the one that was prepared"),
            });
        };
        self.store.record_commit(&self.store.decision(&prepared)).await.map_err(Failure::store)?;
        if prepared.manifest.contents.ended {
            self.store.record_end().await.map_err(Failure::store)?;
        }
        if self.compaction.as_ref().is_none_or(|running| running.is_finished()) {
            let (store, over) = (self.store.clone(), self.over.clone());
            let io = tokio::runtime::Handle::current();
            self.compaction = Some(tokio::task::spawn_blocking(move || {
                if let Err(error) = io.block_on(store.compact(&prepared))
                    && !over.load(Ordering::Relaxed)
                {
                    tracing::warn!(%error, "segments were not merged; it is tried again");
                }
            }));
        }
        Ok(())
    }

    fn savepoint(&mut self, epoch: Epoch, place: &str) -> Copying {
        let internal = |message: String| Failure::Internal { transform: "savepoint".into(), message };
        let prepared = self.prepared.lock().expect("no holder of this lock panics").clone();
        let begun = match prepared.filter(|prepared| prepared.id.epoch == epoch) {
            None => Err(internal(format!("epoch {epoch} is not the one that was prepared"))),
            // It is held from now on, whatever comes after it.
            Some(prepared) => durable::storage::open(place).map(|target| (self.store.snapshot(&prepared), target)).map_err(Failure::store),
        };
        // Merging rows is work.
        let io = tokio::runtime::Handle::current();
        Box::pin(async move {
            let (snapshot, target) = begun?;
            let copied = tokio::task::spawn_blocking(move || io.block_on(snapshot.copy_to(&*target))).await;
            copied.map_err(|panic| internal(panic.to_string()))?.map_err(Failure::store)
        })
    }

    fn cut(&mut self, armed: &Armed, nodes: &[(usize, NewNode)]) {
        self.cut = Some((armed.clone(), nodes.to_vec()));
    }

    async fn swapped(&mut self, armed: &Armed) -> Versions {
        // The manifest says that it was made; this can be written at the next start too.
        if let Err(error) = self.store.record_swap(&self.versions.made(armed)).await {
            tracing::warn!(%error, "a swap was made, but could not be written to the list of swaps");
        }
        self.versions.clone()
    }

    async fn disarm(&mut self) -> Result<(), Failure> {
        self.store.disarm().await.map_err(Failure::store)
    }

    async fn collect(&mut self, keep_from: Epoch) -> Result<(), Failure> {
        self.store.collect(keep_from).await.map(drop).map_err(Failure::store)
    }
}

/// Decides in the checkpoint store, where no sink can.
pub struct LocalDecider {
    store: Arc<Checkpoints>,
    prepared: Arc<Mutex<Option<StoredEpoch>>>,
}

#[async_trait]
impl Decider for LocalDecider {
    fn describe(&self) -> String {
        self.store.place()
    }

    async fn fence(&mut self) -> Result<Option<Decision>, ConnectError> {
        // Taking the generation was the fence.
        Ok(self.store.progress().await.decided)
    }

    async fn decide(&mut self, decision: &Decision) -> Result<(), DecideError> {
        let prepared = self.prepared.lock().expect("no holder of this lock panics").clone();
        let Some(prepared) = prepared.filter(|prepared| prepared.hash == decision.manifest) else {
            return Err(DecideError::Undecided(ConnectError::internal("the epoch is not the one that was prepared")));
        };
        match self.store.decide_local(&prepared).await {
            Ok(_) => Ok(()),
            Err(StoreError::Fenced { message }) => Err(DecideError::Fenced(message)),
            Err(error) => Err(DecideError::Unknown(error.to_string())),
        }
    }

    async fn check_owner(&mut self) -> Result<(), ConnectError> {
        match self.store.check_owner().await {
            Err(StoreError::Fenced { message }) => Err(ConnectError::Fenced { message }),
            _ => Ok(()),
        }
    }
}
