//! Bounded channels between tasks: one producer, one consumer, bounded in messages and in bytes.
//!
//! A producer that finds the channel full waits; that is all there is to back-pressure. Bytes are permits of a semaphore
//! that travel with the message and are given back when the consumer takes it.

use crate::message::Message;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Messages that may wait in a channel: enough to hide a task switch, few enough that a barrier is soon through.
pub const MAX_MESSAGES: usize = 16;
/// Bytes that may wait in a channel; a larger batch travels alone.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Semaphores count in u32, so bytes are counted in KiB.
const PERMIT_BYTES: usize = 1024;

struct Envelope {
    message: Message,
    _bytes: OwnedSemaphorePermit,
}

/// The producer's end.
pub struct Sender {
    queue: mpsc::Sender<Envelope>,
    bytes: Arc<Semaphore>,
}

/// The consumer's end.
pub struct Receiver {
    queue: mpsc::Receiver<Envelope>,
}

/// The consumer's task has ended.
#[derive(Debug)]
pub struct Closed;

/// A channel with the bounds of this module.
pub fn channel() -> (Sender, Receiver) {
    let (queue, receiver) = mpsc::channel(MAX_MESSAGES);
    (Sender { queue, bytes: Arc::new(Semaphore::new(MAX_BYTES / PERMIT_BYTES)) }, Receiver { queue: receiver })
}

impl Sender {
    /// Waits for room. True: it had to.
    pub async fn send(&self, message: Message) -> Result<bool, Closed> {
        let bytes = match &message {
            Message::Data(batch) | Message::Partial(batch) => batch.bytes(),
            _ => 0,
        };
        let permits = bytes.div_ceil(PERMIT_BYTES).min(MAX_BYTES / PERMIT_BYTES) as u32;
        let (permit, waited) = match self.bytes.clone().try_acquire_many_owned(permits) {
            Ok(permit) => (permit, false),
            Err(_) => (self.bytes.clone().acquire_many_owned(permits).await.map_err(|_| Closed)?, true),
        };
        let waited = waited || self.queue.capacity() == 0;
        self.queue.send(Envelope { message, _bytes: permit }).await.map_err(|_| Closed)?;
        Ok(waited)
    }
}

impl Receiver {
    /// The next message if there is one now; `Ready(None)` when the producer is gone.
    pub fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Message>> {
        self.queue.poll_recv(context).map(|envelope| envelope.map(|envelope| envelope.message))
    }
}

/// The inputs of a task: takes from them in turn.
pub struct Inputs {
    receivers: Vec<Option<Receiver>>,
    /// By input: nothing is taken from it until [`Inputs::release`].
    held: Vec<bool>,
    next: usize,
}

impl Inputs {
    /// In the order of their numbers.
    pub fn new(receivers: Vec<Receiver>) -> Inputs {
        Inputs { held: vec![false; receivers.len()], receivers: receivers.into_iter().map(Some).collect(), next: 0 }
    }

    /// Takes nothing more from an input, which has given its barrier.
    pub fn hold(&mut self, input: usize) {
        self.held[input] = true;
    }

    /// Takes from all inputs again.
    pub fn release(&mut self) {
        self.held.fill(false);
    }

    /// Number and message of an input that has one; `None` when all producers are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<(usize, Option<Message>)> {
        std::future::poll_fn(|context| {
            let count = self.receivers.len();
            let mut open = false;
            for step in 0..count {
                let input = (self.next + step) % count;
                let Some(receiver) = &mut self.receivers[input] else { continue };
                open = true;
                if self.held[input] {
                    continue;
                }
                if let std::task::Poll::Ready(message) = receiver.poll_next(context) {
                    if message.is_none() {
                        self.receivers[input] = None;
                    }
                    self.next = (input + 1) % count;
                    return std::task::Poll::Ready(Some((input, message)));
                }
            }
            if open { std::task::Poll::Pending } else { std::task::Poll::Ready(None) }
        })
        .await
    }
}
