//! Benchmarks by name. They print ratios from one run: absolute times of different runs are not comparable.

use crate::guests;
use crate::step::{Steps, cargo, must};
use crate::{bench_checkpoints, bench_kafka, flink, peers};
use anyhow::{Result, bail};

/// All benchmarks.
const NAMES: [&str; 9] = ["boundary", "compile", "aggregate", "sliding", "checkpoints", "peers-traffic", "kafka", "swaps", "neighbours"];

/// Runs the named benchmark, or all.
pub fn run(named: Option<&str>, with_flink: bool) -> Result<()> {
    let chosen: Vec<&str> = NAMES.into_iter().filter(|name| named.is_none_or(|named| named == *name)).collect();
    if chosen.is_empty() {
        bail!("no benchmark `{}`; there are: {}", named.unwrap_or_default(), NAMES.join(", "));
    }
    let mut steps = Steps::default();
    for name in chosen {
        match name {
            "peers-traffic" if with_flink => steps.run("peers-traffic with Flink", flink::run),
            "peers-traffic" => steps.run(name, peers::run),
            "aggregate" | "sliding" => steps.run(name, || operator(name)),
            "checkpoints" => steps.run(name, bench_checkpoints::run),
            "kafka" => steps.run(name, bench_kafka::run),
            "swaps" => steps.run(name, bench_kafka::swaps),
            "neighbours" => steps.run(name, bench_kafka::neighbours),
            _ => steps.run(name, || plugin(name)),
        }
    }
    steps.finish("bench")
}

fn plugin(bench: &str) -> Result<()> {
    guests::build_test_components()?;
    // With the command line, so that dependencies have the features that the other benchmarks give them.
    must(cargo().args(["bench", "-p", "pelton-cli", "-p", "pelton-plugin", "--bench", bench]))
}

/// With the command line, as above.
fn operator(bench: &str) -> Result<()> {
    must(cargo().args(["bench", "-p", "pelton-cli", "-p", "pelton-runtime", "--bench", bench]))
}
