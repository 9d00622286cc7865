//! How much a plugin may take (`options.pelton.limits`), with the reason of each default. `docs/reference/limits.md` has them as a table.

use pelton_core::bisect::Budget;
use pelton_core::breaker::{Policy, Rule};
use pelton_core::byte_size;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::time::Duration;

/// Bounds of one instance and of the calls to it.
///
/// ```yaml
/// limits: {call_deadline: 500ms, memory_bytes: 512MiB, on_budget: error_output, breaker: {after: 20, within: 60s, policy: pause}}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A call that computes longer is stopped. Counted in ticks of 10 ms during which the guest ran, so neither other tasks nor a
    /// suspended machine use it up; a call may take one tick more. Default 100 ms: a batch of 256 KiB takes a few milliseconds in a
    /// compiled language and tens in Python, and one endless row in 8,192 (15 calls that fail) is still found within `batch_time`.
    #[serde(deserialize_with = "duration")]
    pub call_deadline: Duration,
    /// A call that is not back after this time on the wall is stopped, whatever it was kept waiting for but `cpu_per_second`. Default 10 s:
    /// it binds where a machine is so busy that a call gets a hundredth of a core.
    #[serde(deserialize_with = "duration")]
    pub wall_deadline: Duration,
    /// What an instance may compute within a second; it waits for the next second when that is spent. Default 1 s: a whole core.
    #[serde(deserialize_with = "duration")]
    pub cpu_per_second: Duration,
    /// `open` and `close` may take this long, and so may what runs when the component is instantiated. Default 5 s: runtimes of script
    /// languages start in them.
    #[serde(deserialize_with = "duration")]
    pub setup_deadline: Duration,
    /// All linear memories of an instance together. Default 256 MiB.
    #[serde(deserialize_with = "bytes")]
    pub memory_bytes: usize,
    /// An instance that has grown beyond this (or, when it opens larger, beyond twice that) is replaced after the call: linear memory
    /// never shrinks, and runtimes of script languages leak. Default 64 MiB.
    #[serde(deserialize_with = "bytes")]
    pub recycle_bytes: usize,
    /// Entries of all tables of an instance together. Default 1,048,576: a language runtime has some ten thousand functions.
    #[serde(deserialize_with = "count")]
    pub table_elements: u32,
    /// Core instances, memories and tables of a component, of each so many. Default 64: a language runtime, its adapter and their glue.
    #[serde(deserialize_with = "count")]
    pub instances: u32,
    /// The largest row, value of state and accumulator. Default 16 MiB.
    #[serde(deserialize_with = "bytes")]
    pub max_row_bytes: usize,
    /// Lists and strings that cross in one call of the host, in either direction. Default: four of the largest rows.
    #[serde(deserialize_with = "some_bytes")]
    pub host_call_bytes: Option<usize>,
    /// The rows that one call leads to, with the columns that the host copies for it. Default 64 MiB: sixty times the largest batch.
    #[serde(deserialize_with = "bytes")]
    pub output_bytes: usize,
    /// State of the transform in memory, over its tasks. Default: as much as `options.pelton.memory` allows, beyond which the pipeline
    /// stops; with a limit of its own, calls that would write more fail.
    #[serde(deserialize_with = "some_bytes")]
    pub state_bytes: Option<usize>,
    /// How often timers of one key fire in a row because they set themselves again, without a row or a watermark between. Default 100,000:
    /// more is most likely a loop without an end.
    #[serde(deserialize_with = "count")]
    pub timer_fires: u32,
    /// Log lines of one instance within a second; more are counted and dropped. Default 100.
    pub log_lines_per_second: u32,
    /// Calls that one batch may cost once it has failed. Default 32: one bad row in 8,192 takes at most 28.
    #[serde(deserialize_with = "count")]
    pub batch_calls: u32,
    /// Guest time that one batch may cost once it has failed, counted as `call_deadline` is. Default 2 s.
    #[serde(deserialize_with = "duration")]
    pub batch_time: Duration,
    /// What happens when a batch has spent either.
    pub on_budget: OnBudget,
    /// When a plugin that fails again and again is no longer called.
    pub breaker: BreakerLimits,
}

/// The breaker of a batch that fails too often to be narrowed down: a thousand bad rows in one batch cannot be isolated in 32 calls, and
/// mean a broken plugin or a broken input rather than a bad row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBudget {
    /// Stop the pipeline; nothing of the batch is applied and nothing is lost.
    #[default]
    Stop,
    /// Send the undecided rows to the error output, marked as not isolated. Good rows may be among them.
    ErrorOutput,
}

/// The breaker of an instance ([`pelton_core::breaker`]).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerLimits {
    /// Batches whose first call failed that open it. Default 1,000.
    #[serde(deserialize_with = "count")]
    pub after: u32,
    /// The time within which they must fail. Default 60 s.
    #[serde(deserialize_with = "duration")]
    pub within: Duration,
    /// What becomes of rows while it is open.
    pub policy: BreakerPolicy,
    /// How long it stays open until a batch is tried. Default 10 s.
    #[serde(deserialize_with = "duration")]
    pub pause: Duration,
}

/// What becomes of rows while a breaker is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerPolicy {
    /// The pipeline stops.
    #[default]
    Stop,
    /// They wait, and with them the pipeline.
    Pause,
    /// They go to the error output without a call.
    ErrorOutput,
}

/// A core has no more.
const SECOND: Duration = Duration::from_secs(1);

impl Limits {
    /// Bytes of the lists and strings of one call of the host.
    pub fn call_bytes(&self) -> usize {
        self.host_call_bytes.unwrap_or(self.max_row_bytes.saturating_mul(4))
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget { calls: self.batch_calls, time: self.batch_time }
    }

    /// Less than a whole core a second.
    pub(crate) fn throttle(&self) -> Option<Duration> {
        Some(self.cpu_per_second).filter(|allowed| *allowed < SECOND)
    }
}

impl BreakerLimits {
    pub(crate) fn rule(&self) -> Rule {
        let policy = match self.policy {
            BreakerPolicy::Stop => Policy::Stop,
            BreakerPolicy::Pause => Policy::Pause,
            BreakerPolicy::ErrorOutput => Policy::ErrorOutput,
        };
        Rule { after: self.after, within: self.within, policy, pause: self.pause }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            call_deadline: Duration::from_millis(100),
            wall_deadline: Duration::from_secs(10),
            cpu_per_second: SECOND,
            setup_deadline: Duration::from_secs(5),
            memory_bytes: 256 << 20,
            recycle_bytes: 64 << 20,
            table_elements: 1 << 20,
            instances: 64,
            max_row_bytes: pelton_core::batch::MAX_ROW_BYTES,
            host_call_bytes: None,
            output_bytes: 64 << 20,
            state_bytes: None,
            timer_fires: 100_000,
            log_lines_per_second: 100,
            batch_calls: 32,
            batch_time: Duration::from_secs(2),
            on_budget: OnBudget::Stop,
            breaker: BreakerLimits::default(),
        }
    }
}

impl Default for BreakerLimits {
    fn default() -> BreakerLimits {
        BreakerLimits { after: 1_000, within: Duration::from_secs(60), policy: BreakerPolicy::Stop, pause: Duration::from_secs(10) }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = pelton_core::Duration::parse(&text).map_err(D::Error::custom)?;
    if parsed.micros() == 0 { Err(D::Error::custom("a limit of no time lets nothing run")) } else { Ok(parsed.to_std()) }
}

/// A number of things; of none there is nothing to do.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("a limit of 0 lets nothing run")),
        count => Ok(count),
    }
}

fn some_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    bytes(deserializer).map(Some)
}

/// A number of bytes, or a string such as `64MiB`.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = usize;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, such as 1048576 or 64MiB")
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<usize, E> {
            usize::try_from(value).map_err(E::custom)
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<usize, E> {
            usize::try_from(value).map_err(E::custom)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            byte_size::parse(text)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(|| E::custom(format!("`{text}` is not a number of bytes such as 1048576 or 64MiB")))
        }
    }
    deserializer.deserialize_any(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_read_as_a_user_writes_them() {
        let read: Limits = serde_json::from_value(
            json!({"call_deadline": "500ms", "memory_bytes": "512MiB", "recycle_bytes": 1024, "on_budget": "error_output"}),
        )
        .expect("valid");
        assert_eq!((read.call_deadline, read.memory_bytes, read.recycle_bytes), (Duration::from_millis(500), 512 << 20, 1024));
        assert_eq!((read.on_budget, read.batch_calls), (OnBudget::ErrorOutput, 32));
        assert_eq!(serde_json::from_value::<Limits>(json!({})).expect("valid"), Limits::default());
        let read: Limits = serde_json::from_value(
            json!({"wall_deadline": "3s", "cpu_per_second": "200ms", "state_bytes": "1MiB", "host_call_bytes": 7, "breaker": {"after": 3, "policy": "pause"}}),
        )
        .expect("valid");
        assert_eq!((read.wall_deadline, read.throttle()), (Duration::from_secs(3), Some(Duration::from_millis(200))));
        assert_eq!((read.state_bytes, read.call_bytes()), (Some(1 << 20), 7));
        assert_eq!(read.breaker, BreakerLimits { after: 3, policy: BreakerPolicy::Pause, ..BreakerLimits::default() });
        assert_eq!((Limits::default().throttle(), Limits::default().call_bytes()), (None, 64 << 20));
    }

    /// Names of the settings, as serde tells them to who misspells one.
    fn names(wrong: serde_json::Value) -> Vec<String> {
        let told = serde_json::from_value::<Limits>(wrong).expect_err("no such setting").to_string();
        let (_, expected) = told.split_once("expected one of ").expect("the known ones");
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_reference_has_every_setting_and_every_cause() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/limits.md");
        let text = std::fs::read_to_string(path).expect("the reference of limits");
        let settings = [names(json!({"x": 1})), names(json!({"breaker": {"x": 1}}))].concat();
        assert!(settings.len() > 20, "{settings:?}");
        for name in settings {
            assert!(text.contains(&format!("\n| `{name}` | ")), "docs/reference/limits.md has no row for `{name}`");
        }
        for breach in crate::meters::Breach::ALL {
            assert!(text.contains(&format!("`{}`", breach.name())), "docs/reference/limits.md does not name the cause {breach:?}");
        }
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for wrong in [
            json!({"deadline": "1s"}),
            json!({"call_deadline": "soon"}),
            json!({"call_deadline": "0s"}),
            json!({"memory_bytes": "64MB"}),
            json!({"memory_bytes": -1}),
            json!({"instances": 0}),
            json!({"breaker": {"after": 0}}),
            json!({"breaker": {"policy": "hope"}}),
            json!({"breaker": {"for": "1s"}}),
        ] {
            assert!(serde_json::from_value::<Limits>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
