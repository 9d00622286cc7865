//! The same pipelines on Pelton and on the real Apache Beam 2.77.0: a corpus of cases, and random graphs from a seed.
//!
//! ```text
//! cargo xtask beam-diff                        the corpus and 200 random pipelines
//! cargo xtask beam-diff --corpus               only the corpus
//! cargo xtask beam-diff --random N --seed S    only random ones
//! cargo xtask beam-diff --case TEXT            cases whose names contain it
//! cargo xtask beam-diff --file case.yaml       the cases of one file, such as a printed reproduction
//! ```
//!
//! Deliberate differences are in `docs/book/src/reference/beam-differences.md`. A case that names one must differ, so that
//! the list stays true; any other difference is wrong, is printed with a pipeline that shows it, and fails the suite.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]

mod avro;
mod cases;
mod compare;
mod files;
mod oracle;
mod ours;
mod random;
mod run;
mod shrink;
mod value;

use run::{Runner, Verdict};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Random pipelines of a run that asks for nothing else.
const RANDOM: usize = 200;
/// Their seed.
const SEED: u64 = 2_770;
/// Processes with Beam, of a few hundred MiB each. Beam takes nearly all of the time, and one pipeline of it keeps one core busy.
const RUNNERS: usize = 2;
/// Wrong answers among random pipelines after which it is enough.
const ENOUGH: usize = 5;

#[derive(Debug, Default)]
struct Arguments {
    corpus: bool,
    random: Option<usize>,
    seed: Option<u64>,
    case: Option<String>,
    file: Option<String>,
    list: bool,
    verbose: bool,
}

fn arguments() -> Arguments {
    let mut found = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--corpus" => found.corpus = true,
            "--random" => found.random = Some(value().parse().expect("--random needs a number")),
            "--seed" => found.seed = Some(value().parse().expect("--seed needs a number")),
            "--case" => found.case = Some(value()),
            "--file" => found.file = Some(value()),
            "--verbose" => found.verbose = true,
            // What runners of tests ask of any test.
            "--list" => found.list = true,
            _ => {}
        }
    }
    found
}

/// How many fared how.
#[derive(Default)]
struct Tally {
    equal: usize,
    known: usize,
    not_yet: usize,
    wrong: usize,
}

impl Tally {
    fn count(&mut self, verdict: &Verdict) {
        *match verdict {
            Verdict::Equal => &mut self.equal,
            Verdict::Known => &mut self.known,
            Verdict::NotYet(_) => &mut self.not_yet,
            Verdict::Wrong(_) => &mut self.wrong,
        } += 1;
    }
}

fn main() {
    let start = std::time::Instant::now();
    let arguments = arguments();
    if arguments.list {
        println!("beam: test");
        return;
    }
    let everything = !arguments.corpus && arguments.random.is_none() && arguments.case.is_none() && arguments.file.is_none();
    let listed = run::listed_differences();
    for id in compare::EVERYWHERE {
        assert!(listed.iter().any(|known| known == id), "`{id}` is not in the list of differences");
    }
    let mut runners = Runner::start(RUNNERS);
    let mut tally = Tally::default();
    if arguments.corpus || everything || arguments.case.is_some() || arguments.file.is_some() {
        let mut corpus = match &arguments.file {
            Some(file) => cases::read(file.as_ref()),
            None => cases::corpus(),
        };
        corpus.retain(|case| arguments.case.as_ref().is_none_or(|part| case.name.contains(part.as_str())));
        run_corpus(&mut runners, &corpus, &listed, arguments.verbose, &mut tally);
    }
    if arguments.corpus || everything {
        avro::check(&tokio::runtime::Runtime::new().expect("threads for the I/O"));
    }
    let random = arguments.random.or(everything.then_some(RANDOM)).unwrap_or(0);
    if random > 0 {
        run_random(&mut runners, random, arguments.seed.unwrap_or(SEED), &mut tally);
    }
    let Tally { equal, known, not_yet, wrong } = tally;
    let pipelines = equal + known + not_yet + wrong;
    let seconds = start.elapsed().as_secs_f64();
    println!("beam: pipelines={pipelines} equal={equal} known_differences={known} not_yet={not_yet} wrong={wrong} seconds={seconds:.0}");
    assert!(pipelines > 0, "nothing was compared");
    if wrong > 0 {
        std::process::exit(1);
    }
}

fn run_corpus(runners: &mut [Runner], corpus: &[cases::Case], listed: &[String], verbose: bool, tally: &mut Tally) {
    for case in corpus {
        if let Some(id) = &case.known {
            assert!(listed.contains(id), "{}: `{id}` is not in the list of differences", case.place);
        }
    }
    let verdicts = side_by_side(runners, corpus.len(), |runner, number| Some(runner.case(&corpus[number])));
    let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, verdict) in &verdicts {
        let case = &corpus[*number];
        match verdict {
            Verdict::Wrong(why) => println!("WRONG {} ({})\n   {why}", case.name, case.place),
            Verdict::NotYet(what) => *missing.entry(what).or_default() += 1,
            _ if verbose => println!("{verdict:?} {}", case.name),
            _ => {}
        }
        tally.count(verdict);
    }
    for (what, cases) in missing {
        println!("not yet, {cases} cases: {what}");
    }
}

fn run_random(runners: &mut [Runner], count: usize, seed: u64, tally: &mut Tally) {
    let found = AtomicUsize::new(0);
    let verdicts = side_by_side(runners, count, |runner, number| {
        if found.load(Relaxed) >= ENOUGH {
            return None;
        }
        let plan = random::plan(seed, number as u64);
        let verdict = runner.plan(&plan);
        if let Verdict::Wrong(_) = &verdict {
            found.fetch_add(1, Relaxed);
            let (smallest, why) = shrink::shrink(runner, plan);
            let shown = smallest.reproduction(&format!("random-{seed}-{number}"));
            println!("WRONG random pipeline {number} of seed {seed}\n   {why}\n{shown}");
        }
        Some(verdict)
    });
    verdicts.iter().for_each(|(_, verdict)| tally.count(verdict));
    if verdicts.len() < count {
        println!("{ENOUGH} wrong answers are enough: {} random pipelines were not run", count - verdicts.len());
    }
}

/// Runs pipelines by number, each on the runner that is free next, until there are no more or one says `None`; verdicts by number.
fn side_by_side(runners: &mut [Runner], count: usize, run: impl Fn(&mut Runner, usize) -> Option<Verdict> + Sync) -> Vec<(usize, Verdict)> {
    let next = AtomicUsize::new(0);
    let (next, run) = (&next, &run);
    let each = |runner: &mut Runner| {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Relaxed)).filter(|number| *number < count));
        numbers.map_while(|number| Some((number, run(runner, number)?))).collect::<Vec<_>>()
    };
    let mut verdicts: Vec<(usize, Verdict)> = std::thread::scope(|scope| {
        let threads: Vec<_> = runners.iter_mut().map(|runner| scope.spawn(|| each(runner))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    verdicts.sort_by_key(|(number, _)| *number);
    verdicts
}
