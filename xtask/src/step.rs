//! Steps: programs that are run in the repository's root, named and timed.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// What is fetched or built once for all checkouts of a machine: `$PELTON_CACHE`, or `~/.cache/pelton`.
pub fn cache() -> Result<PathBuf> {
    match std::env::var_os("PELTON_CACHE") {
        Some(cache) => Ok(cache.into()),
        None => Ok(std::env::home_dir().context("no home folder; set PELTON_CACHE")?.join(".cache/pelton")),
    }
}

/// Where release builds land.
pub fn release_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from).join("release")
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program in the repository's root.
pub fn program(name: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Runs a program; its output is the user's.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// The same for what fetches: networks and mirrors fail for a moment.
#[allow(clippy::disallowed_methods, reason = "it waits by the clock")]
pub fn must_fetch(command: &mut Command) -> Result<()> {
    for pause in [5, 30] {
        match must(command) {
            Ok(()) => return Ok(()),
            Err(error) => println!("WARNING: {error:#}; it is tried again in {pause} s"),
        }
        std::thread::sleep(std::time::Duration::from_secs(pause));
    }
    must(command)
}

/// Whether a program can be started and ends well; its output is dropped.
pub fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// What was run, as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The steps of a task: each is printed with its seconds, all are tried, and the closing line has them side by side.
#[derive(Default)]
pub struct Steps {
    done: Vec<(String, f64)>,
    failed: Vec<String>,
}

impl Steps {
    /// Runs a step and notes how it went.
    #[allow(clippy::disallowed_methods, reason = "steps are timed")]
    pub fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("== {name}");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("== {name}: passed in {seconds:.1} s"),
            Err(error) => {
                println!("== {name}: FAILED after {seconds:.1} s: {error:#}");
                self.failed.push(name.to_string());
            }
        }
        self.done.push((name.to_string(), seconds));
    }

    /// Prints `name=seconds …` in one line. Fails if a step did.
    pub fn finish(self, task: &str) -> Result<()> {
        let total: f64 = self.done.iter().map(|(_, seconds)| seconds).sum();
        let each: Vec<String> = self.done.iter().map(|(name, seconds)| format!("{}={seconds:.1}", name.replace(' ', "-"))).collect();
        println!("{task} seconds: {} total={total:.1} failed={}", each.join(" "), self.failed.len());
        if self.failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", self.failed.join(", "))
    }
}
