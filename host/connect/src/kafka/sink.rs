//! `WriteToKafka`: each row as a record by an idempotent producer; at least once, or exactly once in the transactions of [`super::transaction`].
//!
//! The client's queue is bounded; when it is full `write` waits for deliveries without blocking its thread. What is wrong
//! with one row is known before the record is handed over: size and time are compared with the topic's own settings. A
//! delivery that fails later ends the run, because later records of the partition may already be written.
//!
//! Invariant: `finish` and `prepare` succeed only when every record was acknowledged by all in-sync replicas.

use super::client::{Events, SharedProducer};
use super::configs::{self, WriteConfig};
use super::encode::Layout;
use super::part::Part;
use super::send::{Limits, Record, Target, find_limits, fit_to, producer_config, refused_settings};
use super::transaction::Transactions;
use crate::ConnectError;
use crate::commit::Staged;
use crate::sink::{Sink, SinkContext, SinkSummary};
use async_trait::async_trait;
use pelton_core::{Batch, Epoch, Instant, RowError};
use rdkafka::producer::{Producer, PurgeConfig};
use serde_json::Value;
use std::sync::Arc;

struct KafkaSink {
    outlet: Outlet,
    target: Target,
    layout: Layout,
    buffer: Vec<u8>,
    summary: SinkSummary,
}

/// Where records go.
enum Outlet {
    /// A client of this shard's own; records count as soon as they are written.
    Alone(SharedProducer),
    /// The transactions of all Kafka sinks of the pipeline.
    Epochs(Part),
}

/// Connects, asks for the topic and its limits, and checks the columns.
pub async fn open(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let config = configs::write(&config, &mut Vec::new());
    let layout = Layout::new(&config, &ctx.schema)?;
    let events = Events::new(&ctx.transform, &config.bootstrap_servers, &config.topic);
    let topic = config.topic.clone();
    let (outlet, limits) = match &ctx.exactly_once {
        Some(part) => {
            let shared = part.shared.clone().and_then(|shared| shared.downcast::<Transactions>().ok());
            let shared = shared.ok_or_else(|| ConnectError::internal("a Kafka sink without its transactions"))?;
            let limits = shared.limits(&part.uid)?;
            (Outlet::Epochs(Part::new(shared, (part.uid.clone(), ctx.shard), part.epoch)), limits)
        }
        None => {
            let (asked, io) = (events.clone(), ctx.io.clone());
            let connected = ctx.io.spawn_blocking(move || connect(&config, &asked, &io)).await.map_err(ConnectError::internal)?;
            let (producer, limits) = connected?;
            (Outlet::Alone(producer), limits)
        }
    };
    let target = Target { topic, limits, events };
    Ok(Box::new(KafkaSink { outlet, target, layout, buffer: Vec::new(), summary: SinkSummary::default() }))
}

fn connect(config: &WriteConfig, events: &Arc<Events>, io: &tokio::runtime::Handle) -> Result<(SharedProducer, Limits), ConnectError> {
    let limits = find_limits(config, events, io)?;
    let mut settings = producer_config(config);
    fit_to(&mut settings, std::iter::once(limits));
    let producer = SharedProducer::start(&settings, events, io).map_err(|error| refused_settings(&error))?;
    Ok((producer, limits))
}

#[async_trait]
impl Sink for KafkaSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError> {
        self.begin_write().await?;
        let encoder = self.layout.encoder(&batch.rows)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut errors = Vec::new();
        let now = wall_millis();
        for row in 0..batch.num_rows() {
            let sent = match self.target.limits.timestamp(batch.times[row], now) {
                Ok(time) => match encoder.encode(row, &mut buffer) {
                    Ok(encoded) => {
                        let mut record = Record::with_opaque_to(&self.target.topic, self.target.events.clone());
                        record.key = encoder.key(row);
                        record.payload = encoded.value.clone().map(|range| &buffer[range]);
                        record.timestamp = time;
                        record.partition = encoded.partition;
                        record.headers = encoded.headers;
                        self.outlet.put(&self.target, record, encoded.headers_bytes).await?
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
        self.begin_write().await
    }

    async fn prepare(&mut self, epoch: Epoch, last: bool) -> Result<Staged, ConnectError> {
        match &mut self.outlet {
            // At least once: the epoch counts only when its records are written, and they are read already.
            Outlet::Alone(producer) => self.target.settle(producer).await.map(|()| Staged::default()),
            // The transactions are found by the pipeline's identity alone.
            Outlet::Epochs(part) => part.prepare(&self.target, epoch, last).await.map(|()| Staged::default()),
        }
    }

    fn written(&self) -> SinkSummary {
        self.summary.clone()
    }

    async fn finish(mut self: Box<Self>) -> Result<SinkSummary, ConnectError> {
        if let Outlet::Alone(producer) = &self.outlet {
            self.target.settle(producer).await?;
        }
        Ok(std::mem::take(&mut self.summary))
    }

    async fn abort(self: Box<Self>) {
        if let Outlet::Alone(producer) = &self.outlet {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }
}

impl KafkaSink {
    /// Surfaces what has failed since the last call, and sends what was held back.
    async fn begin_write(&mut self) -> Result<(), ConnectError> {
        match &mut self.outlet {
            Outlet::Alone(producer) => self.target.check(producer),
            Outlet::Epochs(part) => part.advance(&self.target).await,
        }
    }
}

impl Outlet {
    /// Takes a record: its bytes, or why the row is refused.
    async fn put(&mut self, target: &Target, record: Record<'_>, headers: usize) -> Result<Result<u64, String>, ConnectError> {
        let size = match target.admit(&record, headers) {
            Ok(size) => size,
            Err(reason) => return Ok(Err(reason)),
        };
        let taken = match self {
            Outlet::Alone(producer) => target.send(producer, record).await?,
            Outlet::Epochs(part) => part.put(target, record, size).await?,
        };
        Ok(taken.map(|()| size))
    }
}

#[allow(clippy::disallowed_methods)] // The broker compares records with its clock, so the sink must with this machine's.
fn wall_millis() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
