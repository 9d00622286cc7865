//! Memory is bounded: when a sink blocks (ten million events behind a pipe that nobody reads), and where state is larger ([`larger`]).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod larger;

use pelton_tests::pelton::{pelton, wait_for};
use std::io::Read;
use std::process::{Command, Stdio};

const EVENTS: u64 = 10_000_000;
/// `options.pelton.memory` and what the process may take beyond it.
const MEMORY_MIB: u64 = 128;
const BEYOND_MIB: u64 = 128;

fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a field of status");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// CPU time of the process, clock ticks.
fn ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let after: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    after[11].parse::<u64>().expect("utime") + after[12].parse::<u64>().expect("stime")
}

#[test]
fn a_blocked_sink_holds_the_source_back() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, format!("pipeline:\n  type: chain\n  transforms:\n    - {{type: GenerateEvents, config: {{kind: iot, count: {EVENTS}, format: json}}}}\n    - {{type: WriteToText, config: {{path: '{}'}}}}\noptions: {{pelton: {{memory: {MEMORY_MIB}MiB}}}}\n", pipe.display())).unwrap();
    let mut child = pelton(&["run", file.to_str().unwrap(), "--quiet", "--output", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    // Opened for reading, so that the sink can start, and then left alone until the source has stood still for a while.
    let mut reader = std::fs::File::open(&pipe).unwrap();
    let mut last = (0, 0);
    wait_for("the source's standstill", 600, || {
        let now = ticks(child.id());
        last = if now > last.0 + 10 { (now, 0) } else { (last.0, last.1 + 1) };
        (last.0 > 0 && last.1 > 50).then_some(())
    });
    let (mut bytes, mut lines, mut buffer) = (0u64, 0u64, vec![0u8; 1 << 16]);
    loop {
        let read = reader.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        bytes += read as u64;
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        if bytes % (64 << 20) < read as u64 {
            let peak = status(child.id(), "VmHWM") / 1024;
            assert!(peak < MEMORY_MIB + BEYOND_MIB, "{peak} MiB at most, after {lines} lines");
        }
    }
    assert_eq!(lines, EVENTS);
    assert!(child.wait().unwrap().success());
}
