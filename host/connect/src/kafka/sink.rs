//! `WriteToKafka`: each row as a record, at least once, by an idempotent producer.
//!
//! The client's queue is bounded; when it is full `write` waits for deliveries without blocking its thread. What is wrong
//! with one row is known before the record is handed over: size and time are compared with the topic's own settings. A
//! delivery that fails later ends the run, because later records of the partition may already be written.
//!
//! Invariant: `finish` succeeds only when every record was acknowledged by all in-sync replicas.

use super::client::{self, Context, Events};
use super::configs::{self, WriteConfig};
use super::encode::Layout;
use super::settings::{client_config, creation_reason, default_to};
use crate::ConnectError;
use crate::sink::{Sink, SinkContext, SinkSummary};
use async_trait::async_trait;
use pelton_core::{Batch, Instant, RowError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Records that wait for acknowledgement in one shard; a few round trips' worth at a million a second.
const QUEUED_RECORDS: &str = "100000";
/// Bytes of them.
const QUEUED_KIB: &str = "16384";
/// What a record takes on the wire beside key, value and headers: the header of a batch of one record, and lengths.
const RECORD_OVERHEAD: usize = 128;
/// A wait for deliveries looks at least this often for errors that come without one.
const WAIT: Duration = Duration::from_millis(100);
/// The broker's default of `max.message.bytes`, for users who may not read the topic's settings.
const DEFAULT_MAX_RECORD: usize = 1_048_588;

/// What the topic takes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    partitions: i32,
    record_bytes: usize,
    /// Longest that a record's time may lie before and after the broker's clock, in milliseconds.
    before_ms: i64,
    after_ms: i64,
}

struct KafkaSink {
    producer: Option<ThreadedProducer<Context>>,
    events: Arc<Events>,
    layout: Layout,
    topic: String,
    limits: Limits,
    io: tokio::runtime::Handle,
    buffer: Vec<u8>,
    summary: SinkSummary,
}

/// Connects, asks for the topic and its limits, and checks the columns.
pub async fn open(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let config = configs::write(&config, &mut Vec::new());
    let layout = Layout::new(&config, &ctx.schema)?;
    let events = Events::new(&ctx.transform, &config.bootstrap_servers, &config.topic);
    let topic = config.topic.clone();
    let (asked, io) = (events.clone(), ctx.io.clone());
    let prepared = ctx.io.spawn_blocking(move || prepare(&config, &asked, &io)).await.map_err(ConnectError::internal)?;
    let (producer, limits) = prepared?;
    Ok(Box::new(KafkaSink {
        producer: Some(producer),
        events,
        layout,
        topic,
        limits,
        io: ctx.io,
        buffer: Vec::new(),
        summary: SinkSummary::default(),
    }))
}

fn prepare(
    config: &WriteConfig,
    events: &Arc<Events>,
    io: &tokio::runtime::Handle,
) -> Result<(ThreadedProducer<Context>, Limits), ConnectError> {
    let refused = |error: KafkaError| {
        ConnectError::user(
            format!("the Kafka client refuses its configuration: {}", creation_reason(&error)),
            "correct `producer_config_updates`; names and values are librdkafka's",
        )
    };
    let mut settings = producer_config(config);
    // The administrative client shows no errors of its connections, so another one finds the topic.
    let probe: BaseProducer<Context> = settings.create_with_context(Context(events.clone())).map_err(refused)?;
    let partitions = client::count_partitions(probe.client(), &config.topic, &mut || probe.poll(client::SERVE))?;
    let admin: AdminClient<Context> = settings.create_with_context(Context(events.clone())).map_err(refused)?;
    let limits = io.block_on(limits(&admin, &config.topic, partitions));
    settings.set("message.max.bytes", limits.record_bytes.clamp(1_000, 1_000_000_000).to_string());
    let producer = settings.create_with_context(Context(events.clone())).map_err(refused)?;
    Ok((producer, limits))
}

fn producer_config(config: &WriteConfig) -> ClientConfig {
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

#[async_trait]
impl Sink for KafkaSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError> {
        self.check()?;
        let encoder = self.layout.encoder(&batch.rows)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut errors = Vec::new();
        let now = wall_millis();
        for row in 0..batch.num_rows() {
            let sent = match self.limits.timestamp(batch.times[row], now) {
                Ok(time) => match encoder.encode(row, &mut buffer) {
                    Ok(record) => {
                        let (key, size) = (encoder.key(row), record.headers_bytes);
                        let value = record.value.clone().map(|range| &buffer[range]);
                        let mut sending = BaseRecord::<[u8], [u8], ()>::to(&self.topic);
                        sending.key = key;
                        sending.payload = value;
                        sending.timestamp = time;
                        sending.partition = record.partition;
                        sending.headers = record.headers;
                        self.send(sending, size).await?
                    }
                    Err(reason) => Err(reason),
                },
                Err(reason) => Err(reason),
            };
            match sent {
                Ok(bytes) => {
                    self.summary.rows += 1;
                    self.summary.bytes += bytes;
                }
                Err(message) => errors.push(RowError { row: row as u32, message, stack: String::new() }),
            }
        }
        self.buffer = buffer;
        Ok(errors)
    }

    async fn tick(&mut self, _now: Instant) -> Result<(), ConnectError> {
        // The client sends by itself after `linger.ms`; here only its failures surface.
        self.check()
    }

    async fn finish(mut self: Box<Self>) -> Result<SinkSummary, ConnectError> {
        while self.events.in_flight.load(Ordering::Acquire) > 0 {
            self.check()?;
            self.wait().await;
        }
        self.check()?;
        Ok(std::mem::take(&mut self.summary))
    }

    async fn abort(self: Box<Self>) {
        if let Some(producer) = &self.producer {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }
}

impl KafkaSink {
    /// Hands a record to the client, waiting while its queue is full; bytes of the record, or why the row is refused.
    async fn send(&self, mut record: BaseRecord<'_, [u8], [u8], ()>, headers: usize) -> Result<Result<u64, String>, ConnectError> {
        let size = record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len) + headers;
        if size + RECORD_OVERHEAD > self.limits.record_bytes {
            return Ok(Err(format!(
                "the record has {size} bytes; topic {} takes {} (`max.message.bytes`)",
                self.topic, self.limits.record_bytes
            )));
        }
        if let Some(partition) = record.partition.filter(|partition| *partition >= self.limits.partitions) {
            return Ok(Err(format!("topic {} has no partition {partition}, only {}", self.topic, self.limits.partitions)));
        }
        let producer = self.producer.as_ref().ok_or_else(|| ConnectError::internal("the producer is gone"))?;
        loop {
            // Counted first: the delivery may come before `send` returns.
            self.events.in_flight.fetch_add(1, Ordering::AcqRel);
            let (error, back) = match producer.send(record) {
                Ok(()) => return Ok(Ok(size as u64)),
                Err(refused) => refused,
            };
            self.events.in_flight.fetch_sub(1, Ordering::AcqRel);
            record = back;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.check()?;
                    self.wait().await;
                }
                Some(code @ (RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::UnknownPartition)) => {
                    return Ok(Err(client::describe(code)));
                }
                _ => {
                    self.check()?;
                    return Err(ConnectError::external(format!("topic {} takes no record: {error}", self.topic)));
                }
            }
        }
    }

    /// The first failure that the client has reported.
    fn check(&self) -> Result<(), ConnectError> {
        if let Some(failure) = self.events.delivery_failure() {
            return Err(ConnectError::external(failure));
        }
        match self.events.lasting_refusal() {
            Some(reason) => Err(self.events.refused_error(&reason)),
            None => Ok(()),
        }
    }

    async fn wait(&self) {
        // Only the passing of time is of interest if no delivery comes.
        let _ = tokio::time::timeout(WAIT, self.events.delivered.notified()).await;
    }
}

impl Drop for KafkaSink {
    /// The producer's thread is joined on drop, which may take a while; that is no work for a worker.
    fn drop(&mut self) {
        let producer = self.producer.take();
        self.io.spawn_blocking(move || drop(producer));
    }
}

impl Limits {
    /// The record's time in milliseconds. Rows that have no event time of their own (Beam's minimum, and the end of the
    /// global window) get the time of writing.
    fn timestamp(&self, micros: i64, now_ms: i64) -> Result<Option<i64>, String> {
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

#[allow(clippy::disallowed_methods)] // The broker compares records with its clock, so the sink must with this machine's.
fn wall_millis() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
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
