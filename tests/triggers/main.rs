//! Triggers and panes against the real Apache Beam.
//!
//! - The transcripts of Beam's own tests, and ours beside them, through the pure rule.
//! - Random streams through Beam's BundleBasedDirectRunner and through the pure rule: the same panes, with the same labels,
//!   at the same events. `--random N` says how many, `--seed S` where the seeds begin; `--only SEED` shows one of them.
//! - The same streams through the operator `Combine`: what the rule gives, to the microsecond, however rows are batched.
//!
//! The closing line counts: `wrong` is 0, or the suite fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test may panic")]

mod cells;
mod compare;
mod engine;
mod oracle;
mod streams;
mod transcripts;

use compare::{Difference, Outcome};
use oracle::Oracle;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use streams::Stream;

/// As many streams in CI.
const STREAMS: u64 = 1_000;
/// Beam's file has so many; fewer would mean that they were not read.
const TRANSCRIPTS: usize = 18;
/// No more Pythons at once than this, each 200 MB.
const MOST_ORACLES: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--only") {
        return show(seed);
    }
    let seed = number("--seed").unwrap_or(1);
    let count = number("--random").unwrap_or(STREAMS);
    let (transcripts, mut wrong) = run_transcripts();
    let oracles = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(MOST_ORACLES)) as u64;
    let total = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..oracles).map(|part| scope.spawn(move || run_streams((seed..seed + count).filter(|seed| seed % oracles == part)))).collect();
        runs.into_iter().map(|run| run.join().expect("a run of streams")).reduce(Total::add).expect("at least one oracle")
    });
    println!("streams at whose end Beam stalled: {}", total.stalled);
    let listed = std::fs::read_to_string(oracle::folder().join("../../docs/book/src/reference/beam-differences.md")).expect("the list");
    for (difference, id) in Difference::ALL {
        assert!(listed.contains(&format!("\n### {id}\n")), "beam-differences.md has no `### {id}`");
        if let Some(seeds) = total.known.get(&difference) {
            let some: Vec<String> = seeds.iter().take(4).map(u64::to_string).collect();
            println!("known difference {id}: {} streams, such as --only {}", seeds.len(), some.join(", "));
        }
    }
    for text in total.wrong.iter().take(5) {
        println!("WRONG {text}");
    }
    wrong += total.wrong.len();
    println!(
        "transcripts={transcripts} streams={} panes={} equal={} known_differences={} wrong={wrong}",
        total.streams,
        total.panes,
        total.equal,
        total.streams - total.equal - total.wrong.len()
    );
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Beam's transcripts and ours. Gives how many of Beam's passed, and how many of all did not.
fn run_transcripts() -> (usize, usize) {
    let mut ours: Vec<_> =
        std::fs::read_dir(oracle::folder()).expect("the folder of this suite").flatten().map(|entry| entry.path()).collect();
    ours.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    ours.sort();
    let mut oracle = Oracle::start();
    let mut read = |paths: Value| oracle.ask(&json!({ "transcripts": paths }))["transcripts"].as_array().cloned().unwrap_or_default();
    let (beams, ours) = (read(json!(["beam"])), read(json!(ours)));
    let failures = |documents: &[Value]| {
        let failed: Vec<String> = documents.iter().filter_map(|document| transcripts::run(document).err()).collect();
        failed.iter().for_each(|error| println!("WRONG transcript {error}"));
        failed.len()
    };
    let (beams_failed, ours_failed) = (failures(&beams), failures(&ours));
    let missing = TRANSCRIPTS.saturating_sub(beams.len());
    println!("own transcripts={} wrong={ours_failed}", ours.len());
    (beams.len() - beams_failed, beams_failed + ours_failed + missing)
}

#[derive(Default)]
struct Total {
    streams: usize,
    panes: usize,
    /// Of which Beam could not come to the end, since windows do not close; it had given its panes by then.
    stalled: usize,
    equal: usize,
    /// The seeds of streams with each difference.
    known: BTreeMap<Difference, Vec<u64>>,
    wrong: Vec<String>,
}

impl Total {
    fn add(mut self, other: Total) -> Total {
        self.streams += other.streams;
        self.panes += other.panes;
        self.stalled += other.stalled;
        self.equal += other.equal;
        self.wrong.extend(other.wrong);
        for (difference, seeds) in other.known {
            self.known.entry(difference).or_default().extend(seeds);
        }
        self
    }
}

fn run_streams(seeds: impl Iterator<Item = u64>) -> Total {
    let mut oracle = Oracle::start();
    let mut total = Total::default();
    for seed in seeds {
        let stream = Stream::random(seed);
        let cells = compare::run(&stream, false);
        total.streams += 1;
        total.panes += cells.panes.len();
        let answer = oracle.ask(&stream.to_json());
        total.stalled += usize::from(answer["stalled"] == true);
        if let Some(text) = operator_differs(&stream) {
            total.wrong.push(format!("--only {seed}: Combine: {text}"));
            continue;
        }
        match compare::judge(&stream, &cells, &answer) {
            Outcome::Equal => total.equal += 1,
            Outcome::Known(differences) => {
                differences.into_iter().for_each(|difference| total.known.entry(difference).or_default().push(seed))
            }
            Outcome::Wrong(text) => total.wrong.push(format!("--only {seed}: {text}")),
        }
    }
    total
}

/// What the real operator gives out against the rule, row by row and with rows that follow each other in one batch.
fn operator_differs(stream: &Stream) -> Option<String> {
    let cells = compare::run(stream, true);
    let panes: Vec<_> = cells.panes.into_iter().chain(cells.closing).collect();
    let differs = |together: bool| engine::difference(&panes, &engine::run(stream, together), !together);
    differs(false).or_else(|| differs(true).map(|text| format!("in larger batches: {text}")))
}

/// One stream in full.
fn show(seed: u64) -> ExitCode {
    let stream = Stream::random(seed);
    println!("{:#?}", stream.strategy);
    let (cells, answer) = (compare::run(&stream, false), Oracle::start().ask(&stream.to_json()));
    for (number, event) in stream.events.iter().enumerate() {
        println!("{number}: {event:?}");
    }
    for (whose, panes) in [("ours", &cells.panes), ("closing", &cells.closing)] {
        panes.iter().for_each(|pane| println!("{whose}: {pane:?}"));
    }
    for kind in ["panes", "watermarks"] {
        answer[kind].as_array().into_iter().flatten().for_each(|entry| println!("Beam's {kind}: {entry}"));
    }
    cells.notes.iter().for_each(|note| println!("{note:?}"));
    println!("Combine: {}", operator_differs(&stream).unwrap_or_else(|| "as the rule".into()));
    match compare::judge(&stream, &cells, &answer) {
        Outcome::Equal => println!("equal"),
        Outcome::Known(differences) => println!("known differences: {differences:?}"),
        Outcome::Wrong(text) => println!("WRONG {text}"),
    }
    ExitCode::SUCCESS
}
