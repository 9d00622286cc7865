//! What the boundary costs: filter, map and identity through a guest, called as the engine calls it (asynchronous, 10 ms ticks, all
//! checks), against the same done natively. `cargo xtask bench boundary`. Machines differ and cores change speed while it runs, so that
//! figures are best of many rounds taken in turns, and only differences and ratios within one run mean anything. What is measured is the
//! thread's own CPU time, which others on the machine disturb less than the time on the wall.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::Batch;
use pelton_core::batch::Positions;
use pelton_plugin::{Engine, EngineOptions, Instance, Limits};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

const ROUNDS: usize = 9;
const RECORDS_A_ROUND: usize = 4_000_000;

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/programs/hostile/target/hostile.wasm");
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/.cache/components/hostile.wasm");
    let path = if cached.exists() { cached } else { path };
    let engine = Engine::new(EngineOptions::default()).expect("the engine starts");
    let plugin = engine.load(&path).expect("hostile.wasm loads; `cargo xtask setup` builds it");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    println!("{:10}{:>8}{:>12}{:>12}{:>12}{:>8}", "", "rows", "native ns", "guest ns", "over native", "ratio");
    for (transform, native) in [("filter", filter as fn(&Batch) -> Batch), ("map", map), ("identity", identity)] {
        for rows in [1, 8, 64, 1_024, 8_192] {
            let batch = records(rows);
            let binding = plugin.bind(transform, &serde_json::json!({}), &batch.schema(), &Limits::default()).expect("binds");
            let mut instance = binding.open().expect("opens");
            let calls = (RECORDS_A_ROUND / rows).clamp(400, 20_000);
            let (mut best_native, mut best_guest) = (f64::MAX, f64::MAX);
            for _ in 0..ROUNDS {
                // Ten times as often: a round must be longer than the ticks of the clock.
                best_native = best_native.min(per_record(10 * calls, rows, || {
                    black_box(native(&batch));
                }));
                best_guest = best_guest.min(runtime.block_on(guest(&mut instance, &batch, calls)));
            }
            let (over, ratio) = (best_guest - best_native, best_guest / best_native);
            println!("{transform:10}{rows:>8}{best_native:>12.1}{best_guest:>12.1}{over:>12.1}{ratio:>8.1}");
        }
    }
}

async fn guest(instance: &mut Instance, batch: &Batch, calls: usize) -> f64 {
    let start = cpu_nanos();
    for _ in 0..calls {
        black_box(instance.process(batch).await.expect("processes"));
    }
    (cpu_nanos() - start) / (calls * batch.num_rows()) as f64
}

fn per_record(calls: usize, rows: usize, mut work: impl FnMut()) -> f64 {
    let start = cpu_nanos();
    (0..calls).for_each(|_| work());
    (cpu_nanos() - start) / (calls * rows) as f64
}

/// What this thread has computed so far. The kernel brings it up to date at each of its ticks, some milliseconds apart; a round is longer.
fn cpu_nanos() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux, with statistics of its scheduler");
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("the first number is the time computed")
}

/// A text of 92 bytes and a number of 8.
fn records(rows: usize) -> Batch {
    let fields = vec![Field::new("text", DataType::Utf8, false), Field::new("number", DataType::Int64, false)];
    let texts = StringArray::from_iter_values((0..rows).map(|row| format!("{row:092}")));
    let rows_of =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(texts), Arc::new(Int64Array::from_iter_values(0..rows as i64))]);
    Batch::new(rows_of.expect("two columns of one length"), (0..rows as i64).collect(), Positions::None)
}

fn numbers(batch: &Batch) -> &Int64Array {
    batch.rows.column(1).as_any().downcast_ref().expect("numbers")
}

fn filter(batch: &Batch) -> Batch {
    let kept = numbers(batch).values().iter().enumerate().filter(|(_, number)| **number & 1 == 0).map(|(row, _)| row as u32);
    batch.take(&UInt32Array::from_iter_values(kept))
}

fn map(batch: &Batch) -> Batch {
    let doubled: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers(batch).values().iter().map(|number| number.wrapping_mul(2))));
    let fields: Vec<_> = batch.schema().fields().iter().cloned().chain([Arc::new(Field::new("doubled", DataType::Int64, false))]).collect();
    let columns = batch.rows.columns().iter().cloned().chain([doubled]).collect();
    batch.with_columns(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("the columns fit"))
}

/// A copy of every value, as the guest's answer is one.
fn identity(batch: &Batch) -> Batch {
    let texts = batch.rows.column(0).as_any().downcast_ref::<StringArray>().expect("texts");
    let copied = StringArray::new(OffsetBuffer::new(texts.offsets().to_vec().into()), texts.values().to_vec().into(), None);
    let columns: Vec<ArrayRef> = vec![Arc::new(copied), Arc::new(Int64Array::from(numbers(batch).values().to_vec()))];
    batch.with_columns(RecordBatch::try_new(batch.schema(), columns).expect("the columns fit"))
}
