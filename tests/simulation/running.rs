//! Carries out the actions of a coordinator while the tasks of the pipeline run.

use crate::deciders::Marker;
use crate::mutation::Mutation;
use crate::plan::DeciderKind;
use crate::process::{Deletion, Exit, For, Io, Next, Op, Place, Reply};
use crate::random::digest;
use crate::recovering::{PIPELINE, Recovering};
use crate::store::{Content, Manifest, Name, State};
use crate::tasks::{Sealed, Stepped, Tasks};
use pelton_core::checkpoint::{Action, Coordinator, Event, Failure, Life, Stage};
use pelton_core::{Decision, Epoch, Generation};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// A producer of one of Kafka's two transactional ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Missing,
    Initializing,
    Ready(u32),
}

/// How far a decision is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// The marker in Kafka's transaction.
    Marker,
    /// What makes it count.
    Commit,
}

/// A pipeline that runs.
#[derive(Debug)]
pub struct Running {
    coordinator: Coordinator,
    generation: Generation,
    tasks: Tasks,
    slots: [Slot; 2],
    next_log: u64,
    /// The epoch persisted last, and the one before.
    manifests: BTreeMap<Epoch, Rc<Manifest>>,
    persisting: VecDeque<(Place, Name, Content)>,
    /// What is said when that is done; `None` if it was said before.
    persisted: Option<Event>,
    /// What is being decided (more than one only by a mutation), and how much of that has been sent.
    deciding: VecDeque<Decision>,
    sent: Sent,
    /// What was decided last.
    decided: Option<Decision>,
    /// Where this life ends.
    next: Option<Next>,
}

impl Running {
    /// Begins an epoch. `base`: the one before.
    pub fn start(
        io: &Io<'_>,
        generation: Generation,
        epoch: Epoch,
        base: Option<Rc<Manifest>>,
        slots: [Slot; 2],
        next_log: u64,
    ) -> Running {
        let plan = io.plan;
        let (positions, ended) = (vec![0; plan.sources.len()], vec![false; plan.operators]);
        let resumed = epoch - 1;
        let tasks = match &base {
            Some(base) => Tasks::restore(plan, resumed, &base.positions, &base.ended, &base.state),
            None => Tasks::restore(plan, resumed, &positions, &ended, &State::new()),
        };
        let life = Life { pipeline: PIPELINE.into(), generation };
        let coordinator = Coordinator::new(life, plan.settings.clone(), tasks.count(), plan.followers.len(), resumed, io.now);
        let decided = base.as_ref().map(|base| decision_of(base));
        let manifests = base.into_iter().map(|base| (base.epoch, base)).collect();
        Running {
            coordinator,
            generation,
            tasks,
            slots,
            next_log,
            manifests,
            persisting: VecDeque::new(),
            persisted: None,
            deciding: VecDeque::new(),
            sent: Sent::Nothing,
            decided,
            next: None,
        }
    }

    /// The slots of this process, the slot and the name in the log of the next decision, and its generation: what it could decide with.
    pub fn means(&self) -> (Slot, usize, u64, Generation) {
        let slot = slot_of(self.coordinator.decided() + 1);
        (self.slots[slot], slot, self.next_log, self.generation)
    }

    /// A task does something, or time passes, or rows are sent.
    pub fn step(&mut self, io: &mut Io<'_>) -> Next {
        match io.random.below(10) {
            0 => self.on(io, Event::Tick),
            1 | 2 if io.plan.decider == DeciderKind::Kafka => self.send(io),
            _ => {
                let task = io.random.below(self.tasks.count());
                match self.tasks.step(io.plan, task, io.random) {
                    Stepped::Nothing => {}
                    Stepped::Moved => self.on(io, Event::Moved),
                    Stepped::Sealed { task, epoch, ended: false } => self.on(io, Event::Sealed { task, epoch }),
                    Stepped::Sealed { task, epoch, ended: true } => self.on(io, Event::TaskEnded { task, epoch }),
                }
                if io.plan.decider != DeciderKind::Kafka {
                    self.tasks.operators.iter_mut().for_each(|operator| operator.unsent.clear());
                }
            }
        }
        self.next.take().unwrap_or(Next::Stay)
    }

    /// Somebody asks for a savepoint, or for a swap.
    pub fn request(&mut self, io: &mut Io<'_>) {
        let patient = self.coordinator.decided() % 2 == 1;
        self.on(io, if patient { Event::Join(7) } else { Event::Request(7) });
    }

    /// A request has been answered.
    pub fn answered(&mut self, io: &mut Io<'_>, purpose: For, reply: Reply) -> Next {
        match (purpose, reply) {
            (For::Persist, Reply::Done) => self.persist_next(io),
            (For::Persist, _) => self.on(io, Event::PersistFailed { epoch: self.coordinator.under_way().0 }),
            (For::Decide, reply) => self.decide_answered(io, reply),
            (For::Commit(follower, epoch), Reply::Done) => self.on(io, Event::Committed { follower, epoch }),
            (For::Commit(follower, epoch), _) => self.on(io, Event::CommitFailed { follower, epoch }),
            (For::Record(epoch), Reply::Done | Reply::Exists) => self.on(io, Event::Recorded { epoch }),
            (For::Record(epoch), _) => self.on(io, Event::RecordFailed { epoch }),
            (For::Rows(operator), Reply::Done) => self.tasks.operators[operator].unacknowledged -= 1,
            (For::Slot(slot), Reply::ProducerEpoch(producer_epoch)) => self.slots[slot] = Slot::Ready(producer_epoch),
            (For::Rows(_) | For::Slot(_), Reply::Fenced) => io.call(For::Owner, Op::ReadProgress),
            (For::Owner, reply) => self.owner_answered(io, &reply),
            // A task fails, and with it the pipeline.
            (For::Rows(_) | For::Slot(_), _) => self.next = Some(Next::Recover(Box::new(Recovering::restart(self.generation)))),
            (For::Nothing | For::Recovery, _) => {}
        }
        self.next.take().unwrap_or(Next::Stay)
    }

    fn on(&mut self, io: &mut Io<'_>, event: Event) {
        for action in self.coordinator.on(io.now, event) {
            self.carry_out(io, action);
        }
    }

    fn carry_out(&mut self, io: &mut Io<'_>, action: Action) {
        match action {
            Action::InjectBarrier { .. } => self.tasks.inject(),
            Action::Slow { .. } => {}
            Action::Persist { epoch, last } => self.persist(io, epoch, last),
            Action::Decide(decision) => self.decide(io, decision),
            Action::Commit { follower, epoch } => {
                let manifest = self.manifests[&epoch].clone();
                io.call(For::Commit(follower, epoch), Op::Commit { follower, manifest });
            }
            Action::RecordCommit { epoch } => io.call(For::Record(epoch), Op::Create(Place::Store, Name::Record(epoch), Content::Empty)),
            Action::Complete { epoch, .. } => io.savepoints.extend(self.manifests.get(&epoch).cloned()),
            Action::CollectGarbage { keep_from } => {
                let too_much = io.plan.is(Mutation::CollectTooMuch);
                let keep_from = if too_much { keep_from + io.plan.settings.retained } else { keep_from };
                io.call(For::Nothing, Op::Delete(Place::Store, Deletion::Before(keep_from)));
                io.call(For::Nothing, Op::Delete(Place::Folder, Deletion::Before(keep_from)));
            }
            Action::Recover(_) if self.next.is_some() => {}
            Action::Recover(_) => self.next = Some(Next::Recover(Box::new(Recovering::restart(self.generation)))),
            Action::Stop(_) => self.next = Some(Next::Exit(Exit::Fenced)),
            Action::Finished { .. } => self.next = Some(Next::Exit(Exit::Ended)),
        }
    }

    /// Segment, then what followers stage, then the manifest.
    fn persist(&mut self, io: &mut Io<'_>, epoch: Epoch, last: bool) {
        let sealed = self.tasks.sealed.remove(&epoch).unwrap_or_default();
        let manifest = Rc::new(self.manifest(io, epoch, last, &sealed));
        io.manifests.insert(manifest.hash, manifest.clone());
        let segment = Name::Segment(epoch, self.generation);
        let changed = if manifest.segments.len() == 1 { manifest.state.clone() } else { sealed.changed };
        self.persisting.push_back((Place::Store, segment, Content::Segment(Rc::new(changed))));
        for follower in 0..io.plan.followers.len() {
            let staged = Name::Staged(follower, epoch, self.generation);
            self.persisting.push_back((Place::Folder, staged, Content::Rows(manifest.outputs.clone())));
        }
        self.persisting.push_back((Place::Store, Name::Manifest(epoch, self.generation), Content::Manifest(manifest.clone())));
        self.manifests.insert(epoch, manifest.clone());
        self.manifests.retain(|old, _| old + 1 >= epoch);
        self.persisted = Some(Event::Persisted { epoch, manifest: manifest.hash });
        self.persist_next(io);
        if io.plan.is(Mutation::CommitBeforeDecision) {
            for follower in 0..io.plan.followers.len() {
                io.call(For::Nothing, Op::Commit { follower, manifest: manifest.clone() });
            }
        }
        if io.plan.is(Mutation::DecideBeforeDurable)
            && let Some(event) = self.persisted.take()
        {
            self.on(io, event);
        }
    }

    fn persist_next(&mut self, io: &mut Io<'_>) {
        match self.persisting.pop_front() {
            Some((place, name, content)) => io.call(For::Persist, Op::Create(place, name, content)),
            None => {
                if let Some(event) = self.persisted.take() {
                    self.on(io, event);
                }
            }
        }
    }

    fn manifest(&self, io: &Io<'_>, epoch: Epoch, last: bool, sealed: &Sealed) -> Manifest {
        let plan = io.plan;
        let parent = self.manifests.get(&(epoch - 1));
        // A task that has ended has nothing to say; what it said last is true for ever.
        let positions = plan.sources.iter().enumerate().map(|(at, rows)| *sealed.positions.get(&at).unwrap_or(&rows.len())).collect();
        let ended = (0..plan.operators).map(|at| *sealed.ended.get(&at).unwrap_or(&true)).collect();
        let mut state = parent.map(|parent| parent.state.clone()).unwrap_or_default();
        state.extend(sealed.changed.iter().map(|(at, cell)| (*at, *cell)));
        let mut segments = parent.map(|parent| parent.segments.clone()).unwrap_or_default();
        if epoch.is_multiple_of(plan.base_every) {
            segments.clear();
        }
        segments.push(Name::Segment(epoch, self.generation));
        let mut manifest = Manifest {
            epoch,
            generation: self.generation,
            last,
            positions,
            ended,
            segments,
            outputs: Rc::new(sealed.outputs.clone()),
            parent: parent.map_or(0, |parent| parent.hash),
            hash: 0,
            state,
        };
        manifest.hash = hash_of(&manifest);
        manifest
    }

    fn decide(&mut self, io: &mut Io<'_>, decision: Decision) {
        let epoch = decision.epoch;
        self.deciding.push_back(decision);
        if self.deciding.len() == 1 {
            self.send_decision(io);
        }
        if io.plan.is(Mutation::ManifestBeforeDecision) {
            // All of this is claimed before it is done.
            self.claim(io, epoch);
        }
    }

    fn claim(&mut self, io: &mut Io<'_>, epoch: Epoch) {
        let commits = (0..io.plan.followers.len()).map(|follower| Event::Committed { follower, epoch });
        let events: Vec<Event> = [Event::Decided { epoch }].into_iter().chain(commits).chain([Event::Recorded { epoch }]).collect();
        for event in events {
            for action in self.coordinator.on(io.now, event) {
                if !matches!(
                    action,
                    Action::Commit { .. } | Action::RecordCommit { .. } | Action::CollectGarbage { .. } | Action::Finished { .. }
                ) {
                    self.carry_out(io, action);
                }
            }
        }
    }

    fn send_decision(&mut self, io: &mut Io<'_>) {
        let Some(decision) = self.deciding.front().cloned() else { return };
        self.sent = Sent::Commit;
        match io.plan.decider {
            DeciderKind::Kafka => {
                let slot = slot_of(decision.epoch);
                self.sent = Sent::Nothing;
                if let Some(producer_epoch) = self.producer(io, slot) {
                    self.sent = Sent::Marker;
                    let marker = Some(Marker::Decision(decision));
                    io.call(For::Decide, Op::Produce { slot, producer_epoch, rows: Rc::default(), marker });
                }
            }
            DeciderKind::Postgres => {
                let rows = self.manifests.get(&decision.epoch).map(|manifest| manifest.outputs.clone()).unwrap_or_default();
                io.call(For::Decide, Op::PostgresDecide(decision, rows));
            }
            DeciderKind::Store => io.call(For::Decide, Op::Create(Place::Store, Name::Log(self.next_log), Content::Decision(decision))),
        }
    }

    fn decide_answered(&mut self, io: &mut Io<'_>, reply: Reply) {
        let Some(decision) = self.deciding.front().cloned() else { return };
        let epoch = decision.epoch;
        let failure = match reply {
            Reply::Done if self.sent == Sent::Marker => return self.end_transaction(io, epoch),
            Reply::Done => return self.decided(io, decision),
            Reply::Exists if io.plan.is(Mutation::SkipFence) => {
                self.next_log += 1;
                return self.send_decision(io);
            }
            Reply::Fenced if io.plan.decider == DeciderKind::Kafka => return io.call(For::Owner, Op::ReadProgress),
            Reply::Exists | Reply::Fenced => Failure::Fenced,
            // The transaction was not asked to commit.
            _ if self.sent == Sent::Marker => Failure::CertainlyNot,
            _ => Failure::Indefinite,
        };
        if failure == Failure::Indefinite {
            if io.plan.is(Mutation::ReuseProducer) && io.plan.decider == DeciderKind::Kafka {
                return self.end_transaction(io, epoch);
            }
            if io.plan.is(Mutation::UnknownIsDecided) {
                return self.decided(io, decision);
            }
            if io.plan.is(Mutation::UnknownIsUndecided) {
                self.next = Some(Next::Recover(Box::new(Recovering::restart_believing(self.generation, self.decided.clone()))));
            }
        }
        self.on(io, Event::DecideFailed { epoch, failure });
        if io.plan.is(Mutation::ManifestBeforeDecision) && self.next.is_none() {
            self.next = Some(Next::Recover(Box::new(Recovering::restart(self.generation))));
        }
    }

    /// A producer is fenced: by another process, or because its transaction was too old, which only makes it undecided.
    fn owner_answered(&mut self, io: &mut Io<'_>, reply: &Reply) {
        match reply {
            Reply::Progress(owner, _) if *owner != self.generation => self.on(io, Event::Overtaken),
            _ => self.next = Some(Next::Recover(Box::new(Recovering::restart(self.generation)))),
        }
    }

    fn end_transaction(&mut self, io: &mut Io<'_>, epoch: Epoch) {
        self.sent = Sent::Commit;
        let slot = slot_of(epoch);
        let producer_epoch = self.producer(io, slot).expect("its marker was sent");
        io.call(For::Decide, Op::EndTransaction { slot, producer_epoch });
    }

    fn decided(&mut self, io: &mut Io<'_>, decision: Decision) {
        let epoch = decision.epoch;
        self.deciding.pop_front();
        self.sent = Sent::Nothing;
        self.next_log += 1;
        self.decided = Some(decision);
        if io.plan.decider == DeciderKind::Kafka && io.plan.fresh_producers {
            let slot = slot_of(epoch);
            self.slots[slot] = Slot::Initializing;
            io.call(For::Slot(slot), Op::Init(slot));
        }
        if io.plan.is(Mutation::ManifestBeforeDecision) {
            self.do_claimed(io, epoch);
        } else {
            self.on(io, Event::Decided { epoch });
        }
    }

    /// What [`Running::claim`] has claimed.
    fn do_claimed(&mut self, io: &mut Io<'_>, epoch: Epoch) {
        let manifest = io.manifests.values().find(|manifest| (manifest.epoch, manifest.generation) == (epoch, self.generation)).cloned();
        for follower in 0..io.plan.followers.len() {
            io.call(For::Nothing, Op::Commit { follower, manifest: manifest.clone().expect("it was persisted") });
        }
        io.call(For::Nothing, Op::Create(Place::Store, Name::Record(epoch), Content::Empty));
        if self.deciding.is_empty() && *self.coordinator.under_way().1 == Stage::Over {
            self.next = Some(Next::Exit(Exit::Ended));
        }
        self.send_decision(io);
    }

    /// Sends rows of one operator, if their transaction may begin: no slot is written to before all of the other's is acknowledged.
    fn send(&mut self, io: &mut Io<'_>) {
        if self.sent == Sent::Nothing && !self.deciding.is_empty() {
            return self.send_decision(io);
        }
        let at = io.random.below(self.tasks.operators.len());
        let epoch = self.tasks.operators[at].sealed + 1;
        if self.tasks.operators[at].unsent.is_empty() || !self.tasks.closed_before(epoch) {
            return;
        }
        let slot = slot_of(epoch);
        if let Some(producer_epoch) = self.producer(io, slot) {
            let operator = &mut self.tasks.operators[at];
            let rows = Rc::new(std::mem::take(&mut operator.unsent));
            operator.unacknowledged += 1;
            io.call(For::Rows(at), Op::Produce { slot, producer_epoch, rows, marker: None });
        }
    }

    /// The producer of a slot, if it is there.
    fn producer(&mut self, io: &mut Io<'_>, slot: usize) -> Option<u32> {
        match self.slots[slot] {
            Slot::Ready(producer_epoch) => Some(producer_epoch),
            Slot::Initializing => None,
            Slot::Missing => {
                self.slots[slot] = Slot::Initializing;
                io.call(For::Slot(slot), Op::Init(slot));
                None
            }
        }
    }
}

/// Transactions of neighbouring epochs are in different slots.
fn slot_of(epoch: Epoch) -> usize {
    (epoch % 2) as usize
}

fn decision_of(manifest: &Manifest) -> Decision {
    let Manifest { epoch, generation, hash, .. } = *manifest;
    Decision { pipeline: PIPELINE.into(), epoch, generation, manifest: hash }
}

fn hash_of(manifest: &Manifest) -> u64 {
    let numbers = [manifest.epoch, manifest.generation, u64::from(manifest.last), manifest.parent];
    let positions = manifest.positions.iter().map(|position| *position as u64);
    let ended = manifest.ended.iter().map(|ended| u64::from(*ended));
    let state = manifest.state.values().map(|(count, sum)| digest([u64::from(*count), *sum]));
    digest(numbers.into_iter().chain(positions).chain(ended).chain(state)).max(1)
}
