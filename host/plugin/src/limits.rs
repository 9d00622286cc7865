//! How much a plugin may take (`options.pelton.limits`), with the reason of each default.

use pelton_core::bisect::Budget;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::time::Duration;

/// Bounds of one instance and of the calls to it.
///
/// ```yaml
/// limits: {call_deadline: 500ms, memory_bytes: 512MiB, on_budget: error_output}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A call that computes longer is stopped. Counted in ticks of 10 ms during which the guest ran, so neither other tasks nor a
    /// suspended machine use it up; a call may take one tick more. Default 100 ms: a batch of 256 KiB takes a few milliseconds in a
    /// compiled language and tens in Python, and one endless row in 8,192 (15 calls that fail) is still found within `batch_time`.
    #[serde(deserialize_with = "duration")]
    pub call_deadline: Duration,
    /// All linear memories of an instance together. Default 256 MiB.
    #[serde(deserialize_with = "bytes")]
    pub memory_bytes: usize,
    /// An instance that has grown beyond this (or, when it opens larger, beyond twice that) is replaced after the call: linear memory
    /// never shrinks, and runtimes of script languages leak. Default 64 MiB.
    #[serde(deserialize_with = "bytes")]
    pub recycle_bytes: usize,
    /// The largest row. Default 16 MiB.
    #[serde(deserialize_with = "bytes")]
    pub max_row_bytes: usize,
    /// Calls that one batch may cost once it has failed. Default 32: one bad row in 8,192 takes at most 28.
    pub batch_calls: u32,
    /// Guest time that one batch may cost once it has failed, counted as `call_deadline` is. Default 2 s.
    #[serde(deserialize_with = "duration")]
    pub batch_time: Duration,
    /// What happens when a batch has spent either.
    pub on_budget: OnBudget,
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

impl Limits {
    /// Bytes of the lists and strings of one result: four of the largest rows.
    pub fn host_call_bytes(&self) -> usize {
        self.max_row_bytes.saturating_mul(4)
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget { calls: self.batch_calls, time: self.batch_time }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            call_deadline: Duration::from_millis(100),
            memory_bytes: 256 << 20,
            recycle_bytes: 64 << 20,
            max_row_bytes: pelton_core::batch::MAX_ROW_BYTES,
            batch_calls: 32,
            batch_time: Duration::from_secs(2),
            on_budget: OnBudget::Stop,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = pelton_core::Duration::parse(&text).map_err(D::Error::custom)?;
    if parsed.micros() == 0 { Err(D::Error::custom("a limit of no time lets nothing run")) } else { Ok(parsed.to_std()) }
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
            parse_bytes(text).ok_or_else(|| E::custom(format!("`{text}` is not a number of bytes such as 1048576 or 64MiB")))
        }
    }
    deserializer.deserialize_any(Bytes)
}

fn parse_bytes(text: &str) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
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
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for wrong in [
            json!({"deadline": "1s"}),
            json!({"call_deadline": "soon"}),
            json!({"call_deadline": "0s"}),
            json!({"memory_bytes": "64MB"}),
            json!({"memory_bytes": -1}),
        ] {
            assert!(serde_json::from_value::<Limits>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
