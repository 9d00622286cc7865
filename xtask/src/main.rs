//! `cargo xtask`: set-up and checks that cargo alone cannot do.
//!
//! - [`setup`]: everything that a fresh machine needs for the tests.
//! - [`suites`]: the tests, suite by suite, with their seconds.
//! - [`mod@bench`]: benchmarks by name; [`peers`] and [`flink`]: the comparison with other programs on one job; [`bench_kafka`]: with a
//!   bare loop of librdkafka.
//! - [`beam`]: the real Apache Beam, and the differential suites against it.
//! - [`duckdb`]: DuckDB, and the differential suite of SQL against it; [`python`]: environments for both.
//! - [`ci`]: what has to pass before a change goes in.
//! - [`guests`]: the components that tests run.
//! - [`step`]: running a program as a step that is named and timed.

use clap::{Parser, Subcommand};

mod beam;
mod bench;
mod bench_kafka;
mod ci;
mod duckdb;
mod flink;
mod guests;
mod peers;
mod python;
mod setup;
mod step;
mod suites;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up and checks that cargo alone cannot do")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Prepares this machine for the tests: programs, a Kafka broker, the toolchain and components of guests.
    Setup {
        /// Leave out the broker (the tests then need the same flag).
        #[arg(long)]
        without_kafka: bool,
    },
    /// Runs the suites of tests, or those that are named.
    Test {
        /// Skip the suite on a real broker, and say so.
        #[arg(long)]
        without_kafka: bool,
        /// `unit`, `fuzz`, `plugins`, `doc`, or a test target of the package `pelton-tests`. Default: all.
        suites: Vec<String>,
    },
    /// Runs a benchmark, or all.
    Bench {
        /// `boundary`, `peers-traffic` or `kafka`. Default: all.
        name: Option<String>,
        /// `peers-traffic` against Flink, over 2 M and 10 M lines; fetches Flink once (329 MB).
        #[arg(long)]
        with_flink: bool,
    },
    /// Runs the same pipelines here and on the real Apache Beam 2.77.0, and fails where the answers differ.
    #[command(
        after_help = "Arguments: --corpus, --random N, --seed S, --case TEXT, --file CASES.yaml, --verbose; none: the corpus and 200 random pipelines"
    )]
    BeamDiff {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs Beam's trigger transcripts, and the same random streams here and on Beam's own runner, and fails where panes differ.
    #[command(after_help = "Arguments: --random N, --seed S, --only SEED; none: 1,000 streams")]
    TriggerDiff {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Evaluates random SQL expressions, queries and joins here and on DuckDB, and fails where the answers differ.
    #[command(after_help = "Arguments: --random N expressions, --queries N, --seed S, --verbose; none: 1,000 expressions and 60 queries")]
    SqlDiff {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Format, clippy, licences and advisories, documentation, and all tests.
    Ci {
        /// Skip the suite on a real broker, and say so.
        #[arg(long)]
        without_kafka: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Setup { without_kafka } => setup::run(without_kafka),
        Task::Test { without_kafka, suites } => {
            // All of them need what the set-up makes; it takes a second when everything is there.
            if suites.is_empty() {
                setup::run(without_kafka)?;
            }
            suites::run(&suites, without_kafka)
        }
        Task::Bench { name, with_flink } => bench::run(name.as_deref(), with_flink),
        Task::BeamDiff { arguments } => beam::run("beam", &arguments),
        Task::TriggerDiff { arguments } => beam::run("triggers", &arguments),
        Task::SqlDiff { arguments } => duckdb::run(&arguments),
        Task::Ci { without_kafka } => ci::run(without_kafka),
    }
}
