//! `pelton plugin swap|canary|shadow|rollback|history`: other versions of a running pipeline's transforms.
//!
//! The pipeline is that of a state folder, whose run is asked through its socket, or one of a host, which is asked through its API.

use super::{named, publish};
use crate::commands::host::deploy::{Components, send, send_signatures};
use crate::commands::host::{HostArguments, of};
use crate::commands::savepoint::{no_folder, on_host};
use crate::plugins::signatures_of;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use pelton_plugin::Plugin;
use pelton_registry::Reference;
use pelton_runtime::swap::{Allowed, Kind};
use pelton_server::control::{Request, ask};
use pelton_server::swaps::Beside;
use pelton_server::versions::Asked;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Where the pipeline is.
#[derive(Debug, clap::Args)]
struct Pipeline {
    /// The state folder of the pipeline (`pelton run --state`), or its name on a host.
    pipeline: PathBuf,
    #[command(flatten)]
    host: HostArguments,
}

impl Pipeline {
    /// Asks its host, if it has one. Plugins are sent first; it is waited for so long besides.
    fn ask_host(&self, path: &str, mut request: Value, changes: &[Asked], wait: u64) -> Result<Option<Value>> {
        let Some(name) = on_host(&self.pipeline) else { return Ok(None) };
        let client = self.host.client()?.patient(Duration::from_secs(wait));
        let mut components = Components::new();
        let mut named = changes.to_vec();
        for change in &mut named {
            if let Some(plugin) = change.plugin.as_mut().filter(|plugin| !plugin.starts_with("sha256:")) {
                let bytes = std::fs::read(&plugin).with_context(|| format!("cannot read the component {plugin}"))?;
                let digest = Plugin::digest_of(&bytes);
                send_signatures(&client, &signatures_of(Path::new(plugin), &digest).map_err(anyhow::Error::msg)?)?;
                *plugin = digest;
                components.insert(plugin.clone(), bytes.into());
            }
        }
        if !named.is_empty() {
            request["changes"] = json!(named);
        }
        send(&client, &of(name, path), &request, &components).map(Some).map_err(|error| no_folder(&self.pipeline, error))
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pelton plugin swap state/orders ParseLog plugins/parse-log\n  pelton plugin swap orders ParseLog plugins/parse-log --watch\n  pelton plugin swap state/orders ParseLog plugins/parse-log --and Enrich=plugins/enrich --dry-run\n  pelton plugin swap state/orders Keep --config '{\"keep\": \"amount > 10\"}'\n\nThe new version is checked and tried on rows that have just come in, while the old one goes on. Then one barrier goes through the pipeline: what came before it was processed by the old version, what comes after it by the new one. State stays. If anything is wrong, the old version goes on."
)]
pub struct Swap {
    #[command(flatten)]
    pipeline: Pipeline,
    /// Full name of the transform; of an aggregate in a `Combine`, TRANSFORM.COLUMN.
    transform: String,
    /// The new plugin: a crate's folder, which is built if it is stale, a component's file, a reference to a registry, or the digest of a version
    /// that ran before.
    new: Option<String>,
    /// The new config, as JSON or @FILE; what it does not name of `key`, `side_inputs`, `error_handling` and `output_schema` stays.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// Swap another transform's plugin in the same instant; may be given several times.
    #[arg(long = "and", value_name = "TRANSFORM=NEW")]
    and: Vec<String>,
    /// Take a version out of a registry even if it is older than one that was used before.
    #[arg(long)]
    allow_downgrade: bool,
    /// Check and try the new version, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Swap also where the old version could not take its state back.
    #[arg(long)]
    irreversible: bool,
    /// Look at the new version for so many seconds, and go back if it refuses more rows than the old one, or fails.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    watch: Option<u64>,
    /// Why; stands in the history of a host.
    #[arg(long)]
    note: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin canary state/orders ParseLog plugins/parse-log --by user --percent 1,10,50 --seconds 30 --promote\n\nThe candidate takes the rows of some keys, by hash; a key stays on its side. Of a transform with state both versions work on the candidate's keys, each on its own state, so that neither the end of the candidate nor its promotion loses an update. It goes by itself when it fails, refuses more rows or takes longer than is allowed."
)]
pub struct Canary {
    #[command(flatten)]
    candidate: Candidate,
    /// Shares of the keys, percent, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "10")]
    percent: Vec<f64>,
    /// Columns whose values say on which side a row is; by default the key of a transform with state, else where the row was read.
    #[arg(long, value_delimiter = ',', value_name = "COLUMN")]
    by: Vec<String>,
    /// Swap the candidate in at the end.
    #[arg(long)]
    promote: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin shadow state/orders ParseLog plugins/parse-log --seconds 60 --differing 0.001\n\nThe candidate sees all rows; what it makes of them is compared with what the version that runs makes of them, and dropped."
)]
pub struct Shadow {
    #[command(flatten)]
    candidate: Candidate,
}

/// A candidate, and what is allowed of it.
#[derive(Debug, clap::Args)]
struct Candidate {
    #[command(flatten)]
    pipeline: Pipeline,
    /// Full name of the transform.
    transform: String,
    /// The candidate: a crate's folder, which is built if it is stale, a component's file, or a digest.
    new: Option<String>,
    /// Its config, as JSON or @FILE.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// How long it is looked at; of a canary, for each share.
    #[arg(long, default_value = "30")]
    seconds: u64,
    /// Rows that it has had before anything is concluded.
    #[arg(long, default_value = "1000")]
    rows: u64,
    /// The share of refused rows that may come on top of that of the version that runs.
    #[arg(long, default_value = "0.01")]
    refused: f64,
    /// Times as long for a row.
    #[arg(long, default_value = "3")]
    slower: f64,
    /// The share of rows given out that may differ, where they are compared: of a shadow, and of transforms with state.
    #[arg(long, default_value = "1")]
    differing: f64,
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin rollback state/orders ParseLog\n\nThat is a swap to the version before: it goes forward like any other, and no record is processed twice."
)]
pub struct Rollback {
    #[command(flatten)]
    pipeline: Pipeline,
    /// Full name of the transform; of an aggregate in a `Combine`, TRANSFORM.COLUMN.
    transform: String,
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton plugin history state/orders")]
pub struct History {
    /// The pipeline need not run.
    #[command(flatten)]
    pipeline: Pipeline,
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

pub fn swap(command: &Swap) -> Result<ExitCode> {
    let config = command.config.as_deref().map(config).transpose()?;
    if command.new.is_none() && config.is_none() {
        bail!("say what is to change: the new plugin, or --config");
    }
    let mut changes = vec![Asked {
        transform: command.transform.clone(),
        plugin: command.new.as_deref().map(|new| component(new, command.allow_downgrade)).transpose()?,
        config,
    }];
    for and in &command.and {
        let (transform, new) = and.split_once('=').with_context(|| format!("--and {and}: write TRANSFORM=NEW"))?;
        changes.push(Asked { transform: transform.into(), plugin: Some(component(new, command.allow_downgrade)?), config: None });
    }
    let Swap { dry_run, irreversible, watch, .. } = *command;
    if command.output == Format::Text {
        eprintln!("the new version is compiled, checked and tried; the old one goes on meanwhile");
    }
    let request = json!({"dry_run": dry_run, "irreversible": irreversible, "watch": watch, "note": command.note, "allow_downgrade": command.allow_downgrade});
    let told = match command.pipeline.ask_host("/swaps", request, &changes, watch.unwrap_or(0))? {
        Some(told) => told,
        None => ask(&command.pipeline.pipeline, &Request::Swap { changes, dry_run, irreversible, watch })?,
    };
    show(&told, command.output)
}

pub fn canary(command: &Canary) -> Result<ExitCode> {
    let Canary { candidate, percent, by, promote } = command;
    candidate.ask(Beside { by: by.clone(), percent: percent.clone(), promote: *promote, ..candidate.wanted(Kind::Canary)? })
}

pub fn shadow(command: &Shadow) -> Result<ExitCode> {
    command.candidate.ask(command.candidate.wanted(Kind::Shadow)?)
}

impl Candidate {
    fn wanted(&self, kind: Kind) -> Result<Beside> {
        let Candidate { rows, refused, slower, differing, seconds, .. } = *self;
        let config = self.config.as_deref().map(config).transpose()?;
        if self.new.is_none() && config.is_none() {
            bail!("say what the candidate is: another plugin, or --config");
        }
        let asked =
            Asked { transform: self.transform.clone(), plugin: self.new.as_deref().map(|new| component(new, false)).transpose()?, config };
        let allowed = Allowed { rows, refused, slower, differing };
        Ok(Beside { changes: vec![asked], kind, by: Vec::new(), percent: Vec::new(), seconds, allowed, promote: false })
    }

    fn ask(&self, wanted: Beside) -> Result<ExitCode> {
        let shares = wanted.percent.len().max(1) as u64;
        let mut request = json!(wanted);
        request["changes"].take();
        let told = match self.pipeline.ask_host("/candidates", request, &wanted.changes, shares * wanted.seconds)? {
            Some(told) => told,
            None => ask(&self.pipeline.pipeline, &Request::Beside(wanted))?,
        };
        if self.output == Format::Json {
            println!("{told}");
        } else {
            let figures = &told["figures"];
            for (name, side) in [("running", &figures["current"]), ("candidate", &figures["candidate"])] {
                println!("{name:>9}: {} rows in, {} out, {} refused", side["rows"], side["out"], side["refused"]);
            }
            println!("the candidate takes {:.2} times as long for a row", told["slower"].as_f64().unwrap_or(1.0));
            if figures["compared"] != 0 {
                println!(
                    "compared {} rows given out: {} differ; by column {}",
                    figures["compared"], figures["differing"], figures["columns"]
                );
            }
            for sample in figures["samples"].as_array().into_iter().flatten() {
                println!(
                    "    running: {}\n  candidate: {}",
                    sample[0].as_str().unwrap_or_default(),
                    sample[1].as_str().unwrap_or_default()
                );
            }
            match (told["rolled_back"].as_str(), &told["promoted"]) {
                (Some(reason), _) => println!("the candidate was taken back: {reason}"),
                (None, Value::Null) => println!("the candidate has gone; nothing was changed"),
                (None, promoted) => {
                    println!("promoted: swap {} after epoch {}", promoted["number"], promoted["epoch"]);
                    positions(&promoted["cut"]);
                }
            }
        }
        Ok(if told["rolled_back"].is_null() { ExitCode::SUCCESS } else { ExitCode::from(crate::PIPELINE_FAILED) })
    }
}

pub fn rollback(command: &Rollback) -> Result<ExitCode> {
    let transform = command.transform.clone();
    let told = match command.pipeline.ask_host("/swaps/back", json!({"transform": transform}), &[], 0)? {
        Some(told) => told,
        None => ask(&command.pipeline.pipeline, &Request::Rollback { transform })?,
    };
    show(&told, command.output)
}

pub fn history(command: &History) -> Result<ExitCode> {
    let made = match on_host(&command.pipeline.pipeline) {
        Some(name) => {
            let asked = command.pipeline.host.client()?.get(&of(name, "/swaps"));
            asked.map_err(|error| no_folder(&command.pipeline.pipeline, error.into()))?
        }
        None => made_in(&command.pipeline.pipeline)?,
    };
    if command.output == Format::Json {
        println!("{made}");
        return Ok(ExitCode::SUCCESS);
    }
    if made.as_array().is_some_and(Vec::is_empty) {
        println!("no swaps yet");
    }
    for swap in made.as_array().into_iter().flatten() {
        println!("swap {} after epoch {}", swap["number"], swap["epoch"]);
        for change in swap["changes"].as_array().into_iter().flatten() {
            println!("  {}", changed(change));
        }
        positions(&swap["positions"]);
    }
    Ok(ExitCode::SUCCESS)
}

/// The swaps of a state folder.
fn made_in(state: &Path) -> Result<Value> {
    if !state.join("checkpoints").exists() {
        bail!("no checkpoints in {}: name the state folder of a pipeline, or its name on a host", state.display());
    }
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start threads")?;
    let made = io.block_on(pelton_runtime::swap::history_of(&pelton_runtime::checkpoint::place::of(state)));
    Ok(serde_json::to_value(made.map_err(anyhow::Error::msg)?)?)
}

/// A component's file from what the command line names.
fn component(new: &str, older: bool) -> Result<String> {
    if new.starts_with("sha256:") {
        return Ok(new.into());
    }
    let file = if Reference::is_one(new) { publish::take(new, None, older)?.path } else { named::component(Path::new(new))? };
    // The run may have another current folder.
    let file = std::fs::canonicalize(&file).with_context(|| format!("there is no plugin at {new}"))?;
    Ok(file.display().to_string())
}

fn config(text: &str) -> Result<Value> {
    let read = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read the config in {file}"))?,
        None => text.to_string(),
    };
    let value: Value = serde_json::from_str(&read).context("--config must be a JSON object such as '{\"keep\": \"amount > 10\"}'")?;
    if !value.is_object() {
        bail!("--config must be a JSON object, not {value}");
    }
    Ok(value)
}

/// Prints a swap; rolled back is a failure.
pub fn show(told: &Value, output: Format) -> Result<ExitCode> {
    let well = told["rolled_back"].is_null();
    if output == Format::Json {
        println!("{told}");
    } else {
        for trial in told["trials"].as_array().into_iter().flatten().filter(|trial| trial["rows"] != 0) {
            println!(
                "tried {}: {} rows in, {} out, {} refused",
                trial["transform"].as_str().unwrap_or_default(),
                trial["rows"],
                trial["out"],
                trial["refused"]
            );
        }
        for trial in told["trials"].as_array().into_iter().flatten().filter(|trial| trial["cells"].as_u64().is_some_and(|cells| cells > 0))
        {
            println!("tried {}: {} cells of state can be brought over", trial["transform"].as_str().unwrap_or_default(), trial["cells"]);
        }
        for note in told["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            println!("note: {note}");
        }
        if told["number"] == 0 {
            println!("the swap can be made; nothing was changed");
        } else {
            let pause = told["pause_millis"].as_f64().map(|pause| format!(", tasks stood still for {pause:.1} ms at most"));
            println!("swap {}: made after epoch {}{}", told["number"], told["epoch"], pause.unwrap_or_default());
            positions(&told["cut"]);
            if told["version"].is_u64() {
                println!("version {} of the pipeline runs", told["version"]);
            }
        }
        if let Some(reason) = told["rolled_back"].as_str() {
            println!("rolled back: {reason}");
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(crate::PIPELINE_FAILED) })
}

fn changed(change: &Value) -> String {
    let name = change["transform"].as_str().unwrap_or_default();
    let (from, to) = (&change["from"], &change["to"]);
    let mut parts = Vec::new();
    if from["plugin"] != to["plugin"] {
        parts.push(format!("{} -> {}", from["plugin"].as_str().unwrap_or("none"), to["plugin"].as_str().unwrap_or("none")));
    }
    if from["config"] != to["config"] {
        parts.push(format!("config {} -> {}", from["config"], to["config"]));
    }
    format!("{name}: {}", parts.join(", "))
}

fn positions(sources: &Value) {
    for (source, splits) in sources.as_object().into_iter().flatten() {
        let splits = splits.as_object().into_iter().flatten().map(|(split, at)| format!("{split} {}", at.as_str().unwrap_or_default()));
        println!("  cut at {source}: {}", splits.collect::<Vec<_>>().join(", "));
    }
}
