//! The example pipeline from topic to topics, by the binary, against counts made here.

use crate::support::{Feeder, records};
use pelton_tests::broker::Broker;
use pelton_tests::pelton::summary;
use rdkafka::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const EVENTS: i64 = 9_000;
const PARTITIONS: i32 = 3;
/// 2026-01-01T00:00:00Z.
const START_MILLIS: i64 = 1_767_225_600_000;

#[test]
fn minute_traffic_on_topics_counts_what_a_loop_counts() {
    let broker = Broker::shared();
    let servers = broker.servers();
    let topic = |name: &str| format!("minute-traffic-{name}");
    broker.topic(&topic("events"), PARTITIONS);
    for name in ["raw", "windowed", "errors"] {
        broker.topic(&topic(name), PARTITIONS);
    }
    let feeder = Feeder::new(&servers, &[]);
    let (mut views, mut malformed) = (BTreeMap::<String, u64>::new(), 0);
    for number in 0..EVENTS {
        // Out of order by up to ten seconds, one event every 100 ms.
        let millis = START_MILLIS + number * 100 - (number * 7_919 % 10_000);
        let (minutes, rest) = ((millis - START_MILLIS).div_euclid(60_000), (millis - START_MILLIS).rem_euclid(60_000));
        let minute =
            if minutes < 0 { "2025-12-31T23:59".to_string() } else { format!("2026-01-01T{:02}:{:02}", minutes / 60, minutes % 60) };
        let timestamp = format!("{minute}:{:02}.{:03}Z", rest / 1_000, rest % 1_000);
        let mut event = json!({"user_id": format!("u{}", number % 50), "ip": "10.0.0.1", "lat": 1.5, "lng": -2.5, "timestamp": timestamp, "http_request": "GET /a HTTP/1.1", "http_response": 200, "num_bytes": number, "user_agent": "test"}).to_string();
        if number % 100 == 17 {
            event.truncate(40);
            malformed += 1;
        } else {
            *views.entry(format!("{minute}:00Z")).or_default() += 1;
        }
        feeder.put(&topic("events"), (number % i64::from(PARTITIONS)) as i32, Some(event.as_bytes()), None, millis);
    }
    feeder.flush();
    let sets = [
        format!("bootstrap_servers={servers}"),
        format!("input_topic={}", topic("events")),
        format!("raw_topic={}", topic("raw")),
        format!("windowed_topic={}", topic("windowed")),
        format!("errors_topic={}", topic("errors")),
        "window_duration=60s".into(),
        "stop_at_end=true".into(),
        "delay=10m".into(),
    ];
    let mut arguments = vec!["examples/minute-traffic/kafka.yaml", "--parallelism", "2"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
    summary(&arguments);
    let read = |name: &str| -> Vec<Value> {
        let by_partition = records(&servers, &topic(name), PARTITIONS);
        by_partition.values().flatten().map(|record| serde_json::from_slice(record.payload().unwrap()).unwrap()).collect()
    };
    let windowed: BTreeMap<String, u64> =
        read("windowed").iter().map(|row| (row["timestamp"].as_str().unwrap().into(), row["page_views"].as_u64().unwrap())).collect();
    assert_eq!(windowed, views);
    assert_eq!(read("raw").len() as i64, EVENTS - malformed);
    let errors = read("errors");
    assert_eq!(errors.len() as i64, malformed);
    for error in errors {
        // The position leads back to the record: offset o of partition p is event 3 o + p.
        let position = &error["position"];
        assert_eq!(position["source"], topic("events"));
        let number = position["offset"].as_i64().unwrap() * i64::from(PARTITIONS) + position["partition"].as_i64().unwrap();
        assert_eq!(number % 100, 17, "{error}");
    }
}
