//! Sum and count per key from memory: the Combine operator against a hand-written hash aggregation over the same batches.
//!
//! Both get the same Arrow batches in turn, a million rows each, and are measured in CPU time of this thread, so that other
//! programs on the machine change little; the ratio is of the medians. The operator's cells are in fixed windows of a minute
//! and its epoch is sealed after each million. "Known keys" is the steady state; "new keys" fills the state.
//!
//! `cargo xtask bench aggregate`

#![allow(clippy::disallowed_methods, reason = "a benchmark")]

use arrow::array::types::Int64Type;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use hashbrown::HashTable;
use pelton_core::{Batch, Duration, Instant, Positions, WindowFn, WindowingStrategy};
use pelton_expr::{Expression, Language};
use pelton_pipeline::graph::AggregateFunction;
use pelton_runtime::operator::{Operator, Out, Refusals};
use pelton_runtime::operators::combine::{Combine, CombinePlan};
use pelton_state::Rows;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const BATCH: usize = 8_192;
/// Rows between two seals, and in one measurement.
const ROUND: usize = 122 * BATCH;
/// Measurements of known keys.
const ROUNDS: usize = 12;

fn main() {
    println!("keys        rows        by hand     Pelton      ratio    Pelton, a core");
    let mut per_row = Vec::new();
    for keys in [100_000, 10_000_000] {
        let (hand, ours) = measure(keys);
        per_row.push((hand, ours));
    }
    let [(hand_few, ours_few), (hand_many, ours_many)] = per_row[..] else { unreachable!("two sizes") };
    println!("from 10^5 to 10^7 keys a row costs {:.2} x by hand and {:.2} x in Pelton", hand_many / hand_few, ours_many / ours_few);
}

/// Nanoseconds a row of known keys: by hand, Pelton.
fn measure(keys: u64) -> (f64, f64) {
    let mut hand = ByHand::default();
    let mut ours = Ours::new();
    let mut numbers = Numbers(7);
    // Every key once, in an order that is not theirs.
    let mut fresh = (0..keys).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64);
    let mut known: Vec<i64> = Vec::new();
    let (mut new_hand, mut new_ours) = (0.0, 0.0);
    while let round @ [_, ..] = fresh.by_ref().take(ROUND).collect::<Vec<i64>>().as_slice() {
        let batches = batches(round);
        new_hand += timed(|| batches.iter().for_each(|batch| hand.add(batch)));
        new_ours += timed(|| batches.iter().for_each(|batch| ours.add(batch)));
        ours.seal();
        known.extend_from_slice(round);
    }
    report(keys, "new keys", new_hand / keys as f64, new_ours / keys as f64);
    let (mut times_hand, mut times_ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let round: Vec<i64> = (0..ROUND).map(|_| known[(numbers.next() % keys) as usize]).collect();
        let batches = batches(&round);
        times_hand.push(timed(|| batches.iter().for_each(|batch| hand.add(batch))) / ROUND as f64);
        times_ours.push(timed(|| batches.iter().for_each(|batch| ours.add(batch))) / ROUND as f64);
        ours.seal();
    }
    let (by_hand, pelton) = (median(times_hand), median(times_ours));
    report(keys, "known keys", by_hand, pelton);
    assert_eq!(hand.total(), ours.total(), "both have the same rows");
    for percent in [1, 10, 100] {
        let some: Vec<i64> = known.iter().copied().filter(|key| (*key as u64 >> 7) % 100 < percent).collect();
        batches(&some).iter().for_each(|batch| ours.add(batch));
        let (bytes, sealing, writing) = ours.seal();
        println!(
            "{keys:<10}  {percent:>3} % changed: {bytes} bytes, {:.1} a changed key; sealed in {:.1} us, encoded in {:.1} ns a key",
            bytes as f64 / some.len() as f64,
            sealing / 1e3,
            writing / some.len() as f64
        );
    }
    (by_hand, pelton)
}

fn report(keys: u64, which: &str, hand: f64, ours: f64) {
    let (ratio, rate) = (ours / hand, 1e3 / ours);
    println!("{keys:<10}  {which:<10}  {hand:>5.1} ns    {ours:>5.1} ns    {ratio:>4.2} x    {rate:>5.1} M rows/s");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Nanoseconds of CPU that this thread spends in it.
fn timed(work: impl FnOnce()) -> f64 {
    let cpu = || -> f64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells a thread's time");
        stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first figure is nanoseconds on a CPU")
    };
    // The figure moves at a switch or a tick of the scheduler: make it move now.
    let settle = || std::thread::yield_now();
    settle();
    let before = cpu();
    work();
    settle();
    cpu() - before
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn batches(keys: &[i64]) -> Vec<Batch> {
    let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Int64, false)]));
    let batch = |keys: &[i64]| {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(keys.to_vec())), Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key % 1000)))];
        Batch {
            rows: RecordBatch::try_new(schema.clone(), columns).expect("the columns fit"),
            times: vec![1_000_000; keys.len()].into(),
            windows: None,
            positions: Positions::None,
        }
    };
    keys.chunks(BATCH).map(batch).collect()
}

/// What one would write for this one job.
#[derive(Default)]
struct ByHand {
    index: HashTable<(i64, u32)>,
    sums: Vec<i64>,
    counts: Vec<i64>,
}

impl ByHand {
    fn add(&mut self, batch: &Batch) {
        let keys = batch.rows.column(0).as_primitive::<Int64Type>().values();
        let values = batch.rows.column(1).as_primitive::<Int64Type>().values();
        let hash = |key: i64| xxh3_64(&key.to_le_bytes());
        for (key, value) in keys.iter().zip(values) {
            let slot = match self.index.find(hash(*key), |entry| entry.0 == *key) {
                Some((_, slot)) => *slot as usize,
                None => {
                    self.index.insert_unique(hash(*key), (*key, self.sums.len() as u32), |entry| hash(entry.0));
                    self.sums.push(0);
                    self.counts.push(0);
                    self.sums.len() - 1
                }
            };
            self.sums[slot] += value;
            self.counts[slot] += 1;
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum::<i64>() as u64
    }
}

/// The operator as tasks run it.
struct Ours {
    combine: Combine,
    executor: tokio::runtime::Runtime,
}

impl Ours {
    fn new() -> Ours {
        let input = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Int64, false)]));
        let column = |name: &str| Expression::compile(Language::Generic, name, &input).expect("a column");
        let output = Schema::new(vec![
            Field::new("key", DataType::Int64, false),
            Field::new("sum", DataType::Int64, true),
            Field::new("count", DataType::Int64, false),
        ]);
        let size = Duration::from_micros(60_000_000);
        let plan = CombinePlan {
            group_by: vec![column("key")],
            group_types: vec![DataType::Int64],
            aggregates: vec![(AggregateFunction::Sum, Some(column("value"))), (AggregateFunction::Count, None)],
            schema: Arc::new(output),
            late_schema: input.clone(),
            plugins: vec![],
            spread: false,
            levels: vec![],
            late_port: 0,
            strategy: WindowingStrategy::new(WindowFn::Fixed { size, offset: Duration::ZERO }, Duration::ZERO),
            state_limit: usize::MAX,
        };
        let refusals = Refusals { transform: "Combine".into(), plugin: None, port: None };
        let executor = tokio::runtime::Builder::new_current_thread().build().expect("an executor");
        let mut combine = Combine::new(plan, Arc::default(), refusals).expect("binds");
        combine.visit_cells(&mut |_, cells| cells.record());
        Ours { combine, executor }
    }

    fn add(&mut self, batch: &Batch) {
        let mut out = Out::new(Instant::MIN);
        self.executor.block_on(self.combine.data(0, batch.clone(), &mut out)).expect("in range");
        assert!(out.messages.is_empty(), "nothing is due");
    }

    /// Bytes of the epoch, nanoseconds that sealing it took and that encoding it did.
    fn seal(&mut self) -> (usize, f64, f64) {
        let (mut rows, mut sealing, mut writing) = (Rows::default(), 0.0, 0.0);
        self.combine.visit_cells(&mut |_, cells| {
            sealing += timed(|| cells.seal());
            writing += timed(|| assert!(cells.persist(usize::MAX, &mut rows), "all of it"));
        });
        (rows.bytes(), sealing, writing)
    }

    fn total(&self) -> u64 {
        self.combine.held()
    }
}
