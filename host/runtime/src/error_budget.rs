//! `error_handling.threshold`: the share of its rows that a transform may refuse before the pipeline fails.
//!
//! As in Beam the share is taken per window, when the window is complete: a bad row at the very beginning is not yet "all rows".
//! A transform runs in several tasks, so its counts are shared, and a window is complete when the watermarks of all its tasks
//! have passed its end. An unbounded pipeline without windows therefore never comes to the end of its one window.
//!
//! A restart goes on with what each task had counted at its barrier. Which windows had been judged then is the furthest that any task knew:
//! one that came to the barrier late may have seen a verdict on rows that others are about to read again.
//!
//! Invariant: a window is judged once; rows that come after that are not counted, so that counts are kept for open windows only.

use crate::failure::Failure;
use crate::message::Message;
use crate::operator::{MAIN, Out, Port};
use crate::unkeyed;
use crate::windows;
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Instant, Window, WindowFn, varint};
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
    /// By the end of the window, so that those that are complete come first, and then by task: rows, and refused ones among them.
    windows: BTreeMap<(Instant, Instant), Vec<(u64, u64)>>,
    /// Windows that end here or before were judged before a restart.
    judged: Instant,
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
        let counts = Counts { windows: BTreeMap::new(), judged: Instant::MIN, watermarks: vec![Instant::MIN; tasks] };
        ErrorBudget { transform, threshold, window_fn, counts: Mutex::new(counts) }
    }

    /// After a restart, before any row: goes on with what all former tasks gave ([`TaskBudget::unkeyed`]), besides what else there is.
    pub fn restore(&self, unkeyed: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        let tasks = counts.watermarks.len();
        let (mut judged, mut earliest, mut windows) = (Instant::MIN, None::<Instant>, BTreeMap::new());
        for (_, bytes) in unkeyed.iter().filter(|(partition, _)| partition == PARTITION) {
            let of = decode(bytes).ok_or_else(|| unkeyed::damaged("the count of refused rows"))?;
            judged = judged.max(of.judged);
            earliest = Some(earliest.map_or(of.watermark, |earliest| earliest.min(of.watermark)));
            for (window, (rows, refused)) in of.windows {
                let count: &mut (u64, u64) = windows.entry(window).or_default();
                *count = (count.0 + rows, count.1 + refused);
            }
        }
        windows.retain(|(end, _), _| *end > judged);
        // Whose rows they were no longer matters.
        let as_first = |count: (u64, u64)| std::iter::once(count).chain(std::iter::repeat_n((0, 0), tasks - 1)).collect();
        *counts = Counts {
            windows: windows.into_iter().map(|(window, count)| (window, as_first(count))).collect(),
            judged,
            watermarks: vec![earliest.unwrap_or(Instant::MIN); tasks],
        };
        Ok(())
    }

    fn add(&self, task: usize, batch: &Batch, window_fn: WindowFn, count: impl Fn(&mut (u64, u64))) {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        let complete = counts.complete();
        windows::for_each(batch, window_fn, |_, window| {
            if window.end > complete {
                let tasks = counts.watermarks.len();
                count(&mut counts.windows.entry((window.end, window.start)).or_insert_with(|| vec![(0, 0); tasks])[task]);
            }
        });
    }

    fn closed(&self, task: usize, watermark: Instant) -> Result<(), Failure> {
        let mut counts = self.counts.lock().expect("no holder of this lock panics");
        counts.watermarks[task] = watermark.max(counts.watermarks[task]);
        let complete = counts.complete();
        while let Some(entry) = counts.windows.first_entry().filter(|entry| entry.key().0 <= complete) {
            let ((end, start), counts) = entry.remove_entry();
            let (total, bad) = counts.into_iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
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
        self.watermarks.iter().copied().min().unwrap_or(Instant::MAX).max(self.judged)
    }
}

/// The partition of counts.
const PARTITION: &str = "refused";

/// What one task had at its barrier.
struct OfTask {
    judged: Instant,
    watermark: Instant,
    windows: Vec<((Instant, Instant), (u64, u64))>,
}

/// Four signed varints a window: end, start, rows, refused ones; before them up to where windows were judged, and the watermark.
fn decode(bytes: &[u8]) -> Option<OfTask> {
    let rest = &mut &*bytes;
    let time = |rest: &mut &[u8]| Instant::from_micros(varint::read_signed(rest)?).ok();
    let mut of = OfTask { judged: time(rest)?, watermark: time(rest)?, windows: Vec::new() };
    while !rest.is_empty() {
        of.windows.push(((time(rest)?, time(rest)?), (varint::read(rest)?, varint::read(rest)?)));
    }
    Some(of)
}

impl TaskBudget {
    /// What a restart needs of this task, to be taken at its barrier with what its operator gives.
    pub fn unkeyed(&self) -> (String, Vec<u8>) {
        let counts = self.budget.counts.lock().expect("no holder of this lock panics");
        let mut bytes = Vec::new();
        [counts.complete(), counts.watermarks[self.task]].iter().for_each(|time| varint::write_signed(&mut bytes, time.micros()));
        for ((end, start), counts) in &counts.windows {
            let (rows, refused) = counts[self.task];
            if rows + refused > 0 {
                [end, start].iter().for_each(|time| varint::write_signed(&mut bytes, time.micros()));
                [rows, refused].iter().for_each(|count| varint::write(&mut bytes, *count));
            }
        }
        (PARTITION.into(), bytes)
    }

    /// Rows that come in.
    pub fn rows(&self, batch: &Batch) {
        self.budget.add(self.task, batch, self.budget.window_fn, |counts| counts.0 += 1);
    }

    /// Rows among what an operator gives out that it has refused.
    pub fn refused(&self, out: &Out) {
        for (port, message) in &out.messages {
            if let (Some(port), Message::Data(batch)) = (port, message)
                && *port == self.port
            {
                self.budget.add(self.task, batch, self.budget.window_fn, |counts| counts.1 += 1);
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
                    self.budget.add(self.task, batch, WindowFn::Global, |counts| *counts = (counts.0 + 1, counts.1 + 1));
                }
                (Some(MAIN), Message::Data(batch)) => self.budget.add(self.task, batch, WindowFn::Global, |counts| counts.0 += 1),
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

    /// One task comes to the barrier before the verdict on the first window, the other after it.
    #[test]
    fn a_restart_goes_on_with_what_was_counted() {
        let window_fn = WindowFn::Fixed { size: Duration::from_micros(10), offset: Duration::ZERO };
        let tasks = |tasks: usize| -> Vec<TaskBudget> {
            let budget = Arc::new(ErrorBudget::new("T".into(), 0.5, window_fn, tasks));
            (0..tasks).map(|task| TaskBudget { budget: budget.clone(), task, port: 1, source: false }).collect()
        };
        let before = tasks(2);
        before[0].rows(&rows(&[1, 2, 11, 12, 21]));
        refuse(&before[0], &[2, 11, 12]);
        before[1].rows(&rows(&[3, 22]));
        before[1].closed(at(10)).unwrap();
        let first = before[0].unkeyed();
        before[0].closed(at(10)).unwrap();
        before[0].rows(&rows(&[13, 14, 15]));
        let unkeyed = [first, ("".into(), vec![1]), before[1].unkeyed()];
        for number in 1..=3 {
            let after = tasks(number);
            after.iter().for_each(|task| task.budget.restore(&unkeyed).unwrap());
            // The first window has been judged; what is read of it again does not count.
            refuse(&after[0], &[4, 4, 4, 4]);
            after[number - 1].rows(&rows(&[13]));
            after[1..].iter().for_each(|task| task.closed(at(20)).unwrap());
            let failure = after[0].closed(at(20)).unwrap_err().to_string();
            assert!(failure.contains("refused 2 of 3 rows of the window"), "{failure}");
        }
        let damaged = [(PARTITION.to_string(), vec![1])];
        assert!(tasks(1)[0].budget.restore(&damaged).unwrap_err().to_string().contains("refused rows"));
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
