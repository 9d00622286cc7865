//! `error_handling.threshold`: the share of its rows that a transform may refuse before the pipeline fails.
//!
//! As in Beam the share is taken per window, when the window is complete: a bad row at the very beginning is not yet "all rows".
//! A transform runs in several tasks, so its counts are shared, and a window is complete when the watermarks of all its tasks
//! have passed its end. An unbounded pipeline without windows therefore never comes to the end of its one window.
//!
//! Invariant: a window is judged once; rows that come after that are not counted, so that counts are kept for open windows only.

use crate::failure::Failure;
use crate::message::Message;
use crate::operator::{MAIN, Out, Port};
use crate::windows;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant, Window, WindowFn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The counts of one transform over all its tasks.
pub struct ErrorBudget {
    transform: String,
    threshold: f64,
    window_fn: WindowFn,
    counts: Mutex<Counts>,
}

struct Counts {
    /// By the end of the window, so that those that are complete come first: rows, and refused ones among them.
    windows: BTreeMap<(Instant, Instant), (u64, u64)>,
    /// The watermark of each task.
    watermarks: Vec<Instant>,
}

/// What one task has of it.
pub struct TaskBudget {
    /// Shared with the other tasks.
    pub budget: Arc<ErrorBudget>,
    /// Number of the task.
    pub task: usize,
    /// The error output.
    pub port: Port,
    /// A source: its rows are those that it gives out, all in the global window.
    pub source: bool,
}

impl ErrorBudget {
    /// For a transform that runs in so many tasks.
    pub fn new(transform: String, threshold: f64, window_fn: WindowFn, tasks: usize) -> ErrorBudget {
        let counts = Counts { windows: BTreeMap::new(), watermarks: vec![Instant::MIN; tasks] };
        ErrorBudget { transform, threshold, window_fn, counts: Mutex::new(counts) }
    }

    fn add(&self, batch: &Batch, window_fn: WindowFn, count: impl Fn(&mut (u64, u64))) {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        let complete = counts.complete();
        windows::for_each(batch, window_fn, |_, window| {
            if window.end > complete {
                count(counts.windows.entry((window.end, window.start)).or_default());
            }
        });
    }

    fn closed(&self, task: usize, watermark: Instant) -> Result<(), Failure> {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        counts.watermarks[task] = watermark.max(counts.watermarks[task]);
        let complete = counts.complete();
        while let Some(((end, start), (total, bad))) = counts.windows.first_key_value().map(|(window, counts)| (*window, *counts)) {
            if end > complete {
                break;
            }
            counts.windows.pop_first();
            if bad as f64 > total as f64 * self.threshold {
                let whole = (Window { start, end }) == Window::GLOBAL;
                let window = if whole { String::new() } else { format!(" of the window {start} to {end}") };
                return Err(Failure::Threshold { transform: self.transform.clone(), bad, total, window, threshold: self.threshold });
            }
        }
        Ok(())
    }
}

impl Counts {
    /// Windows that end here or before are complete.
    fn complete(&self) -> Instant {
        self.watermarks.iter().copied().min().unwrap_or(Instant::MAX)
    }
}

impl TaskBudget {
    /// Rows that come in.
    pub fn rows(&self, batch: &Batch) {
        self.budget.add(batch, self.budget.window_fn, |counts| counts.0 += 1);
    }

    /// Rows among what an operator gives out that it has refused.
    pub fn refused(&self, out: &Out) {
        for (port, message) in &out.messages {
            if let (Some(port), Message::Data(batch)) = (port, message)
                && *port == self.port
            {
                self.budget.add(batch, self.budget.window_fn, |counts| counts.1 += 1);
            }
        }
    }

    /// The watermark has come to here in this task.
    pub fn closed(&self, watermark: Instant) -> Result<(), Failure> {
        self.budget.closed(self.task, watermark)
    }

    /// What an operator gives out by itself: all of it, if it is a source, or what it found wrong when time passed.
    pub fn emitted(&self, out: &Out) -> Result<(), Failure> {
        if !self.source {
            self.refused(out);
            return Ok(());
        }
        for (port, message) in &out.messages {
            match (port, message) {
                (Some(port), Message::Data(batch)) if *port == self.port => {
                    self.budget.add(batch, WindowFn::Global, |counts| *counts = (counts.0 + 1, counts.1 + 1));
                }
                (Some(MAIN), Message::Data(batch)) => self.budget.add(batch, WindowFn::Global, |counts| counts.0 += 1),
                (_, Message::Watermark(Watermark::Active(at))) => self.closed(*at)?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{RecordBatch, RecordBatchOptions};
    use arrow::datatypes::Schema;
    use pelton_core::{Duration, Positions};

    fn rows(times: &[i64]) -> Batch {
        let options = RecordBatchOptions::new().with_row_count(Some(times.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
        Batch::new(rows, times.to_vec().into(), Positions::None)
    }

    fn refuse(task: &TaskBudget, times: &[i64]) {
        let mut out = Out::new(Instant::MIN);
        out.rows(task.port, rows(times));
        task.refused(&out);
    }

    fn at(micros: i64) -> Instant {
        Instant::from_micros_saturating(micros)
    }

    #[test]
    fn a_window_is_judged_when_all_tasks_have_passed_it() {
        let window_fn = WindowFn::Fixed { size: Duration::from_micros(10), offset: Duration::ZERO };
        let budget = Arc::new(ErrorBudget::new("T".into(), 0.5, window_fn, 2));
        let tasks: Vec<TaskBudget> = (0..2).map(|task| TaskBudget { budget: budget.clone(), task, port: 1, source: false }).collect();
        tasks[0].rows(&rows(&[1, 2, 11, 12]));
        refuse(&tasks[0], &[1, 2, 11, 12]);
        tasks[0].closed(at(15)).unwrap();
        // Half of the first window is good, which is as much as must be; of the second a third is not enough.
        tasks[1].rows(&rows(&[3, 4, 13]));
        tasks[1].closed(at(10)).unwrap();
        refuse(&tasks[1], &[5, 6, 7]);
        tasks[0].closed(at(100)).unwrap();
        let failure = tasks[1].closed(at(20)).unwrap_err().to_string();
        assert!(failure.contains("refused 2 of 3 rows"), "{failure}");
    }

    #[test]
    fn a_share_of_zero_allows_nothing() {
        let budget = Arc::new(ErrorBudget::new("T".into(), 0.0, WindowFn::Global, 1));
        let task = TaskBudget { budget, task: 0, port: 1, source: true };
        let mut out = Out::new(Instant::MIN);
        out.rows(MAIN, rows(&[1; 99]));
        task.emitted(&out).unwrap();
        let mut out = Out::new(Instant::MIN);
        out.rows(1, rows(&[1]));
        out.control(Message::Watermark(Watermark::Active(Instant::MAX)));
        assert!(task.emitted(&out).unwrap_err().to_string().contains("1 of 100 rows, more"));
    }
}
