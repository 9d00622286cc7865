//! A pipeline's Kafka sinks over epochs, as the coordinator of checkpoints drives them, and a crash of it.

use crate::support::{PATIENCE, batch, records};
use arrow::array::{ArrayRef, Int64Array, StringArray};
use pelton_connect::{CommitTarget, Commits, ConnectError, DecideError, ExactlyOnce, Identity, Sink, SinkContext, open_commits};
use pelton_core::{Batch, Decision, WindowFn};
use rdkafka::Message;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Sinks of one life of a pipeline, one a topic.
pub struct Life {
    pub commits: Commits,
    pub sinks: Vec<Box<dyn Sink>>,
    /// What was decided when this life began.
    pub found: Option<Decision>,
    name: String,
    generation: u64,
    pub epoch: u64,
}

/// Who a pipeline is.
#[derive(Clone)]
pub struct Who {
    pub servers: String,
    pub name: String,
    pub topics: Vec<String>,
    pub interval: Duration,
    /// More of each sink's config.
    pub more: Value,
}

impl Who {
    pub fn new(servers: &str, name: &str, topics: &[&str]) -> Who {
        Who {
            servers: servers.into(),
            name: name.into(),
            topics: topics.iter().map(|topic| topic.to_string()).collect(),
            interval: Duration::from_secs(1),
            more: json!({}),
        }
    }

    fn config(&self, topic: &str) -> Value {
        let mut config = json!({"topic": topic, "bootstrap_servers": self.servers, "format": "JSON", "key": "key"});
        self.more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        config
    }

    fn identity(&self, generation: u64) -> Identity {
        Identity { pipeline: self.name.clone(), generation, again: false, interval: self.interval, outbox: "unused".into() }
    }

    /// Deciding only.
    pub async fn commits(&self, generation: u64) -> Result<Commits, ConnectError> {
        let target = |topic: &String| CommitTarget {
            uid: topic.clone(),
            transform: format!("Write {topic}"),
            kind: "WriteToKafka".into(),
            config: self.config(topic),
            base_dir: ".".into(),
        };
        let io = tokio::runtime::Handle::current();
        open_commits(self.topics.iter().map(target).collect(), self.identity(generation), &io).await
    }

    /// Fences, and goes on after what was decided.
    pub async fn begin(&self, generation: u64) -> Life {
        let mut commits = self.commits(generation).await.unwrap();
        let found = commits.decider.as_mut().unwrap().fence().await.unwrap();
        let epoch = found.as_ref().map_or(1, |decision| decision.epoch + 1);
        let mut sinks = Vec::new();
        for topic in &self.topics {
            let shared = commits.shared.iter().find(|(uid, _)| uid == topic).map(|(_, shared)| shared.clone());
            let exactly_once = ExactlyOnce { identity: self.identity(generation), uid: topic.clone(), epoch, restored: None, shared };
            let ctx = SinkContext {
                transform: format!("Write {topic}"),
                base_dir: ".".into(),
                io: tokio::runtime::Handle::current(),
                schema: rows(&[]).schema(),
                unbounded: true,
                window: WindowFn::Global,
                shard: 0,
                shards: 1,
                exactly_once: Some(exactly_once),
            };
            sinks.push(pelton_connect::open_sink("WriteToKafka", &self.config(topic), ctx).await.unwrap());
        }
        Life { commits, sinks, found, name: self.name.clone(), generation, epoch }
    }

    /// Numbers in a topic that a reader of committed records sees, in order by partition.
    pub fn visible(&self, servers: &str, topic: &str, partitions: i32) -> Vec<i64> {
        let mut found: Vec<(i32, Vec<i64>)> = records(servers, topic, partitions)
            .into_iter()
            .map(|(partition, records)| {
                let number = |record: &rdkafka::message::OwnedMessage| {
                    serde_json::from_slice::<Value>(record.payload().unwrap()).unwrap()["n"].as_i64().unwrap()
                };
                (partition, records.iter().map(number).collect())
            })
            .collect();
        found.sort();
        found.into_iter().flat_map(|(_, numbers)| numbers).collect()
    }
}

impl Life {
    pub async fn write(&mut self, sink: usize, numbers: &[i64]) -> Result<(), ConnectError> {
        let written = tokio::time::timeout(PATIENCE, self.sinks[sink].write(&rows(numbers))).await.expect("rows are taken in time");
        assert_eq!(written?, []);
        Ok(())
    }

    /// The barrier of the current epoch, at all sinks.
    pub async fn prepare(&mut self, last: bool) -> Result<(), ConnectError> {
        for sink in &mut self.sinks {
            tokio::time::timeout(PATIENCE, sink.prepare(self.epoch, last)).await.expect("a sink prepares in time")?;
        }
        self.epoch += 1;
        Ok(())
    }

    pub fn decision(&self, epoch: u64) -> Decision {
        Decision { pipeline: self.name.clone(), epoch, generation: self.generation, manifest: epoch * 1_000 + self.generation }
    }

    /// Decides the epoch before the current one.
    pub async fn decide(&mut self) -> Result<(), DecideError> {
        let decision = self.decision(self.epoch - 1);
        let decider = self.commits.decider.as_mut().unwrap();
        tokio::time::timeout(PATIENCE, decider.decide(&decision)).await.expect("a decision in time")
    }

    /// All of an epoch.
    pub async fn epoch(&mut self, numbers: &[i64]) {
        self.write(0, numbers).await.unwrap();
        self.prepare(false).await.unwrap();
        self.decide().await.unwrap();
    }
}

/// Rows with a key of ten and a number.
pub fn rows(numbers: &[i64]) -> Batch {
    let keys: Vec<String> = numbers.iter().map(|number| format!("key-{}", number % 10)).collect();
    batch(
        vec![("key", Arc::new(StringArray::from(keys)) as ArrayRef), ("n", Arc::new(Int64Array::from(numbers.to_vec())))],
        vec![1_000_000; numbers.len()],
    )
}
