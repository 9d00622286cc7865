//! The progress topic: which epoch of a pipeline was decided last, and which process owns the pipeline.
//!
//! A compacted topic of one partition that pipelines share. Keys and values, both text:
//!
//! - `PIPELINE` → the last [`Decision`] as JSON, written in the transaction of the epoch's own data;
//! - `PIPELINE/owner` → an [`Owner`] as JSON, written by each process when it has fenced the others.
//!
//! Decisions are read up to the *high watermark*, by a client that sees committed records only: markers of our own transactions may lie behind
//! a transaction of somebody else that is still open, and a reader that is content with the end of the committed records would miss them.
//! Owners are read uncommitted: who finds another one's record has lost, whether or not that one succeeded.

use super::client::{self, Context, Events};
use super::settings::{creation_reason, default_to};
use crate::ConnectError;
use pelton_core::{Decision, Generation};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The one partition.
pub const PARTITION: i32 = 0;
/// How long transactions of other pipelines may hide what is committed: a little longer than the shortest timeout of a transaction that a dead
/// process has left open.
const DECISION_PATIENCE: Duration = Duration::from_secs(90);
/// Who reads uncommitted records waits for the broker only.
const OWNER_PATIENCE: Duration = Duration::from_secs(10);
/// After this time the wait is worth a line in the log.
const NOTICE: Duration = Duration::from_secs(5);
/// One poll.
const POLL: Duration = Duration::from_millis(100);
/// Only whole segments are compacted, and a recovery reads all that is not: about 20 thousand epochs.
const SEGMENT_BYTES: &str = "8388608";

/// A process that has fenced all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its life.
    pub generation: Generation,
    /// Tells it from others that have the same generation on a copy of the state.
    pub process: String,
    /// It had restarted itself.
    #[serde(default)]
    pub again: bool,
}

impl Owner {
    /// Whether it came after a process of this generation, which has tried before to fence it or not (`tried`).
    ///
    /// Of two with one generation, on copies of a store, who restarted itself is the earlier: the other one was started to take over. Of two
    /// that were started, whoever has fenced an attempt of the other came later.
    pub fn is_later(&self, generation: Generation, again: bool, tried: bool) -> bool {
        match (self.generation.cmp(&generation), self.again, again) {
            (std::cmp::Ordering::Equal, false, true) => true,
            (std::cmp::Ordering::Equal, true, false) => false,
            (std::cmp::Ordering::Equal, ..) => tried,
            (order, ..) => order.is_gt(),
        }
    }
}

/// Key of a pipeline's owner.
pub fn owner_key(pipeline: &str) -> String {
    format!("{pipeline}/owner")
}

/// Reads the progress topic for one pipeline. All calls block.
pub struct Progress {
    topic: String,
    pipeline: String,
    io: tokio::runtime::Handle,
    /// Reads uncommitted, on from where it was.
    follower: Reading,
    /// Reads committed, once. It begins to fetch at once, so that little is left to wait for.
    decisions: Option<Reading>,
    owner: Option<Owner>,
}

impl Progress {
    /// Makes the topic if there is none, and refuses one that would lose decisions. `settings` are those of the pipeline's clients.
    pub fn open(
        settings: &ClientConfig,
        topic: &str,
        pipeline: &str,
        events: &Arc<Events>,
        io: &tokio::runtime::Handle,
    ) -> Result<Progress, ConnectError> {
        let mut settings = settings.clone();
        default_to(&mut settings, "group.id", "pelton-progress");
        settings.set("enable.partition.eof", "true").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        settings
            .set("max.poll.interval.ms", "86400000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "1024");
        let follower = Reading::connect(&settings, topic, "read_uncommitted", events)?;
        ensure(&settings, topic, &follower, events, io)?;
        follower.start()?;
        let decisions = Reading::connect(&settings, topic, "read_committed", events)?;
        decisions.start()?;
        Ok(Progress { topic: topic.into(), pipeline: pipeline.into(), io: io.clone(), follower, decisions: Some(decisions), owner: None })
    }

    /// Who fenced the others last.
    pub fn owner(&mut self) -> Result<Option<&Owner>, ConnectError> {
        let key = owner_key(&self.pipeline);
        let end = self.end()?;
        let Progress { follower, owner, topic, .. } = self;
        follower.read_to(end, OWNER_PATIENCE, |found, value| {
            if found == key.as_bytes() {
                *owner = Some(parse(value, topic, &key)?);
            }
            Ok(())
        })?;
        Ok(self.owner.as_ref())
    }

    /// What was decided last, of all that was decided before this call. Once only.
    pub fn decision(&mut self) -> Result<Option<Decision>, ConnectError> {
        let end = self.end()?;
        let mut reading = self.decisions.take().ok_or_else(|| ConnectError::internal("the last decision is asked for twice"))?;
        let mut decision = None;
        reading.read_to(end, DECISION_PATIENCE, |key, value| {
            if key == self.pipeline.as_bytes() {
                decision = Some(parse(value, &self.topic, &self.pipeline)?);
            }
            Ok(())
        })?;
        self.io.spawn_blocking(move || drop(reading));
        Ok(decision)
    }

    /// The high watermark: the follower does not stop at open transactions.
    fn end(&self) -> Result<i64, ConnectError> {
        Ok(client::offsets(self.follower.consumer.client(), &self.topic, PARTITION)?.1)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(value: Option<&[u8]>, topic: &str, key: &str) -> Result<T, ConnectError> {
    serde_json::from_slice(value.unwrap_or_default()).map_err(|error| {
        ConnectError::user(
            format!("the record `{key}` of topic {topic} cannot be read ({error})"),
            "only Pelton may write to this topic; if the record is of a later version, run that version",
        )
    })
}

/// A consumer of the topic and how far it is.
struct Reading {
    consumer: BaseConsumer<Context>,
    events: Arc<Events>,
    topic: String,
    next: i64,
}

impl Reading {
    fn connect(settings: &ClientConfig, topic: &str, isolation: &str, of: &Arc<Events>) -> Result<Reading, ConnectError> {
        let mut settings = settings.clone();
        settings.set("isolation.level", isolation);
        // Ends of partitions are reported through the events, so every consumer needs its own.
        let events = of.of_topic(topic);
        let consumer: BaseConsumer<Context> = settings.create_with_context(Context(events.clone())).map_err(|error| {
            ConnectError::user(
                format!("the Kafka client refuses its configuration: {}", creation_reason(&error)),
                "correct `producer_config_updates`; names and values are librdkafka's",
            )
        })?;
        Ok(Reading { consumer, events, topic: topic.into(), next: 0 })
    }

    /// From the beginning.
    fn start(&self) -> Result<(), ConnectError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, PARTITION, Offset::Beginning).map_err(ConnectError::internal)?;
        self.consumer.assign(&list).map_err(|error| ConnectError::external(format!("cannot read topic {}: {error}", self.topic)))
    }

    /// Shows every record before `end` that was not shown yet.
    fn read_to(
        &mut self,
        end: i64,
        patience: Duration,
        mut show: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), ConnectError>,
    ) -> Result<(), ConnectError> {
        let (given_up, noticed) = (client::deadline(patience), client::deadline(NOTICE));
        let (mut told, mut trouble) = (false, None);
        while self.next < end {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    self.next = message.offset() + 1;
                    show(message.key().unwrap_or_default(), message.payload())?;
                }
                // Behind the last record there may be markers of transactions.
                Some(Err(KafkaError::PartitionEOF(_))) => match self.events.end_reached_at() {
                    i64::MAX => trouble = Some("the client does not say where the partition ends".into()),
                    at => self.next = self.next.max(at),
                },
                Some(Err(error)) => trouble = Some(error.to_string()),
                None => {}
            }
            if let Some(reason) = self.events.lasting_refusal() {
                return Err(self.events.refused_error(&reason));
            }
            if client::passed(given_up) {
                return Err(self.stalled(end, patience, trouble));
            }
            if !told && client::passed(noticed) {
                told = true;
                tracing::info!(
                    topic = self.topic,
                    at = self.next,
                    end,
                    "waiting for transactions of other pipelines on the progress topic to end"
                );
            }
        }
        Ok(())
    }

    fn stalled(&self, end: i64, patience: Duration, trouble: Option<String>) -> ConnectError {
        let reason = trouble.unwrap_or_else(|| "a transaction of somebody else is open there".into());
        ConnectError::external(format!(
            "topic {} was read up to offset {} of {end} within {} s ({reason}): wait until the broker has ended that transaction, end it with `kafka-transactions.sh find-hanging` and `abort`, or give this pipeline a `progress_topic` of its own",
            self.topic,
            self.next,
            patience.as_secs()
        ))
    }
}

/// The topic is there, and keeps the last record of each key for ever.
fn ensure(
    settings: &ClientConfig,
    topic: &str,
    reading: &Reading,
    events: &Arc<Events>,
    io: &tokio::runtime::Handle,
) -> Result<(), ConnectError> {
    let admin: AdminClient<Context> = settings
        .create_with_context(Context(events.clone()))
        .map_err(|error| ConnectError::internal(format!("no administrative client: {error}")))?;
    if !exists(topic, reading)? {
        io.block_on(create(&admin, topic))?;
        let deadline = client::deadline(client::OPEN_TIMEOUT);
        while !exists(topic, reading)? {
            if client::passed(deadline) {
                return Err(ConnectError::external(format!("topic {topic} was created, but the broker does not show it yet")));
            }
            std::thread::sleep(POLL);
        }
    }
    match io.block_on(cleanup_policy(&admin, topic)) {
        Some(policy) if policy != "compact" => Err(ConnectError::user(
            format!("topic {topic} has `cleanup.policy={policy}`, so the broker would delete which epochs were decided"),
            format!("set `cleanup.policy=compact` on it, or name another topic as `progress_topic` of {}", events.transform()),
        )),
        _ => Ok(()),
    }
}

fn exists(topic: &str, reading: &Reading) -> Result<bool, ConnectError> {
    let deadline = client::deadline(client::OPEN_TIMEOUT);
    loop {
        let answer = reading.consumer.client().fetch_metadata(Some(topic), client::QUESTION_TIMEOUT);
        // Errors of the client come with polls; there is nothing assigned yet.
        while reading.consumer.poll(Duration::ZERO).is_some() {}
        match answer {
            Ok(metadata) => {
                let known = metadata.topics().iter().find(|known| known.name() == topic);
                match known.map(|known| (known.error().map(RDKafkaErrorCode::from), known.partitions().len())) {
                    Some((None, partitions)) if partitions > 0 => return Ok(true),
                    None | Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _)) => return Ok(false),
                    Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
                        return Err(ConnectError::user(
                            format!("the broker does not let this user see topic `{topic}`, where Pelton keeps which epochs were decided"),
                            format!("grant it `Describe`, `Read`, `Write` and, unless the topic is there, `Create` on `{topic}`"),
                        ));
                    }
                    Some(_) => std::thread::sleep(POLL),
                }
            }
            Err(KafkaError::MetadataFetch(code)) if !client::is_refusal(code) => {}
            Err(error) => return Err(reading.events.refused_error(&error.to_string())),
        }
        if let Some(reason) = reading.events.refusal() {
            return Err(reading.events.refused_error(&reason));
        }
        if client::passed(deadline) {
            return Err(reading.events.unreachable());
        }
    }
}

async fn create(admin: &AdminClient<Context>, topic: &str) -> Result<(), ConnectError> {
    // Replicas as the broker's default says; small segments, as only closed ones are compacted.
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", SEGMENT_BYTES)
        .set("min.cleanable.dirty.ratio", "0.1");
    let options = AdminOptions::new().request_timeout(Some(client::OPEN_TIMEOUT)).operation_timeout(Some(client::OPEN_TIMEOUT));
    let refused = |reason: String| {
        ConnectError::user(
            format!("cannot create topic `{topic}`, where Pelton keeps which epochs were decided: {reason}"),
            format!(
                "create it (1 partition, `cleanup.policy=compact`), or let this user `Create` it; `progress_topic` names another than `{topic}`"
            ),
        )
    };
    match admin.create_topics([&new], &options).await.map(|results| results.into_iter().next()) {
        Ok(Some(Ok(_)) | None) | Ok(Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) => Ok(()),
        Ok(Some(Err((_, RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::OperationTimedOut)))) => {
            Err(ConnectError::external(format!("the broker did not create topic {topic} in time")))
        }
        Ok(Some(Err((_, code)))) => Err(refused(client::describe(code))),
        Err(error) => Err(ConnectError::external(format!("the broker did not create topic {topic}: {error}"))),
    }
}

/// `None` where the user may not see it.
async fn cleanup_policy(admin: &AdminClient<Context>, topic: &str) -> Option<String> {
    let options = AdminOptions::new().request_timeout(Some(client::QUESTION_TIMEOUT));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
    described.into_iter().next()?.ok()?.get("cleanup.policy")?.value.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_with_one_generation_who_restarted_itself_is_the_earlier() {
        for (owner, ours, tried, later) in [
            ((5, false), (4, false), false, true),
            ((5, true), (4, false), false, true),
            ((5, false), (6, true), true, false),
            ((5, false), (5, true), false, true),
            ((5, true), (5, false), true, false),
            ((5, false), (5, false), false, false),
            ((5, false), (5, false), true, true),
            ((5, true), (5, true), true, true),
        ] {
            let owner = Owner { generation: owner.0, process: "p".into(), again: owner.1 };
            assert_eq!(owner.is_later(ours.0, ours.1, tried), later, "{owner:?} {ours:?} {tried}");
        }
    }
}
