//! Alignment: splits that are far ahead of the slowest of their group in event time are not read until it has caught up.
//!
//! A split is a member from its first watermark on; one that is idle or has ended is no member, and so holds nobody back. A
//! reader that can pauses just the splits that are ahead; one that cannot waits once all of its splits are. A task that waits
//! still ticks, and splits that wait are not idle: their watermarks hold.
//!
//! Invariant: the slowest member never waits, so that somebody always moves.

use pelton_core::{Duration, Instant, Split};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The groups of a pipeline, by name.
#[derive(Debug, Default)]
pub struct Alignment {
    groups: Mutex<HashMap<String, Arc<Group>>>,
}

/// How far a split's event time has come.
pub type Come = (Arc<Split>, Instant);

#[derive(Debug, Default)]
struct Group {
    /// By task, its splits.
    tasks: Mutex<Vec<Vec<Come>>>,
}

/// A task's place in its group.
#[derive(Clone, Debug)]
pub struct Gate {
    group: Arc<Group>,
    task: usize,
    max_drift: Duration,
}

/// What a task is to hold back.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    /// Its splits that are ahead.
    pub splits: Vec<Arc<Split>>,
    /// Those are all that it has in the group.
    pub all: bool,
}

impl Alignment {
    /// A place in the group of that name.
    pub fn join(&self, group: &str, max_drift: Duration) -> Gate {
        let mut groups = self.groups.lock().expect("no holder of this lock panics");
        let group = groups.entry(group.to_string()).or_default().clone();
        drop(groups);
        let mut tasks = group.tasks.lock().expect("no holder of this lock panics");
        tasks.push(Vec::new());
        let task = tasks.len() - 1;
        drop(tasks);
        Gate { group, task, max_drift }
    }
}

impl Gate {
    /// Says how far this task's splits have come, but for those that are idle or have ended.
    pub fn publish(&self, splits: Vec<Come>) {
        self.group.tasks.lock().expect("no holder of this lock panics")[self.task] = splits;
    }

    /// The splits of this task that must wait for a slower one.
    pub fn ahead(&self) -> Ahead {
        let tasks = self.group.tasks.lock().expect("no holder of this lock panics");
        let Some(slowest) = tasks.iter().flatten().map(|(_, at)| *at).min() else { return Ahead::default() };
        let bound = slowest.saturating_add(self.max_drift);
        let own = &tasks[self.task];
        let splits: Vec<Arc<Split>> = own.iter().filter(|(_, at)| *at > bound).map(|(split, _)| split.clone()).collect();
        Ahead { all: !own.is_empty() && splits.len() == own.len(), splits }
    }
}

/// Whether both name the same splits, in the same order.
pub fn same(a: &[Arc<Split>], b: &[Arc<Split>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_active_splits_only() {
        let alignment = Alignment::default();
        let drift = Duration::from_micros(10);
        let (one, two, other) = (alignment.join("a", drift), alignment.join("a", drift), alignment.join("b", drift));
        let split = |part| Arc::new(Split::Generated { name: "s".into(), part });
        let (fast, slow, far) = (split(0), split(1), split(2));
        let at = Instant::from_micros_saturating;
        let check = |gate: &Gate, want: &[&Arc<Split>], all: bool, why: &str| {
            let ahead = gate.ahead();
            let same = ahead.splits.len() == want.len() && ahead.splits.iter().zip(want).all(|(got, want)| Arc::ptr_eq(got, want));
            assert!(same && ahead.all == all, "{why}: {ahead:?}");
        };
        one.publish(vec![(fast.clone(), at(100))]);
        check(&one, &[], false, "alone");
        other.publish(vec![(slow.clone(), at(0))]);
        check(&one, &[], false, "another group");
        two.publish(vec![(slow.clone(), at(89)), (far.clone(), at(200))]);
        check(&one, &[&fast], true, "all of a task");
        check(&two, &[&far], false, "one of two splits of a task");
        two.publish(vec![(slow.clone(), at(90)), (far.clone(), at(101))]);
        check(&one, &[], false, "within the drift");
        check(&two, &[&far], false, "just beyond it");
        two.publish(vec![(far.clone(), at(101))]);
        check(&one, &[], false, "the slow one is idle");
        check(&two, &[], false, "the slow one is idle");
    }
}
