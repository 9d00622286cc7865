//! Lookups against a search through the table, and tables that change, go away and come back wrong.

use super::refresh::{FAILED_READINGS, READINGS, Shared};
use super::table::TablePlan;
use super::{LookupJoin, LookupPlan};
use crate::clock::Stopwatch;
use crate::message::Message;
use crate::metrics::{NodeMetrics, UserMetric};
use crate::operator::{Operator, Out, Refusals};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use pelton_connect::{ConnectError, SourceContext};
use pelton_core::{Batch, Duration, Instant, Positions};
use pelton_expr::{Expression, Language};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, false)]))
}

fn plan(kind: &str, config: Value, kept: bool, default: Option<&str>) -> LookupPlan {
    let mut fields = input().fields().to_vec();
    fields.push(Arc::new(Field::new("name", DataType::Utf8, true)));
    let missing: ArrayRef = match default {
        Some(text) => Arc::new(StringArray::from(vec![text])),
        None => new_null_array(&DataType::Utf8, 1),
    };
    let table = TablePlan {
        kind: kind.into(),
        config,
        names: vec!["id".into(), "name".into()],
        types: vec![DataType::Int64, DataType::Utf8],
        keys: 1,
        missing: vec![missing],
        refresh: Some(Duration::from_micros(100)),
        limit: usize::MAX,
    };
    let keys = vec![Expression::compile(Language::Generic, "k", &input()).expect("a column")];
    LookupPlan { keys, key_types: vec![DataType::Int64], schema: Arc::new(Schema::new(fields)), kept, table }
}

fn context(io: &tokio::runtime::Handle, folder: &std::path::Path) -> SourceContext {
    let (_, stop) = tokio::sync::watch::channel(false);
    SourceContext { transform: "Lookup".into(), parallelism: 1, base_dir: folder.into(), io: io.clone(), stop }
}

fn metrics() -> Arc<NodeMetrics> {
    Arc::new(NodeMetrics::new("Lookup".into(), "LookupJoin".into(), vec![String::new()]))
}

fn operator(plan: LookupPlan, table: Arc<Shared>) -> LookupJoin {
    let refusals = Refusals { transform: "Lookup".into(), plugin: None, port: None };
    LookupJoin::new(plan, table, metrics(), refusals).expect("the plan is sound")
}

type Row = (Option<i64>, i64);

fn batch(rows: &[Row]) -> Batch {
    let keys: Int64Array = rows.iter().map(|row| row.0).collect();
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
    let made = RecordBatch::try_new(input(), vec![Arc::new(keys), Arc::new(values)]).expect("two columns");
    Batch::new(made, rows.iter().map(|row| row.1 * 10).collect(), Positions::None)
}

/// What came out: value, event time, name.
type Seen = (i64, i64, Option<String>);

async fn look_up(operator: &mut LookupJoin, rows: &[Row], out: &mut Out) -> Vec<Seen> {
    operator.data(0, batch(rows), out).await.expect("rows are sound");
    let mut seen = Vec::new();
    for (_, message) in out.messages.drain(..) {
        let Message::Data(batch) = message else { continue };
        let values = batch.rows.column(1).as_primitive::<Int64Type>();
        let names = batch.rows.column(2).as_string::<i32>();
        let name = |row: usize| names.is_valid(row).then(|| names.value(row).to_string());
        seen.extend((0..batch.num_rows()).map(|row| (values.value(row), batch.times[row], name(row))));
    }
    seen
}

fn io() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_lookup_finds_what_a_search_finds(
        table in proptest::collection::btree_map(0i64..8, "[a-z]{0,3}", 0..6),
        nulls in 0usize..3,
        batches in proptest::collection::vec(proptest::collection::vec((proptest::option::weighted(0.9, 0i64..10), 0i64..100), 0..12), 0..4),
        kept in any::<bool>(),
        default in proptest::option::of(Just("none")),
    ) {
        // A row of a key that is not asked for, so that the types are known, and rows that are nobody's.
        let mut elements = vec![json!({"id": 100, "name": "z"})];
        elements.extend(table.iter().map(|(id, name)| json!({"id": id, "name": name})));
        elements.extend((0..nulls).map(|_| json!({"id": null, "name": "nobody"})));
        let io = io();
        io.block_on(async {
            let plan = plan("Create", json!({"elements": elements}), kept, default);
            let shared = Shared::start(plan.table.clone(), context(io.handle(), ".".as_ref())).await.expect("the table is sound");
            let mut operator = operator(plan, shared);
            for rows in &batches {
                let mut out = Out::new(Instant::MIN);
                let seen = look_up(&mut operator, rows, &mut out).await;
                let mut want: Vec<Seen> = Vec::new();
                for (key, value) in rows {
                    let found = key.and_then(|key| table.get(&key).cloned());
                    if kept || found.is_some() {
                        want.push((*value, value * 10, found.or(default.map(str::to_string))));
                    }
                }
                assert_eq!((out.account.led, out.account.filtered), (want.len() as u64, (rows.len() - want.len()) as u64));
                assert_eq!(seen, want);
            }
        });
    }
}

/// Ticks until the table looks as it should; an error ends it.
async fn until(shared: &Arc<Shared>, metrics: &NodeMetrics, now: &mut i64, done: impl Fn() -> bool) -> Result<(), ConnectError> {
    let watch = Stopwatch::start();
    while !done() {
        assert!(watch.elapsed().as_secs() < 300, "nothing happens");
        *now += 10;
        shared.tick(Instant::from_micros_saturating(*now), metrics)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn counted(metrics: &NodeMetrics, name: &str) -> f64 {
    match metrics.user.lock().expect("no holder panics").get(name) {
        Some(UserMetric::Counter { value }) => *value,
        _ => 0.0,
    }
}

#[test]
fn a_table_is_read_again_and_the_last_good_reading_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("table.jsonl");
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    write("{\"id\": 1, \"name\": \"old\"}\n");
    let io = io();
    io.block_on(async {
        let plan = plan("ReadFromJson", json!({"path": "table.jsonl"}), true, None);
        let shared = Shared::start(plan.table.clone(), context(io.handle(), folder.path())).await.expect("the table is sound");
        let (metrics, mut operator, mut now) = (metrics(), operator(plan, shared.clone()), 0);
        let mut out = Out::new(Instant::MIN);
        let mut name_of_1 = async || look_up(&mut operator, &[(Some(1), 0)], &mut out).await.remove(0).2;
        assert_eq!(name_of_1().await.as_deref(), Some("old"));

        write("{\"id\": 1, \"name\": \"new\"}\n{\"id\": 2, \"name\": \"two\"}\n");
        until(&shared, &metrics, &mut now, || counted(&metrics, READINGS) >= 2.0).await.expect("the table is sound");
        assert_eq!(name_of_1().await.as_deref(), Some("new"));

        std::fs::remove_file(&file).expect("the file is there");
        let before = counted(&metrics, FAILED_READINGS);
        until(&shared, &metrics, &mut now, || counted(&metrics, FAILED_READINGS) >= before + 2.0).await.expect("the last reading holds");
        assert_eq!(name_of_1().await.as_deref(), Some("new"));

        write("{\"id\": 1, \"name\": \"a\"}\n{\"id\": 1, \"name\": \"b\"}\n");
        let error = until(&shared, &metrics, &mut now, || false).await.expect_err("two rows of one key");
        let said = error.to_string();
        assert!(said.contains("{\"id\":1,\"name\":\"a\"} and {\"id\":1,\"name\":\"b\"}"), "{said}");
    });
}
