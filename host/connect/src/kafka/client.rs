//! What the Kafka client tells us beside records: logs, errors, statistics; and the questions asked when a connector opens.
//!
//! librdkafka reconnects for ever and reports every attempt. Here that becomes: one warning when the brokers are lost, one
//! line when they are back, and at the opening an error within [`OPEN_TIMEOUT`] that carries the reason of the last attempt.

use crate::ConnectError;
use pelton_core::catalog::nearest;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Statistics, TopicPartitionList};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A connector that does not reach its broker says so within this time: longer than a broker's restart of a listener, short
/// enough that nobody takes the program for hung.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// One question to a broker; a few fit into [`OPEN_TIMEOUT`], and between two the client's errors are read.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// A run gives brokers this long to take back a refusal: longer than a restart.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(30);
/// How long the client's reports are read after a question.
pub const SERVE: Duration = Duration::from_millis(50);
/// Between two questions for a topic that has no leader yet.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// Locks what a panic of another thread cannot leave half-written.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What one client has reported. Shared between librdkafka's callbacks and the connector.
#[derive(Debug)]
pub struct Events {
    transform: String,
    servers: String,
    topic: String,
    connection_failure: Mutex<Option<String>>,
    refused: Mutex<Option<Refusal>>,
    /// Brokers are lost or refuse us; cleared by the first answer.
    is_down: AtomicBool,
    is_lost: AtomicBool,
    /// It was said that the consumer group takes no offsets.
    commit_failed: AtomicBool,
    ends: Mutex<HashMap<i32, i64>>,
    /// Offset of the last report that a partition's end was reached; read by the thread that is handed the report.
    end_reached_at: AtomicI64,
    /// Records handed to the client and neither delivered nor failed.
    pub in_flight: AtomicU64,
    /// Of a client: all records that were ever handed to it.
    pub handed: AtomicU64,
    /// Of a client: those of them that were acknowledged.
    acknowledged: AtomicU64,
    delivery_failure: Mutex<Option<String>>,
    /// Wakes whoever waits for a delivery.
    pub delivered: tokio::sync::Notify,
}

impl Events {
    /// For the client of one connector.
    pub fn new(transform: &str, servers: &str, topic: &str) -> Arc<Events> {
        Arc::new(Events {
            transform: transform.into(),
            servers: servers.into(),
            topic: topic.into(),
            connection_failure: Mutex::default(),
            refused: Mutex::default(),
            is_down: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            commit_failed: AtomicBool::new(false),
            ends: Mutex::default(),
            end_reached_at: AtomicI64::new(-1),
            in_flight: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            delivery_failure: Mutex::default(),
            delivered: tokio::sync::Notify::new(),
        })
    }

    /// For another client of the same connector.
    pub fn of_topic(&self, topic: &str) -> Arc<Events> {
        Events::new(&self.transform, &self.servers, topic)
    }

    /// Full name of the transform.
    pub fn transform(&self) -> &str {
        &self.transform
    }

    /// The last offset to be read from a partition plus one, as the broker last told.
    pub fn end_of(&self, partition: i32) -> Option<i64> {
        lock(&self.ends).get(&partition).copied()
    }

    /// Offset that the report of a partition's end named. Valid until the client is polled again.
    pub fn end_reached_at(&self) -> i64 {
        self.end_reached_at.load(Ordering::Relaxed)
    }

    /// Why a broker refused us; at the opening one refusal is enough.
    pub fn refusal(&self) -> Option<String> {
        lock(&self.refused).as_ref().map(|refusal| refusal.reason.clone())
    }

    /// Why brokers refuse us for good: a refusal that nothing can change, or one that has lasted for [`REFUSAL_PATIENCE`].
    pub fn lasting_refusal(&self) -> Option<String> {
        if !self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.refused)
            .as_ref()
            .filter(|refusal| refusal.is_final || passed(refusal.patience_ends))
            .map(|refusal| refusal.reason.clone())
    }

    fn refuse(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut refused = lock(&self.refused);
        let patience_ends = refused.as_ref().map_or_else(|| deadline(REFUSAL_PATIENCE), |refusal| refusal.patience_ends);
        *refused = Some(Refusal { reason: reason.to_string(), is_final: is_final(code), patience_ends });
        self.is_down.store(true, Ordering::Relaxed);
        drop(refused);
        self.delivered.notify_waiters();
    }

    /// The first record that could not be delivered.
    pub fn delivery_failure(&self) -> Option<String> {
        lock(&self.delivery_failure).clone()
    }

    /// Of a client: how many of the records that were handed to it are not acknowledged, whatever became of them.
    pub fn unacknowledged(&self) -> u64 {
        self.handed.load(Ordering::Acquire).saturating_sub(self.acknowledged.load(Ordering::Acquire))
    }

    /// A broker has answered: ends the state in which the loss of brokers was reported.
    pub fn answered(&self) {
        if !self.is_down.load(Ordering::Relaxed) {
            return;
        }
        let mut refused = lock(&self.refused);
        if refused.as_ref().is_some_and(|refusal| refusal.is_final) {
            return;
        }
        *refused = None;
        *lock(&self.connection_failure) = None;
        self.is_down.store(false, Ordering::Relaxed);
        if self.is_lost.swap(false, Ordering::Relaxed) {
            tracing::info!(transform = self.transform, bootstrap_servers = self.servers, "the Kafka brokers are reachable again");
        }
    }

    fn connection_failed(&self, reason: &str) {
        *lock(&self.connection_failure) = Some(reason.to_string());
    }

    fn lost(&self, reason: &str) {
        self.is_down.store(true, Ordering::Relaxed);
        if !self.is_lost.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                transform = self.transform,
                bootstrap_servers = self.servers,
                topic = self.topic,
                reason,
                "no Kafka broker is reachable; nothing is lost, the client keeps trying"
            );
        }
    }

    /// The error for a broker that does not answer.
    pub fn unreachable(&self) -> ConnectError {
        let reason = lock(&self.connection_failure).clone().unwrap_or_else(|| "no answer".into());
        ConnectError::external(format!(
            "no Kafka broker at {} answered within {} s ({reason}): check `bootstrap_servers`, the security settings, and that the broker runs",
            self.servers,
            OPEN_TIMEOUT.as_secs()
        ))
    }

    /// The error for a broker that refuses us.
    pub fn refused_error(&self, reason: &str) -> ConnectError {
        ConnectError::external(format!(
            "the Kafka broker at {} refused the connection: {reason}; check `security.protocol`, `sasl.*` and `ssl.*`",
            self.servers
        ))
    }
}

/// A broker's refusal, and when it is taken to be for good.
#[derive(Debug)]
struct Refusal {
    reason: String,
    is_final: bool,
    patience_ends: std::time::Instant,
}

/// Errors that mean a refusal.
pub fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    is_final(code) || matches!(code, Authentication | SaslAuthenticationFailed | IllegalSASLState | SSL)
}

/// Refusals that no later answer takes back. A broker that restarts may break a handshake or not know its users yet.
pub fn is_final(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        Fatal | UnsupportedSASLMechanism | ClusterAuthorizationFailed | TopicAuthorizationFailed | TransactionalIdAuthorizationFailed
    )
}

/// Hands the client's callbacks to [`Events`].
#[derive(Clone, Debug)]
pub struct Context(pub Arc<Events>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // "FAIL" is a connection that could not be made or broke; the state of all brokers is reported through `error`.
        if facility == "FAIL" {
            self.0.connection_failed(without_client_name(message));
            tracing::debug!(transform = self.0.transform, message, "a Kafka connection failed");
        } else if (level as i32) <= (RDKafkaLogLevel::Warning as i32) {
            tracing::warn!(transform = self.0.transform, facility, message, "message of the Kafka client");
        } else {
            tracing::debug!(transform = self.0.transform, facility, message, "message of the Kafka client");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.0.topic) else { return };
        let mut ends = lock(&self.0.ends);
        for (partition, known) in &topic.partitions {
            let end = if known.ls_offset >= 0 { known.ls_offset } else { known.hi_offset };
            if *partition >= 0 && end >= 0 {
                ends.insert(*partition, end);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => self.0.end_reached_at.store(end_offset(reason).unwrap_or(i64::MAX), Ordering::Relaxed),
            Some(RDKafkaErrorCode::AllBrokersDown) => self.0.lost(lock(&self.0.connection_failure).clone().unwrap_or_default().as_str()),
            Some(code) if is_refusal(code) => self.0.refuse(code, without_client_name(reason)),
            _ => {
                self.0.connection_failed(without_client_name(reason));
                tracing::debug!(transform = self.0.transform, reason, "the Kafka client reports an error");
            }
        }
    }
}

/// The offset in "… reached end of partition at offset N (HighwaterMark N)": the binding hands over the partition only.
fn end_offset(reason: &str) -> Option<i64> {
    let (_, rest) = reason.split_once("at offset ")?;
    rest.split(' ').next()?.parse().ok()
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        if !self.0.commit_failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                transform = self.0.transform,
                topic = self.0.topic,
                %error,
                "the consumer group does not take the positions, so tools that show its lag are wrong; the pipeline does not depend on it"
            );
        }
    }
}

impl ProducerContext for Context {
    /// Of the sink that sent the record: several may share a client.
    type DeliveryOpaque = Arc<Events>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Arc<Events>) {
        use rdkafka::Message;
        match result {
            Ok(_) => {
                self.0.acknowledged.fetch_add(1, Ordering::AcqRel);
                self.0.answered();
            }
            Err((error, message)) => {
                let reason = error.rdkafka_error_code().map_or_else(|| error.to_string(), describe);
                let help = delivery_help(error.rdkafka_error_code());
                lock(&sender.delivery_failure).get_or_insert_with(|| {
                    format!("a record for topic {} partition {} was not delivered: {reason}{help}", message.topic(), message.partition())
                });
            }
        }
        sender.in_flight.fetch_sub(1, Ordering::AcqRel);
        sender.delivered.notify_one();
    }
}

/// A producer that anybody may let go of: its thread is joined on drop and its queue waited for, which is no work for a worker.
pub struct SharedProducer {
    producer: Option<ThreadedProducer<Context>>,
    /// What the client reported of its connections; deliveries are reported to who sent.
    pub events: Arc<Events>,
    io: tokio::runtime::Handle,
}

impl SharedProducer {
    /// A client with these settings. Blocks for a moment.
    pub fn start(settings: &ClientConfig, events: &Arc<Events>, io: &tokio::runtime::Handle) -> Result<SharedProducer, KafkaError> {
        let producer = settings.create_with_context(Context(events.clone()))?;
        Ok(SharedProducer { producer: Some(producer), events: events.clone(), io: io.clone() })
    }
}

impl Deref for SharedProducer {
    type Target = ThreadedProducer<Context>;

    fn deref(&self) -> &ThreadedProducer<Context> {
        self.producer.as_ref().expect("taken on drop only")
    }
}

impl Drop for SharedProducer {
    fn drop(&mut self) {
        let producer = self.producer.take();
        self.io.spawn_blocking(move || drop(producer));
    }
}

fn delivery_help(code: Option<RDKafkaErrorCode>) -> &'static str {
    match code {
        Some(RDKafkaErrorCode::MessageTimedOut) => {
            "; the broker took no record within `message.timeout.ms` (a key of `producer_config_updates`)"
        }
        Some(RDKafkaErrorCode::InvalidTimestamp) => {
            "; the event time is outside what the topic's `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms` allow"
        }
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => "; the topic's `max.message.bytes` was lowered since the start",
        _ => "",
    }
}

/// An error code in words.
pub fn describe(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    // rdkafka prints `Name (Broker: explanation)`.
    match text.split_once('(') {
        Some((_, rest)) => rest.trim_end_matches(')').to_string(),
        None => text,
    }
}

/// librdkafka begins its lines with `[thrd:NAME]: `.
fn without_client_name(message: &str) -> &str {
    message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(message, |(_, text)| text)
}

/// Number of partitions of a topic. `serve` reads the client's queue, so that its errors are known.
/// Errors: the topic is missing (naming similar ones), the broker refuses us, or no broker answers within [`OPEN_TIMEOUT`].
pub fn count_partitions(client: &Client<Context>, topic: &str, serve: &mut dyn FnMut()) -> Result<i32, ConnectError> {
    let events = client.context().0.clone();
    let deadline = deadline(OPEN_TIMEOUT);
    loop {
        let answer = client.fetch_metadata(Some(topic), QUESTION_TIMEOUT);
        serve();
        match answer {
            Ok(metadata) => {
                let found = metadata.topics().iter().find(|known| known.name() == topic);
                match found.map(|known| (known.error().map(RDKafkaErrorCode::from), known.partitions().len())) {
                    Some((None, partitions)) if partitions > 0 => return Ok(i32::try_from(partitions).unwrap_or(i32::MAX)),
                    Some((Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _)) | None => {
                        return Err(missing_topic(client, topic));
                    }
                    Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
                        return Err(ConnectError::external(format!(
                            "the broker does not let this user see topic `{topic}`; grant it `Describe` and `Read` or `Write`"
                        )));
                    }
                    // The topic is being made, or has no leader yet.
                    Some(_) => std::thread::sleep(LEADER_PAUSE),
                }
            }
            Err(KafkaError::MetadataFetch(code)) if !is_refusal(code) => {}
            Err(error) => return Err(events.refused_error(&error.to_string())),
        }
        if let Some(reason) = events.refusal() {
            return Err(events.refused_error(&reason));
        }
        if passed(deadline) {
            return Err(events.unreachable());
        }
    }
}

fn missing_topic(client: &Client<Context>, topic: &str) -> ConnectError {
    let similar = client.fetch_metadata(None, QUESTION_TIMEOUT).ok().and_then(|metadata| {
        let names: Vec<&str> = metadata.topics().iter().map(|known| known.name()).filter(|name| !name.starts_with("__")).collect();
        nearest(topic, names).map(|name| format!("did you mean `{name}`? "))
    });
    ConnectError::user(
        format!("topic `{topic}` does not exist on {}", client.context().0.servers),
        format!("{}Pelton creates no topics: create it first, or correct `topic`", similar.unwrap_or_default()),
    )
}

/// First and last-plus-one offset of a partition.
pub fn offsets(client: &Client<Context>, topic: &str, partition: i32) -> Result<(i64, i64), ConnectError> {
    let deadline = deadline(OPEN_TIMEOUT);
    loop {
        match client.fetch_watermarks(topic, partition, QUESTION_TIMEOUT) {
            Ok(offsets) => return Ok(offsets),
            Err(error) if passed(deadline) || error.rdkafka_error_code().is_some_and(is_refusal) => {
                return Err(ConnectError::external(format!(
                    "the broker does not tell the offsets of topic {topic} partition {partition}: {error}"
                )));
            }
            Err(_) => {}
        }
    }
}

/// A moment of the machine's monotonic clock; the connector owns its time-outs.
#[allow(clippy::disallowed_methods, reason = "time-outs are by the clock")]
pub fn deadline(after: Duration) -> std::time::Instant {
    std::time::Instant::now() + after
}

/// The time until then.
#[allow(clippy::disallowed_methods, reason = "time-outs are by the clock")]
pub fn until(deadline: std::time::Instant) -> Duration {
    deadline.saturating_duration_since(std::time::Instant::now())
}

/// Whether the moment has come.
#[allow(clippy::disallowed_methods, reason = "time-outs are by the clock")]
pub fn passed(deadline: std::time::Instant) -> bool {
    std::time::Instant::now() >= deadline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_the_client_are_read() {
        assert_eq!(end_offset("Fetch from broker 1 reached end of partition at offset 17 (HighwaterMark 19)"), Some(17));
        assert_eq!(end_offset("something else"), None);
        assert_eq!(
            without_client_name("[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect failed"),
            "127.0.0.1:1/bootstrap: Connect failed"
        );
        assert_eq!(describe(RDKafkaErrorCode::MessageTimedOut), "Local: Message timed out");
    }
}
