//! Deciding epochs by Kafka: the decision is a record of the progress topic, in the transaction of the epoch's data.

use super::configs::{self, WriteConfig};
use super::transaction::{Transactions, Trouble, is_fenced};
use super::{client, settings};
use crate::ConnectError;
use crate::commit::{CommitTarget, DecideError, Decider, Deciding, Identity};
use async_trait::async_trait;
use pelton_core::{Decision, failpoint};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// A decision that takes longer is not known to be one: recovery asks.
const PATIENCE: Duration = Duration::from_secs(30);

/// Deciding for these sinks, all of Kafka. Asks the brokers for their topics; begins no transaction.
pub async fn open(targets: Vec<CommitTarget>, identity: Identity, io: tokio::runtime::Handle) -> Result<Box<Deciding>, ConnectError> {
    let uids: Vec<String> = targets.iter().map(|target| target.uid.clone()).collect();
    let named: Vec<(String, WriteConfig)> =
        targets.iter().map(|target| (target.transform.clone(), configs::write(&target.config, &mut Vec::new()))).collect();
    same_cluster(&named)?;
    let transform = named.iter().map(|(transform, _)| transform.as_str()).collect::<Vec<_>>().join(", ");
    let sinks: Vec<(String, WriteConfig)> = uids.iter().cloned().zip(named.into_iter().map(|(_, config)| config)).collect();
    let handle = io.clone();
    let opened =
        io.spawn_blocking(move || Transactions::open(&sinks, &transform, identity, &handle)).await.map_err(ConnectError::internal)?;
    let transactions = Arc::new(opened?);
    let shared = uids.into_iter().map(|uid| (uid, transactions.clone() as Arc<dyn Any + Send + Sync>)).collect();
    Ok(Box::new(Deciding { decider: Box::new(KafkaDecider { transactions, io }), shared }))
}

/// One producer writes for all sinks, so that one transaction decides.
fn same_cluster(sinks: &[(String, WriteConfig)]) -> Result<(), ConnectError> {
    let Some(((first, common), others)) = sinks.split_first() else { return Ok(()) };
    for (other, config) in others {
        let differs = |key: &str| {
            Err(ConnectError::user(
                format!(
                    "`{key}` of {first} and {other} differ; with `delivery: exactly_once` all Kafka sinks of a pipeline write in one transaction"
                ),
                "make them equal, write to the other cluster from a pipeline of its own, or set `delivery: at_least_once`",
            ))
        };
        if servers(config) != servers(common) {
            return differs("bootstrap_servers");
        }
        if config.client != common.client {
            return differs(settings::Client::Producer.config_key());
        }
        if config.progress_topic != common.progress_topic {
            return differs("progress_topic");
        }
    }
    Ok(())
}

fn servers(config: &WriteConfig) -> Vec<&str> {
    let mut servers: Vec<&str> = config.bootstrap_servers.split(',').map(str::trim).collect();
    servers.sort_unstable();
    servers
}

struct KafkaDecider {
    transactions: Arc<Transactions>,
    io: tokio::runtime::Handle,
}

impl Drop for KafkaDecider {
    fn drop(&mut self) {
        self.transactions.end();
    }
}

#[async_trait]
impl Decider for KafkaDecider {
    fn describe(&self) -> String {
        format!("Kafka at {}", self.transactions.servers())
    }

    async fn fence(&mut self) -> Result<Option<Decision>, ConnectError> {
        let transactions = self.transactions.clone();
        self.io.spawn_blocking(move || transactions.fence()).await.map_err(ConnectError::internal)?
    }

    async fn decide(&mut self, decision: &Decision) -> Result<(), DecideError> {
        let (transactions, decision) = (self.transactions.clone(), decision.clone());
        let decided = match transactions.take(decision.epoch).await {
            Ok(producer) => {
                let deciding = self.io.spawn_blocking(move || {
                    let clean = commit(&transactions, &producer, &decision)?;
                    transactions.renew(decision.epoch, producer, clean);
                    Ok(())
                });
                deciding.await.unwrap_or_else(|failed| Err(DecideError::Unknown(failed.to_string())))
            }
            Err(ConnectError::Fenced { message }) => Err(DecideError::Fenced(message)),
            Err(error) => Err(DecideError::Undecided(error)),
        };
        if let Err(error) = &decided {
            self.transactions.fail(failure(error));
        }
        decided
    }

    async fn check_owner(&mut self) -> Result<(), ConnectError> {
        let transactions = self.transactions.clone();
        self.io.spawn_blocking(move || transactions.check_fence()).await.map_err(ConnectError::internal)?
    }
}

/// For shards that still write.
fn failure(error: &DecideError) -> ConnectError {
    match error {
        DecideError::Fenced(message) => ConnectError::Fenced { message: message.clone() },
        DecideError::Unknown(message) => ConnectError::external(message.clone()),
        DecideError::Undecided(error) => error.clone(),
    }
}

/// Whether the producer may be used again.
fn commit(transactions: &Transactions, producer: &client::SharedProducer, decision: &Decision) -> Result<bool, DecideError> {
    let deadline = client::deadline(PATIENCE);
    let value = serde_json::to_vec(decision).map_err(|error| DecideError::Undecided(ConnectError::internal(error)))?;
    failpoint::hit("kafka.record");
    if let Err(error) = transactions.write_progress(producer, decision.pipeline.as_bytes(), &value, deadline) {
        // Nobody has asked for a commit, and nobody will: the producer goes.
        return Err(match is_fenced(producer).then(|| transactions.why_fenced()) {
            Some(ConnectError::Fenced { message }) => DecideError::Fenced(message),
            Some(reason) => DecideError::Undecided(reason),
            None => DecideError::Undecided(transactions.look(producer, 1).err().unwrap_or(error)),
        });
    }
    // Every shard has waited for its own. What the client commits is counted once more, whoever sent it.
    match producer.events.unacknowledged() {
        0 => {}
        lost => {
            return Err(DecideError::Undecided(ConnectError::external(format!(
                "{lost} records of epoch {} were not acknowledged by {}",
                decision.epoch,
                describe(transactions)
            ))));
        }
    }
    failpoint::hit("kafka.recorded");
    let unknown = |reason: String| {
        DecideError::Unknown(format!("{} did not say whether epoch {} was committed: {reason}", describe(transactions), decision.epoch))
    };
    match transactions.commit(producer, deadline) {
        Ok(clean) => {
            failpoint::hit("kafka.committed");
            Ok(clean)
        }
        Err(Trouble::Fenced(reason)) => Err(match transactions.why_fenced() {
            ConnectError::Fenced { message } => DecideError::Fenced(message),
            _ => unknown(reason),
        }),
        Err(Trouble::Retriable(reason)) => Err(unknown(reason)),
        Err(Trouble::Lasting(error)) => Err(unknown(error.to_string())),
    }
}

fn describe(transactions: &Transactions) -> String {
    format!("Kafka at {}", transactions.servers())
}
