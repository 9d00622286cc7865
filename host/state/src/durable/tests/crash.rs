//! A process dies, or stops and is overtaken, at every failpoint of the store.
//!
//! The child is this test's own binary, running [`child`]. What it does in an epoch follows from the epoch's number alone, so that the parent knows what has to be
//! there.

use super::{changes, contents, read, state, wait};
use crate::durable::savepoint;
use crate::durable::storage::LocalFolder;
use crate::durable::{Checkpoints, Identity, SinkEntry, Storage, StoreError, Stored, TakeOver, Taken};
use pelton_core::Epoch;
use pelton_core::checkpoint::Take;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells the child that it is one.
const FOLDER: &str = "PELTON_TEST_CRASH_FOLDER";
/// Epochs that a child writes if it is let.
const EPOCHS: Epoch = 12;
/// What a child that was overtaken exits with.
const FENCED: i32 = 3;

/// The keys that an epoch changes, and to what.
pub fn changed(epoch: Epoch) -> Vec<(u32, Option<u64>)> {
    (0..40).map(|at| (((epoch * 7 + at * 3) % 90) as u32, (!(epoch + at).is_multiple_of(4)).then_some(epoch * 1000 + at))).collect()
}

/// What there is after an epoch.
pub fn model(epoch: Epoch) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    for (key, value) in (1..=epoch).flat_map(changed) {
        match value {
            Some(value) => model.insert(super::address(key), value.to_be_bytes().to_vec()),
            None => model.remove(&super::address(key)),
        };
    }
    model
}

/// The failpoints of the store; `tests/failpoints` comes to the others too.
fn failpoints() -> impl Iterator<Item = &'static str> {
    let elsewhere = ["run.", "files.", "kafka.", "postgres.", "swap.", "evolve.", "evict."];
    pelton_core::failpoint::NAMES.iter().copied().filter(move |name| !elsewhere.iter().any(|prefix| name.starts_with(prefix)))
}

/// Opens the store in a folder, whoever has it.
async fn start(folder: &Path) -> Result<(Checkpoints, Stored), StoreError> {
    let storage: Arc<dyn Storage> = Arc::new(LocalFolder::new(folder.join("store")));
    let checkpoints = Checkpoints::open(storage, Identity { pipeline: "p".into(), version: "0.1.0".into() }).await?;
    let Taken::Ours(_) = checkpoints.take_generation(Take::Above(0), TakeOver::Yes).await? else { panic!("nobody restarts") };
    let stored = checkpoints.stored().await?;
    Ok((checkpoints, stored))
}

/// Goes on from the decided epoch, checking its state; which that is.
async fn restore(checkpoints: &Checkpoints, stored: &Stored) -> Result<Epoch, StoreError> {
    let decided = stored.progress.decided.as_ref().map(|decision| stored.decided(decision).expect("a decided epoch is never lost"));
    checkpoints.resume(stored, decided).await?;
    let Some(decided) = decided else { return Ok(0) };
    let snapshot = checkpoints.snapshot(decided);
    assert_eq!(read(&snapshot, 0..256).await, model(decided.id.epoch), "epoch {}", decided.id.epoch);
    // What was not committed is delivered again from its outbox.
    if stored.progress.committed < decided.id.epoch {
        for entry in decided.manifest.contents.sinks.iter().flat_map(|sink| &sink.outbox) {
            assert_eq!(checkpoints.read_outbox(entry).await?, format!("rows of {}", decided.id.epoch));
        }
        checkpoints.record_commit(stored.progress.decided.as_ref().expect("it is decided")).await?;
    }
    Ok(decided.id.epoch)
}

/// Epochs up to one, with everything that a store does.
async fn run(checkpoints: &Checkpoints, folder: &Path, from: Epoch, to: Epoch, done: impl Fn(Epoch)) -> Result<(), StoreError> {
    for epoch in from + 1..=to {
        let outbox = vec![checkpoints.write_outbox(epoch, "sink", (0, 0), format!("rows of {epoch}").into()).await?];
        let sink = SinkEntry { uid: "sink".into(), outbox, ..SinkEntry::default() };
        let contents = crate::durable::Contents { sinks: vec![sink], ..contents() };
        let written = checkpoints.write_epoch(epoch, contents, state(vec![changes(&changed(epoch))], epoch)).await?;
        let decision = checkpoints.decide_local(&written).await?;
        done(epoch);
        checkpoints.record_commit(&decision).await?;
        checkpoints.collect((epoch + 1).saturating_sub(3)).await?;
        checkpoints.compact(&written).await?;
        if epoch == 7 {
            let place = LocalFolder::new(folder.join(format!("savepoint-{}", std::process::id())));
            checkpoints.snapshot(&written).copy_to(&place).await?;
            let copy = savepoint::open(Arc::new(place)).await?;
            assert_eq!(read(&copy, 0..256).await, model(7));
        }
    }
    Ok(())
}

/// Not a test of its own: what [`die`] and [`stop`] start.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let life = async {
        // Two lives, so that the second restores and sweeps.
        for to in [EPOCHS / 2, EPOCHS] {
            let (checkpoints, stored) = start(folder).await?;
            let from = restore(&checkpoints, &stored).await?;
            run(&checkpoints, folder, from, to, |epoch| println!("decided {epoch}")).await?;
        }
        Ok(())
    };
    match wait(life) {
        Ok(()) => {}
        Err(StoreError::Fenced { .. }) => std::process::exit(FENCED),
        Err(error) => panic!("{error}"),
    }
}

fn spawn(folder: &Path, failpoint: &str, action: &str) -> Child {
    let test = "durable::tests::crash::child";
    Command::new(std::env::current_exe().expect("this test is a program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env("PELTON_FAILPOINT", failpoint)
        .env("PELTON_FAILPOINT_ACTION", action)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// The newest epoch that the child has seen decided.
fn seen(child: &mut Child) -> Epoch {
    let output = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    // The harness writes the test's name before the first line.
    output.filter_map(|line| line.rsplit_once("decided ")?.1.parse().ok()).last().unwrap_or(0)
}

/// After everything: what there is counts, and nothing lies about.
async fn check_the_end(folder: &Path) {
    let (checkpoints, stored) = start(folder).await.expect("opens");
    let from = restore(&checkpoints, &stored).await.expect("restores");
    run(&checkpoints, folder, from, from + 3, |_| {}).await.expect("runs");
    drop(checkpoints);
    let (checkpoints, stored) = start(folder).await.expect("opens");
    assert_eq!(restore(&checkpoints, &stored).await.expect("restores"), from + 3);
    checkpoints.collect(from + 4).await.expect("collects");
    let needed: Vec<String> = stored.epochs[0].manifest.segments.iter().map(|entry| entry.name.clone()).collect();
    let mut lying: Vec<String> = Vec::new();
    for place in ["segments", "outbox", "manifests"] {
        for entry in std::fs::read_dir(folder.join("store").join(place)).expect("is there").flatten() {
            lying.push(format!("{place}/{}", entry.file_name().to_string_lossy()));
        }
    }
    lying.retain(|name| !needed.contains(name) && *name != stored.epochs[0].id.file_name());
    assert_eq!(lying, Vec::<String>::new());
}

#[test]
fn a_process_may_die_at_any_failpoint() {
    for name in failpoints() {
        let folder = tempfile::tempdir().expect("a folder");
        let count = if name.starts_with("storage.") { ":23" } else { "" };
        let mut child = spawn(folder.path(), &format!("{name}{count}"), "");
        let decided = seen(&mut child);
        let status = child.wait().expect("it ends");
        assert!(status.code().is_none(), "{name} was not reached: {status}");
        wait(async {
            let (checkpoints, stored) = start(folder.path()).await.expect("opens");
            let from = restore(&checkpoints, &stored).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(from == decided || from == decided + 1, "{name}: {from} after {decided}");
            drop(checkpoints);
            check_the_end(folder.path()).await;
        });
    }
}

#[test]
fn a_process_may_be_overtaken_at_any_failpoint() {
    // Before it has a generation a process is no owner: it may overtake in turn.
    let names = failpoints().filter(|name| !["open.identified", "take.before"].contains(name));
    for name in names {
        let folder = tempfile::tempdir().expect("a folder");
        // In the middle of things, not with the first file that there is.
        let count = if name.starts_with("storage.") { ":23" } else { "" };
        let mut child = spawn(folder.path(), &format!("{name}{count}"), "stop");
        wait_until_stopped(&mut child, name);
        wait(async {
            let (checkpoints, stored) = start(folder.path()).await.expect("opens");
            let from = restore(&checkpoints, &stored).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            run(&checkpoints, folder.path(), from, from + 2, |_| {}).await.expect("runs");
            signal(&child, "CONT");
            let decided = seen(&mut child);
            let status = child.wait().expect("it ends");
            // A savepoint is a copy, and is finished.
            assert_eq!(status.code(), Some(FENCED), "{name}: {status}");
            assert!(decided <= from, "{name}: an overtaken process decided epoch {decided} after {from}");
            run(&checkpoints, folder.path(), from + 2, from + 4, |_| {}).await.expect("runs on");
            drop(checkpoints);
            check_the_end(folder.path()).await;
        });
    }
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}

#[allow(clippy::disallowed_methods, reason = "a test waits by the clock")]
fn wait_until_stopped(child: &mut Child, name: &str) {
    let begun = Instant::now();
    let stat = format!("/proc/{}/stat", child.id());
    loop {
        // `pid (name) state …`
        let text = std::fs::read_to_string(&stat).expect("it is alive");
        if text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
            return;
        }
        assert!(child.try_wait().expect("can be asked").is_none(), "{name} was not reached");
        assert!(begun.elapsed() < Duration::from_secs(300), "{name} was not reached in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}
