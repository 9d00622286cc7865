//! The server of the suite `registry`: Debian's package, unpacked into the cache folder where it is not on the path.
//!
//! It is not installed: the package would start a server at once, into which everybody who reaches the machine may write.

use crate::step::{cache, must, must_fetch, works};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// The program, its package, and the folder in the cache; `tests/src/registry.rs` looks there.
const NAME: &str = "docker-registry";

/// Brings the server if it is not there: seconds, once.
pub fn prepare() -> Result<()> {
    let folder = cache()?.join(NAME);
    let program = folder.join("usr/bin").join(NAME);
    if works(Command::new(NAME).arg("--version")) {
        println!("{NAME} is on the path");
        return Ok(());
    }
    if works(Command::new(&program).arg("--version")) {
        println!("{NAME} is in {}", folder.display());
        return Ok(());
    }
    if !works(Command::new("apt-get").arg("--version")) || !works(Command::new("dpkg-deb").arg("--version")) {
        bail!(
            "the suite `registry` needs the registry server of CNCF Distribution 2.8 as `{NAME}` on the path; on Debian and Ubuntu it is in the package {NAME}"
        );
    }
    unpack(&folder).with_context(|| format!("the package {NAME} cannot be brought; put the program `{NAME}` on the path"))?;
    if !works(Command::new(&program).arg("--version")) {
        bail!("{} does not run, although the package {NAME} was unpacked", program.display());
    }
    Ok(())
}

fn unpack(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    if must(Command::new("apt-get").args(["download", "-q", NAME]).current_dir(folder)).is_err() {
        // A fresh machine has no lists of packages.
        must_fetch(Command::new("apt-get").args(["update", "-q"])).context("run: sudo apt-get update")?;
        must_fetch(Command::new("apt-get").args(["download", "-q", NAME]).current_dir(folder))?;
    }
    must(Command::new("sh").args(["-c", "dpkg-deb -x ./*.deb . && rm ./*.deb"]).current_dir(folder))
}
