//! A shard of `WriteToPostgres`: rows become tuples at once, which then wait for a transaction.
//!
//! Without checkpoints they wait in memory, and a transaction takes them when they are many, or after a second; so they do with `delivery: at_least_once`, where
//! a barrier waits for all of them too. With checkpoints they wait in a file of the outbox for their epoch.

use super::commits::Shared;
use super::configs;
use super::encode::{Encoded, Encoder};
use super::load::{Load, Tuples};
use super::outbox::{self, Outgoing, Writer};
use super::session::{Reconnecting, Retry};
use super::table;
use crate::ConnectError;
use crate::commit::{ExactlyOnce, Staged};
use crate::settings::Settings;
use crate::sink::{Sink, SinkContext, SinkSummary};
use async_trait::async_trait;
use pelton_core::{Batch, Epoch, Instant, RowError, WindowFn};
use serde_json::Value;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Bytes of a transaction where there are no checkpoints, whatever the number of rows. Two such buffers exist.
const DIRECT_BYTES: usize = 4 << 20;

struct PostgresSink {
    encoder: Encoder,
    output: Output,
    summary: SinkSummary,
}

enum Output {
    Direct(Box<Direct>),
    Outbox(Box<Outbox>),
}

/// Connects, finds the table and compares its columns with those of the rows.
pub async fn open(config: Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    let config = configs::read(&mut Settings::new(&config));
    let mut server = Reconnecting::new(config.address.clone(), ctx.io.clone());
    let session = server.take().await?;
    let plan = table::plan(&session, &config, &ctx.schema, ctx.window != WindowFn::Global).await?;
    let output = match ctx.exactly_once {
        Some(once) => {
            let shared = once.shared.clone().map(|shared| shared.downcast::<Shared>());
            let shared = shared.transpose().map_err(|_| ConnectError::internal("a sink was given another decider's transaction"))?;
            Output::Outbox(Box::new(Outbox {
                epoch: once.epoch,
                once,
                shard: ctx.shard,
                io: ctx.io,
                writer: None,
                waiting: Vec::new(),
                shared,
            }))
        }
        None => {
            server.put_back(session);
            Output::Direct(Box::new(Direct::new(ctx.io, plan.load.clone(), config.batch_size, server)))
        }
    };
    Ok(Box::new(PostgresSink { encoder: Encoder::new(plan), output, summary: SinkSummary::default() }))
}

#[async_trait]
impl Sink for PostgresSink {
    async fn write(&mut self, batch: &Batch) -> Result<Vec<RowError>, ConnectError> {
        let (encoded, bytes) = match &mut self.output {
            Output::Direct(direct) => {
                let before = direct.buffer.len();
                let encoded = self.encoder.encode(batch, &mut direct.buffer)?;
                let bytes = direct.buffer.len() - before;
                direct.added(&encoded).await?;
                (encoded, bytes)
            }
            Output::Outbox(outbox) => {
                let writer = outbox.writer(self.encoder.load()).await?;
                let before = writer.buffer.len();
                let encoded = self.encoder.encode(batch, &mut writer.buffer)?;
                let bytes = writer.buffer.len() - before;
                writer.added(encoded.rows, encoded.removes).await?;
                (encoded, bytes)
            }
        };
        self.summary.rows += encoded.rows;
        self.summary.bytes += bytes as u64;
        Ok(encoded.errors)
    }

    async fn tick(&mut self, _now: Instant) -> Result<(), ConnectError> {
        match &mut self.output {
            Output::Direct(direct) => direct.flush().await,
            Output::Outbox(_) => Ok(()),
        }
    }

    async fn prepare(&mut self, epoch: Epoch, _last: bool) -> Result<Staged, ConnectError> {
        match &mut self.output {
            // At least once: the epoch counts only when its rows are in the table.
            Output::Direct(direct) => {
                direct.flush().await?;
                direct.settle().await.map(|()| Staged::default())
            }
            Output::Outbox(outbox) => outbox.prepare(epoch).await,
        }
    }

    fn written(&self) -> SinkSummary {
        self.summary.clone()
    }

    async fn finish(mut self: Box<Self>) -> Result<SinkSummary, ConnectError> {
        if let Output::Direct(direct) = &mut self.output {
            direct.flush().await?;
            direct.settle().await?;
        }
        Ok(self.summary)
    }

    async fn abort(mut self: Box<Self>) {
        // The next life writes these rows anew, and newer ones of their keys: the older must not come later.
        if let Output::Direct(direct) = &mut self.output
            && let Some(writing) = direct.writing.take()
        {
            writing.abort();
            let _ = writing.await;
        }
    }
}

/// Transactions as rows come.
struct Direct {
    io: Handle,
    load: Load,
    batch_size: u64,
    buffer: Vec<u8>,
    rows: u64,
    removes: bool,
    /// With the transaction that is under way, or here.
    server: Option<Reconnecting>,
    writing: Option<JoinHandle<Result<Reconnecting, ConnectError>>>,
}

impl Direct {
    fn new(io: Handle, load: Load, batch_size: u64, server: Reconnecting) -> Direct {
        Direct { io, load, batch_size, buffer: Vec::new(), rows: 0, removes: false, server: Some(server), writing: None }
    }

    async fn added(&mut self, encoded: &Encoded) -> Result<(), ConnectError> {
        self.rows += encoded.rows;
        self.removes |= encoded.removes;
        if self.rows >= self.batch_size || self.buffer.len() >= DIRECT_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Hands the rows to a transaction; it runs while the next rows are collected.
    async fn flush(&mut self) -> Result<(), ConnectError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.settle().await?;
        let (tuples, removes) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.removes));
        self.rows = 0;
        let server = self.server.take().ok_or_else(|| ConnectError::internal("the connection was lost to a failed transaction"))?;
        self.writing = Some(self.io.spawn(write(server, self.load.clone(), tuples, removes, self.io.clone())));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ConnectError> {
        if let Some(writing) = self.writing.take() {
            self.server = Some(writing.await.map_err(ConnectError::internal)??);
        }
        Ok(())
    }
}

/// One transaction, again if its connection is lost.
async fn write(mut server: Reconnecting, load: Load, tuples: Vec<u8>, removes: bool, io: Handle) -> Result<Reconnecting, ConnectError> {
    let mut retry = Retry::new();
    loop {
        match once(&mut server, &load, &tuples, removes, &io).await {
            Ok(()) => return Ok(server),
            Err(error) => retry.after(error, server.address(), &io).await?,
        }
    }
}

async fn once(server: &mut Reconnecting, load: &Load, tuples: &[u8], removes: bool, io: &Handle) -> Result<(), ConnectError> {
    let session = server.take().await?;
    session.run("begin a transaction", "BEGIN").await?;
    load.apply(&session, Tuples::Memory(tuples), removes, io).await?;
    session.run("commit rows", "COMMIT").await?;
    server.put_back(session);
    Ok(())
}

/// Files of epochs.
struct Outbox {
    once: ExactlyOnce,
    shard: usize,
    io: Handle,
    /// The epoch that is being written.
    epoch: Epoch,
    /// Its file, from its first row on.
    writer: Option<Writer>,
    /// Files that may not be applied yet.
    waiting: Vec<Outgoing>,
    /// Of the decider, where this database decides.
    shared: Option<Arc<Shared>>,
}

impl Outbox {
    async fn writer(&mut self, load: &Load) -> Result<&mut Writer, ConnectError> {
        if self.writer.is_none() {
            let created = Writer::create(&self.once.identity, &self.once.uid, self.shard, self.epoch, load, &self.io).await?;
            self.writer = Some(created);
        }
        self.writer.as_mut().ok_or_else(|| ConnectError::internal("an outbox file was lost"))
    }

    async fn prepare(&mut self, epoch: Epoch) -> Result<Staged, ConnectError> {
        let writer = self.writer.take();
        self.epoch = epoch + 1;
        let Some(shared) = &self.shared else {
            if let Some(writer) = writer {
                self.waiting.push(writer.close(true).await?);
            }
            // A file is removed when it is applied: so each manifest names all that its epoch needs, however far the follower is behind.
            let (waiting, folder) = (std::mem::take(&mut self.waiting), self.once.identity.outbox.clone());
            let looking = self.io.spawn_blocking(move || waiting.into_iter().filter(|file| folder.join(&file.file).exists()).collect());
            self.waiting = looking.await.map_err(ConnectError::internal)?;
            return outbox::staged(&self.waiting);
        };
        if let Some(writer) = writer {
            // The transaction is the decision: without it the rows are made anew, so the file need not outlive the machine.
            shared.add(writer.close(false).await?);
        }
        Ok(Staged::default())
    }
}
