//! The author's loop: test, bench, stack traces, record and replay, build and swap on save.

use pelton_tests::life::Life;
use pelton_tests::pelton::{root, run, wait_for};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

pub fn component(name: &str) -> String {
    let path = root().join(format!("tests/.cache/components/{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path.display().to_string()
}

/// A crate of a plugin whose transform doubles `n`, refuses 0 and panics at 13.
fn doubling(folder: &Path) -> PathBuf {
    let said = run(&["plugin", "new", "doubling", "--dir", folder.join("doubling").to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    write_doubling(&folder.join("doubling"), "row.n * 2");
    folder.join("doubling")
}

fn write_doubling(dir: &Path, expression: &str) {
    let code = format!(
        "use pelton_sdk::prelude::*;\n\n#[derive(Row)]\nstruct Input {{\n    n: i64,\n}}\n\n#[derive(Row)]\nstruct Output {{\n    m: i64,\n}}\n\n#[inline(never)]\nfn check(n: i64) {{\n    assert!(n != 13, \"thirteen is poison\"); // line 15\n}}\n\n#[transform(append)]\nfn doubling(row: Input) -> Result<Output, String> {{\n    check(row.n);\n    if row.n == 0 {{\n        return Err(\"zero\".to_owned());\n    }}\n    Ok(Output {{ m: {expression} }})\n}}\n\nplugin!(doubling);\n\n#[cfg(test)]\nmod tests {{\n    #[test]\n    fn native() {{\n        super::check(1);\n    }}\n}}\n"
    );
    std::fs::write(dir.join("src/lib.rs"), code).unwrap();
}

#[test]
fn cases_pass_or_show_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = component("parse-log-masked");
    let cases = root().join("examples/plugin-lifecycle/plugins/parse-log-masked/cases");
    let said = run(&["plugin", "test", &plugin, "--cases", cases.to_str().unwrap()]);
    assert!(said.code == 0 && said.out.contains("sandbox: 1 passed, 0 failed"), "{said:?}");
    let wrong = folder.path().join("wrong.json");
    std::fs::write(&wrong, std::fs::read_to_string(cases.join("masks.json")).unwrap().replace("1.2.3.0", "1.2.3.9")).unwrap();
    let said = run(&["plugin", "test", &plugin, "--cases", wrong.to_str().unwrap()]);
    assert_eq!(said.code, 1, "{said:?}");
    for part in ["FAILED", "expected", "1.2.3.9", "1.2.3.0", "sandbox: 0 passed, 1 failed"] {
        assert!(said.out.contains(part), "`{part}` is not in\n{}", said.out);
    }
    std::fs::write(&wrong, "{\"input\": [], \"expectd\": []}").unwrap();
    let said = run(&["plugin", "test", &plugin, "--cases", wrong.to_str().unwrap()]);
    assert!(said.code == 2 && said.err.contains("expectd"), "{said:?}");
}

#[test]
fn a_stateful_case_has_watermarks_a_clock_and_late_rows() {
    let folder = tempfile::tempdir().unwrap();
    let case = json!({
        "transform": "counting", "key": ["user"], "timestamp": "at", "config": {},
        "schema": {"user": "string", "number": "integer", "at": "string", "id": "integer"},
        "windowing": {"type": "fixed", "size": "60s"},
        "input": [
            {"id": 1, "user": "a", "number": 2, "at": "2026-01-01T00:00:01Z"},
            {"id": 2, "user": "a", "number": 3, "at": "2026-01-01T00:00:02Z"},
            {"$watermark": "2026-01-01T00:02:00Z"},
            {"id": 3, "user": "a", "number": 5, "at": "2026-01-01T00:00:03Z"},
        ],
        "expected": [],
        "late": [{"id": 3, "window_start": "2026-01-01T00:00:00Z"}],
    });
    let file = folder.path().join("case.json");
    std::fs::write(&file, case.to_string()).unwrap();
    let said = run(&["plugin", "test", &component("counting"), "--cases", file.to_str().unwrap(), "--output", "json"]);
    let told: Value = serde_json::from_str(said.out.lines().next().unwrap_or_else(|| panic!("{said:?}"))).unwrap();
    // Two rows that were not expected, and no difference among the late ones.
    let outputs: Vec<&str> = told["differences"].as_array().unwrap().iter().map(|one| one["output"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["", ""], "{told}");
    let totals: Vec<&Value> = told["differences"].as_array().unwrap().iter().map(|one| &one["got"]["sum"]).collect();
    assert_eq!(totals, [2, 5], "{told}");
}

#[test]
fn a_crate_is_tested_in_the_sandbox_and_natively_and_traces_show_lines() {
    let folder = tempfile::tempdir().unwrap();
    let dir = doubling(folder.path());
    std::fs::create_dir(dir.join("cases")).unwrap();
    let case = json!({
        "input": [{"n": 1}, {"n": 0}, {"n": 13}, {"n": 4}],
        "expected": [{"n": 1, "m": 2}, {"n": 4, "m": 8}],
        "errors": ["zero", {"msg": "thirteen is poison", "stack": "doubling::check at src/lib.rs:15"}],
    });
    std::fs::write(dir.join("cases/double.json"), case.to_string()).unwrap();
    let said = run(&["plugin", "test", dir.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    for part in ["sandbox double/1 ... ok", "native test tests::native ... ok", "native:  cargo test passed"] {
        assert!(said.out.contains(part), "`{part}` is not in\n{}", said.out);
    }
    swaps_on_save(folder.path(), &dir);
}

#[test]
fn a_measurement_has_a_line_for_each_size_of_a_batch() {
    let said = run(&["plugin", "bench", &component("parse-log-masked"), "--rows", "2000", "--output", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sizes: Vec<u64> = lines.iter().map(|line| line["batch_rows"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [1, 64, 1_024, 8_192]);
    assert!(
        lines
            .iter()
            .all(|line| line["rows_per_second"].as_f64().unwrap() > 0.0 && line["p99_micros"].as_f64() >= line["p50_micros"].as_f64())
    );
}

/// Runs a pipeline without end until it can be told something.
fn running(folder: &Path, transforms: &str, provider: &str) -> (Life, String) {
    let (file, state) = (folder.join("pipeline.yaml"), folder.join("state"));
    let text = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: GenerateEvents, config: {{kind: transactions, rate: 2000, interval: 10ms, devices: 20}}}}\n{transforms}    - {{type: WriteToJson, config: {{path: '{}/out'}}}}\nproviders:\n  - {provider}\n",
        folder.display()
    );
    std::fs::write(&file, text).unwrap();
    let state = state.display().to_string();
    let mut life =
        Life::start(&["run", file.to_str().unwrap(), "--state", &state, "--parallelism", "2", "--quiet"], &[], &folder.join("log"));
    wait_for("the pipeline listens", 300, || {
        assert!(life.ended().is_none(), "{}", life.said());
        UnixStream::connect(Path::new(&state).join("control.sock")).ok()
    });
    (life, state)
}

/// `pelton plugin dev`: what does not compile is told, what is saved runs, and at the end what ran before.
fn swaps_on_save(folder: &Path, dir: &Path) {
    let provider = format!("{{type: wasm, config: {{plugin: '{}'}}, transforms: {{Double: doubling}}}}", dir.display());
    let transforms =
        "    - {type: MapToFields, config: {language: sql, fields: {n: 'customer_id + 100'}}}\n    - {type: Double, name: Double}\n";
    let (_life, state) = running(folder, transforms, &provider);
    let log = folder.join("dev.log");
    let mut dev = Life::start(&["plugin", "dev", &state, "Double", dir.to_str().unwrap(), "--rollback-at-exit"], &[], &log);
    let mut said = |part: &str| {
        wait_for(&format!("`{part}`"), 300, || {
            let said = dev.said();
            assert!(dev.ended().is_none(), "{said}");
            said.contains(part).then_some(())
        })
    };
    said("swap 1: made");
    write_doubling(dir, "row.n *");
    said("not built");
    write_doubling(dir, "row.n * 3");
    said("swap 2: made");
    dev.signal("INT");
    assert!(dev.wait(300).success(), "{}", dev.said());
    assert!(dev.said().contains("swap 3: made"), "{}", dev.said());
    let said = run(&["plugin", "history", &state, "--output", "json"]);
    let history: Value = serde_json::from_str(said.out.trim()).unwrap();
    assert_eq!(history[0]["changes"][0]["from"]["plugin"], history[2]["changes"][0]["to"]["plugin"], "{history}");
}

#[test]
fn a_recording_runs_again_with_the_same_rows_and_shows_what_another_version_changes() {
    for (name, transform, key) in [("stateless", "mark", ""), ("stateful", "counting", "key: [user]")] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let provider = format!("{{type: wasm, config: {{plugin: '{}'}}, transforms: {{Try: {transform}}}}}", component("counting"));
        let transforms = format!(
            "    - {{type: MapToFields, config: {{language: sql, fields: {{id: customer_id, user: 'CAST(customer_id AS VARCHAR)', number: customer_id}}}}}}\n    - {{type: Try, name: Try, config: {{{key}}}}}\n"
        );
        let (mut life, state) = running(dir, &transforms, &provider);
        let file = dir.join("try.recording");
        let file = file.to_str().unwrap();
        let said = run(&["replay", "record", &state, "Try", "--rows", "500", "--out", file]);
        assert_eq!(said.code, 0, "{name}: {}\n{}", said.err, life.said());
        assert_eq!(said.out.contains("from the state of epoch"), name == "stateful", "{}", said.out);
        let same = run(&["replay", "run", file, "--plugin", &component("counting"), "--compare"]);
        assert!(same.code == 0 && same.out.contains("the same: "), "{name}: {same:?}");
        let tested = run(&["plugin", "test", &component("counting"), "--cases", file]);
        assert!(tested.code == 0 && tested.out.contains("sandbox: 1 passed"), "{name}: {tested:?}");
        let other = run(&["replay", "run", file, "--plugin", &component("counting-next"), "--compare"]);
        assert!(other.code == 1 && other.out.contains("rows differ"), "{name}: {other:?}");
        life.signal("TERM");
        assert!(life.wait(300).success(), "{}", life.said());
    }
}
