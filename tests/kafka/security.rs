//! TLS and SASL: settings that users pass through, secrets by reference.

use crate::support::{Read, batch, config, runtime, sink, source};
use arrow::array::{ArrayRef, StringArray};
use pelton_tests::broker::{Broker, PASSWORD, USER, foreign_certificate};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings for the listener of a secured broker.
pub fn login(mechanism: &str, certificate: &Path, password: &str) -> Value {
    json!({
        "security.protocol": "SASL_SSL", "ssl.ca.location": certificate, "sasl.mechanisms": mechanism,
        "sasl.username": USER, "sasl.password": password,
    })
}

#[test]
fn tls_with_plain_and_scram_reads_and_writes_and_wrong_secrets_are_refused() {
    let broker = Broker::start_secured();
    broker.topic("secured", 1);
    let servers = format!("127.0.0.1:{}", broker.secure().port);
    let certificate = broker.secure().certificate.clone();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{PASSWORD}\n")).unwrap();
    let reference = format!("${{secret:file:{}}}", secret.path().display());
    let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    runtime().block_on(async {
        for (written, mechanism) in mechanisms.iter().enumerate() {
            let settings = login(mechanism, &certificate, &reference);
            let rows = batch(vec![("payload", Arc::new(StringArray::from(vec![*mechanism])) as ArrayRef)], vec![1_000_000]);
            let mut sink =
                sink(&config(&servers, "secured", json!({"format": "STRING", "producer_config_updates": settings})), rows.schema())
                    .await
                    .unwrap();
            sink.write(&rows).await.unwrap();
            sink.finish().await.unwrap();
            let more =
                json!({"format": "STRING", "auto_offset_reset_config": "earliest", "stop_at_end": true, "consumer_config": settings});
            let read = Read::all(&config(&servers, "secured", more), 1).await;
            assert_eq!(read.cells("payload"), mechanisms[..=written].iter().map(|mechanism| json!(mechanism)).collect::<Vec<_>>());
        }
        let (_folder, foreign) = foreign_certificate();
        for (settings, part) in [
            (login("PLAIN", &certificate, "wrong-secret-7"), "uthentication"),
            (login("SCRAM-SHA-256", &certificate, "wrong-secret-7"), "uthentication"),
            (login("PLAIN", &foreign, &reference), "certificate"),
        ] {
            let start = Instant::now();
            let error = source(&config(&servers, "secured", json!({"consumer_config": settings}))).await.err().unwrap();
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains("wrong-secret-7") && !error.to_string().contains(PASSWORD));
            assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
        }
    });
}
