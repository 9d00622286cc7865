//! Runs the binary under test, and reads what it wrote.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").into()
}

/// The binary that was built beside this test: `cargo xtask test` builds it first.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let path = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps").join("pelton");
    assert!(path.exists(), "{} is missing: run `cargo build -p pelton-cli`, or `cargo xtask test`", path.display());
    path
}

/// Where `cargo xtask setup` keeps what it has fetched: `$PELTON_CACHE`, or `~/.cache/pelton`.
pub fn cache() -> PathBuf {
    let home = || std::env::home_dir().expect("no home folder; set PELTON_CACHE").join(".cache/pelton");
    std::env::var_os("PELTON_CACHE").map_or_else(home, PathBuf::from)
}

/// A command of the binary, from the repository's root.
pub fn pelton(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(root()).args(arguments);
    command
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs to the end.
pub fn run(arguments: &[&str]) -> Said {
    if arguments.first() == Some(&"run") && std::env::var_os("PELTON_TEST_KILLS").is_some() {
        return run_killed(arguments);
    }
    let said: Said = pelton(arguments).output().expect("the binary starts").into();
    note_crashes(&said.err);
    said
}

/// With `PELTON_TEST_KILLS` each life of a run is a process, which `PELTON_TEST_CRASHES` ends by `kill -9`; the last one's line counts those before it.
fn run_killed(arguments: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    for life in 1.. {
        let mut command = pelton(arguments);
        command.arg("--state").arg(&state).env("PELTON_TEST_LIFE", life.to_string());
        let output = command.output().expect("the binary starts");
        if output.status.signal() == Some(KILLED) {
            continue;
        }
        let said: Said = output.into();
        note_crashes(&said.err);
        return said;
    }
    unreachable!("lives have numbers")
}

/// SIGKILL.
const KILLED: i32 = 9;

/// With `PELTON_TEST_CRASHES` every run crashes and goes on, and says how often; that is collected in the file that
/// `PELTON_TEST_CRASHES_LOG` names.
fn note_crashes(said: &str) {
    use std::io::Write;
    let Some(log) = std::env::var_os("PELTON_TEST_CRASHES_LOG") else { return };
    for line in said.lines().filter(|line| line.starts_with("crashes: ")) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        // In one piece: several tests write.
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the log of crashes can be written");
    }
}

/// Runs a pipeline to the end with `--output json` and gives its summary; anything but success fails the test.
pub fn summary(arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["run"];
    all.extend(arguments);
    all.extend(["--quiet", "--output", "json"]);
    let said = run(&all);
    assert_eq!(said.code, 0, "{}\n{}", said.err, said.out);
    serde_json::from_str(said.out.trim()).unwrap_or_else(|error| panic!("the summary is no JSON: {error}\n{}", said.out))
}

/// The rows of every published shard `PATH-*-of-*`, as JSON; nothing else may lie there.
pub fn json_rows(path: &Path) -> Vec<serde_json::Value> {
    shards(path)
        .iter()
        .flat_map(|text| {
            text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect::<Vec<_>>()
        })
        .collect()
}

/// The texts of every published shard `PATH-*-of-*`.
pub fn shards(path: &Path) -> Vec<String> {
    let folder = path.parent().expect("an output has a folder");
    let prefix = format!("{}-", path.file_name().expect("an output has a name").to_string_lossy());
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the output's folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let shards: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with(&prefix))
        .map(|name| std::fs::read_to_string(folder.join(name)).expect("a shard"))
        .collect();
    assert!(!shards.is_empty(), "no shards of {} among {names:?}", path.display());
    shards
}

/// Sorted texts, to compare as multisets.
pub fn sorted(rows: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
    rows.sort();
    rows
}

/// Asks until it is so; panics with `what` after the deadline.
pub fn wait_for<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed().as_secs() < seconds, "{what}: not within {seconds} s");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
