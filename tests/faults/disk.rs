//! A state folder on a disk that is full, fills up, or may not be written: the run stops and says so, and with room again it goes on.
//!
//! The disks are mounts that only one process sees. Where that is not allowed they cannot be had, and these tests say so.

use crate::job::{Job, check_stop};
use pelton_tests::pelton::{Said, binary, root};
use std::process::Command;

/// Runs a script in which `$1` is the folder of the job, `disk SIZE` mounts its state folder, and `run` runs the pipeline and tells its exit code.
fn on_a_disk(job: &Job, script: &str) -> Option<Said> {
    let begin = "disk() { mkdir -p \"$1/state\" && mount -t tmpfs -o size=$2 none \"$1/state\" || exit 77; }
        mode() { mount -o \"remount,$2\" \"$1/state\" || exit 77; }
        fast() { sed -i 's/rate: 600,/rate: 6000,/' \"$1/pipeline.yaml\"; }
        run() { \"$PELTON\" run \"$1/pipeline.yaml\" --state \"$1/state\" --quiet --parallelism 2 >/dev/null; echo code=$?; }\n";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &format!("{begin}{script}"), "sh"]).arg(job.folder.path());
    let said: Said = command.env("PELTON", binary()).current_dir(root()).output().ok()?.into();
    if said.code == 77 || said.err.starts_with("unshare:") {
        println!("SKIPPED: no mounts of one's own here: {}", said.err);
        return None;
    }
    println!("{}{}", said.out, said.err);
    Some(said)
}

/// The part of what was said that belongs to the stop.
fn stop(said: &Said) -> Said {
    Said { code: 2, out: String::new(), err: said.err.clone() }
}

#[test]
fn a_state_folder_without_room_stops_the_run_and_loses_nothing() {
    let job = Job::new();
    let Some(said) = on_a_disk(&job, "disk \"$1\" 40k; run \"$1\"; mode \"$1\" size=64m; run \"$1\"") else { return };
    assert_eq!(said.out, "code=2\ncode=0\n", "{said:?}");
    check_stop(&stop(&said), &["No space left", "state/checkpoints", "free space on that disk and start again"]);
    job.check();
}

#[test]
fn a_disk_that_others_fill_up_stops_the_run_and_loses_nothing() {
    let job = Job::new();
    job.slow();
    let script = "disk \"$1\" 16m
        run \"$1\" & while kill -0 $! 2>/dev/null && ! ls \"$1\"/state/checkpoints/manifests/0*3-* >/dev/null 2>&1; do sleep 0.02; done
        cat /dev/zero >\"$1/state/others\" 2>/dev/null; wait; rm \"$1/state/others\"; fast \"$1\"; run \"$1\"";
    let Some(said) = on_a_disk(&job, script) else { return };
    assert_eq!(said.out, "code=2\ncode=0\n", "{said:?}");
    check_stop(&stop(&said), &["No space left", "free space on that disk and start again"]);
    job.check();
}

#[test]
fn a_disk_that_may_only_be_read_stops_the_run_before_it_begins() {
    let job = Job::new();
    job.slow();
    let script = "disk \"$1\" 16m; export PELTON_FAILPOINT=run.decided:4; run \"$1\" 2>/dev/null; unset PELTON_FAILPOINT
        mode \"$1\" ro; run \"$1\"; mode \"$1\" rw; fast \"$1\"; run \"$1\"";
    let Some(said) = on_a_disk(&job, script) else { return };
    assert_eq!(said.out, "code=134\ncode=2\ncode=0\n", "{said:?}");
    check_stop(&stop(&said), &["Read-only file system", "state", "write"]);
    job.check();
}
