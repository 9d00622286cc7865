//! A task: the operators of one stage on one worker, and the loop that feeds them.
//!
//! Messages go through the operators of a stage depth first: what an operator gives out is handled, with all that follows
//! from it, before its next message. So order is kept on every edge and nothing is queued inside a task. At the rim,
//! messages leave through exchanges.

use crate::channel::Inputs;
use crate::clock;
use crate::error_budget::TaskBudget;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::message::{End, Message};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Out, Port};
use pelton_core::watermark::{Merged, Watermark};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

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
    /// Why those that have ended did.
    pub end: End,
}

/// The operators of a stage in one task.
pub struct Operators {
    /// In the stage's order; the first is the head.
    pub slots: Vec<Slot>,
    /// Edges that leave the task.
    pub exchanges: Vec<Exchange>,
    /// Set when the pipeline fails: nothing more is sent.
    pub cancelled: tokio::sync::watch::Receiver<bool>,
}

impl Operators {
    /// Handles a message for one operator, and all that follows from it inside the task.
    pub async fn deliver(&mut self, slot: usize, input: usize, message: Message) -> Result<(), Failure> {
        let mut stack = vec![(slot, input, message)];
        while let Some((slot, input, message)) = stack.pop() {
            let out = self.handle(slot, input, message).await?;
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
        head.metrics.account(out.account, out.drift);
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
            self.slots[slot].metrics.heaviest(self.slots[slot].operator.heaviest());
            self.emit(slot, out).await?;
        }
        Ok(())
    }

    /// After a failure elsewhere or here.
    pub async fn abort(&mut self) {
        for slot in &mut self.slots {
            slot.operator.abort().await;
        }
    }

    async fn handle(&mut self, at: usize, input: usize, message: Message) -> Result<Out, Failure> {
        let watch = clock::Stopwatch::start();
        let mut out = Out::new(clock::now());
        let slot = &mut self.slots[at];
        let mut closed = None;
        match message {
            Message::Data(batch) => {
                slot.metrics.rows_in.fetch_add(batch.num_rows() as u64, Relaxed);
                if let Some(budget) = &slot.budget {
                    budget.rows(&batch);
                }
                slot.operator.data(input, batch, &mut out).await?;
            }
            Message::Partial(batch) => {
                let rows = slot.operator.partial(input, batch, &mut out).await?;
                slot.metrics.rows_in.fetch_add(rows, Relaxed);
            }
            Message::Watermark(watermark) => {
                let number = slot.number(input);
                if let Some(watermark) = slot.merged.update(number, Some(watermark)) {
                    slot.operator.watermark(watermark, &mut out).await?;
                    closed = Some(watermark);
                }
            }
            Message::Split(event) => slot.operator.split(event, &mut out).await?,
            Message::End(end) => {
                let number = slot.number(input);
                slot.end = slot.end.and(end);
                slot.open -= 1;
                if let Some(watermark) = slot.merged.update(number, None) {
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
        if let Some(budget) = &slot.budget {
            budget.refused(&out);
            if let Some(Watermark::Active(at)) = closed {
                budget.closed(at)?;
            }
        }
        slot.metrics.account(out.account, out.drift);
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
        let Slot { routes, metrics, .. } = &self.slots[slot];
        if let (Some(port), Message::Data(batch)) = (port, &message) {
            metrics.rows_out[port].fetch_add(batch.num_rows() as u64, Relaxed);
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

impl Slot {
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
    while operators.slots[0].open > 0 {
        tokio::select! {
            next = inputs.next() => match next {
                Some((input, Some(message))) => operators.deliver(0, input, message).await?,
                // A producer that fails drops its channel without an end; the failure itself is told by its task.
                Some((_, None)) | None => {
                    if operators.slots[0].open > 0 && next.is_none() {
                        return Err(Failure::Cancelled);
                    }
                }
            },
            _ = ticks.tick() => operators.tick().await?,
            _ = cancelled.wait_for(|cancelled| *cancelled) => return Err(Failure::Cancelled),
        }
    }
    Ok(())
}
