//! The plugins of a pipeline: builds a crate's folder when it is stale, loads components, and tells lint what they offer.

use crate::plugin::build;
use anyhow::{Context, Result};
use pelton_pipeline::{Graph, PluginInfo, PluginRole, PluginTransform, Provider};
use pelton_plugin::{Engine, EngineOptions, Plugin, Role};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub struct Plugins {
    engine: Engine,
    loaded: RefCell<HashMap<PathBuf, Result<Arc<Plugin>, String>>>,
}

impl Plugins {
    pub fn new() -> Result<Plugins> {
        let engine = Engine::new(EngineOptions { cache_dir: cache_dir() }).context("cannot start the WebAssembly engine")?;
        Ok(Plugins { engine, loaded: RefCell::default() })
    }

    /// The plugins of a checked graph, in the order of its providers.
    pub fn of(&self, graph: &Graph) -> Result<Vec<Arc<Plugin>>> {
        graph.providers.iter().map(|provider| self.load(provider).map_err(anyhow::Error::msg)).collect()
    }

    fn load(&self, provider: &Provider) -> Result<Arc<Plugin>, String> {
        if let Some(known) = self.loaded.borrow().get(&provider.path) {
            return known.clone();
        }
        let result = self.load_anew(provider);
        self.loaded.borrow_mut().insert(provider.path.clone(), result.clone());
        result
    }

    fn load_anew(&self, provider: &Provider) -> Result<Arc<Plugin>, String> {
        if provider.plugin.starts_with("oci://") {
            return Err(format!(
                "`{}`: plugins from a registry are not available yet; name a crate's folder or a .wasm file",
                provider.plugin
            ));
        }
        if provider.path.is_dir() {
            let options = build::Options::default();
            let (built, _) = build::build_if_stale(&provider.path, &options).map_err(|error| format!("{error:#}"))?;
            return self.engine.load(&built.component).map_err(|error| error.to_string());
        }
        if !provider.path.exists() {
            return Err(format!(
                "there is no plugin at {}; name a crate's folder or a .wasm file, relative to the pipeline file",
                provider.path.display()
            ));
        }
        self.engine.load(&provider.path).map_err(|error| error.to_string())
    }
}

impl PluginInfo for Plugins {
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String> {
        let plugin = self.load(provider)?;
        let transforms = plugin.descriptor().transforms.iter();
        Ok(transforms
            .map(|transform| PluginTransform {
                name: transform.name.clone(),
                outputs: transform.outputs.iter().filter(|output| !output.is_empty()).cloned().collect(),
                config_schema: transform.config_schema.clone(),
                role: match transform.role {
                    Role::Transform => PluginRole::Stateless,
                    Role::StatefulTransform => PluginRole::Stateful,
                    Role::Combine => PluginRole::Combine,
                },
            })
            .collect())
    }
}

/// `$XDG_CACHE_HOME/pelton/aot`, or the same under the home directory; none without either.
fn cache_dir() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("pelton").join("aot"))
}
