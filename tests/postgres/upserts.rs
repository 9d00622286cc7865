//! `mode: upsert` against a map in memory.

use crate::support::{Life, batch, config, runtime, write_all};
use arrow::array::{ArrayRef, Int64Array, StringArray, UInt8Array};
use arrow::buffer::ScalarBuffer;
use pelton_core::batch::{PaneInfo, PaneTiming, RowWindows};
use pelton_core::{Batch, Instant, Window};
use pelton_tests::postgres::Server;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy)]
struct Change {
    key: (i64, &'static str),
    value: Option<i64>,
    kind: u8,
}

fn rows(changes: &[Change]) -> Batch {
    batch(vec![
        ("id", Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.key.0))) as ArrayRef),
        ("part", Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.key.1)))),
        ("v", Arc::new(Int64Array::from_iter(changes.iter().map(|change| change.value)))),
        ("row_kind", Arc::new(UInt8Array::from_iter_values(changes.iter().map(|change| change.kind)))),
    ])
}

fn random_changes(count: usize, seed: &mut u64) -> Vec<Change> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    };
    let change = |_| {
        let kind = (next() % 4) as u8;
        let value = (kind == 0 || kind == 2).then(|| next() as i64);
        Change { key: ((next() % 40) as i64, ["a", "b"][next() as usize % 2]), value, kind }
    };
    (0..count).map(change).collect()
}

fn apply(model: &mut BTreeMap<(i64, &'static str), i64>, changes: &[Change]) {
    for change in changes {
        match change.kind {
            0 | 2 => model.insert(change.key, change.value.unwrap()),
            _ => model.remove(&change.key),
        };
    }
}

fn check(server: &Server, database: &str, model: &BTreeMap<(i64, &'static str), i64>) {
    let found = server.psql(database, "SELECT id, part, v FROM t ORDER BY id, part");
    let expected: Vec<String> = model.iter().map(|((id, part), v)| format!("{id}|{part}|{v}")).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn random_changes_leave_what_a_map_holds() {
    let server = Server::shared();
    let (mut seed, mut changed) = (11, 0);
    for once in [false, true] {
        let database = server.database();
        // A delete brings no value, although the column takes no null.
        server
            .psql(&database, "CREATE TABLE t (part text, id bigint, v bigint NOT NULL, note text DEFAULT 'kept', PRIMARY KEY (id, part))");
        let config = config(server.port(), &database, "t", json!({"mode": "upsert", "key": ["id", "part"], "batch_size": 37}));
        let mut model = BTreeMap::new();
        runtime().block_on(async {
            if !once {
                let batches: Vec<Vec<Change>> = (0..40).map(|_| random_changes(25, &mut seed)).collect();
                batches.iter().for_each(|changes| apply(&mut model, changes));
                let errors = write_all(&config, &batches.iter().map(|changes| rows(changes)).collect::<Vec<_>>()).await;
                assert_eq!(errors, Vec::<String>::new());
                check(&server, &database, &model);
                return;
            }
            let outbox = tempfile::tempdir().unwrap();
            let mut life = Life::start(&[("t", config)], &rows(&[]).schema(), 1, outbox.path(), &BTreeMap::new()).await;
            for epoch in 1..=20 {
                for _ in 0..3 {
                    let changes = random_changes(20, &mut seed);
                    apply(&mut model, &changes);
                    life.write(&rows(&changes)).await;
                    changed += changes.len();
                }
                life.prepare(epoch).await;
                life.decide(epoch).await.unwrap();
                check(&server, &database, &model);
            }
        });
    }
    assert_eq!(changed, 1_200);
}

/// Rows of a batch with a window each, all of one pane.
fn panes(rows: &[(i64, i64, i64)], pane: i64, kind: u8) -> Batch {
    let changes: Vec<Change> = rows.iter().map(|(id, _, v)| Change { key: (*id, "a"), value: Some(*v), kind }).collect();
    let table: Vec<Window> = rows
        .iter()
        .map(|(_, hour, _)| Window {
            start: Instant::from_micros_saturating(hour * 3_600_000_000),
            end: Instant::from_micros_saturating((hour + 1) * 3_600_000_000),
        })
        .collect();
    let pane = PaneInfo { timing: PaneTiming::Late, is_first: pane == 0, is_last: false, index: pane, nonspeculative_index: pane };
    let windows = RowWindows { index: ScalarBuffer::from((0..rows.len() as u32).collect::<Vec<_>>()), table: table.into(), pane };
    Batch { windows: Some(windows), ..self::rows(&changes) }
}

#[test]
fn the_highest_window_and_pane_stay() {
    let server = Server::shared();
    let database = server.database();
    let create = "CREATE TABLE t (id bigint, part text, v bigint, pelton_window timestamptz, pelton_pane bigint, PRIMARY KEY (id, part))";
    server.psql(&database, create);
    let config = config(server.port(), &database, "t", json!({"mode": "upsert", "key": ["id", "part"]}));
    let table = || server.psql(&database, "SELECT id, v, extract(hour FROM pelton_window)::int, pelton_pane FROM t ORDER BY id");
    runtime().block_on(async {
        // Within a transaction: pane 2 of hour 5 has come before pane 1 of it and a late pane of hour 4.
        write_all(&config, &[panes(&[(1, 5, 52)], 2, 0), panes(&[(1, 5, 51)], 1, 0), panes(&[(1, 4, 49), (2, 4, 40)], 9, 0)]).await;
        assert_eq!(table(), "1|52|6|2\n2|40|5|9");
        // Across transactions: older panes change and delete nothing, the same and newer ones do.
        write_all(&config, &[panes(&[(1, 5, 1), (2, 4, 1)], 1, 2)]).await;
        write_all(&config, &[panes(&[(1, 5, 1), (2, 4, 1)], 1, 3)]).await;
        assert_eq!(table(), "1|52|6|2\n2|40|5|9");
        write_all(&config, &[panes(&[(1, 5, 53), (2, 5, 54)], 3, 0)]).await;
        assert_eq!(table(), "1|53|6|3\n2|54|6|3");
        write_all(&config, &[panes(&[(1, 5, 0)], 4, 3)]).await;
        assert_eq!(table(), "2|54|6|3");
    });
}

#[test]
fn rows_that_no_upsert_takes() {
    let server = Server::shared();
    let database = server.database();
    server.psql(
        &database,
        "CREATE TABLE t (id bigint, part text, v bigint, PRIMARY KEY (id, part)); CREATE TABLE log (id bigint, part text, v bigint)",
    );
    let long: &'static str = "x".repeat(2_601).leak();
    let change = |part, kind| Change { key: (1, part), value: Some(1), kind };
    let rows = rows(&[change("a", 0), change("b", 4), change(long, 0)]);
    let upsert = config(server.port(), &database, "t", json!({"mode": "upsert", "key": ["id", "part"]}));
    let append = config(server.port(), &database, "log", json!({}));
    runtime().block_on(async {
        let errors = write_all(&upsert, std::slice::from_ref(&rows)).await;
        assert_eq!(
            errors,
            ["1: column `row_kind`: 4 is no kind of row, which are 0 to 3", "2: a key of 2617 bytes; at most 2600 fit an index"]
        );
        let rows = self::rows(&[change("a", 0), change("b", 3)]);
        assert_eq!(write_all(&append, &[rows]).await, ["1: `mode: append` takes only inserts; this row's `row_kind` is another"]);
        let nulls = batch(vec![
            ("id", Arc::new(Int64Array::from(vec![None])) as ArrayRef),
            ("part", Arc::new(StringArray::from(vec!["a"]))),
            ("v", Arc::new(Int64Array::from(vec![1]))),
        ]);
        assert_eq!(write_all(&upsert, &[nulls]).await, ["0: column `id`: null where the table needs a value"]);
    });
    assert_eq!(server.psql(&database, "SELECT * FROM t UNION ALL SELECT * FROM log"), "1|a|1\n1|a|1");
}
