//! The poll thread of a reader: owns the consumer, collects records into blocks, and waits when the reader is slow.
//!
//! librdkafka wants to be polled from a thread that may block; workers may not block. Between the two is a queue bounded in
//! bytes. Partitions are assigned, never subscribed: which task reads what is Pelton's decision, and no group is joined.
//!
//! Invariants: blocks of a partition come in the order of offsets; every record from the first offset to the end is in
//! exactly one block; a position that the broker no longer has stops the source instead of skipping records.

use super::block::{Block, BlockBuilder, size};
use super::client::{self, Context, Events, deadline, describe, is_final, lock, passed};
use super::configs::{OutOfRange, RecordColumns};
use super::topics;
use crate::ConnectError;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
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
    /// Which topic of that name it was at the start, if its brokers say.
    pub topic_id: Option<u128>,
    /// Partitions to read.
    pub shares: Vec<Share>,
    /// Columns beside the value.
    pub wanted: RecordColumns,
    /// End of the reading, by the machine's clock.
    pub until: Option<Instant>,
    /// What becomes of a position that the broker no longer has.
    pub out_of_range: OutOfRange,
    /// Looking for new partitions; `None`: those that there are are all.
    pub discovery: Option<Discovery>,
}

/// New partitions of a topic are divided among readers by their number.
#[derive(Clone, Copy, Debug)]
pub struct Discovery {
    /// How often to look.
    pub interval: Duration,
    /// Partitions that are known to all readers.
    pub known: i32,
    /// Readers that take partitions.
    pub readers: i32,
    /// This one, from 0.
    pub number: i32,
}

/// What a reader wants beside records.
#[derive(Default)]
struct Wished {
    /// Partitions that it does not want now.
    paused: HashSet<i32>,
    /// Offsets to be committed to the consumer group.
    offsets: Vec<(i32, i64)>,
}

/// The reader's end of the queue.
pub struct Feed {
    receiver: mpsc::UnboundedReceiver<Result<Sealed, ConnectError>>,
    budget: Arc<Semaphore>,
    stopping: Arc<AtomicBool>,
    wishes: Arc<Wishes>,
}

/// What the reader tells the thread.
#[derive(Default)]
struct Wishes {
    changed: AtomicBool,
    wished: Mutex<Wished>,
}

impl Wishes {
    fn tell(&self, change: impl FnOnce(&mut Wished)) {
        change(&mut lock(&self.wished));
        self.changed.store(true, Ordering::Release);
    }
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
        let wishes: Arc<Wishes> = Arc::default();
        let told = wishes.clone();
        std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || {
                let failed = outlet.clone();
                if let Err(error) = Poll::new(job, outlet, told).and_then(|mut poll| poll.run(&flag)) {
                    // The reader may be gone; then nobody wants the error.
                    let _ = failed.sender.send(Err(error));
                }
            })
            .map_err(|error| ConnectError::external(format!("cannot start a thread for Kafka: {error}")))?;
        Ok(Feed { receiver, budget, stopping, wishes })
    }

    /// The next block; `None` when all partitions have ended, but if the caller `holds` blocks back it then waits for ever.
    /// Cancel-safe.
    pub async fn next(&mut self, holds: bool) -> Option<Result<Block, ConnectError>> {
        match self.receiver.recv().await {
            Some(sealed) => Some(sealed.map(|sealed| sealed.block)),
            None if holds => std::future::pending().await,
            None => None,
        }
    }

    /// Only other partitions than these are read from now on; blocks of these may still be on the way.
    pub fn pause(&self, partitions: &HashSet<i32>) {
        self.wishes.tell(|wished| wished.paused.clone_from(partitions));
    }

    /// Has offsets committed to the consumer group some time.
    pub fn commit(&self, offsets: Vec<(i32, i64)>) {
        self.wishes.tell(|wished| wished.offsets = offsets);
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
    paused: bool,
    builder: BlockBuilder,
}

impl Partition {
    fn new(share: Share, wanted: &RecordColumns) -> Partition {
        Partition { share, next: share.start, ended: false, paused: false, builder: BlockBuilder::new(share.partition, wanted) }
    }

    fn block(&mut self) -> Block {
        self.builder.finish(self.next)
    }
}

struct Poll {
    job: Job,
    outlet: Outlet,
    wishes: Arc<Wishes>,
    discover_at: Option<Instant>,
    partitions: HashMap<i32, Partition>,
    filling: usize,
    oldest: Option<Instant>,
}

impl Poll {
    fn new(job: Job, outlet: Outlet, wishes: Arc<Wishes>) -> Result<Poll, ConnectError> {
        let mut list = TopicPartitionList::new();
        for share in &job.shares {
            list.add_partition_offset(&job.topic, share.partition, Offset::Offset(share.start)).map_err(ConnectError::internal)?;
        }
        job.consumer
            .assign(&list)
            .map_err(|error| ConnectError::external(format!("cannot assign partitions of topic {}: {error}", job.topic)))?;
        let partitions = job.shares.iter().map(|share| (share.partition, Partition::new(*share, &job.wanted))).collect();
        let discover_at = job.discovery.map(|discovery| deadline(discovery.interval));
        Ok(Poll { job, outlet, wishes, discover_at, partitions, filling: 0, oldest: None })
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
            if self.wishes.changed.load(Ordering::Relaxed) && self.wishes.changed.swap(false, Ordering::AcqRel) {
                self.heed()?;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Does what the reader wants.
    fn heed(&mut self) -> Result<(), Stop> {
        let Wished { paused, offsets } = {
            let mut wished = lock(&self.wishes.wished);
            Wished { paused: wished.paused.clone(), offsets: std::mem::take(&mut wished.offsets) }
        };
        self.commit(&offsets);
        self.pause(&paused)
    }

    /// Tells the client what the reader does not want. A partition that is resumed goes on behind the last record that was taken.
    fn pause(&mut self, wanted: &HashSet<i32>) -> Result<(), Stop> {
        let (mut paused, mut resumed) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (number, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.ended) {
            let pause = wanted.contains(number);
            if std::mem::replace(&mut partition.paused, pause) != pause {
                if pause { &mut paused } else { &mut resumed }.add_partition(&self.job.topic, *number);
            }
        }
        let told = self.job.consumer.pause(&paused).and_then(|()| self.job.consumer.resume(&resumed));
        told.map_err(|error| Stop::Failed(ConnectError::external(format!("cannot pause a partition of {}: {error}", self.job.topic))))
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
                self.discover()?;
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
            self.discover()?;
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
        // The client fetches anew after a pause.
        if message.offset() < partition.next {
            return Ok(Taken::Nothing);
        }
        let bytes = size(&message);
        if partition.builder.is_full_for(bytes) {
            self.filling -= partition.builder.bytes();
            self.outlet.send(partition.block())?;
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
        if at < i64::MAX {
            partition.next = partition.next.max(at);
        }
        if partition.share.end.is_some_and(|end| at >= end) {
            return self.end(number);
        }
        self.filling -= partition.builder.bytes();
        let block = partition.block();
        self.outlet.send(Block { caught_up: true, ..block })?;
        Ok(())
    }

    fn end(&mut self, number: i32) -> Result<(), Stop> {
        let Some(partition) = self.partitions.get_mut(&number) else { return Ok(()) };
        partition.ended = true;
        self.filling -= partition.builder.bytes();
        let block = partition.block();
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
            self.outlet.send(partition.block())?;
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
            AutoOffsetReset | OffsetOutOfRange => self.out_of_range(),
            UnknownTopicOrPartition | UnknownTopic | UnknownPartition if self.topic_is_gone() => Err(Stop::Failed(ConnectError::user(
                format!("topic {topic} was deleted while it was read"),
                "records that were not read are lost; when the topic is there again, start the pipeline without its state, or from another source",
            ))),
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

    /// The client has found a position that the broker does not have, and does not say which.
    fn out_of_range(&mut self) -> Result<(), Stop> {
        self.check_topic()?;
        let numbers: Vec<i32> =
            self.partitions.values().filter(|partition| !partition.ended).map(|partition| partition.share.partition).collect();
        for number in numbers {
            let range = client::offsets(self.job.consumer.client(), &self.job.topic, number).map_err(Stop::Failed)?;
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            let next = admit(&self.job.topic, number, partition.next, range, self.job.out_of_range).map_err(Stop::Failed)?;
            // What is already in the block comes first; the partition is fetched anew also if only the client was wrong.
            partition.next = next;
            // What is assigned is not paused.
            partition.paused = false;
            self.wishes.changed.store(true, Ordering::Release);
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.job.topic, number);
            let again = self.job.consumer.incremental_unassign(&list).and_then(|()| self.assign(number, next));
            again.map_err(|error| Stop::Failed(ConnectError::external(format!("cannot read topic {} on: {error}", self.job.topic))))?;
        }
        Ok(())
    }

    fn assign(&self, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.job.topic, partition, Offset::Offset(offset))?;
        self.job.consumer.incremental_assign(&list)
    }

    /// Takes its share of partitions that were added to the topic since the last look.
    fn discover(&mut self) -> Result<(), Stop> {
        let (Some(mut discovery), true) = (self.job.discovery, self.discover_at.is_some_and(passed)) else { return Ok(()) };
        self.discover_at = Some(deadline(discovery.interval));
        self.check_topic()?;
        let Ok(metadata) = self.job.consumer.fetch_metadata(Some(&self.job.topic), client::QUESTION_TIMEOUT) else { return Ok(()) };
        let found = metadata.topics().iter().find(|topic| topic.name() == self.job.topic && topic.error().is_none());
        let count = found.map_or(0, |topic| topic.partitions().len() as i32);
        for number in discovery.known..count {
            if number % discovery.readers == discovery.number {
                // A partition that is being made may have no leader yet; the next look comes.
                let Ok((first, _)) = self.job.consumer.fetch_watermarks(&self.job.topic, number, client::QUESTION_TIMEOUT) else { break };
                if let Err(error) = self.assign(number, first) {
                    tracing::warn!(%error, topic = self.job.topic, partition = number, "a new partition cannot be read yet");
                    break;
                }
                tracing::info!(topic = self.job.topic, partition = number, "a new partition is read from its beginning");
                let mut partition = Partition::new(Share { partition: number, start: first, end: None }, &self.job.wanted);
                // Without records, so that the reader knows of it and where it begins.
                self.outlet.send(partition.block())?;
                self.partitions.insert(number, partition);
            }
            discovery.known = number + 1;
        }
        self.job.discovery = Some(discovery);
        Ok(())
    }

    /// Commits offsets to the consumer group; whether that succeeds is told to those who watch only.
    fn commit(&self, offsets: &[(i32, i64)]) {
        if offsets.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            if let Err(error) = list.add_partition_offset(&self.job.topic, *partition, Offset::Offset(*offset)) {
                tracing::debug!(%error, partition, offset, "an offset cannot be committed");
            }
        }
        if let Err(error) = self.job.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "offsets cannot be committed");
        }
    }

    /// Stops where the topic is another one of its name. With leave to go on in it that is the next start's business: it alone can remember that it has.
    fn check_topic(&self) -> Result<(), Stop> {
        let Some(before) = self.job.topic_id else { return Ok(()) };
        // A broker that has just started may say what was.
        let is_another = |_| topics::id_of(self.job.consumer.client(), &self.job.topic).is_some_and(|id| id != before);
        if !(0..topics::LOOKS).all(is_another) {
            return Ok(());
        }
        let message = format!("topic {} was deleted and made anew while it was read", self.job.topic);
        Err(Stop::Failed(match self.job.out_of_range {
            OutOfRange::Stop => ConnectError::user(message, ANEW),
            OutOfRange::Earliest | OutOfRange::Latest => ConnectError::external(message),
        }))
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

/// What an author can do about a topic that is another one.
const ANEW: &str = "records of the old topic that were not read are lost; to go on with those of the new one set `on_offset_out_of_range` to `earliest` or `latest`";

/// Where to begin in a partition of a topic that is another one than that in which the offset `wanted` was reached.
pub fn admit_anew(topic: &str, partition: i32, wanted: i64, (first, end): (i64, i64), policy: OutOfRange) -> Result<i64, ConnectError> {
    let next = match policy {
        OutOfRange::Stop => {
            return Err(ConnectError::user(
                format!(
                    "topic {topic} was deleted and made anew since it was read: partition {partition} is to be read on at offset {wanted}, \
                     which is another record now"
                ),
                ANEW,
            ));
        }
        OutOfRange::Earliest => first,
        OutOfRange::Latest => end,
    };
    tracing::warn!(topic, partition, wanted, next, "the topic was deleted and made anew; reading goes on in the new one");
    Ok(next)
}

/// Where to read on from `wanted` in a partition that has records from `first` to before `end`.
pub fn admit(topic: &str, partition: i32, wanted: i64, (first, end): (i64, i64), policy: OutOfRange) -> Result<i64, ConnectError> {
    if (first..=end).contains(&wanted) {
        return Ok(wanted);
    }
    let what = if wanted < first {
        "records were deleted (by retention, or on purpose)"
    } else {
        "the topic was made anew, or the broker has lost records"
    };
    let next = match policy {
        OutOfRange::Stop => {
            return Err(ConnectError::user(
                format!(
                    "topic {topic} partition {partition} is to be read on at offset {wanted}, but the broker has {first} to {end}: {what}"
                ),
                "to accept that records are missing, or come twice, set `on_offset_out_of_range` to `earliest` or `latest`",
            ));
        }
        OutOfRange::Earliest => first,
        OutOfRange::Latest => end,
    };
    tracing::warn!(
        topic,
        partition,
        wanted,
        first,
        end,
        next,
        "the position is no longer on the broker; reading goes on elsewhere: {what}"
    );
    Ok(next)
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
