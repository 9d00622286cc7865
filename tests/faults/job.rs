//! A pipeline with state and two outputs, in a folder of its own, and what must come out of it.

use pelton_tests::pelton::{Said, json_rows, pelton};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Events of a run.
pub const EVENTS: usize = 6_000;
/// Events a second. At full speed a run of so few would be over before anything could happen to it.
const RATE: u64 = 6_000;
/// The same for a run that is to die in the middle: on a slow machine, too, several epochs come before the end.
const SLOW: u64 = 600;

pub struct Job {
    pub folder: tempfile::TempDir,
}

impl Job {
    pub fn new() -> Job {
        Job::at(tempfile::tempdir().unwrap())
    }

    fn at(folder: tempfile::TempDir) -> Job {
        let text = format!(
            "pipeline:
  transforms:
    - type: GenerateEvents
      name: Purchases
      config: {{kind: transactions, count: {EVENTS}, seed: 4, devices: 300, rate: {RATE}, interval: 1ms}}
    - type: Combine
      name: Customers
      input: Purchases
      config: {{group_by: customer_id, combine: {{n: count, largest: {{value: amount, fn: max}}}}}}
    - {{type: WriteToJson, name: Rows, input: Purchases, config: {{path: '{folder}/rows'}}}}
    - {{type: WriteToJson, name: Sums, input: Customers, config: {{path: '{folder}/sums'}}}}
options: {{pelton: {{name: purchases, checkpoint: {{interval: 100ms}}}}}}
",
            folder = folder.path().display()
        );
        std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
        Job { folder }
    }

    /// Another one that is just as far.
    pub fn copy(&self) -> Job {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(format!("{}/.", self.folder.path().display())).arg(copy.path()).status();
        assert!(copied.is_ok_and(|status| status.success()));
        Job::at(copy)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, with the state folder.
    pub fn command(&self, more: &[&str]) -> Command {
        let (pipeline, state) = (self.path("pipeline.yaml"), self.path("state"));
        let mut command = pelton(&["run", pipeline.to_str().unwrap(), "--state", state.to_str().unwrap(), "--quiet", "--parallelism", "2"]);
        command.args(more);
        command
    }

    /// Runs to whatever end.
    pub fn run(&self, more: &[&str]) -> Said {
        self.command(more).output().unwrap().into()
    }

    /// From now on events come slowly; they are the same.
    pub fn slow(&self) {
        self.pace(RATE, SLOW);
    }

    /// And no more.
    pub fn fast(&self) {
        self.pace(SLOW, RATE);
    }

    fn pace(&self, from: u64, to: u64) {
        let file = self.path("pipeline.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!("rate: {from},")));
        std::fs::write(&file, text.replace(&format!("rate: {from},"), &format!("rate: {to},"))).unwrap();
    }

    /// Runs, slowly, until it dies at a place for the `count`th time.
    pub fn die_at(&self, failpoint: &str, count: u64) {
        self.slow();
        let said: Said = self.command(&[]).env("PELTON_FAILPOINT", format!("{failpoint}:{count}")).output().unwrap().into();
        assert!(said.err.contains(&format!("failpoint {failpoint}: the process aborts")), "{said:?}");
        self.fast();
    }

    /// Runs to the end; all of the output must be there then.
    pub fn finish(&self) {
        let said = self.run(&[]);
        assert_eq!(said.code, 0, "{said:?}");
        self.check();
    }

    /// Every event is in the output once, and the sums follow from those.
    pub fn check(&self) {
        static EXPECTED: OnceLock<Vec<String>> = OnceLock::new();
        let expected = EXPECTED.get_or_init(|| {
            let plain = Job::new();
            let said: Said = pelton(&["run", plain.path("pipeline.yaml").to_str().unwrap(), "--quiet"]).output().unwrap().into();
            assert_eq!(said.code, 0, "{said:?}");
            sorted(&json_rows(&plain.path("rows")))
        });
        let rows = json_rows(&self.path("rows"));
        let found = sorted(&rows);
        assert!(found == *expected && found.len() == EVENTS, "{} rows, not those of a run without checkpoints", found.len());
        let mut sums: BTreeMap<String, (u64, f64)> = BTreeMap::new();
        for row in &rows {
            let (n, largest) = sums.entry(row["customer_id"].to_string()).or_insert((0, f64::MIN));
            (*n, *largest) = (*n + 1, largest.max(row["amount"].as_f64().unwrap()));
        }
        let of = |row: &Value| (row["customer_id"].to_string(), (row["n"].as_u64().unwrap(), row["largest"].as_f64().unwrap()));
        let counted = json_rows(&self.path("sums"));
        assert_eq!(counted.len(), sums.len());
        assert_eq!(counted.iter().map(of).collect::<BTreeMap<_, _>>(), sums);
    }
}

/// A stop as a user should meet it: no crash, the word that matters, and what to do next.
pub fn check_stop(said: &Said, words: &[&str]) {
    assert!(said.code == 1 || said.code == 2, "{said:?}");
    assert!(!said.err.contains("panicked") && !said.err.contains("internal"), "{said:?}");
    assert!(said.err.contains("next: ") || said.err.contains("help: "), "no next step: {said:?}");
    for word in words {
        assert!(said.err.contains(word), "`{word}` is not in: {said:?}");
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

fn sorted(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}
