//! A source goes on where it was: from its own positions, whatever lies between records, and says so when it cannot.

use crate::support::{Feeder, PATIENCE, cells, config, next, runtime, source};
use pelton_connect::{ConnectError, Reader, SplitEvent};
use pelton_core::SplitPosition;
use pelton_tests::broker::Broker;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::time::Instant;

/// What a checkpoint keeps of a source.
struct Kept {
    plan: Vec<u8>,
    positions: Vec<SplitPosition>,
}

impl Kept {
    fn offsets(&self) -> Vec<(String, String)> {
        let mut offsets: Vec<_> =
            self.positions.iter().map(|position| (position.split.clone(), String::from_utf8(position.position.clone()).unwrap())).collect();
        offsets.sort();
        offsets
    }
}

/// Reads, restored or not, until as many rows have come and all readers have caught up: the rows, and where a checkpoint would go on.
async fn read(config: &Value, kept: Option<&Kept>, readers: usize, rows: usize) -> (Vec<String>, Kept) {
    let (mut source, _stop) = source(config).await.unwrap();
    if let Some(kept) = kept {
        source.restore(&kept.plan, kept.positions.clone()).unwrap();
    }
    let plan = source.plan();
    let mut found = Vec::new();
    let mut positions = Vec::new();
    for mut reader in source.readers(readers).unwrap() {
        let splits = reader.assigned().len();
        let mut caught_up = std::collections::HashSet::new();
        while caught_up.len() < splits {
            let batch = next(&mut *reader).await.unwrap().unwrap();
            found.extend(cells(batch.rows.column(0)).iter().map(ToString::to_string));
            if batch.event == Some(SplitEvent::CaughtUp) {
                caught_up.insert(batch.split.id());
            }
        }
        positions.extend(reader.positions());
    }
    found.sort();
    assert_eq!(found.len(), rows, "{found:?}");
    (found, Kept { plan, positions })
}

fn refused(restored: Result<(), ConnectError>) -> String {
    let error = restored.unwrap_err();
    assert!(!error.is_transient());
    error.to_string()
}

#[test]
fn reading_goes_on_after_markers_tombstones_and_gaps_at_any_parallelism() {
    let broker = Broker::shared();
    broker.topic("goes-on", 3);
    let plain = Feeder::new(&broker.servers(), &[]);
    let feeder = Feeder::new(&broker.servers(), &[("transactional.id", "goes-on")]);
    feeder.producer().init_transactions(PATIENCE).unwrap();
    let transaction = |values: &[&str], commit: bool| {
        feeder.producer().begin_transaction().unwrap();
        values.iter().for_each(|value| feeder.put("goes-on", 0, Some(value.as_bytes()), None, 1_000));
        feeder.flush();
        match commit {
            true => feeder.producer().commit_transaction(PATIENCE).unwrap(),
            false => feeder.producer().abort_transaction(PATIENCE).unwrap(),
        }
    };
    transaction(&["a", "b"], true);
    transaction(&["never"], false);
    plain.put("goes-on", 1, Some(b"c"), None, 1_000);
    plain.put("goes-on", 1, None, Some(b"k"), 1_000);
    plain.flush();
    let more = json!({"format": "STRING", "auto_offset_reset_config": "earliest"});
    let config = config(&broker.servers(), "goes-on", more);
    runtime().block_on(async {
        let (_, kept) = read(&config, None, 2, 4).await;
        // Two records and a marker, a record and a marker; two records; none.
        let at = |offsets: [&str; 3]| {
            let names = ["kafka:0:goes-on", "kafka:1:goes-on", "kafka:2:goes-on"];
            names.iter().zip(offsets).map(|(name, offset)| (name.to_string(), offset.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(kept.offsets(), at(["5", "2", "0"]));
        transaction(&["d"], true);
        plain.put("goes-on", 2, Some(b"e"), None, 1_000);
        plain.flush();
        for readers in [1, 2, 5] {
            let (rows, after) = read(&config, Some(&kept), readers, 2).await;
            assert_eq!(rows, ["\"d\"", "\"e\""]);
            assert_eq!(after.offsets(), at(["7", "2", "1"]));
            read(&config, Some(&after), 1, 0).await;
        }
    });
}

#[test]
fn a_start_at_the_end_stays_where_it_was_also_where_nothing_came() {
    let broker = Broker::shared();
    broker.topic("from-latest", 1);
    let feeder = Feeder::new(&broker.servers(), &[]);
    feeder.put("from-latest", 0, Some(b"before"), None, 1_000);
    feeder.flush();
    let config = config(&broker.servers(), "from-latest", json!({"format": "STRING"}));
    runtime().block_on(async {
        let (_, kept) = read(&config, None, 1, 0).await;
        feeder.put("from-latest", 0, Some(b"while away"), None, 1_000);
        feeder.flush();
        assert_eq!(read(&config, Some(&kept), 1, 1).await.0, ["\"while away\""]);
    });
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning_and_offsets_are_committed_for_those_who_watch() {
    let broker = Broker::shared();
    broker.topic("grows", 1);
    let more = json!({
        "format": "STRING", "auto_offset_reset_config": "earliest", "discover_interval": "100ms", "consumer_config": {"group.id": "watched"},
    });
    let config = config(&broker.servers(), "grows", more);
    let feeder = Feeder::new(&broker.servers(), &[("topic.metadata.refresh.interval.ms", "100")]);
    let runtime = runtime();
    let (mut reader, plan, _stop) = runtime.block_on(async {
        let (source, stop) = source(&config).await.unwrap();
        let plan = source.plan();
        (source.readers(2).unwrap().remove(0), plan, stop)
    });
    broker.add_partitions("grows", 3);
    for partition in [0, 2, 1] {
        put_when_known(&feeder, "grows", partition);
    }
    runtime.block_on(async {
        let mut found = Vec::new();
        while found.len() < 3 {
            let batch = next(&mut *reader).await.unwrap().unwrap();
            found.extend(cells(batch.rows.column(0)).iter().map(|cell| (batch.split.to_string(), cell.to_string())));
        }
        found.sort();
        let expected = [0, 1, 2].map(|partition| (format!("topic grows partition {partition}"), format!("\"of {partition}\"")));
        assert_eq!(found, expected);
        let kept = Kept { plan, positions: reader.positions() };
        reader.decided(&kept.positions);
        wait_for_offsets(&mut *reader, &broker, [1, 1, 1]).await;
        // Partitions that the plan does not know.
        read(&config, Some(&kept), 3, 0).await;
    });
}

/// A new partition may have no leader yet.
fn put_when_known(feeder: &Feeder, topic: &str, partition: i32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metadata = feeder.producer().client().fetch_metadata(Some(topic), PATIENCE).unwrap();
        if metadata.topics()[0].partitions().iter().any(|known| known.id() == partition && known.leader() >= 0) {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    feeder.put(topic, partition, Some(format!("of {partition}").as_bytes()), None, 1_000);
    feeder.flush();
}

async fn wait_for_offsets(reader: &mut dyn Reader, broker: &Broker, expected: [i64; 3]) {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.servers()).set("group.id", "watched").create().unwrap();
    let mut list = TopicPartitionList::new();
    (0..3).for_each(|partition| {
        list.add_partition("grows", partition);
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let committed = consumer.committed_offsets(list.clone(), PATIENCE).unwrap();
        let offsets: Vec<Offset> = committed.elements().iter().map(|element| element.offset()).collect();
        if offsets == expected.map(Offset::Offset) {
            return;
        }
        assert!(Instant::now() < deadline, "{offsets:?}");
        // The reader's thread goes on meanwhile.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), reader.next()).await;
    }
}

#[test]
fn a_position_that_the_broker_no_longer_has_stops_the_pipeline_or_what_its_author_wants() {
    let broker = Broker::shared();
    broker.topic("cut", 1);
    let feeder = Feeder::new(&broker.servers(), &[]);
    let fill = |count: usize| {
        (0..count).for_each(|number| feeder.put("cut", 0, Some(number.to_string().as_bytes()), None, 1_000));
        feeder.flush();
    };
    fill(2);
    let with = |policy: &str| {
        let more = json!({"format": "STRING", "auto_offset_reset_config": "earliest", "on_offset_out_of_range": policy});
        config(&broker.servers(), "cut", more)
    };
    let runtime = runtime();
    let (_, kept) = runtime.block_on(read(&with("stop"), None, 1, 2));
    fill(6);
    broker.delete_records("cut", 0, 5);
    runtime.block_on(async {
        let (mut stopped, _stop) = source(&with("stop")).await.unwrap();
        let message = refused(stopped.restore(&kept.plan, kept.positions.clone()));
        assert!(message.contains("topic cut partition 0") && message.contains("offset 2") && message.contains("5 to 8"), "{message}");
        assert_eq!(read(&with("earliest"), Some(&kept), 1, 3).await.0, ["\"3\"", "\"4\"", "\"5\""]);
        read(&with("latest"), Some(&kept), 1, 0).await;
    });
    // A running reader that is slower than retention finds out by itself.
    let running = |policy: &str| runtime.block_on(async { source(&with(policy)).await.unwrap() });
    for policy in ["stop", "earliest"] {
        let (source, _stop) = running(policy);
        let first = broker_first(&feeder);
        fill(3);
        // The source has asked for the beginning, and begins to read only now.
        broker.delete_records("cut", 0, first + 2);
        runtime.block_on(async {
            let mut reader = source.readers(1).unwrap().remove(0);
            if policy == "stop" {
                let error = next(&mut *reader).await.unwrap_err();
                assert!(!error.is_transient() && error.to_string().contains(&format!("offset {first}")), "{error}");
            } else {
                let batch = next(&mut *reader).await.unwrap().unwrap();
                assert_eq!(batch.offsets.first(), Some(&(first + 2)));
            }
        });
    }
    broker.delete_topic("cut");
    broker.topic("cut", 1);
    runtime.block_on(async {
        let (mut anew, _stop) = source(&with("stop")).await.unwrap();
        let message = refused(anew.restore(&kept.plan, kept.positions.clone()));
        assert!(message.contains("made anew"), "{message}");
        let other = config(&broker.servers(), "goes-nowhere", json!({"format": "STRING"}));
        assert!(source(&other).await.is_err());
    });
}

#[test]
fn a_topic_of_the_same_name_is_not_taken_for_the_one_that_was_read() {
    let broker = Broker::shared();
    let feeder = Feeder::new(&broker.servers(), &[("topic.metadata.refresh.interval.ms", "100")]);
    // More than were read: by its offsets alone the new topic could be the old one.
    let anew = |names: &[&str]| {
        broker.delete_topic("another");
        broker.topic("another", 1);
        names.iter().for_each(|name| feeder.put("another", 0, Some(name.as_bytes()), None, 1_000));
        feeder.flush();
    };
    let with = |policy: &str| {
        let more = json!({"format": "STRING", "auto_offset_reset_config": "earliest", "on_offset_out_of_range": policy, "discover_interval": "100ms"});
        config(&broker.servers(), "another", more)
    };
    broker.topic("another", 1);
    feeder.put("another", 0, Some(b"old"), None, 1_000);
    feeder.flush();
    let runtime = runtime();
    let (_, kept) = runtime.block_on(read(&with("stop"), None, 1, 1));
    anew(&["a", "b", "c"]);
    runtime.block_on(async {
        let (mut stopped, _stop) = source(&with("stop")).await.unwrap();
        let error = stopped.restore(&kept.plan, kept.positions.clone()).unwrap_err();
        assert!(!error.is_transient() && error.help().is_some_and(|help| help.contains("`on_offset_out_of_range`")), "{error:?}");
        assert!(error.to_string().contains("topic another was deleted and made anew since it was read"), "{error}");
        let (rows, after) = read(&with("earliest"), Some(&kept), 1, 3).await;
        assert_eq!(rows, ["\"a\"", "\"b\"", "\"c\""]);
        // It is that topic from now on.
        read(&with("stop"), Some(&after), 1, 0).await;
        read(&with("latest"), Some(&kept), 1, 0).await;
        // A checkpoint of an earlier version does not know which topic it was.
        let mut plan: Value = serde_json::from_slice(&kept.plan).unwrap();
        assert!(plan.as_object_mut().unwrap().remove("topic_id").is_some(), "{plan}");
        let former = Kept { plan: serde_json::to_vec(&plan).unwrap(), positions: kept.positions.clone() };
        assert_eq!(read(&with("stop"), Some(&former), 1, 2).await.0, ["\"b\"", "\"c\""]);
    });
    // While it is read.
    for (policy, is_transient) in [("stop", false), ("latest", true)] {
        let mut reader = runtime.block_on(async { source(&with(policy)).await.unwrap().0.readers(1).unwrap().remove(0) });
        anew(&["d", "e", "f", "g", "h"]);
        runtime.block_on(async {
            let error = loop {
                match next(&mut *reader).await {
                    Ok(batch) => assert!(batch.is_some()),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.is_transient(), is_transient);
            assert!(error.to_string().contains("topic another was deleted"), "{error}");
        });
    }
}

fn broker_first(feeder: &Feeder) -> i64 {
    feeder.producer().client().fetch_watermarks("cut", 0, PATIENCE).unwrap().0
}
