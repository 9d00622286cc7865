//! What a guest may do: the data of its store. It may log; it may compute until its deadline and grow to its limit; and it may do what it is
//! granted ([`crate::granted`]).
//!
//! Deadlines. Each tick that passes while the guest runs is charged to it and lets other tasks of the thread run; several ticks at once
//! (the machine was busy or suspended) are charged as one. So the deadline of a call bounds what the guest computes, not how long it was
//! kept waiting; the deadline on the wall bounds that too. A guest that has spent its part of a second waits for the next one, and that
//! counts for neither.

use crate::contract::log;
use crate::granted::{Effects, Granted, Progress};
use crate::limits::Limits;
use crate::meters::Meters;
use crate::stateful::Reads;
use crate::ticker::{Clock, TICK, TICKS_A_SECOND, ticks_of};
use crate::wasi::Console;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};

/// Longer log lines and last words are cut.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// The data of a guest's store.
pub(crate) struct Sandbox {
    /// For the operator's log.
    plugin: Arc<str>,
    transform: String,
    /// Why the current call was stopped, as far as the sandbox did it.
    pub(crate) stopped: Option<Stopped>,
    /// What the guest said before a trap.
    pub(crate) last_words: Option<String>,
    pub(crate) space: Space,
    pub(crate) meters: Arc<Meters>,
    /// State that the current call may read; `None` outside of a stateful `process`.
    pub(crate) reads: Option<Reads>,
    pub(crate) granted: Arc<Granted>,
    /// Whether requests are made.
    pub(crate) effects: Effects,
    pub(crate) progress: Progress,
    /// Output of a language runtime.
    pub(crate) console: Console,
    /// Bytes that may cross in one call of the host.
    pub(crate) host_call_bytes: u64,
    clock: Arc<Clock>,
    charged: u64,
    allowed: u64,
    /// When the current call has to be back, whatever happens.
    back_by: u64,
    yields: bool,
    part: Option<Part>,
    lines: Lines,
}

/// A deadline that ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    Call,
    Wall,
}

/// What the linear memories and tables of a guest take.
pub(crate) struct Space {
    /// Of all memories.
    pub(crate) bytes: usize,
    max_bytes: usize,
    elements: usize,
    max_elements: usize,
    instances: usize,
    /// What would have grown too large in the current call.
    pub(crate) refused: Option<Refused>,
}

/// A growth that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory,
    Tables,
}

/// How much of a second a guest may compute.
struct Part {
    allowed: u64,
    second: u64,
    used: u64,
}

struct Lines {
    clock: Arc<Clock>,
    allowed: u64,
    second: u64,
    written: u64,
    dropped: u64,
}

impl Sandbox {
    pub(crate) fn store(
        engine: &wasmtime::Engine,
        clock: Arc<Clock>,
        plugin: Arc<str>,
        transform: &str,
        limits: &Limits,
        meters: Arc<Meters>,
        granted: Arc<Granted>,
    ) -> Store<Sandbox> {
        let sandbox = Sandbox {
            plugin,
            transform: transform.into(),
            stopped: None,
            last_words: None,
            space: Space::new(limits),
            meters,
            reads: None,
            granted,
            effects: Effects::default(),
            progress: Progress::new(),
            console: Console::default(),
            host_call_bytes: limits.call_bytes() as u64,
            clock: clock.clone(),
            charged: 0,
            allowed: ticks_of(limits.setup_deadline),
            back_by: u64::MAX,
            yields: false,
            part: limits.throttle().map(|part| Part { allowed: ticks_of(part), second: 0, used: 0 }),
            lines: Lines { clock, allowed: u64::from(limits.log_lines_per_second), second: 0, written: 0, dropped: 0 },
        };
        let mut store = Store::new(engine, sandbox);
        store.limiter(|sandbox| &mut sandbox.space);
        store.set_hostcall_fuel(limits.call_bytes());
        store.epoch_deadline_callback(tick);
        store.set_epoch_deadline(1);
        store
    }

    /// Before a call on the setup path, which does not yield.
    pub(crate) fn begin_setup(store: &mut Store<Sandbox>, limits: &Limits) {
        Self::begin(store, limits.setup_deadline, u64::MAX, false);
    }

    /// Before a call of `process`, which yields at each tick.
    pub(crate) fn begin_call(store: &mut Store<Sandbox>, limits: &Limits) {
        let back_by = store.data().clock.now().saturating_add(ticks_of(limits.wall_deadline));
        Meters::add(&store.data().meters.calls, 1);
        Self::begin(store, limits.call_deadline, back_by, true);
    }

    fn begin(store: &mut Store<Sandbox>, deadline: Duration, back_by: u64, yields: bool) {
        let sandbox = store.data_mut();
        sandbox.stopped = None;
        sandbox.last_words = None;
        sandbox.space.refused = None;
        sandbox.charged = 0;
        sandbox.allowed = ticks_of(deadline);
        sandbox.back_by = back_by;
        sandbox.yields = yields;
        store.set_epoch_deadline(1);
    }

    /// After a call, however it went.
    pub(crate) fn end(&self) {
        Meters::add(&self.meters.guest_ticks, self.charged);
        self.meters.memory_peak.fetch_max(self.space.bytes as u64, Relaxed);
    }

    /// A warning to the operator about this plugin.
    pub(crate) fn warn(&self, message: &str) {
        tracing::warn!(plugin = &*self.plugin, transform = &*self.transform, "{message}");
    }

    /// The engine's clock, and when the current call has to be back by it.
    pub(crate) fn wall(&self) -> (Arc<Clock>, u64) {
        (self.clock.clone(), self.back_by)
    }

    /// Whether the current call is one of `process`.
    pub(crate) fn is_call(&self) -> bool {
        self.yields
    }

    /// Guest time of the current call, in whole ticks.
    pub(crate) fn time(&self) -> Duration {
        TICK * u32::try_from(self.charged).unwrap_or(u32::MAX)
    }

    /// What follows from a tick.
    fn charge(&mut self) -> Next {
        self.charged += 1;
        let now = self.clock.now();
        // The first tick may come at once, so that a deadline of n ticks has passed for certain only at tick n + 1.
        if self.charged > self.allowed {
            return Next::Stop(Stopped::Call);
        }
        if now > self.back_by {
            return Next::Stop(Stopped::Wall);
        }
        match self.part.as_mut().filter(|_| self.yields).and_then(|part| part.charge(now)) {
            Some(until) => {
                let waits = until - now;
                self.back_by = self.back_by.saturating_add(waits);
                Meters::add(&self.meters.throttled_ticks, waits);
                Next::Wait(until)
            }
            None if self.yields => Next::Yield,
            None => Next::GoOn,
        }
    }
}

/// What a guest does after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Yield,
    /// Until this tick.
    Wait(u64),
    Stop(Stopped),
}

fn tick(mut store: StoreContextMut<'_, Sandbox>) -> wasmtime::Result<UpdateDeadline> {
    let sandbox = store.data_mut();
    Ok(match sandbox.charge() {
        Next::GoOn => UpdateDeadline::Continue(1),
        Next::Yield => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
        Next::Wait(until) => {
            let clock = sandbox.clock.clone();
            UpdateDeadline::YieldCustom(1, Box::pin(async move { clock.until(until).await }))
        }
        Next::Stop(stopped) => {
            sandbox.stopped = Some(stopped);
            UpdateDeadline::Interrupt
        }
    })
}

impl Part {
    /// A tick at `now`; the tick to wait for if that was the last of this second's.
    fn charge(&mut self, now: u64) -> Option<u64> {
        let second = now / TICKS_A_SECOND;
        if second != self.second {
            (self.second, self.used) = (second, 0);
        }
        self.used += 1;
        (self.used >= self.allowed).then_some((second + 1) * TICKS_A_SECOND)
    }
}

impl Space {
    fn new(limits: &Limits) -> Space {
        Space {
            bytes: 0,
            max_bytes: limits.memory_bytes,
            elements: 0,
            max_elements: limits.table_elements as usize,
            instances: limits.instances as usize,
            refused: None,
        }
    }

    /// A trap names the limit and shows the stack; an allocator that is told "no" aborts without a word.
    fn refuse(&mut self, refused: Refused) -> wasmtime::Result<bool> {
        self.refused = Some(refused);
        Err(wasmtime::Error::msg("a limit of space is reached"))
    }
}

impl ResourceLimiter for Space {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.bytes.saturating_sub(current).saturating_add(desired);
        if grown > self.max_bytes {
            return self.refuse(Refused::Memory);
        }
        self.bytes = grown;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.elements.saturating_sub(current).saturating_add(desired);
        if grown > self.max_elements {
            return self.refuse(Refused::Tables);
        }
        self.elements = grown;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        self.instances
    }
}

impl log::Host for Sandbox {
    fn write(&mut self, level: log::Level, message: String) {
        let (plugin, transform, message) = (&*self.plugin, &*self.transform, cut(&message, MAX_LINE_BYTES));
        let allowed = self.lines.allowed;
        match self.lines.admit() {
            Admit::Drop => return Meters::add(&self.meters.log_dropped, 1),
            Admit::After(0) => {}
            Admit::After(dropped) => {
                tracing::warn!(plugin, transform, dropped, "log lines of a plugin were dropped: more than {allowed} a second")
            }
        }
        Meters::add(&self.meters.log_lines, 1);
        match level {
            log::Level::Trace => tracing::trace!(plugin, transform, "{message}"),
            log::Level::Debug => tracing::debug!(plugin, transform, "{message}"),
            log::Level::Info => tracing::info!(plugin, transform, "{message}"),
            log::Level::Warn => tracing::warn!(plugin, transform, "{message}"),
            log::Level::Error => tracing::error!(plugin, transform, "{message}"),
        }
    }

    fn panicked(&mut self, message: String) {
        self.last_words = Some(cut(&message, MAX_LINE_BYTES).into());
    }
}

enum Admit {
    Drop,
    /// Write it; so many were dropped before it.
    After(u64),
}

impl Lines {
    fn admit(&mut self) -> Admit {
        let second = self.clock.now() / TICKS_A_SECOND;
        if second != self.second {
            (self.second, self.written) = (second, 0);
        }
        if self.written >= self.allowed {
            self.dropped += 1;
            return Admit::Drop;
        }
        self.written += 1;
        Admit::After(std::mem::take(&mut self.dropped))
    }
}

/// The longest part of at most `bytes` bytes from the start that ends between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_by_the_second_and_the_dropped_are_counted() {
        let clock = Arc::new(Clock::default());
        let mut lines = Lines { clock: clock.clone(), allowed: 100, second: 0, written: 0, dropped: 0 };
        let admitted = (0..250).filter(|_| matches!(lines.admit(), Admit::After(0))).count();
        assert_eq!(admitted, 100);
        (0..TICKS_A_SECOND).for_each(|_| clock.tick());
        assert!(matches!(lines.admit(), Admit::After(150)));
    }

    #[test]
    fn memories_are_counted_together_and_so_are_tables() {
        let mut space = Space::new(&Limits { memory_bytes: 100, table_elements: 10, ..Limits::default() });
        assert!(space.memory_growing(0, 60, None).is_ok());
        assert!(space.memory_growing(0, 30, None).is_ok());
        assert!(space.memory_growing(30, 50, None).is_err());
        assert_eq!((space.bytes, space.refused.take()), (90, Some(Refused::Memory)));
        assert!(space.table_growing(0, 6, None).is_ok());
        assert!(space.table_growing(0, 5, None).is_err());
        assert_eq!((space.elements, space.refused), (6, Some(Refused::Tables)));
    }

    #[test]
    fn a_part_of_a_second_is_followed_by_a_wait_for_the_next() {
        let mut part = Part { allowed: 3, second: 0, used: 0 };
        assert_eq!([5, 6, 7].map(|now| part.charge(now)), [None, None, Some(100)]);
        assert_eq!([100, 250, 251, 252].map(|now| part.charge(now)), [None, None, None, Some(300)]);
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(cut("aéb", 2), "a");
        assert_eq!(cut("aéb", 9), "aéb");
    }
}
