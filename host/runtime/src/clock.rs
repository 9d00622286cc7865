//! The one place of the runtime that reads a clock. Everything else is told the time.

use pelton_core::Instant;

/// Processing time now.
#[allow(clippy::disallowed_methods, reason = "this module owns the wall clock")]
pub fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.map(|since| since.as_micros() as i64).unwrap_or_else(|before| -(before.duration().as_micros() as i64));
    Instant::from_micros_saturating(micros)
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
