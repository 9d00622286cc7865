//! When a plugin that fails again and again is no longer called.
//!
//! A breach is a call that failed as a whole: it met a limit, trapped or gave up. One breach is counted for a batch, however many calls the
//! search for its bad rows takes ([`crate::bisect`]). With `after` breaches within `within` the breaker opens, and its policy says what
//! becomes of the rows: the pipeline stops, or it waits for `pause`, or rows go to the error output without a call for that long. Then one
//! batch is tried: when it succeeds the breaker closes and forgets, when it fails the breaker opens again.
//!
//! ```text
//!            after breaches            pause is over
//!   closed ------------------> open ------------------> trial
//!      ^                         ^                       |  |
//!      |                         +------- breach --------+  |
//!      +--------------------- success ---------------------+
//! ```
//!
//! Times are what the caller's clock says since a start of its own.

use std::collections::VecDeque;
use std::time::Duration;

/// When a breaker opens, and what is done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Breaches that open it; at least 1.
    pub after: u32,
    /// The time within which they must happen.
    pub within: Duration,
    /// What is done with rows while it is open.
    pub policy: Policy,
    /// How long it stays open before a trial.
    pub pause: Duration,
}

/// What becomes of rows while a breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The pipeline stops.
    Stop,
    /// They wait.
    Pause,
    /// They go to the error output.
    ErrorOutput,
}

/// Whether a batch may be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// By the plugin.
    Call,
    /// At this time; ask again then.
    Wait {
        /// On the caller's clock.
        until: Duration,
    },
    /// Not by the plugin.
    Refuse,
    /// Not at all.
    Stop,
}

/// A change that an operator should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Too many breaches.
    Opened,
    /// The trial failed.
    OpenedAgain,
    /// The trial succeeded.
    Closed,
}

/// The breaker of one instance.
#[derive(Clone, Debug)]
pub struct Breaker {
    rule: Rule,
    state: State,
    /// Times of the last breaches, the oldest first; at most `after`.
    recent: VecDeque<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Duration },
    Trial,
}

impl Breaker {
    /// Closed.
    pub fn new(rule: Rule) -> Breaker {
        Breaker { rule, state: State::Closed, recent: VecDeque::new() }
    }

    /// Asked before each batch.
    pub fn admit(&mut self, now: Duration) -> Admission {
        match (self.state, self.rule.policy) {
            (State::Closed | State::Trial, _) => Admission::Call,
            (State::Open { .. }, Policy::Stop) => Admission::Stop,
            (State::Open { until }, _) if now >= until => {
                self.state = State::Trial;
                Admission::Call
            }
            (State::Open { until }, Policy::Pause) => Admission::Wait { until },
            (State::Open { .. }, Policy::ErrorOutput) => Admission::Refuse,
        }
    }

    /// The first call with a batch failed.
    pub fn breached(&mut self, now: Duration) -> Option<Change> {
        let open = State::Open { until: now.saturating_add(self.rule.pause) };
        match self.state {
            State::Trial => {
                self.state = open;
                Some(Change::OpenedAgain)
            }
            State::Open { .. } => None,
            State::Closed => {
                self.recent.push_back(now);
                self.recent.retain(|at| now.saturating_sub(*at) < self.rule.within);
                if self.recent.len() < self.rule.after as usize {
                    return None;
                }
                self.state = open;
                self.recent.clear();
                Some(Change::Opened)
            }
        }
    }

    /// The first call with a batch succeeded.
    pub fn succeeded(&mut self) -> Option<Change> {
        (self.state == State::Trial).then(|| {
            self.state = State::Closed;
            Change::Closed
        })
    }

    /// The rule that it follows.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker(policy: Policy) -> Breaker {
        Breaker::new(Rule { after: 3, within: secs(10), policy, pause: secs(5) })
    }

    #[test]
    fn it_opens_when_breaches_are_close_to_each_other() {
        let mut far = breaker(Policy::Stop);
        assert!((0..20).all(|time| far.breached(secs(time * 5)).is_none()), "two within ten seconds are not three");
        let mut near = breaker(Policy::Stop);
        assert_eq!([1, 5, 10].map(|time| near.breached(secs(time))), [None, None, Some(Change::Opened)]);
        assert_eq!(near.admit(secs(1_000)), Admission::Stop, "a pipeline that has stopped is not tried again");
    }

    #[test]
    fn policies_differ_in_what_becomes_of_rows_until_the_trial() {
        for (policy, open) in [(Policy::Pause, Admission::Wait { until: secs(6) }), (Policy::ErrorOutput, Admission::Refuse)] {
            let mut breaker = breaker(policy);
            (0..3).for_each(|_| _ = breaker.breached(secs(1)));
            assert_eq!((breaker.admit(secs(1)), breaker.admit(Duration::from_millis(5_999))), (open, open));
            assert_eq!(breaker.admit(secs(6)), Admission::Call);
        }
    }

    #[test]
    fn a_trial_decides() {
        let mut breaker = breaker(Policy::Pause);
        (0..3).for_each(|_| _ = breaker.breached(secs(0)));
        assert_eq!((breaker.admit(secs(5)), breaker.breached(secs(5))), (Admission::Call, Some(Change::OpenedAgain)));
        assert_eq!(breaker.admit(secs(9)), Admission::Wait { until: secs(10) });
        assert_eq!((breaker.admit(secs(10)), breaker.succeeded(), breaker.succeeded()), (Admission::Call, Some(Change::Closed), None));
        // What was before is forgotten.
        assert_eq!([11, 11].map(|time| breaker.breached(secs(time))), [None, None]);
    }

    proptest! {
        /// Against counting all breaches since the last change.
        #[test]
        fn it_opens_exactly_when_enough_breaches_lie_within_the_time(steps in prop::collection::vec((0u64..6, any::<bool>()), 0..60)) {
            let mut breaker = breaker(Policy::ErrorOutput);
            let (mut now, mut breaches) = (0, Vec::new());
            for (passed, fails) in steps {
                now += passed;
                if breaker.admit(secs(now)) != Admission::Call {
                    continue;
                }
                let trial = breaker.state == State::Trial;
                if !fails {
                    prop_assert_eq!(breaker.succeeded().is_some(), trial);
                    if trial {
                        breaches.clear();
                    }
                    continue;
                }
                breaches.push(now);
                let enough = breaches.iter().filter(|at| now - **at < 10).count() >= 3;
                prop_assert_eq!(breaker.breached(secs(now)).is_some(), trial || enough);
                if enough && !trial {
                    breaches.clear();
                }
                prop_assert!(breaker.recent.len() < 3);
            }
        }
    }
}
