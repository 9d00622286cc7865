//! `ReadFromKafka` and `WriteToKafka`, on librdkafka.
//!
//! In reading order:
//! - [`configs`]: keys of both connectors and their faults; [`settings`]: what is passed through to the client, what is not.
//! - [`client`]: reports of the client, and the questions asked at the opening.
//! - [`source`] → [`poll`] (a thread collects records) → [`block`] (records of a partition) → [`decode`] (columns).
//! - [`sink`] → [`encode`] (a row becomes key, value and headers) → [`send`] (to the client).
//! - With checkpoints: [`part`] (a shard's half), [`transaction`] (of all sinks), [`topics`] (are they still there), [`progress`] (what was decided), [`decide`].
//!
//! Guarantees: committed records only; every record of a partition from the first position on becomes a row or a row error;
//! no offsets are committed to a group, and the group is never joined. Written records are acknowledged by all in-sync
//! replicas, in order a partition; a run that ends well has delivered all of them. With checkpoints they are written in transactions, and a reader of
//! committed records sees the output of decided epochs only, each once; with `delivery: at_least_once` they are written as they come, and acknowledged
//! before a barrier passes. There and without checkpoints, retries write no record twice, with one
//! exception: a broker forgets a producer whose newest record's timestamp is older than its `producer.id.expiration.ms` (a
//! day), and looks when it restarts. As the timestamp is the event time, a retry across a broker's restart may then write
//! a batch of older events twice. An open transaction is never forgotten.
//!
//! Invariant: workers never block: whatever librdkafka blocks on happens on a thread of ours or of the I/O runtime.

mod block;
mod client;
pub mod configs;
mod decide;
mod decode;
mod encode;
#[cfg(test)]
mod fuzz;
mod part;
mod poll;
mod progress;
mod send;
pub mod settings;
mod sink;
mod source;
mod topics;
mod transaction;

pub use decide::open as open_transactions;
pub use sink::open as open_sink;
pub use source::open as open_source;

use pelton_core::catalog::{ConnectorSpec, Role};

/// `ReadFromKafka`.
pub static READ_FROM_KAFKA: ConnectorSpec = ConnectorSpec {
    name: "ReadFromKafka",
    role: Role::Source,
    doc: "Reads the records of a Kafka topic; the record's timestamp is the event time.",
    keys: configs::READ_KEYS,
    has_errors: true,
    endless: configs::is_endless,
    timed: true,
    check: configs::check_read,
};

/// `WriteToKafka`.
pub static WRITE_TO_KAFKA: ConnectorSpec = ConnectorSpec {
    name: "WriteToKafka",
    role: Role::Sink,
    doc: "Writes each row as a record of a Kafka topic, with the event time as its timestamp; exactly once where the pipeline takes checkpoints and readers read committed records, else at least once.",
    keys: configs::WRITE_KEYS,
    has_errors: true,
    endless: |_| false,
    timed: false,
    check: configs::check_write,
};
