//! Processes of `pelton run --state` that tests kill, stop and start again.
//!
//! Signals go to the process's own id, never to a name.

use crate::pelton::{binary, root, wait_for};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// One process. Killed when dropped.
pub struct Life {
    child: Child,
    log: PathBuf,
}

impl Life {
    /// Starts the binary; both of its outputs go to `log`, which is written over.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Life {
        let file = File::create(log).expect("a log can be written");
        let both = file.try_clone().expect("a file has a second handle");
        let mut command = Command::new(binary());
        command.current_dir(root()).args(arguments).envs(environment.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(file).stderr(both).spawn().expect("the binary starts");
        Life { child, log: log.into() }
    }

    /// Memory that it has resident, KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Waits until it ends.
    pub fn wait(&mut self, seconds: u64) -> ExitStatus {
        let what = format!("the end of a process that says\n{}", self.said());
        wait_for(&what, seconds, || self.ended())
    }

    /// As `kill -9`. Returns when it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As `kill -SIGNAL`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.child.id())]).status();
        assert!(sent.is_ok_and(|status| status.success()), "a signal is sent");
    }

    /// Whether it stands still as after SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        // `pid (name) state …`
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// What it has written so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The newest checkpoint in a state folder: epoch and generation, by the name of its manifest.
pub fn newest_manifest(state: &Path) -> Option<(u64, u64)> {
    let names = names_in(&state.join("checkpoints/manifests"));
    let parsed = names.iter().filter_map(|name| {
        let (epoch, generation) = name.split_once('-')?;
        Some((epoch.parse().ok()?, generation.parse().ok()?))
    });
    parsed.max()
}

/// The newest entry of the register of progress, which grows when a process takes the pipeline and with every epoch.
pub fn newest_progress(state: &Path) -> u64 {
    names_in(&state.join("checkpoints/progress")).iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
