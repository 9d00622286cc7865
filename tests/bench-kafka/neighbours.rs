//! What neighbours of hostile plugins notice: the latency of records of a steady pipeline in seconds in which another pipeline of the same host has a plugin that
//! misbehaves, against that in seconds without, which alternate with them.
//!
//! All pipelines are of one `pelton serve`. The hostile one is resumed for its second and paused after it; that it misbehaves is seen from its refused rows before the
//! second begins. The way in which it does changes from pair to pair.

use crate::swaps::{component, peak};
use crate::traffic::{self, SECOND, Traffic, WARM_UP, Window, micros, pooled, quantile};
use pelton_tests::broker::Broker;
use pelton_tests::http::Place;
use pelton_tests::pelton::{root, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Name, transform of the guest `hostile`, and limits. Each row that comes is one that it misbehaves on.
const WAYS: [(&str, &str, &str); 4] = [
    ("loop", "poison-loop", "call_deadline: 100ms"),
    ("memory", "poison-memory", "call_deadline: 1s, memory_bytes: 64MiB"),
    ("log", "log-flood", "call_deadline: 100ms"),
    ("trap", "poison-panic", "call_deadline: 100ms"),
];
/// From when it is known to misbehave, or to have stopped, until the second begins.
const SETTLE: Duration = Duration::from_secs(1);
const PATIENCE: u64 = 60;

/// Prints figures over so many pairs of seconds of each way.
pub fn measure(pelton: &Path, pairs: usize) {
    let broker = Broker::start();
    let servers = broker.servers();
    for topic in ["peak-in", "peak-out", "steady-in", "steady-out"] {
        crate::topic(&broker, topic);
    }
    let peak = peak(pelton, &servers);
    let rate = traffic::rate(peak);
    let host = Host::start(pelton);
    host.steady(&servers);
    WAYS.iter().for_each(|(name, transform, limits)| host.hostile(name, transform, limits));
    let traffic = Traffic::start(&servers, rate, ("steady-in", "steady-out"));
    std::thread::sleep(WARM_UP);
    let mut windows = Vec::new();
    for _ in 0..pairs {
        for (number, (name, ..)) in WAYS.iter().enumerate() {
            host.misbehaves(name);
            windows.push(second(2 * number + 1));
            host.pauses(name);
            windows.push(second(2 * number));
        }
    }
    let latencies = traffic.end();
    println!("pairs={pairs}x{} rate={rate} peak={peak:.0} share_of_peak={:.2}", WAYS.len(), rate as f64 / peak);
    for (number, (name, ..)) in WAYS.iter().enumerate() {
        tell(name, &pooled(&latencies, &windows, 2 * number + 1), &pooled(&latencies, &windows, 2 * number));
    }
    let all: Vec<Window> = windows.into_iter().map(|window| Window { kind: window.kind % 2, ..window }).collect();
    tell("all", &pooled(&latencies, &all, 1), &pooled(&latencies, &all, 0));
}

/// The second that begins now.
fn second(kind: usize) -> Window {
    std::thread::sleep(SETTLE);
    let begin = micros();
    std::thread::sleep(Duration::from_micros(SECOND));
    Window { begin, end: begin + SECOND, kind }
}

fn tell(name: &str, with: &[f64], without: &[f64]) {
    let figures = [("p50", 0.5), ("p99", 0.99)].map(|(what, share)| {
        let (with, without) = (quantile(with, share), quantile(without, share));
        format!("{what}_ms={with:.1}/{without:.1} ratio={:.2}", with / without)
    });
    println!("{name:<7} records={}+{} {}", with.len(), without.len(), figures.join(" "));
}

/// A running host, with its folder.
struct Host {
    pelton: PathBuf,
    folder: tempfile::TempDir,
    life: Child,
}

impl Host {
    fn start(pelton: &Path) -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(pelton);
        command.current_dir(root()).args(["serve", "--data"]).arg(folder.path().join("data"));
        let life = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the host starts");
        let host = Host { pelton: pelton.into(), folder, life };
        let socket = host.folder.path().join("data/pelton.sock");
        wait_for("the host is ready", PATIENCE, || (socket.exists() && host.place().get("/readyz").status == 200).then_some(()));
        host
    }

    fn place(&self) -> Place {
        Place::Socket(self.folder.path().join("data/pelton.sock"))
    }

    fn status(&self, name: &str) -> Value {
        self.place().get(&format!("/v1/pipelines/{name}")).json()
    }

    fn tell(&self, arguments: &[&str]) {
        let mut command = Command::new(&self.pelton);
        let said =
            command.current_dir(root()).args(arguments).env("PELTON_HOST", self.folder.path().join("data")).output().expect("pelton runs");
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    }

    /// Deploys the pipeline whose latency is taken.
    fn steady(&self, servers: &str) {
        let plugin = format!("plugin={}", component("counting").display());
        let servers = format!("servers={servers}");
        let sets = [servers.as_str(), "input=steady-in", "output=steady-out", &plugin].map(|set| ["--set", set]);
        self.tell(&[&["deploy", "benches/kafka/swaps.yaml", "--parallelism", "2"], sets.as_flattened()].concat());
    }

    /// Deploys one that misbehaves, and pauses it.
    fn hostile(&self, name: &str, transform: &str, limits: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "pipeline:
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, interval: 1ms, rate: 200}}}}
    - {{type: MapToFields, name: Rows, input: Read, config: {{language: sql, fields: {{text: \"'poison'\", number: 'CAST(-1 AS BIGINT)'}}}}}}
    - {{type: Hostile, name: Hostile, input: Rows, config: {{error_handling: {{output: errors}}}}}}
    - {{type: WriteToJson, name: Write, input: Hostile, config: {{path: '{at}/{name}'}}}}
    - {{type: WriteToJson, name: Errors, input: Hostile.errors, config: {{path: '{at}/{name}-errors'}}}}
providers:
  - type: wasm
    config: {{plugin: '{}', limits: {{{limits}, batch_time: 200ms, on_budget: error_output, breaker: {{after: 1000000}}}}}}
    transforms: {{Hostile: {transform}}}
options: {{pelton: {{name: {name}, parallelism: 1, checkpoint: {{interval: 1s}}}}}}
",
            component("hostile").display()
        );
        let file = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&file, text).expect("a file");
        self.tell(&["deploy", &file.display().to_string()]);
        self.is_misbehaving(name);
        self.pauses(name);
    }

    fn misbehaves(&self, name: &str) {
        self.tell(&["resume", name]);
        self.is_misbehaving(name);
    }

    fn is_misbehaving(&self, name: &str) {
        wait_for("rows are refused", PATIENCE, || {
            let status = self.status(name);
            assert!(status["state"] != "failed", "{status}");
            (status["errors"].as_u64() > Some(0)).then_some(())
        });
    }

    fn pauses(&self, name: &str) {
        self.tell(&["pause", name]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.life.kill();
        let _ = self.life.wait();
    }
}
