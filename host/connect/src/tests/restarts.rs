//! Sources that are interrupted again and again give every row once, whatever the readers of each life.

use super::*;
use crate::generate::random::Random;
use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_core::SplitPosition;
use serde_json::json;
use std::io::Write;
use std::sync::Arc;

/// A row or an error with where it was read.
type Seen = Vec<(String, i64, String)>;

fn see(batch: &SourceBatch, seen: &mut Seen) {
    let encoder = crate::format::json_write::JsonEncoder::new(&batch.rows).unwrap();
    for row in 0..batch.rows.num_rows() {
        let mut out = Vec::new();
        encoder.write(row, &mut out).unwrap();
        seen.push((batch.split.to_string(), batch.offsets[row], String::from_utf8(out).unwrap()));
    }
    seen.extend(batch.errors.iter().map(|error| (batch.split.to_string(), error.offset, error.message.clone())));
}

/// What is kept between two lives.
struct Kept {
    plan: Vec<u8>,
    positions: Vec<SplitPosition>,
}

/// One life: some batches, then a barrier that each reader meets at a moment of its own; what is read after it does not count.
/// The second value says whether everything was read.
fn live(dir: &Path, kind: &str, config: &Value, kept: &mut Option<Kept>, random: &mut Random, seen: &mut Seen) -> bool {
    let runtime = runtime();
    runtime.block_on(async {
        let (_sender, stop) = watch::channel(false);
        let parallelism = [1, 2, 3, 8][random.below(4) as usize];
        let context = SourceContext { parallelism, ..source_context(&runtime, dir, stop) };
        let mut source = open_source(kind, config, context).await.unwrap();
        if let Some(kept) = kept.as_ref() {
            source.restore(&kept.plan, kept.positions.clone()).unwrap();
        }
        let plan = source.plan();
        let mut readers = source.readers(parallelism).unwrap();
        let mut positions: Vec<Option<Vec<SplitPosition>>> = vec![None; readers.len()];
        let mut ended = vec![false; readers.len()];
        let mut before = random.below(5);
        while positions.iter().any(Option::is_none) {
            let one = random.below(readers.len() as u64) as usize;
            if before == 0 && random.happens(0.5) && positions[one].is_none() {
                positions[one] = Some(readers[one].positions());
                continue;
            }
            before = before.saturating_sub(1);
            match readers[one].next().await.unwrap() {
                Some(batch) if positions[one].is_none() => see(&batch, seen),
                Some(_) => {}
                None => ended[one] = true,
            }
        }
        let all = ended.iter().all(|ended| *ended) && !readers.iter().any(|reader| reader.unclaimed());
        *kept = Some(Kept { plan, positions: positions.into_iter().flatten().flatten().collect() });
        all
    })
}

fn check_restarts(dir: &Path, kind: &str, config: Value, seeds: u64) {
    let mut expected = Seen::new();
    read(dir, kind, config.clone(), 2, None).unwrap().batches.iter().for_each(|batch| see(batch, &mut expected));
    expected.sort();
    let mut restarts = 0;
    for seed in 0..seeds {
        let (mut random, mut kept, mut seen, mut lives) = (Random::of(7, seed), None, Seen::new(), 1);
        // A life may meet its barrier before its first batch.
        while !live(dir, kind, &config, &mut kept, &mut random, &mut seen) || seen.len() < expected.len() {
            lives += 1;
            assert!(lives < 2_000, "{kind}: seed {seed} comes to no end");
        }
        seen.sort();
        assert_eq!(seen.len(), expected.len(), "{kind}: seed {seed}, {lives} lives");
        assert!(seen == expected, "{kind}: seed {seed}, {lives} lives");
        restarts += lives - 1;
    }
    assert!(restarts >= seeds as usize, "{kind}: {seeds} seeds with only {restarts} restarts");
    println!("{kind}: seeds={seeds} restarts={restarts} rows={}", expected.len());
}

fn text(rows: u64, seed: u64) -> String {
    let mut random = Random::of(seed, 0);
    (0..rows)
        .map(|number| match random.below(50) {
            0 => "\r\n".into(),
            1 => format!("{{\"n\":{number}\n"),
            2 => format!("{{\"n\":{number},\"s\":\"{}\"}}\r\n", "long ".repeat(2_000)),
            _ => format!("{{\"n\":{number},\"s\":\"{}\"}}\n", "x".repeat(random.below(60) as usize)),
        })
        .collect()
}

#[test]
fn lines_of_large_small_and_compressed_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.json"), text(70_000, 1)).unwrap();
    std::fs::write(dir.path().join("b.json"), format!("\u{feff}{}", text(9_000, 2).trim_end())).unwrap();
    std::fs::write(dir.path().join("c.json"), "").unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text(20_000, 3).as_bytes()).unwrap();
    std::fs::write(dir.path().join("d.json.gz"), gzip.finish().unwrap()).unwrap();
    std::fs::write(dir.path().join("e.json.zst"), zstd::encode_all(text(20_000, 4).as_bytes(), 1).unwrap()).unwrap();
    check_restarts(dir.path(), "ReadFromText", json!({"path": "*.json*"}), 3);
    check_restarts(dir.path(), "ReadFromText", json!({"path": "*.json*", "skip_header_lines": 3}), 2);
    check_restarts(dir.path(), "ReadFromJson", json!({"path": "*.json*"}), 3);
}

#[test]
fn a_line_beyond_the_limit_is_passed_over_once() {
    let dir = tempfile::tempdir().unwrap();
    let long = "y".repeat(pelton_core::batch::MAX_ROW_BYTES + 1_500_000);
    std::fs::write(dir.path().join("a"), format!("{}{long}\n{long}\n{}{long}", text(3_000, 5), text(9_000, 6))).unwrap();
    check_restarts(dir.path(), "ReadFromText", json!({"path": "a"}), 2);
}

#[test]
fn csv_with_line_ends_in_quotes() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |from: u64, count: u64, end: &str| -> String {
        let row = |number: u64| match number % 7 {
            0 => format!("{number},\"a \"\"quoted\"\"\n,{}\"{end}", "field ".repeat(number as usize % 40)),
            1 => format!("{number},too,many{end}"),
            2 => format!("{end}# no record{end}{number},\u{feff}x{end}"),
            _ => format!("{number},{}{end}", "plain ".repeat(number as usize % 9)),
        };
        (from..from + count).map(row).collect()
    };
    std::fs::write(dir.path().join("a.csv"), format!("# by hand\nid,name\n{}", rows(0, 30_000, "\n"))).unwrap();
    std::fs::write(dir.path().join("b.csv"), format!("name,id\r\n{}", rows(50_000, 30_000, "\r\n"))).unwrap();
    let packed = zstd::encode_all(format!("id,name\n{}", rows(90_000, 20_000, "\r")).as_bytes(), 1).unwrap();
    std::fs::write(dir.path().join("c.csv.zst"), packed).unwrap();
    let config = json!({"path": "*.csv*", "comment": "#", "schema": {"id": "string", "name": "string"}});
    check_restarts(dir.path(), "ReadFromCsv", config, 4);
}

fn table(from: i64, rows: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
    let texts: Vec<String> = (from..from + rows).map(|number| format!("row {number}")).collect();
    RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(Int64Array::from_iter_values(from..from + rows)), Arc::new(StringArray::from(texts))],
    )
    .unwrap()
}

#[test]
fn rows_of_parquet_and_avro() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    for (kind, name) in [("WriteToParquet", "parquet"), ("WriteToAvro", "avro")] {
        for (number, blocks) in [(0, vec![30_000, 1, 8_192]), (1, vec![20_000, 30_000]), (2, vec![5])] {
            runtime.block_on(async {
                let config = json!({"path": format!("{number}.{name}")});
                let mut sink = open(kind, &config, sink_context(&runtime, dir.path(), table(0, 1).schema())).await;
                for rows in blocks {
                    sink.write(&batch(table(number, rows), vec![0; rows as usize])).await.unwrap();
                }
                sink.finish().await.unwrap();
            });
        }
    }
    check_restarts(dir.path(), "ReadFromParquet", json!({"path": "*.parquet*"}), 6);
    check_restarts(dir.path(), "ReadFromAvro", json!({"path": "*.avro*"}), 6);
}

#[test]
fn made_rows() {
    let dir = tempfile::tempdir().unwrap();
    let elements: Vec<i64> = (0..40_000).collect();
    check_restarts(dir.path(), "Create", json!({"elements": elements}), 6);
    let lag = json!({"offline_share": 0.2, "offline_duration": "2s", "duplicates": 0.05, "malformed": 0.02, "max_out_of_order": "1s"});
    let config = json!({"kind": "iot", "count": 60_000, "parts": 5, "interval": "1ms", "lag": lag});
    check_restarts(dir.path(), "GenerateEvents", config, 3);
    let config = json!({"kind": "web_access", "count": 9_000, "rate": 300_000, "parts": 2, "start": "2026-01-01T00:00:00Z"});
    check_restarts(dir.path(), "GenerateEvents", config, 2);
}

#[test]
fn events_that_began_now_go_on_from_then() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let config = json!({"kind": "iot", "count": 100, "start": "now"});
        let (_sender, stop) = watch::channel(false);
        let first = open_source("GenerateEvents", &config, source_context(&runtime, dir.path(), stop.clone())).await.unwrap();
        let mut second = open_source("GenerateEvents", &config, source_context(&runtime, dir.path(), stop.clone())).await.unwrap();
        second.restore(&first.plan(), Vec::new()).unwrap();
        assert_eq!(first.plan(), second.plan());
        let other = json!({"kind": "iot", "count": 100, "start": "now", "seed": 1});
        let mut third = open_source("GenerateEvents", &other, source_context(&runtime, dir.path(), stop)).await.unwrap();
        assert!(third.restore(&first.plan(), Vec::new()).unwrap_err().to_string().contains("other events"));
    });
}

/// The plan is made, something happens to the files, the source opens again.
fn restored(dir: &Path, kind: &str, config: Value, between: impl FnOnce(&Path)) -> Result<(), ConnectError> {
    let runtime = runtime();
    runtime.block_on(async {
        let (_sender, stop) = watch::channel(false);
        let source = open_source(kind, &config, source_context(&runtime, dir, stop.clone())).await?;
        let plan = source.plan();
        let mut readers = source.readers(1)?;
        readers[0].next().await?;
        let positions = readers[0].positions();
        between(dir);
        let mut source = open_source(kind, &config, source_context(&runtime, dir, stop)).await?;
        source.restore(&plan, positions)
    })
}

#[test]
fn a_file_that_is_another_one_is_named() {
    let check = |kind: &str, between: fn(&Path), part: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", "b.json"] {
            std::fs::write(dir.path().join(name), text(15_000, 9)).unwrap();
        }
        match (restored(dir.path(), kind, json!({"path": "*.json"}), between), part) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => {
                assert!(error.to_string().contains(part) && error.help().is_some(), "{error} has no `{part}`");
            }
            (result, part) => panic!("{result:?} and not {part:?}"),
        }
    };
    check("ReadFromText", |_| {}, None);
    check("ReadFromText", |dir| std::fs::remove_file(dir.join("b.json")).unwrap(), Some("b.json: it is no longer there"));
    check("ReadFromText", |dir| std::fs::write(dir.join("a.json"), "{}\n").unwrap(), Some("a.json: it had"));
    check("ReadFromJson", |dir| std::fs::write(dir.join("b.json"), text(30_000, 8)).unwrap(), Some("b.json: it does not begin"));
    let grow = |dir: &Path| {
        let mut file = std::fs::File::options().append(true).open(dir.join("b.json")).unwrap();
        file.write_all(b"{\"n\":7}\n").unwrap();
    };
    check("ReadFromJson", grow, None);
    check("ReadFromJson", |dir| std::fs::write(dir.join("0.json"), "{\"other\":1}\n").unwrap(), Some("other: int64"));
    // A new file is no part of the plan, and does no harm.
    check("ReadFromText", |dir| std::fs::write(dir.join("0.json"), "new\n").unwrap(), None);
}
