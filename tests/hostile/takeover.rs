//! Plugins that break where they take over from another: in `describe`, in `open`, on their first rows, and when they are to bring state over.
//!
//! One host runs all of it, beside a neighbour. Each version is swapped into a pipeline that runs: refused before the cut where the state of the last checkpoint
//! shows it, and taken back after it where there is none yet. Then it is deployed to a pipeline that has stopped, which fails with it and goes on with the version before.
//! At the end the output of each pipeline is that of a loop over its rows: whatever a version did to state would be seen there.

use crate::neighbour;
use crate::{Duration, Instant, SLACK_MIB, STANDSTILL, component, load};
use pelton_tests::http::Place;
use pelton_tests::pelton::{json_rows, sorted, wait_for};
use pelton_tests::serve::{Host, PATIENCE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Versions and words of the cause.
const VERSIONS: [(&str, &str); 24] = [
    ("describe-traps", "describe has no brakes"),
    ("open-traps", "open has no brakes"),
    ("process-traps", "process has no brakes"),
    ("migrate-traps", "migrate has no brakes"),
    ("migrate-drop-traps", "a drop has no brakes"),
    ("migrate-poison", "a poisoned value has no brakes"),
    ("migrate-aborts", "without saying why"),
    ("migrate-loops", "limits.call_deadline"),
    ("migrate-floods", "limits.call_deadline"),
    ("migrate-hoards", "limits.memory_bytes"),
    ("migrate-recurses", "recursion is too deep"),
    ("migrate-reads", "it read state wrongly"),
    ("migrate-fails", "are too many"),
    ("migrate-few", "answered wrongly"),
    ("migrate-many", "answered wrongly"),
    ("migrate-nothing", "answered wrongly"),
    ("migrate-offsets-down", "answered wrongly"),
    ("migrate-offsets-beyond", "answered wrongly"),
    ("migrate-data-unused", "answered wrongly"),
    ("migrate-validity-short", "answered wrongly"),
    ("migrate-keys-few", "answered wrongly"),
    ("migrate-keys-absent", "answered wrongly"),
    ("migrate-keys-unasked", "answered wrongly"),
    ("migrate-huge", "limits.max_row_bytes"),
];
/// Of these: those of CI, one of each way to break; `--all` runs all.
const IN_CI: [&str; 8] =
    ["describe-traps", "open-traps", "process-traps", "migrate-traps", "migrate-loops", "migrate-hoards", "migrate-fails", "migrate-few"];
/// Of these: those that a pipeline without a checkpoint finds out after the cut.
const AFTER_THE_CUT: [&str; 6] = ["migrate-traps", "migrate-poison", "migrate-loops", "migrate-hoards", "migrate-fails", "migrate-few"];
/// Those that a stopped pipeline is started with.
const AT_A_START: [&str; 6] =
    ["migrate-traps", "migrate-poison", "migrate-loops", "migrate-hoards", "migrate-fails", "migrate-keys-absent"];
/// Those that an aggregation is started with.
const OF_SUMS: [&str; 5] = ["migrate-traps", "migrate-loops", "migrate-hoards", "migrate-fails", "migrate-few"];

/// Rows a second of each pipeline.
const RATE: u64 = 300;
/// There is state of so many rows before anything goes wrong.
const ROWS: u64 = 600;

/// What came of it.
pub struct Seen {
    /// Plugins.
    pub plugins: usize,
    /// Times that one was to take over.
    pub times: usize,
    /// Rows that were compared.
    pub rows: usize,
    /// What was wrong.
    pub wrong: Vec<String>,
    /// The longest time without a row of the neighbour.
    pub slowest: Duration,
}

/// Runs those whose names have the text, or else those of CI.
pub fn run(only: Option<&str>, all: bool, show: bool, oracle: &[String]) -> Seen {
    let wanted = |name: &&str| match only {
        Some(only) => format!("takes over: {name}").contains(only),
        None => all || IN_CI.contains(name),
    };
    let mut stage = Stage { host: Host::start(&[]), show, times: 0, rows: 0, wrong: Vec::new() };
    let plugins = VERSIONS.iter().filter(|(name, _)| wanted(name)).count();
    if plugins == 0 {
        return Seen { plugins, times: 0, rows: 0, wrong: Vec::new(), slowest: Duration::ZERO };
    }
    stage.neighbour();
    stage.deployed("counts", "counts", "first", "200ms");
    stage.deployed("sums", "sums", "first", "200ms");
    let baseline = stage.host.resident() / 1_024;
    let looking = Looking::at(stage.host.socket());
    for (name, words) in VERSIONS.iter().filter(|(name, _)| wanted(name)) {
        stage.is_refused(name, words);
    }
    stage.there_and_back();
    for (list, act) in [
        (&AFTER_THE_CUT[..], Stage::is_taken_back as fn(&mut Stage, &str)),
        (&AT_A_START, Stage::does_not_start),
        (&OF_SUMS, Stage::sums_go_on),
    ] {
        list.iter().filter(|name| wanted(name)).for_each(|name| act(&mut stage, name));
    }
    stage.compare("counts", &["stop", "counts"], oracle);
    stage.compare("sums", &["drain", "sums"], oracle);
    let slowest = looking.end();
    stage.host.well(&["stop", "neighbour"]);
    let rows = json_rows(&stage.host.path("neighbour"));
    stage.rows += rows.len();
    stage.wrong.extend(neighbour::wrong(&rows, oracle));
    let busy = (load() / std::thread::available_parallelism().map_or(1, usize::from) as f64).max(1.0);
    if slowest > STANDSTILL.mul_f64(busy) {
        stage.wrong.push(format!("the neighbour stood still for {} ms at a load of {:.1}", slowest.as_millis(), load()));
    }
    let resident = stage.host.resident() / 1_024;
    if resident > baseline + SLACK_MIB {
        stage.wrong.push(format!("the host has {resident} MiB, and had {baseline} at the start"));
    }
    let Stage { times, rows, wrong, .. } = stage;
    Seen { plugins, times, rows, wrong, slowest }
}

fn words_of(name: &str) -> &'static str {
    VERSIONS.iter().find(|(known, _)| *known == name).expect("a version").1
}

/// Looks how far the neighbour is, all the time.
struct Looking {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Looking {
    fn at(place: Place) -> Looking {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut last, mut slowest) = ((0, Instant::now()), Duration::ZERO);
            while !is_over.load(Relaxed) {
                let rows = written(&place.get("/v1/pipelines/neighbour").json());
                slowest = slowest.max(last.1.elapsed());
                if rows > last.0 {
                    last = (rows, Instant::now());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            slowest
        });
        Looking { over, thread }
    }

    fn end(self) -> Duration {
        self.over.store(true, Relaxed);
        self.thread.join().expect("the host answers")
    }
}

/// Rows that have come to the sink.
fn written(status: &Value) -> u64 {
    let transforms = status["transforms"].as_array().cloned().unwrap_or_default();
    transforms.iter().find(|transform| transform["name"] == "Write").map_or(0, |write| write["rows_in"].as_u64().unwrap_or(0))
}

/// The host, and what was seen there.
struct Stage {
    host: Host,
    show: bool,
    times: usize,
    rows: usize,
    wrong: Vec<String>,
}

impl Stage {
    fn neighbour(&self) {
        let (out, honest) = (self.host.path("neighbour"), component("hostile"));
        let text = format!(
            "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, interval: 1ms, rate: {RATE}}}}}
    - {{type: Double, name: Double}}
    - {{type: WriteToJson, name: Write, config: {{path: '{}'}}}}
providers: [{{type: wasm, config: {{plugin: '{}'}}, transforms: {{Double: map}}}}]
options: {{pelton: {{name: neighbour, parallelism: 1, checkpoint: {{interval: 1s}}}}}}
",
            out.display(),
            honest.display()
        );
        self.host.well(&["deploy", &self.host.file("neighbour.yaml", &text)]);
        self.host.wait_for_epoch("neighbour");
    }

    /// The component with this name written where it looks.
    fn version(&self, name: &str) -> String {
        let mut bytes = std::fs::read(component("hostile-migrate")).unwrap();
        let mark = b"hostile-migrate:";
        let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the guest has the mark") + mark.len();
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        let path = self.host.path(&format!("{name}.wasm"));
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// The file of a pipeline whose plugin is a version.
    fn file(&self, name: &str, transform: &str, version: &str, interval: &str) -> String {
        let (out, plugin) = (self.host.path(name), self.version(version));
        let step = match transform {
            "counts" => "{type: Mine, name: Mine, config: {key: [customer_id]}}",
            _ => {
                "{type: Combine, name: Mine, windowing: {type: fixed, size: 86400s}, config: {group_by: customer_id, combine: {sum: {value: one, fn: {type: Mine}}}}}"
            }
        };
        let text = format!(
            "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, interval: 1ms, rate: {RATE}}}}}
    - {{type: MapToFields, name: Rows, config: {{language: sql, fields: {{customer_id: customer_id, one: 'CAST(1 AS BIGINT)'}}}}}}
    - {step}
    - {{type: WriteToJson, name: Write, config: {{path: '{}'}}}}
providers:
  - {{type: wasm, config: {{plugin: '{plugin}', limits: {{memory_bytes: 16MiB, max_row_bytes: 1MiB}}}}, transforms: {{Mine: {transform}}}}}
options: {{pelton: {{name: {name}, parallelism: 1, checkpoint: {{interval: {interval}}}}}}}
",
            out.display()
        );
        self.host.file(&format!("{name}.yaml"), &text)
    }

    /// Deploys it, and waits until it has state.
    fn deployed(&self, name: &str, transform: &str, version: &str, interval: &str) {
        self.host.well(&["deploy", &self.file(name, transform, version, interval)]);
        let rows = || self.host.status(name)["rows_read"].as_u64().unwrap_or(0);
        wait_for("rows are read", PATIENCE, || (rows() >= ROWS).then_some(()));
    }

    /// What was said must name the transform and the cause, and the plugin where state was to be brought over; what is to be done comes with it.
    fn is_told(&mut self, what: &str, version: &str, said: &str) {
        self.times += 1;
        if self.show {
            println!("{what}: {version}: {said}\n");
        }
        let plugin = if version.starts_with("migrate-") { "sha256:" } else { "" };
        let next = ["next:", "the version before can go on", "describe"];
        if !(said.contains(words_of(version))
            && said.contains("Mine")
            && said.contains(plugin)
            && next.iter().any(|next| said.contains(next)))
            || said.contains("internal")
        {
            self.wrong.push(format!("{what}: {version} is to be told with `{}`, and said: {said}", words_of(version)));
        }
    }

    /// A pipeline that runs must run on as it did.
    fn goes_on(&mut self, name: &str, version: u64, restarts: u64) {
        self.host.wait_for(name, "running");
        self.host.wait_for_epoch(name);
        let status = self.host.status(name);
        if status["version"] != version || status["restarts"] != restarts {
            self.wrong.push(format!("`{name}` is to go on as version {version} with {restarts} restarts: {status}"));
        }
    }

    /// The state of the last checkpoint shows it: refused before the cut.
    fn is_refused(&mut self, version: &str, words: &str) {
        let said = self.host.cli(&["plugin", "swap", "counts", "Mine", &self.version(version)]);
        if said.code == 0 {
            self.wrong.push(format!("{version} has taken over, and is to be refused with `{words}`"));
        }
        self.is_told("at a swap", version, &said.err);
        self.goes_on("counts", 1, 0);
    }

    /// There is no checkpoint yet: it comes out after the cut, and the swap is taken back.
    fn is_taken_back(&mut self, version: &str) {
        let name = format!("late-{version}");
        self.deployed(&name, "counts", "first", "60s");
        let said = self.host.cli(&["plugin", "swap", &name, "Mine", &self.version(version)]);
        if said.code == 0 || !said.err.contains("taken back") {
            self.wrong.push(format!("{version} is to be taken back: {said:?}"));
        }
        self.is_told("after the cut", version, &said.err);
        self.host.wait_for(&name, "running");
        let status = self.host.status(&name);
        if status["version"] != 1 || status["restarts"] != 1 {
            self.wrong.push(format!("`{name}` is to go on as version 1 after one restart: {status}"));
        }
        self.host.well(&["stop", &name]);
        self.host.well(&["remove", &name]);
    }

    /// A pipeline that has stopped is started with it, fails, and goes on with the version before.
    fn does_not_start(&mut self, version: &str) {
        self.host.well(&["stop", "counts"]);
        self.starts_and_fails("counts", version);
    }

    /// The same of an aggregation.
    fn sums_go_on(&mut self, version: &str) {
        self.host.well(&["stop", "sums"]);
        self.starts_and_fails("sums", version);
    }

    fn starts_and_fails(&mut self, name: &str, version: &str) {
        let before = self.host.status(name)["version"].as_u64().unwrap();
        let said = self.host.cli(&["deploy", &self.file(name, name, version, "200ms")]);
        let status = match said.code {
            0 => self.host.wait_for(name, "failed"),
            _ => self.host.status(name),
        };
        let told = if said.code == 0 { status["last_failure"]["message"].as_str().unwrap_or_default().to_owned() } else { said.err };
        self.is_told("at a start", version, &told);
        let back = self.host.well(&["rollback", name, "--to", &before.to_string(), "--output", "json"]);
        let back: Value = serde_json::from_str(back.trim()).unwrap();
        self.goes_on(name, back["version"].as_u64().unwrap_or(0), 0);
    }

    /// An honest version there and back, one whose `close` traps, and one from which there is no way back.
    fn there_and_back(&mut self) {
        for version in ["next", "first", "close-traps", "first", "first-no-way-back"] {
            self.host.well(&["plugin", "swap", "counts", "Mine", &self.version(version)]);
            self.host.wait_for_epoch("counts");
        }
        let said = self.host.cli(&["plugin", "swap", "counts", "Mine", &self.version("next")]);
        let words = ["there would be no way back", "migrate has no brakes", "--irreversible"];
        if said.code == 0 || !words.iter().all(|words| said.err.contains(words)) {
            self.wrong.push(format!("there is no way back, and it said: {said:?}"));
        }
        self.host.well(&["plugin", "swap", "counts", "Mine", &self.version("first")]);
    }

    /// Ends a pipeline; what it wrote against a loop over the rows.
    fn compare(&mut self, name: &str, end: &[&str], oracle: &[String]) {
        self.host.well(end);
        let mut rows = json_rows(&self.host.path(name));
        let of_row = |row: &mut Value| row.as_object_mut().and_then(|row| row.remove("version"));
        rows.iter_mut().for_each(|row| drop(of_row(row)));
        let is_sums = name == "sums";
        let count = if is_sums { rows.iter().map(|row| row["sum"].as_u64().unwrap() as usize).sum() } else { rows.len() };
        if count > oracle.len() {
            return self.wrong.push(format!("`{name}` went on for so long that its rows are not known"));
        }
        let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
        let mut want = Vec::new();
        for known in &oracle[..count] {
            let customer = serde_json::from_str::<Value>(known).unwrap()["customer_id"].as_i64().unwrap();
            let number = counts.entry(customer).or_default();
            *number += 1;
            want.push(json!({"customer_id": customer, "count": *number}));
        }
        if is_sums {
            want = counts.iter().map(|(customer, sum)| json!({"customer_id": customer, "sum": sum})).collect();
        }
        self.rows += count;
        let (got, want) = (sorted(rows), sorted(want));
        if got != want {
            let first = got.iter().zip(&want).find(|(got, want)| got != want);
            self.wrong.push(format!(
                "`{name}` wrote {} rows, and {} were expected; the first that differ: {first:?}",
                got.len(),
                want.len()
            ));
        }
    }
}
