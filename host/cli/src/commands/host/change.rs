//! `pelton pause`, `resume`, `drain`, and `stop` and `savepoint` of a pipeline on a host.

use super::{HostArguments, of};
use crate::commands::run::Output;
use anyhow::Result;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton pause orders\n\nThe pipeline takes a last checkpoint and stands still until `pelton resume`, also over a restart of the host."
)]
pub struct Pause {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton resume orders\n\nThe pipeline goes on from its last checkpoint, whether it was paused or stopped, or has failed."
)]
pub struct Resume {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton drain orders\n\nThe watermark moves to the end, so that every open window fires; the pipeline has ended then."
)]
pub struct Drain {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton remove orders\n\nVersions, state and log of the pipeline are deleted. It must not run.")]
pub struct Remove {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// The pipeline.
    name: String,
    #[command(flatten)]
    host: HostArguments,
    /// Text, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub fn pause(command: &Pause) -> Result<ExitCode> {
    command.change.ask("/pause")
}

pub fn resume(command: &Resume) -> Result<ExitCode> {
    command.change.ask("/resume")
}

pub fn drain(command: &Drain) -> Result<ExitCode> {
    command.change.ask("/drain")
}

pub fn remove(command: &Remove) -> Result<ExitCode> {
    let Change { name, host, output } = &command.change;
    let answer = host.client()?.delete(&of(name, ""))?;
    match output {
        Output::Json => println!("{answer}"),
        Output::Text => println!("{name} is removed"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Change {
    fn ask(&self, what: &str) -> Result<ExitCode> {
        let answer = self.host.client()?.post(&of(&self.name, what), &json!({}))?;
        match self.output {
            Output::Json => println!("{answer}"),
            Output::Text => println!("{} is {}", self.name, answer["state"].as_str().unwrap_or("gone")),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Stops a pipeline of a host, and waits until it has.
pub fn stop(host: &HostArguments, name: &str, savepoint: Option<&str>) -> Result<ExitCode> {
    let answer = host.client()?.post(&of(name, "/stop"), &json!({ "savepoint": savepoint }))?;
    println!("{name} is stopped");
    if answer["savepoint"].is_object() {
        print_savepoint(&answer["savepoint"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// Drains one, and waits until it has ended.
pub fn drain_named(host: &HostArguments, name: &str) -> Result<ExitCode> {
    host.client()?.post(&of(name, "/drain"), &json!({}))?;
    println!("{name} is drained");
    Ok(ExitCode::SUCCESS)
}

/// Copies the state of a pipeline of a host.
pub fn savepoint(host: &HostArguments, name: &str, place: Option<&str>) -> Result<ExitCode> {
    let answer = host.client()?.post(&of(name, "/savepoint"), &json!({ "place": place }))?;
    print_savepoint(&answer);
    Ok(ExitCode::SUCCESS)
}

fn print_savepoint(savepoint: &Value) {
    println!("savepoint of epoch {} at {}", savepoint["epoch"], savepoint["place"].as_str().unwrap_or_default());
}
