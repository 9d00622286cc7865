//! `pelton run`: one pipeline in the foreground, to the end of its input or until it is stopped.

use super::Source;
use crate::plugins::Plugins;
use crate::progress::Display;
use crate::{report, summary};
use anyhow::{Context, Result};
use pelton_runtime::{Failure, RunOptions, StopMode};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton run examples/minute-traffic/files.yaml --set input='logs/*.json' --set raw=out/raw --set windowed=out/windowed --set errors=out/errors --set window_duration=60s --report out/report.html\n\nCtrl-C finishes what is in flight, flushes sinks and leaves open windows open; with --drain they fire. A second Ctrl-C stops at once."
)]
pub struct Run {
    #[command(flatten)]
    source: Source,
    /// Tasks side by side; by default `options.pelton.parallelism`, else the number of cores.
    #[arg(long)]
    parallelism: Option<usize>,
    /// At Ctrl-C move the watermark to the end, so that open windows fire.
    #[arg(long)]
    drain: bool,
    /// No progress.
    #[arg(long)]
    quiet: bool,
    /// What to print at the end, and while running: text, or JSON lines.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Write a page with charts of the run.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Threads for connectors' I/O: they wait more than they work.
const IO_THREADS: usize = 2;
/// Tasks side by side at most: one a key group.
pub const MAX_PARALLELISM: usize = 256;

pub fn run(command: Run) -> Result<ExitCode> {
    let plugins = Plugins::new()?;
    let graph = match command.source.load(&plugins)? {
        Ok(graph) => graph,
        Err(diagnostics) => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            return Ok(ExitCode::from(crate::USERS_FAULT));
        }
    };
    eprint!("{}", pelton_pipeline::render(&graph.warnings));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let parallelism = command.parallelism.or(graph.options.parallelism).unwrap_or(cores);
    if !(1..=MAX_PARALLELISM).contains(&parallelism) {
        anyhow::bail!("parallelism {parallelism}: it must be between 1 and {MAX_PARALLELISM}, the number of key groups");
    }
    let loaded = plugins.of(&graph)?;
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .thread_name("io")
        .build()
        .context("cannot start threads")?;
    io.block_on(supervise(command, graph, loaded, parallelism, io.handle().clone()))
}

async fn supervise(
    command: Run,
    graph: pelton_pipeline::Graph,
    plugins: Vec<std::sync::Arc<pelton_plugin::Plugin>>,
    parallelism: usize,
    io: tokio::runtime::Handle,
) -> Result<ExitCode> {
    let name = graph.name.clone();
    let plan = pelton_pipeline::physical::drawing(&graph).to_svg();
    let options = RunOptions {
        file: command.source.pipeline.display().to_string(),
        base_dir: std::env::current_dir().context("there is no current directory")?,
        parallelism,
        io,
    };
    let prepared = match pelton_runtime::prepare(graph, &plugins, options).await {
        Ok(prepared) => prepared,
        Err(failure) => return Ok(failed(&failure)),
    };
    let (progress, stop) = (prepared.progress.clone(), prepared.stop.clone());
    let signals = tokio::spawn(watch_signals(stop.clone(), if command.drain { StopMode::Drain } else { StopMode::Stop }));
    let display = Display::start(progress.clone(), command.quiet, command.output);
    let result = prepared.run().await;
    signals.abort();
    let timeline = display.finish().await;
    let stopped = *stop.borrow();
    match result {
        Ok(progress) => {
            let run = summary::Summary::of(&name, &progress, &timeline, stopped);
            match command.output {
                Output::Text => print!("{}", run.text()),
                Output::Json => println!("{}", serde_json::to_string(&run)?),
            }
            if let Some(path) = &command.report {
                std::fs::write(path, report::page(&run, &progress, &timeline, &plan))
                    .with_context(|| format!("cannot write the report to {}", path.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => Ok(failed(&failure)),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    if let Failure::Connect { error, .. } = failure
        && let Some(help) = error.help()
    {
        eprintln!("  help: {help}");
    }
    ExitCode::from(if failure.is_users() { crate::USERS_FAULT } else { crate::PIPELINE_FAILED })
}

/// Ends the process as a shell expects of an interrupted program.
const INTERRUPTED: i32 = 130;

async fn watch_signals(stop: tokio::sync::watch::Sender<StopMode>, mode: StopMode) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    let mut asked = false;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        if asked {
            eprintln!("stopped at once; what was not flushed is lost");
            std::process::exit(INTERRUPTED);
        }
        asked = true;
        eprintln!("{}; once more stops at once", if mode == StopMode::Drain { "draining" } else { "stopping" });
        let _ = stop.send(mode);
    }
}
