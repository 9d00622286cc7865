//! `PELTON_TEST_CRASHES=SEED`: runs every pipeline with barriers and crashes at counts of rows that are drawn from the seed, each life with another
//! parallelism and the other backend of state, all plugins made anew at each barrier, and the first batches of one to three rows. For the tests: what
//! comes out must be what a plain run gives. Says on stderr what it did.
//!
//! With `PELTON_TEST_LIFE=N` the process is one life, the Nth, and a crash is its end by `kill -9`.

use pelton_pipeline::options::{Backend, Durable};
use pelton_runtime::checkpoint::crashes::{Crashes as Counts, Death};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const VARIABLE: &str = "PELTON_TEST_CRASHES";
const LIFE: &str = "PELTON_TEST_LIFE";
/// Lives that crash at most; the next one runs to the end.
const MAX_CRASHES: u32 = 6;
/// Likewise where each is a process.
const MAX_KILLS: u32 = 2;

/// Whether the variable is set.
pub fn asked() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The lives of one run.
#[derive(Debug)]
pub struct Crashes {
    random: u64,
    lives: u32,
    death: Death,
    rows: Arc<AtomicU64>,
    /// Of the lives: how many went on from an epoch.
    restores: u32,
    tasks: Vec<usize>,
}

impl Crashes {
    /// `None`: the variable is not set.
    pub fn new() -> Option<Crashes> {
        let seed: u64 = std::env::var(VARIABLE).ok()?.parse().unwrap_or(1);
        let life: Option<u32> = std::env::var(LIFE).ok().and_then(|life| life.parse().ok());
        let death = if life.is_some() { Death::Real } else { Death::Simulated };
        let lives = life.map_or(0, |life| life.saturating_sub(1));
        Some(Crashes { random: seed ^ u64::from(lives) << 32, lives, death, rows: Arc::default(), restores: 0, tasks: Vec::new() })
    }

    /// When barriers and the crash of the next life come, and its parallelism.
    pub fn next_life(&mut self) -> (Counts, usize) {
        self.lives += 1;
        let most = if self.death == Death::Real { MAX_KILLS } else { MAX_CRASHES };
        let crash_after = (self.lives <= most).then(|| 1 + self.draw(self.draw_range()));
        // Every other life leaves something to the next one, however short the input is.
        let settled = self.lives.is_multiple_of(2);
        let barrier_every = if self.lives == 2 { 1 } else { 1 + self.draw(40) };
        let tasks = [1, 2, 3, 8][self.draw(4) as usize];
        self.tasks.push(tasks);
        (Counts { barrier_every, crash_after, settled, death: self.death, rows: self.rows.clone() }, tasks)
    }

    /// The life goes on from this epoch; 0: it begins.
    pub fn resumes(&mut self, epoch: u64) {
        self.restores += u32::from(epoch > 0);
    }

    /// Small inputs crash early, large ones late.
    fn draw_range(&self) -> u64 {
        [2, 4, 400, 4_000][((self.lives - 1) % 4) as usize]
    }

    /// Every other life has all of its cells on disk, as far as they may lie there.
    pub fn set_backend(&self, durable: &mut Durable) {
        (durable.backend, durable.cache) = match self.lives % 2 {
            0 => (Backend::Memory, None),
            _ => (Backend::Fjall, Some(0)),
        };
    }

    /// What has happened until the end, at this epoch.
    pub fn said(&self, epochs: u64) -> String {
        let tasks: Vec<String> = self.tasks.iter().map(usize::to_string).collect();
        format!(
            "crashes: lives={} epochs={epochs} restores={} renewed={} rows={} tasks={}",
            self.lives,
            self.restores,
            pelton_plugin::renewed(),
            self.rows.load(Relaxed),
            tasks.join(",")
        )
    }

    /// splitmix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}
