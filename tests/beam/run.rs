//! One pipeline on both sides, and what to make of it.

use super::cases::{Case, Expected};
use super::compare::{Rules, difference, difference_of_rows};
use super::files::{write_parquet, written};
use super::oracle::{Answer, Capture, Oracle, Request};
use super::ours::{self, Outcome};
use super::random::Plan;
use super::value::{Captured, Value};
use std::path::{Path, PathBuf};

/// The list of deliberate differences.
const DIFFERENCES: &str = "docs/book/src/reference/beam-differences.md";

/// How a pipeline compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same answer.
    Equal,
    /// Another answer, which is in the list.
    Known,
    /// We cannot do it yet.
    NotYet(String),
    /// Why it is wrong.
    Wrong(String),
}

/// Both sides, ready.
pub struct Runner {
    oracle: Oracle,
    io: tokio::runtime::Runtime,
}

/// How both sides fared, with the rows of files that they wrote.
struct Both {
    captures: Vec<Capture>,
    ours: Outcome,
    our_files: Vec<Vec<Value>>,
    beam: Answer,
    beam_files: Vec<Vec<Value>>,
}

/// The identifiers in the list of differences: its headings of the third level.
pub fn listed_differences() -> Vec<String> {
    let path = pelton_tests::pelton::root().join(DIFFERENCES);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter_map(|line| line.strip_prefix("### ")).map(|id| id.trim().to_string()).collect()
}

impl Runner {
    /// As many as wanted, each with a Beam of its own.
    pub fn start(count: usize) -> Vec<Runner> {
        let io = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let mut runners: Vec<Runner> = (0..count).map(|_| Runner { oracle: Oracle::start(), io: io() }).collect();
        runners.iter_mut().for_each(|runner| runner.oracle.wait());
        runners
    }

    /// A case of the corpus.
    pub fn case(&mut self, case: &Case) -> Verdict {
        let both = self.both(case);
        if let Outcome::NotYet(message) = &both.ours {
            let line = message.lines().find(|line| line.contains("not available yet")).unwrap_or(message);
            return Verdict::NotYet(line.trim_start_matches("error: ").trim().to_string());
        }
        let result = judge(case, &both).and_then(|()| check_ours(case, &both.ours));
        match (result, &case.known) {
            (Ok(()), None) => Verdict::Equal,
            (Ok(()), Some(id)) => Verdict::Wrong(format!("it does not differ, although it is said to (`{id}`)")),
            (Err(_), Some(_)) => match check_ours(case, &both.ours) {
                Ok(()) => Verdict::Known,
                Err(why) => Verdict::Wrong(why),
            },
            (Err(why), None) => Verdict::Wrong(why),
        }
    }

    /// A random pipeline: both run it, or both fail.
    pub fn plan(&mut self, plan: &Plan) -> Verdict {
        let case = Case { name: "random".into(), yaml: plan.yaml(), ..Case::default() };
        let both = self.both(&case);
        match (&both.ours, &both.beam) {
            (Outcome::NotYet(message), _) => Verdict::NotYet(message.clone()),
            (Outcome::Failed(_), Answer::Failed(_)) => Verdict::Equal,
            _ => judge(&case, &both).map_or_else(Verdict::Wrong, |()| Verdict::Equal),
        }
    }

    fn both(&mut self, case: &Case) -> Both {
        let (ours_dir, beam_dir) = (folder(case), folder(case));
        let file = ours_dir.path().join("case.yaml");
        let variables = variables_in(case, ours_dir.path());
        let loaded = ours::load(&Request { yaml: &case.yaml, file: &file, variables: &variables, captures: &[] });
        let captures = loaded.as_ref().map(|loaded| loaded.captures.clone()).unwrap_or_default();
        // Both run at the same time.
        let beam_variables = variables_in(case, beam_dir.path());
        let beam_file = beam_dir.path().join("case.yaml");
        self.oracle.ask(&Request { yaml: &case.yaml, file: &beam_file, variables: &beam_variables, captures: &captures });
        let ours = loaded.map_or_else(|outcome| outcome, |loaded| ours::run(loaded, &file, &self.io));
        let beam = self.oracle.answer();
        let read = |folder: &Path, ran: bool| case.written.iter().filter(|_| ran).map(|name| written(folder, name)).collect();
        Both {
            our_files: read(ours_dir.path(), matches!(ours, Outcome::Ran(_))),
            beam_files: read(beam_dir.path(), matches!(beam, Answer::Ran(_))),
            captures,
            ours,
            beam,
        }
    }
}

/// A folder of its own for each side, with the files of the case. In memory where that is possible: sinks wait for the disk.
fn folder(case: &Case) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let base: PathBuf = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("pelton-beam-").tempdir_in(base).expect("a folder");
    for (name, content) in &case.files {
        match name.ends_with(".parquet") {
            true => write_parquet(&folder.path().join(name), content),
            false => std::fs::write(folder.path().join(name), content).expect("a file of a case"),
        }
    }
    std::fs::write(folder.path().join("case.yaml"), &case.yaml).expect("the pipeline");
    folder
}

fn variables_in(case: &Case, folder: &Path) -> Vec<(String, String)> {
    let own = [("dir".to_string(), folder.display().to_string())];
    own.into_iter().chain(case.variables.iter().cloned()).collect()
}

/// Whether both sides did what the case expects, and the same.
fn judge(case: &Case, both: &Both) -> Result<(), String> {
    if let Outcome::Broken(message) = &both.ours {
        return Err(format!("ours is broken: {message}"));
    }
    match (&case.expected, &both.ours, &both.beam) {
        (Expected::Runs, Outcome::Ran(ours), Answer::Ran(beams)) => equal(case, both, ours, beams),
        (Expected::Rejected(_), Outcome::Rejected(_), Answer::Rejected(_)) => Ok(()),
        (Expected::Fails(_), Outcome::Rejected(_) | Outcome::Failed(_), Answer::Rejected(_) | Answer::Failed(_)) => Ok(()),
        (expected, ours, beam) => Err(format!("{}: ours {}; Beam {}", meant(expected), outcome(ours), fared(beam))),
    }
}

fn meant(expected: &Expected) -> &'static str {
    match expected {
        Expected::Runs => "meant to run",
        Expected::Rejected(_) => "meant to be rejected",
        Expected::Fails(_) => "meant to fail",
    }
}

fn outcome(ours: &Outcome) -> String {
    match ours {
        Outcome::Ran(_) => "ran".into(),
        Outcome::Rejected(message) => format!("rejected it: {message}"),
        Outcome::Failed(message) => format!("failed: {message}"),
        Outcome::NotYet(message) => format!("cannot do it yet: {message}"),
        Outcome::Broken(message) => format!("broke: {message}"),
    }
}

fn fared(beam: &Answer) -> String {
    match beam {
        Answer::Ran(_) => "ran".into(),
        Answer::Rejected(message) => format!("rejected it: {message}"),
        Answer::Failed(message) => format!("failed: {message}"),
    }
}

fn equal(case: &Case, both: &Both, ours: &[Vec<Captured>], beams: &[Vec<Captured>]) -> Result<(), String> {
    let rules = Rules { any_order_in_lists: case.yaml.contains("group") || case.yaml.contains("concat") };
    for ((capture, ours), beams) in both.captures.iter().zip(ours).zip(beams) {
        if let Some(difference) = difference(ours, beams, rules) {
            let output = if capture.output.is_empty() { String::new() } else { format!(".{}", capture.output) };
            return Err(format!("`{}{output}` gives {difference}", capture.name));
        }
    }
    for ((name, ours), beams) in case.written.iter().zip(&both.our_files).zip(&both.beam_files) {
        if let Some(difference) = difference_of_rows(ours, beams, rules) {
            return Err(format!("{name} has {difference}"));
        }
    }
    if both.captures.is_empty() && case.written.is_empty() {
        return Err("nothing is compared: the case has no output that nobody reads, and no `Written`".into());
    }
    Ok(())
}

/// What the case says of our side alone: the message, its place, the rows.
fn check_ours(case: &Case, ours: &Outcome) -> Result<(), String> {
    match (&case.expected, ours) {
        (Expected::Rejected(part), Outcome::Rejected(message)) => {
            if !message.contains(part.as_str()) {
                return Err(format!("our message does not say `{part}`: {message}"));
            }
            let place = message.split_once("case.yaml:").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit() && c != ':').next());
            match place.flatten().map(|place| place.split(':').filter(|part| !part.is_empty()).count()) {
                Some(2) => Ok(()),
                _ => Err(format!("our message does not say file:line:column: {message}")),
            }
        }
        (Expected::Fails(part), Outcome::Rejected(message) | Outcome::Failed(message)) if !message.contains(part.as_str()) => {
            Err(format!("our message does not say `{part}`: {message}"))
        }
        (Expected::Runs, Outcome::Ran(captures)) if !case.ours.is_empty() => {
            let wanted: Vec<Value> =
                case.ours.iter().map(|row| Value::from_json(&serde_json::from_str(row).expect("a row is JSON"))).collect();
            let rows: Vec<Value> = captures.iter().flatten().map(|captured| captured.row.clone()).collect();
            difference_of_rows(&rows, &wanted, Rules::default()).map_or(Ok(()), |why| Err(format!("not what `Ours` says: {why}")))
        }
        (Expected::Runs, Outcome::Rejected(message) | Outcome::Failed(message)) if !case.ours.is_empty() => {
            Err(format!("it should give what `Ours` says: {message}"))
        }
        _ => Ok(()),
    }
}
