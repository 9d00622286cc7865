//! DuckDB: one Python process that answers a line for a line.

use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Where in the cache folder `cargo xtask setup` puts DuckDB.
const FOLDER: &str = "duckdb-2.0.0";

/// Columns (`name TYPE`) and rows.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Json>>,
}

/// The process.
pub struct Oracle {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    pub fn start() -> Oracle {
        let python = python();
        assert!(
            python.exists(),
            "DuckDB is not installed: {} is missing; `cargo xtask setup` or `cargo xtask sql-diff` installs it",
            python.display()
        );
        let mut child = Command::new(&python)
            .arg("oracle.py")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", python.display()));
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut oracle = Oracle { child, requests, answers };
        assert_eq!(oracle.read()["ready"], true, "DuckDB does not start");
        oracle
    }

    /// The value of each expression in each row of `t`; its first column is `rid`.
    pub fn expressions(&mut self, table: &Table, texts: &[String]) -> Vec<Vec<Json>> {
        let answers = self.ask(json!({"tables": {"t": [table.columns, table.rows]}, "expressions": texts}));
        answers.into_iter().map(|values| values.as_array().cloned().unwrap_or_default()).collect()
    }

    /// Names of columns and rows of a query, or why there are none.
    pub fn query(&mut self, tables: &[(&str, Table)], text: &str) -> Result<(Vec<String>, Vec<Vec<Json>>), String> {
        let tables: serde_json::Map<String, Json> =
            tables.iter().map(|(name, table)| (name.to_string(), json!([table.columns, table.rows]))).collect();
        let answer = self.ask(json!({"tables": tables, "query": text})).remove(0);
        let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
        match answer["error"].as_str() {
            Some(error) => Err(error.to_string()),
            None => {
                let names = list(&answer["names"]).iter().filter_map(|name| name.as_str().map(str::to_string)).collect();
                Ok((names, list(&answer["rows"]).iter().map(list).collect()))
            }
        }
    }

    fn ask(&mut self, request: Json) -> Vec<Json> {
        writeln!(self.requests, "{request}").and_then(|()| self.requests.flush()).expect("DuckDB's process reads");
        self.read()["answers"].as_array().cloned().expect("an answer has answers")
    }

    fn read(&mut self) -> Json {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("DuckDB's process answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("DuckDB's process ended or said {line:?}: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> PathBuf {
    pelton_tests::pelton::cache().join(FOLDER).join("bin/python")
}
