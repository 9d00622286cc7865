//! Benchmarks by name. They print ratios from one run: absolute times of different runs are not comparable.

use crate::guests;
use crate::step::{Steps, cargo, must};
use crate::{bench_kafka, flink, peers};
use anyhow::{Result, bail};

/// All benchmarks.
const NAMES: [&str; 5] = ["boundary", "aggregate", "sliding", "peers-traffic", "kafka"];

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
            "kafka" => steps.run(name, bench_kafka::run),
            _ => steps.run(name, boundary),
        }
    }
    steps.finish("bench")
}

fn boundary() -> Result<()> {
    guests::build_test_components()?;
    // With the command line, so that dependencies have the features that the other benchmarks give them.
    must(cargo().args(["bench", "-p", "pelton-cli", "-p", "pelton-plugin", "--bench", "boundary"]))
}

/// With the command line, as above.
fn operator(bench: &str) -> Result<()> {
    must(cargo().args(["bench", "-p", "pelton-cli", "-p", "pelton-runtime", "--bench", bench]))
}
