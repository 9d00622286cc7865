//! How the watermark of one source split follows from its rows. Processing time is handed in.
//!
//! Invariant: what has been given out never goes back; that is seen to where splits are merged ([`crate::watermark::Merged`]).

use crate::time::{Duration, Instant};
use crate::varint;
use crate::watermark::Watermark;
use std::collections::VecDeque;

/// How the watermark of each split follows from its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is made from.
    pub rule: Rule,
    /// A split without rows for this long (processing time) is idle and holds nothing back.
    pub idle_timeout: Option<Duration>,
}

/// What a watermark is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It stays at the beginning until the split ends: on bounded input nothing is late.
    AtEnd,
    /// The largest event time seen less a fixed delay.
    FixedDelay(Duration),
    /// The largest event time seen less a quantile of how far behind it rows have been: of the last [`SAMPLE`] rows, within
    /// bounds.
    Adaptive {
        /// In millionths.
        quantile: u32,
        /// The shortest delay.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The event time of the latest marker row: all rows before it have come.
    Punctuated,
    /// The clock.
    ProcessingTime,
}

/// Rows that an adaptive watermark remembers.
pub const SAMPLE: usize = 10_000;
/// Of [`SplitWatermark::encode`].
const VERSION: u8 = 1;

impl Policy {
    /// For bounded input.
    pub const AT_END: Policy = Policy { rule: Rule::AtEnd, idle_timeout: None };

    /// The largest event time less a delay.
    pub fn fixed_delay(delay: Duration, idle_timeout: Option<Duration>) -> Policy {
        Policy { rule: Rule::FixedDelay(delay), idle_timeout }
    }
}

/// The watermark of one split.
#[derive(Clone, Debug)]
pub struct SplitWatermark {
    policy: Policy,
    largest: Option<Instant>,
    marker: Option<Instant>,
    /// How far behind the largest event time rows were, microseconds, the oldest first.
    behind: VecDeque<i64>,
    /// The delay that follows from it.
    delay: Duration,
    last_row_at: Instant,
    ended: bool,
}

impl SplitWatermark {
    /// Starts at the beginning of time; `now` is processing time.
    pub fn new(policy: Policy, now: Instant) -> SplitWatermark {
        let delay = match policy.rule {
            Rule::FixedDelay(delay) => delay,
            // Until rows have shown otherwise, they may be as late as they ever may.
            Rule::Adaptive { max, .. } => max,
            _ => Duration::ZERO,
        };
        SplitWatermark { policy, largest: None, marker: None, behind: VecDeque::new(), delay, last_row_at: now, ended: false }
    }

    /// Appends what it remembers:
    ///
    /// ```text
    /// version  u8    1
    /// flags    u8    1 has a largest event time, 2 has a marker
    /// largest  signed varint, microseconds; only with flag 1
    /// marker   signed varint, microseconds; only with flag 2
    /// behind   varint each, to the end: how far behind the largest event time the last rows were, the oldest first
    /// ```
    ///
    /// It lies in checkpoints: written once means readable for ever. Idleness is not in it: a restart begins it anew.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, u8::from(self.largest.is_some()) | (u8::from(self.marker.is_some()) << 1)]);
        self.largest.into_iter().chain(self.marker).for_each(|time| varint::write_signed(out, time.micros()));
        self.behind.iter().for_each(|behind| varint::write(out, behind.unsigned_abs()));
    }

    /// Reads what [`SplitWatermark::encode`] wrote, also under another policy; `None`: the bytes are damaged, or of a newer version.
    pub fn decode(policy: Policy, bytes: &[u8], now: Instant) -> Option<SplitWatermark> {
        let (&[VERSION, flags @ 0..=3], mut rest) = bytes.split_first_chunk::<2>()? else { return None };
        let mut split = SplitWatermark::new(policy, now);
        for (flag, time) in [(1, &mut split.largest), (2, &mut split.marker)] {
            if flags & flag != 0 {
                *time = Some(Instant::from_micros(varint::read_signed(&mut rest)?).ok()?);
            }
        }
        while !rest.is_empty() {
            split.behind.push_back(i64::try_from(varint::read(&mut rest)?).ok()?);
        }
        split.follow();
        Some(split)
    }

    /// Of two that one split had at different times, the later.
    pub fn later(self, other: SplitWatermark) -> SplitWatermark {
        if (other.largest, other.marker) > (self.largest, self.marker) { other } else { self }
    }

    /// The delay follows from how far behind rows were.
    fn follow(&mut self) {
        if let Rule::Adaptive { quantile, min, max } = self.policy.rule
            && !self.behind.is_empty()
        {
            self.delay = Duration::from_micros(quantile_of(&self.behind, quantile).clamp(min.micros(), max.micros().max(min.micros())));
        }
    }

    /// Takes note of the event times of some rows, in order, and of the latest marker among them.
    pub fn observe(&mut self, times: &[i64], marker: Option<Instant>, now: Instant) {
        self.last_row_at = now;
        self.marker = self.marker.max(marker);
        if matches!(self.policy.rule, Rule::Adaptive { .. }) {
            let mut largest = self.largest.map_or(i64::MIN, Instant::micros);
            for time in times {
                largest = largest.max(*time);
                if self.behind.len() == SAMPLE {
                    self.behind.pop_front();
                }
                self.behind.push_back(largest.saturating_sub(*time));
            }
            self.follow();
        }
        let largest = times.iter().max().map(|largest| Instant::from_micros_saturating(*largest));
        self.largest = self.largest.max(largest);
    }

    /// It is not idle though no rows come: somebody else is waited for.
    pub fn keep_awake(&mut self, now: Instant) {
        self.last_row_at = now;
    }

    /// No further row comes from this split.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Where it stands; `None` when it has ended.
    pub fn current(&self, now: Instant) -> Option<Watermark> {
        if self.ended {
            return None;
        }
        if self.policy.rule == Rule::ProcessingTime {
            return Some(Watermark::Active(now));
        }
        if self.policy.idle_timeout.is_some_and(|timeout| now >= self.last_row_at.saturating_add(timeout)) {
            return Some(Watermark::Idle);
        }
        let at = match self.policy.rule {
            Rule::AtEnd | Rule::ProcessingTime => None,
            Rule::FixedDelay(_) | Rule::Adaptive { .. } => self.largest.map(|largest| largest.saturating_sub(self.delay)),
            Rule::Punctuated => self.marker,
        };
        Some(Watermark::Active(at.unwrap_or(Instant::MIN)))
    }
}

/// The smallest value that at least the share `quantile` (millionths) of the values does not exceed.
fn quantile_of(values: &VecDeque<i64>, quantile: u32) -> i64 {
    let mut sorted: Vec<i64> = values.iter().copied().collect();
    let rank = (sorted.len() as u64 * u64::from(quantile)).div_ceil(1_000_000).max(1) as usize - 1;
    let (_, found, _) = sorted.select_nth_unstable(rank.min(values.len() - 1));
    *found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Instant {
        Instant::from_micros_saturating(micros)
    }

    fn micros(micros: i64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_fixed_delay_follows_the_largest_event_time() {
        let policy = Policy::fixed_delay(micros(5), Some(micros(100)));
        let mut split = SplitWatermark::new(policy, at(0));
        assert_eq!(split.current(at(0)), Some(Watermark::Active(Instant::MIN)));
        split.observe(&[20], None, at(1));
        split.observe(&[12], None, at(2));
        assert_eq!(split.current(at(3)), Some(Watermark::Active(at(15))));
        assert_eq!(split.current(at(101)), Some(Watermark::Active(at(15))));
        assert_eq!(split.current(at(102)), Some(Watermark::Idle));
        split.keep_awake(at(102));
        assert_eq!(split.current(at(102)), Some(Watermark::Active(at(15))));
        split.end();
        assert_eq!(split.current(at(103)), None);
    }

    #[test]
    fn markers_and_the_clock() {
        let mut split = SplitWatermark::new(Policy { rule: Rule::Punctuated, idle_timeout: None }, at(0));
        split.observe(&[50, 60], None, at(1));
        assert_eq!(split.current(at(2)), Some(Watermark::Active(Instant::MIN)));
        split.observe(&[55], Some(at(52)), at(3));
        split.observe(&[55], Some(at(40)), at(3));
        assert_eq!(split.current(at(4)), Some(Watermark::Active(at(52))));
        let split = SplitWatermark::new(Policy { rule: Rule::ProcessingTime, idle_timeout: Some(micros(1)) }, at(0));
        assert_eq!(split.current(at(7)), Some(Watermark::Active(at(7))));
    }

    /// These bytes lie in checkpoints: they never change.
    #[test]
    fn golden_bytes() {
        let rule = Rule::Adaptive { quantile: 1_000_000, min: micros(0), max: micros(99) };
        let policy = Policy { rule, idle_timeout: None };
        let mut split = SplitWatermark::new(policy, at(0));
        let mut bytes = Vec::new();
        split.encode(&mut bytes);
        assert_eq!(bytes, [1, 0]);
        split.observe(&[50, 48], Some(at(-3)), at(0));
        bytes.clear();
        split.encode(&mut bytes);
        assert_eq!(bytes, [1, 3, 100, 5, 0, 2]);
        let read = SplitWatermark::decode(policy, &bytes, at(7)).expect("what was written");
        assert_eq!(read.current(at(7)), Some(Watermark::Active(at(48))));
        for damaged in [&[][..], &[2, 0], &[1, 4], &[1, 1], &[1, 0, 128]] {
            assert!(SplitWatermark::decode(policy, damaged, at(0)).is_none(), "{damaged:?}");
        }
    }

    proptest! {
        /// What is read goes on as what was written, whatever the policy.
        #[test]
        fn a_restored_one_goes_on_as_the_first_would(
            times in proptest::collection::vec(-100i64..1_000, 0..40), cut in 0usize..40, marker in proptest::option::of(0i64..100), rule in 0u8..4,
        ) {
            let rule = match rule {
                0 => Rule::AtEnd,
                1 => Rule::FixedDelay(micros(5)),
                2 => Rule::Adaptive { quantile: 900_000, min: micros(1), max: micros(400) },
                _ => Rule::Punctuated,
            };
            let policy = Policy { rule, idle_timeout: None };
            let mut first = SplitWatermark::new(policy, at(0));
            let (before, after) = times.split_at(cut.min(times.len()));
            first.observe(before, marker.map(at), at(0));
            let mut bytes = Vec::new();
            first.encode(&mut bytes);
            let mut second = SplitWatermark::decode(policy, &bytes, at(1)).expect("what was written");
            prop_assert_eq!(first.current(at(1)), second.current(at(1)));
            first.observe(after, None, at(2));
            second.observe(after, None, at(2));
            prop_assert_eq!(first.current(at(2)), second.current(at(2)));
        }

        /// Against sorting all that was seen.
        #[test]
        fn an_adaptive_delay_is_the_quantile_of_the_lateness_seen(
            times in proptest::collection::vec(0i64..1_000, 1..60), cut in 1usize..9,
            percent in 1u32..=100, min in 0i64..50, more in 0i64..400,
        ) {
            let rule = Rule::Adaptive { quantile: percent * 10_000, min: micros(min), max: micros(min + more) };
            let mut split = SplitWatermark::new(Policy { rule, idle_timeout: None }, at(0));
            times.chunks(cut).for_each(|times| split.observe(times, None, at(0)));
            let mut largest = i64::MIN;
            let mut behind: Vec<i64> = times.iter().map(|time| { largest = largest.max(*time); largest - time }).collect();
            behind.sort();
            let wanted = behind.iter().copied().find(|value| {
                behind.iter().filter(|other| *other <= value).count() * 100 >= behind.len() * percent as usize
            });
            let delay = wanted.expect("the largest is at or above every share").clamp(min, min + more);
            prop_assert_eq!(split.current(at(0)), Some(Watermark::Active(at(largest - delay))));
        }
    }
}
