//! Benchmarks by name. They print ratios from one run: absolute times of different runs are not comparable.

use crate::guests;
use crate::step::{Steps, cargo, must};
use anyhow::{Result, bail};

struct Bench {
    name: &'static str,
    package: &'static str,
    target: &'static str,
}

const BENCHES: &[Bench] = &[Bench { name: "boundary", package: "pelton-plugin", target: "boundary" }];

/// Runs the named benchmark, or all.
pub fn run(name: Option<&str>) -> Result<()> {
    if name == Some("peers-traffic") {
        return crate::peers::run();
    }
    let chosen: Vec<&Bench> = BENCHES.iter().filter(|bench| name.is_none_or(|name| name == bench.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("no benchmark `{}`; there are: {}", name.unwrap_or_default(), names.join(", "));
    }
    let mut steps = Steps::default();
    steps.run("components", || guests::build_test_components().map(|_| ()));
    for bench in chosen {
        steps.run(bench.name, || must(cargo().args(["bench", "-p", bench.package, "--bench", bench.target])));
    }
    steps.finish("bench")
}
