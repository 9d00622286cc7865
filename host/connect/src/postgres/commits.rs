//! Who decides and who follows, when a pipeline takes checkpoints.
//!
//! If nothing else decides, the first database that the pipeline writes to does: the rows of all its sinks and the decision are one transaction. Every other
//! database follows, sink by sink.

use super::address::Address;
use super::configs;
use super::epochs::{self, Claim, Refused};
use super::load::Tuples;
use super::outbox::{self, Outgoing};
use super::session::{Reconnecting, Retry, Session};
use crate::ConnectError;
use crate::commit::{CommitTarget, Commits, Committer, DecideError, Decider, Identity, Staged};
use crate::settings::Settings;
use async_trait::async_trait;
use pelton_core::{Decision, Epoch, failpoint};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;

/// The row of `pelton_epochs` that holds decisions.
const DECISIONS: &str = "";

/// What the sinks of the deciding database have staged.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Vec<Outgoing>>);

impl Shared {
    /// A shard's file of an epoch.
    pub fn add(&self, file: Outgoing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    }

    /// Files up to an epoch, oldest first.
    fn until(&self, epoch: Epoch) -> Vec<Outgoing> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut until: Vec<Outgoing> = files.iter().filter(|file| file.epoch <= epoch).cloned().collect();
        until.sort_by_key(|file| file.epoch);
        until
    }

    fn forget(&self, epoch: Epoch) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|file| file.epoch > epoch);
    }
}

/// Adds the sinks of a pipeline: the decider, if there is none yet, and followers.
pub fn join(targets: Vec<CommitTarget>, identity: &Identity, io: &Handle, commits: &mut Commits) {
    let mut deciding: Option<(Address, Arc<Shared>, Vec<String>)> = None;
    for target in targets {
        let address = configs::read(&mut Settings::new(&target.config)).address;
        let (address, shared, uids) = match &mut deciding {
            None if commits.decider.is_none() => deciding.insert((address, Arc::default(), Vec::new())),
            Some(deciding) if deciding.0.same_session(&address) => deciding,
            _ => {
                let server = Reconnecting::new(address, io.clone());
                let follower = Follower { server, identity: identity.clone(), uid: target.uid.clone(), io: io.clone() };
                commits.committers.push((target.uid, Box::new(follower)));
                continue;
            }
        };
        tracing::debug!(sink = target.transform, database = %address, "epochs are decided there");
        commits.shared.push((target.uid.clone(), shared.clone()));
        uids.push(target.uid);
    }
    if let Some((address, shared, uids)) = deciding {
        let server = Reconnecting::new(address, io.clone());
        commits.decider = Some(Box::new(PostgresDecider { server, identity: identity.clone(), shared, uids, io: io.clone() }));
    }
}

/// Decides in the transaction of the rows.
struct PostgresDecider {
    server: Reconnecting,
    identity: Identity,
    shared: Arc<Shared>,
    /// Of its sinks.
    uids: Vec<String>,
    io: Handle,
}

#[async_trait]
impl Decider for PostgresDecider {
    fn describe(&self) -> String {
        format!("PostgreSQL at {}", self.server.address())
    }

    async fn fence(&mut self) -> Result<Option<Decision>, ConnectError> {
        let (mut retry, mut claim) = (Retry::new(), Claim::Earlier);
        let last = loop {
            match self.claim(claim).await {
                Ok(last) => break last,
                Err(error) => retry.after(error, self.server.address(), &self.io).await?,
            }
            // The answer may have been lost.
            claim = Claim::Own;
        };
        // Rows of decided epochs are in the database, and others are made anew.
        for uid in &self.uids {
            outbox::clear(&self.identity, uid, &self.io).await?;
        }
        Ok((last.epoch > 0).then_some(last))
    }

    async fn decide(&mut self, decision: &Decision) -> Result<(), DecideError> {
        let files = self.shared.until(decision.epoch);
        let mut retry = Retry::new();
        let session = loop {
            match self.write(decision, &files).await {
                Ok(Written::Before) => return Ok(()),
                Ok(Written::Now(session)) => break session,
                Err(Refused::Fenced(message)) => return Err(DecideError::Fenced(message)),
                // No `COMMIT` was sent, so that nothing is decided and all can be tried again.
                Err(Refused::Failed(error)) => {
                    retry.after(error, self.server.address(), &self.io).await.map_err(DecideError::Undecided)?;
                }
            }
        };
        failpoint::hit("postgres.written");
        if let Err(error) = session.client().batch_execute("COMMIT").await {
            let class = error.code().map(|code| code.code().get(..2).unwrap_or_default().to_string());
            let failed = session.error("commit an epoch", &error);
            // Constraints that are checked at the end, and conflicts, roll back; whoever is cut off does not know.
            return Err(match class.as_deref() {
                Some("23" | "40") => DecideError::Undecided(failed),
                _ => DecideError::Unknown(failed.to_string()),
            });
        }
        failpoint::hit("postgres.committed");
        self.server.put_back(*session);
        self.shared.forget(decision.epoch);
        if let Err(error) = outbox::remove(&self.identity, &files, &self.io).await {
            tracing::warn!(%error, "a file of the outbox that is no longer needed stays until the next start");
        }
        Ok(())
    }

    async fn check_owner(&mut self) -> Result<(), ConnectError> {
        let session = self.server.take().await?;
        epochs::check(&session, &self.identity.pipeline, DECISIONS, self.identity.generation).await?;
        self.server.put_back(session);
        Ok(())
    }
}

/// An epoch is in the database, but for the end of the transaction.
enum Written {
    /// An earlier call has decided it.
    Before,
    /// The transaction is open.
    Now(Box<Session>),
}

impl PostgresDecider {
    async fn claim(&mut self, claim: Claim) -> Result<Decision, ConnectError> {
        let session = self.server.take().await?;
        epochs::prepare(&session).await?;
        epochs::evict(&session, &self.identity.pipeline, DECISIONS, self.identity.generation).await?;
        session.run("begin a transaction", "BEGIN").await?;
        let last = epochs::claim(&session, claim, &self.identity.pipeline, DECISIONS, self.identity.generation).await?;
        failpoint::hit("postgres.claim");
        session.run("end a transaction", "COMMIT").await?;
        failpoint::hit("postgres.claimed");
        self.server.put_back(session);
        Ok(last)
    }

    async fn write(&mut self, decision: &Decision, files: &[Outgoing]) -> Result<Written, Refused> {
        let session = self.server.take().await?;
        session.run("begin a transaction", "BEGIN").await?;
        let last = epochs::claim(&session, Claim::Own, &self.identity.pipeline, DECISIONS, self.identity.generation).await?;
        if last == *decision {
            session.run("end a transaction", "ROLLBACK").await?;
            self.server.put_back(session);
            return Ok(Written::Before);
        }
        if last.epoch >= decision.epoch {
            let message = format!("epoch {} cannot be decided: {} has epoch {} already", decision.epoch, session.address, last.epoch);
            return Err(Refused::Failed(ConnectError::internal(message)));
        }
        apply(&session, &self.identity, files, &self.io).await?;
        epochs::mark(&session, DECISIONS, decision).await?;
        Ok(Written::Now(Box::new(session)))
    }
}

/// Applies decided epochs of one sink.
struct Follower {
    server: Reconnecting,
    identity: Identity,
    uid: String,
    io: Handle,
}

#[async_trait]
impl Committer for Follower {
    async fn commit(&mut self, epoch: Epoch, staged: &[Staged]) -> Result<(), ConnectError> {
        let (files, _) = self.roll_forward(epoch, staged).await?;
        outbox::remove(&self.identity, &files, &self.io).await
    }

    async fn recover(&mut self, epoch: Epoch, staged: &[Staged]) -> Result<(), ConnectError> {
        let (_, found) = self.roll_forward(epoch, staged).await?;
        if found > epoch {
            return Err(ConnectError::user(
                format!("{} has the rows of epoch {found} of this pipeline, but only epoch {epoch} is decided", self.server.address()),
                "the checkpoints or the decider's record are older than the database: restore them, or begin under a new name",
            ));
        }
        outbox::clear(&self.identity, &self.uid, &self.io).await
    }
}

impl Follower {
    /// Applies what is staged up to an epoch and not yet in the database; gives the files that are no longer needed, and the epoch that was there before.
    async fn roll_forward(&mut self, epoch: Epoch, staged: &[Staged]) -> Result<(Vec<Outgoing>, Epoch), ConnectError> {
        let mut files = Vec::new();
        for shard in staged {
            files.extend(outbox::read_staged(shard)?.into_iter().filter(|file| file.epoch <= epoch));
        }
        files.sort_by_key(|file| file.epoch);
        let mut retry = Retry::new();
        loop {
            match self.once(epoch, &files).await {
                Ok(found) => return Ok((files, found)),
                Err(error) => retry.after(error, self.server.address(), &self.io).await?,
            }
        }
    }

    async fn once(&mut self, epoch: Epoch, files: &[Outgoing]) -> Result<Epoch, ConnectError> {
        let session = self.server.take().await?;
        epochs::prepare(&session).await?;
        epochs::evict(&session, &self.identity.pipeline, &self.uid, self.identity.generation).await?;
        session.run("begin a transaction", "BEGIN").await?;
        let last = epochs::claim(&session, Claim::Own, &self.identity.pipeline, &self.uid, self.identity.generation).await?;
        let found = last.epoch;
        let new: Vec<Outgoing> = files.iter().filter(|file| file.epoch > found).cloned().collect();
        apply(&session, &self.identity, &new, &self.io).await?;
        let done = Decision { epoch, generation: self.identity.generation, manifest: 0, ..last };
        epochs::mark(&session, &self.uid, &done).await?;
        failpoint::hit("postgres.apply");
        // If the answer is lost, the next attempt finds the row of the epoch.
        session.run("commit an epoch", "COMMIT").await?;
        failpoint::hit("postgres.applied");
        self.server.put_back(session);
        Ok(found)
    }
}

/// Writes the rows of files, in their order.
async fn apply(session: &Session, identity: &Identity, files: &[Outgoing], io: &Handle) -> Result<(), ConnectError> {
    for file in files {
        let path = identity.outbox.join(&file.file);
        file.load.apply(session, Tuples::File(&path, file), file.removes, io).await?;
    }
    Ok(())
}
