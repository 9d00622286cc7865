//! Opening sinks, and the lives of a pipeline's process as the coordinator leads them.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Field, Schema, SchemaRef};
use pelton_connect::{CommitTarget, Commits, ConnectError, DecideError, ExactlyOnce, Identity, Sink, SinkContext, Staged};
use pelton_core::{Batch, Decision, Epoch, Positions, WindowFn};
use pelton_tests::postgres::{PASSWORD, Server, USER};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A runtime as the host's: two threads for I/O. Tests block on it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A config for a table with some more keys.
pub fn config(port: u16, database: &str, table: &str, more: Value) -> Value {
    let mut config = json!({
        "url": format!("postgresql://127.0.0.1:{port}/{database}"), "username": USER, "password": PASSWORD, "table": table,
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

pub fn context(schema: SchemaRef, exactly_once: Option<ExactlyOnce>) -> SinkContext {
    SinkContext {
        transform: "Write".into(),
        base_dir: ".".into(),
        io: tokio::runtime::Handle::current(),
        schema,
        unbounded: false,
        window: WindowFn::Global,
        shard: 0,
        shards: 1,
        exactly_once,
    }
}

/// Opens a sink without checkpoints.
pub async fn sink(config: &Value, schema: SchemaRef) -> Result<Box<dyn Sink>, ConnectError> {
    pelton_connect::open_sink("WriteToPostgres", config, context(schema, None)).await
}

/// Writes batches of one schema and finishes; gives the refused rows.
pub async fn write_all(config: &Value, batches: &[Batch]) -> Vec<String> {
    let mut sink = sink(config, batches[0].schema()).await.unwrap();
    let mut errors = Vec::new();
    for batch in batches {
        errors.extend(sink.write(batch).await.unwrap().into_iter().map(|error| format!("{}: {}", error.row, error.message)));
    }
    sink.finish().await.unwrap();
    errors
}

/// Rows without windows.
pub fn batch(columns: Vec<(&str, ArrayRef)>) -> Batch {
    let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect()).unwrap();
    let times = ScalarBuffer::from(vec![0; rows.num_rows()]);
    Batch::new(rows, times, Positions::None)
}

/// One life of a pipeline's process, led as the coordinator does.
pub struct Life {
    pub commits: Commits,
    pub identity: Identity,
    pub sinks: BTreeMap<String, Box<dyn Sink>>,
    /// What the decider said at the start.
    pub decided: Option<Decision>,
}

/// What a manifest would keep: by uid.
pub type Manifest = BTreeMap<String, Vec<Staged>>;

impl Life {
    /// Starts: fences, recovers with the manifest of the last decided epoch, opens sinks.
    pub async fn start(
        targets: &[(&str, Value)],
        schema: &SchemaRef,
        generation: u64,
        outbox: &Path,
        manifests: &BTreeMap<Epoch, Manifest>,
    ) -> Life {
        let mut life = Life::fence(targets, generation, outbox).await.unwrap();
        let epoch = life.decided.as_ref().map_or(0, |decision| decision.epoch);
        let empty = Manifest::new();
        let manifest = manifests.get(&epoch).unwrap_or(&empty);
        for (uid, committer) in &mut life.commits.committers {
            committer.recover(epoch, manifest.get(uid).map_or(&[], |staged| &staged[..])).await.unwrap();
        }
        for (uid, config) in targets {
            let shared = life.commits.shared.iter().find(|(of, _)| of == uid).map(|(_, shared)| shared.clone());
            let restored = manifest.get(*uid).map(|staged| staged[0].clone());
            let once = ExactlyOnce { identity: life.identity.clone(), uid: uid.to_string(), epoch: epoch + 1, restored, shared };
            let sink = pelton_connect::open_sink("WriteToPostgres", config, context(schema.clone(), Some(once))).await.unwrap();
            life.sinks.insert(uid.to_string(), sink);
        }
        life
    }

    /// Only as far as the fence.
    pub async fn fence(targets: &[(&str, Value)], generation: u64, outbox: &Path) -> Result<Life, ConnectError> {
        let identity =
            Identity { pipeline: "orders-7f3a".into(), generation, again: false, interval: Duration::from_secs(1), outbox: outbox.into() };
        let targets = targets.iter().map(|(uid, config)| CommitTarget {
            uid: uid.to_string(),
            transform: uid.to_string(),
            kind: "WriteToPostgres".into(),
            config: config.clone(),
            base_dir: ".".into(),
        });
        let io = tokio::runtime::Handle::current();
        let mut commits = pelton_connect::open_commits(targets.collect(), identity.clone(), &io).await?;
        let decided = commits.decider.as_mut().unwrap().fence().await?;
        Ok(Life { commits, identity, sinks: BTreeMap::new(), decided })
    }

    /// The barrier of an epoch.
    pub async fn prepare(&mut self, epoch: Epoch) -> Manifest {
        let mut manifest = Manifest::new();
        for (uid, sink) in &mut self.sinks {
            manifest.insert(uid.clone(), vec![sink.prepare(epoch, false).await.unwrap()]);
        }
        manifest
    }

    pub async fn decide(&mut self, epoch: Epoch) -> Result<(), DecideError> {
        let decision = self.decision(epoch);
        self.commits.decider.as_mut().unwrap().decide(&decision).await
    }

    pub fn decision(&self, epoch: Epoch) -> Decision {
        // Also numbers that no signed integer holds come back.
        Decision { pipeline: self.identity.pipeline.clone(), epoch, generation: self.identity.generation, manifest: u64::MAX - epoch }
    }

    pub async fn commit(&mut self, epoch: Epoch, manifest: &Manifest) -> Result<(), ConnectError> {
        for (uid, committer) in &mut self.commits.committers {
            committer.commit(epoch, &manifest[uid]).await?;
        }
        Ok(())
    }

    pub async fn write(&mut self, batch: &Batch) {
        for sink in self.sinks.values_mut() {
            assert_eq!(sink.write(batch).await.unwrap(), []);
        }
    }
}

/// Names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A column of a table in its order.
pub fn ids(server: &Server, database: &str, table: &str) -> String {
    server.psql(database, &format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {table}"))
}
