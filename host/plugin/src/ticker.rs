//! The clock of all guests of an engine: one thread that advances wasmtime's epoch every 10 ms.
//!
//! A guest checks the epoch at loop heads and function entries, which costs far less than fuel. Deadlines count ticks, so the rules that
//! use them read no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// Length of a tick. Shorter ticks make deadlines finer and wake the machine more often.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Ticks of a second.
pub(crate) const TICKS_A_SECOND: u64 = (1_000 / TICK.as_millis()) as u64;

/// Ticks since the start.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ticks: AtomicU64,
    ticked: Notify,
}

impl Clock {
    /// Whole ticks that have passed.
    pub(crate) fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// The same as a time.
    pub(crate) fn elapsed(&self) -> Duration {
        TICK.saturating_mul(u32::try_from(self.now()).unwrap_or(u32::MAX))
    }

    /// Returns when so many ticks have passed since the start.
    pub(crate) async fn until(&self, tick: u64) {
        while self.now() < tick {
            // Made before the second look, it is told of every tick after that.
            let ticked = self.ticked.notified();
            if self.now() < tick {
                ticked.await;
            }
        }
    }

    pub(crate) fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.ticked.notify_waiters();
    }
}

/// Runs from creation to drop.
pub(crate) struct Ticker {
    clock: Arc<Clock>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    #[allow(clippy::disallowed_methods, reason = "the one thread of this crate")]
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Ticker> {
        let clock = Arc::new(Clock::default());
        let ticked = clock.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("pelton-epoch".into()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                ticked.tick();
                engine.increment_epoch();
            }
        })?;
        Ok(Ticker { clock, stop: Some(stop), thread: Some(thread) })
    }

    /// For rates, and for those who wait.
    pub(crate) fn clock(&self) -> Arc<Clock> {
        self.clock.clone()
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

    #[test]
    fn who_waits_for_a_tick_sees_it() {
        let clock = Clock::default();
        clock.tick();
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
            clock.until(1).await;
            tokio::join!(clock.until(3), async {
                clock.tick();
                tokio::task::yield_now().await;
                clock.tick();
            });
        });
        assert_eq!(clock.elapsed(), Duration::from_millis(30));
    }
}
