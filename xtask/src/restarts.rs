//! The suites of [`CRASHED`] once more, with barriers and crashes at counts of rows that are drawn from a seed, batches of one to three rows, another
//! parallelism and the other backend in each life, and all plugins made anew at each barrier: nothing may come out otherwise. Then the tests whose names
//! begin with [`KILLED`], where each crash is the end of a process by `kill -9`.
//!
//! Each run says what happened inside it; one that was long enough and shows nothing fails the suite.

use crate::step::{cargo, must, root};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

const CRASHED: [&str; 2] = ["cases", "metamorphic"];
const SEEDS: [&str; 2] = ["11", "20261121"];
/// The first looks for what a failed run leaves; one that could go on leaves what it would go on with. The second has a canary, which goes with the life that it
/// is in. The others swap a plugin for one that keeps its state otherwise, which is refused where cells lie on disk, as in every other life here.
/// What becomes of a swap over restarts is what `a_swap_is_answered_over_restarts` looks at.
const NOT_CRASHED: [&str; 5] = [
    "a_row_error_without_handling_fails_with_its_position",
    "the_script_of_the_plugin_lifecycle_runs_as_it_says",
    "state_that_cannot_be_brought_over_is_known_before_the_cut",
    "accumulators_that_cannot_be_brought_over_are_known_before_the_cut",
    "a_component_that_was_damaged_is_fetched_from_the_checkpoints",
];
const KILLED: &str = "examples::";
/// Processes that are killed, at least.
const MIN_KILLS: u64 = 20;
/// A run of fewer rows may end before it has crashed and gone on from an epoch.
const FEW_ROWS: u64 = 40;
/// Lives go on with each of these numbers of tasks.
const TASKS: [&str; 4] = ["1", "2", "3", "8"];

/// See the module.
pub fn run() -> Result<()> {
    let mut crashed = Crashed::default();
    let skipped = NOT_CRASHED.map(|test| ["--skip", test]).concat();
    for seed in SEEDS {
        for target in CRASHED {
            crashed.run(seed, target, &skipped, &[])?;
        }
    }
    println!("restarts: seeds={} {crashed}", SEEDS.join(","));
    let mut killed = Crashed::default();
    killed.run(SEEDS[0], "cases", &[KILLED], &[("PELTON_TEST_KILLS", "1")])?;
    println!("restarts: seeds={} processes=real {killed}", SEEDS[0]);
    if killed.crashes < MIN_KILLS {
        bail!("only {} processes were killed, {MIN_KILLS} are wanted: the suite shows little", killed.crashes);
    }
    crashed.shows_all()?;
    killed.shows_some()
}

/// What the lines that runs with crashes print amount to, such as `crashes: lives=3 epochs=17 restores=2 renewed=4 rows=900 tasks=1,8,2`.
#[derive(Default)]
struct Crashed {
    runs: u64,
    crashes: u64,
    epochs: u64,
    restores: u64,
    renewed: u64,
    /// Runs of fewer than [`FEW_ROWS`] rows.
    short: u64,
    /// Longer ones that did not crash, had no epoch, or did not go on from one.
    without: Vec<String>,
    /// Of lives that went on: how many tasks each had.
    tasks: BTreeSet<String>,
}

impl Crashed {
    /// Runs tests of a target, and adds up what they say.
    fn run(&mut self, seed: &str, target: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let log = root().join("target/restarts.log");
        let _ = std::fs::remove_file(&log);
        let test = ["test", "--workspace", "--test", target, "--"];
        let variables = [("PELTON_TEST_CRASHES", seed)];
        let mut command = cargo();
        command.args(test).args(arguments).env("PELTON_TEST_CRASHES_LOG", &log).envs(variables).envs(environment.iter().copied());
        must(&mut command)?;
        let text = std::fs::read_to_string(&log).context("no run said that it crashed")?;
        text.lines().for_each(|line| self.add(line));
        Ok(())
    }

    fn add(&mut self, line: &str) {
        let text = |name: &str| line.split_once(&format!(" {name}=")).map_or("", |(_, rest)| rest.split(' ').next().unwrap_or_default());
        let figure = |name: &str| text(name).parse::<u64>().unwrap_or(0);
        let (crashes, epochs, restores) = (figure("lives").saturating_sub(1), figure("epochs"), figure("restores"));
        self.runs += 1;
        (self.crashes, self.epochs, self.restores) = (self.crashes + crashes, self.epochs + epochs, self.restores + restores);
        self.renewed += figure("renewed");
        self.tasks.extend(text("tasks").split(',').skip(1).map(str::to_string));
        if figure("rows") < FEW_ROWS {
            self.short += 1;
        } else if crashes == 0 || epochs == 0 || restores == 0 {
            self.without.push(line.to_string());
        }
    }

    /// Every run that is long enough has crashed, had barriers, and gone on.
    fn shows_some(&self) -> Result<()> {
        if !self.without.is_empty() {
            bail!("runs without a crash, a barrier or a restore show nothing:\n  {}", self.without.join("\n  "));
        }
        Ok(())
    }

    /// And together with every number of tasks, and with plugins made anew.
    fn shows_all(&self) -> Result<()> {
        self.shows_some()?;
        if let Some(tasks) = TASKS.iter().find(|tasks| !self.tasks.contains(**tasks)) {
            bail!("no life went on with {tasks} tasks");
        }
        if self.renewed == 0 {
            bail!("no plugin was made anew at a barrier");
        }
        Ok(())
    }
}

impl std::fmt::Display for Crashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tasks: Vec<&str> = self.tasks.iter().map(String::as_str).collect();
        write!(
            f,
            "runs={} crashes={} barriers={} restores={} renewed={} tasks={} short={} without={}",
            self.runs,
            self.crashes,
            self.epochs,
            self.restores,
            self.renewed,
            tasks.join(","),
            self.short,
            self.without.len()
        )
    }
}
