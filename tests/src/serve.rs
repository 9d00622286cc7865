//! A host of one's own, with pipelines for it.

use crate::http::Place;
use crate::life::Life;
use crate::pelton::{Said, pelton, sorted, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A checkpoint, a start, an end: nothing takes longer on a loaded machine.
pub const PATIENCE: u64 = 120;

/// A host that runs. Killed when dropped.
pub struct Host {
    life: Option<Life>,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    /// Of TCP, if it listens there.
    pub port: Option<u16>,
}

impl Host {
    /// With these arguments besides its data folder, ready.
    pub fn start(arguments: &[&str]) -> Host {
        let folder = tempfile::Builder::new().prefix("pelton-serve-").tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| argument.replace("{dir}", folder.path().to_str().unwrap())).collect();
        let mut host = Host { life: None, folder, arguments, port: None };
        host.up();
        host
    }

    /// Starts it, once it is down.
    pub fn up(&mut self) {
        self.up_with(&[]);
    }

    /// The same, in this environment.
    pub fn up_with(&mut self, environment: &[(&str, &str)]) {
        let data = self.data();
        let mut arguments = vec!["serve", "--data", data.to_str().unwrap()];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let log = self.path("host.log");
        let life = Life::start(&arguments, &[environment, &[("PELTON_LOG", "info")]].concat(), &log);
        let life = self.life.insert(life);
        let listens = self.arguments.iter().any(|argument| argument == "--listen");
        let port = wait_for("the host listens", PATIENCE, || {
            assert!(life.ended().is_none(), "{}", life.said());
            let said = life.said();
            let tcp = said.lines().find_map(|line| line.strip_prefix("listening at http").and_then(|rest| rest.rsplit_once(':')));
            let port = tcp.and_then(|(_, port)| port.parse().ok());
            (said.contains(".sock\n") && (port.is_some() || !listens)).then_some(port)
        });
        self.port = port;
        wait_for("the host is ready", PATIENCE, || (self.socket().get("/readyz").status == 200).then_some(()));
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.life = None;
    }

    /// Waits until it has died by itself; gives what it said.
    pub fn dies(&mut self) -> String {
        let mut life = self.life.take().expect("it runs");
        assert!(life.wait(PATIENCE).code().is_none(), "{}", life.said());
        life.said()
    }

    /// Ends it with SIGTERM; gives what it said.
    pub fn terminate(&mut self) -> String {
        let mut life = self.life.take().expect("it runs");
        life.signal("TERM");
        assert!(life.wait(PATIENCE).success(), "{}", life.said());
        life.said()
    }

    /// Memory that it has resident, KiB.
    pub fn resident(&self) -> u64 {
        self.life.as_ref().expect("it runs").resident()
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A file beside it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The way in for its owner.
    pub fn socket(&self) -> Place {
        Place::Socket(self.data().join("pelton.sock"))
    }

    /// The way in by TCP.
    pub fn tcp(&self) -> Place {
        Place::Port(self.port.expect("it listens at a port"))
    }

    /// A command of the command line against it.
    pub fn cli(&self, arguments: &[&str]) -> Said {
        let data = self.data();
        pelton(arguments).env("PELTON_HOST", &data).output().expect("the binary starts").into()
    }

    /// A command that must go well; gives what it printed.
    pub fn well(&self, arguments: &[&str]) -> String {
        let said = self.cli(arguments);
        assert_eq!(said.code, 0, "{arguments:?}\n{}\n{}", said.out, said.err);
        said.out
    }

    /// What it says of a pipeline.
    pub fn status(&self, name: &str) -> Value {
        let answer = self.socket().get(&format!("/v1/pipelines/{name}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits until a pipeline is in a state.
    pub fn wait_for(&self, name: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let what = format!("`{name}` is {state}");
        wait_for(&what, PATIENCE, || {
            last = self.status(name);
            assert!(last["state"] != "failed" || state == "failed", "{last}");
            (last["state"] == state).then(|| last.clone())
        })
    }

    /// Waits until a pipeline has decided another epoch than now.
    pub fn wait_for_epoch(&self, name: &str) {
        let epoch = |status: &Value| status["checkpoints"]["last"].as_u64().unwrap_or(0);
        let first = epoch(&self.status(name));
        wait_for("another checkpoint", PATIENCE, || (epoch(&self.status(name)) > first).then_some(()));
    }

    /// Writes a pipeline file; gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().into()
    }

    /// Lines of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.data().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A pipeline that sums a generated stream by minute; `rate`: events a second, or as fast as it can.
pub fn counting(name: &str, out: &Path, count: u64, rate: Option<u64>) -> String {
    let rate = rate.map(|rate| format!(", rate: {rate}")).unwrap_or_default();
    format!(
        "pipeline:
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, seed: 7, count: {count}, interval: 100ms, parts: 2{rate}}}}}
    - {{type: Filter, name: Keep, input: Read, config: {{language: sql, keep: amount > 10}}}}
    - type: Combine
      name: Sum
      input: Keep
      windowing: {{type: fixed, size: 60s}}
      config: {{group_by: customer_id, combine: {{amounts: {{value: amount, fn: count}}}}}}
    - {{type: ExtractWindowingInfo, name: Window, input: Sum, config: {{fields: [window_start]}}}}
    - {{type: WriteToJson, name: Write, input: Window, config: {{path: {out}}}}}
options:
  pelton: {{name: {name}, parallelism: 2, checkpoint: {{interval: 200ms}}}}
",
        out = out.display()
    )
}

/// All rows under a path, whatever the names of its parts, as sorted texts.
pub fn rows(out: &Path) -> Vec<String> {
    let prefix = out.file_name().unwrap().to_string_lossy().into_owned();
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(out.parent().unwrap()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("{prefix}-")) {
            rows.extend(std::fs::read_to_string(entry.path()).unwrap().lines().map(str::to_string));
        }
    }
    sorted(rows)
}

/// What `pelton run` makes of the same pipeline.
pub fn expected(host: &Host, name: &str, count: u64) -> Vec<String> {
    let out = host.path(&format!("expected-{name}"));
    let file = host.file(&format!("expected-{name}.yaml"), &counting("expected", &out, count, None));
    let said = crate::pelton::run(&["run", &file, "--quiet"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let rows = rows(&out);
    assert!(rows.len() > 100, "{} rows", rows.len());
    rows
}

/// A deployment as the API takes it.
pub fn deployment(text: &str) -> Value {
    json!({"file": "p.yaml", "text": text})
}
