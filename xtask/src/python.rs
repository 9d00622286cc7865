//! Python environments for programs that tests compare with: each in the cache folder, once.

use crate::step::{cache, must, must_fetch, program};
use anyhow::Result;
use std::process::Command;

/// Written last: without it an installation was cut short.
const COMPLETE: &str = "complete";

/// Installs a package into an environment of this name, if it is not there.
pub fn prepare(name: &str, package: &str) -> Result<()> {
    let folder = cache()?.join(name);
    if folder.join(COMPLETE).exists() {
        println!("{package} is in {}", folder.display());
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    must(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    must_fetch(program(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", package]))?;
    std::fs::write(folder.join(COMPLETE), package)?;
    Ok(())
}
