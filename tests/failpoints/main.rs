//! Every named failpoint, with real processes: one dies there, or stops there and is overtaken, and what comes out is exact all the same.
//!
//! The pipeline ([`pipeline`]) goes from generated events over windows to files; to files and PostgreSQL, which then decides; or to files,
//! PostgreSQL and Kafka, which then decides. For each failpoint: a life that dies in the middle, so that there is something to restore; one
//! that dies at the failpoint; one that goes to the end. The outputs are compared with those of a run without checkpoints and failpoints.
//!
//! Zombies: the second life stops at the failpoint instead. A successor takes over, from the same store or from a copy of it, and in the middle
//! of its work the zombie goes on. It must end within seconds, say that it was fenced, and change nothing.
//!
//! Cells live in memory, or on disk (the backend `fjall`). Without arguments each failpoint is tried with one decider and backend that the seed picks, and with a
//! zombie on the store; six seeds in a row take all. `--seed S`. `--all`: with every decider and backend that comes there. `--copies`: zombies also on a copy
//! of the store, which one in sixty does not survive yet (docs/status.md). `--only NAME`: one failpoint, with all. `--at-once N` processes.
//! `--storage URL`: checkpoints in this object store, which decides; the places where processes compete for a name ([`COMPETING`]).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod pipeline;

use pelton_core::failpoint::NAMES;
use pelton_tests::life::{Life, newest_progress};
use pelton_tests::pelton::{run, summary, wait_for};
use pelton_tests::postgres::PASSWORD;
use pipeline::{Backend, Decider, Outside, PASSWORD_VARIABLE, Pipeline, Rows, compare, reaching};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Names that this pipeline never comes to, and who does.
const ELSEWHERE: [(&str, &str); 5] = [
    ("swap.", "needs a swap: the suite `swaps` dies there"),
    ("evolve.", "needs a plugin that changes: the suite `evolution` dies there"),
    ("savepoint.", "needs a savepoint: the tests of host/state die there"),
    ("outbox.", "needs a sink that stages in the store: the tests of host/state die there"),
    ("compact.half", "needs a state of many pieces: the tests of host/state die there"),
];
/// Where processes on one object store compete for names, or read what others wrote.
const COMPETING: [&str; 10] = [
    "take.before",
    "take.after",
    "segment.finished",
    "manifest.before",
    "manifest.after",
    "decide.before",
    "decide.after",
    "run.restored",
    "collect.after",
    "compact.adopted",
];
/// Before it has a generation a process is no owner: it may overtake in turn.
const NOT_YET: [&str; 2] = ["open.identified", "take.before"];
/// Any life.
const PATIENCE: u64 = 120;
/// For a zombie to notice.
const NOTICES_IN: f64 = 5.0;
/// For brokers to show what is committed.
const SETTLES_IN: u64 = 60;
/// Changes of the register that a successor makes before its zombie goes on: some epochs.
const SUCCESSOR_CHANGES: u64 = 8;
/// Processes wait more than they work.
const AT_ONCE: usize = 3;
/// What is picked where nothing is said.
const SEED: usize = 1;

/// One thing to try.
#[derive(Clone, Copy, Debug)]
struct Trial {
    name: &'static str,
    decider: Decider,
    backend: Backend,
    end: End,
}

/// What becomes of the second life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It dies.
    Dies,
    /// It stops; the successor has the same store.
    Overtaken,
    /// It stops; the successor has a copy of the store.
    OvertakenOnCopy,
}

impl End {
    /// A copy of the store that decides is another pipeline: nothing tells the two apart.
    fn is_possible(self, decider: Decider) -> bool {
        self != End::OvertakenOnCopy || decider != Decider::Store
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let all = arguments.iter().any(|argument| argument == "--all");
    let at_once = value("--at-once").map_or(AT_ONCE, |number| number.parse().expect("--at-once needs a number"));
    let copies = arguments.iter().any(|argument| argument == "--copies");
    let seed = value("--seed").map_or(SEED, |number| number.parse().expect("--seed needs a number"));
    let storage = value("--storage").map(String::as_str);
    let trials = match storage {
        Some(_) => competing(),
        None => trials(value("--only").map(String::as_str), all, copies, seed),
    };
    let begun = Instant::now();
    let outside = Outside::start();
    let expected = plain(&outside);
    let results = each(&trials, at_once, |number, trial| {
        let Trial { decider, backend, .. } = trial;
        try_it(trial, &Pipeline { outside: &outside, decider, backend, number }, storage, &expected)
    });
    if value("--only").is_none() {
        NAMES.iter().filter_map(|name| Some((name, elsewhere(name)?))).for_each(|(name, why)| println!("not here: {name}: {why}"));
    }
    let wrong: Vec<&String> = results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    wrong.iter().for_each(|text| println!("WRONG {text}"));
    let count = |is: &dyn Fn(End) -> bool| {
        let of: Vec<_> = results.iter().filter(|(trial, _)| is(trial.end)).collect();
        (of.len(), of.iter().filter(|(_, result)| result.is_ok()).count())
    };
    let ((deaths, exact), (zombies, fenced)) = (count(&|end| end == End::Dies), count(&|end| end != End::Dies));
    let mut names: Vec<&str> = trials.iter().map(|trial| trial.name).collect();
    names.sort_unstable();
    names.dedup();
    println!(
        "failpoints={} seed={seed} fjall={} deaths={deaths} exact={exact} zombies={zombies} fenced={fenced} wrong={} seconds={}",
        names.len(),
        trials.iter().filter(|trial| trial.backend == Backend::Fjall).count(),
        wrong.len(),
        begun.elapsed().as_secs()
    );
    if wrong.is_empty() && !trials.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn elsewhere(name: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, why)| *why)
}

/// What is tried: all, or for each name one pipeline that dies and one that is overtaken.
fn trials(only: Option<&str>, all: bool, copies: bool, seed: usize) -> Vec<Trial> {
    let names = NAMES.iter().filter(|name| elsewhere(name).is_none() && only.is_none_or(|only| **name == only));
    let mut trials = Vec::new();
    for (turn, name) in names.enumerate() {
        let of = |end: End| {
            let pipelines = reaching(name).into_iter().filter(move |(decider, _)| end.is_possible(*decider));
            pipelines.map(|(decider, backend)| Trial { name, decider, backend, end }).collect::<Vec<_>>()
        };
        let (dying, mut overtaken) = (of(End::Dies), of(End::Overtaken));
        if copies {
            overtaken.extend(of(End::OvertakenOnCopy));
        }
        if all || only.is_some() {
            trials.extend(dying.into_iter().chain(overtaken));
        } else {
            trials.extend([dying[(turn + seed) % dying.len()], overtaken[(turn + seed + 1) % overtaken.len()]]);
        }
    }
    trials
}

/// One death and one zombie at each place where a name is competed for, backends taking turns.
fn competing() -> Vec<Trial> {
    let of = |(turn, name): (usize, &&'static str)| {
        let ends = [End::Dies, End::Overtaken].into_iter().enumerate();
        ends.map(move |(other, end)| Trial { name, decider: Decider::Store, backend: Backend::ALL[(turn + other) % 2], end })
            .collect::<Vec<_>>()
    };
    COMPETING.iter().enumerate().flat_map(of).collect()
}

/// Does something for each, a few at a time.
fn each(trials: &[Trial], at_once: usize, of: impl Fn(usize, Trial) -> Result<(), String> + Sync) -> Vec<(Trial, Result<(), String>)> {
    let left = Mutex::new(trials.iter().copied().enumerate().collect::<VecDeque<_>>());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some((number, trial)) = left.lock().unwrap().pop_front() else { return };
                    let tried = std::panic::catch_unwind(AssertUnwindSafe(|| of(number, trial)));
                    let result = tried.unwrap_or_else(|_| Err("something did not come in time, see above".into()));
                    let result = result.map_err(|message| format!("{trial:?}: {message}"));
                    results.lock().unwrap().push((trial, result));
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// What is computed without checkpoints, by output.
fn plain(outside: &Outside) -> Rows {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = Pipeline { outside, decider: Decider::Store, backend: Backend::Memory, number: usize::MAX };
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, pipeline.yaml(folder.path(), "", true)).expect("the pipeline is written");
    summary(&[file.to_str().unwrap()]);
    let rows = pipeline.read(folder.path());
    assert!(rows.values().all(|rows| rows.len() > 1000), "the pipeline gives rows");
    rows
}

/// The lives of one pipeline.
struct Lives<'a> {
    pipeline: &'a Pipeline<'a>,
    folder: tempfile::TempDir,
    /// Of the present life.
    state: PathBuf,
    /// The object store of its checkpoints, if it is not in the state folder.
    storage: Option<String>,
    started: u32,
    options: String,
}

impl Lives<'_> {
    fn new<'a>(pipeline: &'a Pipeline<'a>, name: &str, storage: Option<&str>) -> Lives<'a> {
        let folder = tempfile::Builder::new().prefix("pelton-failpoints-").tempdir().expect("a folder");
        // Shorter epochs keep their producer.
        let interval = if name == "kafka.renewed" { "500ms" } else { "100ms" };
        let storage = storage.map(|url| format!("{url}/{}", pipeline.number));
        let place = storage.as_ref().map_or(String::new(), |url| format!(", storage: '{url}'"));
        let options = format!(", checkpoint: {{interval: {interval}, retain: 2{place}}}");
        pipeline.prepare();
        let lives = Lives { pipeline, state: folder.path().join("state"), folder, storage, started: 0, options };
        lives.write_pipeline(false);
        lives
    }

    fn write_pipeline(&self, at_once: bool) {
        let text = self.pipeline.yaml(self.folder.path(), &self.options, at_once);
        std::fs::write(self.folder.path().join("pipeline.yaml"), text).expect("the pipeline is written");
    }

    fn start(&mut self, take_over: bool, environment: &[(&str, &str)]) -> Life {
        self.started += 1;
        let (file, log) = (self.folder.path().join("pipeline.yaml"), self.folder.path().join(format!("log-{}", self.started)));
        let mut arguments = vec!["run", file.to_str().unwrap(), "--state", self.state.to_str().unwrap(), "--quiet"];
        arguments.extend(take_over.then_some("--take-over"));
        let mut environment = environment.to_vec();
        environment.push((PASSWORD_VARIABLE, PASSWORD));
        Life::start(&arguments, &environment, &log)
    }

    /// A life that dies in the middle, with epochs behind it, the last of them decided and not committed.
    fn die_in_the_middle(&mut self, name: &str) -> Result<(), String> {
        let at = if name == "kafka.renewed" { "run.decided:2" } else { "run.decided:3" };
        let mut life = self.start(false, &[("PELTON_FAILPOINT", at)]);
        let status = life.wait(PATIENCE);
        died(&life, status, "run.decided")
    }

    /// The last life; after it there is nothing to do.
    fn go_to_the_end(&mut self, take_over: bool, expected: &Rows) -> Result<(), String> {
        self.write_pipeline(true);
        for _ in 0..2 {
            let mut life = self.start(take_over, &[]);
            let status = life.wait(PATIENCE);
            ended_well(&life, status)?;
            self.is_exact(expected)?;
        }
        Ok(())
    }

    /// Brokers end a transaction in its partitions some time after they have said that it is committed.
    fn is_exact(&self, expected: &Rows) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let compared = compare(&self.pipeline.read(self.folder.path()), expected);
            if compared.is_ok() || begun.elapsed().as_secs() > SETTLES_IN {
                return compared;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Grows when a process takes the pipeline, and with every epoch.
    fn progress(&self) -> u64 {
        let Some(url) = &self.storage else { return newest_progress(&self.state) };
        // `pipeline … epoch 7 generation 1: …`; each epoch makes two entries of the register.
        let said = run(&["state", "ls", url]).out;
        let epoch = said.split_once(" epoch ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        epoch.unwrap_or(0) * 2
    }

    /// From now on lives have a copy of the state.
    fn move_to_a_copy(&mut self) {
        let copy = self.folder.path().join("copy");
        let copied = Command::new("cp").arg("-a").arg(&self.state).arg(&copy).status();
        assert!(copied.is_ok_and(|status| status.success()), "the state is copied");
        self.state = copy;
    }
}

fn ended_well(life: &Life, status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("a life that was to go to the end ended with {status}\n{}", life.said())) }
}

fn died(life: &Life, status: ExitStatus, name: &str) -> Result<(), String> {
    let said = life.said();
    match said.contains(&format!("failpoint {name}: the process")) && status.code().is_none() {
        true => Ok(()),
        false => Err(format!("it did not come to {name}: {status}\n{said}")),
    }
}

/// The first file that is written is of no interest.
fn asked(name: &str) -> String {
    if name.starts_with("storage.") { format!("{name}:7") } else { name.to_string() }
}

fn try_it(trial: Trial, pipeline: &Pipeline<'_>, storage: Option<&str>, expected: &Rows) -> Result<(), String> {
    let mut lives = Lives::new(pipeline, trial.name, storage);
    // Only the first life gives a store its identity.
    if trial.name != "open.identified" {
        lives.die_in_the_middle(trial.name)?;
    }
    match trial.end {
        End::Dies => {
            let mut life = lives.start(false, &[("PELTON_FAILPOINT", &asked(trial.name))]);
            let status = life.wait(PATIENCE);
            died(&life, status, trial.name)?;
            lives.go_to_the_end(false, expected)
        }
        End::Overtaken | End::OvertakenOnCopy => overtake(trial, &mut lives, expected),
    }
}

/// A process stops at this failpoint, and goes on while another does its work.
fn overtake(trial: Trial, lives: &mut Lives<'_>, expected: &Rows) -> Result<(), String> {
    let mut zombie = lives.start(false, &[("PELTON_FAILPOINT", &asked(trial.name)), ("PELTON_FAILPOINT_ACTION", "stop")]);
    let what = format!("a process that stops at {}", trial.name);
    wait_for(&what, PATIENCE, || (zombie.is_stopped() || zombie.ended().is_some()).then_some(()));
    if let Some(status) = zombie.ended() {
        return Err(format!("it did not stop there: {status}\n{}", zombie.said()));
    }
    if trial.end == End::OvertakenOnCopy {
        lives.move_to_a_copy();
    }
    let mut successor = lives.start(true, &[]);
    if NOT_YET.contains(&trial.name) {
        // It takes over in turn if it can, and has then to be stopped.
        successor.kill();
        lives.go_to_the_end(true, expected)?;
        zombie.signal("CONT");
        zombie.wait(PATIENCE);
    } else {
        let begun = lives.progress();
        wait_for_changes(&mut successor, lives, begun);
        wake(&mut zombie)?;
        // It goes on as if nothing had been.
        wait_for_changes(&mut successor, lives, lives.progress());
        if let Some(status) = successor.ended() {
            ended_well(&successor, status)?;
        }
        successor.kill();
    }
    lives.go_to_the_end(false, expected)
}

/// Until a process has come some epochs further than it was, or has ended.
fn wait_for_changes(life: &mut Life, lives: &Lives<'_>, begun: u64) {
    wait_for("epochs of the successor", PATIENCE, || {
        (life.ended().is_some() || lives.progress() >= begun + SUCCESSOR_CHANGES).then_some(())
    });
}

/// It goes on, and must notice.
fn wake(zombie: &mut Life) -> Result<(), String> {
    zombie.signal("CONT");
    let woken = Instant::now();
    let status = zombie.wait(PATIENCE);
    let (took, said) = (woken.elapsed().as_secs_f64(), zombie.said());
    if status.success() || took > NOTICES_IN || !said.contains("fenced") {
        return Err(format!("the zombie ended with {status} after {took:.1} s\n{said}"));
    }
    Ok(())
}
