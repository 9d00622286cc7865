//! What a start goes on from, as tasks are given it.

use super::contents::partition_in_task;
use crate::counts::Counts;
use pelton_connect::Staged;
use pelton_core::SplitPosition;
use pelton_core::evolution::Evolved;
use pelton_core::key::{KEY_GROUPS, group_owner};
use pelton_state::Rows;
use std::collections::HashMap;
use std::sync::Arc;

/// What is restored of one operator.
#[derive(Debug, Default)]
pub struct RestoredOperator {
    /// By task of the operator as it is now, and by name: rows in order of address.
    pub cells: Vec<HashMap<String, Vec<Rows>>>,
    /// Where rows are read by the tasks themselves, as they need them: its uid, and the tasks that its key groups are divided among.
    pub later: Option<(String, usize)>,
    /// By name: what its cells looked like, in the words of the manifest.
    pub layouts: HashMap<String, String>,
    /// Of a plugin: how its state goes on.
    pub evolved: Option<Arc<Evolved>>,
    /// Of all its former tasks.
    pub unkeyed: Vec<(String, Vec<u8>)>,
    /// What was counted.
    pub counts: Counts,
    /// Of a source: its plan and where it goes on.
    pub read: Option<(Vec<u8>, Vec<SplitPosition>)>,
    /// Of a sink, by shard.
    pub staged: Vec<Staged>,
}

impl RestoredOperator {
    /// Unkeyed state as tasks called it.
    pub fn unkeyed_from(stored: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        stored.into_iter().map(|(partition, bytes)| (partition_in_task(&partition).to_string(), bytes)).collect()
    }
}

/// The key groups of a task: a range, since owners ascend with groups.
pub fn groups_of(task: usize, tasks: usize) -> std::ops::Range<u16> {
    let owned = |group: &u16| group_owner(*group, tasks) == task;
    let first = (0..KEY_GROUPS).find(owned).unwrap_or(KEY_GROUPS);
    let after = (first..KEY_GROUPS).find(|group| !owned(group)).unwrap_or(KEY_GROUPS);
    first..after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_an_operator_share_all_groups() {
        for tasks in 1..=256 {
            let mut next = 0;
            for task in 0..tasks {
                let range = groups_of(task, tasks);
                assert_eq!(range.start, next, "{task} of {tasks}");
                next = range.end;
            }
            assert_eq!(next, KEY_GROUPS);
        }
    }
}
