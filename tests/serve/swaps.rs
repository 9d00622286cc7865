//! Swaps of what a host runs: each is a version of the pipeline, survives the host, and stands in the audit log.

use crate::versions::versioned;
use pelton_tests::pelton::{root, wait_for};
use pelton_tests::serve::{Host, PATIENCE, rows};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Rows that the pipeline could have: more than come while a test lasts.
const COUNT: usize = 1_000_000;

/// The pipeline whose rows carry a version.
fn deployed(host: &Host) -> (String, std::path::PathBuf) {
    let out = host.path("marked");
    let text = versioned(&out, 1).replace("count: 6000", &format!("count: {COUNT}")).replace("rate: 250", "rate: 1000");
    let file = host.file("marked.yaml", &text);
    host.well(&["deploy", &file]);
    host.wait_for_epoch("marked");
    (file, out)
}

/// The config by which rows carry a version.
fn config(version: u64) -> String {
    json!({"language": "sql", "append": true, "fields": {"version": version.to_string()}}).to_string()
}

fn swap(host: &Host, version: u64) -> Value {
    let said = host.well(&["plugin", "swap", "marked", "Mark", "--config", &config(version), "--output", "json"]);
    serde_json::from_str(said.trim()).unwrap()
}

/// Rows that were read before each swap.
fn cuts(host: &Host, pipeline: &str) -> Vec<u64> {
    let swaps = host.socket().get(&format!("/v1/pipelines/{pipeline}/swaps")).json();
    let cut = |swap: &Value| {
        let position: Value = serde_json::from_str(swap["positions"]["Read"]["generated:0:Read"].as_str().unwrap()).unwrap();
        position["sent"].as_u64().unwrap()
    };
    swaps.as_array().unwrap().iter().map(cut).collect()
}

/// Drains it: each row is there once, with the version that the cuts say; `versions` are those of the file and then of each swap.
fn check(host: &Host, out: &Path, versions: &[u64]) {
    host.well(&["drain", "marked"]);
    host.wait_for("marked", "ended");
    let rows: Vec<Value> = rows(out).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    // The generator numbers its rows, without gaps.
    let number = |row: &Value| row["transaction_id"].as_str().unwrap()[1..].parse::<usize>().unwrap();
    let numbers: BTreeSet<usize> = rows.iter().map(number).collect();
    let ends = [numbers.first(), numbers.last()].map(|end| *end.unwrap());
    assert_eq!((numbers.len(), ends[1] - ends[0] + 1), (rows.len(), rows.len()), "each row is there once");
    let cuts = cuts(host, "marked");
    assert_eq!(cuts.len() + 1, versions.len(), "{cuts:?}");
    let mut expected: Vec<(u64, usize)> = Vec::new();
    for (number, version) in versions.iter().enumerate() {
        let from = if number == 0 { 0 } else { cuts[number - 1] };
        let to = cuts.get(number).copied().unwrap_or(rows.len() as u64);
        expected.push((*version, (to - from) as usize));
    }
    for version in versions {
        let wanted: usize = expected.iter().filter(|(one, _)| one == version).map(|(_, rows)| rows).sum();
        let found = rows.iter().filter(|row| row["version"] == *version).count();
        assert_eq!(found, wanted, "rows of version {version}, with {expected:?}");
    }
    println!("rows={} versions={expected:?}", rows.len());
}

#[test]
fn a_swap_is_a_version_that_stays() {
    let mut host = Host::start(&[]);
    let (file, out) = deployed(&host);
    let since = host.status("marked")["since"].clone();
    let tried = host.well(&["plugin", "swap", "marked", "Mark", "--config", &config(2), "--dry-run"]);
    assert!(tried.contains("nothing was changed") && host.status("marked")["version"] == 1, "{tried}");
    let said = host.well(&["plugin", "swap", "marked", "Mark", "--config", &config(2), "--note", "ticket 7", "--watch", "1"]);
    assert!(said.contains("swap 1: made after epoch") && said.contains("version 2 of the pipeline runs"), "{said}");
    let status = host.status("marked");
    assert_eq!((&status["version"], &status["since"], &status["changes"][0]["transform"]), (&json!(2), &since, &json!("Mark")), "{status}");
    // Also after a crash; nobody is told that anything does not hold.
    host.kill();
    host.up();
    host.wait_for("marked", "running");
    assert!(host.well(&["status", "marked"]).contains("swapped Mark: config"));
    assert!(host.well(&["history", "marked"]).contains("ticket 7"));
    assert!(!host.well(&["logs", "marked"]).contains("does not hold any more"));
    assert!(host.well(&["plugin", "history", "marked"]).contains("swap 1 after epoch"));
    let back = host.well(&["plugin", "rollback", "marked", "Mark", "--output", "json"]);
    let back: Value = serde_json::from_str(back.trim()).unwrap();
    assert_eq!((&back["number"], &back["version"]), (&json!(2), &json!(3)), "{back}");
    host.well(&["rollback", "marked", "--to", "2"]);
    assert_eq!(host.status("marked")["changes"], status["changes"]);
    // The file says something else than what runs, and a deployment shows it.
    let shown = host.well(&["deploy", &file, "--dry-run"]);
    assert!(shown.contains("~ Mark (MapToFields)"), "{shown}");
    let wrong = host.cli(&["plugin", "swap", "marked", "Mark", "--config", r#"{"language": "sql", "fields": {"v": "nothing"}}"#]);
    assert!(wrong.code == 2 && wrong.err.contains("nothing") && host.status("marked")["version"] == 4, "{wrong:?}");
    check(&host, &out, &[1, 2, 1, 2]);
}

#[test]
fn a_swap_that_a_crash_cuts_off_is_made_and_its_version_is_known() {
    let mut host = Host::start(&[]);
    let (_, out) = deployed(&host);
    let mut versions = vec![1];
    for step in ["swap.armed", "swap.cut", "swap.decided", "swap.made"] {
        let version = host.status("marked")["version"].as_u64().unwrap();
        host.kill();
        host.up_with(&[("PELTON_FAILPOINT", step)]);
        host.wait_for("marked", "running");
        let number = versions.len() as u64 + 10;
        assert_ne!(host.cli(&["plugin", "swap", "marked", "Mark", "--config", &config(number)]).code, 0);
        let said = host.dies();
        assert!(said.contains(&format!("failpoint {step}")), "{said}");
        host.up();
        wait_for("the version of the swap runs", PATIENCE, || (host.status("marked")["version"] == version + 1).then_some(()));
        versions.push(number);
    }
    check(&host, &out, &versions);
}

#[test]
fn candidates_are_promoted_or_taken_back_and_the_audit_log_says_so() {
    let host = Host::start(&[]);
    let (_, out) = deployed(&host);
    // Of the clock only the length of a canary's look counts here.
    let looked = ["--rows", "50", "--slower", "1000000", "--output", "json"];
    let candidate = |way: &[&str], version: u64| {
        let config = config(version);
        let said = host.cli(&[&["plugin", way[0], "marked", "Mark", "--config", &config], &way[1..], &looked].concat());
        (said.code, serde_json::from_str::<Value>(said.out.trim()).unwrap_or_else(|_| panic!("{said:?}")))
    };
    let (code, told) = candidate(&["shadow", "--differing", "0.5", "--seconds", "60"], 2);
    assert_eq!(code, 1, "{told}");
    assert!(told["rolled_back"].as_str().unwrap().contains("differ") && told["version"] == 1, "{told}");
    // A row of this pipeline has no key: its place says on which side it is.
    let (code, told) = candidate(&["canary", "--percent", "30,60", "--promote", "--seconds", "2"], 3);
    assert_eq!((code, &told["promoted"]["number"], &told["version"]), (0, &json!(1), &json!(2)), "{told}");
    assert_eq!(host.status("marked")["version"], 2);
    assert_eq!(swap(&host, 4)["number"], 2);
    // Nobody makes the host read its own files.
    let body = json!({"changes": [{"transform": "Mark", "plugin": "/etc/hostname"}]});
    let answer =
        host.socket().ask("POST", "/v1/pipelines/marked/swaps", &[("Content-Type", "application/json")], body.to_string().as_bytes());
    assert_eq!(answer.status, 409, "{answer:?}");
    let audit = host.audit();
    let done: Vec<String> = audit
        .iter()
        .filter(|line| line["phase"] == "done")
        .map(|line| format!("{} {} {}", line["action"].as_str().unwrap(), line["result"].as_str().unwrap(), line["version"]))
        .collect();
    let expected = ["deploy ok null", "deploy ok 1", "candidate taken back 1", "candidate ok 2", "swap ok 3", "swap refused null"];
    assert_eq!(done, expected);
    let taken_back = audit.iter().find(|line| line["result"] == "taken back").unwrap();
    assert!(taken_back["why"].as_str().unwrap().contains("differ"), "{taken_back}");
    host.well(&["stop", "marked"]);
    let rows: Vec<Value> = rows(&out).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["version"] != 2), "a shadow is not seen");
}

/// A plugin's aggregate becomes another version by a swap, by a deployment and by the way back; its accumulator goes through all of them.
#[test]
fn aggregates_are_swapped_deployed_and_taken_back() {
    let mut host = Host::start(&[]);
    let out = host.path("sums");
    let component = |name: &str| root().join(format!("tests/.cache/components/{name}.wasm")).display().to_string();
    let text = |plugin: &str, config: &str| {
        format!(
            "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, interval: 1ms, rate: 1000}}}}
    - {{type: MapToFields, name: One, config: {{language: sql, fields: {{all: \"'all'\", number: 'CAST(1 AS BIGINT)'}}}}}}
    - {{type: Combine, name: Sums, windowing: {{type: fixed, size: 864000s}}, config: {{group_by: all, combine: {{tally: {{value: number, fn: {{type: Tally{config}}}}}, n: count}}}}}}
    - {{type: WriteToJson, name: Write, config: {{path: '{}'}}}}
providers: [{{type: wasm, config: {{plugin: '{}'}}, transforms: {{Tally: tally}}}}]
options: {{pelton: {{name: sums, parallelism: 1, checkpoint: {{interval: 200ms}}}}}}
",
            out.display(),
            component(plugin)
        )
    };
    host.well(&["deploy", &host.file("sums.yaml", &text("counting", ""))]);
    host.wait_for_epoch("sums");
    let since = host.status("sums")["since"].clone();
    host.well(&["plugin", "swap", "sums", "Sums.tally", &component("counting-next")]);
    host.well(&["plugin", "swap", "sums", "Sums", "--config", r#"{"plus": 100}"#]);
    let back = host.well(&["plugin", "rollback", "sums", "Sums.tally"]);
    assert!(back.contains("swap 3: made"), "{back}");
    // A file that says something else wins over what was swapped on top of the one before.
    host.well(&["deploy", &host.file("sums.yaml", &text("counting-next", ", config: {plus: 7}"))]);
    assert_eq!(host.status("sums")["since"], since, "all of it without a start");
    host.kill();
    host.up();
    host.wait_for("sums", "running");
    host.wait_for_epoch("sums");
    host.well(&["drain", "sums"]);
    host.wait_for("sums", "ended");
    let rows: Vec<Value> = rows(&out).iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    // Of each stretch between two cuts: the version of the plugin, and what it adds to each value.
    let cuts = cuts(&host, "sums");
    let all = row["n"].as_u64().unwrap();
    let ends: Vec<u64> = cuts.iter().copied().chain([all]).collect();
    let (mut tally, mut from) = ([0; 3], 0);
    for ((version, plus), to) in [(1, 0), (2, 0), (2, 100), (2, 0), (2, 7)].into_iter().zip(ends) {
        tally[0] += (to - from) * (1 + plus);
        tally[version] += to - from;
        from = to;
    }
    println!("rows={all} cuts={cuts:?} tally={}", row["tally"]);
    assert_eq!((cuts.len(), row["tally"].as_str().unwrap()), (4, &*format!("{} {} {} 0", tally[0], tally[1], tally[2])));
}
