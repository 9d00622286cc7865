//! The fuzz targets: unit tests whose names begin with `fuzz_`, on stable, all of a crate at once.
//!
//! Bolero feeds each target the inputs that lie beside it (`__fuzz__/<target>/corpus`, and `crashes` for what was once found), and then
//! random ones until its time is over.

use crate::step::{cargo, must, root};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Instant;

/// How the names of targets begin.
pub const TESTS: &str = "fuzz_";
/// Of each target in CI.
pub const CI_SECONDS: u64 = 5;
/// Targets of a crate that run at once: all, so that a crate takes as long as one target.
const AT_ONCE: &str = "32";

/// Every target, or those whose names have a text, for so many seconds each.
#[allow(clippy::disallowed_methods, reason = "steps are timed")]
pub fn run(seconds: u64, filter: Option<&str>) -> Result<()> {
    let begun = Instant::now();
    let (targets, inputs) = (count_targets(&root().join("host"))? + count_targets(&root().join("sdk"))?, count_corpus(root())?);
    let test = ["test", "--workspace", "--exclude", "pelton-tests", "--lib", "--"];
    let mut command = cargo();
    command.args(test).args([format!("{TESTS}{}", filter.unwrap_or_default()).as_str(), "--test-threads", AT_ONCE]);
    must(command.env("BOLERO_RANDOM_TEST_TIME_MS", (seconds * 1_000).to_string()))?;
    println!("targets={targets} corpus={inputs} seconds_each={seconds} crashes=0 seconds={:.0}", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Tests in sources whose names begin as those of targets do.
fn count_targets(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for path in files(folder)?.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        count += std::fs::read_to_string(path)?.matches(&format!("fn {TESTS}")).count();
    }
    Ok(count)
}

fn count_corpus(folder: &Path) -> Result<usize> {
    let inputs = |top: &str| -> Result<usize> {
        Ok(files(&folder.join(top))?.iter().filter(|path| path.iter().any(|part| part == "__fuzz__")).count())
    };
    Ok(inputs("host")? + inputs("sdk")?)
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
