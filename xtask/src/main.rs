//! `cargo xtask`: set-up and checks that cargo alone cannot do.
//!
//! - [`setup`]: everything that a fresh machine needs for the tests.
//! - [`suites`]: the tests, suite by suite, with their seconds; [`restarts`]: some of them with crashes inside.
//! - [`mod@bench`]: benchmarks by name; [`peers`] and [`flink`]: the comparison with other programs on one job; [`bench_kafka`]: with a
//!   bare loop of librdkafka.
//! - [`beam`]: the real Apache Beam, and the differential suites against it.
//! - [`duckdb`]: DuckDB, and the differential suite of SQL against it; [`python`]: environments for both.
//! - [`registry`]: the server of OCI registries for the suite of that name.
//! - [`storage`]: checkpoints in a server that speaks S3.
//! - [`mod@fuzz`]: the fuzz targets of all crates.
//! - [`ci`]: what has to pass before a change goes in.
//! - [`guests`]: the components that tests run.
//! - [`step`]: running a program as a step that is named and timed.

use clap::{Parser, Subcommand};
use step::{cargo, must};

mod beam;
mod bench;
mod bench_checkpoints;
mod bench_kafka;
mod ci;
mod duckdb;
mod flink;
mod fuzz;
mod guests;
mod peers;
mod python;
mod registry;
mod restarts;
mod setup;
mod step;
mod storage;
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
        /// `boundary`, `peers-traffic`, `kafka`, `swaps`, … Default: all.
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
    /// Runs the rules of checkpoints in simulated worlds where processes die, stop and go on, and nothing arrives when it should.
    #[command(
        after_help = "Arguments: --seeds N, --seed S (alone: shows that seed), --mutation NAME; none: 100,000 seeds and all mutations"
    )]
    Simulate {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kills a pipeline with a real broker again and again, and fails where anything is lost, duplicated or wrong.
    #[command(
        after_help = "Arguments: --kills N, --seed S, --rate RECORDS-A-SECOND, --records N (goes on until so many were sent), --seconds T (no kills after that); none: 25 kills"
    )]
    Kill {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Swaps the plugins, configs and expressions of a running pipeline on a real broker, and fails where a record was not processed once, by the versions that
    /// the recorded cuts say.
    #[command(
        after_help = "Arguments: --swaps N, --seed S, --rate RECORDS-A-SECOND, --deaths all|none; none: 40 swaps, a life dies at each step"
    )]
    Swaps {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Lets processes die, and stop and be overtaken, at every named failpoint, and fails where the output is not exact.
    #[command(
        after_help = "Arguments: --only NAME, --all (with every decider and backend), --copies (zombies on copies of the store), --seed S, --at-once N; none: each failpoint once, with what the seed picks"
    )]
    Failpoints {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Checkpoints in a server that speaks S3 (moto, from PyPI): the rules of storage, deaths and zombies. Builds with the feature `cloud`, so it is no part of CI.
    Storage,
    /// Runs plugins that are written to break the host, each beside a pipeline that must not notice.
    #[command(after_help = "Arguments: --only TEXT (in the name), --show (what each was told); none: all")]
    Hostile {
        /// For the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feeds random bytes to everything that reads what others wrote: answers of guests, formats of files, state.
    Fuzz {
        /// Of each target.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Targets whose names have this text. Default: all.
        filter: Option<String>,
    },
    /// Makes state of very many keys that live for seconds, and fails where ten times the keys take more room.
    #[command(after_help = "Arguments: --keys N (of each kind); none: as many as CI has time for")]
    Cleanup {
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
        Task::Simulate { arguments } => must(cargo().args(["test", "--workspace", "--test", "simulation", "--"]).args(arguments)),
        Task::Kill { arguments } => suites::run_with("kill", &arguments),
        Task::Swaps { arguments } => suites::run_with("swaps", &arguments),
        Task::Failpoints { arguments } => suites::run_with("failpoints", &arguments),
        Task::Storage => storage::run(),
        Task::Hostile { arguments } => suites::run_with("hostile", &arguments),
        Task::Fuzz { seconds, filter } => fuzz::run(seconds, filter.as_deref()),
        Task::Cleanup { arguments } => suites::run_with("cleanup", &arguments),
        Task::Ci { without_kafka } => ci::run(without_kafka),
    }
}
