//! Everything outside the processes, what goes wrong there, and in which order things happen: all by chance, all from the seed.

use crate::check::Checks;
use crate::deciders::{Kafka, Postgres};
use crate::mutation::Mutation;
use crate::plan::{DeciderKind, Output, Plan, StoreKind};
use crate::process::{Call, Exit, For, Io, Process, Reply, State};
use crate::random::Random;
use crate::requests::{is_remote, shown, slot_of};
use crate::store::{Manifest, Store};
use pelton_core::Epoch;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Every run has ended after so many turns, or it never will.
const MOST_TURNS: u64 = 100_000;
/// Faults come in the first so many turns.
const FAULTY_TURNS: u64 = 6_000;
/// Processes that are alive at one time.
const MOST_PROCESSES: usize = 3;

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub crashes: u64,
    pub zombies: u64,
    pub restarts: u64,
    /// Copies of the store that a process was started on, and starts that were refused because of such.
    pub copies: u64,
    pub refused: u64,
    pub epochs: u64,
    pub turns: u64,
}

/// A table of a follower.
#[derive(Debug, Default)]
pub struct Table {
    pub epoch: Epoch,
    pub rows: Vec<Output>,
}

/// The world of a seed.
#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    random: Random,
    now: Duration,
    pub stores: Vec<Store>,
    pub folder: Store,
    pub kafka: Kafka,
    pub postgres: Postgres,
    pub tables: Vec<Table>,
    pub processes: Vec<Process>,
    calls: Vec<Call>,
    pub manifests: BTreeMap<u64, Rc<Manifest>>,
    pub checks: Checks,
    savepoints: Vec<Rc<Manifest>>,
    faults: usize,
    /// Where the next process starts, and how many starts were refused in a row.
    store: usize,
    refusals: usize,
    ended: bool,
    pub tally: Tally,
    trace: bool,
}

impl World {
    pub fn new(seed: u64, mutation: Option<Mutation>, trace: bool) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, mutation);
        World {
            now: Duration::ZERO,
            stores: vec![Store::new(plan.store)],
            folder: Store::new(StoreKind::Folder),
            kafka: Kafka::new(plan.own_sinks),
            postgres: Postgres::default(),
            tables: plan.followers.iter().map(|_| Table::default()).collect(),
            processes: Vec::new(),
            calls: Vec::new(),
            manifests: BTreeMap::new(),
            checks: Checks::default(),
            savepoints: Vec::new(),
            faults: plan.faults,
            store: 0,
            refusals: 0,
            ended: false,
            tally: Tally::default(),
            trace,
            random,
            plan,
        }
    }

    /// Runs to the end. Panics where an invariant is broken.
    pub fn run(mut self) -> Tally {
        self.trace(|world| format!("{:?}", world.plan));
        while !self.over() {
            self.tally.turns += 1;
            assert!(self.tally.turns < MOST_TURNS, "the pipeline does not come to an end");
            if self.tally.turns > FAULTY_TURNS {
                self.faults = 0;
            }
            self.turn();
        }
        self.check_end(&self.savepoints);
        self.tally.epochs = self.checks.decided();
        self.tally
    }

    fn trace(&self, text: impl Fn(&World) -> String) {
        if self.trace {
            println!("{:>6} {}", self.tally.turns, text(self));
        }
    }

    fn over(&self) -> bool {
        self.ended && self.calls.is_empty() && self.processes.iter().all(|process| !process.alive())
    }

    /// One thing happens.
    fn turn(&mut self) {
        self.now += Duration::from_millis(self.random.below(self.plan.step_ms) as u64);
        self.supervise();
        match self.random.below(100) {
            0..48 => self.step_process(),
            48..96 => self.serve_some(),
            _ if self.faults > 0 => self.fault(),
            _ => {}
        }
    }

    /// Starts a process when none works, and lets a stopped one go on.
    fn supervise(&mut self) {
        let paused = self.processes.iter().position(|process| process.paused && process.alive());
        if let Some(paused) = paused
            && self.random.chance(if self.faults == 0 { 50 } else { 8 })
        {
            self.processes[paused].paused = false;
            self.tally.zombies += u64::from(paused + 1 < self.processes.len());
            self.trace(|_| format!("process {paused} goes on"));
        }
        let works = self.processes.iter().any(|process| process.alive() && !process.paused);
        let done = self.ended && !self.processes.iter().any(Process::alive);
        if !(works || done) && self.random.chance(60) {
            self.start(paused);
        }
    }

    /// Starts a process: on the store that was used last, or on a copy of that of a stopped process.
    fn start(&mut self, paused: Option<usize>) {
        if self.processes.iter().filter(|process| process.alive()).count() >= MOST_PROCESSES {
            return;
        }
        if let Some(paused) = paused
            && self.plan.decider != DeciderKind::Store
            && self.faults > 0
            && self.random.chance(400)
        {
            let mut copy = self.stores[self.processes[paused].store].clone();
            copy.sync();
            self.stores.push(copy);
            self.store = self.stores.len() - 1;
            self.tally.copies += 1;
        }
        self.tally.restarts += u64::from(!self.processes.is_empty());
        self.processes.push(Process::start(self.store));
        self.trace(|world| format!("process {} starts on store {}", world.processes.len() - 1, world.store));
    }

    fn step_process(&mut self) {
        let able = |process: &&mut Process| process.alive() && !process.paused;
        let count = self.processes.iter_mut().filter(able).count();
        if count == 0 {
            return;
        }
        let chosen = self.random.below(count);
        let at = (0..self.processes.len()).filter(|at| self.processes[*at].alive() && !self.processes[*at].paused).nth(chosen);
        self.with_process(at.expect("it was counted"), Process::turn);
    }

    /// Lets a process act, and looks at what has become of it.
    fn with_process(&mut self, at: usize, act: impl FnOnce(&mut Process, &mut Io<'_>)) {
        let process = &mut self.processes[at];
        let before = std::mem::discriminant(&process.state);
        let mut io = Io {
            plan: &self.plan,
            random: &mut self.random,
            calls: &mut self.calls,
            now: self.now,
            process: at,
            life: process.life,
            manifests: &mut self.manifests,
            savepoints: &mut self.savepoints,
        };
        act(process, &mut io);
        self.check_owners();
        if before == std::mem::discriminant(&self.processes[at].state) {
            return;
        }
        self.trace(|world| match &world.processes[at].state {
            State::Recovering(_) => format!("process {at} recovers"),
            State::Running(running) => format!("process {at} runs, with {:?}", running.means()),
            State::Exited(exit) => format!("process {at} is gone: {exit:?}"),
        });
        match &self.processes[at].state {
            State::Running(_) => self.refusals = 0,
            State::Exited(exit) => {
                let exit = exit.clone();
                self.exited(at, exit);
            }
            State::Recovering(_) => self.tally.restarts += 1,
        }
    }

    fn exited(&mut self, at: usize, exit: Exit) {
        self.let_go(at);
        match exit {
            Exit::Ended => self.ended = true,
            Exit::Refused(refusal) => {
                assert!(self.stores.len() > 1, "refused without a reason: {refusal}");
                self.tally.refused += 1;
                self.store = (self.processes[at].store + 1) % self.stores.len();
                self.refusals += usize::from(!self.processes.iter().any(Process::alive));
                assert!(self.refusals <= 2 * self.stores.len(), "every copy of the store is refused: {refusal}");
            }
            Exit::Killed | Exit::Fenced => {}
        }
    }

    /// Nobody waits any more for what a process has asked. What has left the machine may arrive all the same.
    fn let_go(&mut self, at: usize) {
        let (plan, random) = (&self.plan, &mut self.random);
        self.calls.retain_mut(|call| {
            call.detached |= call.process == at;
            call.process != at || (is_remote(plan, &call.op) && random.chance(600))
        });
    }

    /// Something goes wrong.
    fn fault(&mut self) {
        let alive: Vec<usize> = (0..self.processes.len()).filter(|at| self.processes[*at].alive()).collect();
        let some = if alive.is_empty() { None } else { Some(alive[self.random.below(alive.len())]) };
        // Requests without an answer, and requests for savepoints, are many and cost nothing.
        let kind = self.random.below(40);
        if kind >= 8 && !self.random.chance(500) {
            return;
        }
        match (kind, some) {
            (0..=2, Some(at)) => {
                self.tally.crashes += 1;
                self.trace(|_| format!("process {at} is killed"));
                self.kill(at);
            }
            (3, _) => self.power_failure(),
            (4 | 5, Some(at)) => {
                self.trace(|_| format!("process {at} is stopped"));
                self.processes[at].paused = true;
            }
            (6, Some(_)) => {
                let paused = self.processes.iter().position(|process| process.paused && process.alive());
                self.start(paused);
            }
            (7, _) => self.time_out_transaction(),
            (8..=12, Some(at)) => return self.request_savepoint(at),
            _ => return self.no_answer(),
        }
        self.faults -= 1;
    }

    fn kill(&mut self, at: usize) {
        self.processes[at].state = State::Exited(Exit::Killed);
        self.exited(at, Exit::Killed);
    }

    /// The machine dies, and with it all processes and what their folders had not synced.
    fn power_failure(&mut self) {
        self.tally.crashes += 1;
        self.trace(|_| "power failure".into());
        for at in 0..self.processes.len() {
            if self.processes[at].alive() {
                self.kill(at);
            }
        }
        self.folder.lose_unsynced(&mut self.random);
        for at in 0..self.stores.len() {
            let decisions = self.stores[at].lose_unsynced(&mut self.random);
            decisions.iter().for_each(|decision| self.decided(decision));
        }
        self.check_visible();
        self.check_kept();
    }

    fn time_out_transaction(&mut self) {
        let slot = self.random.below(2);
        if self.plan.decider == DeciderKind::Kafka && self.kafka.time_out(slot) {
            self.trace(|_| format!("the transaction of slot {slot} is too old"));
        }
    }

    fn request_savepoint(&mut self, at: usize) {
        if !self.processes[at].paused {
            self.with_process(at, |process, io| {
                if let State::Running(running) = &mut process.state {
                    running.request(io);
                }
            });
        }
    }

    /// A process is told that there is no answer. The request may still arrive, later.
    fn no_answer(&mut self) {
        let waiting = |at: &usize| !self.calls[*at].detached && is_remote(&self.plan, &self.calls[*at].op);
        let mut waiting: Vec<usize> = (0..self.calls.len()).filter(waiting).collect();
        if self.random.chance(500) {
            // These are the ones that hurt.
            waiting.retain(|at| self.calls[*at].purpose == For::Decide);
        }
        if waiting.is_empty() {
            return;
        }
        let at = waiting[self.random.below(waiting.len())];
        let (process, life, purpose) = (self.calls[at].process, self.calls[at].life, self.calls[at].purpose);
        self.trace(|world| format!("no answer for {}", shown(&world.calls[at])));
        self.answer(process, life, purpose, Reply::Unknown);
        self.calls[at].detached = true;
        if self.random.chance(300) {
            self.calls.swap_remove(at);
        }
        self.faults -= usize::from(self.random.chance(200));
    }

    fn answer(&mut self, process: usize, life: u32, purpose: For, reply: Reply) {
        let process = &mut self.processes[process];
        if process.alive() && process.life == life {
            process.inbox.push_back((purpose, reply));
        }
    }

    /// A request arrives, or goes on by one stage.
    fn serve_some(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let mut at = self.random.below(self.calls.len());
        if self.calls[at].detached && self.random.chance(if self.faults == 0 { 0 } else { 950 }) {
            return;
        }
        // What goes to one producer goes in order, as long as its process waits for it.
        let chosen = &self.calls[at];
        if let (Some(slot), false) = (slot_of(&chosen.op), chosen.detached) {
            let same = |call: &Call| {
                (call.process, call.life, call.detached, slot_of(&call.op)) == (chosen.process, chosen.life, false, Some(slot))
            };
            at = self.calls.iter().position(same).expect("at least itself");
        }
        let call = self.calls[at].clone();
        let reply = self.serve(&call);
        self.trace(|_| {
            format!(
                "{} -> {}",
                shown(&call),
                reply.as_ref().map_or("…".into(), |reply| format!("{reply:?}").chars().take(60).collect::<String>())
            )
        });
        match reply {
            Some(reply) => {
                self.calls.remove(at);
                if !call.detached {
                    self.answer(call.process, call.life, call.purpose, reply);
                }
            }
            None => self.calls[at].stage += 1,
        }
    }
}
