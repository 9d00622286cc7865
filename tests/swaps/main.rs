//! Swaps under load: each record is processed once, by exactly the versions that the recorded cuts say, and state is as if nothing had been swapped.
//!
//! One exactly-once pipeline from Kafka to Kafka: a stateless plugin, an expression and a stateful plugin, each of which writes into the row which version it
//! is. While records come in, they are swapped: one plugin, two at once, a config, an expression, and back. Some lives die at a step of the
//! protocol; the swap is then made at the next start, or it was never armed. At the end every row is compared with what follows from the records and the list of
//! swaps ([`model`]).
//!
//! Then candidates stand beside the transform with state, some for some keys, some unseen, and are promoted or sent away: each key stays on its side, and its state
//! goes on as if nothing had been.
//!
//! A second pipeline groups, and the aggregates of plugins in it are swapped ([`groups`]).
//!
//! `--swaps N` (40; 0: only groups), `--candidates N` (6), `--groups N` (9; 0: none), `--seed S`, `--rate R` records a second; `--deaths all|none`: a life dies at each step (all).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod feed;
mod groups;
mod model;

use feed::Feeder;
use model::{Model, Versions};
use pelton_tests::broker::{Broker, read_committed};
use pelton_tests::life::{Life, newest_progress};
use pelton_tests::numbers::Numbers;
use pelton_tests::pelton::{Said, pelton, root, wait_for};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const SWAPS: u64 = 40;
const RATE: u64 = 1_000;
const PATIENCE: u64 = 120;
/// Of aggregates; one more follows, to the last version.
const GROUPS: u64 = 9;
/// Candidates in CI: two of each way that one ends.
const CANDIDATES: u64 = 6;
/// Memory is compared with what it was after so many swaps.
const MEMORY_FROM: u64 = 200;
/// In runs of so many swaps without deaths it may grow by this much.
const MEMORY_SWAPS: u64 = 500;
const MEMORY_GROWTH: f64 = 0.05;
/// Records that were sent and may not have been processed.
const ON_THE_WAY: i64 = 15_000;
/// Between two checkpoints.
const INTERVAL: &str = "500ms";
/// In a life that dies at a step: the first barrier is then that of the swap.
const SELDOM: &str = "60s";
/// Steps of a swap, in their order, and whether the swap is certain to be made when a life dies there.
const STEPS: [(&str, bool); 14] = [
    ("swap.prepared", false),
    ("swap.armed", true),
    ("run.barrier", true),
    ("run.seal", true),
    ("swap.cut", true),
    ("run.persist", true),
    ("manifest.before", true),
    ("manifest.after", true),
    ("run.decide", true),
    ("kafka.recorded", true),
    ("kafka.committed", true),
    ("run.record", true),
    ("swap.decided", true),
    ("swap.made", true),
];

/// What is to be done.
struct Wanted {
    swaps: u64,
    candidates: u64,
    rate: u64,
    seed: u64,
    deaths: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str| value(name).map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} needs a number")));
    let wanted = Wanted {
        swaps: number("--swaps").unwrap_or(SWAPS),
        candidates: number("--candidates").unwrap_or(CANDIDATES),
        rate: number("--rate").unwrap_or(RATE),
        seed: number("--seed").unwrap_or(1),
        deaths: value("--deaths").is_none_or(|which| which != "none"),
    };
    println!("seed={}", wanted.seed);
    let broker = Broker::start();
    let folder = tempfile::Builder::new().prefix("pelton-swaps-").tempdir().expect("a folder");
    let groups = number("--groups").unwrap_or(GROUPS);
    let mut wrong = if groups > 0 { swap_aggregates(&broker, folder.path(), groups, &wanted) } else { Vec::new() };
    if wanted.swaps > 0 {
        wrong.extend(swap_transforms(&broker, folder.path(), &wanted));
    }
    wrong.iter().take(10).for_each(|text| println!("WRONG {text}"));
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("again with --seed {}; the folder is kept: {}", wanted.seed, folder.keep().display());
    ExitCode::FAILURE
}

/// Those of groupings; gives what is wrong.
fn swap_aggregates(broker: &Broker, folder: &Path, swaps: u64, wanted: &Wanted) -> Vec<String> {
    let begun = Instant::now();
    let told = groups::swap_aggregates(broker, folder, swaps, wanted.rate, wanted.seed);
    println!(
        "aggregates: swaps={} records={} groups={} mixed={} wrong={} seconds={}",
        told.made,
        told.records,
        told.groups,
        told.mixed,
        told.wrong.len(),
        begun.elapsed().as_secs()
    );
    told.wrong
}

/// Those of a chain of transforms; gives what is wrong.
fn swap_transforms(broker: &Broker, folder: &Path, wanted: &Wanted) -> Vec<String> {
    let begun = Instant::now();
    let Wanted { swaps, candidates, rate, seed, deaths } = *wanted;
    let mut test = SwapTest::new(broker, folder, seed);
    let feeder = Feeder::start(&test.servers, feed::INPUT, rate, seed);
    test.life = Some(test.start(INTERVAL, &[]));
    for number in 0..swaps {
        let step = deaths.then(|| STEPS.get(number as usize / 2)).flatten().filter(|_| number % 2 == 1);
        match step {
            Some((step, certain)) => test.swap_and_die(step, *certain),
            None => test.swap(),
        }
        test.note_memory(number);
    }
    // Those that are on their way count too.
    test.first_candidate = feeder.sent() as i64 - ON_THE_WAY;
    (0..candidates).for_each(|number| test.candidate(number));
    let records = feeder.finish();
    let mut wrong = test.finish(&records);
    if swaps >= MEMORY_SWAPS && !deaths && test.growth() > MEMORY_GROWTH {
        wrong.push(format!("memory grew by {:.1} %", test.growth() * 100.0));
    }
    println!(
        "swaps={} candidates={} versions={} deaths={} lives={} records={} wrong={} pause_max_ms={:.1} memory_growth={:.3} seconds={}",
        test.made,
        test.candidates,
        test.met,
        test.died,
        test.lives,
        records.len(),
        wrong.len(),
        test.longest_pause,
        test.growth(),
        begun.elapsed().as_secs()
    );
    wrong
}

struct SwapTest<'a> {
    folder: &'a Path,
    servers: String,
    numbers: Numbers,
    life: Option<Life>,
    /// What is to run: after the last swap that was made.
    versions: Versions,
    made: u64,
    died: u64,
    lives: u64,
    longest_pause: f64,
    /// Resident after the first swaps, and after the last, KiB.
    memory: (u64, u64),
    candidates: u64,
    /// The first record that one of them may have met.
    first_candidate: i64,
    /// Different versions that records have met.
    met: usize,
}

impl SwapTest<'_> {
    fn new<'a>(broker: &Broker, folder: &'a Path, seed: u64) -> SwapTest<'a> {
        for topic in [feed::INPUT, "output"] {
            broker.topic_with(topic, feed::PARTITIONS, &[("retention.ms", "-1")]);
        }
        SwapTest {
            folder,
            servers: broker.servers(),
            numbers: Numbers::new(seed),
            life: None,
            versions: Versions::FIRST,
            made: 0,
            died: 0,
            lives: 0,
            longest_pause: 0.0,
            memory: (0, 0),
            candidates: 0,
            first_candidate: i64::MAX,
            met: 0,
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A life; returns when it can be told something.
    fn start(&mut self, interval: &str, environment: &[(&str, &str)]) -> Life {
        self.lives += 1;
        let file = self.folder.join("pipeline.yaml");
        std::fs::write(&file, self.pipeline(interval)).expect("the pipeline is written");
        let (state, parallelism) = (self.state().display().to_string(), self.numbers.between(1, 3).to_string());
        let before = newest_progress(&self.state());
        let arguments = ["run", file.to_str().unwrap(), "--state", &state, "--parallelism", &parallelism, "--quiet"];
        let mut life = Life::start(&arguments, environment, &self.folder.join(format!("log-{}", self.lives)));
        wait_for("a life takes the pipeline", PATIENCE, || {
            assert!(life.ended().is_none(), "a life ended at its start\n{}", life.said());
            let listens = || UnixStream::connect(self.state().join("control.sock")).is_ok();
            (newest_progress(&self.state()) > before && listens()).then_some(())
        });
        life
    }

    fn pipeline(&self, interval: &str) -> String {
        let plugin = component("counting");
        format!(
            "pipeline:
  type: chain
  transforms:
    - type: ReadFromKafka
      config:
        topic: {input}
        bootstrap_servers: '{servers}'
        format: JSON
        schema: {{type: object, properties: {{id: {{type: integer}}, user: {{type: string}}, number: {{type: integer}}}}}}
        auto_offset_reset_config: earliest
    - {{type: Mark, name: Mark}}
    - {{type: MapToFields-sql, name: Tag, config: {{append: true, fields: {{tag: {{expression: \"'a'\"}}}}}}}}
    - {{type: Count, name: Count, config: {{key: [user]}}}}
    - type: WriteToKafka
      config: {{topic: output, bootstrap_servers: '{servers}', format: JSON}}
providers:
  - {{type: wasm, config: {{plugin: '{plugin}'}}, transforms: {{Count: counting, Mark: mark}}}}
options:
  pelton:
    name: swaps
    checkpoint: {{interval: {interval}}}
",
            input = feed::INPUT,
            servers = self.servers,
            plugin = plugin.display(),
        )
    }

    /// What comes next, and how the command line is told.
    fn next(&mut self) -> (Versions, Vec<String>) {
        let mut to = self.versions;
        let other = |version: i64| if version == 1 { 2 } else { 1 };
        let file = |version: i64| component(if version == 1 { "counting" } else { "counting-next" }).display().to_string();
        let state = self.state().display().to_string();
        let told: Vec<String> = match self.numbers.below(5) {
            0 | 1 => {
                to.count = other(to.count);
                vec!["Count".into(), file(to.count)]
            }
            2 => {
                (to.count, to.mark) = (other(to.count), other(to.mark));
                vec!["Count".into(), file(to.count), "--and".into(), format!("Mark={}", file(to.mark))]
            }
            3 => {
                to.plus = if to.plus == 0 { 100 } else { 0 };
                vec!["Count".into(), "--config".into(), json!({"plus": to.plus}).to_string()]
            }
            _ => {
                to.tag = if to.tag == 'a' { 'b' } else { 'a' };
                let config = json!({"append": true, "fields": {"tag": {"expression": format!("'{}'", to.tag)}}});
                vec!["Tag".into(), "--config".into(), config.to_string()]
            }
        };
        let mut arguments = vec!["plugin".to_string(), "swap".into(), state];
        arguments.extend(told);
        arguments.extend(["--output".into(), "json".into()]);
        (to, arguments)
    }

    fn swap(&mut self) {
        let (to, arguments) = self.next();
        let said = run(&arguments);
        assert_eq!(said.code, 0, "{arguments:?}\n{}{}", said.err, self.life.as_ref().unwrap().said());
        let made: Value = serde_json::from_str(said.out.trim()).expect("a swap is told as JSON");
        self.made += 1;
        assert_eq!(made["number"], self.made, "{made}");
        self.longest_pause = self.longest_pause.max(made["pause_millis"].as_f64().unwrap());
        self.versions = to;
    }

    /// A candidate of the transform with state: promoted, sent away, or only looked at. Whatever becomes of it, no update is lost.
    fn candidate(&mut self, number: u64) {
        let other = if self.versions.count == 1 { 2 } else { 1 };
        let file = component(if other == 1 { "counting" } else { "counting-next" }).display().to_string();
        let state = self.state().display().to_string();
        let way = if number % 3 == 2 { "shadow" } else { "canary" };
        let mut arguments =
            vec!["plugin", way, &state, "Count", &file, "--seconds", "3", "--rows", "50", "--slower", "1000000", "--output", "json"];
        match number % 3 {
            0 => arguments.extend(["--percent", "20,60", "--promote"]),
            1 => arguments.extend(["--percent", "30"]),
            _ => {}
        }
        let said = run(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(said.code, 0, "{arguments:?}\n{}{}", said.err, self.life.as_ref().unwrap().said());
        let told: Value = serde_json::from_str(said.out.trim()).expect("what was seen is told as JSON");
        let figures = &told["figures"];
        let count = |side: &str, what: &str| figures[side][what].as_u64().unwrap();
        assert!(count("candidate", "rows") >= 50 && count("current", "rows") > 0, "{told}");
        // Of the columns only the version differs.
        assert_eq!(figures["columns"].as_object().unwrap().keys().collect::<Vec<_>>(), ["version"], "{told}");
        assert_eq!(figures["differing"], figures["compared"], "{told}");
        if number.is_multiple_of(3) {
            self.made += 1;
            self.versions.count = other;
            assert_eq!(told["promoted"]["number"], self.made, "{told}");
        }
        self.candidates += 1;
    }

    /// A swap in a life that dies at a step of it; the next life makes it, or it was never armed.
    fn swap_and_die(&mut self, step: &str, certain: bool) {
        self.end_life();
        let mut life = self.start(SELDOM, &[("PELTON_FAILPOINT", step)]);
        let (to, arguments) = self.next();
        let said = run(&arguments);
        let status = life.wait(PATIENCE);
        let reached = life.said().contains(&format!("failpoint {step}: the process aborts"));
        assert!(reached && status.code().is_none(), "it did not die at {step}: {status}\n{}\n{}", said.err, life.said());
        self.died += 1;
        self.life = Some(self.start(INTERVAL, &[]));
        if certain {
            let number = self.made + 1;
            wait_for("the armed swap is made", PATIENCE, || (self.history().len() as u64 == number).then_some(()));
            (self.made, self.versions) = (number, to);
        } else {
            assert_eq!(self.history().len() as u64, self.made, "nothing was armed");
        }
    }

    fn note_memory(&mut self, number: u64) {
        let resident = self.life.as_ref().map_or(0, Life::resident);
        if number <= MEMORY_FROM {
            self.memory.0 = resident;
        }
        self.memory.1 = resident;
        if number.is_multiple_of(100) {
            println!("swaps={number} resident_kib={resident}");
        }
    }

    /// Of memory since the first swaps; of one life only where none died.
    fn growth(&self) -> f64 {
        self.memory.1 as f64 / self.memory.0.max(1) as f64 - 1.0
    }

    fn end_life(&mut self) {
        let mut life = self.life.take().expect("a life");
        // Half of them in order.
        if self.numbers.below(2) == 0 {
            life.signal("TERM");
            let status = life.wait(PATIENCE);
            assert!(status.success(), "{status}\n{}", life.said());
        }
        life.kill();
    }

    fn history(&self) -> Vec<Value> {
        let said = run(&["plugin".into(), "history".into(), self.state().display().to_string(), "--output".into(), "json".into()]);
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str::<Value>(said.out.trim()).expect("the history is JSON").as_array().expect("a list").clone()
    }

    /// Until all records are through; what is wrong with what came of them.
    fn finish(&mut self, records: &[feed::Record]) -> Vec<String> {
        let rows = wait_for("all records are through", 5 * PATIENCE, || {
            let life = self.life.as_mut().unwrap();
            assert!(life.ended().is_none(), "the last life ended by itself\n{}", life.said());
            let rows = read_committed(&self.servers, "output", feed::PARTITIONS);
            (rows.len() >= records.len()).then_some(rows)
        });
        self.end_life();
        let model = Model::new(&self.history());
        self.met = model.met(records);
        assert!(self.met as u64 >= self.made.min(4), "records have met the versions that were swapped in");
        model.wrong(records, &rows, (self.first_candidate, self.candidates as usize))
    }
}

fn component(name: &str) -> PathBuf {
    root().join(format!("tests/.cache/components/{name}.wasm"))
}

fn run(arguments: &[String]) -> Said {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    pelton(&arguments).output().expect("the binary starts").into()
}
