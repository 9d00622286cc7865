//! Savepoints as users make and use them: real processes, the binary of this build.
//!
//! One pipeline reads rows of some hundred users. What it gives at its end (all rows of each user, aggregated) depends on all rows before; so whatever life
//! brings a pipeline to its end, its output is that of a run without any savepoint.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

use pelton_tests::life::Life;
use pelton_tests::pelton::{Said, json_rows, run, sorted, summary, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const ROWS: usize = 16_000;
const USERS: u32 = 300;
/// Rows a second: a life is inside its input until it is stopped.
const RATE: u32 = 500;
const PATIENCE: u64 = 300;
/// Epochs of a life before it is stopped.
const EPOCHS: u64 = 3;
/// More tasks than this come to their barriers so slowly on a small machine that the last epoch of their life is its only one, and fewer rows come.
const MANY: usize = 16;
/// Where cells live.
const MEMORY: &str = "backend: memory";
const FJALL: &str = "backend: fjall, memory: 4MiB";

/// A folder in which lives leave their state and their output.
struct Lives {
    folder: tempfile::TempDir,
}

/// How one of them is to be.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The name of its state folder, and of what it writes.
    name: &'a str,
    parallelism: usize,
    backend: &'a str,
    /// Of the aggregation.
    totals: &'a str,
    /// More of `options.pelton`.
    options: &'a str,
    /// Otherwise rows come at [`RATE`].
    at_once: bool,
}

const PLAIN: Way<'_> = Way { name: "plain", parallelism: 1, backend: MEMORY, totals: "Totals", options: "", at_once: true };

impl Lives {
    fn new() -> Lives {
        Lives { folder: tempfile::Builder::new().prefix("pelton-savepoints-").tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn state(&self, way: Way<'_>) -> PathBuf {
        self.path(&format!("{}-state", way.name))
    }

    fn written(&self, way: Way<'_>) -> String {
        let Way { name, totals, options, backend, .. } = way;
        let rate = match way.at_once {
            true => String::new(),
            false if way.parallelism > MANY => format!(", rate: {}", RATE / 20),
            false => format!(", rate: {RATE}"),
        };
        let text = format!(
            "pipeline:
  transforms:
    - {{type: GenerateEvents, name: Events, config: {{kind: transactions, seed: 5, count: {ROWS}, devices: {USERS}, interval: 1ms{rate}}}}}
    - {{type: AssignTimestamps, name: Stamped, input: Events, config: {{timestamp: transaction_date}}}}
    - {{type: MapToFields, name: Rows, input: Stamped, config: {{language: sql, fields: {{user: customer_id, number: 'CAST(amount AS BIGINT)'}}}}}}
    - {{type: Combine, name: {totals}, input: Rows, config: {{group_by: user, combine: {{n: count, sum: {{value: number, fn: sum}}}}}}}}
    - type: Combine
      name: Windows
      input: Rows
      windowing: {{type: fixed, size: 4s}}
      config: {{group_by: user, combine: {{n: count, largest: {{value: number, fn: max}}}}}}
    - {{type: WriteToJson, name: WriteRows, input: Rows, config: {{path: '{out}/rows'}}}}
    - {{type: WriteToJson, name: WriteTotals, input: {totals}, config: {{path: '{out}/totals'}}}}
    - {{type: WriteToJson, name: WriteWindows, input: Windows, config: {{path: '{out}/windows'}}}}
options: {{pelton: {{name: savepoints, watermark: {{delay: 1s}}, state: {{{backend}}}{options}}}}}
",
            out = self.at(name),
        );
        let file = self.path(&format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    fn begin(&self, way: Way<'_>, more: &[&str]) -> Life {
        let (file, state, parallelism) = (self.written(way), self.state(way).display().to_string(), way.parallelism.to_string());
        let mut arguments = vec!["run", &file, "--state", &state, "--parallelism", &parallelism, "--quiet"];
        arguments.extend(more);
        Life::start(&arguments, &[], &self.path(&format!("{}.log", way.name)))
    }

    /// Runs until it is stopped with a savepoint; gives what was said of that, and how the process ended.
    fn stopped(&self, way: Way<'_>, more: &[&str], savepoint: &str) -> (Said, Option<i32>, String) {
        let mut life = self.begin(way, more);
        let store = self.store(way);
        wait_for(&format!("epochs of {}", way.name), PATIENCE, || {
            assert!(life.ended().is_none(), "it has ended: {}", life.said());
            let far_enough = epochs(&store) >= EPOCHS || way.parallelism > MANY;
            (far_enough && self.state(way).join("control.sock").exists()).then_some(())
        });
        let said = run(&["stop", &self.state(way).display().to_string(), "--savepoint", savepoint]);
        let code = life.wait(PATIENCE).code();
        (said, code, life.said())
    }

    /// As [`Self::stopped`], and well.
    fn stopped_well(&self, way: Way<'_>, more: &[&str], savepoint: &str) -> u64 {
        let (said, code, log) = self.stopped(way, more, savepoint);
        assert_eq!((said.code, code), (0, Some(0)), "{said:?}\n{log}");
        // It was there when the command ended, and the epoch is that one.
        let epoch = said.out.strip_prefix("stopped; savepoint of epoch ").and_then(|rest| rest.split_once(" at "));
        let (epoch, at) = epoch.unwrap_or_else(|| panic!("{said:?}"));
        assert_eq!(at.trim_end(), savepoint);
        let listed = well(&["state", "ls", savepoint]);
        assert!(listed.contains(&format!("epoch {epoch} ")), "{listed}");
        epoch.parse().unwrap()
    }

    fn store(&self, way: Way<'_>) -> PathBuf {
        if way.options.contains("storage") { self.path("store") } else { self.state(way).join("checkpoints") }
    }

    /// Runs to the end.
    fn ends(&self, way: Way<'_>, more: &[&str]) {
        let mut life = self.begin(way, more);
        assert_eq!(life.wait(PATIENCE).code(), Some(0), "{}", life.said());
    }

    fn refused(&self, way: Way<'_>, more: &[&str]) -> String {
        let mut life = self.begin(way, more);
        assert!(life.wait(PATIENCE).code().is_some_and(|code| code != 0), "{}", life.said());
        life.said()
    }

    fn rows(&self, way: Way<'_>, output: &str) -> Vec<Value> {
        json_rows(&self.path(way.name).join(output))
    }

    /// The life that came to the end has given what follows from all rows, though it has read only some of them.
    fn check(&self, way: Way<'_>) {
        let plain = Plain::get();
        let read = self.rows(way, "rows").len();
        assert!(read > 0 && read < ROWS, "{} has read {read} of {ROWS} rows", way.name);
        assert_eq!(sorted(self.rows(way, "totals")), plain.totals, "{}", way.name);
        let windows = sorted(self.rows(way, "windows"));
        assert!(!windows.is_empty() && is_part(&windows, &plain.windows), "{}: windows are not those of a plain run", way.name);
    }
}

/// What a run gives that nobody interrupts.
struct Plain {
    totals: Vec<String>,
    windows: Vec<String>,
}

impl Plain {
    fn get() -> &'static Plain {
        static PLAINS: OnceLock<Plain> = OnceLock::new();
        PLAINS.get_or_init(|| {
            let lives = Lives::new();
            summary(&[&lives.written(PLAIN), "--parallelism", "1"]);
            let rows = |output: &str| sorted(lives.rows(PLAIN, output));
            let plain = Plain { totals: rows("totals"), windows: rows("windows") };
            // By a loop over the rows: so that both are not wrong in the same way.
            assert_eq!(plain.totals, sorted(summed(&lives.rows(PLAIN, "rows"))));
            plain
        })
    }
}

/// Rows of each user, counted and summed.
fn summed(rows: &[Value]) -> Vec<Value> {
    let mut users: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
    for row in rows {
        let (n, sum) = users.entry(row["user"].as_i64().unwrap()).or_default();
        (*n, *sum) = (*n + 1, *sum + row["number"].as_i64().unwrap());
    }
    users.into_iter().map(|(user, (n, sum))| serde_json::json!({"user": user, "n": n, "sum": sum})).collect()
}

/// Both are sorted; each of the first is in the second as often.
fn is_part(part: &[String], whole: &[String]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|row| rest.any(|other| other == row))
}

/// The newest epoch in a store.
fn epochs(store: &Path) -> u64 {
    let entries = std::fs::read_dir(store.join("manifests")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().split_once('-')?.0.parse().ok()).max().unwrap_or(0)
}

fn well(arguments: &[&str]) -> String {
    let said = run(arguments);
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    said.out
}

const SHORT: &str = ", checkpoint: {interval: 200ms}";

#[test]
fn a_savepoint_goes_on_at_any_parallelism_and_on_either_backend() {
    let lives = Lives::new();
    let hops = [("one", 1, MEMORY), ("three", 3, FJALL), ("eight", 8, MEMORY), ("most", 256, FJALL)];
    let mut from: Option<String> = None;
    for (name, parallelism, backend) in hops {
        let way = Way { name, parallelism, backend, options: SHORT, at_once: false, ..PLAIN };
        let savepoint = lives.at(&format!("{name}-savepoint"));
        let more: Vec<&str> = from.iter().flat_map(|from| ["--from", from]).collect();
        lives.stopped_well(way, &more, &savepoint);
        from = Some(savepoint);
    }
    let last = Way { name: "last", parallelism: 2, options: SHORT, ..PLAIN };
    lives.ends(last, &["--from", &from.unwrap()]);
    lives.check(last);
    // A savepoint of the middle is not used up, and nobody has changed it.
    let again = Way { name: "again", parallelism: 256, backend: FJALL, ..last };
    lives.ends(again, &["--from", &lives.at("one-savepoint")]);
    lives.check(again);
}

#[test]
fn state_without_a_transform_is_refused_unless_it_is_dropped_or_given_its_uid() {
    let lives = Lives::new();
    let first = Way { name: "first", options: SHORT, at_once: false, ..PLAIN };
    let savepoint = lives.at("savepoint");
    lives.stopped_well(first, &[], &savepoint);

    let renamed = Way { name: "renamed", totals: "Sums", options: SHORT, ..PLAIN };
    let said = lives.refused(renamed, &["--from", &savepoint]);
    for want in ["has the uid of: `Totals` (Combine)", "`options.pelton.uids`", "--drop-state 'Totals'"] {
        assert!(said.contains(want), "{want} is not in\n{said}");
    }
    // Nothing was begun: the same folder serves.
    let options = format!("{SHORT}, uids: {{Sums: Totals}}");
    let given = Way { options: &options, ..renamed };
    lives.ends(given, &["--from", &savepoint]);
    lives.check(given);

    let dropped = Way { name: "dropped", ..renamed };
    lives.ends(dropped, &["--from", &savepoint, "--drop-state", "Totals"]);
    assert_eq!(sorted(lives.rows(dropped, "totals")), sorted(summed(&lives.rows(dropped, "rows"))), "they begin anew");
    assert!(is_part(&sorted(lives.rows(dropped, "windows")), &Plain::get().windows), "the others go on");
}

#[test]
fn a_stop_with_a_savepoint_says_how_it_came_out() {
    let lives = Lives::new();
    let way = Way { name: "taken", options: SHORT, at_once: false, ..PLAIN };
    let taken = lives.at("place");
    std::fs::create_dir_all(lives.path("place/segments")).unwrap();
    std::fs::write(lives.path("place/segments/000001"), "of another savepoint").unwrap();
    let (said, code, log) = lives.stopped(way, &[], &taken);
    for said in [&said.err, &log] {
        assert!(
            said.contains("there is no savepoint") && said.contains("is not empty") && said.contains("next: name a new folder"),
            "{said}"
        );
    }
    assert!(said.code != 0 && code != Some(0), "{said:?} {code:?}");
    // Nothing is lost: its last checkpoint is there.
    let copied = lives.at("copied");
    assert!(well(&["savepoint", &lives.state(way).display().to_string(), &copied]).contains("savepoint of epoch"));
    let last = Way { name: "last", at_once: true, ..way };
    lives.ends(last, &["--from", &copied]);
    lives.check(last);
}

#[test]
fn checkpoints_elsewhere_are_found_by_the_state_folder() {
    let lives = Lives::new();
    let options = format!(", checkpoint: {{interval: 200ms, storage: '{}'}}", lives.at("store"));
    let way = Way { name: "elsewhere", options: &options, at_once: false, ..PLAIN };
    let (state, stopped) = (lives.state(way).display().to_string(), lives.at("stopped"));
    let epoch = lives.stopped_well(way, &[], &stopped);
    let copied = lives.at("copied");
    let said = well(&["savepoint", &state, &copied]);
    assert!(said.contains(&format!("savepoint of epoch {epoch} at")), "{said}");
    assert_eq!(well(&["state", "ls", &state]), well(&["state", "ls", &lives.at("store")]));
    for (name, savepoint) in [("one", stopped), ("two", copied)] {
        let last = Way { name, options: SHORT, at_once: true, ..way };
        lives.ends(last, &["--from", &savepoint]);
        lives.check(last);
    }
}

/// A column of texts of a Parquet file.
fn parquet_texts(file: &Path, column: &str) -> Vec<String> {
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(std::fs::File::open(file).unwrap(), 1_000).unwrap();
    let texts = reader.flat_map(|batch| {
        let batch = batch.unwrap();
        let texts = batch.column_by_name(column).unwrap().as_any().downcast_ref::<arrow::array::StringArray>().unwrap();
        texts.iter().map(|text| text.unwrap().to_string()).collect::<Vec<_>>()
    });
    sorted(texts)
}

#[test]
fn cells_are_what_the_rows_before_them_make_of_them() {
    let lives = Lives::new();
    let way = Way { name: "looked-at", parallelism: 2, options: SHORT, at_once: false, ..PLAIN };
    let savepoint = lives.at("savepoint");
    lives.stopped_well(way, &[], &savepoint);
    let last = Way { name: "last", at_once: true, ..way };
    lives.ends(last, &["--from", &savepoint]);

    // The rows that the fork has not read were read before.
    let (all, mut rest) = (Lives::new(), sorted(lives.rows(last, "rows")));
    summary(&[&all.written(PLAIN), "--parallelism", "1"]);
    let mut before = all.rows(PLAIN, "rows");
    before.retain(|row| match rest.binary_search(&row.to_string()) {
        Ok(at) => {
            rest.remove(at);
            false
        }
        Err(_) => true,
    });
    let want = summed(&before);
    assert!(want.len() > 100 && rest.is_empty(), "{} users, {} rows too many", want.len(), rest.len());

    let lines = |more: &[&str]| {
        let mut arguments = vec!["state", "get", savepoint.as_str()];
        arguments.extend(more);
        well(&arguments).lines().map(str::to_string).collect::<Vec<_>>()
    };
    let parsed = |lines: &[String]| lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let get = lines(&["Totals"]);
    let cells: Vec<Value> = parsed(&get).into_iter().filter(|line| line["key"].is_string()).collect();
    assert_eq!(cells.len(), want.len());
    for row in &want {
        // The last eight bytes of the key are the number, in an order that compares as bytes do.
        let key = format!("{:016x}", row["user"].as_i64().unwrap().cast_unsigned() ^ (1 << 63));
        let of_user: Vec<&Value> = cells.iter().filter(|cell| cell["key"].as_str().unwrap().contains(&key)).collect();
        let [cell] = of_user[..] else { panic!("{row}: {of_user:?}") };
        for column in ["n", "sum"] {
            let is_it = |value: &Value| *value == row[column] || value.as_str() == Some(&row[column].to_string());
            assert!(cell["values"].as_array().unwrap().iter().any(is_it), "{row}: {cell}");
        }
        if row == &want[0] {
            assert_eq!(lines(&["Totals", "--key", cell["key"].as_str().unwrap()]), [get_of(&get, cell)]);
        }
    }
    let windows = lines(&["Windows"]);
    let starts: Vec<String> = parsed(&windows).iter().filter_map(|cell| Some(cell["window_start"].as_str()?.to_string())).collect();
    let first = starts.first().unwrap();
    let of_first = starts.iter().filter(|start| *start == first).count();
    assert_eq!(lines(&["Windows", "--window", first]).len(), of_first);

    for (name, uid, get) in [("cells.jsonl", "Totals", &get), ("windows.parquet", "Windows", &windows)] {
        let file = lives.path(name);
        let said = well(&["state", "export", &savepoint, uid, file.to_str().unwrap()]);
        assert!(said.starts_with(&format!("{} cells written to", get.len())), "{said}");
        let found = match name.ends_with("parquet") {
            true => parquet_texts(&file, "cell"),
            false => sorted(std::fs::read_to_string(&file).unwrap().lines()),
        };
        assert_eq!(found, sorted(get), "{name}");
    }

    // What is kept by partition: as many as are listed.
    let listed = well(&["state", "ls", &savepoint]);
    let partitions = listed.lines().find_map(|line| {
        let (uid, rest) = line.split_once(" (")?;
        let (_, count) = rest.strip_suffix(" partitions")?.rsplit_once(' ')?;
        Some((uid.to_string(), count.parse::<usize>().ok()?))
    });
    let (uid, count) = partitions.unwrap_or_else(|| panic!("{listed}"));
    let shown = parsed(&lines(&[&uid])).iter().filter(|line| line["partition"].is_string() && line["value"].is_string()).count();
    assert!(count > 0 && shown >= count, "{shown} of {count} of {uid}");
}

/// The line of a cell.
fn get_of(lines: &[String], cell: &Value) -> String {
    lines.iter().find(|line| serde_json::from_str::<Value>(line).unwrap() == *cell).unwrap().clone()
}
