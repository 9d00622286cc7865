//! Carries out what the rules of `pelton_core::checkpoint` say, while the pipeline runs.
//!
//! One task on the I/O runtime. What it does takes its time (files are synced, transactions committed); meanwhile reports of the next
//! epoch wait in their channel. A barrier goes out before anything slow that was asked for together with it.
//!
//! Invariant: after the last action nothing more is written.

#[cfg(test)]
mod tests;

use super::contents::{Collector, OperatorContents};
use super::figures::{CheckpointFigures, EpochMetrics};
use super::seals::TaskReport;
use crate::clock;
use crate::failure::Failure;
use crate::message::Barrier;
use crate::metrics::NodeMetrics;
use crate::run::StopMode;
use crate::swap::Cut;
use pelton_connect::{Committer, ConnectError, DecideError, Decider, Staged};
use pelton_core::checkpoint::{Action, Coordinator, Event, Failure as Undecided, Reason, RequestId};
use pelton_core::evolution::Declared;
use pelton_core::swap::{Armed, Versions};
use pelton_core::{Decision, Epoch, failpoint};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How often the driver looks whether anything has moved, while nothing is under way.
const LOOK: Duration = Duration::from_millis(50);

/// An epoch that is durable.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Hash of its manifest.
    pub manifest: u64,
    /// Bytes of its own segments.
    pub bytes: u64,
}

/// A savepoint that is being made.
pub type Copying = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Makes an epoch durable.
#[async_trait::async_trait]
pub trait Keep: Send {
    /// Segment, then manifest.
    async fn persist(&mut self, epoch: Epoch, ended: bool, contents: Vec<OperatorContents>) -> Result<Kept, Failure>;
    /// Writes down that every sink has made an epoch visible.
    async fn record(&mut self, epoch: Epoch) -> Result<(), Failure>;
    /// Begins to copy the epoch that was persisted last, which is this one, to another place, whole. It stays until that is done.
    fn savepoint(&mut self, epoch: Epoch, place: &str) -> Copying;
    /// The epoch that is persisted next is the last one before a swap: its manifest says by what the one after is processed.
    fn cut(&mut self, armed: &Armed, nodes: &[(usize, NewNode)]);
    /// Writes down that a swap was made, and says by which versions the pipeline goes on.
    async fn swapped(&mut self, armed: &Armed) -> Versions;
    /// Nothing is to be swapped any more.
    async fn disarm(&mut self) -> Result<(), Failure>;
    /// Deletes what only epochs before this one need. May fail; later calls do the same.
    async fn collect(&mut self, keep_from: Epoch) -> Result<(), Failure>;
}

/// See the module.
pub struct Driver {
    /// The rules.
    pub coordinator: Coordinator,
    /// What tasks say.
    pub collector: Collector,
    /// Their reports; closed when all tasks are gone.
    pub reports: mpsc::UnboundedReceiver<TaskReport>,
    /// To sources: the barrier that is wanted.
    pub barriers: watch::Sender<Barrier>,
    /// To sources: the last decided epoch.
    pub decided: watch::Sender<Epoch>,
    /// Makes epochs durable.
    pub keep: Box<dyn Keep>,
    /// Decides them.
    pub decider: Box<dyn Decider>,
    /// Make them visible: uid, node and committer of each follower.
    pub followers: Vec<(String, usize, Box<dyn Committer>)>,
    /// By node: what its shards staged in the epoch under way.
    pub staged: HashMap<usize, Vec<Staged>>,
    /// To see whether anything has moved.
    pub nodes: Vec<Arc<NodeMetrics>>,
    /// Why the sources ended, once they have.
    pub stop: watch::Receiver<StopMode>,
    /// For those who watch.
    pub progress: Arc<CheckpointProgress>,
    /// What is asked of checkpoints from outside.
    pub wishes: mpsc::UnboundedReceiver<Wish>,
    /// Wishes whose epoch is under way, by the number under which the rules know them.
    pub granted: HashMap<RequestId, Wish>,
    /// The swap that is under way.
    pub cutting: Option<Cutting>,
    /// Savepoints that are being made: epochs go on meanwhile.
    pub copies: JoinSet<()>,
}

/// A swap whose barrier has gone out.
#[derive(Debug)]
pub struct Cutting {
    /// The last epoch of the old versions.
    epoch: Epoch,
    request: RequestId,
}

/// What can be watched of checkpoints, and asked of them.
#[derive(Debug)]
pub struct CheckpointProgress {
    /// The last decided epoch.
    pub decided: AtomicU64,
    /// What epochs cost.
    pub epochs: EpochMetrics,
    wishes: mpsc::UnboundedSender<Wish>,
}

/// Somebody wants a barrier.
#[derive(Debug)]
pub struct Wish {
    /// What for.
    pub what: Want,
    /// Told when the epoch is committed, and all is done that was wanted of it.
    pub done: oneshot::Sender<Result<Done, String>>,
}

/// What a barrier is wanted for.
#[derive(Debug)]
pub enum Want {
    /// An epoch.
    Checkpoint,
    /// The epoch is copied to this place.
    Savepoint(String),
    /// Transforms become other versions.
    Swap(Box<Order>),
    /// Candidates come beside transforms.
    Cut(Arc<Cut>),
}

/// A swap that is ready to be made.
#[derive(Debug)]
pub struct Order {
    /// What is durable of it.
    pub armed: Armed,
    /// What tasks take.
    pub cut: Arc<Cut>,
    /// What manifests say of nodes from then on.
    pub nodes: Vec<(usize, NewNode)>,
}

/// What a swap changes of a node in manifests.
#[derive(Clone, Debug, Default)]
pub struct NewNode {
    /// Digest of its plugin.
    pub plugin: Option<String>,
    /// What that keeps.
    pub declared: Option<Declared>,
}

/// What came of a wish.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The epoch.
    pub epoch: Epoch,
    /// Of a swap: by what the next epoch is processed.
    pub versions: Option<Versions>,
}

impl CheckpointProgress {
    /// Nothing yet; and where wishes arrive.
    pub fn new() -> (CheckpointProgress, mpsc::UnboundedReceiver<Wish>) {
        let (wishes, received) = mpsc::unbounded_channel();
        (CheckpointProgress { decided: AtomicU64::new(0), epochs: EpochMetrics::start(), wishes }, received)
    }

    /// Where wishes are sent.
    pub fn wishes(&self) -> mpsc::UnboundedSender<Wish> {
        self.wishes.clone()
    }

    /// What epochs cost, as of now.
    pub fn figures(&self) -> CheckpointFigures {
        self.epochs.figures(self.decided.load(Relaxed))
    }

    /// Asks for an epoch to end now; gives its number once it is committed, and copied to `savepoint` if that is given.
    pub async fn checkpoint(&self, savepoint: Option<String>) -> Result<Epoch, String> {
        let asked = self.ask(savepoint.map_or(Want::Checkpoint, Want::Savepoint)).await;
        asked.unwrap_or_else(|| Err("the pipeline ended before the checkpoint was complete".into())).map(|done| done.epoch)
    }

    /// Asks for a barrier; `None`: the life of the pipeline ended before all was done.
    pub async fn ask(&self, what: Want) -> Option<Result<Done, String>> {
        let (done, told) = oneshot::channel();
        self.wishes.send(Wish { what, done }).ok()?;
        told.await.ok()
    }
}

/// How a life of the pipeline ended, as far as checkpoints go.
#[derive(Debug)]
pub enum Outcome {
    /// All tasks ended, and everything is visible.
    Finished(Epoch),
    /// The tasks were gone before that: one of them has failed and says why.
    TasksGone,
}

/// Whether a later process has taken over, as far as the decider knows; then that is the reason to tell of a failure.
pub async fn overtaken(decider: &mut dyn Decider) -> Option<Failure> {
    match decider.check_owner().await {
        Err(error @ ConnectError::Fenced { .. }) => Some(Failure::Connect { transform: decider.describe(), error }),
        // It can be asked again.
        _ => None,
    }
}

impl Driver {
    /// Until the pipeline has ended or cannot go on.
    pub async fn run(&mut self) -> Result<Outcome, Failure> {
        let began = clock::Stopwatch::start();
        let (mut moved, mut injected, mut asked) = (0, Duration::ZERO, 0);
        loop {
            let now = Duration::from_nanos(began.nanos());
            let wait = self.coordinator.next_tick().map_or(LOOK, |at| at.saturating_sub(now).min(LOOK));
            let event = tokio::select! {
                report = self.reports.recv() => match report {
                    None => return overtaken(&mut *self.decider).await.map_or(Ok(Outcome::TasksGone), Err),
                    Some(report) => {
                        let event = match report.last {
                            true => Event::TaskEnded { task: report.task, epoch: report.epoch },
                            false => Event::Sealed { task: report.task, epoch: report.epoch },
                        };
                        self.collector.take(report);
                        event
                    }
                },
                Some(wish) = self.wishes.recv() => {
                    asked += 1;
                    let event = match wish.what {
                        Want::Checkpoint | Want::Savepoint(_) => Event::Request(asked),
                        Want::Swap(_) | Want::Cut(_) => Event::Join(asked),
                    };
                    self.granted.insert(asked, wish);
                    event
                }
                () = tokio::time::sleep(wait) => match std::mem::replace(&mut moved, self.moved()) {
                    before if before != moved => Event::Moved,
                    _ => Event::Tick,
                },
            };
            let mut events = VecDeque::from([event]);
            while let Some(event) = events.pop_front() {
                let now = Duration::from_nanos(began.nanos());
                let mut actions = self.coordinator.on(now, event);
                // Stable: everything else stays in order.
                actions.sort_by_key(|action| !matches!(action, Action::InjectBarrier { .. }));
                for action in actions {
                    match action {
                        Action::InjectBarrier { epoch, requests } => {
                            injected = now;
                            let cut = self.cut_at(epoch, &requests);
                            let _ = self.barriers.send(Barrier { epoch, cut });
                            failpoint::hit("run.barrier");
                        }
                        Action::Finished { epoch } => {
                            while self.copies.join_next().await.is_some() {}
                            return Ok(Outcome::Finished(epoch));
                        }
                        Action::Recover(reason) | Action::Stop(reason) => return Err(self.because(reason)),
                        action => events.extend(self.carry_out(action).await?),
                    }
                }
                if self.coordinator.decided() > *self.decided.borrow() {
                    let took = Duration::from_nanos(began.nanos()).saturating_sub(injected);
                    self.progress.epochs.decided(took);
                    self.progress.decided.store(self.coordinator.decided(), Relaxed);
                    let _ = self.decided.send(self.coordinator.decided());
                }
            }
        }
    }

    /// Changes when anything does that a checkpoint would hold.
    fn moved(&self) -> u64 {
        let rows = |node: &Arc<NodeMetrics>| node.rows_in.load(Relaxed) + node.rows_out.iter().map(|rows| rows.load(Relaxed)).sum::<u64>();
        self.nodes.iter().map(rows).fold(0, u64::wrapping_add)
    }

    /// What changes at a barrier that carries these requests.
    fn cut_at(&mut self, epoch: Epoch, requests: &[RequestId]) -> Option<Arc<Cut>> {
        let beside = |request: &RequestId| match self.granted.get(request).map(|wish| &wish.what) {
            Some(Want::Cut(cut)) => Some(cut.clone()),
            _ => None,
        };
        if let Some(cut) = requests.iter().find_map(beside) {
            return Some(cut);
        }
        let swap = |request: &RequestId| match self.granted.get(request).map(|wish| &wish.what) {
            Some(Want::Swap(order)) => Some((*request, order)),
            _ => None,
        };
        // One at a time: who swaps waits for its end.
        let (request, order) = requests.iter().find_map(swap)?;
        self.keep.cut(&order.armed, &order.nodes);
        self.cutting = Some(Cutting { epoch, request });
        Some(order.cut.clone())
    }

    /// Does what was wanted of an epoch that is complete.
    async fn grant(&mut self, epoch: Epoch, request: RequestId) {
        let Some(wish) = self.granted.remove(&request) else { return };
        // Those that are done.
        while self.copies.try_join_next().is_some() {}
        let done = match wish.what {
            Want::Checkpoint | Want::Cut(_) => Ok(Done { epoch, ..Done::default() }),
            Want::Savepoint(place) => {
                let (copying, done) = (self.keep.savepoint(epoch, &place), wish.done);
                self.copies.spawn(async move {
                    let copied = copying.await;
                    let _ = done.send(copied.map(|()| Done { epoch, ..Done::default() }).map_err(|failure| failure.to_string()));
                });
                return;
            }
            Want::Swap(order) => match self.cutting.take_if(|cutting| cutting.request == request && cutting.epoch == epoch) {
                Some(_) => {
                    failpoint::hit("swap.decided");
                    let versions = self.keep.swapped(&order.armed).await;
                    failpoint::hit("swap.made");
                    Ok(Done { epoch, versions: Some(versions) })
                }
                None => {
                    let _ = self.keep.disarm().await;
                    Err("the pipeline came to its end before the swap".to_string())
                }
            },
        };
        // Whoever asked may be gone.
        let _ = wish.done.send(done);
    }

    fn because(&self, reason: Reason) -> Failure {
        Failure::Checkpoint { message: reason.to_string(), refused: matches!(reason, Reason::Fenced { .. }) }
    }

    async fn carry_out(&mut self, action: Action) -> Result<Option<Event>, Failure> {
        Ok(match action {
            Action::Persist { epoch, last } => {
                failpoint::hit("run.persist");
                let mut contents = self.collector.epoch(epoch);
                self.staged = contents.iter_mut().map(|operator| (operator.node, operator.staged.clone())).collect();
                let ended = last && *self.stop.borrow() != StopMode::Stop;
                let Kept { manifest, bytes } = self.keep.persist(epoch, ended, contents).await?;
                self.collector.persisted();
                self.progress.epochs.prepared(bytes);
                Some(Event::Persisted { epoch, manifest })
            }
            Action::Decide(decision) => Some(self.decide(decision).await?),
            Action::Commit { follower, epoch } => {
                failpoint::hit("run.commit");
                let (uid, node, committer) = &mut self.followers[follower];
                let none = Vec::new();
                let staged = self.staged.get(node).unwrap_or(&none);
                let committed = committer.commit(epoch, staged).await;
                committed.map_err(|error| Failure::Connect { transform: uid.clone(), error })?;
                failpoint::hit("run.committed");
                Some(Event::Committed { follower, epoch })
            }
            Action::RecordCommit { epoch } => {
                failpoint::hit("run.record");
                self.keep.record(epoch).await?;
                Some(Event::Recorded { epoch })
            }
            Action::CollectGarbage { keep_from } => {
                if let Err(failure) = self.keep.collect(keep_from).await {
                    tracing::warn!(%failure, "old checkpoints were not deleted; it is tried again");
                }
                None
            }
            Action::Complete { epoch, requests } => {
                for request in requests {
                    self.grant(epoch, request).await;
                }
                None
            }
            Action::Slow { epoch, waiting_for } => {
                tracing::warn!(epoch, tasks = ?waiting_for, "a checkpoint takes long: these tasks have not come to its barrier yet");
                None
            }
            _ => None,
        })
    }

    async fn decide(&mut self, decision: Decision) -> Result<Event, Failure> {
        let epoch = decision.epoch;
        failpoint::hit("run.decide");
        Ok(match self.decider.decide(&decision).await {
            Ok(()) => {
                failpoint::hit("run.decided");
                Event::Decided { epoch }
            }
            // Nobody wins by trying again what its author or the rows' has to change.
            Err(DecideError::Undecided(error @ (ConnectError::User { .. } | ConnectError::Data { .. }))) => {
                return Err(Failure::Connect { transform: self.decider.describe(), error });
            }
            Err(error) => {
                let failure = match &error {
                    DecideError::Fenced(_) => Undecided::Fenced,
                    DecideError::Unknown(_) => Undecided::Indefinite,
                    DecideError::Undecided(_) => Undecided::CertainlyNot,
                };
                let reason = match error {
                    DecideError::Fenced(reason) | DecideError::Unknown(reason) => reason,
                    DecideError::Undecided(error) => error.to_string(),
                };
                tracing::warn!(epoch, decider = self.decider.describe(), reason, "an epoch was not decided");
                Event::DecideFailed { epoch, failure }
            }
        })
    }
}
