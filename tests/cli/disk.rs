//! Disks that are full and files that may not be read or written.

use super::{fails, pipeline, reading};
use pelton_tests::pelton::{binary, pelton, root};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[test]
fn a_full_disk_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for sink in ["WriteToJson", "WriteToCsv", "WriteToParquet", "WriteToText"] {
        let text = format!(
            "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: [{{a: x}}]}}}}\n    - {{type: {sink}, config: {{path: /dev/full}}}}\n"
        );
        fails(folder.path(), &text, 2, &["/dev/full", "No space left", "free space"]);
    }
}

/// A disk of 256 KiB that is full before the file is whole: nothing is published and nothing is left behind.
#[test]
fn a_disk_that_fills_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let path = pipeline(
        folder.path(),
        "pipeline:\n  type: chain\n  transforms:\n    - {type: GenerateEvents, config: {kind: iot, count: 200000, format: rows}}\n    - {type: WriteToJson, config: {path: '{dir}/disk/out'}}\n",
    );
    // A mount that only this process sees. Where that is not allowed, the disk cannot be made small.
    let script = "mount -t tmpfs -o size=256k none \"$1\" || exit 77; \"$2\" run \"$3\" --quiet; code=$?; ls -A \"$1\"; exit $code";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(binary())
        .arg(&path)
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) && !String::from_utf8_lossy(&output.stderr).starts_with("unshare:") => output,
        _ => return println!("SKIPPED: no mounts of one's own here; the test above has a full device"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("No space left") && said.contains("disk/") && !said.contains("panicked"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "files are left on the disk");
}

#[test]
fn files_that_may_not_be_read_or_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    std::fs::write(dir.join("closed.jsonl"), "{\"a\": 1}\n").unwrap();
    std::fs::create_dir(dir.join("locked")).unwrap();
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(dir, 0o755);
    mode(&dir.join("closed.jsonl"), 0o000);
    mode(&dir.join("locked"), 0o555);
    let source = "{type: ReadFromJson, config: {path: '{dir}/closed.jsonl', schema: {type: object, properties: {a: {type: integer}}}}}";
    let sink = "pipeline:\n  type: chain\n  transforms:\n    - {type: Create, config: {elements: [{a: 1}]}}\n    - {type: WriteToJson, config: {path: '{dir}/locked/out'}}\n";
    for (text, name) in [(reading(source).as_str(), "closed.jsonl"), (sink, "locked/")] {
        let path = pipeline(dir, text);
        let said = as_nobody(dir, &["run", &path, "--quiet"]).output().unwrap();
        let err = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{err}");
        assert!(err.contains(name) && err.contains("ermission denied") && err.contains("access"), "{err}");
    }
}

/// Root may read everything, so as root the command runs as another user, who needs a copy of the binary that is in reach.
fn as_nobody(dir: &Path, arguments: &[&str]) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        return pelton(arguments);
    }
    let copy = dir.join("pelton");
    if !copy.exists() {
        std::fs::copy(binary(), &copy).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(arguments).current_dir(root()).env("HOME", dir);
    command
}

/// With checkpoints and without a state folder nobody goes on with what is hidden, so that it goes too.
#[test]
fn a_run_that_nobody_goes_on_with_leaves_no_hidden_files() {
    let folder = tempfile::tempdir().unwrap();
    let text = "pipeline:
  transforms:
    - {type: GenerateEvents, name: Events, config: {kind: transactions, count: 8000, rate: 8000}}
    - {type: WriteToParquet, name: Rows, input: Events, config: {path: '{dir}/out/rows'}}
    - {type: MapToFields, name: Fails, input: Events, config: {language: sql, fields: {a: '1 / (CAST(SUBSTRING(transaction_id, 2) AS BIGINT) - 5000)'}}}
    - {type: WriteToJson, name: Numbers, input: Fails, config: {path: '{dir}/out/numbers'}}
options: {pelton: {checkpoint: {interval: 100ms}}}
";
    let path = pipeline(folder.path(), text);
    let said = pelton_tests::pelton::run(&["run", &path, "--quiet"]);
    assert!(said.code == 1 && said.err.contains("refused a row"), "{said:?}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The same with checkpoints: when there is room again, the run goes on from the last one, and each row is there once.
#[test]
fn a_run_goes_on_when_a_full_disk_has_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let path = pipeline(
        folder.path(),
        "pipeline:\n  type: chain\n  transforms:\n    - {type: GenerateEvents, config: {kind: iot, count: 60000, format: rows}}\n    - {type: WriteToJson, config: {path: '{dir}/disk/out'}}\noptions: {pelton: {checkpoint: {interval: 100ms}}}\n",
    );
    let script = "mount -t tmpfs -o size=2m none \"$1\" || exit 77
        \"$2\" run \"$3\" --quiet --state \"$4\" >/dev/null; echo code=$?
        mount -o remount,size=64m \"$1\" || exit 77
        \"$2\" run \"$3\" --quiet --state \"$4\" >/dev/null; echo code=$?
        ls -A \"$1\"; sort \"$1\"/out-* | uniq | wc -l; cat \"$1\"/out-* | wc -l";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&disk)
        .arg(binary())
        .arg(&path)
        .arg(folder.path().join("state"))
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) && !String::from_utf8_lossy(&output.stderr).starts_with("unshare:") => output,
        _ => return println!("SKIPPED: no mounts of one's own here"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No space left") && said.contains("disk/") && !said.contains("panicked"), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = printed.split_whitespace().collect();
    assert_eq!(words, ["code=2", "code=0", "_pelton", "out-00000-of-00001", "60000", "60000"], "{said}");
}
