//! The list of connectors, and opening one by its type name.

use crate::commit::{CommitTarget, Commits, Committer, Deciding, Identity, Staged, StagedFile};
use crate::error::ConnectError;
use crate::kafka;
use crate::postgres;
use crate::secret::resolve_secrets;
use crate::sink::{Sink, SinkContext};
use crate::source::{Source, SourceContext};
use crate::{assert_equal, create, generate, read_batches, read_csv, read_json, read_text, write_files};
use pelton_core::catalog::ConnectorSpec;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use tokio::runtime::Handle;

/// Shards that a sink may have: each is a task and an open file.
pub const MAX_SHARDS: usize = 1_024;

type Opening<T> = Pin<Box<dyn Future<Output = Result<Box<T>, ConnectError>> + Send>>;

/// One connector: what it says of itself and how it opens.
struct Connector {
    spec: &'static ConnectorSpec,
    open: Open,
}

/// Who makes the epochs of a sink visible.
enum By {
    /// It is no sink, or one that shows its rows as it goes: at least once.
    Nobody,
    /// A committer of its own.
    Committer(fn(CommitTarget, Identity, Handle) -> Opening<dyn Committer>),
    /// One transaction of all sinks of the kind: it decides.
    Transaction(fn(Vec<CommitTarget>, Identity, Handle) -> Opening<Deciding>),
    /// A database: the first decides where no transaction does.
    Database,
}

enum Open {
    Source(fn(Value, SourceContext) -> Opening<dyn Source>),
    Sink(fn(Value, SinkContext) -> Opening<dyn Sink>, By),
}

/// Of files.
const BY_FILES: By = By::Committer(|target, identity, io| Box::pin(write_files::open_committer(target, identity, io)));

#[rustfmt::skip]
static CONNECTORS: &[Connector] = &[
    Connector { spec: &create::SPEC, open: Open::Source(|config, ctx| Box::pin(create::open(config, ctx))) },
    Connector { spec: &assert_equal::SPEC, open: Open::Sink(|config, ctx| Box::pin(assert_equal::open(config, ctx)), By::Nobody) },
    Connector { spec: &generate::SPEC, open: Open::Source(|config, ctx| Box::pin(generate::open(config, ctx))) },
    Connector { spec: &read_text::SPEC, open: Open::Source(|config, ctx| Box::pin(read_text::open(config, ctx))) },
    Connector { spec: &read_csv::SPEC, open: Open::Source(|config, ctx| Box::pin(read_csv::open(config, ctx))) },
    Connector { spec: &read_json::SPEC, open: Open::Source(|config, ctx| Box::pin(read_json::open(config, ctx))) },
    Connector { spec: &read_batches::PARQUET, open: Open::Source(|config, ctx| Box::pin(read_batches::open_parquet(config, ctx))) },
    Connector { spec: &read_batches::AVRO, open: Open::Source(|config, ctx| Box::pin(read_batches::open_avro(config, ctx))) },
    Connector { spec: &write_files::TEXT, open: Open::Sink(|config, ctx| Box::pin(write_files::open_text(config, ctx)), BY_FILES) },
    Connector { spec: &write_files::JSON, open: Open::Sink(|config, ctx| Box::pin(write_files::open_json(config, ctx)), BY_FILES) },
    Connector { spec: &write_files::CSV, open: Open::Sink(|config, ctx| Box::pin(write_files::open_csv(config, ctx)), BY_FILES) },
    Connector { spec: &write_files::PARQUET, open: Open::Sink(|config, ctx| Box::pin(write_files::open_parquet(config, ctx)), BY_FILES) },
    Connector { spec: &write_files::AVRO, open: Open::Sink(|config, ctx| Box::pin(write_files::open_avro(config, ctx)), BY_FILES) },
    Connector { spec: &kafka::READ_FROM_KAFKA, open: Open::Source(|config, ctx| Box::pin(kafka::open_source(config, ctx))) },
    Connector { spec: &kafka::WRITE_TO_KAFKA, open: Open::Sink(|config, ctx| Box::pin(kafka::open_sink(config, ctx)), By::Transaction(|targets, identity, io| Box::pin(kafka::open_transactions(targets, identity, io)))) },
    Connector { spec: &postgres::WRITE_TO_POSTGRES, open: Open::Sink(|config, ctx| Box::pin(postgres::open_sink(config, ctx)), By::Database) },
];

/// What every connector says of itself.
pub fn catalog() -> Vec<&'static ConnectorSpec> {
    CONNECTORS.iter().map(|connector| connector.spec).collect()
}

/// Opens a source: finds its files or partitions and its schema. References to secrets are resolved here and nowhere else.
pub async fn open_source(kind: &str, config: &Value, ctx: SourceContext) -> Result<Box<dyn Source>, ConnectError> {
    match find(kind).map(|connector| &connector.open) {
        Some(Open::Source(open)) => open(checked(kind, config)?, ctx).await,
        _ => Err(ConnectError::internal(format!("`{kind}` is no source"))),
    }
}

/// Opens one shard of a sink.
pub async fn open_sink(kind: &str, config: &Value, ctx: SinkContext) -> Result<Box<dyn Sink>, ConnectError> {
    match find(kind).map(|connector| &connector.open) {
        Some(Open::Sink(open, _)) => open(checked(kind, config)?, ctx).await,
        _ => Err(ConnectError::internal(format!("`{kind}` is no sink"))),
    }
}

/// Who decides epochs and who makes them visible, for all sinks of a pipeline.
pub async fn open_commits(targets: Vec<CommitTarget>, identity: Identity, io: &Handle) -> Result<Commits, ConnectError> {
    let mut commits = Commits { decider: None, committers: Vec::new(), shared: Vec::new() };
    let (mut transaction, mut databases) = (None, Vec::new());
    for mut target in targets {
        let Some(Open::Sink(_, by)) = find(&target.kind).map(|connector| &connector.open) else { continue };
        target.config = checked(&target.kind, &target.config)?;
        match by {
            By::Nobody => {}
            By::Committer(open) => commits.committers.push((target.uid.clone(), open(target, identity.clone(), io.clone()).await?)),
            By::Transaction(open) => transaction.get_or_insert_with(|| (*open, Vec::new())).1.push(target),
            By::Database => databases.push(target),
        }
    }
    if let Some((open, targets)) = transaction {
        let Deciding { decider, shared } = *open(targets, identity.clone(), io.clone()).await?;
        commits.decider = Some(decider);
        commits.shared.extend(shared);
    }
    postgres::join_commits(databases, &identity, io, &mut commits);
    Ok(commits)
}

/// Who makes the epochs of a sink visible, where it has a committer of its own that needs nobody else.
pub async fn open_committer(target: CommitTarget, identity: Identity, io: &Handle) -> Result<Option<Box<dyn Committer>>, ConnectError> {
    match find(&target.kind).map(|connector| &connector.open) {
        Some(Open::Sink(_, By::Committer(open))) => {
            let target = CommitTarget { config: checked(&target.kind, &target.config)?, ..target };
            open(target, identity, io.clone()).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether a sink can show rows as they come although the pipeline takes checkpoints: a barrier then flushes it, and a failure repeats rows. Sinks of
/// files cannot, and lose nothing by it: a file has its name when it is whole, and not before.
pub fn shows_at_once(kind: &str) -> bool {
    matches!(find(kind).map(|connector| &connector.open), Some(Open::Sink(_, By::Transaction(_) | By::Database)))
}

/// The files of the outbox that a sink of a kind has still to deliver, by what a shard of it has staged.
pub fn staged_files(kind: &str, staged: &Staged) -> Result<Vec<StagedFile>, ConnectError> {
    match find(kind).map(|connector| &connector.open) {
        Some(Open::Sink(_, By::Database)) => postgres::staged_files(staged),
        _ => Ok(Vec::new()),
    }
}

/// Shards that the config asks for: `num_shards`, or one.
pub fn sink_shards(_kind: &str, config: &Value) -> usize {
    match config.get("num_shards").and_then(Value::as_u64) {
        Some(shards) => (shards as usize).clamp(1, MAX_SHARDS),
        None => 1,
    }
}

fn find(kind: &str) -> Option<&'static Connector> {
    CONNECTORS.iter().find(|connector| connector.spec.name == kind)
}

/// The config with its secrets, if it has no fault: so that no opener meets a value of a wrong type.
fn checked(kind: &str, config: &Value) -> Result<Value, ConnectError> {
    let spec = find(kind).ok_or_else(|| ConnectError::internal(format!("no connector `{kind}`")))?.spec;
    if let Some(key) = spec.keys.iter().find(|key| key.required && config.get(key.name).is_none_or(Value::is_null)) {
        return Err(ConnectError::user(format!("config of {kind} has no `{}`", key.name), key.doc));
    }
    match (spec.check)(config).into_iter().next() {
        None => resolve_secrets(config),
        Some(fault) => {
            let place = if fault.path.is_empty() { String::new() } else { format!(" at `{}`", fault.path.join(".")) };
            Err(ConnectError::user(
                format!("config of {kind}{place}: {}", fault.message),
                fault.help.unwrap_or_else(|| "see `pelton lint`".into()),
            ))
        }
    }
}
