//! The table `pelton_epochs`: which epoch of a pipeline is in the database, and whose turn it is to write.
//!
//! One row for the decider (`sink` is empty) and one for each follower (its uid). `generation` is the newest process that has asked; `epoch` the last whose rows
//! are in; `decided_by` and `manifest` are the rest of the decider's decision.
//!
//! Invariant: `generation` and `epoch` never become smaller, and whoever changes rows of the sinks holds the row in the same transaction.

use super::session::Session;
use crate::ConnectError;
use pelton_core::{Decision, Epoch, Generation};
use tokio_postgres::types::ToSql;
use xxhash_rust::xxh3::xxh3_64;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS pelton_epochs (
    pipeline text NOT NULL, sink text NOT NULL, generation bigint NOT NULL, epoch bigint NOT NULL, decided_by bigint NOT NULL, manifest bigint NOT NULL,
    PRIMARY KEY (pipeline, sink))";

/// Why the row cannot be had.
pub enum Refused {
    /// A later process has asked for it.
    Fenced(String),
    /// Something failed.
    Failed(ConnectError),
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Refused {
        Refused::Failed(error)
    }
}

impl From<Refused> for ConnectError {
    fn from(refused: Refused) -> ConnectError {
        match refused {
            Refused::Fenced(message) => ConnectError::Fenced { message },
            Refused::Failed(error) => error,
        }
    }
}

/// Creates the table where it is missing.
pub async fn prepare(session: &Session) -> Result<(), ConnectError> {
    if exists(session).await? {
        return Ok(());
    }
    match session.run("create the table pelton_epochs", CREATE).await {
        // Two may create it at once, and PostgreSQL tells one of them of a duplicate.
        Err(_) if exists(session).await? => Ok(()),
        Err(ConnectError::User { message, .. }) => Err(ConnectError::user(message, format!("let an administrator run: {CREATE}"))),
        done => done,
    }
}

async fn exists(session: &Session) -> Result<bool, ConnectError> {
    let found = session.query("look for the table pelton_epochs", "SELECT to_regclass('pelton_epochs') IS NOT NULL", &[]).await?;
    Ok(found.first().is_some_and(|row| row.get(0)))
}

/// The lock that each transaction holds which claims a row, so that others can see whose it is.
fn lock(pipeline: &str, sink: &str) -> i64 {
    xxh3_64(format!("{pipeline}/{sink}").as_bytes()) as i64
}

/// Ends a transaction of an earlier generation that still holds the row: its process may hang, and would be waited for.
pub async fn evict(session: &Session, pipeline: &str, sink: &str, generation: Generation) -> Result<(), ConnectError> {
    let statement = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database() AND l.pid <> pg_backend_pid() AND l.objsubid = 1
        AND (l.classid::bigint << 32) | l.objid::bigint = $1
        AND NOT EXISTS (SELECT FROM pelton_epochs WHERE pipeline = $2 AND sink = $3 AND generation > $4)";
    let parameters: [&(dyn ToSql + Sync); 4] = [&lock(pipeline, sink), &pipeline, &sink, &(generation as i64)];
    match session.query("end an earlier process's transaction", statement, &parameters).await {
        // Another role's: then the server's own limits end it.
        Err(ConnectError::User { message, .. }) => {
            tracing::warn!(message, "an earlier process's transaction is waited for");
            Ok(())
        }
        done => done.map(|_| ()),
    }
}

/// Which rows a process may claim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Of earlier generations: at a start. A row of the same generation is that of a process on a copy of the store.
    Earlier,
    /// Also its own.
    Own,
}

/// Takes the row for a generation and holds it until the open transaction ends: earlier generations are shut out from then on. Gives the last decision of the row;
/// its epoch is 0 where nothing was decided.
pub async fn claim(session: &Session, claim: Claim, pipeline: &str, sink: &str, generation: Generation) -> Result<Decision, Refused> {
    session.query("lock the row of pelton_epochs", "SELECT pg_advisory_xact_lock($1)", &[&lock(pipeline, sink)]).await?;
    let statement = "INSERT INTO pelton_epochs AS e VALUES ($1, $2, $3, 0, 0, 0)
        ON CONFLICT (pipeline, sink) DO UPDATE SET generation = EXCLUDED.generation WHERE e.generation < EXCLUDED.generation + $4
        RETURNING epoch, decided_by, manifest";
    let found = session
        .query("claim the row of pelton_epochs", statement, &[&pipeline, &sink, &(generation as i64), &i64::from(claim == Claim::Own)])
        .await?;
    match found.first() {
        Some(row) => Ok(Decision {
            pipeline: pipeline.into(),
            epoch: row.get::<_, i64>(0) as Epoch,
            generation: row.get::<_, i64>(1) as Generation,
            manifest: row.get::<_, i64>(2) as u64,
        }),
        None => Err(fenced(session, pipeline)),
    }
}

/// Fails if a later generation has claimed the row.
pub async fn check(session: &Session, pipeline: &str, sink: &str, generation: Generation) -> Result<(), Refused> {
    let statement = "SELECT 1 FROM pelton_epochs WHERE pipeline = $1 AND sink = $2 AND generation > $3";
    let later = session.query("read pelton_epochs", statement, &[&pipeline, &sink, &(generation as i64)]).await?;
    if later.is_empty() { Ok(()) } else { Err(fenced(session, pipeline)) }
}

fn fenced(session: &Session, pipeline: &str) -> Refused {
    Refused::Fenced(format!("fenced: a later process of the pipeline {pipeline} has taken over its writes to {}", session.address))
}

/// Writes down that the rows of an epoch are in.
pub async fn mark(session: &Session, sink: &str, decision: &Decision) -> Result<(), ConnectError> {
    let statement = "UPDATE pelton_epochs SET epoch = $3, decided_by = $4, manifest = $5 WHERE pipeline = $1 AND sink = $2 AND epoch < $3";
    let (epoch, generation, manifest) = (decision.epoch as i64, decision.generation as i64, decision.manifest as i64);
    session.query("write to pelton_epochs", statement, &[&decision.pipeline, &sink, &epoch, &generation, &manifest]).await.map(|_| ())
}
