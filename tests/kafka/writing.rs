//! What rows become.

use crate::support::{batch, config, records, runtime, sink};
use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, ListBuilder, StringArray, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field};
use pelton_core::Instant;
use pelton_tests::broker::Broker;
use rdkafka::message::{Headers, OwnedMessage};
use rdkafka::{Message, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn keys_go_to_the_partition_that_java_clients_choose() {
    // Partition of 7 = toPositive(murmur2(key)) % 7, computed with org.apache.kafka.common.utils.Utils of kafka-clients 4.3.1.
    let known = [
        ("21", 3),
        ("foobar", 0),
        ("a-little-bit-long-string", 1),
        ("a-little-bit-longer-string", 0),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 3),
        ("abc", 4),
        ("", 2),
        ("é", 4),
        ("/index.html", 2),
    ];
    let broker = Broker::shared();
    broker.topic("murmur2", 7);
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(known.iter().map(|(key, _)| *key)));
    let rows = batch(vec![("key", keys.clone()), ("payload", keys)], vec![1_000_000; known.len()]);
    runtime().block_on(async {
        let mut sink = sink(&config(&broker.servers(), "murmur2", json!({"format": "STRING", "key": "key"})), rows.schema()).await.unwrap();
        assert_eq!(sink.write(&rows).await.unwrap(), []);
        assert_eq!(sink.finish().await.unwrap().rows, known.len() as u64);
    });
    let found = records(&broker.servers(), "murmur2", 7);
    for (key, partition) in known {
        let there = found.get(&partition).is_some_and(|records| records.iter().any(|record| record.key() == Some(key.as_bytes())));
        assert!(there, "`{key}` is not in partition {partition}");
    }
}

#[test]
fn headers_times_tombstones_empty_values_and_partitions_are_written_as_they_are() {
    let broker = Broker::shared();
    broker.topic("written", 2);
    let pair = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    let mut headers = ListBuilder::new(StructBuilder::from_fields(pair, 0));
    for row in 0..3 {
        for value in [Some("1"), None].into_iter().take(2 * usize::from(row == 0)) {
            headers.values().field_builder::<StringBuilder>(0).unwrap().append_value("a");
            headers.values().field_builder::<StringBuilder>(1).unwrap().append_option(value);
            headers.values().append(true);
        }
        headers.append(row != 1);
    }
    let rows = batch(
        vec![
            ("payload", Arc::new(BinaryArray::from_iter([Some(&b"\xff"[..]), None, Some(b"")])) as ArrayRef),
            ("headers", Arc::new(headers.finish())),
            ("partition", Arc::new(Int32Array::from(vec![1, 1, 1]))),
        ],
        vec![1_234_567, Instant::MIN.micros(), 2_000_000],
    );
    runtime().block_on(async {
        let more = json!({"headers": "headers", "partition_field": "partition"});
        let mut sink = sink(&config(&broker.servers(), "written", more), rows.schema()).await.unwrap();
        assert_eq!(sink.write(&rows).await.unwrap(), []);
        sink.finish().await.unwrap();
    });
    let found = records(&broker.servers(), "written", 2).remove(&1).unwrap();
    assert_eq!(found.iter().map(|record| record.payload()).collect::<Vec<_>>(), [Some(&b"\xff"[..]), None, Some(b"")]);
    assert!(found.iter().all(|record| record.key().is_none()));
    assert_eq!(found[0].timestamp(), Timestamp::CreateTime(1_234));
    assert!(
        matches!(found[1].timestamp(), Timestamp::CreateTime(millis) if millis > 1_600_000_000_000),
        "a row without an event time gets the time of writing"
    );
    let headers: Vec<(String, Option<Vec<u8>>)> =
        found[0].headers().unwrap().iter().map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect();
    assert_eq!(headers, [("a".to_string(), Some(b"1".to_vec())), ("a".to_string(), None)]);
    assert!(found[1].headers().is_none());
}

#[test]
fn json_holds_the_key_but_not_headers_and_partition() {
    let broker = Broker::shared();
    broker.topic("json", 1);
    let rows = batch(
        vec![
            ("id", Arc::new(StringArray::from(vec![Some("k"), None])) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("to", Arc::new(Int32Array::from(vec![Some(0), None]))),
        ],
        vec![1_000_000; 2],
    );
    runtime().block_on(async {
        let mut sink =
            sink(&config(&broker.servers(), "json", json!({"format": "JSON", "key": "id", "partition_field": "to"})), rows.schema())
                .await
                .unwrap();
        assert_eq!(sink.write(&rows).await.unwrap(), []);
        sink.finish().await.unwrap();
    });
    let found = records(&broker.servers(), "json", 1).remove(&0).unwrap();
    let value = |record: &OwnedMessage| serde_json::from_slice::<Value>(record.payload().unwrap()).unwrap();
    assert_eq!(value(&found[0]), json!({"id": "k", "n": 1}));
    assert_eq!(found[0].key(), Some(&b"k"[..]));
    assert_eq!(found[1].key(), None);
}

#[test]
fn rows_that_kafka_cannot_hold_are_refused_one_by_one() {
    let broker = Broker::shared();
    broker.topic_with("small", 1, &[("max.message.bytes", "2000")]);
    let long = "x".repeat(3_000);
    let rows = batch(
        vec![
            (
                "payload",
                Arc::new(StringArray::from(vec!["fits", &long, "before 1970", "far ahead", "no partition", "fits too"])) as ArrayRef,
            ),
            ("to", Arc::new(Int64Array::from(vec![0, 0, 0, 0, 9, 0]))),
        ],
        vec![1_000_000, 1_000_000, -1, 32_503_680_000_000_000, 1_000_000, 1_000_000],
    );
    runtime().block_on(async {
        let mut sink =
            sink(&config(&broker.servers(), "small", json!({"format": "STRING", "partition_field": "to"})), rows.schema()).await.unwrap();
        let errors = sink.write(&rows).await.unwrap();
        let parts = [(1, "max.message.bytes"), (2, "1970"), (3, "further ahead"), (4, "no partition 9")];
        assert_eq!(errors.len(), parts.len(), "{errors:?}");
        for (error, (row, part)) in errors.iter().zip(parts) {
            assert!(error.row == row && error.message.contains(part), "{error:?}");
        }
        assert_eq!(sink.finish().await.unwrap().rows, 2);
    });
    assert_eq!(records(&broker.servers(), "small", 1)[&0].len(), 2);
}

#[test]
fn more_than_the_clients_queue_is_written_whole() {
    let broker = Broker::shared();
    broker.topic("queue", 3);
    let text = "y".repeat(500);
    let rows = batch(
        vec![("payload", Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&text, 8_192))) as ArrayRef)],
        vec![1_000_000; 8_192],
    );
    runtime().block_on(async {
        let mut sink = sink(&config(&broker.servers(), "queue", json!({"format": "STRING"})), rows.schema()).await.unwrap();
        for _ in 0..10 {
            assert_eq!(sink.write(&rows).await.unwrap(), []);
        }
        assert_eq!(sink.finish().await.unwrap().rows, 81_920);
    });
    assert_eq!(records(&broker.servers(), "queue", 3).values().map(Vec::len).sum::<usize>(), 81_920);
}
