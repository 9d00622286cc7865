//! State larger than memory: the backend `fjall` keeps to its budget, also while it goes on from a checkpoint, and what comes out is exact.

use pelton_tests::pelton::{pelton, run, wait_for};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Bytes of the text that each key keeps.
const TEXT: u64 = 1_024;
/// State, and the budget for it unless it is given: one in so many. `PELTON_TEST_STATE_MIB` makes both larger: 1024 are 1 GiB on 128 MiB. With
/// `PELTON_TEST_BUDGET_MIB` the budget is another one: 10240 and 1024 take about three times the state on the disk of `TMPDIR`.
const STATE_MIB: u64 = 256;
const SHARE: u64 = 8;
/// What the process may take beyond the budget: itself, rows that are on their way, and what the epochs at hand have changed;
const BEYOND_MIB: u64 = 192;
/// what an allocator needs around so much that comes and goes, one in so many of the budget;
const AROUND: u64 = 2;
/// and what is kept of files to find something in them, one in so many of the state.
const INDEX: u64 = 12;
/// The first life is killed when so much of the state is in a checkpoint, percent.
const KILLED_AT: u64 = 90;

/// The value of a key's row in one of two passes.
fn value(key: u64, pass: u64) -> u64 {
    (key * 31 + pass * 1_000_003) % 2_000_003
}

/// Each key comes twice, far apart and in another order, so that most cells have left memory in between.
fn write_input(path: &Path, keys: u64) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    for pass in 0..2 {
        for number in 0..keys {
            let key = if pass == 0 { number } else { (number * 7_919 + 13) % keys };
            writeln!(file, "{{\"k\":{key},\"v\":{}}}", value(key, pass)).unwrap();
        }
    }
    file.into_inner().unwrap();
}

fn write_pipeline(folder: &Path, budget: u64) -> PathBuf {
    let at = folder.display();
    let text = format!(
        "pipeline:
  transforms:
    - {{type: ReadFromJson, name: Read, config: {{path: '{at}/in.jsonl'}}}}
    - {{type: MapToFields, name: Long, input: Read, config: {{language: sql, fields: {{k: k, v: v, text: \"lpad(CAST(v AS VARCHAR), 12, '0') || repeat(chr(CAST(97 + k % 26 AS BIGINT)), {padding})\"}}}}}}
    - {{type: Combine, name: ByKey, input: Long, config: {{group_by: k, combine: {{n: count, sum: {{value: v, fn: sum}}, largest: {{value: text, fn: max}}}}}}}}
    - {{type: MapToFields, name: Short, input: ByKey, config: {{language: sql, fields: {{k: k, n: n, sum: sum, head: 'left(largest, 13)', length: 'length(largest)'}}}}}}
    - {{type: WriteToJson, name: Write, input: Short, config: {{path: '{at}/out.json'}}}}
options: {{pelton: {{parallelism: 2, checkpoint: {{interval: 200ms}}, state: {{backend: fjall, memory: {budget}MiB}}}}}}
",
        padding = TEXT - 12,
    );
    let pipeline = folder.join("pipeline.yaml");
    std::fs::write(&pipeline, text).unwrap();
    pipeline
}

/// Two lives: one is killed when nearly all of the state is in a checkpoint, the other goes on from there to the end.
#[test]
fn state_of_eight_times_its_budget_is_kept_and_restored_within_it() {
    let given = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number of MiB"));
    let state = given("PELTON_TEST_STATE_MIB").unwrap_or(STATE_MIB);
    let (keys, budget) = ((state << 20) / TEXT, given("PELTON_TEST_BUDGET_MIB").unwrap_or(state / SHARE));
    let folder = tempfile::tempdir().unwrap();
    write_input(&folder.path().join("in.jsonl"), keys);
    let pipeline = write_pipeline(folder.path(), budget);
    let place = folder.path().join("state");
    let start = || {
        let mut command = pelton(&["run", pipeline.to_str().unwrap(), "--quiet", "--state", place.to_str().unwrap()]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let mut first = start();
    let stored = wait_for("most of the state is in a checkpoint", 3_000, || {
        assert_eq!(first.try_wait().unwrap(), None, "it was to be killed in the middle");
        stored_bytes(&place).filter(|bytes| *bytes >= (state << 20) * KILLED_AT / 100)
    });
    let before = peak_of(&first);
    first.kill().unwrap();
    first.wait().unwrap();
    let (after, succeeded) = peak_until_end(start());
    assert!(succeeded);
    check(&folder.path().join("out.json-00000-of-00001"), keys);
    let left: Vec<_> = std::fs::read_dir(place.join("scratch")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?} are left over");
    println!("state={state} MiB budget={budget} MiB restored={} MiB peak={before} MiB peak_of_the_restored={after} MiB", stored >> 20);
    for peak in [before, after] {
        assert!(peak < budget + BEYOND_MIB + budget / AROUND + state / INDEX, "{peak} MiB at most for a budget of {budget} MiB");
    }
}

/// Bytes of the last checkpoint: `pipeline … epoch 7 generation 1: 3 segments, 1234 bytes`.
fn stored_bytes(place: &Path) -> Option<u64> {
    let said = run(&["state", "ls", place.to_str().unwrap()]);
    let line = said.out.lines().next()?;
    line.split_once(" segments, ")?.1.split_once(" bytes")?.0.parse().ok()
}

/// The most memory that a process has taken so far, MiB; 0 if it has ended.
fn peak_of(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

/// The same until its end, and whether it succeeded.
fn peak_until_end(mut child: Child) -> (u64, bool) {
    let mut peak = 0;
    let succeeded = wait_for("the end of the run", 3_000, || {
        peak = peak.max(peak_of(&child));
        child.try_wait().unwrap().map(|status| status.success())
    });
    (peak, succeeded)
}

fn check(out: &Path, keys: u64) {
    let mut seen = vec![false; keys as usize];
    for line in BufReader::new(std::fs::File::open(out).unwrap()).lines() {
        let row: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let key = row["k"].as_u64().unwrap();
        let values = [value(key, 0), value(key, 1)];
        let head = format!("{:012}{}", values.iter().max().unwrap(), char::from(b'a' + (key % 26) as u8));
        let want = serde_json::json!({"k": key, "n": 2, "sum": values.iter().sum::<u64>(), "head": head, "length": TEXT});
        assert_eq!(row, want);
        assert!(!std::mem::replace(&mut seen[key as usize], true), "{key} came out twice");
    }
    assert!(seen.iter().all(|seen| *seen), "keys are missing");
}
