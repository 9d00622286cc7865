//! Recordings: what comes to one transform of a running pipeline, when, and what it gives; to be run again elsewhere ([`crate::lab`]).
//!
//! In reading order:
//! - [`Recorder`]: beside the metrics of each node; tasks tell it what they do while somebody records.
//! - [`mod@file`]: a recording as a file. [`take`]: from a running pipeline to a recording; [`mod@replay`]: run again.
//!
//! A stateful transform is recorded from a barrier on: its state is that of the checkpoint of this barrier, the same for all its tasks.
//!
//! Invariant: while nobody records, a message costs one relaxed load; what is recorded is bounded in rows and bytes.

pub mod file;
pub mod replay;
pub mod take;

use crate::lab::Step;
use crate::operator::Port;
use crate::windows;
use pelton_core::{Batch, Epoch, Instant, WindowFn};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of input and output that one recording may have: it lies in memory until it is written.
pub const MAX_BYTES: usize = 128 << 20;

/// What somebody wants to be recorded.
#[derive(Clone, Debug)]
pub struct Want {
    /// So many rows of input.
    pub rows: usize,
    /// Windows that are to be made explicit, as the transform sees them.
    pub windows: Option<WindowFn>,
    /// Begin at a barrier.
    pub at_barrier: bool,
}

/// One thing that came to a task, and what it gave.
#[derive(Clone, Debug)]
pub struct Taped {
    /// Number of the task.
    pub task: usize,
    /// What came.
    pub step: Step,
    /// Processing time.
    pub now: Instant,
    /// What it gave, by port.
    pub given: Vec<(Port, Batch)>,
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Tape {
    /// In order within each task.
    pub steps: Vec<Taped>,
    /// Why it is of no use.
    pub spoilt: Option<&'static str>,
}

/// Records one transform, when somebody wants it.
#[derive(Debug, Default)]
pub struct Recorder {
    on: AtomicBool,
    recording: Mutex<Option<Recording>>,
}

#[derive(Debug)]
struct Recording {
    want: Want,
    rows: usize,
    bytes: usize,
    /// By task: where it began.
    begun: BTreeMap<usize, Epoch>,
    /// The barrier to begin at, once its epoch is known.
    from: Option<Epoch>,
    tape: Tape,
}

impl Recorder {
    /// Whether steps are wanted.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Begins; false: somebody records already.
    pub fn begin(&self, want: Want) -> bool {
        let mut recording = self.lock();
        if recording.is_some() {
            return false;
        }
        *recording = Some(Recording { want, rows: 0, bytes: 0, begun: BTreeMap::new(), from: None, tape: Tape::default() });
        self.on.store(true, Relaxed);
        true
    }

    /// A task has done something.
    pub fn tape(&self, task: usize, step: Step, now: Instant, given: Vec<(Port, Batch)>) {
        let mut locked = self.lock();
        let Some(recording) = locked.as_mut().filter(|_| self.is_on()) else { return };
        if recording.want.at_barrier && !recording.begun.contains_key(&task) {
            return;
        }
        let step = match (step, recording.want.windows) {
            (Step::Rows(batch), Some(window_fn)) => Step::Rows(windows::fixed(batch, window_fn, &mut Default::default())),
            (step, _) => step,
        };
        if let Step::Rows(batch) = &step {
            recording.rows += batch.num_rows();
            recording.bytes += batch.bytes();
        }
        recording.bytes += given.iter().map(|(_, batch)| batch.bytes()).sum::<usize>();
        recording.tape.steps.push(Taped { task, step, now, given });
        if recording.rows >= recording.want.rows || recording.bytes >= MAX_BYTES {
            self.on.store(false, Relaxed);
        }
    }

    /// A task has sealed its state: what was recorded before is of no use until it is known at which barrier to begin.
    pub fn barrier(&self, task: usize, epoch: Epoch) {
        let mut locked = self.lock();
        let Some(recording) = locked.as_mut().filter(|recording| recording.want.at_barrier && recording.from.is_none()) else { return };
        recording.begun.insert(task, epoch);
        recording.tape.steps.retain(|taped| taped.task != task);
        let rows = |taped: &Taped| match &taped.step {
            Step::Rows(batch) => batch.num_rows(),
            _ => 0,
        };
        recording.rows = recording.tape.steps.iter().map(rows).sum();
        self.on.store(recording.rows < recording.want.rows, Relaxed);
    }

    /// The state is that of this epoch.
    pub fn keep_from(&self, epoch: Epoch) {
        if let Some(recording) = self.lock().as_mut() {
            recording.from = Some(epoch);
        }
    }

    /// The transform changes: what comes is not what it was.
    pub fn spoil(&self, why: &'static str) {
        if let Some(recording) = self.lock().as_mut() {
            recording.tape.spoilt = Some(why);
            self.on.store(false, Relaxed);
        }
    }

    /// Ends; what was recorded.
    pub fn end(&self) -> Tape {
        self.on.store(false, Relaxed);
        let Some(recording) = self.lock().take() else { return Tape::default() };
        let other = recording.from.is_some_and(|from| recording.begun.values().any(|epoch| *epoch != from));
        match other {
            true => Tape { spoilt: Some("another checkpoint came in between"), ..Tape::default() },
            false => recording.tape,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Recording>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use pelton_core::batch::Positions;
    use std::sync::Arc;

    fn rows(count: usize) -> Step {
        let column = Arc::new(Int64Array::from_iter_values(0..count as i64));
        let rows = RecordBatch::try_from_iter([("n", column as arrow::array::ArrayRef)]).unwrap();
        Step::Rows(Batch::new(rows, vec![0; count].into(), Positions::None))
    }

    #[test]
    fn it_ends_by_itself_when_it_has_its_rows() {
        let recorder = Recorder::default();
        recorder.tape(0, rows(1), Instant::MIN, vec![]);
        assert!(recorder.begin(Want { rows: 5, windows: None, at_barrier: false }));
        assert!(!recorder.begin(Want { rows: 5, windows: None, at_barrier: false }), "one at a time");
        for task in [0, 1, 0] {
            recorder.tape(task, rows(2), Instant::MIN, vec![]);
        }
        assert!(!recorder.is_on());
        recorder.tape(0, rows(2), Instant::MIN, vec![]);
        assert_eq!(recorder.end().steps.iter().map(|taped| taped.task).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn with_state_it_begins_at_the_barrier_whose_state_is_kept() {
        let recorder = Recorder::default();
        recorder.begin(Want { rows: 100, windows: None, at_barrier: true });
        recorder.tape(0, rows(1), Instant::MIN, vec![]);
        // A barrier that was under way, then the one that was asked for.
        recorder.barrier(0, 7);
        recorder.tape(0, rows(2), Instant::MIN, vec![]);
        let _ = [0, 1].map(|task| recorder.barrier(task, 8));
        recorder.tape(0, rows(3), Instant::MIN, vec![]);
        recorder.keep_from(8);
        recorder.barrier(0, 9);
        recorder.tape(1, rows(4), Instant::MIN, vec![]);
        let counts: Vec<usize> = recorder
            .end()
            .steps
            .iter()
            .map(|taped| match &taped.step {
                Step::Rows(batch) => batch.num_rows(),
                _ => 0,
            })
            .collect();
        assert_eq!(counts, [3, 4]);
    }
}
