//! `pelton plugin dev`: builds a plugin and swaps it into a running pipeline each time its source is saved.
//!
//! Invariant: whatever goes wrong with a version is printed, and the pipeline goes on with the one before.

use super::{build, swap};
use anyhow::{Context, Result};
use pelton_server::control::{AskError, Request, ask};
use pelton_server::versions::Asked;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How often it is looked whether something was saved.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin dev state/orders ParseLog plugins/parse-log --rollback-at-exit\n\nSave a file of the crate, and the pipeline runs it. A version that does not compile, or that the pipeline refuses, is told; the one before goes on. Ctrl-C ends."
)]
pub struct Dev {
    /// The state folder of the pipeline (`pelton run --state`).
    state: PathBuf,
    /// Full name of the transform.
    transform: String,
    /// The plugin's crate.
    dir: PathBuf,
    /// At Ctrl-C go back to what ran before.
    #[arg(long)]
    rollback_at_exit: bool,
}

pub fn run(dev: &Dev) -> Result<ExitCode> {
    // A wrong folder ends the command at once.
    build::check(&dev.dir)?;
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    waiting.block_on(async {
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut first = None;
        let mut seen = SystemTime::UNIX_EPOCH;
        println!("watching {}; Ctrl-C ends", dev.dir.display());
        loop {
            // A file that is being replaced may be away for a moment.
            let changed = build::changed(&dev.dir).unwrap_or(seen);
            if changed > seen {
                seen = changed;
                let made = dev.build_and_swap()?;
                first = first.or(made);
            }
            tokio::select! {
                _ = &mut interrupted => break,
                _ = tokio::time::sleep(LOOK) => {}
            }
        }
        match first.filter(|_| dev.rollback_at_exit) {
            Some(first) => dev.go_back(first).await,
            None => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Dev {
    /// Builds and swaps what was saved, and gives the number of the swap if it was made. An error ends the command.
    fn build_and_swap(&self) -> Result<Option<u64>> {
        let options = build::Options { lines: build::Lines::Keep, ..build::Options::default() };
        let built = match build::build(&self.dir, &options) {
            Ok(built) => built,
            Err(error) => {
                eprintln!("not built: {error:#}");
                return Ok(None);
            }
        };
        let file = std::fs::canonicalize(&built.component).with_context(|| format!("{} is gone", built.component.display()))?;
        let asked = Asked { transform: self.transform.clone(), plugin: Some(file.display().to_string()), config: None };
        match self.swap_to(asked) {
            Ok(number) => Ok(number),
            Err(error) if matches!(error.downcast_ref(), Some(AskError::Nobody(_))) => Err(error),
            Err(error) => {
                eprintln!("not swapped: {error:#}");
                Ok(None)
            }
        }
    }

    fn swap_to(&self, asked: Asked) -> Result<Option<u64>> {
        let told = ask(&self.state, &Request::Swap { changes: vec![asked], dry_run: false, irreversible: false, watch: None })?;
        swap::show(&told, swap::Format::Text)?;
        Ok(told["number"].as_u64())
    }

    /// Makes the transform what it was before the swap `first`.
    async fn go_back(&self, first: u64) -> Result<()> {
        let made = pelton_runtime::swap::history_of(&pelton_runtime::checkpoint::place::of(&self.state)).await;
        let made = made.map_err(anyhow::Error::msg)?;
        let changes = made.iter().filter(|made| made.number == first).flat_map(|made| &made.changes);
        let change = changes.into_iter().find(|change| change.transform == self.transform);
        let change = change.with_context(|| format!("the history of {} has no swap {first}", self.state.display()))?;
        println!("going back to what ran before");
        self.swap_to(Asked::to(&self.transform, &change.from)).map(drop)
    }
}
