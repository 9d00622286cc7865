//! The poll thread of a reader: owns the consumer, collects records into blocks, and waits when the reader is slow.
//!
//! librdkafka wants to be polled from a thread that may block; workers may not block. Between the two is a queue bounded in
//! bytes. Partitions are assigned, never subscribed: which task reads what is Pelton's decision, and no group is joined.
//!
//! Invariants: blocks of a partition come in the order of offsets; every record from the first offset to the end is in
//! exactly one block; a position that the broker no longer has stops the source instead of skipping records.

use super::block::{Block, BlockBuilder, size};
use super::client::{Context, Events, deadline, describe, is_final, passed};
use super::configs::RecordColumns;
use crate::ConnectError;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes of blocks that wait for a reader: a dozen batches, enough to bridge the reader's turns with other tasks.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes in blocks that are being filled, over all partitions of a reader; beyond it all are sent as they are.
const FILLING_BYTES: usize = 4 * 1024 * 1024;
/// A block that is not full is sent after this time: latency against the cost of a batch.
const LINGER: Duration = Duration::from_millis(5);
/// The thread looks at least this often whether it is to stop.
const POLL: Duration = Duration::from_millis(100);
/// The queue's budget is counted in units of this many bytes, because a semaphore takes 32 bits of them.
const UNIT: usize = 1024;

/// One partition to read.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The partition.
    pub partition: i32,
    /// First offset to read.
    pub start: i64,
    /// Offset to end before; `None`: read for ever.
    pub end: Option<i64>,
}

/// What the thread is to do.
pub struct Job {
    /// Already connected.
    pub consumer: BaseConsumer<Context>,
    /// The consumer's reports.
    pub events: Arc<Events>,
    /// Topic of all shares.
    pub topic: String,
    /// Partitions to read.
    pub shares: Vec<Share>,
    /// Columns beside the value.
    pub wanted: RecordColumns,
    /// End of the reading, by the machine's clock.
    pub until: Option<Instant>,
}

/// The reader's end of the queue.
pub struct Feed {
    receiver: mpsc::UnboundedReceiver<Result<Sealed, ConnectError>>,
    budget: Arc<Semaphore>,
    stopping: Arc<AtomicBool>,
}

/// A block that holds its share of the budget until it is taken.
struct Sealed {
    block: Block,
    _budget: OwnedSemaphorePermit,
}

impl Feed {
    /// Starts the thread.
    #[allow(clippy::disallowed_methods)] // Pelton's rule is that a connector owns the threads it needs, and librdkafka's poll blocks.
    pub fn start(job: Job, io: tokio::runtime::Handle) -> Result<Feed, ConnectError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES / UNIT));
        let stopping = Arc::new(AtomicBool::new(false));
        let outlet = Outlet { sender, budget: budget.clone(), io };
        let flag = stopping.clone();
        std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || {
                let failed = outlet.clone();
                if let Err(error) = Poll::new(job, outlet).and_then(|mut poll| poll.run(&flag)) {
                    // The reader may be gone; then nobody wants the error.
                    let _ = failed.sender.send(Err(error));
                }
            })
            .map_err(|error| ConnectError::external(format!("cannot start a thread for Kafka: {error}")))?;
        Ok(Feed { receiver, budget, stopping })
    }

    /// The next block; `None` when all partitions have ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Block, ConnectError>> {
        Some(self.receiver.recv().await?.map(|sealed| sealed.block))
    }

    /// Ends the thread within [`POLL`], without waiting for it.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.budget.close();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Outlet {
    // Unbounded in number: `budget` bounds it, and every block takes at least one unit.
    sender: mpsc::UnboundedSender<Result<Sealed, ConnectError>>,
    budget: Arc<Semaphore>,
    io: tokio::runtime::Handle,
}

/// The reader is gone or was stopped.
struct Closed;

impl Outlet {
    fn send(&self, block: Block) -> Result<(), Closed> {
        let units = (block.weight() / UNIT).clamp(1, QUEUE_BYTES / UNIT) as u32;
        let permit = self.io.block_on(self.budget.clone().acquire_many_owned(units)).map_err(|_| Closed)?;
        self.sender.send(Ok(Sealed { block, _budget: permit })).map_err(|_| Closed)
    }
}

struct Partition {
    share: Share,
    next: i64,
    ended: bool,
    builder: BlockBuilder,
}

struct Poll {
    job: Job,
    outlet: Outlet,
    partitions: HashMap<i32, Partition>,
    filling: usize,
    oldest: Option<Instant>,
}

impl Poll {
    fn new(job: Job, outlet: Outlet) -> Result<Poll, ConnectError> {
        let mut list = TopicPartitionList::new();
        for share in &job.shares {
            list.add_partition_offset(&job.topic, share.partition, Offset::Offset(share.start)).map_err(ConnectError::internal)?;
        }
        job.consumer
            .assign(&list)
            .map_err(|error| ConnectError::external(format!("cannot assign partitions of topic {}: {error}", job.topic)))?;
        let partitions = job
            .shares
            .iter()
            .map(|share| {
                let builder = BlockBuilder::new(share.partition, &job.wanted);
                (share.partition, Partition { share: *share, next: share.start, ended: false, builder })
            })
            .collect();
        Ok(Poll { job, outlet, partitions, filling: 0, oldest: None })
    }

    /// Until all partitions have ended, the time is over, or the reader is gone.
    fn run(&mut self, stopping: &AtomicBool) -> Result<(), ConnectError> {
        match self.read(stopping) {
            Ok(()) => Ok(()),
            Err(Stop::Closed) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn read(&mut self, stopping: &AtomicBool) -> Result<(), Stop> {
        let done: Vec<i32> =
            self.partitions.values().filter(|p| p.share.end.is_some_and(|end| p.next >= end)).map(|p| p.share.partition).collect();
        for partition in done {
            self.end(partition)?;
        }
        while self.partitions.values().any(|partition| !partition.ended) {
            if stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            if self.job.until.is_some_and(passed) {
                return self.end_all();
            }
            self.step()?;
        }
        Ok(())
    }

    /// One poll: takes a record or a report, and sends what has lingered.
    fn step(&mut self) -> Result<(), Stop> {
        let wait = match self.oldest {
            None => POLL,
            Some(since) => LINGER.saturating_sub(since.elapsed()),
        };
        match self.take(wait)? {
            Taken::Record => {}
            Taken::Nothing => {
                if let Some(reason) = self.job.events.lasting_refusal() {
                    return Err(Stop::Failed(self.job.events.refused_error(&reason)));
                }
            }
            Taken::Last(partition) => self.end(partition)?,
            Taken::CaughtUp(partition) => self.caught_up(partition, self.job.events.end_reached_at())?,
            Taken::Report(error) => self.report(&error)?,
        }
        if self.filling > FILLING_BYTES || self.oldest.is_some_and(|since| since.elapsed() >= LINGER) {
            self.send_all()?;
        }
        Ok(())
    }

    fn take(&mut self, wait: Duration) -> Result<Taken, Stop> {
        let message = match self.job.consumer.poll(wait) {
            None => return Ok(Taken::Nothing),
            Some(Err(KafkaError::PartitionEOF(partition))) => return Ok(Taken::CaughtUp(partition)),
            Some(Err(error)) => return Ok(Taken::Report(error)),
            Some(Ok(message)) => message,
        };
        self.job.events.answered();
        let number = message.partition();
        let Some(partition) = self.partitions.get_mut(&number).filter(|partition| !partition.ended) else { return Ok(Taken::Nothing) };
        if partition.share.end.is_some_and(|end| message.offset() >= end) {
            return Ok(Taken::Last(number));
        }
        let bytes = size(&message);
        if partition.builder.is_full_for(bytes) {
            self.filling -= partition.builder.bytes();
            self.outlet.send(partition.builder.finish())?;
        }
        partition.builder.push(&message);
        partition.next = message.offset() + 1;
        self.filling += bytes;
        self.oldest.get_or_insert_with(now);
        let last = partition.share.end.is_some_and(|end| partition.next >= end);
        Ok(if last { Taken::Last(number) } else { Taken::Record })
    }

    /// The client has no more records of this partition at the moment.
    fn caught_up(&mut self, number: i32, at: i64) -> Result<(), Stop> {
        self.job.events.answered();
        let Some(partition) = self.partitions.get_mut(&number).filter(|partition| !partition.ended) else { return Ok(()) };
        // Behind the last record there may be markers of transactions, which have offsets but are no records.
        if partition.share.end.is_some_and(|end| at >= end) {
            return self.end(number);
        }
        self.filling -= partition.builder.bytes();
        let block = partition.builder.finish();
        self.outlet.send(Block { caught_up: true, ..block })?;
        Ok(())
    }

    fn end(&mut self, number: i32) -> Result<(), Stop> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(()) };
        partition.ended = true;
        self.filling -= partition.builder.bytes();
        let block = partition.builder.finish();
        self.outlet.send(Block { ended: true, ..block })?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.job.topic, number);
        // If it cannot be paused its records are still fetched, and dropped above.
        if let Err(error) = self.job.consumer.pause(&list) {
            tracing::debug!(%error, partition = number, "cannot pause a partition that has ended");
        }
        Ok(())
    }

    fn end_all(&mut self) -> Result<(), Stop> {
        let open: Vec<i32> =
            self.partitions.values().filter(|partition| !partition.ended).map(|partition| partition.share.partition).collect();
        open.into_iter().try_for_each(|partition| self.end(partition))
    }

    fn send_all(&mut self) -> Result<(), Stop> {
        for partition in self.partitions.values_mut().filter(|partition| !partition.builder.is_empty()) {
            self.outlet.send(partition.builder.finish())?;
        }
        self.filling = 0;
        self.oldest = None;
        Ok(())
    }

    /// Decides what an error of the client means. Lost connections heal by themselves and were reported by [`Events`].
    fn report(&mut self, error: &KafkaError) -> Result<(), Stop> {
        use RDKafkaErrorCode::*;
        let Some(code) = error.rdkafka_error_code() else { return Ok(()) };
        let topic = &self.job.topic;
        let stop = |message: String| Err(Stop::Failed(ConnectError::external(message)));
        match code {
            AutoOffsetReset | OffsetOutOfRange => stop(format!(
                "the position in topic {topic} is no longer on the broker: records were deleted (retention) or the topic was made anew; restart the pipeline to begin at `auto_offset_reset_config`"
            )),
            UnknownTopicOrPartition | UnknownTopic | UnknownPartition if self.topic_is_gone() => {
                stop(format!("topic {topic} was deleted while it was read"))
            }
            BadMessage | BadCompression | InvalidMessage | InvalidMessageSize | NotImplemented | UnsupportedCompressionType => {
                stop(format!("a record of topic {topic} cannot be read: {}", describe(code)))
            }
            // The group is named but never used; a broker that forbids it forbids nothing that is needed.
            GroupAuthorizationFailed => Ok(()),
            _ if is_final(code) || matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                let reason = self.job.events.refusal().unwrap_or_else(|| describe(code));
                Err(Stop::Failed(self.job.events.refused_error(&reason)))
            }
            _ => Ok(()),
        }
    }

    /// A broker that has just restarted may not know its topics yet, so it is asked again.
    fn topic_is_gone(&self) -> bool {
        let deadline = deadline(super::client::OPEN_TIMEOUT);
        while !passed(deadline) {
            match self.job.consumer.fetch_metadata(Some(&self.job.topic), super::client::QUESTION_TIMEOUT) {
                Ok(metadata) if metadata.topics().iter().any(|topic| topic.error().is_none() && !topic.partitions().is_empty()) => {
                    return false;
                }
                Ok(_) => std::thread::sleep(POLL),
                Err(_) => return false,
            }
        }
        true
    }
}

/// What one poll gave.
enum Taken {
    Nothing,
    Record,
    Last(i32),
    CaughtUp(i32),
    Report(KafkaError),
}

enum Stop {
    Closed,
    Failed(ConnectError),
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Stop {
        Stop::Closed
    }
}

#[allow(clippy::disallowed_methods)] // Batching by time needs a clock, and nothing but batching depends on it.
fn now() -> Instant {
    Instant::now()
}
