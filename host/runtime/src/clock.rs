//! The one place of the runtime that reads a clock. Everything else is told the time.
//!
//! Processing time is the machine's wall clock, except that it never goes back and never stands still: where the wall clock is set back, it goes on from where
//! it was, at the speed of the monotonic clock. Otherwise whatever waits for a moment (timers, idle splits, parts of files) would wait for as long as the
//! clock was set back. A process begins with the wall clock as it is.

use pelton_core::Instant;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The furthest that the wall clock was ever ahead of the time since the first look, microseconds.
static AHEAD: AtomicI64 = AtomicI64::new(i64::MIN);

/// Processing time now.
#[allow(clippy::disallowed_methods, reason = "this module owns the wall clock")]
pub fn now() -> Instant {
    static FIRST: OnceLock<Stopwatch> = OnceLock::new();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let wall = since.map(|since| since.as_micros() as i64).unwrap_or_else(|before| -(before.duration().as_micros() as i64));
    Instant::from_micros_saturating(steady(&AHEAD, wall, (FIRST.get_or_init(Stopwatch::start).nanos() / 1_000) as i64))
}

/// The rule of the module: the time, where the wall clock shows `wall` after `elapsed`.
fn steady(ahead: &AtomicI64, wall: i64, elapsed: i64) -> i64 {
    let shown = wall.saturating_sub(elapsed);
    ahead.fetch_max(shown, Relaxed).max(shown).saturating_add(elapsed)
}

/// A point on the monotonic clock, for durations of work.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts now.
    #[allow(clippy::disallowed_methods, reason = "this module owns the monotonic clock")]
    pub fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn nanos(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Since the start.
    pub fn elapsed(self) -> std::time::Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_when_the_wall_clock_is_set_back() {
        let ahead = AtomicI64::new(i64::MIN);
        // The wall clock, and the time since the first look.
        let shown = [(1_000, 0), (1_010, 10), (400, 20), (430, 50), (1_080, 80), (5_000, 90), (1_100, 100)];
        let times: Vec<i64> = shown.into_iter().map(|(wall, elapsed)| steady(&ahead, wall, elapsed)).collect();
        assert_eq!(times, [1_000, 1_010, 1_020, 1_050, 1_080, 5_000, 5_010]);
    }
}
