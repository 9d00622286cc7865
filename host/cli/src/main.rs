//! The command line. `main` only chooses; each command has a file in `commands`.
//!
//! Exit codes: 0 well, 1 the pipeline or a test failed, 2 the user's input is wrong, 3 the host is unreachable.

mod commands;
mod plugin;
mod plugins;
mod progress;
mod report;
mod summary;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Check a pipeline without running anything.
    Lint(commands::lint::Lint),
    /// Run the tests of a pipeline file.
    Test(commands::test::Test),
    /// Draw a pipeline's plan before and after optimisation.
    Graph(commands::graph::Graph),
    /// Make, build and look into plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Print the reference of all connectors or transforms, in Markdown.
    #[command(hide = true)]
    Reference(commands::reference::Reference),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("PELTON_LOG").unwrap_or_else(|_| "info".into()))
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    let result = match Arguments::parse().command {
        Command::Run(run) => commands::run::run(run),
        Command::Lint(lint) => commands::lint::run(lint),
        Command::Test(test) => commands::test::run(&test),
        Command::Graph(graph) => commands::graph::run(graph),
        Command::Plugin(command) => plugin::run(command),
        Command::Reference(reference) => commands::reference::run(&reference),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(USERS_FAULT)
    })
}

/// The user's input is wrong.
pub const USERS_FAULT: u8 = 2;
/// The pipeline failed.
pub const PIPELINE_FAILED: u8 = 1;
