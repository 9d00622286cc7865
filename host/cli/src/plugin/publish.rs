//! `pelton plugin push|pull|pin|list`: to registries, from registries, and which version a pipeline file uses.

use super::named;
use crate::commands::Source;
use crate::plugins::{Fresh, Plugins};
use crate::store;
use anyhow::Result;
use pelton_registry::{Component, Found, Reference, SignatureFile};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pelton plugin push plugins/parse-log oci://registry.example.org/team/parse-log\n  pelton plugin push plugins/parse-log folder:/srv/plugins/parse-log\n\nThe version is that of the plugin's crate, and the last part of the path is the plugin's name. A version never changes: pushing it again adds signatures, and is refused if the component is another. Who logs in to a registry is read from ~/.docker/config.json, as `docker login` writes it."
)]
pub struct Push {
    /// A crate's folder, which is built if it is stale, or a component's file.
    plugin: PathBuf,
    /// Where to: oci://HOST/PATH/NAME or folder:PATH/NAME.
    to: String,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pelton plugin pull oci://registry.example.org/team/parse-log:1.2\n  pelton plugin pull folder:/srv/plugins/parse-log --to parse-log.wasm"
)]
pub struct Pull {
    /// oci://HOST/PATH/NAME:VERSION, folder:PATH/NAME:VERSION, or @sha256:… in place of the version.
    from: String,
    /// Also write the component here, and its signatures beside it.
    #[arg(long, value_name = "FILE.wasm")]
    to: Option<PathBuf>,
    /// Take it even if it is older than a version that was used before.
    #[arg(long)]
    allow_downgrade: bool,
    /// The local store; by default PELTON_STORE, else ~/.local/share/pelton/plugins.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin pin traffic.yaml --update\n\nThe pins are in traffic.yaml.lock, which belongs into version control with the file. `pelton run` pins what is not pinned yet; only this command changes a pin."
)]
pub struct PinPlugins {
    #[command(flatten)]
    source: Source,
    /// Resolve the versions that are pinned anew.
    #[arg(long)]
    update: bool,
    /// Take versions even if they are older than those used before.
    #[arg(long)]
    allow_downgrade: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pelton plugin list")]
pub struct List {
    /// The local store; by default PELTON_STORE, else ~/.local/share/pelton/plugins.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub fn push(command: &Push) -> Result<()> {
    let reference = Reference::parse(&command.to, Path::new(""))?;
    let file = named::component(&command.plugin)?;
    let (bytes, plugin) = named::load(&file)?;
    let told = plugin.descriptor();
    let signatures = named::signatures(&file, &plugin)?;
    let plugins = pelton_registry::Plugins::new(store::store(None)?);
    let pushed = plugins.push(&reference, Component { bytes: &bytes, imports: plugin.imports(), signatures })?;
    let again = if pushed.again { "was there already; signatures were brought up to date" } else { "pushed" };
    println!("{} {} {again}: {} ({}, {} signatures)", told.name, told.version, pushed.reference, pushed.digest, pushed.signatures);
    Ok(())
}

pub fn pull(command: &Pull) -> Result<()> {
    let found = take(&command.from, command.store.as_deref(), command.allow_downgrade)?;
    let path = match &command.to {
        Some(path) => {
            std::fs::write(path, &found.bytes)?;
            found.signatures.write_beside(path)?;
            path
        }
        None => &found.path,
    };
    println!("{} {} ({}): {}", found.signatures.name, found.version, found.signatures.digest, path.display());
    Ok(())
}

/// Takes a component out of a registry; from now on older versions of it do not come back by themselves.
pub fn take(reference: &str, store: Option<&Path>, older: bool) -> Result<Found> {
    let reference = Reference::parse(reference, Path::new(""))?;
    let plugins = pelton_registry::Plugins::new(store::store(store)?);
    let found = plugins.resolve(&reference, older)?;
    let plugin = crate::plugins::engine()?.load_bytes(&reference.text, &found.bytes)?;
    plugins.confirm(&reference, &found, &plugin.descriptor().name, &plugin.descriptor().version)?;
    Ok(found)
}

pub fn pin(command: &PinPlugins) -> Result<ExitCode> {
    let plugins = Plugins::fresh(Fresh { update: command.update, older: command.allow_downgrade })?;
    let graph = match command.source.load(&plugins)? {
        Ok(graph) => graph,
        Err(diagnostics) => {
            eprint!("{}", pelton_pipeline::render(&diagnostics));
            return Ok(ExitCode::from(crate::USERS_FAULT));
        }
    };
    let pins = plugins.pin(&graph)?;
    for (reference, pin) in pins.iter().flat_map(|pins| pins.all()) {
        println!("{reference} -> {} ({})", pin.version, pin.digest);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn list(command: &List) -> Result<()> {
    for (SignatureFile { name, version, digest, signatures }, size) in store::store(command.store.as_deref())?.list()? {
        println!("{name} {version}  {digest}  {size} bytes, {} signatures", signatures.len());
    }
    Ok(())
}
