//! `bench kafka`, `bench swaps` and `bench neighbours`: builds what `tests/bench-kafka` needs, in release, and runs it on a broker of its own.

use crate::step::{cargo, must, program, release_folder};
use crate::{guests, peers, setup};
use anyhow::Result;
use std::path::PathBuf;

/// Records that each contestant moves.
const RECORDS: u64 = 1_000_000;
/// Rounds, each running every contestant once.
const ROUNDS: u64 = 3;
/// Seconds in which latencies are taken.
const SECONDS: u64 = 60;

/// Swaps whose figures are pooled.
const SWAPS: u64 = 100;
/// Pairs of seconds of each way to misbehave.
const PAIRS: u64 = 25;

/// Builds what is needed; gives its folder.
fn build() -> Result<PathBuf> {
    setup::run(false)?;
    guests::build_test_components()?;
    // Together, so that shared dependencies have the features that the command line gives them, and are built once.
    let packages = ["-p", "pelton-cli", "-p", "pelton-tests", "--bin", "pelton", "--bin", "bench-kafka"];
    must(cargo().args(["build", "--release"]).args(packages))?;
    println!("{}", peers::machine());
    Ok(release_folder())
}

/// `bench swaps`: what a swap costs a pipeline on Kafka.
pub fn swaps() -> Result<()> {
    let folder = build()?;
    must(program(folder.join("bench-kafka")).arg("swaps").arg(folder.join("pelton")).arg(SWAPS.to_string()))
}

/// `bench neighbours`: what a pipeline on Kafka notices of a plugin that misbehaves in another one of the same host.
pub fn neighbours() -> Result<()> {
    let folder = build()?;
    must(program(folder.join("bench-kafka")).arg("neighbours").arg(folder.join("pelton")).arg(PAIRS.to_string()))
}

pub fn run() -> Result<()> {
    let folder = build()?;
    // The lines of `bench peers-traffic`: JSON objects of about 250 bytes.
    let input = peers::input(peers::LINES)?;
    must(program(folder.join("bench-kafka")).arg("latency").arg(folder.join("pelton")).arg(SECONDS.to_string()))?;
    must(program(folder.join("bench-kafka")).arg(folder.join("pelton")).arg(input).args([RECORDS.to_string(), ROUNDS.to_string()]))
}
