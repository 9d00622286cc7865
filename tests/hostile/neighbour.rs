//! A pipeline that has done nothing wrong: it goes on beside a hostile one, and everything that it gives out is checked.

use crate::host::Host;
use pelton_runtime::metrics::NodeMetrics;
use pelton_runtime::{Failure, Progress, StopMode};
use pelton_tests::pelton::{json_rows, shards};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Rows a second.
const RATE: u64 = 2_000;
/// Rows of the oracle: more than a neighbour comes to beside one plugin.
const KNOWN: u64 = 150_000;

/// The rows as a pipeline without a plugin gives them out, made once.
pub fn oracle(host: &Host) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "pipeline:\n  transforms:\n    - {{type: GenerateEvents, name: G, config: {{kind: transactions, count: {KNOWN}, interval: 1ms}}}}\n    - {{type: WriteToJson, input: G, config: {{path: '{}/rows'}}}}\n",
        folder.path().display()
    );
    let prepared = host.prepare(folder.path(), &text).unwrap();
    host.io.block_on(prepared.run()).unwrap();
    shards(&folder.path().join("rows")).iter().flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()).collect()
}

/// A running neighbour.
pub struct Neighbour {
    folder: tempfile::TempDir,
    thread: std::thread::JoinHandle<Result<Arc<Progress>, Failure>>,
    written: Arc<NodeMetrics>,
    stop: watch::Sender<StopMode>,
    last: (u64, Instant),
    /// The longest time without a row written since [`Neighbour::watch`].
    pub slowest: Duration,
}

impl Neighbour {
    /// Starts it and waits for its first rows.
    pub fn start(host: &Arc<Host>, honest: &Path) -> Neighbour {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "pipeline:
  transforms:
    - {{type: GenerateEvents, name: G, config: {{kind: transactions, rate: {RATE}, interval: 1ms}}}}
    - {{type: Double, input: G}}
    - {{type: WriteToJson, name: Rows, input: Double, config: {{path: '{}/rows'}}}}
providers: [{{type: wasm, config: {{plugin: '{}'}}, transforms: {{Double: map}}}}]
",
            folder.path().display(),
            honest.display()
        );
        let prepared = host.prepare(folder.path(), &text).unwrap();
        let (progress, stop) = (prepared.progress.clone(), prepared.stop.clone());
        let written = progress.nodes.iter().find(|node| node.name == "Rows").expect("it writes").clone();
        let host = host.clone();
        let thread = std::thread::spawn(move || host.io.block_on(prepared.run()));
        let mut neighbour = Neighbour { folder, thread, written, stop, last: (0, Instant::now()), slowest: Duration::ZERO };
        neighbour.go_on("its first rows");
        neighbour.slowest = Duration::ZERO;
        neighbour
    }

    fn rows(&self) -> u64 {
        self.written.rows_in.load(Relaxed)
    }

    /// Looks how far it is.
    pub fn watch(&mut self) {
        let rows = self.rows();
        self.slowest = self.slowest.max(self.last.1.elapsed());
        if rows > self.last.0 {
            self.last = (rows, Instant::now());
        }
    }

    /// Waits until it has written more.
    pub fn go_on(&mut self, what: &str) {
        let (rows, begun) = (self.rows(), Instant::now());
        while self.rows() == rows {
            assert!(begun.elapsed() < Duration::from_secs(60), "the neighbour stands still: {what}");
            self.watch();
            std::thread::sleep(Duration::from_millis(2));
        }
        self.watch();
    }

    /// Stops it. What is wrong with what it wrote, if anything; and how many rows those are.
    pub fn finish(self, oracle: &[String]) -> (Option<String>, usize) {
        self.stop.send(StopMode::Stop).unwrap();
        if let Err(failure) = self.thread.join().expect("no panic") {
            return (Some(format!("the neighbour failed: {failure}")), 0);
        }
        let rows = json_rows(&self.folder.path().join("rows"));
        (wrong(&rows, oracle), rows.len())
    }
}

/// What is wrong with what a neighbour wrote, if anything.
pub fn wrong(rows: &[Value], oracle: &[String]) -> Option<String> {
    if rows.len() > oracle.len() {
        return Some(format!("the neighbour went on for so long that it is not known what its row {} should be", oracle.len()));
    }
    let wrong = rows.iter().zip(oracle).position(|(row, known)| {
        let mut expected: Value = serde_json::from_str(known).unwrap();
        expected["doubled"] = Value::from(2 * expected["customer_id"].as_i64().unwrap());
        *row != expected
    });
    wrong.map(|row| format!("row {row} of the neighbour is {}, and should be as {}", rows[row], oracle[row]))
}
