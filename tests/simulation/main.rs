//! The rules of checkpoints (`host/core/src/checkpoint`) in a world where everything that can go wrong does.
//!
//! One seed is one world: a keyed pipeline and its input, one to three processes that run it, checkpoint storage, a decider, followers.
//! Processes are killed, stopped and let go on while another has taken over (on the same store, or on a copy of it); machines die with what
//! was not synced; requests arrive late, twice, or never, and their answers likewise; brokers end transactions that are too old. Who
//! acts next is chance, and all chance comes from the seed, so a seed is always the same run.
//!
//! - [`plan`]: what a seed draws, and the oracle. [`random`].
//! - [`store`], [`deciders`]: models of storage, Kafka, Postgres.
//! - [`process`], [`recovering`], [`running`], [`tasks`]: the driver of the rules, and the pipeline.
//! - [`world`]: order and faults. [`requests`]: what arrives. [`check`]: what must never happen.
//! - [`mutation`]: faults built in on purpose. Each has to be found.
//!
//! `--seeds N` runs so many, `--seed S` says where they begin; `--seed S` alone shows that one. `--mutation NAME` builds a fault in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test may panic, and is timed")]

mod check;
mod deciders;
mod mutation;
mod plan;
mod process;
mod random;
mod recovering;
mod requests;
mod running;
mod store;
mod tasks;
mod world;

use mutation::Mutation;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Tally, World};

/// As many seeds in CI.
const SEEDS: u64 = 100_000;
/// A mutation is found within so many.
const MUTATION_SEEDS: u64 = 20_000;
/// Failing seeds that are shown.
const SHOWN: usize = 5;

thread_local! {
    /// What the last panic of this thread said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str| text(name).map(|text| text.parse::<u64>().expect("a number"));
    let mutation = text("--mutation").map(|name| {
        *Mutation::ALL.iter().find(|mutation| format!("{mutation:?}") == *name).unwrap_or_else(|| panic!("one of {:?}", Mutation::ALL))
    });
    std::panic::set_hook(Box::new(|panic| SAID.with_borrow_mut(|said| *said = panic.to_string())));
    let (seed, seeds) = (number("--seed"), number("--seeds"));
    if let (Some(seed), None) = (seed, seeds) {
        return show(seed, mutation);
    }
    let failed = run_seeds(seed.unwrap_or(1), seeds.unwrap_or(SEEDS), mutation);
    let missed = if seeds.is_none() { find_mutations() } else { 0 };
    if failed + missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One seed. `Err`: what went wrong.
fn run(seed: u64, mutation: Option<Mutation>, trace: bool) -> Result<Tally, String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| World::new(seed, mutation, trace).run())).map_err(|_| SAID.take())
}

/// Shows what happens in one seed.
fn show(seed: u64, mutation: Option<Mutation>) -> ExitCode {
    match run(seed, mutation, true) {
        Ok(tally) => {
            println!("seed {seed}: {tally:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED seed {seed}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs many, and prints the closing line. Gives how many failed.
fn run_seeds(first: u64, count: u64, mutation: Option<Mutation>) -> usize {
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let runs: Vec<(Tally, Vec<(u64, String)>)> = std::thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return (tally, failed);
                }
                match run(seed, mutation, false) {
                    Ok(more) => tally.add(&more),
                    Err(error) => failed.push((seed, error)),
                }
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("panics are caught")).collect()
    });
    let mut total = Tally::default();
    runs.iter().for_each(|(tally, _)| total.add(tally));
    let mut failed: Vec<&(u64, String)> = runs.iter().flat_map(|(_, failed)| failed).collect();
    failed.sort();
    for (seed, error) in failed.iter().take(SHOWN) {
        println!("FAILED seed {seed} (replay: cargo xtask simulate --seed {seed}): {error}");
    }
    // A seed that fails says how many; the others have been compared, and have none.
    let sum = |what: &str| failed.iter().map(|(_, error)| count_in(error, what)).sum::<u64>();
    println!(
        "seeds={count} crashes={} zombies={} restarts={} copies={} refused={} epochs={} failed={} lost={} duplicated={} wrong={} seconds={:.1}",
        total.crashes,
        total.zombies,
        total.restarts,
        total.copies,
        total.refused,
        total.epochs,
        failed.len(),
        sum("lost: "),
        sum("duplicated: "),
        sum("wrong: "),
        start.elapsed().as_secs_f64()
    );
    failed.len()
}

/// The number after a word in a message.
fn count_in(error: &str, word: &str) -> u64 {
    let after = error.find(word).map(|at| &error[at + word.len()..]).unwrap_or_default();
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

/// Builds every fault in. Gives how many were not found.
fn find_mutations() -> usize {
    let start = Instant::now();
    let mut missed = 0;
    for mutation in Mutation::ALL {
        let found = (1..=MUTATION_SEEDS).find_map(|seed| run(seed, Some(mutation), false).err().map(|error| (seed, error)));
        match found {
            Some((seed, error)) => {
                let why: String = error.lines().skip(1).collect::<Vec<_>>().join(" ");
                println!("{mutation:?}: found by seed {seed}: {}", why.chars().take(160).collect::<String>());
            }
            None => {
                missed += 1;
                println!("MISSED {mutation:?}: not found in {MUTATION_SEEDS} seeds");
            }
        }
    }
    println!("mutations={} found={} seconds={:.1}", Mutation::ALL.len(), Mutation::ALL.len() - missed, start.elapsed().as_secs_f64());
    missed
}

impl Tally {
    fn add(&mut self, more: &Tally) {
        self.crashes += more.crashes;
        self.zombies += more.zombies;
        self.restarts += more.restarts;
        self.copies += more.copies;
        self.refused += more.refused;
        self.epochs += more.epochs;
        self.turns += more.turns;
    }
}
