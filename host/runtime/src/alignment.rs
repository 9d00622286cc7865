//! Alignment: source tasks that are far ahead of the slowest of their group in event time do not read until it has caught up.
//!
//! A source task is a member from its first watermark on; one that is idle or has ended is no member, and so holds nobody
//! back. A task that waits still ticks, and is not idle: its watermark holds.
//!
//! Invariant: the slowest member never waits, so that somebody always moves.

use pelton_core::{Duration, Instant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The groups of a pipeline, by name.
#[derive(Debug, Default)]
pub struct Alignment {
    groups: Mutex<HashMap<String, Arc<Group>>>,
}

#[derive(Debug, Default)]
struct Group {
    members: Mutex<Vec<Option<Instant>>>,
}

/// A task's place in its group.
#[derive(Clone, Debug)]
pub struct Gate {
    group: Arc<Group>,
    member: usize,
    max_drift: Duration,
}

impl Alignment {
    /// A place in the group of that name.
    pub fn join(&self, group: &str, max_drift: Duration) -> Gate {
        let mut groups = self.groups.lock().expect("no holder of this lock panics");
        let group = groups.entry(group.to_string()).or_default().clone();
        drop(groups);
        let mut members = group.members.lock().expect("no holder of this lock panics");
        members.push(None);
        let member = members.len() - 1;
        drop(members);
        Gate { group, member, max_drift }
    }
}

impl Gate {
    /// Says how far this task's event time has come; `None`: it is idle or has ended.
    pub fn publish(&self, at: Option<Instant>) {
        self.group.members.lock().expect("no holder of this lock panics")[self.member] = at;
    }

    /// Whether this task must wait for a slower one.
    pub fn is_ahead(&self) -> bool {
        let members = self.group.members.lock().expect("no holder of this lock panics");
        match (members[self.member], members.iter().flatten().min()) {
            (Some(own), Some(slowest)) => own > slowest.saturating_add(self.max_drift),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_active_members_only() {
        let alignment = Alignment::default();
        let drift = Duration::from_micros(10);
        let (fast, slow, other) = (alignment.join("a", drift), alignment.join("a", drift), alignment.join("b", drift));
        let at = Instant::from_micros_saturating;
        fast.publish(Some(at(100)));
        assert!(!fast.is_ahead(), "alone");
        other.publish(Some(at(0)));
        assert!(!fast.is_ahead(), "another group");
        slow.publish(Some(at(89)));
        assert!(fast.is_ahead() && !slow.is_ahead());
        slow.publish(Some(at(90)));
        assert!(!fast.is_ahead(), "within the drift");
        slow.publish(Some(at(0)));
        slow.publish(None);
        assert!(!fast.is_ahead(), "idle");
    }
}
