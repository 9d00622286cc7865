//! A task: the operators of one stage on one worker, and the loop that feeds them.
//!
//! Messages go through the operators of a stage depth first: what an operator gives out is handled, with all that follows
//! from it, before its next message. So order is kept on every edge and nothing is queued inside a task. At the rim,
//! messages leave through exchanges.

use crate::channel::Inputs;
use crate::checkpoint::seals::{Read, Seals};
use crate::clock;
use crate::counts::Counts;
use crate::error_budget::TaskBudget;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::lab::Step;
use crate::message::{Barrier, End, Message};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Out, Port, Renewed};
use crate::source_task::Head;
use crate::swap::Cut;
use crate::swap::beside::Beside;
use pelton_core::watermark::{Merged, Watermark};
use pelton_core::{Epoch, Instant, failpoint};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, Ordering::Relaxed};

/// How often operators are told the time: bounds how late an idle split is noticed and a linger ends.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(50);

/// Where the messages of an output go.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// To an operator of this task, as its input number so-and-so.
    Local { slot: usize, input: usize },
    /// To an exchange of this task.
    Remote { exchange: usize },
}

/// One operator in a task.
pub struct Slot {
    /// Its node in the graph.
    pub node: usize,
    /// Number of the task among those of the node.
    pub task: usize,
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// The share of rows that it may refuse.
    pub budget: Option<TaskBudget>,
    /// The counters of its transform.
    pub metrics: Arc<NodeMetrics>,
    /// Consumers by port.
    pub routes: Vec<Vec<Route>>,
    /// Number in `merged` of each logical input that is fed in this task.
    pub inputs: Vec<(usize, usize)>,
    /// Watermarks of those inputs.
    pub merged: Merged,
    /// Inputs that have not ended.
    pub open: usize,
    /// What it has counted in this task.
    pub counts: Counts,
    /// Its cells may lie on disk, so that what fires at once may be more than memory holds.
    pub evicts: bool,
    /// Inputs that have given the barrier at hand.
    pub barriers: usize,
    /// Why those that have ended did.
    pub end: End,
}

/// The operators of a stage in one task.
pub struct Operators {
    /// In the stage's order; the first is the head.
    pub slots: Vec<Slot>,
    /// Edges that leave the task.
    pub exchanges: Vec<Exchange>,
    /// Where the pipeline takes checkpoints.
    pub seals: Option<Seals>,
    /// Set when the pipeline fails: nothing more is sent.
    pub cancelled: tokio::sync::watch::Receiver<bool>,
    /// Set when the process is to look as if it had died.
    pub crashed: Arc<AtomicBool>,
}

impl Operators {
    /// Handles a message for one operator, and all that follows from it inside the task.
    pub async fn deliver(&mut self, slot: usize, input: usize, message: Message) -> Result<(), Failure> {
        let mut stack = vec![(slot, input, message)];
        while let Some((slot, input, message)) = stack.pop() {
            let out = match self.portion(slot, input, &message).await? {
                Some(out) => {
                    stack.push((slot, input, message));
                    out
                }
                None => self.handle(slot, input, message).await?,
            };
            let at = stack.len();
            for (port, message) in out.messages {
                self.route(slot, port, message, &mut stack).await?;
            }
            stack[at..].reverse();
        }
        Ok(())
    }

    /// Routes messages that the head of a source stage made.
    pub async fn emit(&mut self, slot: usize, out: Out) -> Result<(), Failure> {
        let head = &mut self.slots[slot];
        head.counts.fared(&head.metrics, out.account, out.drift);
        if let Some(budget) = &head.budget {
            budget.emitted(&out)?;
        }
        let mut stack = Vec::new();
        for (port, message) in out.messages {
            self.route(slot, port, message, &mut stack).await?;
            stack.reverse();
            while let Some((slot, input, message)) = stack.pop() {
                self.deliver(slot, input, message).await?;
            }
        }
        Ok(())
    }

    /// Tells every operator the time.
    pub async fn tick(&mut self) -> Result<(), Failure> {
        for slot in 0..self.slots.len() {
            let mut out = Out::new(clock::now());
            self.slots[slot].operator.tick(&mut out).await?;
            self.slots[slot].operator.make_room()?;
            self.slots[slot].tape(Some(Step::Tick), &out);
            self.slots[slot].metrics.heaviest(self.slots[slot].operator.heaviest());
            self.emit(slot, out).await?;
        }
        Ok(())
    }

    /// A barrier that has come to the head over all its inputs: it passes through all operators.
    pub async fn barrier(&mut self, barrier: Barrier, read: Option<Read>) -> Result<(), Failure> {
        self.begin(barrier.epoch, false)?;
        self.seal(0, read).await?;
        self.renew(0, &barrier).await?;
        let mut out = Out::new(clock::now());
        out.control(Message::Barrier(barrier));
        self.emit(0, out).await
    }

    /// The task has ended: what it holds belongs to the epoch that was going on, and stays as it is.
    pub async fn seal_last(&mut self, read: Option<Read>) -> Result<(), Failure> {
        let Some(epoch) = self.seals.as_ref().map(Seals::current) else { return Ok(()) };
        self.begin(epoch, true)?;
        self.seal(0, read).await?;
        for slot in 1..self.slots.len() {
            self.seal(slot, None).await?;
        }
        if let Some(seals) = &mut self.seals {
            seals.finish(&mut self.slots);
        }
        Ok(())
    }

    /// Whether something sealed is still to be written down.
    pub fn is_sealing(&self) -> bool {
        self.seals.as_ref().is_some_and(Seals::is_open)
    }

    /// Writes down some of what was sealed, and counts what will be.
    pub fn write_down(&mut self) {
        if let Some(seals) = &mut self.seals {
            seals.step(&mut self.slots);
            seals.measure(&mut self.slots);
        }
    }

    /// Whether an operator has work for a pause.
    pub fn is_settling(&self) -> bool {
        self.slots.iter().any(|slot| slot.operator.is_settling())
    }

    /// Some of that work.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        for slot in &mut self.slots {
            if slot.operator.is_settling() {
                slot.operator.settle().await?;
                slot.operator.make_room()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, epoch: Epoch, last: bool) -> Result<(), Failure> {
        let Some(seals) = &mut self.seals else { return Ok(()) };
        seals.finish(&mut self.slots);
        if seals.current() != epoch {
            let message = format!("the barrier of epoch {epoch} came while epoch {} was going on", seals.current());
            return Err(Failure::Internal { transform: "checkpoint".into(), message });
        }
        seals.begin(last);
        Ok(())
    }

    async fn seal(&mut self, slot: usize, read: Option<Read>) -> Result<(), Failure> {
        let Some(seals) = &mut self.seals else { return Ok(()) };
        seals.seal(&mut self.slots[slot], read).await?;
        for route in self.slots[slot].routes.iter().flatten() {
            if let Route::Remote { exchange } = route
                && let Some(lift) = &self.exchanges[*exchange].lift
            {
                seals.lifted(lift.node, &lift.counted);
            }
        }
        Ok(())
    }

    /// An operator has given its part of an epoch; what comes now goes to its new version, if it has one.
    async fn renew(&mut self, slot: usize, barrier: &Barrier) -> Result<(), Failure> {
        let slot = &mut self.slots[slot];
        slot.metrics.recorder.barrier(slot.task, barrier.epoch);
        let Some(version) = barrier.cut.as_ref().and_then(|cut| cut.version(slot.node)) else { return Ok(()) };
        failpoint::hit("swap.cut");
        slot.metrics.recorder.spoil("the transform was swapped meanwhile");
        if let Some(seals) = self.seals.as_mut().filter(|_| version.grows) {
            seals.encode_all_of(slot);
        }
        if let Some(experiment) = version.experiment.as_ref().filter(|_| version.is_candidate) {
            let candidate = version.candidate(slot.operator.book().as_deref())?;
            let current = std::mem::replace(&mut slot.operator, Box::new(Head));
            slot.operator = Box::new(Beside::new(current, candidate, experiment.clone()));
            return Ok(());
        }
        if slot.operator.renew(version).await? == Renewed::Replace {
            slot.operator = version.operator()?;
        }
        Ok(())
    }

    /// Whether a cut changes something here.
    pub fn is_cut_by(&self, cut: &Cut) -> bool {
        self.slots.iter().any(|slot| cut.version(slot.node).is_some())
    }

    /// After a failure elsewhere or here.
    pub async fn abort(&mut self) {
        if self.crashed.load(Ordering::SeqCst) {
            return;
        }
        for slot in &mut self.slots {
            slot.operator.abort().await;
        }
    }

    /// A portion of what a message lets fire, if there is one.
    async fn portion(&mut self, at: usize, input: usize, message: &Message) -> Result<Option<Out>, Failure> {
        let slot = &mut self.slots[at];
        let Some(until) = slot.evicts.then(|| slot.comes_to(input, message)).flatten() else { return Ok(None) };
        let watch = clock::Stopwatch::start();
        let mut out = Out::new(clock::now());
        let fired = slot.operator.portion(until, &mut out).await?;
        if fired {
            slot.operator.make_room()?;
            slot.tape(Some(Step::Watermark(Watermark::Active(until))), &out);
            slot.settle(&out);
        }
        slot.metrics.busy_nanos.fetch_add(watch.nanos(), Relaxed);
        Ok(fired.then_some(out))
    }

    async fn handle(&mut self, at: usize, input: usize, message: Message) -> Result<Out, Failure> {
        let watch = clock::Stopwatch::start();
        let mut out = Out::new(clock::now());
        let slot = &mut self.slots[at];
        let mut closed = None;
        let mut step = slot.metrics.recorder.is_on().then(|| step_of(&message)).flatten();
        match message {
            Message::Data(batch) if slot.operator.is_side(input) => slot.operator.data(input, batch, &mut out).await?,
            Message::Data(batch) => {
                slot.metrics.sample.offer(&batch);
                slot.counts.came(&slot.metrics, batch.num_rows() as u64);
                if let Some(budget) = &slot.budget {
                    budget.rows(&batch);
                }
                slot.operator.data(input, batch, &mut out).await?;
            }
            Message::Partial(batch) => {
                let rows = slot.operator.partial(input, batch, &mut out).await?;
                slot.counts.came(&slot.metrics, rows);
            }
            Message::Watermark(watermark) => {
                slot.operator.input_watermark(input, watermark, &mut out).await?;
                let number = slot.number(input);
                if let Some(watermark) = slot.merged.update(number, Some(watermark)) {
                    slot.operator.watermark(watermark, &mut out).await?;
                    closed = Some(watermark);
                    step = Some(Step::Watermark(watermark));
                }
            }
            Message::Barrier(barrier) => {
                slot.barriers += 1;
                if slot.barriers == slot.open {
                    slot.barriers = 0;
                    self.seal(at, None).await?;
                    self.renew(at, &barrier).await?;
                    out.control(Message::Barrier(barrier));
                }
                return Ok(out);
            }
            Message::Split(event) => slot.operator.split(event, &mut out).await?,
            Message::End(end) => {
                slot.operator.input_end(input, end, &mut out).await?;
                let number = slot.number(input);
                slot.end = slot.end.and(end);
                slot.open -= 1;
                step = Some(Step::End).filter(|_| slot.open == 0 && slot.end == End::Drained);
                if let Some(watermark) = end.let_go(&mut slot.merged, number) {
                    slot.operator.watermark(watermark, &mut out).await?;
                }
                if slot.open == 0 {
                    slot.operator.end(slot.end, &mut out).await?;
                    slot.metrics.held.fetch_add(slot.operator.held(), Relaxed);
                    slot.metrics.heaviest(slot.operator.heaviest());
                    out.control(Message::End(slot.end));
                }
            }
        }
        slot.operator.make_room()?;
        slot.tape(step, &out);
        slot.settle(&out);
        if let (Some(budget), Some(Watermark::Active(at))) = (&slot.budget, closed) {
            budget.closed(at)?;
        }
        slot.metrics.busy_nanos.fetch_add(watch.nanos(), Relaxed);
        Ok(out)
    }

    async fn route(
        &mut self,
        slot: usize,
        port: Option<Port>,
        message: Message,
        stack: &mut Vec<(usize, usize, Message)>,
    ) -> Result<(), Failure> {
        let Slot { routes, metrics, counts, .. } = &mut self.slots[slot];
        if let (Some(port), Message::Data(batch)) = (port, &message) {
            counts.went(metrics, port, batch.num_rows() as u64);
        }
        if let Message::Watermark(Watermark::Active(at)) = &message {
            metrics.watermark.store(at.micros(), Relaxed);
        }
        let ports = match port {
            Some(port) => port..port + 1,
            None => 0..routes.len(),
        };
        for port in ports {
            for number in 0..self.slots[slot].routes[port].len() {
                match self.slots[slot].routes[port][number] {
                    Route::Local { slot, input } => stack.push((slot, input, message.clone())),
                    Route::Remote { exchange } => {
                        let waited = tokio::select! {
                            biased;
                            sent = self.exchanges[exchange].send(message.clone()) => sent?,
                            _ = self.cancelled.wait_for(|cancelled| *cancelled) => return Err(Failure::Cancelled),
                        };
                        self.slots[slot].metrics.waits.fetch_add(waited, Relaxed);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a message is to whoever records.
fn step_of(message: &Message) -> Option<Step> {
    match message {
        Message::Data(batch) => Some(Step::Rows(batch.clone())),
        _ => None,
    }
}

impl Slot {
    /// Tells what came and what it gave, if somebody records.
    #[inline]
    fn tape(&self, step: Option<Step>, out: &Out) {
        if let Some(step) = step.filter(|_| self.metrics.recorder.is_on()) {
            let given = out.messages.iter().filter_map(|(port, message)| match message {
                Message::Data(batch) => Some(((*port)?, batch.clone())),
                _ => None,
            });
            self.metrics.recorder.tape(self.task, step, out.now, given.collect());
        }
    }

    /// Counts what came of a message.
    fn settle(&mut self, out: &Out) {
        if let Some(budget) = &self.budget {
            budget.refused(out);
        }
        self.counts.fared(&self.metrics, out.account, out.drift);
    }

    /// How far event time comes with a message that has not been handled.
    fn comes_to(&self, input: usize, message: &Message) -> Option<Instant> {
        let comes = match message {
            Message::Watermark(watermark) => self.merged.clone().update(self.number(input), Some(*watermark)),
            Message::End(end) if self.open == 1 && self.end.and(*end) == End::Drained => return Some(Instant::MAX),
            Message::End(end) => end.let_go(&mut self.merged.clone(), self.number(input)),
            // Rows are many: nothing is copied for them.
            _ => None,
        };
        match comes? {
            Watermark::Active(at) => Some(at),
            Watermark::Idle => None,
        }
    }

    fn number(&self, input: usize) -> usize {
        self.inputs
            .iter()
            .find(|(logical, _)| *logical == input)
            .map(|(_, number)| *number)
            .expect("routes name inputs that this task feeds")
    }
}

/// Runs a task that is fed by channels: `inputs` in the order of the head's `merged`.
pub async fn run_fed(mut operators: Operators, mut inputs: Inputs) -> Result<(), Failure> {
    let result = feed(&mut operators, &mut inputs).await;
    if result.is_err() {
        operators.abort().await;
    }
    result
}

async fn feed(operators: &mut Operators, inputs: &mut Inputs) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cancelled = operators.cancelled.clone();
    let mut aligning = Aligning::default();
    // Timers that became due while the pipeline was down fire before anything else.
    operators.tick().await?;
    while operators.slots[0].open > 0 {
        tokio::select! {
            next = inputs.next() => match next {
                Some((input, Some(Message::Barrier(barrier)))) => {
                    inputs.hold(input);
                    aligning.given(barrier);
                }
                Some((input, Some(message))) => {
                    operators.deliver(0, input, message).await?;
                    operators.write_down();
                    operators.settle().await?;
                }
                // A producer that fails drops its channel without an end; the failure itself is told by its task.
                Some((_, None)) | None => {
                    if operators.slots[0].open > 0 && next.is_none() {
                        return Err(Failure::Cancelled);
                    }
                }
            },
            _ = ticks.tick() => operators.tick().await?,
            _ = tokio::task::yield_now(), if operators.is_sealing() => operators.write_down(),
            _ = tokio::task::yield_now(), if operators.is_settling() => operators.settle().await?,
            _ = cancelled.wait_for(|cancelled| *cancelled) => return Err(Failure::Cancelled),
        }
        if let Some((barrier, held)) = aligning.complete(operators.slots[0].open) {
            let cut = barrier.cut.clone().filter(|cut| operators.is_cut_by(cut));
            operators.barrier(barrier, None).await?;
            inputs.release();
            if let Some(cut) = cut {
                cut.stood_still(held.elapsed());
            }
        }
    }
    operators.seal_last(None).await
}

/// A barrier that some inputs of a task have given.
#[derive(Default)]
struct Aligning {
    barrier: Option<(Barrier, clock::Stopwatch)>,
    inputs: usize,
}

impl Aligning {
    fn given(&mut self, barrier: Barrier) {
        self.barrier.get_or_insert_with(|| (barrier, clock::Stopwatch::start()));
        self.inputs += 1;
    }

    /// The barrier, once all inputs that have not ended have given it, and since when the first of them is held.
    fn complete(&mut self, open: usize) -> Option<(Barrier, clock::Stopwatch)> {
        if self.inputs != open {
            return None;
        }
        self.inputs = 0;
        self.barrier.take()
    }
}
