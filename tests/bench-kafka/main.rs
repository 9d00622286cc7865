//! The benchmark behind `cargo xtask bench kafka`: Kafka → wasm → Kafka, against a bare loop that consumes and produces with the same
//! client and the same settings. All run in turns on one broker of their own; every output is counted and hashed.
//!
//! `bench-kafka PELTON INPUT RECORDS ROUNDS` compares; `bench-kafka latency PELTON SECONDS` measures an exactly-once pipeline; `bench-kafka swaps PELTON SWAPS` what swaps cost, and `bench-kafka neighbours PELTON PAIRS` what
//! a neighbour notices of a hostile plugin; `bench-kafka loop …` is the bare loop, a process of its own so that its CPU time
//! can be told.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark may panic, and reads the clock")]

mod bare;
mod content;
mod latency;
mod neighbours;
mod swaps;
mod traffic;

use bare::Loop;
use content::Content;
use pelton_tests::broker::Broker;
use pelton_tests::pelton::root;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Of every topic.
pub const PARTITIONS: i32 = 2;
const INPUT: &str = "bench-input";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["loop", servers, input, output, cut] => Loop { servers, input, output, cut: cut.parse().expect("bytes") }.run(),
        ["swaps", pelton, swaps] => swaps::measure(Path::new(pelton), swaps.parse().expect("a number")),
        ["neighbours", pelton, pairs] => neighbours::measure(Path::new(pelton), pairs.parse().expect("a number")),
        ["latency", pelton, seconds] => latency::measure(Path::new(pelton), seconds.parse().expect("seconds")),
        [pelton, input, records, rounds] => {
            compare(Path::new(pelton), Path::new(input), records.parse().expect("a number"), rounds.parse().expect("a number"));
        }
        _ => {
            panic!("usage: bench-kafka PELTON INPUT RECORDS ROUNDS | latency PELTON SECONDS | swaps PELTON SWAPS | neighbours PELTON PAIRS")
        }
    }
}

/// Gives the command for a broker and an output topic.
type Start = dyn Fn(&str, &str) -> Command;

/// One side of a comparison.
struct Contestant {
    name: &'static str,
    command: Box<Start>,
    /// What each record must become.
    becomes: fn(&str) -> u64,
    /// Of a record that was written.
    written: fn(&[u8]) -> u64,
    runs: Vec<Figures>,
}

#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    cpu: f64,
}

fn compare(pelton: &Path, input: &Path, records: usize, rounds: usize) {
    let broker = Broker::start();
    let servers = broker.servers();
    topic(&broker, INPUT);
    let lines = content::first_lines(input, records);
    bare::load(&servers, INPUT, &lines);
    // The bare loop writes what the pipeline beside it writes, in bytes: all of a record, or as much as three fields take.
    let mut contestants = [
        contestant("loop, whole records", bare_loop(0), content::whole, content::bytes),
        contestant("pelton, guest parses all", pipeline(pelton, "parse.yaml"), content::event_of_line, content::event_of_row),
        contestant("loop, cut records", bare_loop(content::CUT), content::cut, content::bytes),
        contestant("pelton, guest takes three fields", pipeline(pelton, "map.yaml"), content::request_of_line, content::request_of_row),
    ];
    let expected: Vec<Content> =
        contestants.iter().map(|contestant| Content::of(lines.iter().map(|line| (contestant.becomes)(line)))).collect();
    for round in 0..rounds {
        for (number, (contestant, expected)) in contestants.iter_mut().zip(&expected).enumerate() {
            let output = format!("bench-output-{round}-{number}");
            topic(&broker, &output);
            let figures = measure((contestant.command)(&servers, &output));
            let (found, bytes) = bare::read(&servers, &output, contestant.written);
            assert!(found == *expected, "{} wrote {found:?} instead of {expected:?}", contestant.name);
            println!(
                "round {} {:<34} wall {:6.2} s, cpu {:6.2} s, {} records, {} bytes, {}",
                round + 1,
                contestant.name,
                figures.wall,
                figures.cpu,
                found.records,
                bytes,
                found
            );
            contestant.runs.push(figures);
            broker.delete_topic(&output);
        }
    }
    println!(
        "\n{records} records, medians of {rounds} rounds; the ratio is the bare loop's time over ours, so 1.00 is as fast as the loop"
    );
    for pair in contestants.chunks(2) {
        let [bare, ours] = [0, 1].map(|side| (median(&pair[side], |run| run.wall), median(&pair[side], |run| run.cpu)));
        println!(
            "{:<34} wall {:5.2} s against {:5.2} s: {:4.2}; CPU {:5.2} s against {:5.2} s: {:4.2}",
            pair[1].name,
            ours.0,
            bare.0,
            bare.0 / ours.0,
            ours.1,
            bare.1,
            bare.1 / ours.1
        );
    }
}

/// Event times of the comparison are of some day in the past; by the broker's rule such records may go at any time.
fn topic(broker: &Broker, name: &str) {
    broker.topic_with(name, PARTITIONS, &[("retention.ms", "-1")]);
}

fn contestant(
    name: &'static str,
    command: impl Fn(&str, &str) -> Command + 'static,
    becomes: fn(&str) -> u64,
    written: fn(&[u8]) -> u64,
) -> Contestant {
    Contestant { name, command: Box::new(command), becomes, written, runs: Vec::new() }
}

fn bare_loop(cut: usize) -> impl Fn(&str, &str) -> Command {
    move |servers, output| {
        let mut command = Command::new(std::env::current_exe().expect("this program is a file"));
        command.args(["loop", servers, INPUT, output, &cut.to_string()]);
        command
    }
}

fn pipeline(pelton: &Path, file: &'static str) -> impl Fn(&str, &str) -> Command + 'static {
    let pelton = pelton.to_path_buf();
    move |servers, output| {
        let mut command = Command::new(&pelton);
        command.current_dir(root()).arg("run").arg(format!("benches/kafka/{file}")).args(["--quiet", "--parallelism", "2"]);
        for set in [format!("servers={servers}"), format!("input={INPUT}"), format!("output={output}")] {
            command.args(["--set", &set]);
        }
        command
    }
}

fn median(contestant: &Contestant, of: fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = contestant.runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs a command to its end, which must be a good one.
fn measure(mut command: Command) -> Figures {
    let (before, start) = (cpu_of_children(), Instant::now());
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let wall = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Figures { wall, cpu: cpu_of_children() - before }
}

/// CPU seconds of all children that have ended: fields 16 and 17 of `/proc/self/stat`, in hundredths on every Linux.
fn cpu_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, after_name) = stat.rsplit_once(')').expect("the name stands in parentheses");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number of ticks");
    (ticks(16) + ticks(17)) / 100.0
}
