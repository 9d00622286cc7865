//! Plugins written to break the host, each beside a pipeline that has done nothing wrong, in one process.
//!
//! For each: the host goes on; the neighbour's output is exact and its progress never stops for long; the report names the plugin and
//! the cause; the memory of the process comes back to where it was. `--only TEXT` runs those whose names have the text, `--all` also those that
//! take over in another way than those of CI, `--show` prints what each was told.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod host;
mod modules;
mod neighbour;
mod plugins;
mod takeover;

use host::Host;
use neighbour::Neighbour;
use pelton_plugin::Role;
use pelton_runtime::Progress;
use pelton_tests::pelton::{json_rows, root};
use plugins::{Case, Component, End};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The neighbour stands still for no longer, on a machine that has nothing else to do.
const STANDSTILL: Duration = Duration::from_secs(1);
/// No hostile pipeline takes longer to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the process may have beyond the baseline: what its allocator keeps, most of it from compiling. The largest plugin here would take
/// gigabytes if it were let.
const SLACK_MIB: u64 = 320;
/// Fewer would not be the suite.
const LEAST: usize = 45;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = arguments.iter().position(|argument| argument == "--only").map(|at| arguments[at + 1].as_str());
    let is = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let (show, all) = (is("--show"), is("--all"));
    let begun = Instant::now();
    let guests = ["hostile", "hostile-state", "hostile-combine"];
    let host = Arc::new(Host::new(&guests.map(component)));
    let mut cases: Vec<Case> = guests
        .into_iter()
        .flat_map(|guest| {
            let transforms = host.known(&component(guest)).descriptor().transforms.iter();
            plugins::of_guest(guest, transforms.map(|transform| (transform.name.clone(), transform.role)).collect::<Vec<_>>().into_iter())
        })
        .collect();
    cases.extend(plugins::of_bytes());
    assert!(cases.len() >= LEAST, "only {} plugins", cases.len());
    cases.retain(|case| only.is_none_or(|only| case.name.contains(only)));
    let oracle = neighbour::oracle(&host);
    // Once beside nobody, so that what is made once is made.
    let (wrong, _) = Neighbour::start(&host, &component("hostile")).finish(&oracle);
    assert_eq!(wrong, None);
    let baseline = resident_mib();
    let mut tally = Tally { baseline, peak: baseline, ..Tally::default() };
    for case in &cases {
        run(&host, case, &oracle, show, &mut tally);
    }
    let takeover = takeover::run(only, all, show, &oracle);
    for what in &takeover.wrong {
        tally.wrong += 1;
        println!("WRONG takes over: {what}");
    }
    println!(
        "plugins={} survived={} neighbours_exact={} rows={} slowest_ms={} load={:.1} rss_mib={baseline}..{} peak_mib={} wrong={} seconds={:.0}",
        cases.len(),
        tally.survived,
        tally.exact,
        tally.rows,
        tally.slowest.as_millis(),
        load(),
        resident_mib(),
        tally.peak,
        tally.wrong,
        begun.elapsed().as_secs_f64()
    );
    println!(
        "take over: plugins={} times={} rows={} slowest_ms={} wrong={}",
        takeover.plugins,
        takeover.times,
        takeover.rows,
        takeover.slowest.as_millis(),
        takeover.wrong.len()
    );
    if tally.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Tally {
    survived: usize,
    exact: usize,
    rows: usize,
    slowest: Duration,
    baseline: u64,
    peak: u64,
    wrong: usize,
}

impl Tally {
    fn wrong(&mut self, case: &Case, what: &str) {
        self.wrong += 1;
        println!("WRONG {}: {what}", case.name);
    }
}

/// What came of a hostile pipeline.
type Ended = Result<Arc<Progress>, String>;

fn run(host: &Arc<Host>, case: &Case, oracle: &[String], show: bool, tally: &mut Tally) {
    let begun = Instant::now();
    let mut neighbour = Neighbour::start(host, &component("hostile"));
    let folder = tempfile::tempdir().unwrap();
    let plugin = make(folder.path(), &case.component);
    let text = pipeline(folder.path(), case, &plugin);
    let (hostile_host, at) = (host.clone(), folder.path().to_path_buf());
    let hostile = std::thread::spawn(move || -> Ended {
        let prepared = hostile_host.prepare(&at, &text)?;
        hostile_host.io.block_on(prepared.run()).map_err(|failure| failure.to_string())
    });
    let mut overdue = false;
    while !hostile.is_finished() {
        neighbour.watch();
        tally.peak = tally.peak.max(resident_mib());
        if begun.elapsed() > PATIENCE && !overdue {
            overdue = true;
            tally.wrong(case, "it has not ended");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = hostile.join();
    neighbour.go_on("after the hostile pipeline");
    let slowest = neighbour.slowest;
    tally.slowest = tally.slowest.max(slowest);
    // On a busy machine everything stands still for longer.
    let busy = (load() / std::thread::available_parallelism().map_or(1, usize::from) as f64).max(1.0);
    if slowest > STANDSTILL.mul_f64(busy) {
        tally.wrong(case, &format!("the neighbour stood still for {} ms at a load of {:.1}", slowest.as_millis(), load()));
    }
    let (wrong, rows) = neighbour.finish(oracle);
    tally.rows += rows;
    match wrong {
        None => tally.exact += 1,
        Some(what) => tally.wrong(case, &what),
    }
    match ended {
        Err(_) => tally.wrong(case, "the host panicked"),
        Ok(ended) => {
            if show {
                let said = ended.as_ref().err().map_or_else(|| format!("{:?}", figures(ended.as_ref().ok())), Clone::clone);
                println!("{} ({} ms, neighbour {} ms): {said}", case.name, begun.elapsed().as_millis(), slowest.as_millis());
            }
            match check(folder.path(), case, &plugin, ended) {
                Ok(()) => tally.survived += 1,
                Err(what) => tally.wrong(case, &what),
            }
        }
    }
    let settled = Instant::now();
    while resident_mib() > tally.baseline + SLACK_MIB && settled.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    if resident_mib() > tally.baseline + SLACK_MIB {
        tally.wrong(case, &format!("the process has {} MiB, and had {} at the start", resident_mib(), tally.baseline));
        tally.baseline = resident_mib();
    }
}

fn figures(progress: Option<&Arc<Progress>>) -> Option<pelton_plugin::PluginFigures> {
    progress?.figures().into_iter().find_map(|node| node.plugin)
}

/// Whether it ended as it should, in words that name it.
fn check(folder: &Path, case: &Case, plugin: &Path, ended: Ended) -> Result<(), String> {
    match (case.end, ended) {
        (End::Told(words), Err(said)) => {
            let names = said.contains("Hostile") || said.contains(&plugin.display().to_string()) || said.contains("sha256:");
            let told = names && said.contains(words) && !said.contains("internal");
            if told { Ok(()) } else { Err(format!("it is to be told with `{words}`, and said: {said}")) }
        }
        (End::DeadLetters(count, words), Ok(progress)) => {
            let letters = json_rows(&folder.join("errors"));
            let fits = |letter: &serde_json::Value| {
                let text = |name: &str| letter[name].as_str().unwrap_or_default().to_string();
                let placed = letter["position"]["line"].is_number() || text("msg").starts_with("timer");
                text("msg").contains(words) && text("plugin").starts_with("sha256:") && text("transform") == "Hostile" && placed
            };
            if letters.len() != count || !letters.iter().all(fits) {
                return Err(format!("{} dead letters, and {count} with `{words}` were expected: {:?}", letters.len(), letters.first()));
            }
            // A limit is counted by its name.
            let counted = |breaches: &BTreeMap<&str, u64>| match words.strip_prefix("limits.") {
                Some(limit) => breaches.contains_key(limit),
                None => !breaches.is_empty(),
            };
            match figures(Some(&progress)) {
                Some(figures) if counted(&figures.breaches) => Ok(()),
                figures => Err(format!("the breach was not counted: {figures:?}")),
            }
        }
        (End::Well, Ok(_)) | (End::Somehow, _) => Ok(()),
        (expected, ended) => Err(format!("it is to end as {expected:?}, and was told: {:?}", ended.err())),
    }
}

/// The plugin's file.
fn make(folder: &Path, of: &Component) -> PathBuf {
    let path = folder.join("made.wasm");
    match of {
        Component::Guest(guest) => return component(guest),
        Component::Made(make) => std::fs::write(&path, make(&std::fs::read(component("hostile")).unwrap())).unwrap(),
        Component::Sparse(bytes) => {
            std::fs::write(&path, b"\0asm\x0d\0\x01\0").unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_len(*bytes).unwrap();
        }
    }
    path
}

/// Its pipeline, and the rows for it.
fn pipeline(folder: &Path, case: &Case, plugin: &Path) -> String {
    let number = |row: usize| if row == 7 { -8 } else { row as i64 };
    let rows: String = (0..case.rows).map(|row| format!("{{\"text\":\"row {row}\",\"number\":{},\"t\":{row}}}\n", number(row))).collect();
    std::fs::write(folder.join("rows.json"), rows).unwrap();
    let at = folder.display();
    let schema = "{type: object, properties: {text: {type: string}, number: {type: integer}, t: {type: integer}}}";
    let hostile = match case.role {
        Role::Transform => "{type: Hostile, input: T, config: {error_handling: {output: errors}}}",
        Role::StatefulTransform => "{type: Hostile, input: T, config: {key: [text], error_handling: {output: errors}}}",
        Role::Combine => {
            "{type: Combine, name: Hostile, input: T, config: {group_by: [], combine: {sum: {value: number, fn: {type: Hostile}}}}}"
        }
    };
    let errors = match case.role {
        Role::Combine => String::new(),
        _ => format!("    - {{type: WriteToJson, name: Errors, input: Hostile.errors, config: {{path: '{at}/errors'}}}}\n"),
    };
    format!(
        "pipeline:
  transforms:
    - {{type: ReadFromJson, name: Read, config: {{path: '{at}/rows.json', schema: {schema}}}}}
    - {{type: AssignTimestamps, name: T, input: Read, config: {{timestamp: t}}}}
    - {hostile}
    - {{type: WriteToJson, name: Out, input: Hostile, config: {{path: '{at}/out'}}}}
{errors}providers:
  - {{type: wasm, config: {{plugin: '{}', limits: {}}}, transforms: {{Hostile: '{}'}}}}
",
        plugin.display(),
        case.limits,
        case.transform
    )
}

fn component(name: &str) -> PathBuf {
    let folder = std::env::var_os("PELTON_TEST_COMPONENTS").map_or_else(|| root().join("tests/.cache/components"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("a running process");
    let pages: u64 = text.split(' ').nth(1).expect("resident pages").parse().expect("a number");
    pages * 4 / 1_024
}

/// How many want a core, over the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").expect("a load");
    text.split(' ').next().expect("a number").parse().expect("a number")
}
