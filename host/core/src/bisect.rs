//! How a failed batch is retried: once more on a fresh instance, then in halves, down to the rows that fail alone.
//!
//! A call that failed has committed nothing. What failed may be the instance (a leak) and not a row, so the whole batch is tried once
//! more on a fresh one. After that the batch is halved in row order; each half that succeeds is committed before the next is called, so
//! the order of rows is kept. A single row that fails alone on a fresh instance is poison. A budget of calls and time bounds the search;
//! rows that are left when it is spent were never seen to fail alone and are called undecided.
//!
//! When the first half of a failed range commits, the second half is known to hold the failure and is split without a call. One bad row
//! among 8,192 therefore costs 2 calls for the whole and 1 to 2 for each of 13 halvings, and fits the default budget of 32. Many
//! bad rows in one batch do not: that is a broken plugin or a broken input, and for the breaker to stop (see `Limits::on_budget` in
//! `host/plugin`).
//!
//! Invariant: the ranges that are decided, in the order in which they are decided, are the rows of the batch in order, each once.

use std::ops::Range;
use std::time::Duration;

/// How much a batch may spend after its first failure; the first call counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Calls.
    pub calls: u32,
    /// Time in the guest, as the caller measures it.
    pub time: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Call the guest with these rows and report with [`Bisection::succeeded`] or [`Bisection::failed`].
    Call {
        /// Rows of the batch.
        rows: Range<u32>,
        /// On an instance that has processed nothing.
        fresh: bool,
    },
    /// This row failed alone with the last failure reported: report it, then ask again.
    Poison {
        /// Row of the batch.
        row: u32,
    },
    /// The budget is spent: these rows, up to the end of the batch, are undecided. Nothing follows.
    Spent {
        /// Rows of the batch.
        rows: Range<u32>,
    },
    /// Every row is decided.
    Done,
}

/// The search through one batch whose first call has failed.
#[derive(Clone, Debug)]
pub struct Bisection {
    budget: Budget,
    calls: u32,
    time: Duration,
    /// Undecided ranges, the next one last; together they are the rest of the batch.
    rest: Vec<Pending>,
    poison: Option<u32>,
}

#[derive(Clone, Debug)]
struct Pending {
    rows: Range<u32>,
    /// What is known of the range before it is called.
    known: Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Failed as a whole and is to be tried again.
    Retry,
    /// Half of a range that failed; `first` of the two.
    Half { first: bool },
}

impl Bisection {
    /// `rows` (at least one) failed as a whole in a call that took `time`.
    pub fn after_failure(rows: u32, time: Duration, budget: Budget) -> Bisection {
        Bisection { budget, calls: 1, time, rest: vec![Pending { rows: 0..rows, known: Known::Retry }], poison: None }
    }

    /// The next step. Asking twice without a report gives the same call.
    pub fn next_step(&mut self) -> Decision {
        if let Some(row) = self.poison.take() {
            return Decision::Poison { row };
        }
        let Some(next) = self.rest.last() else { return Decision::Done };
        if self.calls >= self.budget.calls || self.time >= self.budget.time {
            let end = self.rest[0].rows.end;
            return Decision::Spent { rows: next.rows.start..end };
        }
        // A verdict on a row must not rest on what earlier calls left in the instance.
        let fresh = next.known == Known::Retry || next.rows.len() == 1;
        Decision::Call { rows: next.rows.clone(), fresh }
    }

    /// The called rows are committed.
    pub fn succeeded(&mut self, time: Duration) {
        self.spend(time);
        let done = self.rest.pop();
        // The sibling holds the failure: a call of all of it would fail again.
        if done.is_some_and(|done| done.known == Known::Half { first: true })
            && let Some(sibling) = self.rest.pop_if(|sibling| sibling.rows.len() > 1)
        {
            self.split(sibling.rows);
        }
    }

    /// The call failed and committed nothing.
    pub fn failed(&mut self, time: Duration) {
        self.spend(time);
        let Some(failed) = self.rest.pop() else { return };
        if failed.rows.len() > 1 { self.split(failed.rows) } else { self.poison = Some(failed.rows.start) }
    }

    /// Calls so far, the first included.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    fn spend(&mut self, time: Duration) {
        self.calls += 1;
        self.time += time;
    }

    fn split(&mut self, rows: Range<u32>) {
        let middle = rows.start + (rows.end - rows.start) / 2;
        self.rest.push(Pending { rows: middle..rows.end, known: Known::Half { first: false } });
        self.rest.push(Pending { rows: rows.start..middle, known: Known::Half { first: true } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const DEFAULT: Budget = Budget { calls: 32, time: Duration::from_secs(2) };
    const ENDLESS: Budget = Budget { calls: u32::MAX, time: Duration::MAX };

    #[derive(Debug, Default, PartialEq)]
    struct Story {
        committed: Vec<u32>,
        poison: Vec<u32>,
        undecided: Range<u32>,
        calls: u32,
        order: Vec<u32>,
    }

    /// Runs a batch in which `bad` rows fail every call that holds one, each failure taking `time`.
    fn run(rows: u32, bad: &BTreeSet<u32>, time: Duration, budget: Budget) -> Story {
        let mut story = Story::default();
        let mut search = Bisection::after_failure(rows, time, budget);
        loop {
            match search.next_step() {
                Decision::Call { rows, .. } if bad.range(rows.clone()).next().is_some() => search.failed(time),
                Decision::Call { rows, .. } => {
                    story.committed.extend(rows.clone());
                    story.order.extend(rows);
                    search.succeeded(Duration::ZERO);
                }
                Decision::Poison { row } => {
                    story.poison.push(row);
                    story.order.push(row);
                }
                Decision::Spent { rows } => {
                    story.undecided = rows;
                    break;
                }
                Decision::Done => break,
            }
        }
        story.calls = search.calls();
        story
    }

    fn check(rows: u32, bad: &[u32], calls: u32) {
        let story = run(rows, &bad.iter().copied().collect(), Duration::ZERO, ENDLESS);
        assert_eq!((story.poison.as_slice(), story.calls), (bad, calls), "{bad:?} of {rows}");
    }

    #[test]
    fn poison_is_found() {
        check(1, &[0], 2);
        check(2, &[0], 4);
        // The first half commits, so the second is called alone, not together.
        check(2, &[1], 4);
        check(4, &[3], 5);
        check(4, &[0, 1, 2, 3], 8);
    }

    #[test]
    fn a_worn_instance_costs_one_more_call() {
        let mut search = Bisection::after_failure(100, Duration::ZERO, DEFAULT);
        assert_eq!(search.next_step(), Decision::Call { rows: 0..100, fresh: true });
        search.succeeded(Duration::ZERO);
        assert_eq!((search.next_step(), search.calls()), (Decision::Done, 2));
    }

    #[test]
    fn one_bad_row_of_a_full_batch_fits_the_default_budget_wherever_it_stands() {
        // A call that reaches its deadline of 100 ms, as the host's default is, may take a tick of 10 ms more.
        let deadline = Duration::from_millis(110);
        for bad in (0..8_192).step_by(61).chain([8_191]) {
            let story = run(8_192, &BTreeSet::from([bad]), deadline, DEFAULT);
            assert_eq!((story.poison, story.committed.len(), story.undecided), (vec![bad], 8_191, 0..0));
        }
    }

    #[test]
    fn a_thousand_bad_rows_spend_the_budget() {
        let story = run(8_192, &(0..8_192).step_by(8).take(1_000).collect(), Duration::ZERO, DEFAULT);
        assert_eq!(story.calls, 32);
        assert_eq!(story.undecided.end, 8_192);
        assert_eq!(story.undecided.start as usize, story.order.len());
    }

    #[test]
    fn time_is_a_budget_too() {
        let story = run(1_024, &BTreeSet::from([0]), Duration::from_secs(1), DEFAULT);
        assert_eq!((story.calls, story.undecided), (2, 0..1_024));
    }

    proptest! {
        #[test]
        fn every_row_is_decided_once_and_in_order(rows in 1u32..600, bad in prop::collection::btree_set(0u32..600, 0..40), calls in 1u32..80) {
            let bad: BTreeSet<u32> = bad.into_iter().filter(|row| *row < rows).collect();
            let story = run(rows, &bad, Duration::from_millis(1), Budget { calls, time: Duration::from_secs(9) });
            prop_assert!(story.calls <= calls.max(1));
            prop_assert!(story.order.iter().copied().chain(story.undecided.clone()).eq(0..rows), "{story:?}");
            prop_assert!(story.poison.iter().all(|row| bad.contains(row)));
            prop_assert!(story.committed.iter().all(|row| !bad.contains(row)));
            let all = run(rows, &bad, Duration::ZERO, ENDLESS);
            prop_assert!(all.poison.iter().eq(bad.iter()));
        }
    }
}
