//! `ReadFromKafka`: finds the partitions and where to begin, and divides them among readers.

use super::block::Block;
use super::client::{self, Context, Events};
use super::configs::{self, ReadConfig, Start};
use super::decode::{Columns, Decoder};
use super::poll::{Feed, Job, Share};
use super::settings::{client_config, creation_reason, default_to};
use crate::ConnectError;
use crate::source::{Reader, Source, SourceBatch, SourceContext, SplitEvent};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::Split;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Memory of one consumer for records that were fetched ahead.
const FETCHED_AHEAD_KIB: &str = "16384";
/// How often the client tells the ends of partitions, from which the lag follows.
const STATISTICS_MS: &str = "1000";

/// An open topic.
struct KafkaSource {
    config: ReadConfig,
    columns: Columns,
    shares: Vec<Share>,
    splits: HashMap<i32, Arc<Split>>,
    ctx: SourceContext,
}

/// Asks the broker for the topic's partitions and offsets. Blocks for at most a few times
/// [`client::OPEN_TIMEOUT`], on the context's I/O runtime.
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let config = configs::read(&config, &mut Vec::new());
    let columns = Columns::new(&config)?;
    let (asked, transform) = (config.clone(), ctx.transform.clone());
    let shares = ctx.io.spawn_blocking(move || find_shares(&asked, &transform)).await.map_err(ConnectError::internal)??;
    let splits = shares
        .iter()
        .map(|share| (share.partition, Arc::new(Split::Kafka { topic: config.topic.clone(), partition: share.partition })))
        .collect();
    Ok(Box::new(KafkaSource { config, columns, shares, splits, ctx }))
}

fn find_shares(config: &ReadConfig, transform: &str) -> Result<Vec<Share>, ConnectError> {
    let events = Events::new(transform, &config.bootstrap_servers, &config.topic);
    let consumer = connect(config, &events, transform)?;
    let partitions = client::count_partitions(consumer.client(), &config.topic, &mut || {
        // Logs and errors come with polls; there are no records before an assignment.
        while consumer.poll(client::SERVE).is_some() {}
    })?;
    (0..partitions)
        .map(|partition| {
            let (first, end) = client::offsets(consumer.client(), &config.topic, partition)?;
            let start = if config.start == Start::Earliest { first } else { end };
            Ok(Share { partition, start, end: config.stop_at_end.then_some(end) })
        })
        .collect()
}

fn connect(config: &ReadConfig, events: &Arc<Events>, transform: &str) -> Result<BaseConsumer<Context>, ConnectError> {
    consumer_config(config, transform).create_with_context(Context(events.clone())).map_err(|error| {
        ConnectError::user(
            format!("the Kafka client refuses its configuration: {}", creation_reason(&error)),
            "correct `consumer_config`; names and values are librdkafka's",
        )
    })
}

fn consumer_config(config: &ReadConfig, transform: &str) -> ClientConfig {
    let mut settings = client_config(&config.bootstrap_servers, &config.client);
    // The client wants the name of a group although none is joined; brokers may limit names by access rules.
    default_to(&mut settings, "group.id", &format!("pelton-{}", transform.replace(['/', ' '], "-")));
    // With the default of a second an emptied queue costs a second's pause; consuming a million records took twice as long.
    default_to(&mut settings, "fetch.queue.backoff.ms", "10");
    default_to(&mut settings, "fetch.wait.max.ms", "100");
    default_to(&mut settings, "reconnect.backoff.max.ms", "1000");
    settings
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("max.poll.interval.ms", "86400000")
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KIB)
        .set("statistics.interval.ms", STATISTICS_MS);
    settings
}

impl Source for KafkaSource {
    fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }

    fn bounded(&self) -> bool {
        self.config.stop_at_end || self.config.max_read_time.is_some()
    }

    fn splits(&self) -> Vec<Arc<Split>> {
        self.shares.iter().map(|share| self.splits[&share.partition].clone()).collect()
    }

    fn project(&mut self, columns: &[String]) {
        self.columns.project(columns);
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let until = self.config.max_read_time.map(client::deadline);
        (0..count)
            .map(|number| {
                let shares: Vec<Share> = self.shares.iter().skip(number).step_by(count.max(1)).copied().collect();
                Ok(Box::new(self.reader(shares, until)?) as Box<dyn Reader>)
            })
            .collect()
    }
}

impl KafkaSource {
    fn reader(&self, shares: Vec<Share>, until: Option<std::time::Instant>) -> Result<KafkaReader, ConnectError> {
        let events = Events::new(&self.ctx.transform, &self.config.bootstrap_servers, &self.config.topic);
        let assigned: Vec<Arc<Split>> = shares.iter().map(|share| self.splits[&share.partition].clone()).collect();
        let feed = match shares.is_empty() {
            true => None,
            false => {
                let consumer = connect(&self.config, &events, &self.ctx.transform)?;
                let (topic, wanted) = (self.config.topic.clone(), self.config.columns.clone());
                Some(Feed::start(Job { consumer, events: events.clone(), topic, shares, wanted, until }, self.ctx.io.clone())?)
            }
        };
        Ok(KafkaReader {
            feed,
            decoder: self.columns.decoder()?,
            events,
            splits: self.splits.clone(),
            assigned,
            stop: self.ctx.stop.clone(),
        })
    }
}

/// Some partitions of the topic.
struct KafkaReader {
    feed: Option<Feed>,
    decoder: Decoder,
    events: Arc<Events>,
    splits: HashMap<i32, Arc<Split>>,
    assigned: Vec<Arc<Split>>,
    stop: tokio::sync::watch::Receiver<bool>,
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        let Some(feed) = &mut self.feed else { return Ok(None) };
        let block = tokio::select! {
            biased;
            // A closed channel means that nobody will ask to stop: the reader then goes on.
            Ok(_) = self.stop.wait_for(|stop| *stop) => None,
            block = feed.next() => block,
        };
        match block {
            Some(Ok(block)) => Ok(Some(self.batch(block))),
            Some(Err(error)) => {
                self.feed = None;
                Err(error)
            }
            None => {
                self.feed = None;
                Ok(None)
            }
        }
    }

    fn assigned(&self) -> Vec<Arc<Split>> {
        self.assigned.clone()
    }

    fn unclaimed(&self) -> bool {
        false
    }
}

impl KafkaReader {
    fn batch(&mut self, block: Block) -> SourceBatch {
        let lag = match (self.events.end_of(block.partition), block.offsets.last()) {
            _ if block.caught_up || block.ended => Some(0),
            (Some(end), Some(last)) => Some((end - last - 1).max(0)),
            _ => None,
        };
        let decoded = self.decoder.decode(&block);
        SourceBatch {
            rows: decoded.rows,
            times: Some(decoded.times),
            split: self.splits[&block.partition].clone(),
            offsets: decoded.offsets,
            errors: decoded.errors,
            split_ended: block.ended,
            bytes: block.bytes,
            lag,
            event: block.caught_up.then_some(SplitEvent::CaughtUp),
        }
    }
}
