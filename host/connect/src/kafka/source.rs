//! `ReadFromKafka`: finds the partitions and where to begin, and divides them among readers.

use super::block::Block;
use super::client::{self, Context, Events};
use super::configs::{self, ReadConfig, Start};
use super::decode::{Columns, Decoder};
use super::poll::{Discovery, Feed, Job, Share, admit, admit_anew};
use super::settings::{client_config, creation_reason, default_to};
use super::topics;
use crate::ConnectError;
use crate::source::{Reader, Source, SourceBatch, SourceContext, SplitEvent};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use pelton_core::{Split, SplitPosition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// Memory of one consumer for records that were fetched ahead.
const FETCHED_AHEAD_KIB: &str = "16384";
/// How often the client tells the ends of partitions, from which the lag follows.
const STATISTICS_MS: &str = "1000";

/// An open topic.
struct KafkaSource {
    config: ReadConfig,
    columns: Columns,
    found: Vec<Found>,
    /// Which topic of that name it is; `None`: its brokers do not say.
    topic_id: Option<u128>,
    shares: Vec<Share>,
    ctx: SourceContext,
}

/// A partition that the broker has, and the offsets of its records: from `range.0` to before `range.1`.
#[derive(Clone, Copy, Debug)]
struct Found {
    partition: i32,
    range: (i64, i64),
}

/// How the work was divided at the first start.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    shares: Vec<Share>,
    /// Hexadecimal. Plans of earlier versions have none: then it is that of the topic which is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
}

/// Asks the broker for the topic's partitions and offsets. Blocks for at most a few times
/// [`client::OPEN_TIMEOUT`], on the context's I/O runtime.
pub async fn open(config: Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    let config = configs::read(&config, &mut Vec::new());
    let columns = Columns::new(&config)?;
    let (asked, transform) = (config.clone(), ctx.transform.clone());
    let found = ctx.io.spawn_blocking(move || find_partitions(&asked, &transform)).await.map_err(ConnectError::internal)?;
    let (found, topic_id) = found?;
    let share = |Found { partition, range: (first, end) }: &Found| Share {
        partition: *partition,
        start: if config.start == Start::Earliest { *first } else { *end },
        end: config.stop_at_end.then_some(*end),
    };
    let shares = found.iter().map(share).collect();
    Ok(Box::new(KafkaSource { config, columns, found, topic_id, shares, ctx }))
}

/// Its partitions, and which topic of its name it is.
fn find_partitions(config: &ReadConfig, transform: &str) -> Result<(Vec<Found>, Option<u128>), ConnectError> {
    let events = Events::new(transform, &config.bootstrap_servers, &config.topic);
    let consumer = connect(config, &events, transform)?;
    let partitions = client::count_partitions(consumer.client(), &config.topic, &mut || {
        // Logs and errors come with polls; there are no records before an assignment.
        while consumer.poll(client::SERVE).is_some() {}
    })?;
    let id = topics::id_of(consumer.client(), &config.topic);
    let found =
        (0..partitions).map(|partition| Ok(Found { partition, range: client::offsets(consumer.client(), &config.topic, partition)? }));
    Ok((found.collect::<Result<_, ConnectError>>()?, id))
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
        self.shares.iter().map(|share| Arc::new(split(&self.config.topic, share.partition))).collect()
    }

    fn project(&mut self, columns: &[String]) {
        self.columns.project(columns);
    }

    fn plan(&self) -> Vec<u8> {
        let topic_id = self.topic_id.map(|id| format!("{id:032x}"));
        serde_json::to_vec(&Plan { shares: self.shares.clone(), topic_id }).unwrap_or_default()
    }

    fn restore(&mut self, plan: &[u8], positions: Vec<SplitPosition>) -> Result<(), ConnectError> {
        let plan: Plan = serde_json::from_slice(plan).map_err(ConnectError::internal)?;
        let topic = &self.config.topic;
        let bounded = self.bounded();
        let mut shares: BTreeMap<i32, Share> = plan.shares.into_iter().map(|share| (share.partition, share)).collect();
        for found in self.found.iter().filter(|_| !bounded) {
            let new = Share { partition: found.partition, start: found.range.0, end: None };
            shares.entry(found.partition).or_insert(new);
        }
        for SplitPosition { split: id, position } in positions {
            let next = std::str::from_utf8(&position).ok().and_then(|offset| offset.parse().ok());
            let next: i64 = next.ok_or_else(|| ConnectError::internal(format!("the position of {id} is no offset")))?;
            let Some(share) = shares.values_mut().find(|share| split(topic, share.partition).id() == id) else {
                return Err(ConnectError::user(
                    format!("the state has the position of `{id}`, which topic {topic} does not have"),
                    "if the pipeline is to read another topic now, give the transform another name, or start without the state",
                ));
            };
            share.start = next;
        }
        let before = plan.topic_id.and_then(|id| u128::from_str_radix(&id, 16).ok());
        let is_another = before.zip(self.topic_id).is_some_and(|(before, found)| before != found);
        self.topic_id = self.topic_id.or(before);
        for share in shares.values_mut() {
            let Some(found) = self.found.iter().find(|found| found.partition == share.partition) else {
                return Err(ConnectError::user(
                    format!("topic {topic} no longer has partition {}: it was made anew", share.partition),
                    "records that were not read are lost; start the pipeline without its state",
                ));
            };
            share.start = match is_another {
                true => admit_anew(topic, share.partition, share.start, found.range, self.config.out_of_range)?,
                false => admit(topic, share.partition, share.start, found.range, self.config.out_of_range)?,
            };
            if is_another {
                share.end = share.end.map(|_| found.range.1);
            }
        }
        self.shares = shares.into_values().collect();
        Ok(())
    }

    fn readers(self: Box<Self>, count: usize) -> Result<Vec<Box<dyn Reader>>, ConnectError> {
        let until = self.config.max_read_time.map(client::deadline);
        (0..count)
            .map(|number| {
                let shares: Vec<Share> = self.shares.iter().skip(number).step_by(count.max(1)).copied().collect();
                let readers = count.clamp(1, self.found.len().max(1)) as i32;
                let discovery =
                    Discovery { interval: self.config.discover_interval, known: self.found.len() as i32, readers, number: number as i32 };
                let discovery = (!self.bounded()).then_some(discovery);
                Ok(Box::new(self.reader(shares, until, discovery)?) as Box<dyn Reader>)
            })
            .collect()
    }
}

impl KafkaSource {
    fn reader(
        &self,
        shares: Vec<Share>,
        until: Option<std::time::Instant>,
        discovery: Option<Discovery>,
    ) -> Result<KafkaReader, ConnectError> {
        let events = Events::new(&self.ctx.transform, &self.config.bootstrap_servers, &self.config.topic);
        let topic = self.config.topic.clone();
        let splits: BTreeMap<i32, Arc<Split>> =
            shares.iter().map(|share| (share.partition, Arc::new(split(&topic, share.partition)))).collect();
        let positions = shares.iter().map(|share| (share.partition, share.start)).collect();
        let feed = match shares.is_empty() {
            true => None,
            false => {
                let consumer = connect(&self.config, &events, &self.ctx.transform)?;
                let (topic, wanted) = (topic.clone(), self.config.columns.clone());
                let out_of_range = self.config.out_of_range;
                let topic_id = self.topic_id;
                let job = Job { consumer, events: events.clone(), topic, topic_id, shares, wanted, until, out_of_range, discovery };
                Some(Feed::start(job, self.ctx.io.clone())?)
            }
        };
        Ok(KafkaReader {
            feed,
            decoder: self.columns.decoder()?,
            events,
            topic,
            assigned: splits.values().cloned().collect(),
            splits,
            positions,
            stop: self.ctx.stop.clone(),
            paused: HashSet::new(),
            held: VecDeque::new(),
        })
    }
}

/// Some partitions of the topic.
struct KafkaReader {
    feed: Option<Feed>,
    decoder: Decoder,
    events: Arc<Events>,
    topic: String,
    /// At the start.
    assigned: Vec<Arc<Split>>,
    /// Those and what was added to the topic since.
    splits: BTreeMap<i32, Arc<Split>>,
    /// Where each goes on.
    positions: BTreeMap<i32, i64>,
    stop: tokio::sync::watch::Receiver<bool>,
    /// Partitions that are not wanted now.
    paused: HashSet<i32>,
    /// Blocks of theirs that had been fetched: at most what the poll thread may have on the way.
    held: VecDeque<Block>,
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>, ConnectError> {
        loop {
            if let Some(number) = self.held.iter().position(|block| !self.paused.contains(&block.partition)) {
                let block = self.held.remove(number).expect("its number was found just now");
                return Ok(Some(self.batch(block)));
            }
            let KafkaReader { feed, stop, held, .. } = self;
            let Some(open) = feed else { return Ok(None) };
            let block = tokio::select! {
                biased;
                // A closed channel means that nobody will ask to stop: the reader then goes on.
                Ok(_) = stop.wait_for(|stop| *stop) => None,
                block = open.next(!held.is_empty()) => block,
            };
            match block {
                Some(Ok(block)) => held.push_back(block),
                ended => {
                    *feed = None;
                    held.clear();
                    return ended.map_or(Ok(None), |error| error.map(|_| None));
                }
            }
        }
    }

    fn pause(&mut self, splits: &[Arc<Split>]) -> bool {
        let is_paused = |split: &Arc<Split>| splits.iter().any(|paused| Arc::ptr_eq(paused, split));
        self.paused = self.splits.iter().filter(|(_, split)| is_paused(split)).map(|(partition, _)| *partition).collect();
        if let Some(feed) = &self.feed {
            feed.pause(&self.paused);
        }
        true
    }

    fn assigned(&self) -> Vec<Arc<Split>> {
        self.assigned.clone()
    }

    fn positions(&self) -> Vec<SplitPosition> {
        let position = |(partition, next): (&i32, &i64)| SplitPosition {
            split: split(&self.topic, *partition).id(),
            position: next.to_string().into_bytes(),
        };
        self.positions.iter().map(position).collect()
    }

    fn decided(&mut self, positions: &[SplitPosition]) {
        let Some(feed) = &self.feed else { return };
        let of = |partition: i32| {
            let id = split(&self.topic, partition).id();
            let position = &positions.iter().find(|position| position.split == id)?.position;
            Some((partition, std::str::from_utf8(position).ok()?.parse().ok()?))
        };
        feed.commit(self.positions.keys().filter_map(|partition| of(*partition)).collect());
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
        self.positions.insert(block.partition, block.next);
        let split = self.splits.entry(block.partition).or_insert_with(|| Arc::new(split(&self.topic, block.partition))).clone();
        let decoded = self.decoder.decode(&block);
        SourceBatch {
            rows: decoded.rows,
            times: Some(decoded.times),
            split,
            offsets: decoded.offsets,
            errors: decoded.errors,
            split_ended: block.ended,
            bytes: block.bytes,
            lag,
            event: block.caught_up.then_some(SplitEvent::CaughtUp),
        }
    }
}

fn split(topic: &str, partition: i32) -> Split {
    Split::Kafka { topic: topic.into(), partition }
}
