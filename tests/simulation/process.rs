//! One process: carries out what the rules ask for, by requests to the world.

use crate::deciders::Marker;
use crate::plan::{Output, Plan};
use crate::random::Random;
use crate::recovering::Recovering;
use crate::running::Running;
use crate::store::{Content, Manifest, Name, State as Cells};
use pelton_core::checkpoint::Refusal;
use pelton_core::{Decision, Epoch, Generation};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Where an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The checkpoint store of the process.
    Store,
    /// The folder that files sinks write to; the same for all.
    Folder,
}

/// What is deleted.
#[derive(Clone, Copy, Debug)]
pub enum Deletion {
    /// Staged and prepared after this epoch, before this generation.
    Undecided { after: Epoch, before: Generation },
    /// What only earlier epochs need.
    Before(Epoch),
}

/// A request.
#[derive(Clone, Debug)]
pub enum Op {
    List,
    Create(Place, Name, Content),
    Delete(Place, Deletion),
    /// The state that the segments of a manifest amount to.
    Load(Rc<Manifest>),
    Init(usize),
    Produce {
        slot: usize,
        producer_epoch: u32,
        rows: Rc<Vec<Output>>,
        marker: Option<Marker>,
    },
    EndTransaction {
        slot: usize,
        producer_epoch: u32,
    },
    ReadProgress,
    PostgresFence(Generation),
    PostgresRead,
    PostgresDecide(Decision, Rc<Vec<Output>>),
    /// A follower commits.
    Commit {
        follower: usize,
        manifest: Rc<Manifest>,
    },
}

/// What the process wants it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Recovery,
    Persist,
    Decide,
    Commit(usize, Epoch),
    Record(Epoch),
    /// Rows of an operator.
    Rows(usize),
    Slot(usize),
    /// Who owns the transactions, after they were fenced.
    Owner,
    /// The answer does not matter.
    Nothing,
}

/// How it went.
#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    /// There is one of that name.
    Exists,
    Fenced,
    Overtaken(Generation),
    ProducerEpoch(u32),
    Listing(Rc<Listing>),
    Progress(Generation, Option<Decision>),
    Loaded(Rc<Cells>),
    /// Some of it is not there.
    Lost,
    /// No answer: it may have happened, may happen later, or never.
    Unknown,
}

/// What is in a store.
#[derive(Clone, Debug)]
pub struct Listing {
    pub generation: Generation,
    pub prepared: Vec<Rc<Manifest>>,
    pub recorded: Epoch,
    pub log: (u64, Generation, Option<Decision>),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Call {
    pub process: usize,
    /// Of the process, by in-process restarts.
    pub life: u32,
    pub op: Op,
    pub purpose: For,
    /// How much of it is done.
    pub stage: u32,
    /// Nobody waits for the answer any more.
    pub detached: bool,
}

/// What a process may touch.
pub struct Io<'a> {
    pub plan: &'a Plan,
    pub random: &'a mut Random,
    pub calls: &'a mut Vec<Call>,
    pub now: Duration,
    pub process: usize,
    pub life: u32,
    /// All manifests that were ever written, by hash: for the checks.
    pub manifests: &'a mut BTreeMap<u64, Rc<Manifest>>,
    pub savepoints: &'a mut Vec<Rc<Manifest>>,
}

impl Io<'_> {
    pub fn call(&mut self, purpose: For, op: Op) {
        self.calls.push(Call { process: self.process, life: self.life, op, purpose, stage: 0, detached: false });
    }
}

/// Why a process is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Killed,
    Ended,
    Fenced,
    Refused(Refusal),
}

/// Where a process is.
#[derive(Debug)]
pub enum State {
    Recovering(Box<Recovering>),
    Running(Box<Running>),
    Exited(Exit),
}

/// What comes of a turn.
#[derive(Debug)]
pub enum Next {
    Stay,
    Recover(Box<Recovering>),
    Run(Box<Running>),
    Exit(Exit),
}

/// A process, and what it has been answered.
#[derive(Debug)]
pub struct Process {
    pub store: usize,
    pub life: u32,
    pub paused: bool,
    pub inbox: VecDeque<(For, Reply)>,
    pub state: State,
}

impl Process {
    pub fn start(store: usize) -> Process {
        Process { store, life: 0, paused: false, inbox: VecDeque::new(), state: State::Recovering(Box::new(Recovering::start())) }
    }

    pub fn alive(&self) -> bool {
        !matches!(self.state, State::Exited(_))
    }

    /// Does one thing.
    pub fn turn(&mut self, io: &mut Io<'_>) {
        let message = if io.random.chance(600) { self.inbox.pop_front() } else { None };
        let next = match (&mut self.state, message) {
            (State::Recovering(recovering), message) => recovering.turn(io, message),
            (State::Running(running), Some((purpose, reply))) => running.answered(io, purpose, reply),
            (State::Running(running), None) => running.step(io),
            (State::Exited(_), _) => Next::Stay,
        };
        let state = match next {
            Next::Stay => return,
            Next::Recover(recovering) => {
                // What is on its way goes on; nobody hears of it.
                self.life += 1;
                self.inbox.clear();
                State::Recovering(recovering)
            }
            Next::Run(running) => State::Running(running),
            Next::Exit(exit) => State::Exited(exit),
        };
        self.state = state;
    }
}
