//! What a deployment changes, what is kept of it, and the way back.

use pelton_tests::pelton::root;
use pelton_tests::serve::{Host, counting, rows};
use serde_json::Value;
use std::collections::BTreeMap;

/// A stream of rows that carry a number of the version.
pub fn versioned(out: &std::path::Path, version: u64) -> String {
    format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: transactions, seed: 3, count: 6000, rate: 250}}}}
    - {{type: MapToFields, name: Mark, config: {{language: sql, append: true, fields: {{version: '{version}'}}}}}}
    - {{type: WriteToJson, name: Write, config: {{path: {}}}}}
options:
  pelton: {{name: marked, parallelism: 1, checkpoint: {{interval: 200ms}}}}
",
        out.display()
    )
}

#[test]
fn versions_are_compared_kept_and_returned_to() {
    let mut host = Host::start(&[]);
    let out = host.path("marked");
    let file = host.file("marked.yaml", &versioned(&out, 1));
    // A dry run shows and does nothing.
    let shown = host.well(&["deploy", &file, "--dry-run"]);
    assert!(shown.contains("marked: new") && shown.contains("+ Mark (MapToFields)"), "{shown}");
    assert_eq!(host.well(&["list", "--output", "json"]).trim(), "[]");
    host.well(&["deploy", &file, "--note", "the first"]);
    host.wait_for_epoch("marked");
    let same = host.well(&["deploy", &file]);
    assert!(same.contains("nothing changes, version 1 stays"), "{same}");

    host.file("marked.yaml", &versioned(&out, 2));
    let shown = host.well(&["deploy", &file, "--dry-run"]);
    assert!(shown.contains("~ Mark (MapToFields)") && !shown.contains("Read (") && !shown.contains("Write ("), "{shown}");
    assert_eq!(host.status("marked")["version"], 1);
    let since = host.status("marked")["since"].clone();
    host.well(&["deploy", &file, "--note", "the second"]);
    host.wait_for_epoch("marked");
    assert_eq!(host.status("marked")["since"], since, "an expression is swapped while the pipeline runs");

    // One that cannot take over leaves the one that runs.
    let wrong = versioned(&out, 3).replace("version: '3'", "version: nothing");
    host.file("marked.yaml", &wrong);
    let refused = host.cli(&["deploy", &file]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("nothing") && refused.err.contains("version 2 goes on"), "{}", refused.err);
    assert_eq!(host.status("marked")["state"], "running");
    assert_eq!(host.status("marked")["version"], 2);
    // Nor does one that needs a start, and does not start.
    host.file("marked.yaml", &versioned(&out, 2).replace("config: {path: ", "config: {path: /proc/nowhere"));
    let refused = host.cli(&["deploy", &file]);
    assert!(refused.code == 2 && refused.err.contains("version 2 goes on"), "{refused:?}");
    host.wait_for("marked", "running");
    assert_eq!(host.status("marked")["version"], 2);
    host.wait_for_epoch("marked");

    let back = host.well(&["rollback", "marked", "--to", "1", "--note", "the second was wrong"]);
    assert!(back.contains("~ Mark (MapToFields)") && back.contains("marked runs as version 5"), "{back}");
    let history: Value = serde_json::from_str(&host.well(&["history", "marked", "--output", "json"])).unwrap();
    let brief: Vec<(u64, Option<u64>, bool)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["version"].as_u64().unwrap(), one["rollback_of"].as_u64(), one["current"] == true))
        .collect();
    assert_eq!(brief, [(1, None, false), (2, None, false), (3, None, false), (4, None, false), (5, Some(1), true)]);
    assert_eq!(history[4]["note"], "the second was wrong");
    // Those that did not take over say why, there and in the log.
    let why = |at: usize| history[at]["refused"].as_str().unwrap_or_default().to_string();
    assert!(why(2).contains("cannot take over") && why(3).contains("did not start") && why(1).is_empty(), "{history}");
    assert_eq!(host.well(&["history", "marked"]).matches("refused").count(), 2);
    let said = host.well(&["logs", "marked"]);
    assert!(said.contains("took over while the pipeline ran") && said.matches("the version was refused").count() == 2, "{said}");
    // All of it is there after a crash.
    host.kill();
    host.up();
    assert!(host.well(&["history", "marked"]).contains("back to 1"));
    let said = host.well(&["logs", "marked"]);
    assert!(!said.contains("does not hold any more"), "a deployment that took over in place is no change of the file: {said}");
    host.wait_for("marked", "ended");
    let mut by_version: BTreeMap<String, usize> = BTreeMap::new();
    let rows = rows(&out);
    for row in &rows {
        let row: Value = serde_json::from_str(row).unwrap();
        *by_version.entry(row["version"].to_string()).or_default() += 1;
    }
    println!("rows={} by_version={by_version:?}", rows.len());
    assert_eq!(rows.len(), 6_000, "each row once, by one version: {by_version:?}");
    assert_eq!(by_version.len(), 2, "{by_version:?}");
}

#[test]
fn the_audit_log_is_complete() {
    let mut host = Host::start(&[]);
    let out = host.path("orders");
    let file = host.file("orders.yaml", &counting("orders", &out, 1_000_000, Some(500)));
    host.well(&["deploy", &file]);
    host.wait_for_epoch("orders");
    host.well(&["pause", "orders"]);
    host.well(&["resume", "orders"]);
    host.well(&["rollback", "orders", "--to", "1"]);
    assert_eq!(host.cli(&["rollback", "orders", "--to", "77"]).code, 2);
    host.well(&["savepoint", "orders", "one"]);
    host.well(&["stop", "orders"]);
    host.well(&["remove", "orders"]);
    host.kill();
    host.up();
    let audit = host.audit();
    let actions: Vec<String> = audit
        .iter()
        .filter(|line| line["phase"] == "done")
        .map(|line| format!("{} {}", line["action"].as_str().unwrap(), line["result"].as_str().unwrap()))
        .collect();
    let expected = [
        "deploy ok",
        "deploy ok",
        "pause ok",
        "resume ok",
        "rollback ok",
        "rollback ok",
        "rollback refused",
        "savepoint ok",
        "stop ok",
        "remove ok",
    ];
    assert_eq!(actions, expected, "a dry run is a line, too");
    // Each change begins before it is done, and says who and with what.
    for done in audit.iter().filter(|line| line["phase"] == "done") {
        let begun = audit.iter().position(|line| line["phase"] == "begun" && line["id"] == done["id"]).expect("it has begun");
        assert!(begun < audit.iter().position(|line| line == done).unwrap());
        assert!(done["who"].as_str().unwrap().starts_with("uid ") && done["role"] == "admin", "{done}");
        assert_eq!(done["pipeline"], "orders", "{done}");
    }
    let refused = audit.iter().find(|line| line["result"] == "refused").unwrap();
    assert!(refused["why"].as_str().unwrap().contains("no version 77"), "{refused}");
    let asked = host.socket().get("/v1/audit?limit=3").json();
    assert_eq!(asked.as_array().unwrap().as_slice(), &audit[audit.len() - 3..]);
}

#[test]
fn plugins_are_sent_once_and_pinned() {
    let mut host = Host::start(&[]);
    let component = root().join("tests/.cache/components/parse-log.wasm");
    let plugin = host.path("parse.wasm");
    std::fs::copy(&component, &plugin).unwrap();
    let out = host.path("parsed");
    let text = format!(
        "pipeline:
  type: chain
  transforms:
    - {{type: GenerateEvents, name: Read, config: {{kind: web_access, count: 3000, rate: 200}}}}
    - {{type: ParseLog, name: Parse}}
    - {{type: WriteToJson, name: Write, config: {{path: {}}}}}
providers:
  - {{type: wasm, config: {{plugin: parse.wasm}}, transforms: {{ParseLog: parse-log}}}}
options:
  pelton: {{name: parsing, parallelism: 1, checkpoint: {{interval: 200ms}}}}
",
        out.display()
    );
    let file = host.file("parsing.yaml", &text);
    let shown = host.well(&["deploy", &file]);
    assert!(shown.contains("plugin") && shown.contains("sha256:"), "{shown}");
    let plugins = host.socket().get("/v1/plugins").json();
    assert_eq!(plugins.as_array().unwrap().len(), 1, "{plugins}");
    let digest = plugins[0]["digest"].as_str().unwrap();
    // The host has its own: what becomes of the file is nothing to it.
    std::fs::remove_file(&plugin).unwrap();
    host.wait_for_epoch("parsing");
    host.kill();
    host.up();
    host.wait_for("parsing", "ended");
    assert_eq!(rows(&out).len(), 3_000);
    let history = host.socket().get("/v1/pipelines/parsing/history").json();
    assert!(history[0]["plugins"].to_string().contains(digest), "{history}");
    let audit = host.audit();
    let uploads = audit.iter().filter(|line| line["action"] == "upload" && line["phase"] == "done");
    assert_eq!(uploads.filter(|line| line["digests"][0] == digest).count(), 1);
    let deploys: Vec<_> = audit.iter().filter(|line| line["action"] == "deploy" && line["result"] == "ok").collect();
    assert!(deploys.iter().all(|line| line["digests"][0] == digest), "{deploys:?}");
}
