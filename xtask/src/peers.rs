//! `bench peers-traffic`: the job of `benches/peers` as three pipelines, against the hand-written program, and against Flink
//! where it is there. All in one run, taken in turns; ratios of medians are printed.

use crate::guests;
use crate::step::{cache, cargo, must, program, root};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of the input.
const LINES: u64 = 2_000_000;
/// What the right answer hashes to.
const ANSWER: &str = "hash a84f5eea94e8";
/// Rounds, each running every contestant once.
const ROUNDS: usize = 3;

struct Contestant {
    name: &'static str,
    command: Box<dyn Fn(&Path) -> Command>,
    /// What it wrote, to be checked.
    output: &'static str,
}

#[derive(Clone, Copy)]
struct Figures {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
}

pub fn run() -> Result<()> {
    guests::build_test_components()?;
    must(cargo().args(["build", "--release", "-p", "pelton-cli"]))?;
    let rustref = root().join("benches/peers/rustref");
    must(
        cargo()
            .args(["build", "--release", "--manifest-path"])
            .arg(rustref.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", root().join("target/peers")),
    )?;
    let input = input()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let pelton = target.join("release/pelton");
    let folder = cache()?.join("peers-out");
    let mut contestants = vec![Contestant {
        name: "rust",
        command: Box::new({
            let input = input.clone();
            move |out| {
                let mut command = Command::new(root().join("target/peers/release/rustref"));
                command.arg(&input).arg(out.join("rust.jsonl"));
                command
            }
        }),
        output: "rust.jsonl",
    }];
    for (name, file, output) in [
        ("pelton (a) guest parses", "a-guest-parses.yaml", "a.json-00000-of-00001"),
        ("pelton (b) host parses", "b-host-parses.yaml", "b.json-00000-of-00001"),
        ("pelton (c) built-ins", "c-built-ins.yaml", "c.json-00000-of-00001"),
    ] {
        let (pelton, input) = (pelton.clone(), input.clone());
        let command = move |out: &Path| {
            let stem = output.split('-').next().unwrap_or(output);
            let mut command = Command::new(&pelton);
            command.arg("run").arg(root().join("benches/peers-traffic").join(file));
            command.args([
                "--quiet",
                "--parallelism",
                "2",
                "--set",
                &format!("input={}", input.display()),
                "--set",
                &format!("output={}", out.join(stem).display()),
            ]);
            command
        };
        contestants.push(Contestant { name, command: Box::new(command), output });
    }
    if let Some(flink) = std::env::var_os("FLINK") {
        let input = input.clone();
        let command = move |out: &Path| {
            let mut command = Command::new("bash");
            command
                .arg(root().join("benches/peers/flink/run.sh"))
                .arg(&input)
                .arg(out.join("flink"))
                .arg("2")
                .env("FLINK", &flink)
                .env("MAIN", "DS");
            command
        };
        contestants.push(Contestant { name: "flink", command: Box::new(command), output: "flink" });
    } else {
        println!("flink: left out, since FLINK does not name the pyflink/lib folder of apache-flink-libraries 2.3.0");
    }
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); contestants.len()];
    for round in 0..ROUNDS {
        for (contestant, figures) in contestants.iter().zip(&mut figures) {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder)?;
            let taken = measure((contestant.command)(&folder)).with_context(|| format!("running {}", contestant.name))?;
            let answer = program("python3").arg(root().join("benches/peers/check.py")).arg(folder.join(contestant.output)).output()?;
            let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
            if !answer.contains(ANSWER) {
                bail!("{} gave a wrong answer: {answer}", contestant.name);
            }
            println!(
                "round {} {:<26} wall {:6.2} s, cpu {:6.2} s, peak {:5.0} MiB",
                round + 1,
                contestant.name,
                taken.wall,
                taken.cpu,
                taken.peak_mib
            );
            figures.push(taken);
        }
    }
    print_ratios(&contestants, &figures);
    Ok(())
}

fn print_ratios(contestants: &[Contestant], figures: &[Vec<Figures>]) {
    let median = |rounds: &[Figures], of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (base_wall, base_cpu) = (median(&figures[0], |f| f.wall), median(&figures[0], |f| f.cpu));
    let commit = program("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
        .unwrap_or_default();
    let machine = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| text.lines().find(|line| line.starts_with("model name")).map(str::to_string))
        .unwrap_or_default();
    println!("\ncommit {commit}, {machine}, medians of {ROUNDS} rounds over {LINES} lines");
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

/// The input, made once by the generator and kept in the cache folder.
fn input() -> Result<PathBuf> {
    let path = cache()?.join(format!("peers-log-{LINES}.jsonl"));
    if !path.exists() {
        println!("making {} (511 MB)", path.display());
        let making = path.with_extension("part");
        must(program("python3").arg(root().join("benches/peers/gen.py")).arg(LINES.to_string()).arg(&making))?;
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
