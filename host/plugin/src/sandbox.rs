//! What a guest may do: the data of its store. It may log; it may compute until its deadline and grow to its limit; nothing else.
//!
//! Deadlines. Each tick that passes while the guest runs is charged to it and lets other tasks of the thread run; several ticks at once
//! (the machine was busy or suspended) are charged as one. So a deadline bounds what the guest computes, not how long it was kept waiting.

use crate::contract::log;
use crate::limits::Limits;
use crate::stateful::Reads;
use crate::ticker::{TICK, ticks_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};

/// `open`, `describe` and `close` may take this long: runtimes of script languages start in them.
pub(crate) const SETUP_DEADLINE: Duration = Duration::from_secs(5);
/// Longer log lines and last words are cut.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// Log lines of one instance within a second; more are counted and dropped.
const MAX_LINES_A_SECOND: u64 = 100;
/// Core instances, memories and tables of one component: a language runtime, its adapter and their glue.
const MAX_INSTANCES: usize = 64;
const MAX_TABLES: usize = 64;
/// Functions that one table can hold.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;

/// The data of a guest's store.
pub(crate) struct Sandbox {
    /// For the operator's log.
    plugin: Arc<str>,
    transform: String,
    /// Why the current call was stopped, as far as the sandbox did it.
    pub(crate) stopped: Option<Stopped>,
    /// What the guest said before a trap.
    pub(crate) last_words: Option<String>,
    pub(crate) memory: Memory,
    /// State that the current call may read; `None` outside of a stateful `process`.
    pub(crate) reads: Option<Reads>,
    charged: u64,
    allowed: u64,
    yields: bool,
    lines: Lines,
}

/// A limit that ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    Deadline,
}

/// All linear memories of a guest.
pub(crate) struct Memory {
    pub(crate) bytes: usize,
    limit: usize,
    /// A growth was refused in the current call.
    pub(crate) refused: bool,
}

struct Lines {
    clock: Arc<AtomicU64>,
    second: u64,
    written: u64,
    dropped: u64,
}

impl Sandbox {
    pub(crate) fn store(
        engine: &wasmtime::Engine,
        clock: Arc<AtomicU64>,
        plugin: Arc<str>,
        transform: &str,
        limits: &Limits,
    ) -> Store<Sandbox> {
        let sandbox = Sandbox {
            plugin,
            transform: transform.into(),
            stopped: None,
            last_words: None,
            memory: Memory { bytes: 0, limit: limits.memory_bytes, refused: false },
            reads: None,
            charged: 0,
            allowed: ticks_of(SETUP_DEADLINE),
            yields: false,
            lines: Lines { clock, second: 0, written: 0, dropped: 0 },
        };
        let mut store = Store::new(engine, sandbox);
        store.limiter(|sandbox| &mut sandbox.memory);
        store.set_hostcall_fuel(limits.host_call_bytes());
        store.epoch_deadline_callback(tick);
        store.set_epoch_deadline(1);
        store
    }

    /// Before a call on the setup path, which does not yield.
    pub(crate) fn begin_setup(store: &mut Store<Sandbox>) {
        Self::begin(store, SETUP_DEADLINE, false);
    }

    /// Before a call of `process`, which yields at each tick.
    pub(crate) fn begin_call(store: &mut Store<Sandbox>, deadline: Duration) {
        Self::begin(store, deadline, true);
    }

    fn begin(store: &mut Store<Sandbox>, deadline: Duration, yields: bool) {
        let sandbox = store.data_mut();
        sandbox.stopped = None;
        sandbox.last_words = None;
        sandbox.memory.refused = false;
        sandbox.charged = 0;
        sandbox.allowed = ticks_of(deadline);
        sandbox.yields = yields;
        store.set_epoch_deadline(1);
    }

    /// Whether the current call is one of `process`.
    pub(crate) fn is_call(&self) -> bool {
        self.yields
    }

    /// Guest time of the current call, in whole ticks.
    pub(crate) fn time(&self) -> Duration {
        TICK * u32::try_from(self.charged).unwrap_or(u32::MAX)
    }
}

fn tick(mut store: StoreContextMut<'_, Sandbox>) -> wasmtime::Result<UpdateDeadline> {
    let sandbox = store.data_mut();
    sandbox.charged += 1;
    // The first tick may come at once, so that a deadline of n ticks has passed for certain only at tick n + 1.
    Ok(if sandbox.charged > sandbox.allowed {
        sandbox.stopped = Some(Stopped::Deadline);
        UpdateDeadline::Interrupt
    } else if sandbox.yields {
        UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
    } else {
        UpdateDeadline::Continue(1)
    })
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.bytes.saturating_sub(current).saturating_add(desired);
        if grown > self.limit {
            self.refused = true;
            // An allocator that is told "no" aborts without a word; a trap here names the limit and shows the stack.
            return Err(wasmtime::Error::msg("the memory limit is reached"));
        }
        self.bytes = grown;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_INSTANCES
    }
}

impl log::Host for Sandbox {
    fn write(&mut self, level: log::Level, message: String) {
        let (plugin, transform, message) = (&*self.plugin, &*self.transform, cut(&message, MAX_LINE_BYTES));
        match self.lines.admit() {
            Admit::Drop => return,
            Admit::After(0) => {}
            Admit::After(dropped) => {
                tracing::warn!(plugin, transform, dropped, "log lines of a plugin were dropped: more than {MAX_LINES_A_SECOND} a second")
            }
        }
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
        let second = self.clock.load(Ordering::Relaxed) * TICK.as_millis() as u64 / 1_000;
        if second != self.second {
            (self.second, self.written) = (second, 0);
        }
        if self.written == MAX_LINES_A_SECOND {
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
        let clock = Arc::new(AtomicU64::new(0));
        let mut lines = Lines { clock: clock.clone(), second: 0, written: 0, dropped: 0 };
        let admitted = (0..250).filter(|_| matches!(lines.admit(), Admit::After(0))).count();
        assert_eq!(admitted, 100);
        clock.store(100, Ordering::Relaxed);
        assert!(matches!(lines.admit(), Admit::After(150)));
    }

    #[test]
    fn memories_are_counted_together() {
        let mut memory = Memory { bytes: 0, limit: 100, refused: false };
        assert!(memory.memory_growing(0, 60, None).is_ok());
        assert!(memory.memory_growing(0, 30, None).is_ok());
        assert!(memory.memory_growing(30, 50, None).is_err());
        assert_eq!((memory.bytes, memory.refused), (90, true));
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(cut("aéb", 2), "a");
        assert_eq!(cut("aéb", 9), "aéb");
    }
}
