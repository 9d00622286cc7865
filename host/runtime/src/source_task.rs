//! The loop of a source task: takes batches from a reader, stamps event times, makes the watermark of each split.

use crate::alignment::Gate;
use crate::clock;
use crate::failure::Failure;
use crate::message::{End, Message, SplitEvent};
use crate::metrics::Scatter;
use crate::operator::{MAIN, Operator, Out, Refusals};
use crate::run::StopMode;
use crate::splits::Splits;
use crate::task::{Operators, TICK};
use async_trait::async_trait;
use pelton_connect::{Reader, SourceBatch};
use pelton_core::fault::{Origin, format_error_rows};
use pelton_core::watermark::{Policy, Watermark};
use pelton_core::{Batch, Instant, Positions, Split};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a source task is told.
pub struct SourceTask {
    /// Gives batches.
    pub reader: Box<dyn Reader>,
    /// How watermarks follow from rows.
    pub policy: Policy,
    /// Rows without a time of their own are at the beginning of time (bounded) or now (unbounded).
    pub bounded: bool,
    /// Whether nobody downstream sets event times, so that the report's points come from here.
    pub samples: bool,
    /// For the report.
    pub scatter: Arc<Scatter>,
    /// What becomes of records that cannot be decoded.
    pub refusals: Refusals,
    /// Why reading stopped, when it did.
    pub stop: tokio::sync::watch::Receiver<StopMode>,
    /// Groups that this task keeps pace with.
    pub gates: Vec<Gate>,
}

/// The head's place in the list of operators; messages are emitted for it.
pub struct Head;

#[async_trait(?Send)]
impl Operator for Head {
    async fn data(&mut self, _input: usize, _batch: Batch, _out: &mut Out) -> Result<(), Failure> {
        unreachable!("a source has no input")
    }
}

/// Runs a source task to its end.
pub async fn run_source(mut operators: Operators, task: SourceTask) -> Result<(), Failure> {
    let result = read(&mut operators, task).await;
    if result.is_err() {
        operators.abort().await;
    }
    result
}

struct State {
    splits: Splits,
    known: Vec<Arc<Split>>,
    lags: HashMap<usize, i64>,
    unclaimed: bool,
}

async fn read(operators: &mut Operators, mut task: SourceTask) -> Result<(), Failure> {
    let mut state = State { splits: Splits::new(task.policy), known: Vec::new(), lags: HashMap::new(), unclaimed: false };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cancelled = operators.cancelled.clone();
    let mut out = Out::new(clock::now());
    for split in task.reader.assigned() {
        state.open(split, &mut out);
    }
    state.claim(task.reader.unclaimed(), &mut out);
    operators.emit(0, out).await?;
    loop {
        // A task that is ahead of its group ticks on, and reads again when told to stop.
        let waits = task.gates.iter().any(Gate::is_ahead) && *task.stop.borrow() == StopMode::Run;
        let next = tokio::select! {
            biased;
            _ = cancelled.wait_for(|cancelled| *cancelled) => return Err(Failure::Cancelled),
            _ = ticks.tick() => {
                let mut out = Out::new(clock::now());
                state.advance(&mut out);
                operators.emit(0, out).await?;
                operators.tick().await?;
                continue;
            }
            next = task.reader.next(), if !waits => next.map_err(|error| Failure::Connect { transform: task.refusals.transform.clone(), error })?,
        };
        let Some(batch) = next else { break };
        let mut out = Out::new(clock::now());
        let watch = clock::Stopwatch::start();
        let metrics = operators.slots[0].metrics.clone();
        metrics.bytes.fetch_add(batch.bytes as u64, Relaxed);
        metrics.rows_in.fetch_add((batch.rows.num_rows() + batch.errors.len()) as u64, Relaxed);
        if let Some(lag) = batch.lag {
            let key = Arc::as_ptr(&batch.split) as usize;
            let before = state.lags.insert(key, lag).unwrap_or(0);
            if metrics.lag.load(Relaxed) < 0 {
                metrics.lag.store(0, Relaxed);
            }
            metrics.lag.fetch_add(lag - before, Relaxed);
        }
        state.take(&task, batch, &mut out)?;
        state.claim(task.reader.unclaimed(), &mut out);
        state.advance(&mut out);
        metrics.busy_nanos.fetch_add(watch.nanos(), Relaxed);
        operators.emit(0, out).await?;
        // A source that always has more must not starve the other tasks of its worker.
        tokio::task::yield_now().await;
    }
    let end = match *task.stop.borrow() {
        StopMode::Stop => End::Stopped,
        StopMode::Run | StopMode::Drain => End::Drained,
    };
    let mut out = Out::new(clock::now());
    if end == End::Drained {
        out.control(Message::Watermark(Watermark::Active(Instant::MAX)));
    }
    out.control(Message::End(end));
    operators.emit(0, out).await
}

impl State {
    fn open(&mut self, split: Arc<Split>, out: &mut Out) {
        if !self.known.iter().any(|known| Arc::ptr_eq(known, &split)) {
            self.known.push(split.clone());
            let event = SplitEvent::Opened(split);
            self.splits.event(&event, out.now);
            out.control(Message::Split(event));
        }
    }

    fn claim(&mut self, unclaimed: bool, out: &mut Out) {
        if unclaimed != self.unclaimed {
            self.unclaimed = unclaimed;
            let event = SplitEvent::Unclaimed(unclaimed);
            self.splits.event(&event, out.now);
            out.control(Message::Split(event));
        }
    }

    fn advance(&mut self, out: &mut Out) {
        self.splits.advance(out);
    }

    fn take(&mut self, task: &SourceTask, read: SourceBatch, out: &mut Out) -> Result<(), Failure> {
        self.open(read.split.clone(), out);
        let default = if task.bounded { Instant::MIN } else { out.now };
        self.refuse(task, &read, default, out)?;
        let rows = read.rows.num_rows();
        if rows > 0 {
            out.account.led += rows as u64;
            let times = read.times.unwrap_or_else(|| vec![default.micros(); rows].into());
            if task.samples {
                task.scatter.offer(&times, out.now);
            }
            let batch = Batch::new(read.rows, times, Positions::At { split: read.split.clone(), offsets: read.offsets });
            self.splits.observe(&batch, None, out.now);
            out.rows(MAIN, batch);
        }
        if read.split_ended {
            self.known.retain(|known| !Arc::ptr_eq(known, &read.split));
            let event = SplitEvent::Ended(read.split);
            self.splits.event(&event, out.now);
            out.control(Message::Split(event));
        }
        Ok(())
    }

    fn refuse(&self, task: &SourceTask, read: &SourceBatch, default: Instant, out: &mut Out) -> Result<(), Failure> {
        let Some(first) = read.errors.first() else { return Ok(()) };
        let Some(port) = task.refusals.port else {
            return Err(Failure::Row {
                transform: task.refusals.transform.clone(),
                message: first.message.clone(),
                position: crate::position::describe(&read.split, first.offset),
                element: crate::position::cut(String::from_utf8_lossy(&first.element).into_owned()),
                plugin: String::new(),
                stack: String::new(),
            });
        };
        out.account.errors += read.errors.len() as u64;
        let origin = Origin { transform: &task.refusals.transform, plugin: None };
        let rows = format_error_rows(&read.errors, &read.split, origin, &mut pelton_connect::line_of);
        let times = read.errors.iter().map(|error| error.time.unwrap_or(default.micros())).collect();
        let offsets = read.errors.iter().map(|error| error.offset).collect();
        out.rows(port, Batch::new(rows, times, Positions::At { split: read.split.clone(), offsets }));
        Ok(())
    }
}
