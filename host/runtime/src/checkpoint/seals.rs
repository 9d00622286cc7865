//! A task's part of a checkpoint.
//!
//! A barrier goes through the operators of a task as any message does; each is sealed when it passes, which takes no time. What was sealed is then
//! encoded in small steps between the messages that follow ([`Seals::step`]), and told to the driver when all of it is there.
//!
//! Invariant: an epoch is told whole before the next is sealed.

use super::Links;
use super::overlay::{Held, Overlay};
use crate::clock;
use crate::counts::{COUNTS, Counts};
use crate::error_budget::TaskBudget;
use crate::failure::Failure;
use crate::metrics::UserMetrics;
use crate::task::Slot;
use pelton_connect::Staged;
use pelton_core::evolution::Book;
use pelton_core::{Epoch, SplitPosition, failpoint};
use pelton_state::{Layout, Rows};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Cells that are encoded between two messages: a fraction of a millisecond.
const STEP: usize = 2_048;

/// What a task has to say of an epoch.
#[derive(Debug)]
pub struct TaskReport {
    /// Number of the task.
    pub task: usize,
    /// The epoch.
    pub epoch: Epoch,
    /// The task has ended: what it says here holds for all later epochs.
    pub last: bool,
    /// By operator.
    pub operators: Vec<OperatorReport>,
    /// Counts its rows as long as they are not durable.
    pub held: Held,
}

impl TaskReport {
    /// Of its rows.
    fn bytes(&self) -> u64 {
        self.operators.iter().flat_map(|operator| &operator.cells).map(|(_, _, rows)| rows.used() as u64).sum()
    }
}

/// What one operator of a task has sealed.
#[derive(Debug)]
pub struct OperatorReport {
    /// Its node in the graph.
    pub node: usize,
    /// Rows of keyed state that changed, by name.
    pub cells: Vec<(&'static str, Layout, Rows)>,
    /// What that state is made of, if it is a plugin's.
    pub book: Option<Arc<Book>>,
    /// Unkeyed state, all of it, by partition.
    pub unkeyed: Vec<(String, Vec<u8>)>,
    /// Of a source: where each split goes on.
    pub positions: Vec<SplitPosition>,
    /// Of a sink: what has to be made visible.
    pub staged: Option<Staged>,
}

/// What the loop of a source task knows that its head does not.
#[derive(Debug, Default)]
pub struct Read {
    /// Where each split goes on.
    pub positions: Vec<SplitPosition>,
    /// The watermarks of the splits, as unkeyed state.
    pub watermarks: Vec<(String, Vec<u8>)>,
}

/// The checkpoints of one task.
pub struct Seals {
    task: usize,
    /// The last epoch that was sealed.
    epoch: Epoch,
    reports: mpsc::UnboundedSender<TaskReport>,
    overlay: Arc<Overlay>,
    /// Rows of the epoch that is going on.
    captured: Held,
    /// In tests: from each barrier on, plugins are other instances.
    renews: bool,
    open: Option<TaskReport>,
    /// The first operator of the open report whose cells are not all encoded.
    at: usize,
}

impl Seals {
    /// For a task that begins with the epoch of its links.
    pub fn new(task: usize, links: &Links) -> Seals {
        let Links { epoch, reports, overlay, counter, .. } = links;
        let (captured, renews) = (overlay.hold(0), counter.is_some());
        Seals { task, epoch: epoch - 1, reports: reports.clone(), open: None, at: 0, overlay: overlay.clone(), captured, renews }
    }

    /// The epoch of what comes now.
    pub fn current(&self) -> Epoch {
        self.epoch + 1
    }

    /// Begins to seal the current epoch.
    pub fn begin(&mut self, last: bool) {
        debug_assert!(self.open.is_none(), "an epoch is told before the next is sealed");
        failpoint::hit("run.seal");
        self.epoch += 1;
        self.at = 0;
        if self.renews {
            pelton_plugin::renew_all();
        }
        self.open = Some(TaskReport { task: self.task, epoch: self.epoch, last, operators: Vec::new(), held: self.overlay.hold(0) });
    }

    /// Seals an operator as it is now.
    pub async fn seal(&mut self, slot: &mut Slot, read: Option<Read>) -> Result<(), Failure> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let watch = clock::Stopwatch::start();
        let staged = slot.operator.barrier(open.epoch, open.last).await?;
        let mut cells = Vec::new();
        slot.operator.visit_cells(&mut |name, of| {
            of.seal();
            cells.push((name, of.layout(), Rows::default()));
        });
        let mut unkeyed = slot.operator.unkeyed();
        unkeyed.push((COUNTS.into(), slot.counts.encode()));
        unkeyed.extend(slot.operator.counted().and_then(Counts::encode_user));
        unkeyed.extend(slot.budget.as_ref().map(TaskBudget::unkeyed));
        let Read { positions, watermarks } = read.unwrap_or_default();
        unkeyed.extend(watermarks);
        open.operators.push(OperatorReport { node: slot.node, cells, book: slot.operator.book(), unkeyed, positions, staged });
        slot.metrics.pauses.record(watch.elapsed());
        Ok(())
    }

    /// Counts what the operators have captured.
    pub fn measure(&mut self, slots: &mut [Slot]) {
        let mut bytes = self.open.as_ref().map_or(0, TaskReport::bytes);
        slots.iter_mut().for_each(|slot| slot.operator.visit_cells(&mut |_, cells| bytes += cells.captured() as u64));
        self.captured.set(bytes);
    }

    /// What plugins have counted in this task for an operator of another one.
    pub fn lifted(&mut self, node: usize, counted: &UserMetrics) {
        let unkeyed: Vec<_> = Counts::encode_user(counted).into_iter().collect();
        if let Some(open) = self.open.as_mut().filter(|_| !unkeyed.is_empty()) {
            open.operators.push(OperatorReport { node, cells: Vec::new(), book: None, unkeyed, positions: Vec::new(), staged: None });
        }
    }

    /// Whether anything sealed is still to be encoded.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Encodes some of what was sealed, and tells the driver when that was the rest.
    pub fn step(&mut self, slots: &mut [Slot]) {
        self.encode(slots, STEP);
    }

    /// Encodes the rest.
    pub fn finish(&mut self, slots: &mut [Slot]) {
        while self.open.is_some() {
            self.encode(slots, usize::MAX);
        }
    }

    /// Encodes all that was sealed of one operator.
    pub fn encode_all_of(&mut self, slot: &mut Slot) {
        let reports = self.open.iter_mut().flat_map(|open| &mut open.operators);
        for report in reports.filter(|report| report.node == slot.node) {
            let mut number = 0;
            slot.operator.visit_cells(&mut |_, cells| {
                cells.persist(usize::MAX, &mut report.cells[number].2);
                number += 1;
            });
        }
    }

    fn encode(&mut self, slots: &mut [Slot], budget: usize) {
        let Some(open) = &mut self.open else { return };
        while let Some(report) = open.operators.get_mut(self.at) {
            if !report.cells.is_empty() {
                let slot = slots.iter_mut().find(|slot| slot.node == report.node).expect("the report is of an operator of this task");
                let (mut done, mut number) = (true, 0);
                slot.operator.visit_cells(&mut |_, cells| {
                    done &= cells.persist(budget, &mut report.cells[number].2);
                    number += 1;
                });
                if !done {
                    return;
                }
            }
            self.at += 1;
        }
        let mut report = self.open.take().expect("it was open above");
        report.held.set(report.bytes());
        // A driver that is gone has told why already.
        let _ = self.reports.send(report);
    }
}
