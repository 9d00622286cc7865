//! What is asked of running pipelines, and of none: swaps that are wrong, folders and names that are.

use crate::authoring::component;
use pelton_tests::life::Life;
use pelton_tests::pelton::{pelton, run, wait_for};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A command that fails with `code` and says all of `parts`.
fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let said = pelton(arguments).env("PELTON_HOST", "/nowhere/pelton.sock").output().unwrap();
    let err = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(code), "{arguments:?}: {err}");
    for part in parts {
        assert!(err.contains(part), "`{part}` is not in the answer to {arguments:?}\n{err}");
    }
    assert!(!err.contains("error: error"), "{err}");
}

/// Runs a pipeline with a filter `Keep` in SQL, without end, until it can be told something.
fn running(folder: &Path) -> (Life, String) {
    let (file, state) = (folder.join("pipeline.yaml"), folder.join("state").display().to_string());
    let text = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: GenerateEvents, config: {{kind: transactions, rate: 2000, interval: 10ms, devices: 20}}}}\n    - {{type: Filter, name: Keep, config: {{language: sql, keep: 'customer_id IS NOT NULL'}}}}\n    - {{type: MapToFields, config: {{language: sql, fields: {{id: customer_id, user: 'CAST(customer_id AS VARCHAR)', number: customer_id}}}}}}\n    - {{type: Mark, name: Mark}}\n    - {{type: WriteToJson, config: {{path: '{}/out'}}}}\nproviders:\n  - {{type: wasm, config: {{plugin: '{}'}}, transforms: {{Mark: mark}}}}\n",
        folder.display(),
        component("counting")
    );
    std::fs::write(&file, text).unwrap();
    let mut life = Life::start(&["run", file.to_str().unwrap(), "--state", &state, "--quiet"], &[], &folder.join("log"));
    wait_for("the pipeline listens", 300, || {
        assert!(life.ended().is_none(), "{}", life.said());
        UnixStream::connect(Path::new(&state).join("control.sock")).ok()
    });
    (life, state)
}

#[test]
fn a_wrong_swap_is_told_in_the_words_of_whoever_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut life, state) = running(folder.path());
    let swap = |config: &str| run(&["plugin", "swap", &state, "Keep", "--config", config]);
    let wrong = swap("{\"kep\": \"true\"}");
    assert_eq!(wrong.code, 2, "{wrong:?}");
    for part in ["error: unknown key `kep`", "--> the new config of `Keep`:2:3", "did you mean `keep`?", "next:"] {
        assert!(wrong.err.contains(part), "`{part}` is not in\n{}", wrong.err);
    }
    assert!(!wrong.err.contains("error: error") && !wrong.err.contains("IS NOT NULL"), "{}", wrong.err);
    // What is no component is named as it was given, and does not stay.
    let typo = folder.path().join("typo.yaml");
    std::fs::write(&typo, "pipeline: {}").unwrap();
    let said = run(&["plugin", "swap", &state, "Mark", typo.to_str().unwrap()]);
    assert!(said.code == 2 && said.err.contains("typo.yaml") && !said.err.contains("sha256-"), "{said:?}");
    let kept = std::fs::read_dir(Path::new(&state).join("components")).into_iter().flatten().count();
    assert_eq!(kept, 0, "{said:?}");
    let said = run(&["plugin", "history", &state]);
    assert!(said.code == 0 && said.out.contains("no swaps yet"), "{said:?}");
    // The language of the file stays.
    let right = swap("{\"keep\": \"customer_id BETWEEN 1 AND 1000000\"}");
    assert!(right.code == 0 && right.out.contains("swap 1: made"), "{right:?}\n{}", life.said());
    assert!(right.err.contains("the old one goes on meanwhile"), "{right:?}");
    life.signal("TERM");
    assert!(life.wait(300).success(), "{}", life.said());
    fails(
        &["plugin", "swap", &state, "Keep", "--config", "{}"],
        2,
        &["no pipeline runs with the state folder", "next: start it with `pelton run FILE --state"],
    );
}

#[test]
fn what_is_no_state_folder_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let swap = |state: &str| ["plugin", "swap", state, "T", "--config", "{}"].map(str::to_owned);
    let words = |arguments: &[String], parts: &[&str]| {
        fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 2, parts);
    };
    words(&swap(&path("nostate")), &["does not exist", "next: name the folder that `pelton run --state` was given"]);
    words(&swap(&path("")), &["is no state folder", "next:"]);
    fails(&["plugin", "history", &path("nostate")], 2, &["no checkpoints in", "nostate"]);
    // As a host keeps it.
    std::fs::create_dir_all(folder.path().join("pipelines/orders/versions")).unwrap();
    std::fs::create_dir_all(folder.path().join("pipelines/orders/state/checkpoints")).unwrap();
    std::fs::write(folder.path().join("pipelines/orders/desired.json"), "{}").unwrap();
    words(&swap(&path("pipelines/orders/state")), &["of a host's pipeline", "`orders` in place of the folder"]);
    for arguments in [&["stop", "nostate"][..], &["savepoint", "nostate", "x"], &["plugin", "history", "nostate"]] {
        fails(arguments, 3, &["nostate is no state folder", "no host answers", "next:"]);
    }
}

#[test]
fn slips_of_the_command_line_are_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let text = "pipeline:\n  type: chain\n  transforms:\n    - {type: Create, config: {elements: [1]}}\n    - {type: LogForTesting, config: {level: '{{ level | default(\"INFO\") }}'}}\n";
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for command in ["lint", "run"] {
        let said = run(&[command, file, "--set", "levle=WARNING"]);
        assert!(said.code == 0 && said.err.contains("`levle` is set") && said.err.contains("did you mean `level`?"), "{said:?}");
    }
    let report = folder.path().join("nodir/x.html");
    let said = run(&["run", file, "--report", report.to_str().unwrap()]);
    assert!(said.code == 2 && said.err.contains("cannot write the report to") && said.out.is_empty(), "{said:?}");
    assert!(!said.err.contains("element"), "it ran: {}", said.err);
    let said = run(&["plugin", "dev", "state", "T", folder.path().to_str().unwrap()]);
    assert!(said.code == 2 && said.err.contains("pelton plugin new"), "{said:?}");
}
