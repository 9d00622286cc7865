//! The suites of tests in their order, each with its seconds, and one closing line.
//!
//! Suites on the whole system are the test targets of the package `pelton-tests`; a new target is a new suite.

use crate::step::{Steps, cargo, must, root};
use crate::{fuzz, guests, restarts};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::PathBuf;

/// Tests beside the code, and the crates' own test folders.
const UNIT: &str = "unit";
/// Random inputs to what reads the bytes of others: the unit tests whose names begin with [`fuzz::TESTS`].
const FUZZ: &str = "fuzz";
/// Tests of the plugins, run natively as their authors do.
const PLUGINS: &str = "plugins";
/// Examples in documentation.
const DOC: &str = "doc";
/// Properties are tried with the same cases each time: new ones are looked for with another seed (CONTRIBUTING.md), not by whoever runs these suites.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20261122");
/// See [`restarts`].
const RESTARTS: &str = "restarts";
/// Need the broker.
const KAFKA: [&str; 4] = ["failpoints", "kafka", "kill", "swaps"];

/// Runs the named suites, or all. Every suite is tried, also after one has failed.
pub fn run(named: &[String], without_kafka: bool) -> Result<()> {
    let all = suites()?;
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        bail!("no suite `{unknown}`; there are: {}", all.join(", "));
    }
    let mut steps = Steps::default();
    let wanted = |name: &&String| named.is_empty() || named.contains(name);
    let chosen: Vec<&String> = all.iter().filter(wanted).collect();
    if chosen.iter().any(|name| needs_components(name)) {
        steps.run("components", || guests::build_test_components().map(|_| ()));
    } else if chosen.iter().any(|name| !NO_BINARY.contains(&name.as_str())) {
        // Suites that run the product must not run one of yesterday.
        steps.run("binary", guests::build_binary);
    }
    for name in chosen {
        if needs_kafka(name) && without_kafka {
            println!("== {name}: SKIPPED because of --without-kafka");
            continue;
        }
        steps.run(name, || run_one(name));
    }
    steps.finish("test")
}

fn run_one(name: &str) -> Result<()> {
    match name {
        UNIT => {
            let unit = ["test", "--workspace", "--exclude", "pelton-tests", "--lib", "--bins", "--tests"];
            must(cargo().args(unit).args(["--", "--skip", fuzz::TESTS]).env(SEED.0, SEED.1))
        }
        FUZZ => fuzz::run(fuzz::CI_SECONDS, None),
        DOC => must(cargo().args(["test", "--workspace", "--doc"])),
        PLUGINS => test_plugins(),
        RESTARTS => restarts::run(),
        // Of the workspace, so that dependencies have the features that they were built with before.
        target => must(cargo().args(["test", "--workspace", "--test", target])),
    }
}

fn needs_kafka(name: &str) -> bool {
    KAFKA.contains(&name)
}

/// Runs one suite of the whole system with its own arguments, on components and a binary that are up to date.
pub fn run_with(name: &str, arguments: &[String]) -> Result<()> {
    guests::build_test_components()?;
    must(cargo().args(["test", "--workspace", "--test", name, "--"]).args(arguments))
}

/// These do not run the product.
const NO_BINARY: [&str; 5] = [DOC, FUZZ, PLUGINS, "simulation", "tidy"];

/// Only these never run a guest.
fn needs_components(name: &str) -> bool {
    ![DOC, FUZZ, PLUGINS, "beam", "faults", "metamorphic", "postgres", "savepoints", "simulation", "sql", "tidy", "triggers"]
        .contains(&name)
}

/// All suites: those of crates first, the broker's last.
fn suites() -> Result<Vec<String>> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?;
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let tests = packages.iter().find(|package| package["name"] == "pelton-tests").context("no package pelton-tests")?;
    let mut targets: Vec<String> = list(&tests["targets"])
        .iter()
        .filter(|target| list(&target["kind"]).iter().any(|kind| kind == "test"))
        .filter_map(|target| target["name"].as_str().map(str::to_string))
        .collect();
    targets.sort_by_key(|name| (needs_kafka(name), name.clone()));
    Ok([UNIT, FUZZ, DOC, PLUGINS, RESTARTS].into_iter().map(str::to_string).chain(targets).collect())
}

/// Plugins are crates of their own; one folder for what they build, since they share their dependencies.
fn test_plugins() -> Result<()> {
    let target = root().join("target/plugins");
    for plugin in plugins()? {
        let manifest = plugin.join("Cargo.toml");
        must(cargo().args(["test", "--manifest-path"]).arg(manifest).env("CARGO_TARGET_DIR", &target).env(SEED.0, SEED.1))?;
    }
    Ok(())
}

/// Crates under `plugins/` and `examples/*/plugins/`.
fn plugins() -> Result<Vec<PathBuf>> {
    let mut parents = vec![root().join("plugins")];
    parents.extend(folders(&root().join("examples"))?.into_iter().map(|example| example.join("plugins")));
    let mut found = Vec::new();
    for parent in parents {
        found.extend(folders(&parent)?.into_iter().filter(|folder| folder.join("Cargo.toml").exists()));
    }
    found.sort();
    Ok(found)
}

/// Folders in a folder; none if there is no such folder.
fn folders(parent: &std::path::Path) -> Result<Vec<PathBuf>> {
    if !parent.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(parent).with_context(|| format!("cannot list {}", parent.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_comes_last_and_every_target_is_a_suite() {
        let all = suites().expect("cargo knows the workspace");
        assert!(all.ends_with(&KAFKA.map(str::to_string)), "{all:?}");
        assert!(["unit", "fuzz", "cases", "cli", "failpoints", "tidy"].iter().all(|name| all.iter().any(|suite| suite == name)), "{all:?}");
    }
}
