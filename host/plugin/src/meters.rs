//! What the sandboxes of one transform have used, and which limits they met. Tasks add with relaxed atomics; reports read while they run.

use crate::ticker::TICK;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one transform, over all its tasks and instances.
#[derive(Debug, Default)]
pub struct Meters {
    pub(crate) calls: AtomicU64,
    pub(crate) guest_ticks: AtomicU64,
    pub(crate) throttled_ticks: AtomicU64,
    pub(crate) memory_peak: AtomicU64,
    pub(crate) log_lines: AtomicU64,
    pub(crate) log_dropped: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) poison: AtomicU64,
    pub(crate) breakers_opened: AtomicU64,
    pub(crate) breakers_open: AtomicU64,
    breaches: [AtomicU64; Breach::ALL.len()],
}

/// Why a call failed as a whole. Those that are limits are called as in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It computed too long.
    CallDeadline,
    /// It was away too long.
    WallDeadline,
    /// `open`, `close` or the instantiation took too long.
    SetupDeadline,
    /// Its memories grew too large.
    Memory,
    /// Its tables did.
    Tables,
    /// It has too many core instances, memories or tables.
    Instances,
    /// Too much crossed in a call of the host.
    HostCall,
    /// It led to too many rows.
    Output,
    /// A value of state or an accumulator is too large.
    Row,
    /// Its state is.
    State,
    /// Timers that set themselves again and again.
    Timers,
    /// A panic, or another trap.
    Trap,
    /// It said that it failed, or did what only the whole call can be blamed for.
    Failure,
}

impl Breach {
    /// In the order of their numbers.
    pub const ALL: [Breach; 13] = [
        Breach::CallDeadline,
        Breach::WallDeadline,
        Breach::SetupDeadline,
        Breach::Memory,
        Breach::Tables,
        Breach::Instances,
        Breach::HostCall,
        Breach::Output,
        Breach::Row,
        Breach::State,
        Breach::Timers,
        Breach::Trap,
        Breach::Failure,
    ];

    /// As in the settings and the figures.
    pub fn name(self) -> &'static str {
        match self {
            Breach::CallDeadline => "call_deadline",
            Breach::WallDeadline => "wall_deadline",
            Breach::SetupDeadline => "setup_deadline",
            Breach::Memory => "memory_bytes",
            Breach::Tables => "table_elements",
            Breach::Instances => "instances",
            Breach::HostCall => "host_call_bytes",
            Breach::Output => "output_bytes",
            Breach::Row => "max_row_bytes",
            Breach::State => "state_bytes",
            Breach::Timers => "timer_fires",
            Breach::Trap => "trap",
            Breach::Failure => "failure",
        }
    }
}

/// The figures of [`Meters`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PluginFigures {
    /// Calls of the guest.
    pub calls: u64,
    /// Time that guests computed, in ticks of 10 ms.
    pub guest_seconds: f64,
    /// Time that they were made to wait by `limits.cpu_per_second`.
    pub throttled_seconds: f64,
    /// The most that the linear memories of one instance had.
    pub memory_bytes_peak: u64,
    /// Log lines that were written.
    pub log_lines: u64,
    /// Those beyond `limits.log_lines_per_second`.
    pub log_lines_dropped: u64,
    /// Instances that were replaced because they had grown.
    pub instances_recycled: u64,
    /// Instances that were thrown away after a call failed: the sum of `breaches` but for timers.
    pub instances_discarded: u64,
    /// Calls beyond the first with a batch.
    pub retries: u64,
    /// Rows that failed alone.
    pub poison_rows: u64,
    /// Calls that failed as a whole, by cause.
    pub breaches: BTreeMap<&'static str, u64>,
    /// How often breakers opened.
    pub breakers_opened: u64,
    /// Breakers that are open now; a task has one.
    pub breakers_open: u64,
}

impl Meters {
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }

    /// A limit was met, or a call failed.
    pub fn breached(&self, breach: Breach) {
        Meters::add(&self.breaches[breach as usize], 1);
    }

    /// A copy of the figures; `None` before the first call.
    pub fn figures(&self) -> Option<PluginFigures> {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let seconds = |ticks: &AtomicU64| of(ticks) as f64 * TICK.as_secs_f64();
        let counts = Breach::ALL.map(|breach| (breach, of(&self.breaches[breach as usize])));
        let discarded = counts.iter().filter(|(breach, _)| *breach != Breach::Timers).map(|(_, count)| count).sum();
        let figures = PluginFigures {
            calls: of(&self.calls),
            guest_seconds: seconds(&self.guest_ticks),
            throttled_seconds: seconds(&self.throttled_ticks),
            memory_bytes_peak: of(&self.memory_peak),
            log_lines: of(&self.log_lines),
            log_lines_dropped: of(&self.log_dropped),
            instances_recycled: of(&self.recycled),
            instances_discarded: discarded,
            retries: of(&self.retries),
            poison_rows: of(&self.poison),
            breaches: counts.iter().filter(|(_, count)| *count > 0).map(|(breach, count)| (breach.name(), *count)).collect(),
            breakers_opened: of(&self.breakers_opened),
            breakers_open: of(&self.breakers_open),
        };
        (figures.calls > 0 || discarded > 0).then_some(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_breach_has_a_place_and_a_name_of_its_own() {
        let meters = Meters::default();
        assert_eq!(meters.figures(), None);
        Breach::ALL.into_iter().for_each(|breach| meters.breached(breach));
        let figures = meters.figures().expect("something happened");
        assert_eq!((figures.breaches.len(), figures.instances_discarded), (Breach::ALL.len(), Breach::ALL.len() as u64 - 1));
        assert!(Breach::ALL.iter().enumerate().all(|(number, breach)| *breach as usize == number));
    }
}
