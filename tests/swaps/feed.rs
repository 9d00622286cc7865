//! Records that are sent while the pipeline is swapped. Those of a user lie in one partition, in the order of their ids.

use pelton_tests::numbers::Numbers;
use rdkafka::ClientConfig;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const INPUT: &str = "input";
pub const PARTITIONS: i32 = 3;
const USERS: u64 = 200;
const BEAT: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// A record, and where the broker has put it.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: i64,
    pub user: String,
    pub number: i64,
    pub partition: i32,
    pub offset: i64,
}

/// Takes note of offsets.
#[derive(Clone, Default)]
struct Offsets(Arc<Mutex<HashMap<i64, i64>>>);

impl ClientContext for Offsets {}

impl ProducerContext for Offsets {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Box<i64>) {
        let message = result.as_ref().expect("the broker takes a record");
        self.0.lock().unwrap().insert(*id, message.offset());
    }
}

/// Sends records at a rate until it is told to end.
pub struct Feeder {
    running: JoinHandle<Vec<Record>>,
    end: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Feeder {
    pub fn start(servers: &str, topic: &'static str, rate: u64, seed: u64) -> Feeder {
        let (end, offsets) = (Arc::new(AtomicBool::new(false)), Offsets::default());
        let producer: ThreadedProducer<Offsets> = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .create_with_context(offsets.clone())
            .expect("a producer");
        let (ended, sent) = (end.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = sent.clone();
        let running = std::thread::spawn(move || {
            let (begun, mut numbers, mut records) = (Instant::now(), Numbers::new(seed), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as usize;
                while records.len() < due {
                    let record = make(records.len() as i64, &mut numbers);
                    send(&producer, topic, &record);
                    records.push(record);
                }
                counted.store(records.len(), Ordering::Relaxed);
                std::thread::sleep(BEAT);
            }
            producer.flush(PATIENCE).expect("the broker takes all records");
            let offsets = offsets.0.lock().unwrap();
            records.iter_mut().for_each(|record| record.offset = offsets[&record.id]);
            records
        });
        Feeder { running, end, sent }
    }

    /// Records that were sent so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Gives all that were sent.
    pub fn finish(self) -> Vec<Record> {
        self.end.store(true, Ordering::Relaxed);
        self.running.join().expect("the feeder does not panic")
    }
}

fn make(id: i64, numbers: &mut Numbers) -> Record {
    let user = numbers.below(USERS) as i64;
    let number = numbers.below(1_000) as i64;
    Record { id, user: format!("user {user}"), number, partition: (user % i64::from(PARTITIONS)) as i32, offset: -1 }
}

fn send(producer: &ThreadedProducer<Offsets>, topic: &str, record: &Record) {
    let value = json!({"id": record.id, "user": record.user, "number": record.number}).to_string();
    let mut sent = BaseRecord::<[u8], [u8], Box<i64>>::with_opaque_to(topic, Box::new(record.id));
    sent = sent.partition(record.partition).payload(value.as_bytes());
    while let Err((_, back)) = producer.send(sent) {
        // The broker is behind.
        std::thread::sleep(BEAT);
        sent = back;
    }
}
