//! `pelton test`: runs the `tests:` of a pipeline file.
//!
//! Each test is a part of the pipeline with mocks for what it reads and assertions for what it must give, and runs as a pipeline
//! of its own, one after the other.

use super::Source;
use super::run::Output;
use crate::plugins::Plugins;
use anyhow::{Context, Result, bail};
use pelton_pipeline::{Graph, Test as Case};
use pelton_runtime::{Failure, RunOptions};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton test examples/tested/pipeline.yaml --test 'errors are counted'\n\nExit codes: 0 all tests passed, 1 a test failed, 2 the file is wrong or has no such test."
)]
pub struct Test {
    #[command(flatten)]
    source: Source,
    /// Only tests of this name; may be given several times.
    #[arg(long = "test", value_name = "NAME")]
    names: Vec<String>,
    /// Tasks side by side; by default `options.pelton.parallelism`, else 1.
    #[arg(long)]
    parallelism: Option<usize>,
    /// What to print: text, or one JSON object a test.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub fn run(test: &Test) -> Result<ExitCode> {
    let plugins = Plugins::new()?;
    plugins.of_file(&test.source.pipeline)?;
    let cases = match pelton_pipeline::load_tests(&test.source.settings()?, &pelton_connect::catalog(), &plugins) {
        Ok(cases) => cases,
        Err(diagnostics) => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            return Ok(ExitCode::from(crate::USERS_FAULT));
        }
    };
    let cases = chosen(test, cases)?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("io")
        .build()
        .context("cannot start threads")?;
    let (mut failed, mut wrong) = (0, false);
    let count = cases.len();
    for Case { name, place, graph } in cases {
        let loaded = plugins.of(&graph)?;
        let failure = io.block_on(run_one(test, graph, &loaded, io.handle().clone())).err();
        failed += usize::from(failure.is_some());
        wrong |= failure.as_ref().is_some_and(Failure::is_users);
        let message = failure.map(|failure| failure.to_string());
        match test.output {
            Output::Json => {
                let result = if message.is_none() { "ok" } else { "failed" };
                println!("{}", serde_json::json!({"name": name, "line": place.line, "result": result, "message": message}));
            }
            Output::Text => match message {
                None => println!("test {name} ... ok"),
                Some(message) => println!("test {name} ... FAILED (line {})\n  {}", place.line, message.replace('\n', "\n  ")),
            },
        }
    }
    if test.output == Output::Text {
        println!("\n{} passed, {failed} failed", count - failed);
    }
    Ok(ExitCode::from(match failed {
        0 => 0,
        _ if wrong => crate::USERS_FAULT,
        _ => crate::PIPELINE_FAILED,
    }))
}

fn chosen(test: &Test, cases: Vec<Case>) -> Result<Vec<Case>> {
    let file = test.source.pipeline.display();
    if cases.is_empty() {
        bail!("{file} has no `tests:`; see docs/book/src/testing.md for how to write them");
    }
    if let Some(unknown) = test.names.iter().find(|name| !cases.iter().any(|case| case.name == **name)) {
        let known: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        bail!("{file} has no test `{unknown}`; it has {}", known.join(", "));
    }
    Ok(cases.into_iter().filter(|case| test.names.is_empty() || test.names.contains(&case.name)).collect())
}

async fn run_one(
    test: &Test,
    graph: Graph,
    plugins: &[std::sync::Arc<pelton_plugin::Plugin>],
    io: tokio::runtime::Handle,
) -> Result<(), Failure> {
    let options = RunOptions {
        file: test.source.pipeline.display().to_string(),
        base_dir: std::env::current_dir().unwrap_or_default(),
        parallelism: test.parallelism.or(graph.options.parallelism).unwrap_or(1).clamp(1, pelton_core::key::MAX_PARALLELISM),
        io,
    };
    pelton_runtime::prepare(graph, plugins, options).await?.run().await?;
    Ok(())
}
