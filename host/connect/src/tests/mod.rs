//! Whole connectors, opened by name as the runtime opens them.

mod epochs;
mod formats;
mod generated;
mod restarts;
mod sinks;
mod sources;

use crate::{ConnectError, Sink, SinkContext, SourceBatch, SourceContext, open_sink, open_source};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pelton_core::{Batch, Positions, WindowFn};
use serde_json::Value;
use std::path::Path;
use tokio::runtime::Runtime;
use tokio::sync::watch;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn source_context(runtime: &Runtime, dir: &Path, stop: watch::Receiver<bool>) -> SourceContext {
    SourceContext { transform: "Read".into(), parallelism: 2, base_dir: dir.into(), io: runtime.handle().clone(), stop }
}

/// What readers found: their batches, by reader.
struct Found {
    schema: SchemaRef,
    batches: Vec<SourceBatch>,
}

fn read(dir: &Path, kind: &str, config: Value, readers: usize, columns: Option<&[&str]>) -> Result<Found, ConnectError> {
    let runtime = runtime();
    runtime.block_on(async {
        let (_sender, stop) = watch::channel(false);
        let mut source = open_source(kind, &config, source_context(&runtime, dir, stop)).await?;
        let schema = source.schema();
        if let Some(columns) = columns {
            source.project(&columns.iter().map(|column| column.to_string()).collect::<Vec<_>>());
        }
        let mut batches = Vec::new();
        let mut readers = source.readers(readers)?;
        while !readers.is_empty() {
            // In turn, as tasks would be.
            let mut open = Vec::new();
            for mut reader in readers {
                if let Some(batch) = reader.next().await? {
                    batches.push(batch);
                    open.push(reader);
                }
            }
            readers = open;
        }
        Ok(Found { schema, batches })
    })
}

impl Found {
    /// Every row as JSON with its offset, sorted.
    fn rows(&self) -> Vec<(i64, String)> {
        let mut rows = Vec::new();
        for batch in &self.batches {
            let encoder = crate::format::json_write::JsonEncoder::new(&batch.rows).unwrap();
            for row in 0..batch.rows.num_rows() {
                let mut out = Vec::new();
                encoder.write(row, &mut out).unwrap();
                rows.push((batch.offsets[row], String::from_utf8(out).unwrap()));
            }
        }
        rows.sort();
        rows
    }

    fn texts(&self) -> Vec<String> {
        self.rows().into_iter().map(|(_, text)| text).collect()
    }

    /// Offset and message of every error, sorted.
    fn errors(&self) -> Vec<(i64, String)> {
        let mut errors: Vec<_> =
            self.batches.iter().flat_map(|batch| &batch.errors).map(|error| (error.offset, error.message.clone())).collect();
        errors.sort();
        errors
    }
}

fn sink_context(runtime: &Runtime, dir: &Path, schema: SchemaRef) -> SinkContext {
    SinkContext {
        transform: "Write".into(),
        base_dir: dir.into(),
        io: runtime.handle().clone(),
        schema,
        unbounded: false,
        window: WindowFn::Global,
        shard: 0,
        shards: 1,
        exactly_once: None,
    }
}

fn batch(rows: RecordBatch, times: Vec<i64>) -> Batch {
    Batch::new(rows, times.into(), Positions::None)
}

async fn open(kind: &str, config: &Value, ctx: SinkContext) -> Box<dyn Sink> {
    open_sink(kind, config, ctx).await.unwrap()
}

fn visible(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
