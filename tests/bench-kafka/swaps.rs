//! What a swap of a plugin with state costs: how long tasks stand still, and the latency of records in the second of a swap against that of seconds without one, which
//! alternate with them in the same run.
//!
//! Latency is from the producer to a reader of all records, also of those whose transaction is still open: a reader of committed ones waits for the next checkpoint, beside which a pause
//! would not be seen. The second of a swap is the one up to the command's answer, so the preparation beside the data is in it, too.

use crate::bare::{self, PATIENCE};
use crate::traffic::{self, SECOND, Traffic, WARM_UP, Window, micros, pooled, quantile};
use pelton_tests::broker::Broker;
use pelton_tests::pelton::{root, wait_for};
use rdkafka::producer::Producer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Records by which the peak is found.
const PEAK: u64 = 200_000;

/// Prints figures over so many swaps.
pub fn measure(pelton: &Path, swaps: u64) {
    let broker = Broker::start();
    let servers = broker.servers();
    for topic in ["peak-in", "peak-out", "swaps-in", "swaps-out"] {
        crate::topic(&broker, topic);
    }
    let peak = peak(pelton, &servers);
    let rate = traffic::rate(peak);
    let state = tempfile::tempdir().expect("a folder");
    let mut running = start(pelton, &servers, ("swaps-in", "swaps-out"), state.path());
    let traffic = Traffic::start(&servers, rate, ("swaps-in", "swaps-out"));
    std::thread::sleep(WARM_UP);
    let (mut pauses, mut windows) = (Vec::new(), Vec::new());
    for number in 0..swaps {
        pauses.push(swap(pelton, state.path(), if number % 2 == 0 { "counting-next" } else { "counting" }));
        let answered = micros();
        windows.push(Window { begin: answered - SECOND, end: answered, kind: 1 });
        windows.push(Window { begin: answered + SECOND, end: answered + 2 * SECOND, kind: 0 });
        std::thread::sleep(Duration::from_micros(3 * SECOND));
    }
    let latencies = traffic.end();
    stop(pelton, state.path(), &mut running);
    tell(&latencies, &windows, &mut pauses, (rate, peak));
}

fn tell(latencies: &[(u64, u64)], windows: &[Window], pauses: &mut [f64], (rate, peak): (u64, f64)) {
    let (swapped, steady) = (pooled(latencies, windows, 1), pooled(latencies, windows, 0));
    pauses.sort_by(f64::total_cmp);
    println!(
        "swaps={} pause_p50_ms={:.1} pause_p99_ms={:.1} pause_max_ms={:.1}",
        pauses.len(),
        quantile(pauses, 0.5),
        quantile(pauses, 0.99),
        quantile(pauses, 1.0)
    );
    let ratio = |share: f64| quantile(&swapped, share) / quantile(&steady, share);
    println!(
        "rate={rate} peak={peak:.0} share_of_peak={:.2} records={}+{} p50_ms={:.1}/{:.1} ratio={:.2} p99_ms={:.1}/{:.1} ratio={:.2}",
        rate as f64 / peak,
        swapped.len(),
        steady.len(),
        quantile(&swapped, 0.5),
        quantile(&steady, 0.5),
        ratio(0.5),
        quantile(&swapped, 0.99),
        quantile(&steady, 0.99),
        ratio(0.99)
    );
}

/// Records a second where they are there before.
pub fn peak(pelton: &Path, servers: &str) -> f64 {
    let producer = bare::producer(servers);
    for number in 0..PEAK {
        bare::send(&producer, "peak-in", traffic::record(number).as_bytes(), None);
    }
    producer.flush(PATIENCE).expect("all is written");
    let state = tempfile::tempdir().expect("a folder");
    let mut running = start(pelton, servers, ("peak-in", "peak-out"), state.path());
    let consumer = traffic::consumer(servers, "peak-out");
    let mut began = 0;
    for number in 0..PEAK {
        consumer.poll(PATIENCE).expect("records come in time").expect("the broker is there");
        if number == 0 {
            began = micros();
        }
    }
    let took = micros() - began;
    stop(pelton, state.path(), &mut running);
    PEAK as f64 / (took as f64 / 1e6)
}

fn start(pelton: &Path, servers: &str, (input, output): (&str, &str), state: &Path) -> Child {
    let mut command = Command::new(pelton);
    command.current_dir(root()).args(["run", "benches/kafka/swaps.yaml", "--quiet", "--parallelism", "2", "--state"]).arg(state);
    let plugin = component("counting");
    let sets = [format!("servers={servers}"), format!("input={input}"), format!("output={output}"), format!("plugin={}", plugin.display())];
    sets.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the pipeline starts")
}

fn stop(pelton: &Path, state: &Path, running: &mut Child) {
    wait_for("the pipeline stops", 60, || {
        let stop = Command::new(pelton).arg("stop").arg(state).output().expect("pelton runs");
        stop.status.success().then_some(())
    });
    running.wait().expect("it ends");
}

/// Milliseconds for which tasks stood still.
fn swap(pelton: &Path, state: &Path, version: &str) -> f64 {
    let mut command = Command::new(pelton);
    command.args(["plugin", "swap"]).arg(state).arg("Count").arg(component(version)).args(["--output", "json"]);
    let said = command.output().expect("pelton runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let told: Value = serde_json::from_slice(&said.stdout).expect("a swap is told as JSON");
    told["pause_millis"].as_f64().expect("nothing was restarted")
}

pub fn component(name: &str) -> PathBuf {
    root().join(format!("tests/.cache/components/{name}.wasm"))
}
