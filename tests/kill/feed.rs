//! The records that a pipeline is given, while it runs: what is sent is remembered, and is what the answer is computed from.

use pelton_tests::numbers::Numbers;
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Of the input topic.
pub const PARTITIONS: i32 = 3;
/// 2026-01-01T00:00:00Z.
pub const DAY_MILLIS: i64 = 1_767_225_600_000;
/// Event time of the first record, after that.
const START_MILLIS: i64 = 3_600_000;
/// Between two records.
const STEP_MILLIS: i64 = 2;
/// Records are out of order by less than this, which is below the watermark's delay.
const DISORDER_MILLIS: u64 = 4_000;
/// The watermark's delay, in seconds.
pub const DELAY_SECONDS: i64 = 5;
/// One record of so many comes when its window has probably closed.
const ONE_LATE_IN: u64 = 150;
/// Users at a time; others take their place as time goes on, so that the state of one stays small.
const USERS: u64 = 500;
/// Records with the same users.
const RECORDS_OF_USERS: i64 = 10_000;
/// None that the plugin refuses.
const NUMBERS: [i64; 8] = [1, 2, 3, 4, 6, 7, 8, 9];
/// The feeder sends so often.
const BEAT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// One record. Those of a user lie in one partition, in the order of their ids.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: i64,
    pub user: String,
    pub number: i64,
    /// Event time after [`DAY_MILLIS`].
    pub millis: i64,
    partition: i32,
}

impl Record {
    fn make(id: i64, numbers: &mut Numbers) -> Record {
        let user = numbers.below(USERS) as i64 + id / RECORDS_OF_USERS * USERS as i64;
        let late = if numbers.below(ONE_LATE_IN) == 0 { numbers.between(30_000, 120_000) } else { 0 };
        let behind = (numbers.below(DISORDER_MILLIS) + late) as i64;
        Record {
            id,
            user: format!("user {user}"),
            number: *numbers.pick(&NUMBERS),
            millis: START_MILLIS + id * STEP_MILLIS - behind,
            partition: (user % i64::from(PARTITIONS)) as i32,
        }
    }

    /// The last of a partition, an hour after all others.
    fn closing(id: i64, partition: i32) -> Record {
        let millis = START_MILLIS + id * STEP_MILLIS + 3_600_000;
        Record { id, user: format!("closing {partition}"), number: 1, millis, partition }
    }

    /// It is one of those that move the watermark past all others.
    pub fn closes(&self) -> bool {
        self.user.starts_with("closing")
    }
}

/// Sends records at a rate until it is told to end.
pub struct Feeder {
    running: JoinHandle<Vec<Record>>,
    end: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Feeder {
    /// So many records a second.
    pub fn start(servers: &str, topic: &str, rate: u64, seed: u64) -> Feeder {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .create()
            .expect("a producer");
        let (topic, end) = (topic.to_string(), Arc::new(AtomicBool::new(false)));
        let (ended, sent) = (end.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = sent.clone();
        let running = std::thread::spawn(move || {
            let (begun, mut numbers, mut records) = (Instant::now(), Numbers::new(seed), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as usize;
                while records.len() < due {
                    let record = Record::make(records.len() as i64, &mut numbers);
                    send(&producer, &topic, &record);
                    records.push(record);
                }
                counted.store(records.len(), Ordering::Relaxed);
                producer.poll(Duration::ZERO);
                std::thread::sleep(BEAT);
            }
            for partition in 0..PARTITIONS {
                let record = Record::closing(records.len() as i64, partition);
                send(&producer, &topic, &record);
                records.push(record);
            }
            producer.flush(PATIENCE).expect("the broker takes all records");
            records
        });
        Feeder { running, end, sent }
    }

    /// Records that were sent so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends the closing records; gives all that were sent.
    pub fn finish(self) -> Vec<Record> {
        self.end.store(true, Ordering::Relaxed);
        self.running.join().expect("the feeder does not panic")
    }
}

fn send(producer: &BaseProducer, topic: &str, record: &Record) {
    let value = json!({"id": record.id, "user": record.user, "number": record.number}).to_string();
    let sent = BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).timestamp(DAY_MILLIS + record.millis);
    let mut sent = sent.payload(value.as_bytes());
    while let Err((error, back)) = producer.send(sent) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "the producer takes a record");
        // The broker is behind.
        producer.poll(BEAT);
        sent = back;
    }
}
