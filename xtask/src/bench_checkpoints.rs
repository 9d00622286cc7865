//! `bench checkpoints`: what checkpoints cost and how long a restart takes, through the binary.
//!
//! - Throughput of windows of 10^5 keys with a checkpoint every second against none, in turns; and how long transforms stood still.
//! - Recovery: a pipeline whose state is as large as its input is stopped at 100 MiB and at 1 GiB, and started again.

use crate::peers;
use crate::step::{cache, cargo, must, release_folder, root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Rounds, each running the pipeline with and without checkpoints once.
const ROUNDS: usize = 5;
/// Lines of the input: enough for several checkpoints.
const LINES: u64 = 10_000_000;
const MIB: u64 = 1 << 20;

pub fn run() -> Result<()> {
    must(cargo().args(["build", "--release", "-p", "pelton-cli"]))?;
    println!("{}", peers::machine());
    let input = peers::input(LINES)?;
    let folder = cache()?.join("bench-checkpoints");
    throughput(&input, &folder)?;
    for mib in [100, 1_024] {
        recovery(&input, &folder, mib)?;
    }
    std::fs::remove_dir_all(&folder).context("removing what the benchmark wrote")
}

/// A pipeline of `benches/checkpoints`.
fn pelton(file: &str, input: &Path, folder: &Path) -> Command {
    let mut command = Command::new(release_folder().join("pelton"));
    command.arg("run").arg(root().join("benches/checkpoints").join(file)).args(["--quiet", "--output", "json", "--parallelism", "2"]);
    command.args(["--set", &format!("input={}", input.display()), "--set", &format!("output={}", folder.join("out").display())]);
    command.stdout(Stdio::piped());
    command
}

fn throughput(input: &Path, folder: &Path) -> Result<()> {
    let (mut without, mut with, mut last) = (Vec::new(), Vec::new(), Value::Null);
    for _ in 0..ROUNDS {
        for durable in [false, true] {
            anew(folder)?;
            let mut command = pelton("keyed.yaml", input, folder);
            if durable {
                command.arg("--state").arg(folder.join("state"));
            }
            let summary = summary(command.spawn()?)?;
            let rate = summary["rows_per_second"].as_f64().context("a rate")?;
            if durable {
                with.push(rate);
                last = summary;
            } else {
                without.push(rate);
            }
        }
    }
    let (with, without) = (median(with), median(without));
    println!("rows/s with a checkpoint every second {with:.0}, without {without:.0}: {:.1} %", 100.0 * with / without);
    let checkpoints = &last["checkpoints"];
    println!(
        "of the last run: {} epochs, {} bytes, from barrier to decision {}",
        checkpoints["last"], checkpoints["bytes"], checkpoints["took"]
    );
    for transform in last["transforms"].as_array().into_iter().flatten() {
        println!("  {:<18} stood still for barriers: {}", transform["name"].as_str().unwrap_or_default(), transform["barrier_pauses"]);
    }
    Ok(())
}

fn recovery(input: &Path, folder: &Path, mib: u64) -> Result<()> {
    anew(folder)?;
    let state = folder.join("state");
    // The smaller the state, the sooner it has to be seen.
    let interval = if mib > 500 { "1s" } else { "100ms" };
    let mut first = pelton("lines.yaml", input, folder);
    let first = first.args(["--set", &format!("interval={interval}")]).arg("--state").arg(&state).spawn()?;
    while size(&state) < mib * MIB {
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(&state)?;
    summary(first)?;
    let bytes = size(&state);
    // It goes on to the end of the input.
    let second = pelton("lines.yaml", input, folder).args(["--set", "interval=1s"]).arg("--state").arg(&state).spawn()?;
    let summary = summary(second)?;
    println!("recovery with {} MiB of state: {} ms", bytes / MIB, summary["checkpoints"]["recovery_millis"]);
    Ok(())
}

/// Stops the pipeline of a state folder, once it listens.
fn stop(state: &Path) -> Result<()> {
    for _ in 0..3_000 {
        let stopped = Command::new(release_folder().join("pelton")).arg("stop").arg(state).output()?;
        if stopped.status.success() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the pipeline of {} does not stop", state.display())
}

fn summary(child: Child) -> Result<Value> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().rfind(|line| line.starts_with('{')).with_context(|| format!("no summary in {text:?}"))?;
    Ok(serde_json::from_str(last)?)
}

fn anew(folder: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).context("making the folder of the benchmark")
}

/// Bytes of all files below a folder; files may go meanwhile.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
