//! The broker is killed while a sink writes and a source reads: nothing is lost and nothing comes twice.

use crate::support::{PATIENCE, batch, config, next, runtime, sink, source};
use arrow::array::{ArrayRef, Int64Array, StringArray};
use pelton_tests::broker::Broker;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const ROWS: i64 = 60_000;
const BATCH: i64 = 500;
/// The broker is killed when the reader has seen this many; most are still to be written.
const KILLED_AT: usize = 10_000;

#[test]
fn a_broker_killed_midway_loses_and_repeats_nothing() {
    let broker = Broker::start();
    broker.topic("midway", 3);
    let servers = broker.servers();
    let broker = Arc::new(Mutex::new(broker));
    runtime().block_on(async {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let reading = config(&servers, "midway", json!({"format": "JSON", "schema": schema, "auto_offset_reset_config": "earliest"}));
        let writing = config(&servers, "midway", json!({"format": "JSON", "key": "key"}));
        let (progress, mut progressed) = tokio::sync::watch::channel(0usize);
        let writer = tokio::spawn(async move {
            let rows = |first: i64| {
                let numbers: Vec<i64> = (first..first + BATCH).collect();
                let keys = StringArray::from_iter_values(numbers.iter().map(|number| format!("key-{}", number % 50)));
                let times = numbers.iter().map(|number| 1_000_000 + number).collect();
                batch(vec![("n", Arc::new(Int64Array::from(numbers)) as ArrayRef), ("key", Arc::new(keys))], times)
            };
            let mut sink = sink(&writing, rows(0).schema()).await.unwrap();
            for first in (0..ROWS).step_by(BATCH as usize) {
                assert_eq!(sink.write(&rows(first)).await.unwrap(), []);
                if first as usize >= KILLED_AT + 5_000 {
                    // Paced by the reader, so that the kill comes while there is more to write.
                    progressed.wait_for(|seen| *seen + 20_000 > first as usize).await.unwrap();
                }
            }
            sink.finish().await.unwrap()
        });
        let (source, _stop) = source(&reading).await.unwrap();
        let mut seen = vec![0u8; ROWS as usize];
        let (mut total, mut killed) = (0, None);
        let mut reader = source.readers(1).unwrap().remove(0);
        let start = Instant::now();
        while total < ROWS as usize {
            assert!(start.elapsed() < 2 * PATIENCE, "{total} of {ROWS} rows after {:?}", start.elapsed());
            let read = next(&mut *reader).await.unwrap().unwrap();
            assert_eq!(read.errors, []);
            for cell in crate::support::cells(read.rows.column(0)) {
                seen[cell.as_i64().unwrap() as usize] += 1;
                total += 1;
            }
            // The writer is gone once it has written all.
            let _ = progress.send(total);
            if killed.is_none() && total >= KILLED_AT {
                let broker = broker.clone();
                killed = Some(tokio::task::spawn_blocking(move || {
                    let mut broker = broker.lock().unwrap();
                    broker.kill();
                    broker.restart();
                }));
                assert!(!writer.is_finished(), "the kill came after the writing");
            }
        }
        killed.unwrap().await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, writer).await.unwrap().unwrap().rows, ROWS as u64);
        assert!(seen.iter().all(|times| *times == 1));
        println!("rows={ROWS} killed_at={KILLED_AT} seconds={:.1}", start.elapsed().as_secs_f64());
    });
}
