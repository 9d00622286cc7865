//! One shard's part in the transactions of a pipeline.
//!
//! Records of an epoch go into its transaction as soon as it is open to this shard. Until then (the epoch before is not yet acknowledged everywhere,
//! or the slot's last transaction is not yet decided) they are held here, up to [`HELD_BYTES`]; then `put` waits.
//!
//! Invariant: records of a shard are handed to clients in the order of `put`.

use super::client::{Events, SharedProducer};
use super::send::{Record, Target};
use super::transaction::{ShardId, Transactions};
use crate::ConnectError;
use pelton_core::{Epoch, failpoint};
use rdkafka::message::OwnedHeaders;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of records that a shard holds: what a fast pipeline makes in the tens of milliseconds that acknowledgements take.
const HELD_BYTES: usize = 4 * 1024 * 1024;
/// What a held record takes beside its key and value.
const HELD_RECORD: usize = 128;

/// A shard of a sink among those that share the transactions.
pub struct Part {
    transactions: Arc<Transactions>,
    shard: ShardId,
    /// The epoch that records belong to now.
    epoch: Epoch,
    /// Of the epoch's transaction, once it is open to this shard; then nothing is held.
    producer: Option<Arc<SharedProducer>>,
    held: Held,
}

impl Part {
    /// The first records belong to `epoch`.
    pub fn new(transactions: Arc<Transactions>, shard: ShardId, epoch: Epoch) -> Part {
        transactions.join(shard.clone(), epoch);
        Part { transactions, shard, epoch, producer: None, held: Held::default() }
    }

    /// Takes a record. The inner error is why the client refuses it.
    pub async fn put(&mut self, target: &Target, record: Record<'_>, size: u64) -> Result<Result<(), String>, ConnectError> {
        if let Some(producer) = &self.producer {
            return match self.unless_failed(target.send(producer, record)).await {
                Ok(taken) => {
                    failpoint::hit("kafka.sent");
                    Ok(taken)
                }
                Err(error) => Err(self.transactions.explain(producer, error).await),
            };
        }
        self.held.push(record, size as usize);
        if self.held.weight > HELD_BYTES {
            self.open(target).await?;
        }
        Ok(Ok(()))
    }

    /// Surfaces failures; sends what is held, if the transaction is open by now.
    pub async fn advance(&mut self, target: &Target) -> Result<(), ConnectError> {
        self.transactions.check()?;
        match &self.producer {
            Some(producer) => match target.check(producer) {
                Ok(()) => Ok(()),
                Err(error) => Err(self.transactions.explain(producer, error).await),
            },
            None => match self.transactions.try_enter(self.epoch)? {
                Some(producer) => self.send_held(target, producer).await,
                None => Ok(()),
            },
        }
    }

    /// Every record of the epoch is acknowledged when this returns.
    pub async fn prepare(&mut self, target: &Target, epoch: Epoch, last: bool) -> Result<(), ConnectError> {
        if epoch != self.epoch {
            return Err(ConnectError::internal(format!("the barrier of epoch {epoch} came to a Kafka sink in epoch {}", self.epoch)));
        }
        self.transactions.check()?;
        if !self.held.is_empty() {
            self.open(target).await?;
        }
        if let Some(producer) = self.producer.take()
            && let Err(error) = self.unless_failed(target.settle(&producer)).await
        {
            return Err(self.transactions.explain(&producer, error).await);
        }
        failpoint::hit("kafka.flushed");
        self.transactions.acknowledged(self.shard.clone(), if last { Epoch::MAX } else { epoch });
        self.epoch = epoch + 1;
        Ok(())
    }

    /// What is waited for, or why nobody should wait any longer: the client tells of a topic that is gone only when its records' time is over.
    async fn unless_failed<T>(&self, wait: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        tokio::select! {
            biased;
            done = wait => done,
            failure = self.transactions.failed() => Err(failure),
        }
    }

    async fn open(&mut self, target: &Target) -> Result<(), ConnectError> {
        let producer = self.transactions.enter(self.epoch).await?;
        self.send_held(target, producer).await
    }

    async fn send_held(&mut self, target: &Target, producer: Arc<SharedProducer>) -> Result<(), ConnectError> {
        let mut held = std::mem::take(&mut self.held);
        for number in 0..held.records.len() {
            match self.unless_failed(target.send(&producer, held.record(number, target))).await {
                Ok(Ok(())) => {}
                // It was found to fit the topic when it was taken; the row can no longer be refused.
                Ok(Err(reason)) => return Err(ConnectError::external(format!("topic {} takes no record: {reason}", target.topic))),
                Err(error) => return Err(self.transactions.explain(&producer, error).await),
            }
        }
        held.clear();
        failpoint::hit("kafka.entered");
        self.held = held;
        self.producer = Some(producer);
        Ok(())
    }
}

/// Records in order, one after the other in one buffer.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    records: Vec<HeldRecord>,
    weight: usize,
}

struct HeldRecord {
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    time: Option<i64>,
    partition: Option<i32>,
    headers: Option<OwnedHeaders>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn push(&mut self, record: Record<'_>, size: usize) {
        let mut keep = |part: Option<&[u8]>| {
            part.map(|part| {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(part);
                start..self.bytes.len()
            })
        };
        let (key, value) = (keep(record.key), keep(record.payload));
        self.records.push(HeldRecord { key, value, time: record.timestamp, partition: record.partition, headers: record.headers });
        self.weight += size + HELD_RECORD;
    }

    fn record<'a>(&'a mut self, number: usize, target: &'a Target) -> Record<'a> {
        let mut record = Record::with_opaque_to(&target.topic, Arc::<Events>::clone(&target.events));
        let held = &mut self.records[number];
        record.key = held.key.clone().map(|range| &self.bytes[range]);
        record.payload = held.value.clone().map(|range| &self.bytes[range]);
        record.timestamp = held.time;
        record.partition = held.partition;
        record.headers = held.headers.take();
        record
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.weight = 0;
    }
}
