//! What cannot work says so, in bounded time and with the next step.

use crate::support::{config, next, runtime, sink, source};
use arrow::datatypes::{DataType, Field, Schema};
use pelton_tests::broker::{Broker, free_ports};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The client's bound of ten seconds, and what a loaded machine adds.
const BOUND: Duration = Duration::from_secs(40);

fn text_column(name: &str) -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, true)]))
}

#[test]
fn a_missing_topic_is_named_with_the_similar_one() {
    let broker = Broker::shared();
    broker.topic("page-views", 1);
    runtime().block_on(async {
        let wrong = config(&broker.servers(), "page-vews", json!({"format": "STRING"}));
        let errors = [source(&wrong).await.err().unwrap(), sink(&wrong, text_column("payload")).await.err().unwrap()];
        for error in errors {
            assert!(error.to_string().contains("`page-vews` does not exist"), "{error}");
            assert!(error.help().unwrap().contains("did you mean `page-views`?"), "{error:?}");
        }
    });
}

#[test]
fn an_unreachable_broker_is_an_error_in_bounded_time() {
    let [port] = free_ports();
    runtime().block_on(async {
        let nobody = config(&format!("127.0.0.1:{port}"), "t", json!({"format": "STRING"}));
        let start = Instant::now();
        let (read, write) = tokio::join!(source(&nobody), sink(&nobody, text_column("payload")));
        assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
        for error in [read.err().unwrap(), write.err().unwrap()] {
            assert!(error.to_string().contains(&format!("127.0.0.1:{port}")) && error.to_string().contains("refused"), "{error}");
        }
    });
}

#[test]
fn columns_that_do_not_fit_are_named() {
    let broker = Broker::shared();
    broker.topic("columns", 1);
    runtime().block_on(async {
        for (more, schema, part) in [
            (json!({"format": "STRING", "key": "id"}), text_column("payload"), "the column `id`, which the input does not have"),
            (json!({"format": "STRING", "partition_field": "payload"}), text_column("payload"), "the column `payload`, which is string"),
            (
                json!({"format": "STRING"}),
                Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)])),
                "2 columns",
            ),
        ] {
            let error = sink(&config(&broker.servers(), "columns", more), schema).await.err().unwrap();
            assert!(error.to_string().contains(part), "{error}");
        }
    });
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_stops_the_source() {
    let broker = Broker::shared();
    broker.topic("deleted", 1);
    runtime().block_on(async {
        let (source, _stop) = source(&config(&broker.servers(), "deleted", json!({"auto_offset_reset_config": "earliest", "consumer_config": {"topic.metadata.refresh.interval.ms": 500, "topic.metadata.propagation.max.ms": 1000}}))).await.unwrap();
        let mut reader = source.readers(1).unwrap().remove(0);
        next(&mut *reader).await.unwrap();
        let servers = broker.clone();
        tokio::task::spawn_blocking(move || servers.delete_topic("deleted")).await.unwrap();
        let error = loop {
            match next(&mut *reader).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the source ended as if it had been read to its end"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("deleted"), "{error}");
    });
}
