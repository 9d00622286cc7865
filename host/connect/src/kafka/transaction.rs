//! The transactions of a pipeline: one an epoch, of all its Kafka sinks together, in two slots that take turns.
//!
//! Epoch N belongs to the slot N mod 2, whose transactional id is the pipeline's name and the slot's. While the transaction of N waits for its
//! decision, that of N + 1 fills. A slot is used again when its last epoch is decided: with a fresh producer, whose `init_transactions` gives it a
//! new epoch at the broker, or with the same one where epochs come faster than that. A transaction exists for the broker
//! only from its first record on, so an idle pipeline has none open.
//!
//! Invariants:
//! - records of N + 1 are handed to a client only when those of N are acknowledged, all of them, for all sinks: order by key holds across
//!   epochs, and an open transaction never hides records of the one before;
//! - a producer that has seen an error whose outcome is not known is never used again;
//! - a producer fills a slot only when this process was the last to write itself down as owner, read after the producer's `init_transactions`.
//!   An owner writes itself down in a transaction of each slot. So of two processes either the later sees the owner's record and stops, or the
//!   earlier fails to write it.

use super::client::{self, Events, SharedProducer, lock};
use super::configs::WriteConfig;
use super::progress::{Owner, PARTITION, Progress, owner_key};
use super::send::{Limits, Record, Target, find_limits, fit_to, producer_config, refused_settings};
use super::settings::connection_config;
use super::topics::{self, Topics};
use crate::ConnectError;
use crate::commit::Identity;
use pelton_core::{Decision, Epoch, failpoint};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// From this interval on each epoch has a fresh producer: below, `init_transactions` (60 ms, at times 500) would not be done in time.
const FRESH_FROM: Duration = Duration::from_millis(500);
/// Bounds of `transaction.timeout.ms`; the upper one is the broker's default of what it allows.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));
/// The timeout in intervals.
const TIMEOUT_INTERVALS: u32 = 10;
/// A broker that restarts is back within this time; a slot that cannot be renewed for longer ends the run.
const PATIENCE: Duration = Duration::from_secs(60);
/// A new producer is in its slot within this time, or another one tries.
const INIT: Duration = Duration::from_secs(10);
/// One call of `init_transactions`, which goes on where the last one ended.
const INIT_STEP: Duration = Duration::from_secs(1);
/// How often a process that is fenced while it fences the others tries again.
const TAKE_OVERS: usize = 4;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is asked whether the topics are still there.
const LOOK: Duration = Duration::from_secs(1);
/// Names of slots.
const SLOTS: [&str; 2] = ["a", "b"];

/// A shard of a sink: uid and number.
pub type ShardId = (String, usize);

/// The transactions that the Kafka sinks of a pipeline share.
pub struct Transactions {
    plan: Plan,
    /// This process, for [`Owner`].
    process: String,
    state: watch::Sender<State>,
    /// Taken by whoever makes a producer or asks who owns the pipeline: one at a time.
    progress: Mutex<Option<Progress>>,
    /// Those of all sinks, and the progress topic.
    topics: Mutex<Topics>,
    /// Counts the times that all was begun anew; who began before that must not go on.
    life: AtomicU64,
    io: tokio::runtime::Handle,
}

/// What does not change.
struct Plan {
    identity: Identity,
    /// Of every producer, without its transactional id.
    settings: ClientConfig,
    /// Of clients that read or administrate.
    connection: ClientConfig,
    servers: String,
    progress_topic: String,
    /// By uid of the sink.
    limits: HashMap<String, Limits>,
    /// For messages of clients.
    events: Arc<Events>,
}

struct State {
    slots: [Slot; 2],
    /// The last epoch that each shard has had acknowledged.
    acknowledged: HashMap<ShardId, Epoch>,
    /// The first epoch of this life.
    first: Option<Epoch>,
    failure: Option<ConnectError>,
}

#[derive(Default)]
enum Slot {
    /// It has no producer, or one that is being committed or made.
    #[default]
    Away,
    /// In a transaction that has no records.
    Free(Arc<SharedProducer>),
    /// In the transaction of an epoch.
    Filling(Arc<SharedProducer>, Epoch),
}

/// A call of librdkafka's transactions that failed.
pub enum Trouble {
    /// A later producer has the transactional id, or the broker has given up the transaction.
    Fenced(String),
    /// The call may be made again.
    Retriable(String),
    /// Anything else.
    Lasting(ConnectError),
}

impl State {
    fn new() -> State {
        State { slots: [Slot::Away, Slot::Away], acknowledged: HashMap::new(), first: None, failure: None }
    }

    fn slot(&self, epoch: Epoch) -> &Slot {
        &self.slots[slot_of(epoch)]
    }

    fn is_open(&self, epoch: Epoch) -> bool {
        let acknowledged =
            self.first.is_none_or(|first| epoch <= first) || self.acknowledged.values().all(|acknowledged| *acknowledged + 1 >= epoch);
        acknowledged && self.is_free(epoch)
    }

    /// Any client that can be asked something.
    fn producer(&self) -> Option<Arc<SharedProducer>> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Away => None,
            Slot::Free(producer) | Slot::Filling(producer, _) => Some(producer.clone()),
        })
    }

    fn is_free(&self, epoch: Epoch) -> bool {
        match self.slot(epoch) {
            Slot::Away => false,
            Slot::Free(_) => true,
            Slot::Filling(_, filling) => *filling == epoch,
        }
    }

    /// The producer for an epoch whose slot is free.
    fn take(&mut self, epoch: Epoch) -> Option<Arc<SharedProducer>> {
        match std::mem::take(&mut self.slots[slot_of(epoch)]) {
            Slot::Free(producer) => Some(producer),
            Slot::Filling(producer, filling) if filling == epoch => Some(producer),
            other => {
                self.slots[slot_of(epoch)] = other;
                None
            }
        }
    }
}

/// Slot of an epoch.
pub fn slot_of(epoch: Epoch) -> usize {
    (epoch % 2) as usize
}

impl Transactions {
    /// For these sinks, by uid; all have the same brokers, client settings and progress topic. Blocks: asks for the sinks' topics.
    pub fn open(
        sinks: &[(String, WriteConfig)],
        transform: &str,
        identity: Identity,
        io: &tokio::runtime::Handle,
    ) -> Result<Transactions, ConnectError> {
        let (_, common) = sinks.first().ok_or_else(|| ConnectError::internal("transactions of no sinks"))?;
        let mut limits = HashMap::new();
        for (uid, config) in sinks {
            let events = Events::new(transform, &config.bootstrap_servers, &config.topic);
            limits.insert(uid.clone(), find_limits(config, &events, io)?);
        }
        let mut settings = producer_config(common);
        fit_to(&mut settings, limits.values().copied());
        let timeout = (identity.interval * TIMEOUT_INTERVALS).clamp(TIMEOUT.0, TIMEOUT.1);
        settings.set("transaction.timeout.ms", timeout.as_millis().to_string());
        // librdkafka refuses records that may live longer than their transaction.
        for name in ["message.timeout.ms", "delivery.timeout.ms"] {
            let longer = |given: &str| given.parse::<u128>().is_ok_and(|given| given == 0 || given > timeout.as_millis());
            if settings.get(name).is_some_and(longer) {
                settings.set(name, timeout.as_millis().to_string());
            }
        }
        let plan = Plan {
            identity,
            settings,
            connection: connection_config(&common.bootstrap_servers, &common.client),
            servers: common.bootstrap_servers.clone(),
            progress_topic: common.progress_topic.clone(),
            limits,
            events: Events::new(transform, &common.bootstrap_servers, &common.progress_topic),
        };
        let names = sinks.iter().map(|(_, config)| config.topic.clone()).chain([common.progress_topic.clone()]).collect();
        Ok(Transactions {
            plan,
            process: process_name(),
            state: watch::Sender::new(State::new()),
            progress: Mutex::default(),
            topics: Mutex::new(Topics::new(names)),
            life: AtomicU64::new(0),
            io: io.clone(),
        })
    }

    /// The brokers, for messages.
    pub fn servers(&self) -> &str {
        &self.plan.servers
    }

    /// What the topic of a sink takes.
    pub fn limits(&self, uid: &str) -> Result<Limits, ConnectError> {
        self.plan
            .limits
            .get(uid)
            .copied()
            .ok_or_else(|| ConnectError::internal(format!("the sink {uid} is not among those of the transactions")))
    }

    /// A shard takes part from this epoch on. Before any shard's records of a later epoch come, all shards have joined.
    pub fn join(&self, shard: ShardId, epoch: Epoch) {
        self.state.send_modify(|state| {
            state.first.get_or_insert(epoch);
            state.acknowledged.insert(shard, epoch.saturating_sub(1));
        });
    }

    /// The producer in the epoch's transaction; `None`: not yet.
    pub fn try_enter(&self, epoch: Epoch) -> Result<Option<Arc<SharedProducer>>, ConnectError> {
        let mut entered = Ok(None);
        self.state.send_if_modified(|state| {
            if let Some(failure) = &state.failure {
                entered = Err(failure.clone());
            } else if state.is_open(epoch)
                && let Some(producer) = state.take(epoch)
            {
                state.slots[slot_of(epoch)] = Slot::Filling(producer.clone(), epoch);
                entered = Ok(Some(producer));
            }
            // Nobody waits for a slot to be filled.
            false
        });
        entered
    }

    /// The producer in the epoch's transaction, as soon as records may go there.
    pub async fn enter(&self, epoch: Epoch) -> Result<Arc<SharedProducer>, ConnectError> {
        let mut seen = self.state.subscribe();
        loop {
            if let Some(producer) = self.try_enter(epoch)? {
                return Ok(producer);
            }
            // The sender is `self`.
            let _ = seen.wait_for(|state| state.failure.is_some() || state.is_open(epoch)).await;
        }
    }

    /// What has made this life unusable.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.state.borrow().failure.clone().map_or(Ok(()), Err)
    }

    /// Waits until something has made this life unusable.
    pub async fn failed(&self) -> ConnectError {
        let mut seen = self.state.subscribe();
        let failed = seen.wait_for(|state| state.failure.is_some()).await;
        // The sender is `self`.
        failed.ok().and_then(|state| state.failure.clone()).unwrap_or_else(|| ConnectError::internal("transactions without a state"))
    }

    /// All records of a shard up to this epoch are acknowledged.
    pub fn acknowledged(&self, shard: ShardId, epoch: Epoch) {
        self.state.send_modify(|state| {
            state.acknowledged.insert(shard, epoch.min(Epoch::MAX - 1));
        });
    }

    /// Takes the epoch's producer out of its slot, as soon as there is one.
    pub async fn take(&self, epoch: Epoch) -> Result<Arc<SharedProducer>, ConnectError> {
        let mut seen = self.state.subscribe();
        loop {
            let mut taken = Ok(None);
            self.state.send_if_modified(|state| {
                taken = match &state.failure {
                    Some(failure) => Err(failure.clone()),
                    None => Ok(state.take(epoch)),
                };
                false
            });
            if let Some(producer) = taken? {
                return Ok(producer);
            }
            let unusable = |state: &State| matches!(state.slot(epoch), Slot::Filling(..));
            let state = seen.wait_for(|state| state.failure.is_some() || !matches!(state.slot(epoch), Slot::Away)).await;
            if state.is_ok_and(|state| unusable(&state) && !state.is_free(epoch)) {
                return Err(ConnectError::internal(format!("epoch {epoch} is decided while its slot has another one's records")));
            }
        }
    }

    /// Nothing of this life can be used any more.
    pub fn fail(&self, failure: ConnectError) {
        self.state.send_modify(|state| {
            state.failure.get_or_insert(failure);
        });
    }

    /// Ends what earlier processes and this one have left open, and gives the last decision. Blocks.
    pub fn fence(self: &Arc<Self>) -> Result<Option<Decision>, ConnectError> {
        self.life.fetch_add(1, Ordering::AcqRel);
        self.state.send_modify(|state| *state = State::new());
        // Whoever is making a producer for the life before ends first.
        let mut progress = lock(&self.progress);
        *progress = None;
        let topic = &self.plan.progress_topic;
        let mut opened = Progress::open(&self.plan.connection, topic, &self.plan.identity.pipeline, &self.plan.events, &self.io)?;
        let producers = self.take_over(&mut opened)?;
        failpoint::hit("kafka.owned");
        let decision = opened.decision()?;
        *progress = Some(opened);
        let [a, b] = producers.map(Arc::new);
        self.look(&a, topics::LOOKS)?;
        self.state.send_modify(|state| state.slots = [Slot::Free(a), Slot::Free(b)]);
        self.watch_topics(self.life.load(Ordering::Acquire));
        Ok(decision)
    }

    /// Producers of both slots, in transactions, with this process as owner. An earlier process may be making a producer for a slot meanwhile,
    /// which fences ours; it then finds our record and stops, or it finds none, and we have not yet written it.
    ///
    /// Before each attempt it is asked who the owner is: a process that stood still must not fence its successor.
    fn take_over(self: &Arc<Self>, progress: &mut Progress) -> Result<[SharedProducer; 2], ConnectError> {
        let (mut attempts, ours) = (TAKE_OVERS, self.plan.identity.generation);
        loop {
            failpoint::hit("kafka.fence");
            let owner = progress.owner()?.filter(|owner| owner.process != self.process);
            let later = |owner: &&Owner| owner.is_later(ours, self.plan.identity.again, attempts < TAKE_OVERS);
            if let Some(owner) = owner.filter(later) {
                return Err(self.fenced_by(Some(owner)));
            }
            let life = self.life.load(Ordering::Acquire);
            let transactions = self.clone();
            let second = self.io.spawn_blocking(move || transactions.start_producer(1, life));
            let first = self.start_producer(0, life);
            let second = self.io.block_on(second).map_err(ConnectError::internal)?;
            let producers = [first?, second?];
            failpoint::hit("kafka.fenced");
            let written = producers.iter().try_for_each(|producer| self.write_owner(producer));
            attempts -= 1;
            match written {
                Ok(()) => return Ok(producers),
                Err(_) if attempts > 0 && producers.iter().any(is_fenced) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The epoch is decided: its slot is made ready for the next but one. Blocks.
    pub fn renew(self: &Arc<Self>, epoch: Epoch, producer: Arc<SharedProducer>, clean: bool) {
        let life = self.life.load(Ordering::Acquire);
        let keep = clean && self.plan.identity.interval < FRESH_FROM;
        if keep && producer.begin_transaction().is_ok() {
            self.offer(life, epoch, producer);
            return;
        }
        drop(producer);
        let transactions = self.clone();
        self.io.spawn_blocking(move || {
            let patience = client::deadline(PATIENCE);
            loop {
                match transactions.fresh(slot_of(epoch), life) {
                    Ok(Some(producer)) => return transactions.offer(life, epoch, Arc::new(producer)),
                    Ok(None) => return,
                    Err(error) if error.is_transient() && !client::passed(patience) => {
                        tracing::debug!(%error, "a slot for transactions is not ready yet");
                        std::thread::sleep(PAUSE);
                    }
                    Err(error) => return transactions.fail(error),
                }
            }
        });
    }

    /// Fails if a topic was deleted or made anew since this life began, and that is known from so many answers in a row. Blocks.
    pub fn look(&self, producer: &SharedProducer, believed: u32) -> Result<(), ConnectError> {
        let names = lock(&self.topics).names();
        let answer = topics::ask(producer.client(), &names);
        let gone = lock(&self.topics).take(&answer, believed);
        gone.map_or(Ok(()), |(topic, gone)| Err(topics::error(&topic, gone, &self.plan.servers)))
    }

    /// Ends this life when a topic is gone, also while nothing is written.
    fn watch_topics(self: &Arc<Self>, life: u64) {
        let (watched, io) = (Arc::downgrade(self), self.io.clone());
        self.io.spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(transactions) = watched.upgrade().filter(|transactions| transactions.is_alive(life)) else { return };
                let Some(producer) = transactions.state.borrow().producer() else { continue };
                let looked = io.spawn_blocking(move || {
                    if let Err(gone) = transactions.look(&producer, topics::LOOKS) {
                        transactions.fail(gone);
                    }
                });
                let _ = looked.await;
            }
        });
    }

    /// Nobody comes back to these transactions.
    pub fn end(&self) {
        self.life.fetch_add(1, Ordering::AcqRel);
        self.fail(ConnectError::internal("the transactions of the pipeline have ended"));
    }

    fn is_alive(&self, life: u64) -> bool {
        self.life.load(Ordering::Acquire) == life && self.state.borrow().failure.is_none()
    }

    fn offer(&self, life: u64, epoch: Epoch, producer: Arc<SharedProducer>) {
        self.state.send_modify(|state| {
            // `fence` counts first and empties the slots then, under this lock.
            if self.life.load(Ordering::Acquire) == life {
                state.slots[slot_of(epoch)] = Slot::Free(producer);
            }
        });
    }

    /// A new producer for a slot, in a transaction. `None`: all was begun anew meanwhile.
    fn fresh(&self, slot: usize, life: u64) -> Result<Option<SharedProducer>, ConnectError> {
        let mut progress = lock(&self.progress);
        if !self.is_alive(life) {
            return Ok(None);
        }
        let producer = self.start_producer(slot, life)?;
        failpoint::hit("kafka.renewed");
        self.check_owner(progress.as_mut())?;
        producer.begin_transaction().map_err(|error| begun(&error))?;
        Ok(Some(producer))
    }

    fn check_owner(&self, progress: Option<&mut Progress>) -> Result<(), ConnectError> {
        let progress = progress.ok_or_else(|| ConnectError::internal("transactions before they were fenced"))?;
        match progress.owner()? {
            Some(owner) if owner.process == self.process => Ok(()),
            owner => Err(self.fenced_by(owner)),
        }
    }

    /// Fails if another process has taken over. Blocks.
    pub fn check_fence(&self) -> Result<(), ConnectError> {
        self.check_owner(lock(&self.progress).as_mut())
    }

    fn fenced_by(&self, owner: Option<&Owner>) -> ConnectError {
        let who = owner.map_or("nobody knows which".into(), |owner| format!("generation {}", owner.generation));
        ConnectError::Fenced {
            message: format!(
                "fenced: another process ({who}) has taken over pipeline {} on the Kafka brokers at {}",
                self.plan.identity.pipeline, self.plan.servers
            ),
        }
    }

    /// What an error of a producer means: it may be that another process has taken over, or that a topic is gone.
    pub async fn explain(self: &Arc<Self>, producer: &Arc<SharedProducer>, error: ConnectError) -> ConnectError {
        if !error.is_transient() {
            return error;
        }
        let (transactions, producer) = (self.clone(), producer.clone());
        let why = move || match is_fenced(&producer) {
            true => transactions.why_fenced(),
            false => transactions.look(&producer, 1).err().unwrap_or(error),
        };
        self.io.spawn_blocking(why).await.unwrap_or_else(ConnectError::internal)
    }

    /// Why the broker no longer takes anything from a producer of ours. Blocks.
    pub fn why_fenced(&self) -> ConnectError {
        match self.check_fence() {
            Err(error) => error,
            Ok(()) => ConnectError::external(format!(
                "the Kafka brokers at {} have ended a transaction of pipeline {}: it was open for longer than its `transaction.timeout.ms` of {} (ten times `checkpoint.interval`, a minute at least: with a longer interval a barrier may take longer), or a client that is not Pelton's has begun with its transactional id",
                self.plan.servers,
                self.plan.identity.pipeline,
                self.plan.settings.get("transaction.timeout.ms").unwrap_or_default()
            )),
        }
    }

    /// A producer that has ended every transaction of its slot. Blocks.
    fn start_producer(&self, slot: usize, life: u64) -> Result<SharedProducer, ConnectError> {
        let mut settings = self.plan.settings.clone();
        settings.set("transactional.id", transactional_id(&self.plan.identity.pipeline, slot));
        let events = self.plan.events.of_topic(&self.plan.progress_topic);
        let producer = SharedProducer::start(&settings, &events, &self.io).map_err(|error| refused_settings(&error))?;
        let deadline = client::deadline(INIT);
        loop {
            match producer.init_transactions(INIT_STEP).map_err(|error| self.trouble("begin", &error)) {
                Ok(()) => return Ok(producer),
                Err(Trouble::Retriable(_)) if events.refusal().is_none() && !client::passed(deadline) && self.is_alive(life) => {}
                Err(Trouble::Retriable(reason) | Trouble::Fenced(reason)) => {
                    return Err(match events.refusal() {
                        Some(refusal) => events.refused_error(&refusal),
                        None => {
                            ConnectError::external(format!("the Kafka brokers at {} begin no transaction: {reason}", self.plan.servers))
                        }
                    });
                }
                Err(Trouble::Lasting(error)) => return Err(error),
            }
        }
    }

    /// Writes this process down as owner, in a transaction of the producer's slot, and begins the next.
    fn write_owner(&self, producer: &SharedProducer) -> Result<(), ConnectError> {
        let owner = Owner { generation: self.plan.identity.generation, process: self.process.clone(), again: self.plan.identity.again };
        let value = serde_json::to_vec(&owner).map_err(ConnectError::internal)?;
        producer.begin_transaction().map_err(|error| begun(&error))?;
        let deadline = client::deadline(PATIENCE);
        self.write_progress(producer, owner_key(&self.plan.identity.pipeline).as_bytes(), &value, deadline)?;
        match self.commit(producer, deadline) {
            Ok(_) => {}
            Err(Trouble::Fenced(reason) | Trouble::Retriable(reason)) => {
                return Err(ConnectError::external(format!(
                    "pipeline {} could not be taken over on the Kafka brokers at {}: {reason}",
                    self.plan.identity.pipeline, self.plan.servers
                )));
            }
            Err(Trouble::Lasting(error)) => return Err(error),
        }
        producer.begin_transaction().map_err(|error| begun(&error))
    }

    /// Writes a record to the progress topic and waits for its acknowledgement. Blocks.
    pub fn write_progress(&self, producer: &SharedProducer, key: &[u8], value: &[u8], deadline: Instant) -> Result<(), ConnectError> {
        let topic = self.plan.progress_topic.clone();
        let limits = Limits { partitions: PARTITION + 1, record_bytes: usize::MAX, before_ms: i64::MAX, after_ms: i64::MAX };
        let target = Target { events: self.plan.events.of_topic(&topic), topic, limits };
        let mut record = Record::with_opaque_to(&target.topic, target.events.clone());
        record.key = Some(key);
        record.payload = Some(value);
        record.partition = Some(PARTITION);
        self.io.block_on(async {
            let written = async {
                match target.send(producer, record).await? {
                    Ok(()) => target.settle(producer).await,
                    Err(reason) => Err(ConnectError::external(format!("topic {} takes no record: {reason}", target.topic))),
                }
            };
            let late = || ConnectError::external(format!("topic {} did not acknowledge a record in time", target.topic));
            tokio::select! {
                biased;
                written = tokio::time::timeout_at(deadline.into(), written) => written.unwrap_or_else(|_| Err(late())),
                failure = self.failed() => Err(failure),
            }
        })
    }

    /// Commits the producer's transaction, all of whose records are acknowledged: whether the first call was answered. Blocks.
    pub fn commit(&self, producer: &SharedProducer, deadline: Instant) -> Result<bool, Trouble> {
        // The binding would wait a tenth of a second for reports that the client's thread is about to have handed over.
        while producer.in_flight_count() > 0 && !client::passed(deadline) {
            std::thread::sleep(Duration::from_micros(200));
        }
        let mut clean = true;
        loop {
            match producer.commit_transaction(client::until(deadline)) {
                Ok(()) => return Ok(clean),
                Err(error) => match self.trouble("commit", &error) {
                    Trouble::Retriable(_) if !client::passed(deadline) => clean = false,
                    trouble => return Err(trouble),
                },
            }
        }
    }

    fn trouble(&self, doing: &str, error: &KafkaError) -> Trouble {
        use RDKafkaErrorCode::*;
        let message = |reason: &str| format!("cannot {doing} a transaction of pipeline {}: {reason}", self.plan.identity.pipeline);
        let KafkaError::Transaction(error) = error else {
            return Trouble::Retriable(error.to_string());
        };
        let reason = error.string();
        match error.code() {
            code if fences(code) => Trouble::Fenced(reason),
            InvalidTransactionTimeout => Trouble::Lasting(ConnectError::user(
                message(&reason),
                "raise the broker's `transaction.max.timeout.ms`, or lower `checkpoint.interval`: a transaction may be open for ten intervals",
            )),
            TransactionalIdAuthorizationFailed => Trouble::Lasting(ConnectError::user(
                message(&reason),
                format!(
                    "grant this user `Write` and `Describe` on transactional ids beginning with `{}`",
                    prefix(&self.plan.identity.pipeline)
                ),
            )),
            TopicAuthorizationFailed | ClusterAuthorizationFailed => {
                Trouble::Lasting(ConnectError::user(message(&reason), "grant this user `Write` on the topic"))
            }
            _ if RDKafkaError::is_retriable(error) => Trouble::Retriable(reason),
            _ => Trouble::Lasting(ConnectError::external(message(&reason))),
        }
    }
}

impl Drop for Transactions {
    /// Consumers and producers are let go of where it does no harm that this takes a while.
    fn drop(&mut self) {
        let progress = lock(&self.progress).take();
        self.io.spawn_blocking(move || drop(progress));
    }
}

fn begun(error: &KafkaError) -> ConnectError {
    ConnectError::external(format!("cannot begin a transaction: {error}"))
}

fn prefix(pipeline: &str) -> String {
    format!("pelton.{pipeline}.")
}

fn transactional_id(pipeline: &str, slot: usize) -> String {
    format!("{}{}", prefix(pipeline), SLOTS[slot])
}

/// Whether librdkafka has given the producer up because another has its id, or its transaction was ended.
pub fn is_fenced(producer: &SharedProducer) -> bool {
    producer.client().fatal_error().is_some_and(|(code, _)| fences(code))
}

fn fences(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(code, Fenced | ProducerFenced | InvalidProducerEpoch)
}

/// A name that no other process has: the standard library's hashers are seeded by chance.
fn process_name() -> String {
    let chance = std::hash::RandomState::new();
    format!("{:016x}{:016x}", chance.hash_one(0), chance.hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(acknowledged: &[(&str, Epoch)]) -> State {
        let acknowledged = acknowledged.iter().map(|(uid, epoch)| ((uid.to_string(), 0), *epoch)).collect();
        State { acknowledged, first: Some(5), ..State::new() }
    }

    #[test]
    fn names_of_processes_differ() {
        assert_ne!(process_name(), process_name());
    }

    #[test]
    fn an_epoch_without_a_producer_is_not_open() {
        assert!(!state(&[("x", 4)]).is_open(5));
        assert_eq!(transactional_id("orders-7f", 1), "pelton.orders-7f.b");
        assert_ne!(slot_of(6), slot_of(7));
    }
}
