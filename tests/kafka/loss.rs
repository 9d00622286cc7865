//! The broker is killed while a sink writes and a source reads: nothing is lost and nothing comes twice.

use crate::support::{PATIENCE, batch, config, next, runtime, sink, source};
use arrow::array::{ArrayRef, Int64Array, StringArray};
use pelton_tests::broker::{Broker, PASSWORD};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const ROWS: i64 = 60_000;
const BATCH: i64 = 500;
/// The broker is killed when the reader has seen this many; most are still to be written.
const KILLED_AT: usize = 10_000;

#[test]
fn a_broker_killed_midway_loses_and_repeats_nothing() {
    let broker = Broker::start();
    let servers = broker.servers();
    check(broker, servers, json!({}));
}

#[test]
fn nor_does_one_with_tls_and_sasl() {
    let broker = Broker::start_secured();
    let servers = format!("127.0.0.1:{}", broker.secure().port);
    let login = crate::security::login("SCRAM-SHA-256", &broker.secure().certificate, PASSWORD);
    check(broker, servers, login);
}

fn check(broker: Broker, servers: String, client: Value) {
    broker.topic("midway", 3);
    let broker = Arc::new(Mutex::new(broker));
    // Of this hour: a broker forgets producers whose records are older than a day, and with them which retries it has seen.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    runtime().block_on(async {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let reading = config(
            &servers,
            "midway",
            json!({"format": "JSON", "schema": schema, "auto_offset_reset_config": "earliest", "consumer_config": client}),
        );
        let writing = config(&servers, "midway", json!({"format": "JSON", "key": "key", "producer_config_updates": client}));
        let (progress, mut progressed) = tokio::sync::watch::channel(0usize);
        let writer = tokio::spawn(async move {
            let rows = |first: i64| {
                let numbers: Vec<i64> = (first..first + BATCH).collect();
                let keys = StringArray::from_iter_values(numbers.iter().map(|number| format!("key-{}", number % 50)));
                let times = numbers.iter().map(|number| now - number).collect();
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
        let mut seen: HashMap<i64, Vec<String>> = HashMap::new();
        let (mut total, mut killed) = (0, None);
        let mut reader = source.readers(1).unwrap().remove(0);
        let start = Instant::now();
        while total < ROWS as usize {
            assert!(start.elapsed() < 5 * PATIENCE, "{total} of {ROWS} rows after {:?}", start.elapsed());
            let read = next(&mut *reader).await.unwrap().unwrap();
            assert_eq!(read.errors, []);
            for (cell, offset) in crate::support::cells(read.rows.column(0)).iter().zip(read.offsets.iter()) {
                seen.entry(cell.as_i64().unwrap()).or_default().push(format!("{} offset {offset}", read.split));
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
        assert_eq!(tokio::time::timeout(5 * PATIENCE, writer).await.unwrap().unwrap().rows, ROWS as u64);
        let repeated: Vec<_> = seen.iter().filter(|(_, places)| places.len() > 1).collect();
        assert!(repeated.is_empty(), "{} of {ROWS} rows came twice, such as {:?}", repeated.len(), &repeated[..repeated.len().min(5)]);
        println!("rows={ROWS} killed_at={KILLED_AT} seconds={:.1}", start.elapsed().as_secs_f64());
    });
}
