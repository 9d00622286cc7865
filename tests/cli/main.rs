//! What a user sees who gets it wrong: one clear message, the right exit code, never a hang, never a crash.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod asked;
mod authoring;
mod compile;
mod disk;
mod docs;
mod macros;
mod registry;

use pelton_tests::pelton::{pelton, root, run, wait_for};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

/// Writes a pipeline and gives its path.
fn pipeline(folder: &Path, text: &str) -> String {
    let path = folder.join("pipeline.yaml");
    std::fs::write(&path, text.replace("{dir}", folder.to_str().unwrap())).unwrap();
    path.to_str().unwrap().into()
}

/// Runs a pipeline that must fail with `code` and say all of `parts`.
fn fails(folder: &Path, text: &str, code: i32, parts: &[&str]) {
    let path = pipeline(folder, text);
    let said = run(&["run", &path, "--quiet"]);
    assert_eq!(said.code, code, "{text}\n{}", said.err);
    for part in parts {
        assert!(said.err.contains(part), "`{part}` is not in\n{}", said.err);
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

/// A chain of a source and a sink.
fn reading(source: &str) -> String {
    format!("pipeline:\n  type: chain\n  transforms:\n    - {source}\n    - {{type: WriteToJson, config: {{path: '{{dir}}/out'}}}}\n")
}

#[test]
fn a_broken_file_is_told_in_one_go_with_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = pipeline(
        folder.path(),
        "pipeline:\n  transforms:\n    - {type: Creat, name: A, config: {elements: [1]}}\n    - {type: Filter, name: B, input: Aa, config: {keep: x, kep: y}}\n    - {type: WriteToJson, name: C, input: B, config: {pth: /tmp/x}}\n",
    );
    let said = run(&["lint", &path]);
    assert_eq!(said.code, 2, "{said:?}");
    for part in ["pipeline.yaml:3:", "Create", "pipeline.yaml:4:", "Aa", "kep", "keep", "pipeline.yaml:5:", "pth", "path"] {
        assert!(said.err.contains(part), "`{part}` is not in\n{}", said.err);
    }
}

#[test]
fn structure_is_checked_at_every_level() {
    let folder = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("", "pipeline"),
        ("[1, 2]", "mapping"),
        ("pipeline: 3", "mapping"),
        ("pipeline: {transforms: 3}", "list"),
        ("pipeline: {transforms: [3]}", "mapping"),
        ("pipeline:\n\ttransforms: []", "tab"),
        ("pipeline: {transforms: [{type: Flatten, name: A, input: B}, {type: Flatten, name: B, input: A}]}", "cycle"),
        ("pipeline: {transforms: [{type: Flatten, name: A, input: A}]}", "A"),
        ("pipeline: {transforms: [}", "pipeline.yaml:1"),
        ("pipeline: {transforms: [{type: Create, config: {elements: [1]}, windowing: {type: fixed, size: -3}}]}", "size"),
        ("pipeline: {transforms: []}\noptions: {pelton: {paralelism: 2}}", "parallelism"),
        ("pipeline: {transforms: [{type: Create, config: {elements: {{ rows }}}}]}", "--set rows="),
    ] {
        let path = pipeline(folder.path(), text);
        let said = run(&["lint", &path]);
        assert_eq!(said.code, 2, "{text}: {said:?}");
        assert!(said.err.contains(part), "`{part}` is not in the answer to {text}\n{}", said.err);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for reader in ["ReadFromText", "ReadFromJson", "ReadFromCsv"] {
        fails(dir, &reading(&format!("{{type: {reader}, config: {{path: '{{dir}}/absent.txt'}}}}")), 2, &["absent.txt"]);
        fails(dir, &reading(&format!("{{type: {reader}, config: {{path: '{{dir}}/*.none'}}}}")), 2, &["*.none"]);
        fails(dir, &reading(&format!("{{type: {reader}, config: {{path: '{{dir}}'}}}}")), 2, &[dir.to_str().unwrap()]);
    }
    let said = run(&["run", dir.join("absent.yaml").to_str().unwrap()]);
    assert_eq!((said.code, said.err.contains("absent.yaml")), (2, true), "{said:?}");
}

#[test]
fn odd_data_becomes_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut text = b"{\"n\": 1}\nnot json\n{\"n\": \"text\"}\n\xff\xfe\n".to_vec();
    text.extend(b"{\"n\": 1, \"pad\": \"");
    text.extend(vec![b'x'; 17 << 20]);
    text.extend(b"\"}\n{\"n\": 2}\n");
    std::fs::write(dir.join("in.jsonl"), text).unwrap();
    let path = pipeline(
        dir,
        "pipeline:\n  transforms:\n    - {type: ReadFromJson, name: R, config: {path: '{dir}/in.jsonl', schema: {type: object, properties: {n: {type: integer}}}, error_handling: {output: bad}}}\n    - {type: WriteToJson, name: Good, input: R, config: {path: '{dir}/good'}}\n    - {type: WriteToJson, name: Bad, input: R.bad, config: {path: '{dir}/bad'}}\n",
    );
    let said = run(&["run", &path, "--quiet"]);
    assert_eq!(said.code, 0, "{said:?}");
    let good = pelton_tests::pelton::json_rows(&dir.join("good"));
    assert_eq!(pelton_tests::pelton::sorted(good), ["{\"n\":1}", "{\"n\":2}"]);
    let bad = pelton_tests::pelton::json_rows(&dir.join("bad"));
    let mut lines: Vec<u64> = bad.iter().map(|row| row["position"]["line"].as_u64().unwrap()).collect();
    lines.sort();
    assert_eq!(lines, [2, 3, 4, 5]);
}

#[test]
fn event_times_at_the_edges_are_kept_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let times = ["\"1969-07-20T20:17:40Z\"", "\"2500-01-01T00:00:00Z\"", "\"yesterday\"", "1e300", "null", "\"+900000-01-01T00:00:00Z\""];
    for (number, time) in times.iter().enumerate() {
        let path = pipeline(
            dir,
            &format!(
                "pipeline:\n  transforms:\n    - {{type: Create, name: C, config: {{elements: [{{t: {time}, k: 1}}]}}}}\n    - {{type: AssignTimestamps, name: T, input: C, config: {{timestamp: t, error_handling: {{output: bad}}}}}}\n    - {{type: Combine, name: N, input: T, windowing: {{type: fixed, size: 1h}}, config: {{group_by: k, combine: {{n: count}}}}}}\n    - {{type: ExtractWindowingInfo, name: W, input: N, config: {{fields: {{start: window_start}}}}}}\n    - {{type: WriteToJson, name: Good, input: W, config: {{path: '{{dir}}/good{number}'}}}}\n    - {{type: WriteToJson, name: Bad, input: T.bad, config: {{path: '{{dir}}/bad{number}'}}}}\n"
            ),
        );
        let said = run(&["run", &path, "--quiet", "--output", "json"]);
        assert_eq!(said.code, 0, "{time}: {said:?}");
        let summary: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let node = summary["transforms"].as_array().unwrap().iter().find(|node| node["name"] == "T").unwrap();
        assert_eq!(node["errors"].as_u64(), Some(u64::from(number >= 2)), "{time}");
    }
    let first = pelton_tests::pelton::json_rows(&dir.join("good0"));
    assert_eq!(first[0]["start"], "1969-07-20T20:00:00Z");
}

#[test]
fn numbers_that_json_cannot_say_are_refused_by_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let text = "pipeline:\n  type: chain\n  transforms:\n    - {type: Create, config: {elements: [{x: 0.0}]}}\n    - {type: MapToFields, config: {language: sql, fields: {y: \"CAST('NaN' AS DOUBLE) + x\"}}}\n    - {type: WriteToJson, name: Out, config: {path: '{dir}/out'}}\n";
    fails(folder.path(), text, 1, &["Out", "NaN"]);
}

#[test]
fn files_that_are_no_plugins_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let component = std::fs::read(root().join("tests/.cache/components/parse-log.wasm")).expect("run `cargo xtask setup` first");
    std::fs::write(dir.join("truncated.wasm"), &component[..component.len() / 2]).unwrap();
    std::fs::write(dir.join("core.wasm"), b"\0asm\x01\0\0\0").unwrap();
    std::fs::write(dir.join("text.wasm"), "hello").unwrap();
    for name in ["truncated.wasm", "core.wasm", "text.wasm", "absent.wasm"] {
        let text = format!(
            "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: [{{line: x}}]}}}}\n    - {{type: P, config: {{}}}}\n    - {{type: WriteToJson, config: {{path: '{{dir}}/out'}}}}\nproviders:\n  - {{type: wasm, config: {{plugin: '{{dir}}/{name}'}}, transforms: {{P: parse-log}}}}\n"
        );
        fails(dir, &text, 2, &[name]);
    }
    let said = run(&["plugin", "inspect", dir.join("core.wasm").to_str().unwrap()]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("core module"), "{}", said.err);
}

#[test]
fn a_plugin_that_fails_on_a_row_gives_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let text = format!(
        "pipeline:\n  transforms:\n    - {{type: Create, name: C, config: {{elements: [{{line: 'not json'}}]}}}}\n    - {{type: P, name: P, input: C, config: {{error_handling: {{output: bad}}}}}}\n    - {{type: WriteToJson, name: Good, input: P, config: {{path: '{{dir}}/good'}}}}\n    - {{type: WriteToJson, name: Bad, input: P.bad, config: {{path: '{{dir}}/bad'}}}}\nproviders:\n  - {{type: wasm, config: {{plugin: '{}'}}, transforms: {{P: parse-log}}}}\n",
        root().join("tests/.cache/components/parse-log.wasm").display()
    );
    let said = run(&["run", &pipeline(dir, &text), "--quiet"]);
    assert_eq!(said.code, 0, "{said:?}");
    let bad = pelton_tests::pelton::json_rows(&dir.join("bad"));
    assert_eq!((bad.len(), &bad[0]["transform"], &bad[0]["element"]["line"]), (1, &"P".into(), &"not json".into()));
}

/// Starts an unbounded generator into windows, waits for rows, sends a signal, and gives the summary.
fn stopped(arguments: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let text = "pipeline:\n  type: chain\n  transforms:\n    - {type: GenerateEvents, config: {kind: iot, rate: 2000, format: rows}}\n    - {type: Combine, name: Count, windowing: {type: fixed, size: 1h}, config: {group_by: [], combine: {n: count}}}\n    - {type: WriteToJson, config: {path: '{dir}/out'}}\n";
    let path = pipeline(folder.path(), text);
    let (report, progress) = (folder.path().join("report.html"), folder.path().join("progress"));
    let mut all = vec!["run", &path, "--output", "json", "--report", report.to_str().unwrap()];
    all.extend(arguments);
    let said = std::fs::File::create(&progress).unwrap();
    let mut child = pelton(&all).stdout(Stdio::piped()).stderr(said).spawn().unwrap();
    // The progress says when rows have come.
    wait_for("the first rows", 60, || {
        let text = std::fs::read_to_string(&progress).unwrap();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["rows_read"].as_u64()).max();
        (rows > Some(0)).then_some(())
    });
    let signalled = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let status = wait_for("the end after Ctrl-C", 120, || child.try_wait().unwrap());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let err = std::fs::read_to_string(&progress).unwrap();
    assert!(status.success(), "{err}");
    assert!(std::fs::read_to_string(&report).unwrap().contains("<svg"));
    serde_json::from_str(&out).unwrap()
}

fn figures<'a>(summary: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    summary["transforms"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap()
}

#[test]
fn ctrl_c_leaves_open_windows_open_and_counts_them() {
    let summary = stopped(&[]);
    let count = figures(&summary, "Count");
    assert_eq!(summary["end"], "stopped");
    assert!(count["held"].as_u64().unwrap() > 0 && count["held"] == count["rows_in"], "{count}");
    assert_eq!(figures(&summary, "WriteToJson")["rows_in"], 0);
}

#[test]
fn ctrl_c_with_drain_fires_them() {
    let summary = stopped(&["--drain"]);
    let count = figures(&summary, "Count");
    assert_eq!((summary["end"].as_str(), count["held"].as_u64()), (Some("drained"), Some(0)));
    assert!(count["led"].as_u64().unwrap() > 0 && count["led"] == count["rows_in"], "{count}");
    assert!(figures(&summary, "WriteToJson")["rows_in"].as_u64().unwrap() >= 1);
}

#[test]
fn every_command_has_an_example() {
    for command in [
        &["run"][..],
        &["lint"],
        &["graph"],
        &["plugin", "new"],
        &["plugin", "build"],
        &["plugin", "inspect"],
        &["plugin", "test"],
        &["plugin", "bench"],
        &["plugin", "dev"],
        &["replay", "record"],
        &["replay", "run"],
    ] {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let said = run(&arguments);
        assert!(said.code == 0 && said.out.contains("Example"), "{command:?}\n{}", said.out);
    }
}

#[test]
fn graph_draws_text_dot_and_svg() {
    let folder = tempfile::tempdir().unwrap();
    let path = pipeline(folder.path(), &reading("{type: Create, name: Numbers, config: {elements: [1]}}"));
    for (output, part) in [("text", "Numbers"), ("dot", "digraph"), ("svg", "<svg")] {
        let said = run(&["graph", &path, "--output", output]);
        assert!(said.code == 0 && said.out.contains(part) && said.out.contains("Numbers"), "{said:?}");
    }
}

/// A pipeline whose tests pass, fail, or are wrong, by the rows that the second one expects.
fn tested(expected: &str) -> String {
    format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: ReadFromJson, name: Read, config: {{path: \"{{{{ dir }}}}/none.json\"}}}}\n    - {{type: Combine, name: Sums, config: {{group_by: k, combine: {{n: {{value: v, fn: sum}}}}}}}}\n    - {{type: WriteToJson, config: {{path: none}}}}\ntests:\n  - name: sums\n    mock_outputs: [{{name: Read, elements: [{{k: a, v: 1}}, {{k: a, v: 2}}]}}]\n    expected_outputs: [{{name: Sums, elements: [{{k: a, n: 3}}]}}]\n  - name: written\n    mock_inputs: [{{name: Sums, elements: [{{k: b, v: 4}}]}}]\n    expected_inputs: [{{name: WriteToJson, elements: {expected}}}]\n"
    )
}

#[test]
fn tests_of_a_file_pass_fail_or_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let good = pipeline(folder.path(), &tested("[{k: b, n: 4}]"));
    let said = run(&["test", &good, "--jinja_variables", "{\"dir\": \"x\"}"]);
    assert_eq!((said.code, said.out.trim_end()), (0, "test sums ... ok\ntest written ... ok\n\n2 passed, 0 failed"), "{}", said.err);
    assert!(!folder.path().join("none").exists(), "a test writes nothing");
    let bad = pipeline(folder.path(), &tested("[{k: b, n: 5}]"));
    let said = run(&["test", &bad, "--set", "dir=x", "--output", "json"]);
    assert_eq!(said.code, 1);
    let lines: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["result"].as_str(), lines[1]["result"].as_str()), (Some("ok"), Some("failed")));
    let message = lines[1]["message"].as_str().unwrap();
    assert!(message.contains("- {\"k\":\"b\",\"n\":5}") && message.contains("+ {\"k\":\"b\",\"n\":4}"), "{message}");
    assert_eq!(run(&["test", &bad, "--set", "dir=x", "--test", "sums"]).code, 0);
    let unknown = run(&["test", &bad, "--set", "dir=x", "--test", "sum"]);
    assert!(unknown.code == 2 && unknown.err.contains("has no test `sum`; it has sums, written"), "{}", unknown.err);
    let unmocked = pipeline(folder.path(), &tested("[]").replace("mock_outputs: [{name: Read,", "mock_outputs: [{name: Sums,"));
    assert_eq!(run(&["test", &unmocked, "--set", "dir=x"]).code, 1, "the mocked output is what is compared");
    let wrong =
        pipeline(folder.path(), &tested("[]").replace("    mock_outputs: [{name: Read, elements: [{k: a, v: 1}, {k: a, v: 2}]}]\n", ""));
    let said = run(&["test", &wrong, "--set", "dir=x"]);
    assert!(said.code == 2 && said.err.contains("would read the source `Read`"), "{}", said.err);
}
