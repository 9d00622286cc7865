//! Pipelines of one process, as a host runs them: plugins loaded by one engine, each pipeline with threads of its own.

use pelton_pipeline::{Graph, PluginInfo, PluginRole, PluginTransform, Provider, Settings};
use pelton_plugin::{Engine, EngineOptions, Plugin, PluginError, Role};
use pelton_runtime::{Prepared, RunOptions};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The engine, and threads for connectors.
pub struct Host {
    engine: Engine,
    /// Components that many pipelines use, loaded once.
    known: HashMap<PathBuf, Arc<Plugin>>,
    pub io: tokio::runtime::Runtime,
}

impl Host {
    pub fn new(known: &[PathBuf]) -> Host {
        let io = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let engine = Engine::new(EngineOptions::default()).expect("an engine");
        let known = known.iter().map(|path| (path.clone(), engine.load(path).expect("a component"))).collect();
        Host { engine, known, io }
    }

    /// A component that was loaded at the start.
    pub fn known(&self, path: &Path) -> &Plugin {
        &self.known[path]
    }

    /// Everything up to the first row. The error is what a user is told.
    pub fn prepare(&self, folder: &Path, pipeline: &str) -> Result<Prepared, String> {
        let (graph, plugins) = self.load(folder, pipeline)?;
        let options = RunOptions { file: "pipeline.yaml".into(), base_dir: folder.into(), parallelism: 1, io: self.io.handle().clone() };
        self.io.block_on(pelton_runtime::prepare(graph, &plugins, options)).map_err(|failure| failure.to_string())
    }

    fn load(&self, folder: &Path, pipeline: &str) -> Result<(Graph, Vec<Arc<Plugin>>), String> {
        let plugins = Plugins { host: self, loaded: RefCell::default() };
        let settings = Settings {
            file: folder.join("pipeline.yaml"),
            text: pipeline.into(),
            now: pelton_runtime::clock::now().micros(),
            ..Settings::default()
        };
        let graph =
            pelton_pipeline::load(&settings, &pelton_connect::catalog(), &plugins).map_err(|faults| pelton_pipeline::render(&faults))?;
        let loaded = graph.providers.iter().map(|provider| plugins.load(provider)).collect::<Result<_, _>>()?;
        Ok((graph, loaded))
    }
}

struct Plugins<'a> {
    host: &'a Host,
    loaded: RefCell<HashMap<PathBuf, Result<Arc<Plugin>, String>>>,
}

impl Plugins<'_> {
    fn load(&self, provider: &Provider) -> Result<Arc<Plugin>, String> {
        if let Some(known) = self.host.known.get(&provider.path) {
            return Ok(known.clone());
        }
        let load = || self.host.engine.load(&provider.path).map_err(|error: PluginError| error.to_string());
        self.loaded.borrow_mut().entry(provider.path.clone()).or_insert_with(load).clone()
    }
}

impl PluginInfo for Plugins<'_> {
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String> {
        let plugin = self.load(provider)?;
        let one = |transform: &pelton_plugin::TransformSpec| PluginTransform {
            name: transform.name.clone(),
            outputs: transform.outputs.iter().filter(|output| !output.is_empty()).cloned().collect(),
            config_schema: transform.config_schema.clone(),
            role: match transform.role {
                Role::Transform => PluginRole::Stateless,
                Role::StatefulTransform => PluginRole::Stateful,
                Role::Combine => PluginRole::Combine,
            },
        };
        Ok(plugin.descriptor().transforms.iter().map(one).collect())
    }
}
