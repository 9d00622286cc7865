//! The life of epochs while a pipeline runs.
//!
//! ```text
//!              all tasks sealed E        durable          decided            all followers      written down
//!  filling E ──▶ sealing E ──▶ persisting E ──▶ deciding E ──▶ committing E ──▶ recording E ──▶ complete
//!           barrier E                                │
//!                                                    └▶ from here barrier E+1 may go out
//! ```
//!
//! Epoch E ends with barrier E. While E is sealed, persisted and decided, E+1 fills; barrier E+1 waits for the decision of E, so at most one
//! epoch is undecided while the next one fills (a sink needs two transactions, never three). Epoch E+1 is persisted only when E is
//! complete, so recovery never has to roll forward more than the epoch that was decided last.
//!
//! **An epoch that is slow is waited for.** Giving it up would mean to merge what some tasks have sealed, and what sinks have prepared,
//! into the next epoch, and would make nothing visible any sooner: the records that hold the barrier up are before it. So the
//! barrier stays in flight and [`Action::Slow`] says which tasks it waits for. This cannot deadlock as long as a task that can
//! process a record can process a barrier, since the graph has no cycle, a source gives a barrier to all its outputs before
//! any later record, and no task that waits for a decision (of E-1, at most: it is made before barrier E goes out) holds back barrier E.
//! What is bounded otherwise (the age of a transaction, the size of what is not persisted) stops sources or fails; it does not skip an epoch.
//!
//! **An epoch that is begun is decided**, also when nothing has changed. When no input has moved and nobody asks, none is begun.
//!
//! **The end.** A task that ends seals once more: that belongs to the epoch after its last barrier. When all tasks have ended, the epoch of the
//! latest of these seals is the last one. It needs no barrier, and it is decided and committed before [`Action::Finished`].
//!
//! **Failure.** Nothing is tried again here, and no outcome is guessed: state has moved on since the barrier, so whatever fails, the whole
//! pipeline goes back to what was decided last, by way of [`super::recovery`]. Only who is fenced stops for good.

use crate::{Decision, Epoch, Generation};
use std::collections::BTreeSet;
use std::time::Duration;

/// Who a coordinator decides for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Name and incarnation of the pipeline.
    pub pipeline: String,
    /// Which life this is.
    pub generation: Generation,
}

/// A task, from 0 on.
pub type TaskId = usize;

/// A sink that does not decide, from 0 on.
pub type FollowerId = usize;

/// Somebody who asked for a barrier, by a number of the asker's.
pub type RequestId = u64;

/// The shortest and the longest time between two barriers.
pub const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Barriers that need not come at once keep this distance, where the interval is not shorter: each holds up the records behind it.
pub const SPACING: Duration = Duration::from_secs(1);

/// How often barriers go out, and what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From one barrier to the next; within [`INTERVALS`].
    pub interval: Duration,
    /// A barrier in flight for longer is reported, and again each time this has passed.
    pub slow_after: Duration,
    /// So many of the newest epochs are kept; at least 1.
    pub retained: u64,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Some input has moved, or a timer of processing time has fired, since the last barrier.
    Moved,
    /// A savepoint, a drain, or a transaction that grows old wants a barrier at once.
    Request(RequestId),
    /// A swap wants a barrier, and costs readers less with one that comes anyway: the next one, [`SPACING`] after the last one at the latest.
    Join(RequestId),
    /// A task has sealed the epoch at its barrier.
    Sealed { task: TaskId, epoch: Epoch },
    /// A task has ended; its last seal belongs to this epoch.
    TaskEnded { task: TaskId, epoch: Epoch },
    /// Segment and manifest are durable.
    Persisted { epoch: Epoch, manifest: u64 },
    /// They cannot be made so.
    PersistFailed { epoch: Epoch },
    /// The decision is made.
    Decided { epoch: Epoch },
    /// It is not, or nobody knows.
    DecideFailed { epoch: Epoch, failure: Failure },
    /// A follower has made the epoch visible.
    Committed { follower: FollowerId, epoch: Epoch },
    /// It could not.
    CommitFailed { follower: FollowerId, epoch: Epoch },
    /// The commit record is durable.
    Recorded { epoch: Epoch },
    /// It cannot be made so.
    RecordFailed { epoch: Epoch },
    /// Somebody has seen, by whatever means, that a later life owns the pipeline.
    Overtaken,
}

/// How a decision failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A later life owns the pipeline.
    Fenced,
    /// It may have been made, or may be made later.
    Indefinite,
    /// It was not made and never will be.
    CertainlyNot,
}

/// What is to be done. Each is answered by its event; those marked so need no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the barrier into all sources. It carries these requests.
    InjectBarrier { epoch: Epoch, requests: Vec<RequestId> },
    /// A barrier is in flight for long, because of these tasks. Needs no answer.
    Slow { epoch: Epoch, waiting_for: Vec<TaskId> },
    /// Make what was sealed durable: segment first, then manifest. With `last` set the manifest says that the pipeline has ended.
    Persist { epoch: Epoch, last: bool },
    /// Decide, together with the decider's own output.
    Decide(Decision),
    /// Make the epoch visible at a follower.
    Commit { follower: FollowerId, epoch: Epoch },
    /// Write down that all followers have committed the epoch.
    RecordCommit { epoch: Epoch },
    /// These requests have what they asked for: the epoch is complete. Needs no answer.
    Complete { epoch: Epoch, requests: Vec<RequestId> },
    /// Delete what only earlier epochs need. Needs no answer, and may fail.
    CollectGarbage { keep_from: Epoch },
    /// Throw away what this process holds and recover. The last action of this coordinator.
    Recover(Reason),
    /// End the process. The last action of this coordinator.
    Stop(Reason),
    /// All tasks have ended, and all output is visible. The last action of this coordinator.
    Finished { epoch: Epoch },
}

/// Why a coordinator gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// See [`Failure::Fenced`].
    #[error("fenced: a later process owns this pipeline (epoch {epoch} was to be decided)")]
    Fenced { epoch: Epoch },
    /// See [`Failure::Indefinite`].
    #[error("it is unknown whether epoch {epoch} was decided")]
    Indefinite { epoch: Epoch },
    /// See [`Failure::CertainlyNot`].
    #[error("epoch {epoch} could not be decided")]
    Undecided { epoch: Epoch },
    /// See [`Event::PersistFailed`].
    #[error("epoch {epoch} could not be made durable")]
    NotPersisted { epoch: Epoch },
    /// See [`Event::CommitFailed`].
    #[error("epoch {epoch} is decided, but a sink could not commit it")]
    NotCommitted { follower: FollowerId, epoch: Epoch },
    /// See [`Event::RecordFailed`].
    #[error("epoch {epoch} is committed, but that could not be written down")]
    NotRecorded { epoch: Epoch },
}

/// Where the epoch after the last complete one is on its way from sealed to complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not all tasks have sealed it.
    Open,
    /// Being made durable.
    Persisting,
    /// Being decided.
    Deciding,
    /// Decided; these followers have still to commit.
    Committing(BTreeSet<FollowerId>),
    /// Committed; being written down.
    Recording,
    /// Nothing more happens.
    Over,
}

/// How far a task has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// What it sealed last.
    sealed: Epoch,
    /// It seals nothing more.
    ended: bool,
}

/// Decides what is done when, in one life of a pipeline.
///
/// Invariant, asserted after every event: `complete <= decided <= barrier <= decided + 1` and `decided <= complete + 1`.
#[derive(Clone, Debug)]
pub struct Coordinator {
    life: Life,
    settings: Settings,
    tasks: Vec<Progress>,
    followers: usize,
    /// The last epoch whose barrier went out, or that needed none because all tasks have ended.
    barrier: Epoch,
    /// When that was.
    barrier_at: Duration,
    /// When it is reported as slow.
    slow_at: Duration,
    /// The last epoch that is decided.
    decided: Epoch,
    /// The last epoch that is committed and recorded.
    complete: Epoch,
    /// How far epoch `complete + 1` has come.
    stage: Stage,
    /// That epoch is the last one; known when it is persisted.
    last: bool,
    /// There is something to take a checkpoint of.
    moved: bool,
    /// Who waits for a barrier.
    requests: Vec<RequestId>,
    /// Somebody among them cannot wait for the next one.
    urgent: bool,
    /// Whose epoch is under way.
    carried: Vec<(Epoch, RequestId)>,
}

impl Coordinator {
    /// For a life that goes on from a decided epoch (0: from nothing). Times count from whenever the caller likes, and never go back.
    pub fn new(life: Life, settings: Settings, tasks: usize, followers: usize, resumed: Epoch, now: Duration) -> Self {
        assert!(INTERVALS.contains(&settings.interval), "the interval is checked with the pipeline");
        assert!(settings.retained >= 1, "the last epoch is needed by every restart");
        assert!(tasks > 0, "a pipeline has a task");
        Coordinator {
            life,
            tasks: vec![Progress { sealed: resumed, ended: false }; tasks],
            followers,
            barrier: resumed,
            barrier_at: now,
            slow_at: now + settings.slow_after,
            decided: resumed,
            complete: resumed,
            stage: Stage::Open,
            last: false,
            moved: false,
            requests: Vec::new(),
            urgent: false,
            carried: Vec::new(),
            settings,
        }
    }

    /// Something has happened: what is to be done now, in this order. After its last action a coordinator has nothing more to say.
    pub fn on(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stage == Stage::Over {
            return actions;
        }
        self.take(event, &mut actions);
        self.advance(&mut actions);
        self.inject(now, &mut actions);
        assert!(self.complete <= self.decided && self.decided <= self.complete + 1, "an epoch is decided when the one before is complete");
        assert!(self.decided <= self.barrier && self.barrier <= self.decided + 1, "one epoch is undecided while the next one fills");
        actions
    }

    /// When the next [`Event::Tick`] has something to do.
    pub fn next_tick(&self) -> Option<Duration> {
        match self.stage {
            Stage::Over => None,
            _ if self.barrier > self.decided => (!self.waiting_for(self.barrier).is_empty()).then_some(self.slow_at),
            _ => self.due_at().filter(|_| !self.all_ended()),
        }
    }

    /// The last decided epoch.
    pub fn decided(&self) -> Epoch {
        self.decided
    }

    /// The epoch after the last complete one, and how far it has come.
    pub fn under_way(&self) -> (Epoch, &Stage) {
        (self.complete + 1, &self.stage)
    }

    /// Notes what has happened, and what follows from it at once.
    fn take(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Moved => self.moved = true,
            Event::Request(id) => {
                self.requests.push(id);
                self.urgent = true;
            }
            Event::Join(id) => self.requests.push(id),
            Event::Sealed { task, epoch } => self.seal(task, epoch, false),
            Event::TaskEnded { task, epoch } => self.seal(task, epoch, true),
            Event::Persisted { epoch, manifest } => {
                self.move_on(epoch, &Stage::Persisting, Stage::Deciding);
                let Life { pipeline, generation } = self.life.clone();
                actions.push(Action::Decide(Decision { pipeline, epoch, generation, manifest }));
            }
            Event::Decided { epoch } => {
                self.move_on(epoch, &Stage::Deciding, Stage::Committing((0..self.followers).collect()));
                self.decided = epoch;
                actions.extend((0..self.followers).map(|follower| Action::Commit { follower, epoch }));
            }
            Event::Committed { follower, epoch } => {
                assert_eq!(epoch, self.complete + 1, "epochs are committed one by one");
                let Stage::Committing(left) = &mut self.stage else { panic!("epoch {epoch} is {:?}, not being committed", self.stage) };
                assert!(left.remove(&follower), "follower {follower} commits epoch {epoch} once");
            }
            Event::Recorded { epoch } => {
                self.move_on(epoch, &Stage::Recording, Stage::Open);
                self.complete(epoch, actions);
            }
            Event::PersistFailed { epoch } => self.give_up(Reason::NotPersisted { epoch }, actions),
            Event::DecideFailed { epoch, failure: Failure::Fenced } => self.give_up(Reason::Fenced { epoch }, actions),
            Event::DecideFailed { epoch, failure: Failure::Indefinite } => self.give_up(Reason::Indefinite { epoch }, actions),
            Event::DecideFailed { epoch, failure: Failure::CertainlyNot } => self.give_up(Reason::Undecided { epoch }, actions),
            Event::CommitFailed { follower, epoch } => self.give_up(Reason::NotCommitted { follower, epoch }, actions),
            Event::RecordFailed { epoch } => self.give_up(Reason::NotRecorded { epoch }, actions),
            Event::Overtaken => self.give_up(Reason::Fenced { epoch: self.decided + 1 }, actions),
        }
    }

    /// A task has sealed an epoch: the one after that which it sealed before.
    fn seal(&mut self, task: TaskId, epoch: Epoch, ended: bool) {
        let progress = &mut self.tasks[task];
        assert!(!progress.ended, "task {task} has ended and seals nothing more");
        assert_eq!(epoch, progress.sealed + 1, "task {task} seals its epochs in order");
        assert!(ended || epoch <= self.barrier, "task {task} seals epoch {epoch} at its barrier");
        *progress = Progress { sealed: epoch, ended };
    }

    /// The epoch under way goes from one stage to the next.
    fn move_on(&mut self, epoch: Epoch, from: &Stage, to: Stage) {
        assert_eq!((epoch, &self.stage), (self.complete + 1, from), "one epoch is under way, stage by stage");
        self.stage = to;
    }

    /// An epoch is committed everywhere, and that is written down.
    fn complete(&mut self, epoch: Epoch, actions: &mut Vec<Action>) {
        self.complete = epoch;
        let (done, later) = self.carried.drain(..).partition::<Vec<_>, _>(|(carrier, _)| *carrier <= epoch);
        self.carried = later;
        if !done.is_empty() {
            actions.push(Action::Complete { epoch, requests: done.into_iter().map(|(_, id)| id).collect() });
        }
        let keep_from = (epoch + 1).saturating_sub(self.settings.retained);
        if keep_from > 1 {
            actions.push(Action::CollectGarbage { keep_from });
        }
        if self.last {
            self.stage = Stage::Over;
            actions.push(Action::Finished { epoch });
        }
    }

    /// This life is over.
    fn give_up(&mut self, reason: Reason, actions: &mut Vec<Action>) {
        self.stage = Stage::Over;
        actions.push(match reason {
            Reason::Fenced { .. } => Action::Stop(reason),
            _ => Action::Recover(reason),
        });
    }

    /// What the epoch under way is ready for.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        let epoch = self.complete + 1;
        if self.stage == Stage::Open && self.waiting_for(epoch).is_empty() {
            assert_eq!(self.decided, self.complete, "a manifest is written when the epoch before is decided");
            self.stage = Stage::Persisting;
            self.last = self.tasks.iter().all(|task| task.ended && task.sealed <= epoch);
            if self.last {
                self.barrier = epoch;
                self.carried.extend(self.requests.drain(..).map(|id| (epoch, id)));
            }
            actions.push(Action::Persist { epoch, last: self.last });
        }
        if self.stage == Stage::Committing(BTreeSet::new()) {
            self.stage = Stage::Recording;
            actions.push(Action::RecordCommit { epoch });
        }
    }

    /// Sends the next barrier if it is due, and says that one is slow.
    fn inject(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stage == Stage::Over || self.all_ended() {
            return;
        }
        if self.barrier == self.decided && self.due_at().is_some_and(|at| now >= at) {
            self.barrier += 1;
            self.barrier_at = now;
            self.slow_at = now + self.settings.slow_after;
            self.moved = false;
            self.urgent = false;
            let requests = std::mem::take(&mut self.requests);
            self.carried.extend(requests.iter().map(|id| (self.barrier, *id)));
            actions.push(Action::InjectBarrier { epoch: self.barrier, requests });
        } else if self.barrier > self.decided && now >= self.slow_at {
            let waiting_for = self.waiting_for(self.barrier);
            if !waiting_for.is_empty() {
                self.slow_at = now + self.settings.slow_after;
                actions.push(Action::Slow { epoch: self.barrier, waiting_for });
            }
        }
    }

    /// When the next barrier goes out, if the epoch before is decided by then.
    fn due_at(&self) -> Option<Duration> {
        let interval = self.settings.interval;
        match self.urgent {
            true => Some(self.barrier_at),
            false if !self.requests.is_empty() => Some(self.barrier_at + interval.min(SPACING)),
            false => self.moved.then_some(self.barrier_at + interval),
        }
    }

    /// Tasks whose seal of an epoch is missing. What a task does after its end is nothing, so it misses in no epoch.
    fn waiting_for(&self, epoch: Epoch) -> Vec<TaskId> {
        let missing = |task: &Progress| !task.ended && task.sealed < epoch;
        self.tasks.iter().enumerate().filter(|(_, task)| missing(task)).map(|(id, _)| id).collect()
    }

    fn all_ended(&self) -> bool {
        self.tasks.iter().all(|task| task.ended)
    }
}

#[cfg(test)]
mod tests;
