//! Files by epochs: a process dies, loses power or is stopped at every call, others follow, and each row is seen once.

use super::*;
use crate::commit::{CommitTarget, ExactlyOnce, Identity, Staged};
use crate::file::disk::fates;
use crate::generate::random::Random;
use crate::registry::open_commits;
use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use pelton_core::{Duration, Instant};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A pipeline with one sink.
#[derive(Clone)]
struct Case {
    kind: &'static str,
    config: Value,
    unbounded: bool,
    window: WindowFn,
    shards: usize,
    epochs: u64,
    rows: i64,
}

/// What outlives processes: who owns the pipeline, and the last decided manifest.
#[derive(Default)]
struct Store {
    generation: u64,
    decided: u64,
    staged: Vec<Staged>,
}

struct World {
    dir: tempfile::TempDir,
    case: Case,
    store: Mutex<Store>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

/// The rows of a shard in an epoch: the same in each life, in other batches. The second shard ends early.
fn rows(case: &Case, epoch: u64, shard: usize) -> std::ops::Range<i64> {
    let first = (epoch as i64 * 10 + shard as i64) * case.rows;
    first..first + if epoch > last(case, shard) { 0 } else { case.rows }
}

/// The last epoch of a shard.
fn last(case: &Case, shard: usize) -> u64 {
    case.epochs - shard as u64
}

impl World {
    fn new(case: &Case) -> World {
        let world = World { dir: tempfile::tempdir().unwrap(), case: case.clone(), store: Mutex::default() };
        fates::begin(world.dir.path());
        world
    }

    fn out(&self) -> std::path::PathBuf {
        self.dir.path().join("out")
    }

    /// A life of the pipeline, from taking it over to its last epoch. `recovered` is called when it owns the pipeline and has recovered.
    fn live(&self, process: u64, recovered: impl FnOnce()) -> Result<(), ConnectError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().on_thread_start(move || fates::PROCESS.set(process)).build().unwrap();
        runtime.block_on(self.life(process, &runtime, recovered))
    }

    async fn life(&self, process: u64, runtime: &Runtime, recovered: impl FnOnce()) -> Result<(), ConnectError> {
        let case = &self.case;
        let identity = Identity {
            pipeline: "test-1".into(),
            generation: process,
            again: false,
            interval: std::time::Duration::from_secs(1),
            outbox: self.dir.path().into(),
        };
        let (decided, staged) = {
            let mut store = self.store.lock().unwrap();
            store.generation = process;
            (store.decided, store.staged.clone())
        };
        let target = CommitTarget {
            uid: "Write".into(),
            transform: "Write".into(),
            kind: case.kind.into(),
            config: case.config.clone(),
            base_dir: self.dir.path().into(),
        };
        let mut commits = open_commits(vec![target], identity.clone(), runtime.handle()).await?;
        let committer = &mut commits.committers[0].1;
        committer.recover(decided, &staged).await?;
        let mut sinks = Vec::new();
        for shard in 0..case.shards {
            let once = ExactlyOnce {
                identity: identity.clone(),
                uid: "Write".into(),
                epoch: decided + 1,
                restored: staged.get(shard).cloned(),
                shared: None,
            };
            let ctx = SinkContext {
                unbounded: case.unbounded,
                window: case.window,
                shard,
                shards: case.shards,
                exactly_once: Some(once),
                ..sink_context(runtime, self.dir.path(), schema())
            };
            sinks.push(open_sink(case.kind, &case.config, ctx).await?);
        }
        recovered();
        let mut staged = vec![Staged::default(); case.shards];
        for epoch in decided + 1..=case.epochs {
            for (shard, sink) in sinks.iter_mut().enumerate() {
                // What an ended shard staged last holds on.
                if epoch > last(case, shard) && !staged[shard].0.is_empty() {
                    continue;
                }
                sink.tick(Instant::from_micros_saturating(4_000_000_000_000_000 + epoch as i64 * 10_000_000)).await?;
                let all: Vec<i64> = rows(case, epoch, shard).collect();
                for some in all.chunks(1 + process as usize % 3 * 40) {
                    let columns = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(some.to_vec()))]).unwrap();
                    assert_eq!(sink.write(&batch(columns, some.iter().map(|n| n * 1_000_000).collect())).await?, []);
                }
                staged[shard] = sink.prepare(epoch, epoch >= last(case, shard)).await?;
            }
            {
                let mut store = self.store.lock().unwrap();
                if store.generation != process {
                    return Err(ConnectError::Fenced { message: "somebody else owns the pipeline".into() });
                }
                (store.decided, store.staged) = (epoch, staged.clone());
            }
            committer.commit(epoch, &staged).await?;
        }
        for sink in sinks {
            sink.finish().await?;
        }
        Ok(())
    }

    /// Every row that a reader of the folder sees, sorted.
    fn seen(&self) -> Vec<i64> {
        let mut seen = Vec::new();
        for path in self.visible() {
            let path = self.out().join(path);
            match self.case.kind {
                "WriteToJson" => {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(text.is_empty() || text.ends_with('\n'), "{} ends in the middle of a line", path.display());
                    let number = |line: &str| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap();
                    seen.extend(text.lines().map(number));
                }
                "WriteToCsv" => {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(text.starts_with("n\n") && text.ends_with('\n'));
                    seen.extend(text.lines().skip(1).map(|line| line.parse::<i64>().unwrap()));
                }
                kind => {
                    let kind = kind.replace("WriteTo", "ReadFrom");
                    let found = read(&self.out(), &kind, json!({"path": path.to_str().unwrap()}), 1, None).unwrap();
                    for batch in found.batches {
                        seen.extend(batch.rows.column(0).as_primitive::<Int64Type>().values());
                    }
                }
            }
        }
        seen.sort();
        seen
    }

    fn names(&self) -> Vec<String> {
        if self.out().exists() { visible(&self.out()) } else { Vec::new() }
    }

    /// Files that a reader takes for output of this run.
    fn visible(&self) -> Vec<String> {
        let old = |name: &String| std::fs::read(self.out().join(name)).is_ok_and(|bytes| bytes == b"old");
        self.names().into_iter().filter(|name| !name.starts_with('.') && name != "_pelton" && !old(name)).collect()
    }

    fn decided_rows(&self, decided: u64) -> Vec<i64> {
        let mut all: Vec<i64> =
            (1..=decided).flat_map(|epoch| (0..self.case.shards).flat_map(move |shard| rows(&self.case, epoch, shard))).collect();
        all.sort();
        all
    }

    /// What is seen at any time: rows of decided epochs, each at most once.
    fn check_now(&self, what: &str) {
        let (seen, decided) = (self.seen(), self.store.lock().unwrap().decided);
        let all: BTreeSet<i64> = self.decided_rows(decided).into_iter().collect();
        assert!(seen.windows(2).all(|two| two[0] != two[1]), "{what}: a row is seen twice");
        assert!(seen.iter().all(|n| all.contains(n)), "{what}: a row of an undecided epoch is seen");
    }

    /// What is seen at the end: every row once, in files that the lists name, and nothing else.
    fn check_end(&self, what: &str) {
        assert_eq!(self.seen(), self.decided_rows(self.case.epochs), "{what}: {:?}", self.names());
        let mut listed = Vec::new();
        for folder in std::fs::read_dir(self.out().join("_pelton")).unwrap() {
            for list in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                let list = list.unwrap().path();
                if list.extension().is_some_and(|extension| extension == "json") {
                    let list: Value = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
                    listed.extend(list["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap().to_owned()));
                }
            }
        }
        listed.sort();
        assert_eq!(listed, self.visible(), "{what}");
        let hidden: Vec<String> = self.names().into_iter().filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{what}: {hidden:?} are left");
        let old = self.names().into_iter().filter(|name| std::fs::read(self.out().join(name)).is_ok_and(|bytes| bytes == b"old"));
        assert_eq!(old.count(), 0, "{what}: a file of an earlier run is left");
    }
}

fn unbounded(kind: &'static str) -> Case {
    Case {
        kind,
        config: json!({"path": "out/n", "num_shards": 2, "roll": {"interval": "15s"}}),
        unbounded: true,
        window: WindowFn::Global,
        shards: 2,
        epochs: 4,
        rows: 5,
    }
}

fn bounded(kind: &'static str) -> Case {
    Case { config: json!({"path": "out/n"}), unbounded: false, shards: 1, epochs: 3, ..unbounded(kind) }
}

fn prepare_earlier(world: &World) {
    std::fs::create_dir_all(world.out()).unwrap();
    for name in ["n-00000-of-00001", "n-00001-of-00003"] {
        std::fs::write(world.out().join(name), "old").unwrap();
    }
}

/// Calls of a process that nothing happens to.
fn check_undisturbed(case: &Case, before: impl Fn(&World)) -> usize {
    let world = World::new(case);
    before(&world);
    world.live(1, || {}).unwrap();
    world.check_end("undisturbed");
    fates::calls(world.dir.path(), 1)
}

/// The first process dies before each of its calls in turn, and in every other case the power fails.
fn check_death_at_every_call(case: &Case, before: impl Fn(&World)) {
    let calls = check_undisturbed(case, &before);
    for call in 0..calls {
        let world = World::new(case);
        before(&world);
        let what = format!("{} dies at call {call} of {calls}", case.kind);
        fates::after(world.dir.path(), 1, call, false);
        world.live(1, || {}).expect_err(&what);
        if call % 2 == 1 {
            fates::lose_power(world.dir.path());
        }
        world.check_now(&what);
        world.live(2, || {}).unwrap_or_else(|error| panic!("{what}: {error}"));
        world.check_end(&what);
    }
    println!("{} deaths={calls} lost=0 duplicated=0", case.kind);
}

/// Process after process dies after some calls.
fn check_many_deaths(case: &Case, seeds: u64) {
    let calls = check_undisturbed(case, |_| {}) as u64;
    let mut deaths = 0;
    for seed in 0..seeds {
        let (mut random, world, mut process) = (Random::of(11, seed), World::new(case), 1);
        loop {
            fates::after(world.dir.path(), process, random.below(calls + 5 * process) as usize, false);
            if world.live(process, || {}).is_ok() {
                break;
            }
            if random.happens(0.5) {
                fates::lose_power(world.dir.path());
            }
            world.check_now(&format!("seed {seed}, process {process}"));
            process += 1;
            deaths += 1;
        }
        world.check_end(&format!("{}: seed {seed}, {process} processes", case.kind));
    }
    assert!(deaths > seeds, "only {deaths} deaths");
    println!("{} seeds={seeds} deaths={deaths} lost=0 duplicated=0", case.kind);
}

/// The first process is stopped before each of its calls in turn and goes on while a successor works, or when it has ended.
fn check_stop_at_every_call(case: &Case, before: impl Fn(&World)) {
    let calls = check_undisturbed(case, &before);
    for call in 0..calls {
        for late in [false, true] {
            let world = World::new(case);
            before(&world);
            let what = format!("{} is stopped at call {call} of {calls}, late {late}", case.kind);
            let (folder, process) = (world.dir.path(), 1_000 + 2 * call as u64 + u64::from(late));
            fates::after(folder, process, call, true);
            std::thread::scope(|scope| {
                let zombie = scope.spawn(|| world.live(process, || {}));
                assert!(fates::wait_for_stop(process, || zombie.is_finished()), "{what}: it does not stop");
                let successor = scope.spawn(|| {
                    world.live(1_000_000 + process, || {
                        if !late {
                            fates::go_on(folder, process);
                        }
                    })
                });
                let succeeded = successor.join().unwrap();
                fates::go_on(folder, process);
                let _ = zombie.join().unwrap();
                succeeded.unwrap_or_else(|error| panic!("{what}: {error}"));
            });
            world.check_now(&what);
            // One more life removes what the stopped process has left under hidden names.
            world.live(2_000_000 + process, || {}).unwrap();
            world.check_end(&what);
        }
    }
    println!("{} stops={} lost=0 duplicated=0", case.kind, 2 * calls);
}

#[test]
fn a_process_dies_at_every_call_of_unbounded_lines() {
    check_death_at_every_call(&unbounded("WriteToJson"), |_| {});
}

#[test]
fn a_process_dies_at_every_call_of_a_bounded_run_that_replaces_an_earlier_one() {
    check_death_at_every_call(&bounded("WriteToCsv"), prepare_earlier);
}

#[test]
fn a_process_dies_at_every_call_of_parquet_and_avro() {
    check_death_at_every_call(
        &Case { shards: 1, config: json!({"path": "out/n", "roll": {"interval": "15s"}}), ..unbounded("WriteToParquet") },
        |_| {},
    );
    check_death_at_every_call(&bounded("WriteToAvro"), |_| {});
}

#[test]
fn processes_die_again_and_again() {
    check_many_deaths(&unbounded("WriteToCsv"), 25);
    check_many_deaths(&bounded("WriteToParquet"), 15);
    let window = WindowFn::Fixed { size: Duration::from_micros(3_000_000), offset: Duration::ZERO };
    check_many_deaths(&Case { window, shards: 1, config: json!({"path": "out/n"}), ..unbounded("WriteToJson") }, 15);
    let rolls = json!({"path": "out/n", "roll": {"size": "1KiB"}});
    check_many_deaths(&Case { rows: 400, shards: 1, config: rolls, ..unbounded("WriteToAvro") }, 10);
}

#[test]
fn a_stopped_process_that_goes_on_does_no_harm() {
    check_stop_at_every_call(&unbounded("WriteToJson"), |_| {});
    check_stop_at_every_call(&bounded("WriteToCsv"), prepare_earlier);
}

#[test]
fn appending_to_what_others_wrote_is_refused() {
    for (case, part) in [
        (unbounded("WriteToJson"), "was not written by this pipeline"),
        (
            Case { config: json!({"path": "out/n", "write_disposition": "append"}), ..bounded("WriteToJson") },
            "was not written by this pipeline",
        ),
        (Case { config: json!({"path": "out/n", "write_disposition": "fail-if-exists"}), ..bounded("WriteToJson") }, "fail-if-exists"),
    ] {
        let world = World::new(&case);
        prepare_earlier(&world);
        let error = world.live(1, || {}).unwrap_err();
        assert!(error.to_string().contains(part) && error.to_string().contains("n-00000-of-00001"), "{error}");
        assert!(error.help().is_some());
    }
}

#[test]
fn fewer_shards_wait_until_the_open_parts_of_the_others_are_closed() {
    // The process dies when the first epoch is decided, and both shards have parts that grow on.
    let mut worlds = (0..).map(|call| {
        let world = World::new(&unbounded("WriteToJson"));
        fates::after(world.dir.path(), 1, call, false);
        world.live(1, || {}).unwrap_err();
        world
    });
    let mut world = worlds.find(|world| world.store.lock().unwrap().decided == 1).unwrap();
    world.case.config = json!({"path": "out/n", "roll": {"interval": "15s"}});
    world.case.shards = 1;
    let error = world.live(2, || {}).unwrap_err();
    assert!(error.to_string().contains("`num_shards` is 1, and shard 1 has rows"), "{error}");
}

#[test]
fn a_name_that_somebody_took_stops_the_run_and_loses_nothing() {
    let case = bounded("WriteToJson");
    let calls = check_undisturbed(&case, |_| {});
    let error = (0..calls).find_map(|call| {
        let world = World::new(&case);
        fates::after(world.dir.path(), 1, call, false);
        world.live(1, || {}).unwrap_err();
        let decided = world.store.lock().unwrap().decided;
        (decided == 3 && world.visible().is_empty()).then(|| {
            std::fs::write(world.out().join("n-00000-of-00001"), "mine").unwrap();
            let error = world.live(2, || {}).unwrap_err();
            std::fs::remove_file(world.out().join("n-00000-of-00001")).unwrap();
            world.live(3, || {}).unwrap();
            world.check_end("after the name was free");
            error
        })
    });
    let error = error.expect("some call lies between the decision and the name");
    assert!(error.to_string().contains("n-00000-of-00001 exists, and this pipeline did not write it"), "{error}");
}

#[test]
fn a_pipe_shows_rows_at_the_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let case = Case { config: json!({"path": path.to_str().unwrap()}), ..bounded("WriteToJson") };
    let world = World::new(&case);
    let text = std::thread::scope(|scope| {
        let reader = scope.spawn(|| std::fs::read_to_string(&path).unwrap());
        world.live(1, || {}).unwrap();
        reader.join().unwrap()
    });
    assert_eq!(text.lines().count(), 15);
}
