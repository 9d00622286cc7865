//! The clock of all guests of an engine: one thread that advances wasmtime's epoch every 10 ms.
//!
//! A guest checks the epoch at loop heads and function entries, which costs far less than fuel. Deadlines count ticks, so the rules that
//! use them read no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Length of a tick. Shorter ticks make deadlines finer and wake the machine more often.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Runs from creation to drop.
pub(crate) struct Ticker {
    ticks: Arc<AtomicU64>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    #[allow(clippy::disallowed_methods, reason = "the one thread of this crate")]
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Ticker> {
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = ticks.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("pelton-epoch".into()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                counted.fetch_add(1, Ordering::Relaxed);
                engine.increment_epoch();
            }
        })?;
        Ok(Ticker { ticks, stop: Some(stop), thread: Some(thread) })
    }

    /// Ticks since the start, for rates.
    pub(crate) fn ticks(&self) -> Arc<AtomicU64> {
        self.ticks.clone()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // The thread sees the closed channel at once.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whole ticks that last at least `time`.
pub(crate) fn ticks_of(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(TICK.as_micros())).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_shorter_than_asked_for() {
        for (millis, ticks) in [(0, 1), (1, 1), (10, 1), (11, 2), (100, 10)] {
            assert_eq!(ticks_of(Duration::from_millis(millis)), ticks, "{millis} ms");
        }
    }
}
