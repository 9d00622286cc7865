//! Sum and count per key in sliding windows of 5, 60 and 600 periods: what a row costs must not grow with that number.
//!
//! Rows come in order of time, a thousand rows a period, over 100 or 1,000 keys (ten rows or one a key and period); the
//! watermark follows every batch, so that each period all keys give a row out. CPU time of this thread; the ratios are to
//! windows of 5 periods.
//!
//! `cargo xtask bench sliding`

#![allow(clippy::disallowed_methods, reason = "a benchmark")]

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::watermark::Watermark;
use pelton_core::{Batch, Duration, Instant, Positions, WindowFn, WindowingStrategy};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::AggregateFunction;
use pelton_runtime::operator::{Operator, Out, Refusals};
use pelton_runtime::operators::combine::{Combine, CombinePlan};
use std::sync::Arc;

const BATCH: usize = 8_192;
const ROWS: usize = 244 * BATCH;
/// Microseconds: a row a millisecond, a window every second.
const STEP: i64 = 1_000;
const PERIOD: i64 = 1_000_000;

fn main() {
    println!("keys   rows a key and period   size / period   ns a row   ratio   rows out");
    for keys in [100, 1_000] {
        let mut first = None;
        for times in [5, 60, 600] {
            let mut runs: Vec<(f64, usize)> = (0..3).map(|_| run(keys, times)).collect();
            runs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (nanos, out) = runs[1];
            let base = *first.get_or_insert(nanos);
            println!("{keys:<6} {:<23} {times:<15} {nanos:>8.1}   {:>5.2}   {out}", 1_000 / keys, nanos / base);
        }
    }
}

/// Nanoseconds a row, and rows given out.
fn run(keys: i64, times: i64) -> (f64, usize) {
    let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Int64, false)]));
    let batches: Vec<Batch> = (0..ROWS / BATCH)
        .map(|number| {
            let rows = || (number * BATCH) as i64..((number + 1) * BATCH) as i64;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(rows().map(|row| row * 7 % keys))),
                Arc::new(Int64Array::from_iter_values(rows())),
            ];
            Batch {
                rows: RecordBatch::try_new(schema.clone(), columns).expect("the columns fit"),
                times: rows().map(|row| row * STEP).collect(),
                windows: None,
                positions: Positions::None,
            }
        })
        .collect();
    let column = |name: &str| Expression::compile(Language::Generic, name, &schema).expect("a column");
    let output = ["key", "sum", "count"].map(|name| Field::new(name, DataType::Int64, true));
    let window =
        WindowFn::Sliding { size: Duration::from_micros(PERIOD * times), period: Duration::from_micros(PERIOD), offset: Duration::ZERO };
    let plan = CombinePlan {
        group_by: vec![column("key")],
        group_types: vec![DataType::Int64],
        aggregates: vec![(AggregateFunction::Sum, Some(column("value"))), (AggregateFunction::Count, None)],
        schema: Arc::new(Schema::new(output.to_vec())),
        late_schema: schema.clone(),
        plugins: vec![],
        spread: false,
        levels: vec![],
        late_port: 1,
        strategy: WindowingStrategy::new(window, Duration::ZERO),
        state_limit: usize::MAX,
    };
    let refusals = Refusals { transform: "Combine".into(), plugin: None, port: None };
    let mut combine = Combine::new(plan, Arc::default(), refusals).expect("binds");
    let executor = tokio::runtime::Builder::new_current_thread().build().expect("an executor");
    let mut given = 0;
    let nanos = timed(|| {
        executor.block_on(async {
            for batch in &batches {
                let mut out = Out::new(Instant::MIN);
                let last = *batch.times.last().expect("a batch has rows");
                combine.data(0, batch.clone(), &mut out).await.expect("in range");
                let watermark = Watermark::Active(Instant::from_micros_saturating(last));
                combine.watermark(watermark, &mut out).await.expect("in range");
                given += out.messages.iter().map(|(_, message)| rows_of(message)).sum::<usize>();
            }
        });
    });
    (nanos / ROWS as f64, given)
}

fn rows_of(message: &pelton_runtime::message::Message) -> usize {
    match message {
        pelton_runtime::message::Message::Data(batch) => batch.num_rows(),
        _ => 0,
    }
}

/// Nanoseconds of CPU that this thread spends in it.
fn timed(work: impl FnOnce()) -> f64 {
    let cpu = || -> f64 {
        std::thread::yield_now();
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread's time");
        stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first figure is nanoseconds on a CPU")
    };
    let before = cpu();
    work();
    cpu() - before
}
