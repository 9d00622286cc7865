//! How long a record takes from its producer through an exactly-once pipeline to a reader of committed records.

use crate::bare::{self, PATIENCE};
use pelton_tests::broker::Broker;
use pelton_tests::pelton::{root, wait_for};
use rdkafka::Message;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::Producer;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Records a second, evenly.
const RATE: u64 = 1_000;
/// Seconds that are not counted: connections and the first epochs.
const WARM_UP: u64 = 10;

/// Prints quantiles over so many seconds.
pub fn measure(pelton: &Path, seconds: u64) {
    let broker = Broker::start();
    let servers = broker.servers();
    for topic in ["latency-in", "latency-out"] {
        crate::topic(&broker, topic);
    }
    let state = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(pelton);
    command.current_dir(root()).args(["run", "benches/kafka/latency.yaml", "--quiet", "--parallelism", "2", "--state"]).arg(state.path());
    for set in [format!("servers={servers}"), "input=latency-in".into(), "output=latency-out".into()] {
        command.args(["--set", &set]);
    }
    let mut running = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the pipeline starts");
    let records = RATE * (WARM_UP + seconds);
    let sending = std::thread::spawn({
        let servers = servers.clone();
        move || send(&servers, records)
    });
    let consumer = bare::consumer(&servers, "latency-out");
    let mut latencies = receive(&consumer, records);
    sending.join().expect("all is sent");
    wait_for("the pipeline stops", 60, || {
        let stop = Command::new(pelton).arg("stop").arg(state.path()).output().expect("pelton runs");
        stop.status.success().then_some(())
    });
    running.wait().expect("it ends");
    latencies.sort_unstable();
    let quantile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!(
        "{} records at {RATE} a second, a checkpoint every 1000 ms: latency {:.0} ms (median), {:.0} ms (p99), {:.0} ms (longest)",
        latencies.len(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
}

fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

fn send(servers: &str, records: u64) {
    let producer = bare::producer(servers);
    let began = micros();
    for number in 0..records {
        let due = began + number * 1_000_000 / RATE;
        while micros() < due {
            producer.poll(Duration::from_millis(1));
        }
        let now = micros();
        bare::send(&producer, "latency-in", now.to_string().as_bytes(), Some((now / 1_000) as i64));
    }
    producer.flush(PATIENCE).expect("all is written");
}

/// Microseconds of each record behind the warm-up.
fn receive(consumer: &BaseConsumer, records: u64) -> Vec<u64> {
    let mut latencies = Vec::new();
    for number in 0..records {
        let message = consumer.poll(PATIENCE).expect("records come in time").expect("the broker is there");
        let row: serde_json::Value = serde_json::from_slice(message.payload().expect("no tombstones")).expect("JSON");
        let sent: u64 = row["sent"].as_str().and_then(|sent| sent.parse().ok()).expect("when it was sent");
        if number >= RATE * WARM_UP {
            latencies.push(micros().saturating_sub(sent));
        }
    }
    latencies
}
