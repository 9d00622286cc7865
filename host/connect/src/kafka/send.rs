//! Handing records to the client: what the topic takes, waiting while the client's queue is full, and what went wrong.

use super::client::{self, Context, Events, SharedProducer};
use super::configs::WriteConfig;
use super::settings::{client_config, creation_reason, default_to};
use crate::ConnectError;
use pelton_core::Instant;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Records that wait for acknowledgement in one client; a few round trips' worth at a million a second.
const QUEUED_RECORDS: &str = "100000";
/// Bytes of them.
const QUEUED_KIB: &str = "16384";
/// What a record takes on the wire beside key, value and headers: the header of a batch of one record, and lengths.
const RECORD_OVERHEAD: usize = 128;
/// A wait for deliveries looks at least this often for errors that come without one, and for a queue that others have emptied.
const WAIT: Duration = Duration::from_millis(50);
/// The broker's default of `max.message.bytes`, for users who may not read the topic's settings.
const DEFAULT_MAX_RECORD: usize = 1_048_588;
/// librdkafka's default of `batch.size`.
const DEFAULT_BATCH_SIZE: usize = 1_000_000;

/// A record on its way.
pub type Record<'a> = BaseRecord<'a, [u8], [u8], Arc<Events>>;

/// What a topic takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of partitions.
    pub partitions: i32,
    /// Bytes of the largest batch, so of the largest record.
    pub record_bytes: usize,
    /// Longest that a record's time may lie before and after the broker's clock, in milliseconds.
    pub before_ms: i64,
    /// See `before_ms`.
    pub after_ms: i64,
}

/// Settings of every producer; [`fit_to`] adds what depends on the topics.
pub fn producer_config(config: &WriteConfig) -> ClientConfig {
    let mut settings = client_config(&config.bootstrap_servers, &config.client);
    default_to(&mut settings, "linger.ms", "5");
    default_to(&mut settings, "reconnect.backoff.max.ms", "1000");
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", QUEUED_RECORDS)
        .set("queue.buffering.max.kbytes", QUEUED_KIB);
    settings
}

/// A producer for these topics takes records as large as one of them takes, and makes no batch larger than all of them take.
pub fn fit_to(settings: &mut ClientConfig, limits: impl Iterator<Item = Limits> + Clone) {
    let largest = limits.clone().map(|limits| limits.record_bytes).max().unwrap_or(DEFAULT_MAX_RECORD);
    let smallest = limits.map(|limits| limits.record_bytes).min().unwrap_or(DEFAULT_MAX_RECORD);
    settings.set("message.max.bytes", largest.clamp(1_000, 1_000_000_000).to_string());
    let wanted = settings.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(DEFAULT_BATCH_SIZE);
    if smallest < wanted {
        settings.set("batch.size", smallest.to_string());
    }
}

/// The error for a configuration that librdkafka refuses as a whole.
pub fn refused_settings(error: &KafkaError) -> ConnectError {
    ConnectError::user(
        format!("the Kafka client refuses its configuration: {}", creation_reason(error)),
        "correct `producer_config_updates`; names and values are librdkafka's",
    )
}

/// Asks for the topic, which must be there, and for what it takes. Blocks.
pub fn find_limits(config: &WriteConfig, events: &Arc<Events>, io: &tokio::runtime::Handle) -> Result<Limits, ConnectError> {
    let settings = producer_config(config);
    // The administrative client shows no errors of its connections, so another one finds the topic.
    let probe: BaseProducer<Context> = settings.create_with_context(Context(events.clone())).map_err(|error| refused_settings(&error))?;
    let partitions = client::count_partitions(probe.client(), &config.topic, &mut || probe.poll(client::SERVE))?;
    let admin: AdminClient<Context> = settings.create_with_context(Context(events.clone())).map_err(|error| refused_settings(&error))?;
    Ok(io.block_on(limits(&admin, &config.topic, partitions)))
}

/// The topic's own settings; a user who may not see them gets the broker's defaults.
async fn limits(admin: &AdminClient<Context>, topic: &str, partitions: i32) -> Limits {
    let options = AdminOptions::new().request_timeout(Some(client::QUESTION_TIMEOUT));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    let resource = described.ok().and_then(|resources| resources.into_iter().next()).and_then(Result::ok);
    let number = |name: &str| resource.as_ref()?.get(name)?.value.as_ref()?.parse::<i64>().ok();
    let by_broker =
        resource.as_ref().and_then(|r| r.get("message.timestamp.type")?.value.clone()).is_some_and(|kind| kind == "LogAppendTime");
    let span = |name: &str| number(name).filter(|_| !by_broker).unwrap_or(i64::MAX);
    Limits {
        partitions,
        record_bytes: number("max.message.bytes").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(DEFAULT_MAX_RECORD),
        before_ms: span("message.timestamp.before.max.ms"),
        after_ms: span("message.timestamp.after.max.ms"),
    }
}

/// A topic as one shard of a sink writes to it, through whatever client.
pub struct Target {
    /// Its name.
    pub topic: String,
    /// What it takes.
    pub limits: Limits,
    /// Deliveries of this shard's records.
    pub events: Arc<Events>,
}

impl Target {
    /// Bytes of a record, or why the topic does not take it. `headers` is their size.
    pub fn admit(&self, record: &Record<'_>, headers: usize) -> Result<u64, String> {
        let size = record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len) + headers;
        if size + RECORD_OVERHEAD > self.limits.record_bytes {
            return Err(format!(
                "the record has {size} bytes; topic {} takes {} (`max.message.bytes`)",
                self.topic, self.limits.record_bytes
            ));
        }
        match record.partition.filter(|partition| *partition >= self.limits.partitions) {
            Some(partition) => Err(format!("topic {} has no partition {partition}, only {}", self.topic, self.limits.partitions)),
            None => Ok(size as u64),
        }
    }

    /// Hands a record to the client, waiting while its queue is full. The inner error is why the client refuses this record.
    pub async fn send(&self, producer: &SharedProducer, mut record: Record<'_>) -> Result<Result<(), String>, ConnectError> {
        loop {
            // Counted first: the delivery may come before `send` returns.
            self.events.in_flight.fetch_add(1, Ordering::AcqRel);
            producer.events.handed.fetch_add(1, Ordering::AcqRel);
            let (error, back) = match producer.send(record) {
                Ok(()) => return Ok(Ok(())),
                Err(refused) => refused,
            };
            self.events.in_flight.fetch_sub(1, Ordering::AcqRel);
            producer.events.handed.fetch_sub(1, Ordering::AcqRel);
            record = back;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.check(producer)?;
                    self.wait().await;
                }
                Some(code @ RDKafkaErrorCode::MessageSizeTooLarge) => return Ok(Err(client::describe(code))),
                // Also a partition that is not there: `admit` has asked, so the topic is no longer the one that it was.
                _ => {
                    self.check(producer)?;
                    return Err(ConnectError::external(format!("topic {} takes no record: {error}", self.topic)));
                }
            }
        }
    }

    /// Waits until all that this shard sent was acknowledged.
    pub async fn settle(&self, producer: &SharedProducer) -> Result<(), ConnectError> {
        while self.events.in_flight.load(Ordering::Acquire) > 0 {
            self.check(producer)?;
            self.wait().await;
        }
        self.check(producer)
    }

    /// The first failure that the client has reported.
    pub fn check(&self, producer: &SharedProducer) -> Result<(), ConnectError> {
        if let Some(failure) = self.events.delivery_failure() {
            return Err(ConnectError::external(failure));
        }
        if let Some(reason) = producer.events.lasting_refusal() {
            return Err(producer.events.refused_error(&reason));
        }
        // A client that has given up for good says nothing of what it still holds.
        match producer.client().fatal_error() {
            Some((_, reason)) => {
                Err(ConnectError::external(format!("topic {} takes no more records of this producer: {reason}", self.topic)))
            }
            None => Ok(()),
        }
    }

    async fn wait(&self) {
        // Only the passing of time is of interest if no delivery comes.
        let _ = tokio::time::timeout(WAIT, self.events.delivered.notified()).await;
    }
}

impl Limits {
    /// The record's time in milliseconds. Rows that have no event time of their own (Beam's minimum, and the end of the
    /// global window) get the time of writing.
    pub fn timestamp(&self, micros: i64, now_ms: i64) -> Result<Option<i64>, String> {
        if micros <= Instant::MIN.micros() || micros >= Instant::END_OF_GLOBAL_WINDOW.micros() - 1 {
            return Ok(None);
        }
        let millis = micros.div_euclid(1_000);
        let shown = Instant::from_micros_saturating(micros);
        // Kafka has no times before 1970, and to the client 0 means the time of writing.
        if millis <= 0 {
            return Err(format!("the event time {shown} cannot be the timestamp of a Kafka record: it must be after 1970-01-01T00:00:00Z"));
        }
        if millis > now_ms.saturating_add(self.after_ms) {
            return Err(format!(
                "the event time {shown} lies further ahead than the topic allows (`message.timestamp.after.max.ms` = {})",
                self.after_ms
            ));
        }
        if millis < now_ms.saturating_sub(self.before_ms) {
            return Err(format!(
                "the event time {shown} lies further back than the topic allows (`message.timestamp.before.max.ms` = {})",
                self.before_ms
            ));
        }
        Ok(Some(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_kafka_cannot_hold_are_refused() {
        let limits = Limits { partitions: 1, record_bytes: 1, before_ms: i64::MAX, after_ms: 3_600_000 };
        let now = 1_700_000_000_000;
        for (micros, expected) in [
            (Instant::MIN.micros(), Ok(None)),
            (Instant::END_OF_GLOBAL_WINDOW.micros() - 1, Ok(None)),
            (1_234_567, Ok(Some(1_234))),
            (now * 1_000, Ok(Some(now))),
            (0, Err("1970")),
            (-1_000_000, Err("1970")),
            ((now + 3_600_001) * 1_000, Err("further ahead")),
        ] {
            match (limits.timestamp(micros, now), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (found, _) => panic!("{micros}: {found:?}"),
            }
        }
    }
}
