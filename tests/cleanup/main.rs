//! State that is over frees its room: millions of keys that live for seconds of event time (a thousand a window), in fixed windows, in sessions, and in a plugin's state
//! with a time to live. However many there were, the process takes as much memory and the checkpoint store as many bytes as with a tenth of them.
//!
//! `--keys N` of each kind: what CI's time allows, or ten million in the long run, whose figures stand in docs/reliability.md.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

use pelton_tests::pelton::{Said, pelton, root};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Kept for ever, so many keys would take more than the [`SLACK_MIB`], and several times the [`SLACK_KIB`].
const KEYS: u64 = 150_000;
/// An allocator does not give back everything, and channels are sometimes fuller than at other times.
const SLACK_MIB: u64 = 24;
/// How much further the store may be before it is compacted and collected, at one moment rather than another; some epochs of a plugin's 6,000 keys.
const SLACK_KIB: u64 = 4_096;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What makes state of each key, and forgets it.
const KINDS: [(&str, &str); 3] = [
    ("windows", "{type: Combine, windowing: {type: fixed, size: 10s}, config: {group_by: number, combine: {n: count}}}"),
    ("sessions", "{type: Combine, windowing: {type: sessions, gap: 10s}, config: {group_by: number, combine: {n: count}}}"),
    ("time to live", "{type: Once, config: {key: [number]}}"),
];

/// The most that was seen of one run.
#[derive(Clone, Copy, Debug)]
struct Most {
    memory_mib: u64,
    store_kib: u64,
    /// When it had ended.
    left_kib: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keys = arguments.iter().position(|argument| argument == "--keys").map_or(KEYS, |at| arguments[at + 1].parse().unwrap());
    let mut failed = false;
    for (name, transform) in KINDS {
        let begun = Instant::now();
        let (few, many) = (run(transform, keys / 10), run(transform, keys));
        let seconds = begun.elapsed().as_secs();
        println!("{name}: keys={} {few:?} keys={keys} {many:?} seconds={seconds}", keys / 10);
        failed |= many.memory_mib > few.memory_mib + SLACK_MIB;
        failed |= many.store_kib > few.store_kib + SLACK_KIB || many.left_kib > few.left_kib + SLACK_KIB;
    }
    if failed {
        println!("ten times the keys take more room");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(transform: &str, keys: u64) -> Most {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("pipeline.yaml"), folder.path().join("state"));
    let text = format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, config: {{kind: transactions, count: {keys}, interval: 10ms}}}}
    - {{type: AssignTimestamps, config: {{timestamp: transaction_date}}}}
    - {{type: MapToFields, config: {{language: sql, fields: {{number: 'CAST(SUBSTRING(transaction_id, 2) AS BIGINT)'}}}}}}
    - {transform}
    - {{type: WriteToJson, config: {{path: '{folder}/rows'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{plugin}'}}, transforms: {{Once: dedup}}}}
options: {{pelton: {{name: cleanup, watermark: {{delay: 1s}}, checkpoint: {{interval: 200ms}}}}}}
",
        folder = folder.path().display(),
        plugin = root().join("tests/.cache/components/stateful.wasm").display(),
    );
    std::fs::write(&file, text).unwrap();
    let arguments = ["run", file.to_str().unwrap(), "--state", state.to_str().unwrap(), "--parallelism", "2", "--quiet"];
    let mut process = pelton(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut most = Most { memory_mib: 0, store_kib: 0, left_kib: 0 };
    while process.try_wait().unwrap().is_none() {
        most.memory_mib = most.memory_mib.max(peak_kib(process.id()) / 1_024);
        most.store_kib = most.store_kib.max(bytes(&state.join("checkpoints")) / 1_024);
        std::thread::sleep(LOOK);
    }
    let said: Said = process.wait_with_output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let rows = pelton_tests::pelton::shards(&folder.path().join("rows")).iter().map(|text| text.lines().count() as u64).sum::<u64>();
    assert_eq!(rows, keys, "a row of each key");
    most.left_kib = bytes(&state.join("checkpoints")) / 1_024;
    most
}

/// The most memory that a process has had; 0 once it is gone.
fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Of all files below a folder; some go while they are counted.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().map_or(0, |metadata| metadata.len()) })
        .sum()
}
