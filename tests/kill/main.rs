//! `kill -9` at random moments, against a real Kafka broker: every output is exact at the end.
//!
//! One pipeline reads three partitions that are written meanwhile, and writes all kinds of sinks at once: windows and late rows and the running totals of
//! a stateful plugin to Kafka, windows and totals to PostgreSQL, the records as they are to Parquet and to files of JSON. It is killed again and again: at a moment drawn from
//! the seed after its start, soon after it took the pipeline, some time after it made a checkpoint, or at a failpoint; each life has another
//! parallelism and another interval. At the end the outputs are compared with what follows from the records that were sent.
//!
//! `--kills N` (25), `--seed S`, `--rate R` records a second, `--records N`: goes on until so many were sent; `--seconds T`: no more kills after that.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod compare;
mod feed;
mod outputs;

use compare::Verdict;
use feed::{DELAY_SECONDS, Feeder, PARTITIONS, Record};
use outputs::{Known, Output, PASSWORD_VARIABLE, Place, rows_in_table};
use pelton_core::failpoint::NAMES;
use pelton_tests::broker::Broker;
use pelton_tests::life::{Life, newest_manifest, newest_progress};
use pelton_tests::numbers::Numbers;
use pelton_tests::pelton::{root, wait_for};
use pelton_tests::postgres::{PASSWORD, Server};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Kills in CI.
const KILLS: u64 = 25;
/// Records a second.
const RATE: u64 = 1_000;
/// A checkpoint, a failpoint, the end: nothing takes longer on a loaded machine.
const PATIENCE: u64 = 120;
/// Failpoints that this pipeline never comes to begin so.
const ELSEWHERE: [&str; 8] = [
    "swap.",
    "savepoint.",
    "outbox.",
    "compact.half",
    // Kafka decides.
    "decide.",
    "postgres.claim",
    "postgres.written",
    "postgres.committed",
];

/// Outputs that are read again and again to see whether all windows have come: what is late, and the smallest that has windows.
const NEEDED: [&str; 2] = ["late", "newest"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1)?.parse::<u64>().unwrap_or_else(|_| panic!("{name} needs a number")))
    };
    let (kills, seed) = (number("--kills").unwrap_or(KILLS), number("--seed").unwrap_or(1));
    let begun = Instant::now();
    println!("seed={seed}");
    let broker = Broker::start();
    let mut test = KillTest::new(&broker, seed);
    let feeder = Feeder::start(&test.place.servers, "input", number("--rate").unwrap_or(RATE), seed);
    let killing = Instant::now();
    let mut killed = 0;
    let least = number("--records").unwrap_or(0) as usize;
    while (killed < kills || feeder.sent() < least) && number("--seconds").is_none_or(|seconds| killing.elapsed().as_secs() < seconds) {
        test.live_and_die(killed);
        killed += 1;
    }
    let records = feeder.finish();
    let verdict = test.finish(&records);
    verdict.shown.iter().for_each(|text| println!("WRONG {text}"));
    let (epochs, generations) = newest_manifest(&test.state()).unwrap_or_default();
    println!(
        "kills={killed} at_failpoints={} generations={generations} records={} outputs={} late={} epochs={epochs} lost={} duplicated={} wrong={} seconds={}",
        test.at_failpoints,
        records.len(),
        test.outputs.len(),
        test.late,
        verdict.lost,
        verdict.duplicated,
        verdict.wrong,
        begun.elapsed().as_secs()
    );
    if verdict.is_right() {
        return ExitCode::SUCCESS;
    }
    println!("again with --seed {seed}; the folder is kept: {}", test.folder.keep().display());
    ExitCode::FAILURE
}

struct KillTest {
    folder: tempfile::TempDir,
    place: Place,
    outputs: Vec<Box<dyn Output>>,
    numbers: Numbers,
    /// Where the next life that dies by itself does.
    failpoint: usize,
    at_failpoints: u64,
    late: usize,
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after its start, whatever it is doing.
    Start(Duration),
    /// So long after it took the pipeline over: while it recovers.
    Taken(Duration),
    /// So long after its first checkpoint.
    Checkpoint(Duration),
    /// It dies by itself, the first or second time it comes there.
    Failpoint(&'static str, u64),
}

impl KillTest {
    fn new(broker: &Broker, seed: u64) -> KillTest {
        let outputs = outputs::all();
        for topic in std::iter::once("input").chain(outputs.iter().filter(|output| output.is_topic()).map(|output| output.name())) {
            // Event times are old.
            broker.topic_with(topic, PARTITIONS, &[("retention.ms", "-1")]);
        }
        let folder = tempfile::Builder::new().prefix("pelton-kill-").tempdir().expect("a folder");
        let server = Server::start();
        let place = Place { servers: broker.servers(), folder: folder.path().join("files"), database: server.database(), server };
        std::fs::create_dir(&place.folder).expect("a folder for files");
        let failpoint = (seed as usize).wrapping_mul(7) % NAMES.len();
        KillTest { folder, place, outputs, numbers: Numbers::new(seed), failpoint, at_failpoints: 0, late: 0 }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// One life: another interval, another parallelism, another end.
    fn live_and_die(&mut self, number: u64) {
        let (interval, parallelism) = (self.numbers.between(200, 1_000), self.numbers.between(1, 3));
        let moment = match self.numbers.below(8) {
            0 | 1 => Moment::Start(Duration::from_millis(self.numbers.between(50, 3_000))),
            2 => Moment::Taken(Duration::from_millis(self.numbers.below(400))),
            3..=5 => Moment::Checkpoint(Duration::from_millis(self.numbers.below(2 * interval))),
            _ => Moment::Failpoint(self.next_failpoint(), self.numbers.between(1, 2)),
        };
        let state = self.state();
        let (before, progress) = (newest_manifest(&state), newest_progress(&state));
        let environment = match moment {
            Moment::Failpoint(name, count) => vec![("PELTON_FAILPOINT", format!("{name}:{count}"))],
            _ => Vec::new(),
        };
        let mut life = self.start(interval, parallelism, &environment);
        match moment {
            Moment::Start(after) => std::thread::sleep(after),
            Moment::Taken(after) => {
                until(&mut life, "the pipeline is taken", || newest_progress(&state) > progress);
                std::thread::sleep(after);
            }
            Moment::Checkpoint(after) => {
                until(&mut life, "a checkpoint", || newest_manifest(&state) > before);
                std::thread::sleep(after);
            }
            Moment::Failpoint(name, count) => self.die_at(&mut life, name, count),
        }
        if !matches!(moment, Moment::Failpoint(..)) {
            assert!(life.ended().is_none(), "life {number} ended by itself; seed in the first line\n{}", life.said());
        }
        life.kill();
        let epoch = |manifest: Option<(u64, u64)>| manifest.map_or(0, |(epoch, _)| epoch);
        let (from, to) = (epoch(before), epoch(newest_manifest(&state)));
        println!("life {number}: parallelism={parallelism} interval={interval}ms {moment:?} epochs={from}..{to}");
    }

    /// One after the other, so that a long run comes to all of them.
    fn next_failpoint(&mut self) -> &'static str {
        loop {
            self.failpoint = (self.failpoint + 1) % NAMES.len();
            let name = NAMES[self.failpoint];
            if !ELSEWHERE.iter().any(|prefix| name.starts_with(prefix)) {
                return name;
            }
        }
    }

    /// Some places are not on the way of every life: a commit of files needs a part that is closed. Then it is killed all the same.
    fn die_at(&mut self, life: &mut Life, name: &str, count: u64) {
        let (deadline, reached) = (Instant::now() + Duration::from_secs(10), format!("failpoint {name}: the process aborts"));
        while life.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // In this order: it may end in between.
        let ended = life.ended().is_some();
        let said = life.said();
        assert!(!ended || said.contains(&reached), "a process ended before {name}:{count}\n{said}");
        self.at_failpoints += u64::from(said.contains(&reached));
    }

    fn start(&self, interval: u64, parallelism: u64, environment: &[(&str, String)]) -> Life {
        let file = self.folder.path().join("pipeline.yaml");
        std::fs::write(&file, self.pipeline(interval)).expect("the pipeline is written");
        let (state, parallelism) = (self.state().display().to_string(), parallelism.to_string());
        let arguments = ["run", file.to_str().unwrap(), "--state", &state, "--parallelism", &parallelism, "--quiet"];
        let mut environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        environment.push((PASSWORD_VARIABLE, PASSWORD));
        Life::start(&arguments, &environment, &self.folder.path().join("log"))
    }

    fn pipeline(&self, interval: u64) -> String {
        let plugin = root().join("tests/.cache/components/stateful.wasm");
        let outputs: String = self.outputs.iter().map(|output| output.yaml(&self.place)).collect();
        format!(
            "pipeline:
  transforms:
    - type: ReadFromKafka
      name: Read
      config:
        topic: input
        bootstrap_servers: '{servers}'
        format: JSON
        schema: {{type: object, properties: {{id: {{type: integer}}, user: {{type: string}}, number: {{type: integer}}}}}}
        auto_offset_reset_config: earliest
    - type: Combine
      name: Counts
      input: Read
      windowing: {{type: fixed, size: 10s}}
      config: {{group_by: user, combine: {{n: count, total: {{value: number, fn: sum}}}}}}
    - {{type: Keep, name: Totals, input: Read, config: {{key: [user]}}}}
{outputs}providers:
  - {{type: wasm, config: {{plugin: '{plugin}'}}, transforms: {{Keep: picky}}}}
options:
  pelton:
    name: kill
    # Of long runs: each user has state for good.
    memory: 16GiB
    watermark: {{delay: {DELAY_SECONDS}s, idle_timeout: 1h}}
    checkpoint: {{interval: {interval}ms}}
",
            servers = self.place.servers,
            plugin = plugin.display(),
        )
    }

    /// The last life: until everything is visible, then to a stop in order. The closing records are there by now.
    fn finish(&mut self, records: &[Record]) -> Verdict {
        let mut life = self.start(500, 2, &[]);
        let (mut moved, mut before) = (Instant::now(), 0);
        // As long as it gets on: it may have much to catch up with.
        while moved.elapsed().as_secs() < PATIENCE && life.ended().is_none() {
            let rows = rows_in_table(&self.place);
            if rows >= records.len() && self.check(records, |output| NEEDED.contains(&output)).is_right() {
                break;
            }
            if rows != before {
                (moved, before) = (Instant::now(), rows);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        if let Some(status) = life.ended() {
            panic!("the last life ended by itself: {status}\n{}", life.said());
        }
        life.signal("TERM");
        let status = life.wait(PATIENCE);
        assert!(status.success(), "the last life was stopped and gave {status}\n{}", life.said());
        self.check(records, |_| true)
    }

    /// The outputs of these names, one after the other.
    fn check(&mut self, records: &[Record], chosen: impl Fn(&str) -> bool) -> Verdict {
        let (mut known, mut verdict) = (Known::default(), Verdict::default());
        for output in self.outputs.iter().filter(|output| chosen(output.name())) {
            let rows = output.rows(&self.place);
            if output.name() == "late" {
                known.late = rows.iter().filter_map(|(id, _)| id.parse().ok()).collect();
            }
            verdict = verdict.and(Verdict::of(output.name(), output.expected(records, &known), rows));
        }
        self.late = known.late.len();
        verdict
    }
}

/// Waits for something that a process does; fails if it ends instead.
fn until(life: &mut Life, what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || {
        assert!(life.ended().is_none(), "the process ended before {what}\n{}", life.said());
        is_so().then_some(())
    });
}
