//! Barriers and crashes at counts of rows instead of times, for tests: what a pipeline gives out may not depend on them.
//!
//! Sources count the rows that they give out. At every so many a barrier is asked for, and the source that came to the count waits for it; at one
//! count the run ends as if its process had died, or the process does. At each barrier every instance of a plugin is made anew.

use super::driver::{CheckpointProgress, Want, Wish};
use crate::run::Crasher;
use pelton_core::Epoch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::sync::oneshot;

/// When barriers and the crash come.
#[derive(Clone, Debug)]
pub struct Crashes {
    /// Rows of all sources between two barriers.
    pub barrier_every: u64,
    /// Rows after which the run crashes.
    pub crash_after: Option<u64>,
    /// It crashes only when it has decided an epoch itself, so that the next life has something to restore.
    pub settled: bool,
    /// How it crashes.
    pub death: Death,
    /// Rows that all lives have read.
    pub rows: Arc<AtomicU64>,
}

/// What a crash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// All tasks end where they are, and nothing is tidied up.
    Simulated,
    /// `kill -9` of this process.
    Real,
}

/// What a source does after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It reads on.
    Read,
    /// It waits for the next barrier.
    Wait,
    /// It is dead.
    Die,
}

/// Counts for all sources of a run.
pub struct Counter {
    crashes: Crashes,
    rows: AtomicU64,
    progress: Arc<CheckpointProgress>,
    /// The last epoch that was decided before the run.
    resumed: Epoch,
    crasher: Crasher,
}

impl Counter {
    /// Of a run that begins after an epoch.
    pub fn new(crashes: Crashes, progress: Arc<CheckpointProgress>, resumed: Epoch, crasher: Crasher) -> Counter {
        Counter { crashes, rows: AtomicU64::new(0), progress, resumed, crasher }
    }

    /// A source has given out so many rows.
    pub fn rows(&self, rows: u64) -> Next {
        self.crashes.rows.fetch_add(rows, SeqCst);
        let before = self.rows.fetch_add(rows, SeqCst);
        let settled = !self.crashes.settled || self.progress.decided.load(SeqCst) > self.resumed;
        if self.crashes.crash_after.is_some_and(|count| count <= before + rows) && settled {
            match self.crashes.death {
                Death::Simulated => self.crasher.crash(),
                Death::Real => die(),
            }
            return Next::Die;
        }
        let every = self.crashes.barrier_every.max(1);
        if before / every == (before + rows) / every {
            return Next::Read;
        }
        let wish = Wish { what: Want::Checkpoint, done: oneshot::channel().0 };
        match self.progress.wishes().send(wish) {
            Ok(()) => Next::Wait,
            Err(_) => Next::Read,
        }
    }
}

/// The shell's parent is this process. Does not return.
fn die() -> ! {
    let killed = std::process::Command::new("sh").args(["-c", "kill -KILL $PPID"]).status();
    killed.expect("a test has a shell");
    loop {
        std::thread::park();
    }
}
