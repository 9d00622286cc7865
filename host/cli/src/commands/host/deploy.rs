//! `pelton deploy` and `pelton rollback`: what changes is shown first.

use super::{HostArguments, of};
use crate::commands::Source;
use crate::commands::run::Output;
use crate::plugins::{self, Fresh, Plugins};
use anyhow::{Context, Result};
use pelton_pipeline::Graph;
use pelton_registry::SignatureFile;
use pelton_server::client::{Client, ClientError};
use pelton_server::versions::Plugins as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton deploy orders.yaml --set topic=orders --note 'ticket 4711'\n\nThe file, what it includes and its plugins are sent to the host, which keeps them as a version. Where only plugins, their configs and expressions change, they are swapped while the pipeline runs; else it is stopped with a checkpoint, and the new version goes on from there. If that cannot take over, the old one goes on."
)]
pub struct Deploy {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    host: HostArguments,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    /// Why; stands in the history.
    #[arg(long)]
    note: Option<String>,
    /// Tasks side by side; by default `options.pelton.parallelism`, else the number of cores of the host.
    #[arg(long)]
    parallelism: Option<usize>,
    /// Begin with the state of a savepoint; the pipeline must be new.
    #[arg(long, value_name = "SAVEPOINT")]
    from: Option<String>,
    /// Drop the state that a transform of this uid left. May be given several times.
    #[arg(long, value_name = "UID")]
    drop_state: Vec<String>,
    /// Take plugins that are older than what the host, or this machine, has had of them.
    #[arg(long)]
    allow_downgrade: bool,
    /// Text, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton rollback orders --to 3\n\nThe version comes back as a new one and goes on from the last checkpoint; nothing that was written is taken back."
)]
pub struct Rollback {
    /// The pipeline.
    name: String,
    /// Which version; by default the one before the current.
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    host: HostArguments,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    /// Why; stands in the history.
    #[arg(long)]
    note: Option<String>,
    /// Text, or JSON.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub fn deploy(command: &Deploy) -> Result<ExitCode> {
    let plugins = Plugins::fresh(Fresh { update: false, older: command.allow_downgrade })?;
    plugins.of_file(&command.source.pipeline)?;
    let (settings, included) = command.source.recorded_settings()?;
    let graph = match pelton_pipeline::load(&settings, &pelton_connect::catalog(), &plugins) {
        Ok(graph) => graph,
        Err(diagnostics) => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            return Ok(ExitCode::from(crate::USERS_FAULT));
        }
    };
    eprint!("{}", pelton_pipeline::render(&graph.warnings));
    let client = command.host.client()?;
    let (digests, components) = components(&plugins, &graph)?;
    let mut includes = included.lock().expect("no holder of this lock panics").clone();
    includes.extend(plugins.keys(&graph)?);
    let mut variables = Map::new();
    for (name, value) in &settings.variables {
        variables.insert(name.clone(), value.clone());
    }
    let mut request = json!({
        "file": settings.file,
        "text": settings.text,
        "includes": includes,
        "variables": variables,
        "plugins": digests,
        "parallelism": command.parallelism,
        "drop_state": command.drop_state,
        "from": command.from.as_deref().map(crate::commands::savepoint::absolute).transpose()?,
        "note": command.note,
        "dry_run": true,
        "allow_downgrade": command.allow_downgrade,
    });
    if client.is_local() {
        // Both know the same folders: relative paths mean what they mean to `pelton run` here.
        request["folder"] = std::env::current_dir().context("there is no current directory")?.display().to_string().into();
    }
    for plugin in plugins.of(&graph)? {
        send_signatures(&client, &plugins::signatures_of(Path::new(plugin.name()), plugin.digest()).map_err(anyhow::Error::msg)?)?;
    }
    let planned = send(&client, "/v1/pipelines", &request, &components)?;
    show(&planned, command.output, command.dry_run);
    if command.dry_run || is_same(&planned) {
        return Ok(ExitCode::SUCCESS);
    }
    request["dry_run"] = false.into();
    applied(&client.post("/v1/pipelines", &request)?, command.output);
    Ok(ExitCode::SUCCESS)
}

/// Bytes of components by digest.
pub type Components = BTreeMap<String, bytes::Bytes>;

/// Digests by the paths that the file means, and what they are the digests of.
fn components(plugins: &Plugins, graph: &Graph) -> Result<(BTreeMap<String, String>, Components)> {
    let (mut digests, mut components) = (BTreeMap::new(), Components::new());
    for (provider, plugin) in graph.providers.iter().zip(plugins.of(graph)?) {
        let digest = plugin.digest().to_string();
        let bytes = plugins.bytes_of(&digest).with_context(|| format!("the plugin {} has just changed; try again", provider.plugin))?;
        digests.insert(provider.path.to_string_lossy().into_owned(), digest.clone());
        components.insert(digest, bytes);
    }
    Ok((digests, components))
}

/// Asks for something that needs plugins. Those that the host does not have are sent first.
pub fn send(client: &Client, path: &str, request: &Value, components: &Components) -> Result<Value> {
    let missing = match client.post(path, request) {
        Err(ClientError::Refused { details, message, status }) => match details["missing_plugins"].as_array() {
            Some(missing) => missing.clone(),
            None => return Err(ClientError::Refused { details, message, status }.into()),
        },
        answer => return Ok(answer?),
    };
    for digest in missing.iter().filter_map(Value::as_str) {
        let unknown = || format!("the host has no plugin {digest}: name its file");
        client.put_component(digest, components.get(digest).with_context(unknown)?)?;
    }
    Ok(client.post(path, request)?)
}

/// Says who has signed a plugin, if anybody has.
pub fn send_signatures(client: &Client, signatures: &SignatureFile) -> Result<()> {
    if !signatures.signatures.is_empty() {
        client.put(&format!("/v1/plugins/{}/signatures", signatures.digest), &json!(signatures))?;
    }
    Ok(())
}

pub fn rollback(command: &Rollback) -> Result<ExitCode> {
    let client = command.host.client()?;
    let path = of(&command.name, "/rollback");
    let mut request = json!({"version": command.to, "note": command.note, "dry_run": true});
    let planned = client.post(&path, &request)?;
    show(&planned, command.output, command.dry_run);
    if command.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    request["dry_run"] = false.into();
    applied(&client.post(&path, &request)?, command.output);
    Ok(ExitCode::SUCCESS)
}

fn is_same(planned: &Value) -> bool {
    let empty = |key: &str| planned["diff"][key].as_array().is_none_or(Vec::is_empty);
    planned["version"].is_u64() && ["transforms", "plugins", "settings"].into_iter().all(empty) && planned["running"] == true
}

/// A plan; as JSON only if nothing more comes.
fn show(planned: &Value, output: Output, last: bool) {
    match output {
        Output::Json if last || is_same(planned) => println!("{planned}"),
        Output::Json => {}
        Output::Text => print!("{}", text(planned)),
    }
}

fn applied(deployed: &Value, output: Output) {
    match output {
        Output::Json => println!("{deployed}"),
        Output::Text => println!("{} runs as version {}", deployed["pipeline"].as_str().unwrap_or_default(), deployed["version"]),
    }
}

fn text(planned: &Value) -> String {
    let mut out = String::new();
    let pipeline = planned["pipeline"].as_str().unwrap_or_default();
    let _ = match planned["version"].as_u64() {
        Some(version) if is_same(planned) => writeln!(out, "{pipeline}: nothing changes, version {version} stays"),
        Some(version) => writeln!(out, "{pipeline}: changes to version {version}"),
        None => writeln!(out, "{pipeline}: new"),
    };
    let diff = &planned["diff"];
    for change in diff["transforms"].as_array().into_iter().flatten() {
        let sign = match change["change"].as_str() {
            Some("added") => '+',
            Some("removed") => '-',
            _ => '~',
        };
        let word = |key: &str| change[key].as_str().unwrap_or_default();
        let _ = writeln!(out, "  {sign} {} ({})", word("transform"), word("kind"));
        for setting in change["what"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "      {}", arrow(setting));
        }
    }
    for (kind, key) in [("plugin", "plugins"), ("setting", "settings")] {
        for setting in diff[key].as_array().into_iter().flatten() {
            let _ = writeln!(out, "  ~ {kind} {}", arrow(setting));
        }
    }
    out
}

fn arrow(setting: &Value) -> String {
    let side = |key: &str| setting[key].as_str().unwrap_or("nothing").replace('\n', ", ");
    format!("{}: {} -> {}", setting["name"].as_str().unwrap_or_default(), side("from"), side("to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_shown_line_by_line() {
        let planned = json!({"pipeline": "orders", "version": 3, "running": true, "diff": {
            "transforms": [
                {"change": "removed", "transform": "Old", "kind": "Filter"},
                {"change": "changed", "transform": "Keep", "kind": "Filter", "what": [{"name": "definition", "from": "a > 1", "to": "a > 2"}]},
            ],
            "plugins": [{"name": "p.wasm", "from": null, "to": "sha256:1"}],
            "settings": [],
        }});
        let expected = "orders: changes to version 3\n  - Old (Filter)\n  ~ Keep (Filter)\n      definition: a > 1 -> a > 2\n  ~ plugin p.wasm: nothing -> sha256:1\n";
        assert_eq!(text(&planned), expected);
        let same = json!({"pipeline": "orders", "version": 3, "running": true, "diff": {"transforms": [], "plugins": [], "settings": []}});
        assert_eq!(text(&same), "orders: nothing changes, version 3 stays\n");
    }
}
