//! How sinks take part in checkpoints: what they stage, who decides, who makes visible.
//!
//! Order of things for epoch N, whatever the sink:
//!
//! 1. The barrier comes: [`Sink::prepare`](crate::Sink::prepare) makes everything written since the last barrier durable and leaves it invisible. What it
//!    gives back, [`Staged`], goes into the manifest.
//! 2. The manifest is durable. [`Decider::decide`] makes it count: in one transaction with the decider's own output.
//! 3. [`Committer::commit`] makes the epoch visible at every sink that is not the decider. Doing it twice does no harm.
//!
//! After a failure: [`Decider::fence`] first, so that no earlier process can decide any more, and then what it says was
//! decided last; then [`Committer::recover`], which commits that epoch once more and removes what is staged beyond it; then sinks are opened
//! again with what they had staged ([`ExactlyOnce::restored`]).
//!
//! Invariants: output of an epoch that is not decided is never visible to a reader who reads as the sink's documentation says;
//! staged output of a decided epoch is never lost.

use crate::ConnectError;
use async_trait::async_trait;
use pelton_core::{Decision, Epoch, Generation};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a shard of a sink has made of the epochs up to a barrier, in the sink's own words: all that its committer needs, and all that the shard
/// needs to go on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged(pub Vec<u8>);

/// A file of the outbox that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// Its name in the outbox.
    pub name: String,
    /// The epoch of its rows.
    pub epoch: Epoch,
    /// Its length.
    pub bytes: u64,
}

/// Who a pipeline is, for transactional ids, rows that fence, and names of staged files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name and incarnation: `orders-7f3a…`. Of characters that file names and Kafka ids may have.
    pub pipeline: String,
    /// The life of the process.
    pub generation: Generation,
    /// The process restarts itself after a failure: of another process with the same generation, which is on a copy of the store, it is the earlier one.
    pub again: bool,
    /// Time between two barriers: how long a transaction of an epoch is open, about.
    pub interval: Duration,
    /// Where followers keep what is staged and not theirs to keep elsewhere; durable, and private to the pipeline.
    pub outbox: PathBuf,
}

/// What a sink is given when the pipeline takes checkpoints.
#[derive(Clone)]
pub struct ExactlyOnce {
    /// Who writes.
    pub identity: Identity,
    /// The uid of the sink.
    pub uid: String,
    /// The epoch that the first rows belong to.
    pub epoch: Epoch,
    /// What this shard had staged at the end of the epoch before that.
    pub restored: Option<Staged>,
    /// What the sinks of a kind share, such as a transaction: made by [`open_commits`](crate::open_commits).
    pub shared: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for ExactlyOnce {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ExactlyOnce")
            .field("identity", &self.identity)
            .field("uid", &self.uid)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Why an epoch was not decided.
#[derive(Debug)]
pub enum DecideError {
    /// A later process owns the pipeline. This one stops.
    Fenced(String),
    /// It may have been decided or not: recovery asks.
    Unknown(String),
    /// It was not decided; after recovery the epoch is made anew.
    Undecided(ConnectError),
}

/// Decides epochs.
#[async_trait]
pub trait Decider: Send {
    /// What it is, for messages: `Kafka at HOST`, `Postgres at HOST`.
    fn describe(&self) -> String;

    /// Ends what an earlier process of this pipeline left open, so that it can decide nothing more, and gives the last decision.
    async fn fence(&mut self) -> Result<Option<Decision>, ConnectError>;

    /// Makes the epoch count. All shards have prepared it, and its manifest is durable.
    async fn decide(&mut self, decision: &Decision) -> Result<(), DecideError>;

    /// Fails with [`ConnectError::Fenced`] if a later process has taken over. Asked when something else has failed: who was overtaken meets strange things.
    async fn check_owner(&mut self) -> Result<(), ConnectError>;
}

/// Makes epochs of one sink visible.
#[async_trait]
pub trait Committer: Send {
    /// Makes a decided epoch visible: `staged` has what each shard staged, in order. Idempotent.
    async fn commit(&mut self, epoch: Epoch, staged: &[Staged]) -> Result<(), ConnectError>;

    /// Brings the sink to the end of a decided epoch after a failure: commits it, and removes everything of later epochs. Idempotent. Epoch 0:
    /// nothing was ever decided.
    async fn recover(&mut self, epoch: Epoch, staged: &[Staged]) -> Result<(), ConnectError>;
}

/// A sink that will be opened, as far as its commits go.
#[derive(Clone, Debug)]
pub struct CommitTarget {
    /// The uid of the sink.
    pub uid: String,
    /// Full name of the transform.
    pub transform: String,
    /// Its `type:`.
    pub kind: String,
    /// Its config, with references to secrets.
    pub config: serde_json::Value,
    /// Relative paths start here.
    pub base_dir: PathBuf,
}

/// What deciding takes: one transaction of all sinks of a kind.
pub struct Deciding {
    /// Decides.
    pub decider: Box<dyn Decider>,
    /// By uid: what goes into [`ExactlyOnce::shared`].
    pub shared: Vec<(String, Arc<dyn Any + Send + Sync>)>,
}

/// Deciding and committing for all sinks of a pipeline.
pub struct Commits {
    /// Decides; `None`: no sink can, so the checkpoint store does.
    pub decider: Option<Box<dyn Decider>>,
    /// By uid of the sink. The sinks of the decider have none.
    pub committers: Vec<(String, Box<dyn Committer>)>,
    /// By uid: what goes into [`ExactlyOnce::shared`].
    pub shared: Vec<(String, Arc<dyn Any + Send + Sync>)>,
}
