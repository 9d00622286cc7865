//! The state folder of a run, and when a run that failed goes on from its last checkpoint.

use crate::{ServerError, crashes};
use pelton_pipeline::options::Durable;
use pelton_runtime::CheckpointOptions;
use pelton_runtime::checkpoint::FromSavepoint;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What whoever starts a pipeline says of its state.
#[derive(Clone, Debug, Default)]
pub struct StateOptions {
    /// Keep checkpoints in this folder, and go on from the last one that is there.
    pub folder: Option<PathBuf>,
    /// Begin with the state of a savepoint.
    pub from: Option<FromSavepoint>,
    /// Forget what is in the state folder and begin anew.
    pub restart: bool,
    /// Take the pipeline over from a process that still holds its state folder.
    pub take_over: bool,
    /// Uids whose state may be dropped, and `UID#NAME` for one state or timer of a plugin.
    pub drop_state: Vec<String>,
}

/// Folders inside a state folder.
const CHECKPOINTS: &str = "checkpoints";
const OUTBOX: &str = "outbox";

/// The folder of a run that takes checkpoints; deleted at the end if nobody named it.
pub struct State {
    pub options: CheckpointOptions,
    /// Nobody named it, so nobody goes on with it.
    pub temporary: bool,
}

impl State {
    /// `None`: the run takes no checkpoints.
    pub fn open(wanted: &StateOptions, durable: &Durable) -> Result<Option<State>, ServerError> {
        let (folder, temporary) = match &wanted.folder {
            Some(folder) => (folder.clone(), false),
            None if durable.asked || crashes::asked() => (temporary_folder(), true),
            None => return Ok(None),
        };
        if wanted.restart {
            if durable.storage.is_some() {
                return Err(ServerError::user(
                    "--restart forgets what is in the state folder only; `checkpoint.storage` names another place: empty that, or give it another path",
                ));
            }
            forget(&folder)?;
        }
        for inner in [CHECKPOINTS, OUTBOX] {
            let path = folder.join(inner);
            std::fs::create_dir_all(&path).map_err(|error| unusable("make the state folder", &path, &error))?;
        }
        let remembered = pelton_runtime::checkpoint::place::remember(&folder, durable.storage.as_deref());
        remembered.map_err(|error| unusable("write where checkpoints are to", &folder, &error))?;
        let options = CheckpointOptions {
            state: folder,
            storage: durable.storage.clone(),
            take_over: wanted.take_over,
            drop_state: wanted.drop_state.clone(),
            anew: wanted.restart,
            crashes: None,
            from: wanted.from.clone(),
            generation: Default::default(),
            writer: Default::default(),
            file: Default::default(),
            versions: Default::default(),
        };
        Ok(Some(State { options, temporary }))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.options.state);
        }
    }
}

/// A state folder that is not what it should be.
pub fn unusable(doing: &str, path: &Path, error: &std::io::Error) -> ServerError {
    ServerError::user(format!(
        "cannot {doing} {}: {error}\n  next: name a folder with --state that the user who runs pelton may write, on a disk with room",
        path.display()
    ))
}

/// Removes what a pipeline has left in its state folder, and nothing else.
fn forget(folder: &Path) -> Result<(), ServerError> {
    let checkpoints = folder.join(CHECKPOINTS);
    if !checkpoints.exists() {
        return Ok(());
    }
    // A lock may lie there from before.
    let is_lock = |entry: std::fs::DirEntry| entry.file_name() == "lock";
    let empty = std::fs::read_dir(&checkpoints).is_ok_and(|entries| entries.flatten().all(is_lock));
    if !empty && !checkpoints.join("identity").exists() {
        let checkpoints = checkpoints.display();
        return Err(ServerError::user(format!(
            "{checkpoints} holds no checkpoints of a pipeline; --restart removes nothing that it does not know"
        )));
    }
    pelton_runtime::checkpoint::forget(&checkpoints).map_err(|failure| ServerError::user(failure.to_string()))?;
    let outbox = folder.join(OUTBOX);
    if outbox.exists() {
        std::fs::remove_dir_all(&outbox).map_err(|error| ServerError::user(format!("cannot remove {}: {error}", outbox.display())))?;
    }
    Ok(())
}

fn temporary_folder() -> PathBuf {
    // Each state of the standard library's hasher has keys of its own, which is all the randomness that a name needs.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    std::env::temp_dir().join(format!("pelton-state-{random:016x}"))
}

/// When a run that failed may try again.
#[derive(Debug)]
pub struct Restarts {
    left: u32,
    pause: Duration,
    /// The epoch that was decided last when it failed last.
    decided: u64,
}

impl Default for Restarts {
    fn default() -> Restarts {
        Restarts::new()
    }
}

impl Restarts {
    /// Tries without any progress in between.
    const BUDGET: u32 = 20;
    const FIRST_PAUSE: Duration = Duration::from_millis(250);
    const LAST_PAUSE: Duration = Duration::from_secs(30);

    /// With nothing spent.
    pub fn new() -> Restarts {
        Restarts { left: Restarts::BUDGET, pause: Restarts::FIRST_PAUSE, decided: 0 }
    }

    /// How long to wait before the next try; `None`: no more are left. A decided epoch since the last failure refills the budget.
    pub fn next(&mut self, decided: u64) -> Option<Duration> {
        if decided > self.decided {
            *self = Restarts { decided, ..Restarts::new() };
        }
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (self.pause * 2).min(Restarts::LAST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_refilled_by_progress_only() {
        let mut restarts = Restarts::new();
        let pauses: Vec<u64> = std::iter::from_fn(|| restarts.next(0)).map(|pause| pause.as_millis() as u64).collect();
        assert_eq!(pauses.len(), Restarts::BUDGET as usize);
        assert_eq!((&pauses[..3], pauses[19]), (&[250, 500, 1_000][..], 30_000));
        assert_eq!(restarts.next(7), Some(Restarts::FIRST_PAUSE));
    }
}
