//! What all tasks have sealed becomes the contents of an epoch.
//!
//! A task that has ended says nothing more; what it said last of its unkeyed state, its positions and its output is carried into every later
//! epoch. Its keyed state needs no carrying: rows stay until others replace them.
//!
//! Invariant: every task is in every epoch, with what it sealed there or with what it sealed last.

use super::overlay::Held;
use super::seals::{OperatorReport, TaskReport};
use pelton_connect::Staged;
use pelton_core::evolution::Book;
use pelton_core::{Epoch, SplitPosition};
use pelton_state::{Layout, Rows};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an epoch holds of one operator.
#[derive(Debug, Default)]
pub struct OperatorContents {
    /// Its node in the graph.
    pub node: usize,
    /// By name: what it looks like, and the rows that changed, of all its tasks.
    pub cells: BTreeMap<&'static str, (Option<Layout>, Rows)>,
    /// What a plugin's state is made of: with each era of which a task has cells.
    pub book: Option<Arc<Book>>,
    /// Of all its tasks, by task and partition.
    pub unkeyed: Vec<(String, Vec<u8>)>,
    /// Of all its readers.
    pub positions: Vec<SplitPosition>,
    /// By shard.
    pub staged: Vec<Staged>,
}

/// Collects what tasks report.
#[derive(Debug)]
pub struct Collector {
    /// By task: its number among the tasks of its stage.
    indexes: Vec<usize>,
    reports: BTreeMap<Epoch, BTreeMap<usize, TaskReport>>,
    /// By node: what was counted before this start.
    before: BTreeMap<usize, Vec<(String, Vec<u8>)>>,
    /// By task that has ended: what holds from its last epoch on.
    ended: BTreeMap<usize, Vec<OperatorReport>>,
    /// Counts the rows of the epoch that is being made durable.
    held: Vec<Held>,
}

impl Collector {
    /// For tasks, each with its number among those of its stage; and what nodes had counted before.
    pub fn new(indexes: Vec<usize>, before: BTreeMap<usize, Vec<(String, Vec<u8>)>>) -> Collector {
        Collector { indexes, before, reports: BTreeMap::new(), ended: BTreeMap::new(), held: Vec::new() }
    }

    /// Takes a report.
    pub fn take(&mut self, report: TaskReport) {
        self.reports.entry(report.epoch).or_default().insert(report.task, report);
    }

    /// The contents of an epoch that all tasks have sealed or have ended before, by node. Epochs are taken in order.
    pub fn epoch(&mut self, epoch: Epoch) -> Vec<OperatorContents> {
        let mut nodes: BTreeMap<usize, OperatorContents> = BTreeMap::new();
        let reports = self.reports.remove(&epoch).unwrap_or_default();
        let mut said: BTreeMap<usize, Vec<OperatorReport>> = self.ended.iter().map(|(task, ended)| (*task, carried(ended))).collect();
        for (task, report) in reports {
            if report.last {
                self.ended.insert(task, carried(&report.operators));
            }
            self.held.push(report.held);
            said.insert(task, report.operators);
        }
        for (task, operators) in said {
            for operator in operators {
                let into = nodes.entry(operator.node).or_insert_with(|| OperatorContents { node: operator.node, ..Default::default() });
                into.add(task, self.indexes[task], operator);
            }
        }
        for (node, counts) in &self.before {
            if let Some(contents) = nodes.get_mut(node) {
                contents.unkeyed.extend(counts.iter().map(|(partition, counts)| (format!("before/{partition}"), counts.clone())));
            }
        }
        nodes.into_values().collect()
    }

    /// The epoch that was taken last is durable.
    pub fn persisted(&mut self) {
        self.held.clear();
    }
}

impl OperatorContents {
    fn add(&mut self, task: usize, index: usize, report: OperatorReport) {
        for (name, layout, mut rows) in report.cells {
            let (known, all) = self.cells.entry(name).or_default();
            known.get_or_insert(layout);
            all.append(&mut rows);
        }
        self.book = match (self.book.take(), report.book) {
            (Some(ours), Some(theirs)) if ours != theirs => Some(Arc::new(ours.join(&theirs))),
            (ours, theirs) => ours.or(theirs),
        };
        self.unkeyed.extend(report.unkeyed.into_iter().map(|(partition, bytes)| (partition_of_task(task, &partition), bytes)));
        self.positions.extend(report.positions);
        if let Some(staged) = report.staged {
            self.staged.resize(self.staged.len().max(index + 1), Staged::default());
            self.staged[index] = staged;
        }
    }
}

/// What an ended task still says. Its rows are in an epoch already, but a state that no task names any more would be dropped.
fn carried(operators: &[OperatorReport]) -> Vec<OperatorReport> {
    let operators = operators.iter().map(|operator| OperatorReport {
        node: operator.node,
        cells: operator.cells.iter().map(|(name, layout, _)| (*name, layout.clone(), Rows::default())).collect(),
        book: operator.book.clone(),
        unkeyed: operator.unkeyed.clone(),
        positions: operator.positions.clone(),
        staged: operator.staged.clone(),
    });
    operators.collect()
}

/// Tasks of an operator use the same names for their partitions.
fn partition_of_task(task: usize, partition: &str) -> String {
    format!("{task}/{partition}")
}

/// The partition as the task called it.
pub fn partition_in_task(partition: &str) -> &str {
    partition.split_once('/').map_or(partition, |(_, own)| own)
}

#[cfg(test)]
mod tests {
    use super::super::driver::CheckpointProgress;
    use super::super::overlay::Overlay;
    use super::*;
    use pelton_state::Change;
    use std::sync::Arc;

    fn report(task: usize, epoch: Epoch, last: bool, unkeyed: &str) -> TaskReport {
        let mut rows = Rows::default();
        rows.push(pelton_state::Row { address: &[task as u8, epoch as u8], key_len: 0, change: Change::Put(b"v") });
        let cells = vec![("cells", Layout::default(), rows)];
        let unkeyed = vec![(String::new(), unkeyed.as_bytes().to_vec())];
        let operator = OperatorReport {
            node: 7,
            cells,
            book: None,
            unkeyed,
            positions: Vec::new(),
            staged: Some(Staged(vec![task as u8, epoch as u8])),
        };
        let overlay = Overlay::new(0, Arc::new(CheckpointProgress::new().0));
        TaskReport { task, epoch, last, operators: vec![operator], held: Arc::new(overlay).hold(0) }
    }

    #[test]
    fn what_an_ended_task_said_last_is_in_every_later_epoch() {
        let mut collector = Collector::new(vec![0, 1], BTreeMap::new());
        collector.take(report(0, 1, false, "a1"));
        collector.take(report(1, 1, true, "b1"));
        // A task may be an epoch ahead.
        collector.take(report(0, 2, false, "a2"));
        for epoch in 1..=2u8 {
            let contents = collector.epoch(u64::from(epoch));
            let [operator] = &contents[..] else { panic!("one operator") };
            assert_eq!(operator.unkeyed, [("0/".to_string(), format!("a{epoch}").into_bytes()), ("1/".to_string(), b"b1".to_vec())]);
            assert_eq!(operator.staged, [Staged(vec![0, epoch]), Staged(vec![1, 1])]);
            let rows = &operator.cells["cells"].1;
            assert_eq!(rows.len(), if epoch == 1 { 2 } else { 1 }, "its rows are there already");
        }
        assert_eq!(partition_in_task("12/orders/3"), "orders/3");
    }

    #[test]
    fn the_state_of_an_operator_whose_tasks_have_all_ended_is_not_dropped() {
        let mut collector = Collector::new(vec![0], BTreeMap::new());
        collector.take(report(0, 1, true, "a1"));
        let rows = |contents: Vec<OperatorContents>| contents.iter().map(|operator| operator.cells["cells"].1.len()).collect::<Vec<_>>();
        assert_eq!(rows(collector.epoch(1)), [1]);
        // Other tasks go on.
        assert_eq!(rows(collector.epoch(2)), [0], "named, without rows that are there already");
    }
}
