//! Opening connectors, collecting what a source gives, and a plain client as the other side.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use pelton_connect::{ConnectError, Reader, Sink, SinkContext, Source, SourceBatch, SourceContext};
use pelton_core::{Batch, Positions, WindowFn};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No condition takes longer on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Brokers mark a transaction in its partitions some time after they have said that it is committed: reads until it is as expected, or for too long.
pub fn comes_to<T: PartialEq + std::fmt::Debug>(expected: &T, mut read: impl FnMut() -> T) {
    let begun = Instant::now();
    loop {
        let found = read();
        if found == *expected || begun.elapsed() > PATIENCE {
            assert_eq!(found, *expected);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A runtime as the host's: two threads for I/O. Tests block on it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Both configs with some more keys.
pub fn config(servers: &str, topic: &str, more: Value) -> Value {
    let mut config = json!({"topic": topic, "bootstrap_servers": servers});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Opens a source. The sender stops it.
pub async fn source(config: &Value) -> Result<(Box<dyn Source>, tokio::sync::watch::Sender<bool>), ConnectError> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ctx = SourceContext {
        transform: "Read".into(),
        parallelism: 2,
        base_dir: ".".into(),
        io: tokio::runtime::Handle::current(),
        stop: stopped,
    };
    Ok((pelton_connect::open_source("ReadFromKafka", config, ctx).await?, stop))
}

/// Everything that a bounded source gives.
#[derive(Default)]
pub struct Read {
    pub batches: Vec<SourceBatch>,
}

impl Read {
    /// Reads with this many readers until all have ended.
    pub async fn all(config: &Value, readers: usize) -> Read {
        let (source, _stop) = source(config).await.unwrap();
        assert!(source.bounded());
        let mut read = Read::default();
        for mut reader in source.readers(readers).unwrap() {
            while let Some(batch) = next(&mut *reader).await.unwrap() {
                read.batches.push(batch);
            }
        }
        read
    }

    /// The rows of a column, as JSON for comparing: string, bytes as string, integers.
    pub fn cells(&self, column: &str) -> Vec<Value> {
        self.batches.iter().flat_map(|batch| cells(batch.rows.column_by_name(column).unwrap())).collect()
    }

    /// Partition, offset and message of the errors, in order.
    pub fn errors(&self) -> Vec<(String, i64, String)> {
        let all = self
            .batches
            .iter()
            .flat_map(|batch| batch.errors.iter().map(|error| (batch.split.to_string(), error.offset, error.message.clone())));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }
}

pub fn cells(column: &ArrayRef) -> Vec<Value> {
    use arrow::datatypes::{DataType, Int32Type, Int64Type};
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().map(|cell| json!(cell)).collect(),
        DataType::Binary => column.as_binary::<i32>().iter().map(|cell| json!(cell.map(String::from_utf8_lossy))).collect(),
        DataType::Int32 => column.as_primitive::<Int32Type>().iter().map(|cell| json!(cell)).collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().iter().map(|cell| json!(cell)).collect(),
        other => panic!("no cells of {other}"),
    }
}

/// The next batch within the patience.
pub async fn next(reader: &mut dyn Reader) -> Result<Option<SourceBatch>, ConnectError> {
    tokio::time::timeout(PATIENCE, reader.next()).await.expect("the source gives a batch in time")
}

/// Opens a sink for these columns.
pub async fn sink(config: &Value, schema: SchemaRef) -> Result<Box<dyn Sink>, ConnectError> {
    let ctx = SinkContext {
        transform: "Write".into(),
        base_dir: ".".into(),
        io: tokio::runtime::Handle::current(),
        schema,
        unbounded: false,
        window: WindowFn::Global,
        shard: 0,
        shards: 1,
        exactly_once: None,
    };
    pelton_connect::open_sink("WriteToKafka", config, ctx).await
}

/// Rows with event times.
pub fn batch(columns: Vec<(&str, ArrayRef)>, times: Vec<i64>) -> Batch {
    let fields: Vec<arrow::datatypes::Field> =
        columns.iter().map(|(name, column)| arrow::datatypes::Field::new(*name, column.data_type().clone(), true)).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect()).unwrap();
    Batch::new(rows, ScalarBuffer::from(times), Positions::None)
}

/// A plain producer, and the records of a test.
pub struct Feeder(BaseProducer);

impl Feeder {
    pub fn new(servers: &str, settings: &[(&str, &str)]) -> Feeder {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers).set("linger.ms", "0");
        settings.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        Feeder(config.create().unwrap())
    }

    pub fn producer(&self) -> &BaseProducer {
        &self.0
    }

    pub fn send(&self, record: BaseRecord<'_, [u8], [u8]>) {
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// One record of a partition.
    pub fn put(&self, topic: &str, partition: i32, value: Option<&[u8]>, key: Option<&[u8]>, millis: i64) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).timestamp(millis);
        record.payload = value;
        record.key = key;
        self.send(record);
    }

    pub fn flush(&self) {
        self.0.flush(PATIENCE).unwrap();
    }
}

/// Every committed record of a topic, read by a plain consumer, by partition.
pub fn records(servers: &str, topic: &str, partitions: i32) -> HashMap<i32, Vec<OwnedMessage>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "check")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    (0..partitions).for_each(|partition| list.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();
    let mut found: HashMap<i32, Vec<OwnedMessage>> = HashMap::new();
    let (mut ends, deadline) = (0, Instant::now() + PATIENCE);
    while ends < partitions {
        assert!(Instant::now() < deadline, "topic {topic} is not read to its end in time");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.entry(rdkafka::Message::partition(&message)).or_default().push(message.detach()),
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    found
}
