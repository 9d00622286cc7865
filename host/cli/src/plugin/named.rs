//! A plugin as commands name it: a crate's folder, a component's file, or a reference to a registry.

use super::build;
use crate::store;
use anyhow::{Context, Result, bail};
use pelton_plugin::Plugin;
use pelton_registry::{Reference, SignatureFile, Statement};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The component of a crate's folder, which is built if it is stale, or the file itself.
pub fn component(plugin: &Path) -> Result<PathBuf> {
    if plugin.is_dir() {
        return Ok(build::build_if_stale(plugin, &build::Options::default())?.0.component);
    }
    if !plugin.exists() {
        bail!("there is no plugin at {}; name a crate's folder or a .wasm file", plugin.display());
    }
    Ok(plugin.into())
}

/// The file of a component, wherever it is from: that of a registry is taken into the store. No version of it counts as used thereby.
pub fn component_or_reference(plugin: &str) -> Result<PathBuf> {
    if !Reference::is_one(plugin) {
        return component(Path::new(plugin));
    }
    let reference = Reference::parse(plugin, Path::new(""))?;
    let plugins = pelton_registry::Plugins::new(store::store(None)?);
    Ok(plugins.resolve(&reference, true)?.path)
}

/// Its bytes, and what they are as a plugin.
pub fn load(file: &Path) -> Result<(Vec<u8>, Arc<Plugin>)> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let plugin = crate::plugins::engine()?.load_bytes(&file.display().to_string(), &bytes)?;
    Ok((bytes, plugin))
}

/// The signatures beside its file; empty where there are none. Those of another name or version are refused.
pub fn signatures(file: &Path, plugin: &Plugin) -> Result<SignatureFile> {
    let told = plugin.descriptor();
    let statement = Statement { name: &told.name, version: &told.version, digest: plugin.digest() };
    match SignatureFile::beside(file, plugin.digest())? {
        None => Ok(SignatureFile::new(statement)),
        Some(signatures) if signatures.statement() == statement => Ok(signatures),
        Some(other) => bail!(
            "{} is for {} {}, but the plugin calls itself {} {}: sign it again with `pelton plugin sign`",
            SignatureFile::path_of(file).display(),
            other.name,
            other.version,
            told.name,
            told.version
        ),
    }
}
