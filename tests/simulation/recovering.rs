//! Carries out the steps of a recovery. A step that goes wrong in any way begins the whole again.

use crate::deciders::Marker;
use crate::mutation::Mutation;
use crate::plan::{DeciderKind, Plan};
use crate::process::{Deletion, Exit, For, Io, Listing, Next, Op, Place, Reply};
use crate::running::{Running, Slot};
use crate::store::{Content, Manifest, Name};
use pelton_core::checkpoint::{Answer, Prepared, Recovery, Refusal, Step, Take};
use pelton_core::{Decision, Generation};
use std::rc::Rc;

/// What the checkpoints and decisions here are of.
pub const PIPELINE: &str = "simulated";

/// How a recovery goes.
#[derive(Debug)]
pub struct Recovering {
    recovery: Recovery,
    /// Of a process that restarts itself: its generation.
    own: Option<Generation>,
    /// The generation that has been taken.
    taken: Option<Generation>,
    /// Being created.
    wanted: Generation,
    /// Requests of this step that have been answered.
    asked: usize,
    slots: [Slot; 2],
    /// The marker of the new owner is in Kafka's open transaction.
    owner_sent: bool,
    next_log: u64,
    manifests: Vec<Rc<Manifest>>,
    /// What a driver with [`Mutation::ReadBeforeFence`] has read, or one with [`Mutation::UnknownIsUndecided`] believes.
    early_decision: Option<Option<Decision>>,
    early_store: Option<Rc<Listing>>,
}

/// What an answer led to.
enum Outcome {
    /// The step goes on.
    Waiting,
    Answer(Answer),
    /// Anything else than what was hoped for.
    Again,
}

impl Recovering {
    pub fn start() -> Recovering {
        Recovering::begin(Recovery::start(PIPELINE.into()), None)
    }

    pub fn restart(own: Generation) -> Recovering {
        Recovering::begin(Recovery::restart(PIPELINE.into(), own), Some(own))
    }

    /// As [`Recovering::restart`], by a driver that thinks it knows what was decided.
    pub fn restart_believing(own: Generation, decision: Option<Decision>) -> Recovering {
        Recovering { early_decision: Some(decision), ..Recovering::restart(own) }
    }

    fn begin(recovery: Recovery, own: Option<Generation>) -> Recovering {
        Recovering {
            recovery,
            own,
            taken: None,
            wanted: 0,
            asked: usize::MAX,
            slots: [Slot::Missing; 2],
            owner_sent: false,
            next_log: 0,
            manifests: Vec::new(),
            early_decision: None,
            early_store: None,
        }
    }

    /// Asks, or takes an answer.
    pub fn turn(&mut self, io: &mut Io<'_>, message: Option<(For, Reply)>) -> Next {
        if self.asked == usize::MAX {
            self.asked = 0;
            return self.begin_step(io);
        }
        let Some((For::Recovery, reply)) = message else { return Next::Stay };
        self.asked += 1;
        match self.answered(io, reply) {
            Outcome::Waiting => Next::Stay,
            Outcome::Answer(answer) => {
                self.recovery.answer(answer);
                self.asked = usize::MAX;
                Next::Stay
            }
            Outcome::Again => Next::Recover(Box::new(match self.taken.or(self.own) {
                Some(own) => Recovering::restart(own),
                None => Recovering::start(),
            })),
        }
    }

    fn begin_step(&mut self, io: &mut Io<'_>) -> Next {
        let step = self.recovery.step().clone();
        let op = match &step {
            Step::TakeGeneration(_) => Op::List,
            Step::Fence(_) if io.plan.is(Mutation::ReadBeforeFence) && self.early_decision.is_none() => Op::List,
            Step::Fence(generation) => match io.plan.decider {
                DeciderKind::Kafka => Op::Init(0),
                DeciderKind::Postgres => Op::PostgresFence(*generation),
                DeciderKind::Store => Op::List,
            },
            Step::ReadDecision => read_decision(io.plan),
            Step::ReadStore => Op::List,
            Step::RollForward(decided) => {
                if io.plan.followers.is_empty() || io.plan.is(Mutation::SkipRollForward) {
                    self.recovery.answer(Answer::Done);
                    return self.begin_step(io);
                }
                Op::Commit { follower: 0, manifest: self.manifest(decided) }
            }
            Step::RecordCommit(epoch) => Op::Create(Place::Store, Name::Record(*epoch), Content::Empty),
            Step::Discard { after, before } => Op::Delete(Place::Store, discarded(io.plan, *after, *before)),
            Step::Restore(Some(decided)) => Op::Load(self.manifest(decided)),
            Step::Restore(None) => {
                self.recovery.answer(Answer::Done);
                return self.begin_step(io);
            }
            Step::Start { generation, epoch } => {
                let base = self.recovery.verdict().and_then(|verdict| verdict.decided()).map(|decided| self.manifest(decided));
                return Next::Run(Box::new(Running::start(io, *generation, *epoch, base, self.slots, self.next_log)));
            }
            Step::Ended { .. } => return Next::Exit(Exit::Ended),
            Step::Refuse(Refusal::Overtaken { .. }) => return Next::Exit(Exit::Fenced),
            Step::Refuse(refusal) => return Next::Exit(Exit::Refused(refusal.clone())),
        };
        io.call(For::Recovery, op);
        Next::Stay
    }

    fn answered(&mut self, io: &mut Io<'_>, reply: Reply) -> Outcome {
        let step = self.recovery.step().clone();
        match (&step, reply) {
            (_, Reply::Unknown | Reply::Fenced | Reply::Lost) => Outcome::Again,
            (Step::TakeGeneration(take), reply) => self.take_generation(io, *take, reply),
            (Step::Fence(_), Reply::Overtaken(theirs)) => Outcome::Answer(Answer::Overtaken(theirs)),
            (Step::Fence(generation), reply) if io.plan.is(Mutation::ReadBeforeFence) && self.early_decision.is_none() => {
                self.read_early(io, *generation, reply)
            }
            (Step::Fence(generation), reply) => match io.plan.decider {
                DeciderKind::Kafka => self.fence_kafka(io, *generation, reply),
                DeciderKind::Postgres => Outcome::Answer(Answer::Done),
                DeciderKind::Store => self.fence_store(io, *generation, reply),
            },
            (Step::ReadDecision, reply) => {
                Outcome::Answer(Answer::Decision(self.early_decision.clone().unwrap_or_else(|| decision_in(io.plan, &reply))))
            }
            (Step::ReadStore, Reply::Listing(listing)) => {
                let listing = self.early_store.clone().unwrap_or(listing);
                self.manifests.clone_from(&listing.prepared);
                let prepared = listing.prepared.iter().map(|manifest| prepared_of(manifest)).collect();
                Outcome::Answer(Answer::Store { prepared, recorded: listing.recorded, newest: listing.generation })
            }
            (Step::RollForward(decided), _) if self.asked < io.plan.followers.len() => {
                io.call(For::Recovery, Op::Commit { follower: self.asked, manifest: self.manifest(decided) });
                Outcome::Waiting
            }
            (Step::Discard { after, before }, _) if self.asked == 1 => {
                io.call(For::Recovery, Op::Delete(Place::Folder, discarded(io.plan, *after, *before)));
                Outcome::Waiting
            }
            (Step::Restore(Some(decided)), Reply::Loaded(state)) => {
                assert_eq!(*state, self.manifest(decided).state, "what the segments of epoch {} amount to", decided.epoch);
                Outcome::Answer(Answer::Done)
            }
            (_, Reply::Done | Reply::Exists) => Outcome::Answer(Answer::Done),
            (step, reply) => panic!("{reply:?} is no answer to {step:?}"),
        }
    }

    fn take_generation(&mut self, io: &mut Io<'_>, take: Take, reply: Reply) -> Outcome {
        match (reply, take) {
            (Reply::Listing(listing), Take::After(own)) if listing.generation > own => {
                Outcome::Answer(Answer::Overtaken(listing.generation))
            }
            (Reply::Listing(listing), Take::After(least) | Take::Above(least)) => {
                self.wanted = listing.generation.max(least) + 1;
                io.call(For::Recovery, Op::Create(Place::Store, Name::Generation(self.wanted), Content::Empty));
                Outcome::Waiting
            }
            (Reply::Done, _) => {
                self.taken = Some(self.wanted);
                Outcome::Answer(Answer::Taken(self.wanted))
            }
            (_, Take::After(_)) => Outcome::Answer(Answer::Overtaken(self.wanted)),
            (_, Take::Above(_)) => {
                io.call(For::Recovery, Op::List);
                Outcome::Waiting
            }
        }
    }

    /// Both slots, then who fenced last, then that it is us: so that later fences have later generations, also of copies of the store.
    fn fence_kafka(&mut self, io: &mut Io<'_>, generation: Generation, reply: Reply) -> Outcome {
        let skip = io.plan.is(Mutation::SkipFence);
        match reply {
            Reply::ProducerEpoch(producer_epoch) => {
                let first = self.slots[0] == Slot::Missing;
                self.slots[usize::from(!first)] = Slot::Ready(producer_epoch);
                io.call(For::Recovery, if first && !skip { Op::Init(1) } else { Op::ReadProgress });
                Outcome::Waiting
            }
            Reply::Progress(owner, _) if owner >= generation && !io.plan.is(Mutation::FenceOutOfOrder) => {
                self.slots = [Slot::Missing; 2];
                Outcome::Answer(Answer::Overtaken(owner))
            }
            Reply::Progress(..) => {
                let marker = Some(Marker::Owner(generation));
                io.call(For::Recovery, Op::Produce { slot: 0, producer_epoch: self.owner_epoch(), rows: Rc::default(), marker });
                Outcome::Waiting
            }
            Reply::Done if !self.owner_sent => {
                self.owner_sent = true;
                io.call(For::Recovery, Op::EndTransaction { slot: 0, producer_epoch: self.owner_epoch() });
                Outcome::Waiting
            }
            _ => Outcome::Answer(Answer::Done),
        }
    }

    fn owner_epoch(&self) -> u32 {
        match self.slots[0] {
            Slot::Ready(producer_epoch) => producer_epoch,
            _ => unreachable!("slot 0 was fenced first"),
        }
    }

    /// Taking over competes with deciding for the next name.
    fn fence_store(&mut self, io: &mut Io<'_>, generation: Generation, reply: Reply) -> Outcome {
        match reply {
            Reply::Listing(listing) if io.plan.is(Mutation::SkipFence) => {
                self.next_log = listing.log.0;
                Outcome::Answer(Answer::Done)
            }
            Reply::Listing(listing) if listing.log.1 >= generation && !io.plan.is(Mutation::FenceOutOfOrder) => {
                Outcome::Answer(Answer::Overtaken(listing.log.1))
            }
            Reply::Listing(listing) => {
                self.next_log = listing.log.0 + 1;
                io.call(For::Recovery, Op::Create(Place::Store, Name::Log(listing.log.0), Content::Taken(generation)));
                Outcome::Waiting
            }
            Reply::Exists => {
                io.call(For::Recovery, Op::List);
                Outcome::Waiting
            }
            _ => Outcome::Answer(Answer::Done),
        }
    }

    /// The store, then the decision, and only then the fence.
    fn read_early(&mut self, io: &mut Io<'_>, generation: Generation, reply: Reply) -> Outcome {
        if let (Reply::Listing(listing), None) = (&reply, &self.early_store) {
            self.early_store = Some(listing.clone());
            io.call(For::Recovery, read_decision(io.plan));
            return Outcome::Waiting;
        }
        self.early_decision = Some(decision_in(io.plan, &reply));
        let fence = match io.plan.decider {
            DeciderKind::Kafka => Op::Init(0),
            DeciderKind::Postgres => Op::PostgresFence(generation),
            DeciderKind::Store => Op::List,
        };
        io.call(For::Recovery, fence);
        Outcome::Waiting
    }

    fn manifest(&self, prepared: &Prepared) -> Rc<Manifest> {
        let wanted = |manifest: &&Rc<Manifest>| (manifest.hash, manifest.generation) == (prepared.manifest, prepared.generation);
        self.manifests.iter().find(wanted).expect("it was listed").clone()
    }
}

fn prepared_of(manifest: &Manifest) -> Prepared {
    Prepared { epoch: manifest.epoch, generation: manifest.generation, manifest: manifest.hash, last: manifest.last }
}

fn read_decision(plan: &Plan) -> Op {
    match plan.decider {
        DeciderKind::Kafka => Op::ReadProgress,
        DeciderKind::Postgres => Op::PostgresRead,
        DeciderKind::Store => Op::List,
    }
}

fn decision_in(plan: &Plan, reply: &Reply) -> Option<Decision> {
    match (plan.decider, reply) {
        (DeciderKind::Store, Reply::Listing(listing)) => listing.log.2.clone(),
        (_, Reply::Progress(_, decision)) => decision.clone(),
        (_, reply) => panic!("{reply:?} says nothing of decisions"),
    }
}

fn discarded(plan: &Plan, after: u64, before: Generation) -> Deletion {
    Deletion::Undecided { after, before: if plan.is(Mutation::DiscardAnyGeneration) { Generation::MAX } else { before } }
}
