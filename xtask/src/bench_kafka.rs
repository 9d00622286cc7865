//! `bench kafka`: builds what the comparison of `tests/bench-kafka` needs, in release, and runs it on a broker of its own.

use crate::step::{cargo, must, program, release_folder};
use crate::{guests, peers, setup};
use anyhow::Result;

/// Records that each contestant moves.
const RECORDS: u64 = 1_000_000;
/// Rounds, each running every contestant once.
const ROUNDS: u64 = 3;

pub fn run() -> Result<()> {
    setup::run(false)?;
    guests::build_test_components()?;
    // Together, so that shared dependencies have the features that the command line gives them, and are built once.
    let packages = ["-p", "pelton-cli", "-p", "pelton-tests", "--bin", "pelton", "--bin", "bench-kafka"];
    must(cargo().args(["build", "--release"]).args(packages))?;
    let folder = release_folder();
    println!("{}", peers::machine());
    // The lines of `bench peers-traffic`: JSON objects of about 250 bytes.
    let input = peers::input(peers::LINES)?;
    must(program(folder.join("bench-kafka")).arg(folder.join("pelton")).arg(input).args([RECORDS.to_string(), ROUNDS.to_string()]))
}
