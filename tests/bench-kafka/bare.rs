//! The other side: librdkafka with nothing around it, with the settings that the pipeline's source and sink have by default.

use crate::PARTITIONS;
use crate::content::Content;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(120);
/// The producer's callbacks are served every so many records.
const SERVE_EVERY: u64 = 1_000;

/// Consumes a topic to its end and produces each record to another.
pub struct Loop<'a> {
    pub servers: &'a str,
    pub input: &'a str,
    pub output: &'a str,
    /// Bytes of a record that are produced; 0 for all.
    pub cut: usize,
}

impl Loop<'_> {
    pub fn run(&self) {
        let producer = producer(self.servers);
        let mut count = 0_u64;
        consume(self.servers, self.input, |message| {
            let payload = message.payload().unwrap_or_default();
            let payload = if self.cut == 0 { payload } else { &payload[..self.cut.min(payload.len())] };
            send(&producer, self.output, payload, message.timestamp().to_millis());
            count += 1;
            if count.is_multiple_of(SERVE_EVERY) {
                producer.poll(Duration::ZERO);
            }
        });
        producer.flush(PATIENCE).expect("all is written");
    }
}

/// Puts the records into a topic.
pub fn load(servers: &str, topic: &str, lines: &[String]) {
    let producer = producer(servers);
    // From 2026-01-01T00:00:00Z on, a record a millisecond.
    for (line, millis) in lines.iter().zip(1_767_225_600_000..) {
        send(&producer, topic, line.as_bytes(), Some(millis));
    }
    producer.flush(PATIENCE).expect("all is written");
}

/// What a topic holds, and how many bytes of values.
pub fn read(servers: &str, topic: &str, hash: fn(&[u8]) -> u64) -> (Content, u64) {
    let (mut content, mut bytes) = (Content::default(), 0);
    consume(servers, topic, |message| {
        let payload = message.payload().expect("no tombstones");
        content.add(hash(payload));
        bytes += payload.len() as u64;
    });
    (content, bytes)
}

/// As `WriteToKafka` sets its client up.
pub fn producer(servers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("linger.ms", "5")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "100000")
        .set("queue.buffering.max.kbytes", "16384")
        .create()
        .expect("a producer")
}

pub fn send(producer: &BaseProducer, topic: &str, payload: &[u8], millis: Option<i64>) {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(payload);
    record.timestamp = millis;
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
}

/// From the beginnings to the ends of all partitions.
fn consume(servers: &str, topic: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) {
    let consumer = consumer_with(servers, topic, true);
    let mut ends = 0;
    while ends < PARTITIONS {
        match consumer.poll(PATIENCE).expect("the broker answers in time") {
            Ok(message) => take(&message),
            Err(KafkaError::PartitionEOF(_)) => ends += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// From the beginnings of all partitions on.
pub fn consumer(servers: &str, topic: &str) -> BaseConsumer {
    consumer_with(servers, topic, false)
}

/// As `ReadFromKafka` sets its client up.
fn consumer_with(servers: &str, topic: &str, ends: bool) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "bench")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "100")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", if ends { "true" } else { "false" })
        .set("queued.max.messages.kbytes", "16384")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    (0..PARTITIONS).for_each(|partition| list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition"));
    consumer.assign(&list).expect("assigned");
    consumer
}
