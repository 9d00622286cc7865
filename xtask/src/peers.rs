//! `bench peers-traffic`: the job of `benches/peers` as three pipelines, against the hand-written program. All in one run, taken in
//! turns; ratios of medians are printed. [`crate::flink`] adds Flink.

use crate::guests;
use crate::step::{cache, cargo, must, program, release_folder, root};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of the input.
pub const LINES: u64 = 2_000_000;
/// What the right answer to that many lines hashes to.
const ANSWER: &str = "hash a84f5eea94e8";
/// Rounds, each running every contestant once.
const ROUNDS: usize = 3;

/// A program that does the job.
pub struct Contestant {
    pub name: &'static str,
    /// Its command, given the folder for what it writes.
    pub command: Box<dyn Fn(&Path) -> Command>,
    /// What it wrote there, to be checked.
    pub output: &'static str,
}

#[derive(Clone, Copy)]
pub struct Figures {
    pub wall: f64,
    pub cpu: f64,
    pub peak_mib: f64,
}

pub fn run() -> Result<()> {
    build()?;
    let input = input(LINES)?;
    let mut contestants = vec![hand_written(&input)];
    contestants.extend(pelton(&input));
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        let taken = round(&contestants, LINES)?;
        figures.iter_mut().zip(taken).for_each(|(figures, (_, taken))| figures.push(taken));
    }
    print_ratios(&contestants, &figures);
    Ok(())
}

/// Everything that takes part, in release.
pub fn build() -> Result<()> {
    guests::build_test_components()?;
    must(cargo().args(["build", "--release", "-p", "pelton-cli"]))?;
    let rustref = root().join("benches/peers/rustref/Cargo.toml");
    let target = root().join("target/peers");
    must(cargo().args(["build", "--release", "--manifest-path"]).arg(rustref).env("CARGO_TARGET_DIR", target))
}

/// The program in Rust that all are compared with.
pub fn hand_written(input: &Path) -> Contestant {
    let input = input.to_path_buf();
    let command = move |out: &Path| {
        let mut command = Command::new(root().join("target/peers/release/rustref"));
        command.arg(&input).arg(out.join("rust.jsonl"));
        command
    };
    Contestant { name: "rust", command: Box::new(command), output: "rust.jsonl" }
}

/// The three pipelines.
pub fn pelton(input: &Path) -> Vec<Contestant> {
    let pipelines = [
        ("pelton (a) guest parses", "a-guest-parses.yaml", "a.json-00000-of-00001"),
        ("pelton (b) host parses", "b-host-parses.yaml", "b.json-00000-of-00001"),
        ("pelton (c) built-ins", "c-built-ins.yaml", "c.json-00000-of-00001"),
    ];
    let contestant = |(name, file, output): (&'static str, &'static str, &'static str)| {
        let input = input.display().to_string();
        let command = move |out: &Path| {
            let stem = output.split('-').next().unwrap_or(output);
            let mut command = Command::new(release_folder().join("pelton"));
            command.arg("run").arg(root().join("benches/peers-traffic").join(file)).args(["--quiet", "--parallelism", "2"]);
            command.args(["--set", &format!("input={input}"), "--set", &format!("output={}", out.join(stem).display())]);
            command
        };
        Contestant { name, command: Box::new(command), output }
    };
    pipelines.into_iter().map(contestant).collect()
}

/// Runs each contestant once; all must give the same answer, and the known one where it is known.
pub fn round(contestants: &[Contestant], lines: u64) -> Result<Vec<(&'static str, Figures)>> {
    let folder = cache()?.join("peers-out");
    let mut taken = Vec::new();
    let mut right = (lines == LINES).then(|| ANSWER.to_string());
    for contestant in contestants {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let figures = measure((contestant.command)(&folder)).with_context(|| format!("running {}", contestant.name))?;
        let answer = program("python3").arg(root().join("benches/peers/check.py")).arg(folder.join(contestant.output)).output()?;
        let answer = String::from_utf8_lossy(&answer.stdout).trim().to_string();
        let right = right.get_or_insert_with(|| answer.clone());
        if answer.is_empty() || !answer.contains(right.as_str()) {
            bail!("{} gave a wrong answer: {answer}, not {right}", contestant.name);
        }
        println!(
            "{lines} lines, {:<26} wall {:6.2} s, cpu {:6.2} s, peak {:5.0} MiB",
            contestant.name, figures.wall, figures.cpu, figures.peak_mib
        );
        taken.push((contestant.name, figures));
    }
    Ok(taken)
}

fn print_ratios(contestants: &[Contestant], figures: &[Vec<Figures>]) {
    let median = |rounds: &[Figures], of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (base_wall, base_cpu) = (median(&figures[0], |f| f.wall), median(&figures[0], |f| f.cpu));
    println!("\n{}, medians of {ROUNDS} rounds over {LINES} lines", machine());
    for (contestant, rounds) in contestants.iter().zip(figures) {
        println!(
            "{:<26} wall {:6.2} s = {:5.2} x rust, cpu {:6.2} s = {:5.2} x rust, peak {:5.0} MiB",
            contestant.name,
            median(rounds, |f| f.wall),
            median(rounds, |f| f.wall) / base_wall,
            median(rounds, |f| f.cpu),
            median(rounds, |f| f.cpu) / base_cpu,
            median(rounds, |f| f.peak_mib)
        );
    }
}

/// What figures have to be read with: the commit and the processor.
pub fn machine() -> String {
    let commit = program("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string()).unwrap_or_default();
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name)).unwrap_or("unknown");
    format!("commit {commit}, {} x {model}", cpus.matches("model name").count())
}

/// An input, made once by the generator and kept in the cache folder.
pub fn input(lines: u64) -> Result<PathBuf> {
    let path = cache()?.join(format!("peers-log-{lines}.jsonl"));
    if !path.exists() {
        println!("making {} ({} MB)", path.display(), lines * 255 / 1_000_000);
        let making = path.with_extension("part");
        must(program("python3").arg(root().join("benches/peers/gen.py")).arg(lines.to_string()).arg(&making))?;
        std::fs::rename(&making, &path)?;
    }
    Ok(path)
}

/// Wall time, CPU time and peak memory of a command, as GNU-less `getrusage` of a small Python wrapper tells them: it waits for the
/// whole tree.
fn measure(command: Command) -> Result<Figures> {
    const WRAPPER: &str = "import sys,subprocess,resource,time\nt=time.time();rc=subprocess.call(sys.argv[1:],stdout=subprocess.DEVNULL);w=time.time()-t\nr=resource.getrusage(resource.RUSAGE_CHILDREN);print(rc,w,r.ru_utime+r.ru_stime,r.ru_maxrss/1024)";
    let mut wrapped = Command::new("python3");
    wrapped.args(["-c", WRAPPER]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    let output = wrapped.stderr(std::process::Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [0.0, wall, cpu, peak_mib] => Ok(Figures { wall: *wall, cpu: *cpu, peak_mib: *peak_mib }),
        _ => bail!("it failed: {text}"),
    }
}
