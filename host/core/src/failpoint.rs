//! Named places where a test lets the process die.
//!
//! With `PELTON_FAILPOINT=name` in the environment the process aborts when it comes to that place, with `name:3` when it comes there the third time; with
//! `PELTON_FAILPOINT_ACTION=stop` it stops as by SIGSTOP instead, and goes on when somebody continues it. Without, a place costs one load.
//!
//! This is the one thing in this crate that is not a pure function. It stands here because every crate has such places.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every name, in the order of an epoch's life; `run.` are those of the runtime. `tests/tidy` checks that each has its place.
pub const NAMES: &[&str] = &[
    "open.identified",
    "take.before",
    "take.after",
    "kafka.fence",
    "kafka.fenced",
    "kafka.owned",
    "postgres.claim",
    "postgres.claimed",
    "restore.begin",
    "restore.half",
    "kafka.entered",
    "kafka.sent",
    "kafka.flushed",
    "evict.written",
    "evict.brought",
    "segment.begin",
    "segment.half",
    "segment.finished",
    "outbox.before",
    "outbox.after",
    "files.staged",
    "postgres.staged",
    "manifest.before",
    "manifest.after",
    "storage.written",
    "storage.synced",
    "storage.linked",
    "decide.before",
    "kafka.record",
    "kafka.recorded",
    "kafka.committed",
    "kafka.renewed",
    "postgres.written",
    "postgres.committed",
    "decide.after",
    "commit.before",
    "postgres.apply",
    "postgres.applied",
    "files.named",
    "files.listed",
    "commit.after",
    "files.swept",
    "collect.manifests",
    "collect.after",
    "sweep.half",
    "compact.begin",
    "compact.half",
    "compact.finished",
    "compact.adopted",
    "savepoint.half",
    "savepoint.manifest",
    "run.fenced",
    "run.rolled",
    "postgres.clear",
    "run.discarded",
    "run.restored",
    "run.portion",
    "run.barrier",
    "run.seal",
    "run.persist",
    "run.decide",
    "run.decided",
    "run.commit",
    "run.committed",
    "run.record",
    "evolve.sweep",
    "swap.prepared",
    "swap.armed",
    "swap.cut",
    "swap.decided",
    "swap.made",
];

/// What the environment asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    name: String,
    /// Dies when it comes there this often.
    count: u64,
    stop: bool,
}

static ASKED: OnceLock<Option<Asked>> = OnceLock::new();
static SEEN: AtomicU64 = AtomicU64::new(0);

/// The process is at the place of this name.
#[inline]
pub fn hit(name: &'static str) {
    if let Some(asked) = ASKED.get_or_init(from_environment) {
        act(asked, name);
    }
}

#[cold]
fn act(asked: &Asked, name: &str) {
    if asked.name != name || SEEN.fetch_add(1, Ordering::Relaxed) + 1 != asked.count {
        return;
    }
    eprintln!("failpoint {name}: the process {}", if asked.stop { "stops" } else { "aborts" });
    if !asked.stop {
        std::process::abort();
    }
    // The shell's parent is this process. Its call returns when somebody has sent SIGCONT.
    let stopped = std::process::Command::new("sh").args(["-c", "kill -STOP $PPID"]).status();
    stopped.expect("a test has a shell");
}

fn from_environment() -> Option<Asked> {
    let asked =
        parse(&std::env::var("PELTON_FAILPOINT").ok()?, std::env::var("PELTON_FAILPOINT_ACTION").is_ok_and(|action| action == "stop"));
    Some(asked.unwrap_or_else(|message| panic!("PELTON_FAILPOINT: {message}")))
}

fn parse(text: &str, stop: bool) -> Result<Asked, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    if !NAMES.contains(&name) {
        return Err(format!("there is no failpoint `{name}`; there are {}", NAMES.join(", ")));
    }
    let count = count.parse().map_err(|_| format!("`{count}` is not a number"))?;
    Ok(Asked { name: name.into(), count, stop })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_count() {
        let asked = |name: &str, count| Ok(Asked { name: name.into(), count, stop: false });
        assert_eq!(parse("manifest.after", false), asked("manifest.after", 1));
        assert_eq!(parse("storage.synced:7", false), asked("storage.synced", 7));
        assert!(parse("nowhere", false).unwrap_err().starts_with("there is no failpoint `nowhere`; there are open.identified"));
        assert_eq!(parse("decide.after:x", false), Err("`x` is not a number".into()));
    }
}
