//! `pelton savepoint` and `pelton stop`: what a running pipeline is told.

use super::host::{HostArguments, change};
use anyhow::{Context, Result, bail};
use pelton_runtime::checkpoint::place;
use pelton_server::client::ClientError;
use pelton_server::control::{AskError, Request, ask};
use pelton_server::names::is_name;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton savepoint state/orders savepoints/before-upgrade\n  pelton savepoint orders\n\nA savepoint stands by itself: it can be moved, and `pelton run --from` begins a pipeline with it, at any parallelism. Of a pipeline that does not run, the last checkpoint is copied."
)]
pub struct Savepoint {
    /// The state folder of the pipeline (`pelton run --state`), or its name on a host.
    state: PathBuf,
    /// A new folder, or a URL of an object store. On a host it may be a name, or be left out: then it lies in the host's folder.
    place: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton stop state/orders --savepoint savepoints/before-upgrade\n  pelton stop orders\n\nThe pipeline finishes what is in flight, takes a last checkpoint and ends; open windows stay open and go on with the next run, unless --drain fires them."
)]
pub struct Stop {
    /// The state folder of the pipeline (`pelton run --state`), or its name on a host.
    state: PathBuf,
    /// Move the watermark to the end, so that open windows fire.
    #[arg(long)]
    drain: bool,
    /// Copy the last checkpoint to this place once the pipeline has stopped; the command waits for that.
    #[arg(long, value_name = "PLACE")]
    savepoint: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

/// The name of a pipeline on a host, rather than a state folder.
pub fn on_host(state: &Path) -> Option<&str> {
    let name = state.to_str().filter(|text| is_name(text))?;
    let is_folder = ["checkpoints", "control.sock"].iter().any(|inner| state.join(inner).exists());
    (!is_folder).then_some(name)
}

/// What went wrong with a host, where a folder may have been meant.
pub fn no_folder(state: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => {
            error.context(format!("{} is no state folder, so a pipeline of a host is meant", state.display()))
        }
        _ => error,
    }
}

/// A place for the host: one of its names stays as it is.
fn place_on_host(place: &str) -> Result<String> {
    if is_name(place) { Ok(place.into()) } else { absolute(place) }
}

pub fn savepoint(command: &Savepoint) -> Result<ExitCode> {
    if let Some(name) = on_host(&command.state) {
        let place = command.place.as_deref().map(place_on_host).transpose()?;
        return change::savepoint(&command.host, name, place.as_deref()).map_err(|error| no_folder(&command.state, error));
    }
    let place = command.place.as_deref().context("name a new folder, or a URL of an object store, for the savepoint")?;
    let place = absolute(place)?;
    let asked = ask(&command.state, &Request::Savepoint { place: place.clone() });
    let epoch = match asked {
        Ok(reply) => reply["epoch"].as_u64().unwrap_or_default(),
        // Nobody listens: the pipeline does not run.
        Err(AskError::Nobody(_)) => copy_last(&command.state, &place)?,
        Err(error) => return Err(error.into()),
    };
    println!("savepoint of epoch {epoch} at {place}");
    Ok(ExitCode::SUCCESS)
}

pub fn stop(command: &Stop) -> Result<ExitCode> {
    if let Some(name) = on_host(&command.state) {
        let told = match (command.drain, &command.savepoint) {
            (true, Some(_)) => bail!("--drain and --savepoint do not go together on a host: what is drained has ended"),
            (true, None) => change::drain_named(&command.host, name),
            (false, place) => {
                let place = place.as_deref().map(place_on_host).transpose()?;
                change::stop(&command.host, name, place.as_deref())
            }
        };
        return told.map_err(|error| no_folder(&command.state, error));
    }
    let savepoint = command.savepoint.as_deref().map(absolute).transpose()?;
    let reply = ask(&command.state, &Request::Stop { drain: command.drain, savepoint: savepoint.clone() })?;
    match (reply["epoch"].as_u64(), savepoint) {
        (Some(epoch), Some(place)) => println!("stopped; savepoint of epoch {epoch} at {place}"),
        _ => println!("stopping"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies the last decided epoch of a state folder that nobody uses.
pub fn copy_last(state: &Path, place: &str) -> Result<u64> {
    if !state.join("checkpoints").exists() {
        bail!("{} is no state folder: there are no checkpoints in it", state.display());
    }
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start threads")?;
    io.block_on(pelton_runtime::checkpoint::copy_newest(&place::of(state), place)).map_err(anyhow::Error::msg)
}

/// The run may have another current folder.
pub fn absolute(place: &str) -> Result<String> {
    if place.contains("://") {
        return Ok(place.into());
    }
    Ok(std::path::absolute(place).with_context(|| format!("`{place}` is no path"))?.display().to_string())
}
