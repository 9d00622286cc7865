//! The loop of a source task: takes batches from a reader, stamps event times, makes the watermark of each split.

use crate::alignment::{Ahead, Gate, same};
use crate::checkpoint::crashes::{Counter, Next};
use crate::checkpoint::overlay::Overlay;
use crate::checkpoint::seals::Read;
use crate::clock;
use crate::failure::Failure;
use crate::message::{Barrier, End, Message, SplitEvent};
use crate::metrics::Scatter;
use crate::operator::{MAIN, Operator, Out, Refusals};
use crate::run::StopMode;
use crate::splits::Splits;
use crate::task::{Operators, TICK};
use async_trait::async_trait;
use pelton_connect::{Reader, SourceBatch};
use pelton_core::fault::{Origin, format_error_rows};
use pelton_core::watermark::{Policy, Watermark};
use pelton_core::{Batch, Epoch, Instant, Positions, Split, SplitPosition};
use std::collections::{HashMap, VecDeque};
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
    /// The barrier that is wanted; epoch 0 = none yet.
    pub barriers: tokio::sync::watch::Receiver<Barrier>,
    /// The last epoch that was decided.
    pub decided: tokio::sync::watch::Receiver<Epoch>,
    /// In tests: counts rows for barriers and a crash.
    pub counter: Option<Arc<Counter>>,
    /// Watermarks of splits as they were when the pipeline was last sealed.
    pub watermarks: Vec<(String, Vec<u8>)>,
    /// Splits that wait for slower ones.
    pub paused: Paused,
    /// What is not durable yet.
    pub room: Option<Room>,
}

/// How much may be read before a checkpoint is durable.
pub struct Room {
    overlay: Arc<Overlay>,
    /// A barrier was asked for that has not come.
    asked: bool,
}

impl Room {
    /// Within this bound.
    pub fn new(overlay: Arc<Overlay>) -> Room {
        Room { overlay, asked: false }
    }

    /// Whether there is none; then a barrier is asked for.
    fn is_missing(&mut self) -> bool {
        let full = self.overlay.is_full();
        if full && !std::mem::replace(&mut self.asked, true) {
            self.overlay.ask();
        }
        full
    }
}

/// Splits that a reader was told not to read.
#[derive(Debug, Default)]
pub struct Paused {
    splits: Vec<Arc<Split>>,
    /// Whether the reader can do so.
    obeyed: bool,
}

impl SourceTask {
    /// Pauses the splits that are ahead of their groups. True: the reader cannot, and all that it reads is ahead; then the task
    /// ticks on and does not read. Told to stop, it reads on.
    fn hold_back(&mut self) -> bool {
        let ahead: Vec<Ahead> = match *self.stop.borrow() {
            StopMode::Run => self.gates.iter().map(Gate::ahead).collect(),
            _ => Vec::new(),
        };
        let all = ahead.iter().any(|ahead| ahead.all);
        let splits: Vec<Arc<Split>> = ahead.into_iter().flat_map(|ahead| ahead.splits).collect();
        if !same(&splits, &self.paused.splits) {
            self.paused = Paused { obeyed: self.reader.pause(&splits), splits };
        }
        all && !self.paused.obeyed
    }
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
    /// Positions at barriers whose epochs are not decided.
    sealed: VecDeque<(Epoch, Vec<SplitPosition>)>,
}

async fn read(operators: &mut Operators, mut task: SourceTask) -> Result<(), Failure> {
    let mut state = State::restored(&task)?;
    let mut next_is = Next::Read;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cancelled = operators.cancelled.clone();
    let mut out = Out::new(clock::now());
    for split in task.reader.assigned() {
        state.open(split, &mut out);
    }
    state.claim(task.reader.unclaimed(), &mut out);
    operators.emit(0, out).await?;
    operators.tick().await?;
    loop {
        let waits = task.hold_back() || next_is == Next::Wait || task.room.as_mut().is_some_and(Room::is_missing);
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
            Ok(()) = task.barriers.changed() => {
                state.barrier(operators, &mut task).await?;
                next_is = Next::Read;
                continue;
            }
            Ok(()) = task.decided.changed() => {
                let epoch = *task.decided.borrow_and_update();
                state.decided(epoch, &mut task);
                continue;
            }
            next = task.reader.next(), if !waits => next.map_err(|error| Failure::Connect { transform: task.refusals.transform.clone(), error })?,
            // Only while there is nothing to read.
            () = tokio::task::yield_now(), if operators.is_sealing() => {
                operators.write_down();
                continue;
            }
            () = tokio::task::yield_now(), if operators.is_settling() => {
                operators.settle().await?;
                continue;
            }
        };
        let Some(batch) = next else { break };
        let rows = batch.rows.num_rows() as u64;
        let out = state.came(operators, &task, batch)?;
        operators.emit(0, out).await?;
        operators.write_down();
        operators.settle().await?;
        if let Some(counter) = &task.counter {
            next_is = counter.rows(rows);
        }
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
    operators.emit(0, out).await?;
    operators.seal_last(Some(state.read(&task))).await
}

impl State {
    /// As far as event time had come.
    fn restored(task: &SourceTask) -> Result<State, Failure> {
        let mut splits = Splits::new(task.policy);
        let refused = |error| Failure::Checkpoint { message: format!("transform `{}`: {error}", task.refusals.transform), refused: true };
        splits.restore(&task.watermarks).map_err(refused)?;
        Ok(State { splits, known: Vec::new(), lags: HashMap::new(), unclaimed: false, sealed: VecDeque::new() })
    }

    /// Passes a barrier on, with the positions that it cuts at.
    async fn barrier(&mut self, operators: &mut Operators, task: &mut SourceTask) -> Result<(), Failure> {
        let barrier = task.barriers.borrow_and_update().clone();
        let stands = clock::Stopwatch::start();
        let read = self.read(task);
        self.sealed.push_back((barrier.epoch, read.positions.clone()));
        let cut = barrier.cut.clone().filter(|cut| operators.is_cut_by(cut));
        operators.barrier(barrier, Some(read)).await?;
        if let Some(cut) = cut {
            cut.stood_still(stands.elapsed());
        }
        task.room.iter_mut().for_each(|room| room.asked = false);
        Ok(())
    }

    /// Counts what was read, and gives it event times.
    fn came(&mut self, operators: &mut Operators, task: &SourceTask, batch: SourceBatch) -> Result<Out, Failure> {
        let mut out = Out::new(clock::now());
        let watch = clock::Stopwatch::start();
        let metrics = operators.slots[0].metrics.clone();
        operators.slots[0].counts.read(&metrics, batch.bytes as u64);
        operators.slots[0].counts.came(&metrics, (batch.rows.num_rows() + batch.errors.len()) as u64);
        if let Some(lag) = batch.lag {
            let key = Arc::as_ptr(&batch.split) as usize;
            let before = self.lags.insert(key, lag).unwrap_or(0);
            if metrics.lag.load(Relaxed) < 0 {
                metrics.lag.store(0, Relaxed);
            }
            metrics.lag.fetch_add(lag - before, Relaxed);
        }
        self.take(task, batch, &mut out)?;
        self.claim(task.reader.unclaimed(), &mut out);
        self.advance(&mut out);
        metrics.busy_nanos.fetch_add(watch.nanos(), Relaxed);
        Ok(out)
    }

    /// What a barrier has to know of what was read.
    fn read(&self, task: &SourceTask) -> Read {
        Read { positions: task.reader.positions(), watermarks: self.splits.unkeyed() }
    }

    /// Tells the reader what counts now.
    fn decided(&mut self, epoch: Epoch, task: &mut SourceTask) {
        while let Some((_, positions)) = self.sealed.pop_front_if(|(sealed, _)| *sealed <= epoch) {
            task.reader.decided(&positions);
        }
    }

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

#[cfg(test)]
mod tests;
