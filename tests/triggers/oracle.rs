//! A Python process that runs streams through Beam; see `oracle.py`.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Oracle {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    pub fn start() -> Oracle {
        let python = environment().join("bin/python");
        assert!(python.exists(), "there is no Apache Beam at {}: run `cargo xtask setup`", python.display());
        let mut child = Command::new(python)
            .arg(folder().join("oracle.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        Oracle { child, requests, answers: BufReader::new(answers.expect("a pipe")) }
    }

    /// One request, one answer.
    pub fn ask(&mut self, request: &Value) -> Value {
        let requests = self.requests.as_mut().expect("a pipe");
        writeln!(requests, "{request}").expect("the oracle reads");
        requests.flush().expect("the oracle reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the oracle writes");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the oracle ended at {request}"));
        assert!(answer.get("error").is_none(), "Beam: {} at {request}", answer["error"]);
        answer
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.requests = None;
        // It ends with its input.
        let _ = self.child.wait();
    }
}

/// The folder of this suite.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("triggers")
}

/// Where `cargo xtask setup` installs Beam.
fn environment() -> PathBuf {
    pelton_tests::pelton::cache().join("beam-2.77.0")
}
