//! The real Apache Beam, for the differential suites: a Python environment in the cache folder, and the suites themselves.

use crate::step::{cache, cargo, must, program};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// What is installed; `tests/beam/oracle.rs` and `tests/triggers/oracle.rs` look for the folder of this name.
const NAME: &str = "beam-2.77.0";
/// From PyPI.
const PACKAGE: &str = "apache-beam[yaml]==2.77.0";
/// Written last: without it an installation was cut short.
const COMPLETE: &str = "complete";

/// Installs Beam if it is not there: a minute and 600 MB, once.
pub fn prepare() -> Result<()> {
    let folder = folder()?;
    if folder.join(COMPLETE).exists() {
        println!("{PACKAGE} is in {}", folder.display());
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    must(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    must(program(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", PACKAGE]))?;
    std::fs::write(folder.join(COMPLETE), PACKAGE)?;
    Ok(())
}

/// A suite against Beam, with its own arguments.
pub fn run(suite: &str, arguments: &[String]) -> Result<()> {
    prepare()?;
    must(cargo().args(["test", "--workspace", "--test", suite, "--"]).args(arguments))
}

fn folder() -> Result<PathBuf> {
    Ok(cache()?.join(NAME))
}
