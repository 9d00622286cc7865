//! The real Beam: one Python process that answers a line for a line.

use super::value::Captured;
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Where in the cache folder `cargo xtask setup` puts Beam.
const FOLDER: &str = "beam-2.77.0";

/// An output whose rows are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Name or type in the file.
    pub name: String,
    /// The line that the transform begins in.
    pub line: usize,
    /// Name of the output; empty for the main one.
    pub output: String,
}

/// How a pipeline fared on Beam.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Rows by capture.
    Ran(Vec<Vec<Captured>>),
    /// It could not be built.
    Rejected(String),
    /// It failed while it ran.
    Failed(String),
}

/// A pipeline to run.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub yaml: &'a str,
    /// Where the pipeline is taken to lie.
    pub file: &'a Path,
    pub variables: &'a [(String, String)],
    pub captures: &'a [Capture],
}

/// The process.
pub struct Oracle {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    asked: u64,
}

impl Oracle {
    /// Starts it; [`Oracle::wait`] waits until Beam is imported.
    pub fn start() -> Oracle {
        let python = python();
        assert!(
            python.exists(),
            "Apache Beam is not installed: {} is missing; `cargo xtask setup` or `cargo xtask beam-diff` installs it",
            python.display()
        );
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("beam");
        let mut child = Command::new(&python)
            .arg("oracle.py")
            .current_dir(folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", python.display()));
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Oracle { child, requests, answers, asked: 0 }
    }

    /// Waits until it can be asked.
    pub fn wait(&mut self) {
        assert_eq!(self.read()["ready"], true, "Beam does not start");
    }

    /// Begins to run a pipeline; [`Oracle::answer`] waits for it.
    pub fn ask(&mut self, request: &Request<'_>) {
        self.asked += 1;
        let captures: Vec<Json> =
            request.captures.iter().map(|capture| json!({"name": capture.name, "line": capture.line, "output": capture.output})).collect();
        let variables: serde_json::Map<String, Json> =
            request.variables.iter().map(|(name, value)| (name.clone(), Json::String(value.clone()))).collect();
        let line = json!({"id": self.asked, "yaml": request.yaml, "file": request.file, "variables": variables, "captures": captures});
        writeln!(self.requests, "{line}").and_then(|()| self.requests.flush()).expect("Beam's process reads");
    }

    /// How the pipeline fared that was asked for last.
    pub fn answer(&mut self) -> Answer {
        let answer = self.read();
        assert_eq!(answer["id"].as_u64(), Some(self.asked), "Beam's process answers in turn");
        if let Some(message) = answer["rejected"].as_str() {
            return Answer::Rejected(message.into());
        }
        if let Some(message) = answer["failed"].as_str() {
            return Answer::Failed(message.into());
        }
        let captures = answer["captures"].as_array().expect("an answer has rows, or says why not");
        Answer::Ran(captures.iter().map(|rows| rows.as_array().into_iter().flatten().map(Captured::from_json).collect()).collect())
    }

    fn read(&mut self) -> Json {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("Beam's process answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("Beam's process ended or said {line:?}: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter that has Beam.
pub fn python() -> PathBuf {
    pelton_tests::pelton::cache().join(FOLDER).join("bin/python")
}
