//! `WriteToPostgres`, on tokio-postgres.
//!
//! In reading order:
//! - [`configs`]: keys of the connector and their faults; [`address`]: where the server is and how to talk to it.
//! - [`session`]: a connection; [`failure`]: what went wrong, by who must act.
//! - [`table`]: the table as the server describes it, and which of its columns take which of ours.
//! - [`encode`] (rows become tuples of a binary COPY, [`numeric`] among them): what PostgreSQL cannot hold is a row error here.
//! - [`load`]: how tuples get into the table; [`outbox`]: tuples of an epoch in a file; [`epochs`]: the table that remembers epochs.
//! - [`sink`]: a shard; [`commits`]: the decider, the follower, and who is which.
//!
//! Exactly once: the rows of an epoch and the epoch's row are written in one transaction, so that they are there once or not at all. Rows wait
//! for it in outbox files. A follower makes them durable at the barrier and applies them when the epoch is decided; where Postgres is the decider, that
//! transaction is the decision. Without checkpoints rows are written as they come, at least once.
//!
//! Invariants: nothing of an undecided epoch is ever in the database, also not prepared; an epoch's rows are applied only by a transaction that holds the epoch's
//! row and finds in it no later generation and no later epoch; no message holds a password.

mod address;
mod commits;
pub mod configs;
mod encode;
mod epochs;
mod failure;
mod load;
mod numeric;
pub(crate) mod outbox;
mod session;
mod sink;
mod table;

pub use commits::join as join_commits;
pub use outbox::staged_files;
pub use sink::open as open_sink;

use pelton_core::catalog::{ConnectorSpec, Role};

/// `WriteToPostgres`.
pub static WRITE_TO_POSTGRES: ConnectorSpec = ConnectorSpec {
    name: "WriteToPostgres",
    role: Role::Sink,
    doc: "Writes rows into a PostgreSQL table: adds them, or inserts, updates and deletes by a key. Exactly once with checkpoints, else at least once.",
    keys: configs::WRITE_KEYS,
    has_errors: true,
    endless: |_| false,
    timed: false,
    check: configs::check_write,
};
