//! What records become.

use crate::support::{Feeder, Read, config, next, runtime, source};
use arrow::array::AsArray;
use pelton_connect::SplitEvent;
use pelton_tests::broker::Broker;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::json;
use std::time::Duration;

#[test]
fn tombstones_empty_values_headers_keys_and_unordered_times_arrive_as_they_are() {
    let broker = Broker::shared();
    broker.topic("as-they-are", 3);
    let feeder = Feeder::new(&broker.servers(), &[]);
    feeder.put("as-they-are", 0, Some(b"late"), Some(b"k"), 2_000);
    feeder.put("as-they-are", 0, Some(b"early"), None, 1_000);
    feeder.put("as-they-are", 1, None, Some(b"gone"), 3_000);
    feeder.put("as-they-are", 1, Some(b""), Some(b""), 4_000);
    let headers = [("a", Some("1")), ("a", Some("2")), ("none", None), ("empty", Some(""))];
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
    feeder.send(BaseRecord::to("as-they-are").partition(2).payload(&b"h"[..]).timestamp(5_000).headers(headers));
    feeder.flush();
    runtime().block_on(async {
        let columns = json!({"format": "STRING", "auto_offset_reset_config": "earliest", "stop_at_end": true, "key": "key", "headers": "headers", "partition_field": "partition", "offset_field": "offset", "timestamp_field": "time"});
        let read = Read::all(&config(&broker.servers(), "as-they-are", columns), 2).await;
        let mut rows: Vec<(i64, i64, String)> = Vec::new();
        for batch in &read.batches {
            for row in 0..batch.rows.num_rows() {
                let text = format!("{} {}", Read { batches: vec![batch.clone()] }.cells("payload")[row], Read { batches: vec![batch.clone()] }.cells("key")[row]);
                let partition = batch.rows.column_by_name("partition").unwrap().as_primitive::<arrow::datatypes::Int32Type>().value(row);
                rows.push((i64::from(partition), batch.times.as_ref().unwrap()[row], text));
                assert!(batch.split.to_string().ends_with(&partition.to_string()));
            }
        }
        rows.sort_by_key(|row| row.0);
        let expected = [(0, 2_000_000, "\"late\" \"k\""), (0, 1_000_000, "\"early\" null"), (1, 3_000_000, "null \"gone\""), (1, 4_000_000, "\"\" \"\""), (2, 5_000_000, "\"h\" null")];
        assert_eq!(rows, expected.map(|(partition, time, text)| (partition, time, text.to_string())));
        let with_headers = read.batches.iter().find(|batch| batch.split.to_string().ends_with('2') && batch.rows.num_rows() > 0).unwrap();
        let list = with_headers.rows.column_by_name("headers").unwrap().as_list::<i32>().value(0);
        let (names, values) = (list.as_struct().column(0).as_string::<i32>(), list.as_struct().column(1).as_binary::<i32>());
        assert_eq!(names.iter().flatten().collect::<Vec<_>>(), ["a", "a", "none", "empty"]);
        assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"1"[..]), Some(b"2"), None, Some(b"")]);
        assert_eq!(read.batches.iter().filter(|batch| batch.split_ended).count(), 3);
        assert_eq!(read.errors(), []);
    });
}

#[test]
fn json_that_cannot_be_read_is_an_error_with_its_position() {
    let broker = Broker::shared();
    broker.topic("broken-json", 1);
    let feeder = Feeder::new(&broker.servers(), &[]);
    for value in [Some(&b"{\"a\": 1, \"b\": \"x\"}"[..]), None, Some(b""), Some(b"{\"a\":"), Some(b"[1]"), Some(b"{\"a\": 2}")] {
        feeder.put("broken-json", 0, value, None, 1_000);
    }
    feeder.flush();
    runtime().block_on(async {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}});
        let more =
            json!({"format": "JSON", "schema": schema, "auto_offset_reset_config": "earliest", "stop_at_end": true, "offset_field": "at"});
        let read = Read::all(&config(&broker.servers(), "broken-json", more), 1).await;
        assert_eq!(read.cells("a"), [json!(1), json!(2)]);
        assert_eq!(read.cells("b"), [json!("x"), json!(null)]);
        assert_eq!(read.cells("at"), [json!(0), json!(5)]);
        assert_eq!(read.errors().iter().map(|error| error.1).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(read.errors()[0].2.contains("tombstone"));
        assert!(read.batches.iter().flat_map(|batch| &batch.errors).any(|error| error.element == b"[1]" && error.time == Some(1_000_000)));
    });
}

#[test]
fn aborted_transactions_are_never_seen_and_their_marks_do_not_hold_back_the_end() {
    let broker = Broker::shared();
    broker.topic("transactions", 1);
    let feeder = Feeder::new(&broker.servers(), &[("transactional.id", "transactions-test")]);
    let patience = crate::support::PATIENCE;
    feeder.producer().init_transactions(patience).unwrap();
    for (value, commit) in [(&b"kept"[..], true), (b"aborted", false)] {
        feeder.producer().begin_transaction().unwrap();
        feeder.put("transactions", 0, Some(value), None, 1_000);
        feeder.flush();
        if commit {
            feeder.producer().commit_transaction(patience).unwrap()
        } else {
            feeder.producer().abort_transaction(patience).unwrap()
        }
    }
    runtime().block_on(async {
        let more = json!({"format": "STRING", "auto_offset_reset_config": "earliest", "stop_at_end": true});
        let read = Read::all(&config(&broker.servers(), "transactions", more), 1).await;
        assert_eq!(read.cells("payload"), [json!("kept")]);
    });
}

#[test]
fn an_unbounded_read_from_latest_sees_only_what_comes_then_catches_up_and_stops() {
    let broker = Broker::shared();
    broker.topic("latest", 1);
    let feeder = Feeder::new(&broker.servers(), &[]);
    feeder.put("latest", 0, Some(b"before"), None, 1_000);
    feeder.flush();
    runtime().block_on(async {
        let (source, stop) = source(&config(&broker.servers(), "latest", json!({"format": "STRING"}))).await.unwrap();
        assert!(!source.bounded());
        let mut reader = source.readers(1).unwrap().remove(0);
        feeder.put("latest", 0, Some(b"after"), None, 1_000);
        feeder.flush();
        let mut read = Read::default();
        while !(read.cells("payload") == [json!("after")] && read.batches.iter().any(|batch| batch.event == Some(SplitEvent::CaughtUp))) {
            read.batches.push(next(&mut *reader).await.unwrap().unwrap());
        }
        stop.send(true).unwrap();
        assert!(next(&mut *reader).await.unwrap().is_none());
    });
}

#[test]
fn a_read_with_a_time_limit_ends() {
    let broker = Broker::shared();
    broker.topic("time-limit", 2);
    runtime().block_on(async {
        let read = Read::all(&config(&broker.servers(), "time-limit", json!({"max_read_time_seconds": 0.5})), 4).await;
        assert_eq!(read.batches.iter().filter(|batch| batch.split_ended).count(), 2);
    });
}

#[test]
fn a_topic_larger_than_all_queues_is_read_whole_in_order_by_a_slow_reader() {
    let broker = Broker::shared();
    broker.topic("large", 2);
    let feeder = Feeder::new(&broker.servers(), &[("queue.buffering.max.kbytes", "262144"), ("linger.ms", "5")]);
    let padding = "x".repeat(1_000);
    let count = 40_000;
    for number in 0..count {
        feeder.put("large", number % 2, Some(format!("{number} {padding}").as_bytes()), None, 1_000 + i64::from(number));
    }
    feeder.flush();
    runtime().block_on(async {
        let more = json!({"auto_offset_reset_config": "earliest", "stop_at_end": true, "offset_field": "at"});
        let (mut source, _stop) = source(&config(&broker.servers(), "large", more)).await.unwrap();
        source.project(&["at".to_string()]);
        let mut reader = source.readers(1).unwrap().remove(0);
        let mut seen = std::collections::HashMap::<String, i64>::new();
        while let Some(batch) = next(&mut *reader).await.unwrap() {
            assert_eq!(batch.rows.num_columns(), 1);
            for offset in batch.offsets.iter() {
                let expected = seen.entry(batch.split.to_string()).or_default();
                assert_eq!(offset, expected);
                *expected += 1;
            }
            if batch.offsets.first() == Some(&0) {
                // Longer than it takes to fill every queue: the poll thread waits meanwhile.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        assert_eq!(seen.values().sum::<i64>(), i64::from(count));
    });
}

/// What has been fetched of a paused partition comes later, in order, and nothing is lost or read twice.
#[test]
fn paused_partitions_wait_and_go_on_where_they_were() {
    const ROWS: i64 = 3_000;
    let broker = Broker::shared();
    broker.topic("paused", 2);
    let feeder = Feeder::new(&broker.servers(), &[]);
    for row in 0..ROWS {
        (0..2).for_each(|partition| feeder.put("paused", partition, Some(row.to_string().as_bytes()), None, 1_000 + row));
    }
    feeder.flush();
    runtime().block_on(async {
        let more = json!({"format": "STRING", "auto_offset_reset_config": "earliest", "stop_at_end": true});
        let (source, _stop) = source(&config(&broker.servers(), "paused", more)).await.unwrap();
        let mut readers = source.readers(1).unwrap();
        let reader = readers[0].as_mut();
        let splits = reader.assigned();
        let mut offsets: [Vec<i64>; 2] = [vec![], vec![]];
        let mut paused = 0;
        assert!(reader.pause(&splits[..1]));
        for turn in 0.. {
            let Some(batch) = next(reader).await.unwrap() else { break };
            let number = splits.iter().position(|split| std::sync::Arc::ptr_eq(split, &batch.split)).unwrap();
            assert_ne!(number, paused, "turn {turn}");
            offsets[number].extend(batch.offsets.iter());
            // Each in its turn; once one has ended the other is alone.
            let ended = offsets.iter().any(|offsets| offsets.len() as i64 == ROWS);
            paused = if ended { usize::MAX } else { 1 - paused };
            let waiting: Vec<_> = splits.iter().skip(paused).take(1).cloned().collect();
            assert!(reader.pause(&waiting));
        }
        let all: Vec<i64> = (0..ROWS).collect();
        assert_eq!(offsets, [all.clone(), all]);
    });
}
