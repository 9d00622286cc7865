//! `pelton run`: one pipeline in the foreground, to the end of its input or until it is stopped.

use super::{Source, StateArguments};
use crate::plugins::Plugins;
use crate::progress::{Display, Timeline};
use crate::{report, summary};
use anyhow::{Context, Result};
use pelton_core::key::MAX_PARALLELISM;
use pelton_pipeline::Graph;
use pelton_runtime::{Progress, StopMode};
use pelton_server::control::{Control, Orders};
use pelton_server::crashes::Crashes;
use pelton_server::state::State;
use pelton_server::versions::{Base, LoadError, Loaded};
use pelton_server::{End, Event, Job, Outcome, Watcher, supervise};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton run examples/minute-traffic/files.yaml --set input='logs/*.json' --set raw=out/raw --set windowed=out/windowed --set errors=out/errors --set window_duration=60s --report out/report.html\n\nCtrl-C finishes what is in flight, flushes sinks and leaves open windows open; with --drain they fire. A second Ctrl-C stops at once."
)]
pub struct Run {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    state: StateArguments,
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

pub fn run(command: Run) -> Result<ExitCode> {
    command.report.as_deref().map(check_report).transpose()?;
    let plugins = Plugins::new()?;
    plugins.of_file(&command.source.pipeline)?;
    let (base, Loaded { graph, plugins }) = match Base::new(command.source.settings()?, Box::new(plugins)) {
        Ok(loaded) => loaded,
        Err(LoadError::File(diagnostics)) => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            return Ok(ExitCode::from(crate::USERS_FAULT));
        }
        Err(LoadError::Other(error)) => return Err(error.into()),
    };
    eprint!("{}", pelton_pipeline::render(&graph.warnings));
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let parallelism = command.parallelism.or(graph.options.parallelism).unwrap_or(cores);
    if !(1..=MAX_PARALLELISM).contains(&parallelism) {
        anyhow::bail!("parallelism {parallelism}: it must be between 1 and {MAX_PARALLELISM}, the number of key groups");
    }
    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .thread_name("io")
        .build()
        .context("cannot start threads")?;
    let state = State::open(&command.state.options(), &graph.options.durable)?;
    let orders = Orders::new();
    let control = state.as_ref().map(|state| Control::new(&state.options.state, orders.clone()));
    let mut console = Console::new(&command, &graph);
    let job = Job {
        base: state.as_ref().map(|state| Arc::new(base.in_folder(state.options.state.join("components")))),
        graph,
        plugins,
        file: command.source.pipeline.display().to_string(),
        base_dir: std::env::current_dir().context("there is no current directory")?,
        parallelism,
        io: io.handle().clone(),
        state,
        crashes: Crashes::new(),
        orders: orders.clone(),
        control,
    };
    let Outcome { end, epochs: _, lives } = io.block_on(async {
        let signals = tokio::spawn(watch_signals(orders, if command.drain { StopMode::Drain } else { StopMode::Stop }));
        let outcome = supervise(job, &mut console).await;
        signals.abort();
        outcome
    })?;
    if let Some(lives) = lives {
        eprintln!("{lives}");
    }
    if let Some(error) = console.error {
        return Err(error);
    }
    Ok(match end {
        End::Well => ExitCode::SUCCESS,
        End::Failed(failure) => ExitCode::from(if failure.is_users() { crate::USERS_FAULT } else { crate::PIPELINE_FAILED }),
    })
}

/// Finds out before the run whether its report can be written.
fn check_report(path: &Path) -> Result<()> {
    let was_there = path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("cannot write the report to {}", path.display()))?;
    if !was_there {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Shows on the terminal what happens to the pipeline.
struct Console<'a> {
    command: &'a Run,
    name: String,
    /// Its plan, for the report.
    plan: String,
    display: Option<Display>,
    /// Of the last life.
    timeline: Timeline,
    /// Why the report or the summary is not there.
    error: Option<anyhow::Error>,
}

impl Console<'_> {
    fn new<'a>(command: &'a Run, graph: &Graph) -> Console<'a> {
        Console {
            command,
            name: graph.name.clone(),
            plan: pelton_pipeline::physical::drawing(graph).to_svg(),
            display: None,
            timeline: Timeline::default(),
            error: None,
        }
    }

    /// The summary, and the report if one is wanted.
    fn finished(&self, progress: &Progress, stopped: StopMode) -> Result<()> {
        let run = summary::Summary::of(&self.name, progress, &self.timeline, stopped);
        match self.command.output {
            Output::Text => print!("{}", run.text()),
            Output::Json => println!("{}", serde_json::to_string(&run)?),
        }
        if let Some(path) = &self.command.report {
            std::fs::write(path, report::page(&run, progress, &self.timeline, &self.plan))
                .with_context(|| format!("cannot write the report to {}", path.display()))?;
        }
        Ok(())
    }
}

#[async_trait::async_trait(?Send)]
impl Watcher for Console<'_> {
    async fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Began(progress) => {
                self.display = Some(Display::start(progress.clone(), self.command.quiet, self.command.output));
            }
            Event::Over => {
                if let Some(display) = self.display.take() {
                    self.timeline = display.finish().await;
                }
            }
            Event::Finished { progress, stopped } => self.error = self.finished(progress, stopped).err(),
            Event::HadEnded(epoch) => eprintln!(
                "pipeline `{}` has ended: its input was read to the end and all output is visible (epoch {epoch}); --restart begins anew",
                self.name
            ),
            Event::Restarts { message, pause } => {
                eprintln!("failed: {message}\n  the pipeline goes on from its last checkpoint in {:.1} s", pause.as_secs_f64());
            }
            Event::Failed(message) => eprintln!("error: {message}"),
            Event::Savepoint { epoch, place } => eprintln!("savepoint of epoch {epoch} at {place}"),
        }
    }
}

/// Ends the process as a shell expects of an interrupted program.
const INTERRUPTED: i32 = 130;

async fn watch_signals(orders: Arc<Orders>, mode: StopMode) {
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
        orders.stop(mode);
    }
}
