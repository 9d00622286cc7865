//! The command line. `main` only chooses; each command has a file in `commands`.
//!
//! Exit codes: 0 well, 1 the pipeline or a test failed, 2 the user's input is wrong, 3 the host is unreachable.

mod allocator;
mod commands;
mod plugin;
mod plugins;
mod progress;
mod report;
mod store;
mod summary;

use clap::{Parser, Subcommand};
use commands::host;
use pelton_server::client::ClientError;
use pelton_server::logs::Logs;
use std::process::ExitCode;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Debug, Parser)]
#[command(
    name = "pelton",
    version,
    about = "A stream processor that you extend with WebAssembly",
    after_help = "Exit codes: 0 well, 1 the pipeline or a test failed, 2 the input is wrong, 3 the host is unreachable."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one pipeline in the foreground.
    Run(commands::run::Run),
    /// Copy the state of a pipeline to a place of its own.
    Savepoint(commands::savepoint::Savepoint),
    /// Stop a running pipeline.
    Stop(commands::savepoint::Stop),
    /// Keep pipelines running: a host with a control API.
    Serve(host::serve::Serve),
    /// Make a token for the API of a host.
    Token(host::token::Token),
    /// Bring a pipeline, or a new version of it, to a host.
    Deploy(host::deploy::Deploy),
    /// Return to a version of a pipeline on a host.
    Rollback(host::deploy::Rollback),
    /// All pipelines of a host.
    List(host::list::List),
    /// What a pipeline of a host is doing.
    Status(host::status::Status),
    /// What a pipeline of a host logs.
    Logs(host::logs::Logs),
    /// A page of the terminal with what a host is doing.
    Top(host::top::Top),
    /// All versions of a pipeline on a host.
    History(host::list::History),
    /// Let a pipeline of a host stand still.
    Pause(host::change::Pause),
    /// Let a pipeline of a host go on.
    Resume(host::change::Resume),
    /// Let all windows of a pipeline of a host fire, and end it.
    Drain(host::change::Drain),
    /// Forget a pipeline of a host.
    Remove(host::change::Remove),
    /// Look into checkpoints and savepoints.
    #[command(subcommand)]
    State(commands::state::StateCommand),
    /// Check a pipeline without running anything.
    Lint(commands::lint::Lint),
    /// Run the tests of a pipeline file.
    Test(commands::test::Test),
    /// Record a transform of a running pipeline, and run the recording again.
    #[command(subcommand)]
    Replay(commands::replay::ReplayCommand),
    /// Draw a pipeline's plan before and after optimisation.
    Graph(commands::graph::Graph),
    /// Make, build, sign, publish and look into plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Print the reference of all connectors or transforms, in Markdown.
    #[command(hide = true)]
    Reference(commands::reference::Reference),
    /// Compile a component from standard input to standard output, within limits.
    #[command(hide = true)]
    CompilePlugin(commands::compile_plugin::CompilePlugin),
}

fn main() -> ExitCode {
    allocator::set_up();
    let command = Arguments::parse().command;
    let logs = Logs::default();
    let kept = matches!(command, Command::Serve(_)).then(|| logs.layer());
    tracing_subscriber::registry()
        .with(tracing_subscriber::EnvFilter::try_from_env("PELTON_LOG").unwrap_or_else(|_| "info".into()))
        .with(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_target(false),
        )
        .with(kept)
        .init();
    run(command, logs).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(code(&error))
    })
}

fn run(command: Command, logs: Logs) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(run) => commands::run::run(run),
        Command::Savepoint(savepoint) => commands::savepoint::savepoint(&savepoint),
        Command::Stop(stop) => commands::savepoint::stop(&stop),
        Command::Serve(serve) => host::serve::run(serve, logs),
        Command::Token(token) => host::token::run(&token),
        Command::Deploy(deploy) => host::deploy::deploy(&deploy),
        Command::Rollback(rollback) => host::deploy::rollback(&rollback),
        Command::List(list) => host::list::list(&list),
        Command::Status(status) => host::status::run(&status),
        Command::Logs(logs) => host::logs::run(&logs),
        Command::Top(top) => host::top::run(&top),
        Command::History(history) => host::list::history(&history),
        Command::Pause(pause) => host::change::pause(&pause),
        Command::Resume(resume) => host::change::resume(&resume),
        Command::Drain(drain) => host::change::drain(&drain),
        Command::Remove(remove) => host::change::remove(&remove),
        Command::State(state) => commands::state::run(state),
        Command::Lint(lint) => commands::lint::run(lint),
        Command::Test(test) => commands::test::run(&test),
        Command::Replay(replay) => commands::replay::run(&replay),
        Command::Graph(graph) => commands::graph::run(graph),
        Command::Plugin(command) => plugin::run(command),
        Command::Reference(reference) => commands::reference::run(&reference),
        Command::CompilePlugin(compile) => Ok(commands::compile_plugin::run(&compile)),
    }
}

/// Whose fault an error is.
fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => HOST_UNREACHABLE,
        Some(ClientError::Refused { status, .. }) if *status >= SERVER_ERROR => PIPELINE_FAILED,
        _ => USERS_FAULT,
    }
}

/// From this status of HTTP on the host is at fault.
const SERVER_ERROR: u16 = 500;
/// The user's input is wrong.
pub const USERS_FAULT: u8 = 2;
/// The pipeline failed.
pub const PIPELINE_FAILED: u8 = 1;
/// No host answers.
pub const HOST_UNREACHABLE: u8 = 3;
