//! Pipelines of a host against crashes and each other: what comes out is exact.

use pelton_tests::pelton::wait_for;
use pelton_tests::serve::{Host, PATIENCE, counting, deployment, expected, rows};
use serde_json::json;

#[test]
fn pipelines_survive_kills_of_the_host() {
    const KILLS: usize = 4;
    let mut host = Host::start(&[]);
    let count = 12_000;
    let expected = expected(&host, "orders", count);
    let out = host.path("orders");
    // One that stands still, and is to stand still.
    let still = host.path("still");
    host.well(&["deploy", &host.file("still.yaml", &counting("still", &still, 1_000_000, Some(1_000)))]);
    host.wait_for_epoch("still");
    host.well(&["pause", "still"]);
    // Slow enough to outlive the kills on any machine.
    host.well(&["deploy", &host.file("orders.yaml", &counting("orders", &out, count, Some(600)))]);
    for _ in 0..KILLS {
        host.wait_for_epoch("orders");
        assert_eq!(host.status("orders")["state"], "running", "the kill comes while it runs");
        host.kill();
        host.up();
        assert_eq!(host.status("still")["state"], "paused");
    }
    // And one end in good order.
    host.wait_for_epoch("orders");
    let said = host.terminate();
    assert!(said.contains("stopped"), "{said}");
    host.up();
    assert!(host.well(&["logs", "orders"]).contains("going on from a checkpoint"));
    host.wait_for("orders", "ended");
    assert_eq!(rows(&out), expected);
    println!("kills={KILLS} ends=1 rows={} lost=0 duplicated=0", expected.len());
    // What has ended has ended.
    host.kill();
    host.up();
    host.wait_for("orders", "ended");
    assert_eq!(rows(&out), expected);
}

#[test]
fn a_failing_pipeline_disturbs_no_other() {
    let host = Host::start(&[]);
    let count = 8_000;
    let expected = expected(&host, "good", count);
    let out = host.path("good");
    host.well(&["deploy", &host.file("good.yaml", &counting("good", &out, count, Some(2_000)))]);
    // Fails at a row that comes after a while; nothing handles it.
    let failing = "pipeline:
  type: chain
  transforms:
    - {type: GenerateEvents, config: {kind: transactions, rate: 500}}
    - {type: MapToFields, config: {language: sql, fields: {half: {expression: 10 / (CAST(amount AS BIGINT) % 7)}}}}
    - {type: WriteToJson, config: {path: {out}}}
options: {pelton: {name: failing, memory: 64MiB, weight: 10, parallelism: 1}}
";
    let failing = failing.replace("{out}", host.path("failing").to_str().unwrap());
    host.well(&["deploy", &host.file("failing.yaml", &failing)]);
    let failed = host.wait_for("failing", "failed");
    let message = failed["last_failure"]["message"].as_str().unwrap();
    assert!(message.contains("MapToFields") && message.contains("next:"), "{message}");
    let said = host.cli(&["status", "failing"]);
    assert!(said.code == 1 && said.out.contains("last failure"), "{said:?}");
    let logs = host.well(&["logs", "failing"]);
    assert!(logs.contains("ERROR") && logs.contains("MapToFields"), "{logs}");
    assert!(!host.well(&["logs", "good"]).contains("ERROR"));
    // It may be tried again, and fails again.
    let again = host.cli(&["resume", "failing"]);
    assert_eq!(again.code, 0, "{again:?}");
    wait_for("it fails again", PATIENCE, || {
        let status = host.status("failing");
        let at = &status["last_failure"]["at"];
        (status["state"] == "failed" && at.is_string() && *at != failed["last_failure"]["at"]).then_some(())
    });
    host.wait_for("good", "ended");
    assert_eq!(rows(&out), expected);
    let metrics = host.socket().get("/metrics").body;
    for part in [
        "pelton_pipeline_state{pipeline=\"failing\",state=\"failed\"} 1",
        "pelton_pipeline_state{pipeline=\"good\",state=\"ended\"} 1",
        &format!("pelton_rows_in_total{{pipeline=\"good\",transform=\"Read\",type=\"GenerateEvents\"}} {count}"),
        "pelton_checkpoint_epoch{pipeline=\"good\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(part), "{part} is not in\n{metrics}");
    }
}

#[test]
fn a_pipeline_stands_still_goes_on_and_is_drained() {
    let mut host = Host::start(&[]);
    let count = 6_000;
    let expected = expected(&host, "orders", count);
    let out = host.path("orders");
    let file = host.file("orders.yaml", &counting("orders", &out, count, Some(300)));
    host.well(&["deploy", &file]);
    host.wait_for_epoch("orders");
    assert!(host.well(&["pause", "orders"]).contains("orders is paused"));
    let read = || host.status("orders")["rows_read"].as_u64().unwrap();
    let (first, again) = (read(), read());
    assert!(first == again && first < count, "{first} {again}");
    // A savepoint of one that stands still, and of one that runs.
    assert!(host.well(&["savepoint", "orders", "paused"]).contains("savepoint of epoch"));
    assert!(host.well(&["resume", "orders"]).contains("orders is"));
    host.wait_for("orders", "running");
    host.wait_for_epoch("orders");
    assert!(host.well(&["savepoint", "orders"]).contains("savepoint of epoch"));
    let stopped = host.well(&["stop", "orders", "--savepoint", "last"]);
    assert!(stopped.contains("orders is stopped") && stopped.contains("savepoints/last"), "{stopped}");
    host.kill();
    host.up();
    assert_eq!(host.status("orders")["state"], "stopped", "somebody has stopped it");
    host.well(&["resume", "orders"]);
    host.wait_for("orders", "ended");
    assert_eq!(rows(&out), expected);
    let refused = host.cli(&["pause", "orders"]);
    assert!(refused.code == 2 && refused.err.contains("has ended"), "{refused:?}");

    // All open windows fire when it is drained.
    let drained = host.path("drained");
    host.well(&["deploy", &host.file("drained.yaml", &counting("drained", &drained, 1_000_000, Some(2_000)))]);
    host.wait_for_epoch("drained");
    host.well(&["drain", "drained"]);
    let status = host.wait_for("drained", "ended");
    let held: u64 = status["transforms"].as_array().unwrap().iter().filter_map(|one| one["held"].as_u64()).sum();
    let kept = status["transforms"][2]["rows_in"].as_u64().unwrap();
    let counted: u64 =
        rows(&drained).iter().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()["amounts"].as_u64().unwrap()).sum();
    assert_eq!((held, counted), (0, kept), "every row that was read is in a window that fired");
    // What does not run can be removed.
    host.well(&["remove", "drained"]);
    assert!(!host.data().join("pipelines/drained").exists());
    assert_eq!(host.cli(&["status", "drained"]).code, 2);
}

#[test]
fn logs_can_be_followed_and_the_page_is_printed() {
    let host = Host::start(&[]);
    let text = "pipeline:
  type: chain
  transforms:
    - {type: GenerateEvents, config: {kind: transactions, rate: 5}}
    - {type: LogForTesting, config: {prefix: 'seen: '}}
    - {type: WriteToJson, config: {path: {out}}}
options: {pelton: {name: talking, parallelism: 1}}
";
    let text = text.replace("{out}", host.path("talking").to_str().unwrap());
    assert_eq!(host.socket().post("/v1/pipelines", &deployment(&text)).status, 200);
    let mut last = 0;
    let mut seen = 0;
    wait_for("three followed entries of a transform", PATIENCE, || {
        let entries = host.socket().get(&format!("/v1/pipelines/talking/logs?after={last}&wait=5")).json();
        for entry in entries.as_array().unwrap() {
            assert_eq!(entry["number"].as_u64(), Some(last + 1), "none is missed: {entry}");
            last += 1;
            seen += u64::from(entry["message"].as_str().unwrap().contains("seen: "));
        }
        (seen >= 3).then_some(())
    });
    let file = std::fs::read_to_string(host.data().join("pipelines/talking/log.jsonl")).unwrap();
    assert!(file.lines().count() as u64 >= last, "{file}");
    let page = host.well(&["top", "--once"]);
    for part in ["Pelton", "talking", "running", "LogForTesting"] {
        assert!(page.contains(part), "{page}");
    }
    let list = host.well(&["list"]);
    assert!(list.starts_with("pipeline") && list.contains("talking"), "{list}");
    let svg = host.socket().get("/v1/pipelines/talking/graph");
    assert!(svg.body.starts_with("<svg") && svg.head.contains("image/svg+xml"), "{}", svg.head);
    let json: serde_json::Value = serde_json::from_str(&host.well(&["list", "--output", "json"])).unwrap();
    assert_eq!(json[0]["name"], json!("talking"));
}
