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
