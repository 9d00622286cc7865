//! Guests in the sandbox: every promise of the boundary against `tests/programs/hostile`, a component written to break it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod combine;
mod granted;
mod honest;
mod lies;
mod limits;
mod loading;
mod poison;
mod stateful;
mod types;
mod wasi;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::batch::Positions;
use pelton_core::{Batch, Split};
use pelton_plugin::{Binding, Engine, EngineOptions, Limits, Plugin, PluginError, Processed};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(EngineOptions::default()).unwrap());
static HOSTILE: LazyLock<Arc<Plugin>> = LazyLock::new(|| ENGINE.load_bytes("hostile", &component_of("hostile")).unwrap());

/// The component's bytes: from PELTON_TEST_COMPONENTS, else where `cargo xtask setup` puts it, else where `pelton plugin build` does.
fn component() -> Vec<u8> {
    component_of("hostile")
}

fn component_of(name: &str) -> Vec<u8> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let folders = std::env::var_os("PELTON_TEST_COMPONENTS").map(PathBuf::from).into_iter();
    let folders = folders.chain([tests.join(".cache/components"), tests.join("programs").join(name).join("target")]);
    let found = folders.map(|folder| folder.join(format!("{name}.wasm"))).find_map(|path| std::fs::read(path).ok());
    found.unwrap_or_else(|| panic!("the test component {name}.wasm is missing: run `cargo xtask setup`"))
}

/// Rows with a text, a number and an event time of as many seconds as the row's place; read from a file.
fn batch(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let numbers: Vec<_> = numbers.into_iter().collect();
    let fields = vec![Field::new("text", DataType::Utf8, false), Field::new("number", DataType::Int64, false)];
    let texts = StringArray::from_iter_values((0..numbers.len()).map(|row| format!("row {row}")));
    let times = (0..numbers.len() as i64).map(|row| row * 1_000_000).collect();
    let offsets = (0..numbers.len() as i64).map(|row| row * 100).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(texts), Arc::new(Int64Array::from(numbers))]).unwrap();
    Batch::new(rows, times, Positions::At { split: Arc::new(Split::File { path: "in.csv".into(), start: 0 }), offsets })
}

fn bind(transform: &str, batch: &Batch, limits: &Limits) -> Result<Binding, PluginError> {
    HOSTILE.bind(transform, &serde_json::json!({}), &batch.schema(), limits)
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn process_with(transform: &str, batch: &Batch, limits: &Limits) -> Result<Processed, PluginError> {
    let mut instance = bind(transform, batch, limits)?.open()?;
    block_on(instance.process(batch))
}

fn process(transform: &str, batch: &Batch) -> Processed {
    process_with(transform, batch, &Limits::default()).unwrap()
}

/// The numbers of a column over all batches of an output.
fn numbers(processed: &Processed, port: usize, column: &str) -> Vec<i64> {
    let outputs = processed.outputs.iter().filter(|(of, _)| *of == port);
    outputs
        .flat_map(|(_, batch)| batch.rows.column_by_name(column).unwrap().as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec())
        .collect()
}
