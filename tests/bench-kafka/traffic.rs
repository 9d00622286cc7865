//! A steady load on a pipeline that counts records by user, and the latency of each.
//!
//! Latency is from the producer to a reader of all records, also of those whose transaction is still open.

use crate::bare::{self, PATIENCE};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::{ClientConfig, Message};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Records a second at most: this program takes part of the processors, too.
const MAX_RATE: u64 = 2_000;
/// The load, of the peak.
const SHARE: f64 = 0.25;
const USERS: u64 = 1_000;
/// Before latencies are taken.
pub const WARM_UP: Duration = Duration::from_secs(10);
/// Microseconds.
pub const SECOND: u64 = 1_000_000;

/// A second in which latencies are taken, of a kind.
pub struct Window {
    pub begin: u64,
    pub end: u64,
    pub kind: usize,
}

/// Of each record when it was sent, and how long it took.
pub type Latencies = Vec<(u64, u64)>;

/// The load.
pub struct Traffic {
    over: Arc<AtomicBool>,
    feeding: JoinHandle<()>,
    reading: JoinHandle<Latencies>,
}

impl Traffic {
    /// So many records a second, from one topic to another.
    pub fn start(servers: &str, rate: u64, (input, output): (&str, &str)) -> Traffic {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let feeding = std::thread::spawn({
            let (servers, input, over, sent) = (servers.to_owned(), input.to_owned(), over.clone(), sent.clone());
            move || feed(&servers, &input, rate, &over, &sent)
        });
        let reading = std::thread::spawn({
            let (servers, output, over) = (servers.to_owned(), output.to_owned(), over.clone());
            move || read(&servers, &output, &over, &sent)
        });
        Traffic { over, feeding, reading }
    }

    /// Ends it; gives the latencies of all records.
    pub fn end(self) -> Latencies {
        self.over.store(true, Relaxed);
        self.feeding.join().expect("all is sent");
        self.reading.join().expect("all is read")
    }
}

/// The load on a pipeline whose peak is known.
pub fn rate(peak: f64) -> u64 {
    ((peak * SHARE) as u64).clamp(1, MAX_RATE)
}

/// Milliseconds of the records that were sent in the windows of a kind, sorted.
pub fn pooled(latencies: &[(u64, u64)], windows: &[Window], kind: usize) -> Vec<f64> {
    let inside = |sent: u64| windows.iter().any(|window| window.kind == kind && (window.begin..window.end).contains(&sent));
    let mut pooled: Vec<f64> = latencies.iter().filter(|(sent, _)| inside(*sent)).map(|(_, latency)| *latency as f64 / 1e3).collect();
    pooled.sort_by(f64::total_cmp);
    pooled
}

pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

pub fn record(number: u64) -> String {
    json!({"user": format!("user {}", number % USERS), "number": 1, "sent": micros()}).to_string()
}

fn feed(servers: &str, topic: &str, rate: u64, end: &AtomicBool, sent: &AtomicU64) {
    let producer = bare::producer(servers);
    let (began, mut number) = (micros(), 0);
    while !end.load(Relaxed) {
        let due = began + number * SECOND / rate;
        while micros() < due {
            producer.poll(Duration::from_millis(1));
        }
        bare::send(&producer, topic, record(number).as_bytes(), None);
        number += 1;
        sent.store(number, Relaxed);
    }
    producer.flush(PATIENCE).expect("all is written");
}

/// Of each record when it was sent, and how long it took.
fn read(servers: &str, topic: &str, end: &AtomicBool, sent: &AtomicU64) -> Latencies {
    let consumer = consumer(servers, topic);
    let mut latencies = Vec::new();
    while !end.load(Relaxed) || (latencies.len() as u64) < sent.load(Relaxed) {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message.expect("the broker is there");
        let row: Value = serde_json::from_slice(message.payload().expect("no tombstones")).expect("JSON");
        let sent = row["sent"].as_u64().expect("when it was sent");
        latencies.push((sent, micros().saturating_sub(sent)));
    }
    latencies
}

/// Of all records, from the beginning.
pub fn consumer(servers: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "bench-traffic")
        .set("fetch.wait.max.ms", "5")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_uncommitted")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    let mut partitions = rdkafka::TopicPartitionList::new();
    for partition in 0..crate::PARTITIONS {
        partitions.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).expect("an offset");
    }
    consumer.assign(&partitions).expect("partitions are there");
    consumer
}
