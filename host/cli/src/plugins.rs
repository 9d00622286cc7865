//! The plugins of a pipeline: builds a crate's folder when it is stale, takes components from files and registries, checks who signed them,
//! loads them, and tells lint what they offer.

use crate::plugin::build;
use crate::{commands, store};
use anyhow::{Context, Result};
use pelton_core::grants::Kind;
use pelton_core::trust::Policy;
use pelton_pipeline::{Graph, PluginInfo, PluginTransform, Provider};
use pelton_plugin::{Engine, EngineOptions, Plugin};
use pelton_registry::{Found, Pins, Reference, SignatureFile, trust};
use pelton_server::components::offered;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Plugins {
    engine: Engine,
    /// By place and by what they are granted, on which trust may depend.
    loaded: Mutex<HashMap<Asked, Result<Arc<Plugin>, String>>>,
    file: Mutex<PipelineFile>,
    fresh: Fresh,
}

/// What a pipeline file asks for.
type Asked = (PathBuf, Vec<Kind>);

/// Whose plugins they are.
#[derive(Default)]
struct PipelineFile {
    folder: PathBuf,
    /// None until there is a file.
    pins: Option<Pins>,
}

/// What plugins of registries are when they have been resolved before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Resolve them anew.
    pub update: bool,
    /// Take versions older than those that were seen.
    pub older: bool,
}

impl Plugins {
    pub fn new() -> Result<Plugins> {
        Plugins::fresh(Fresh::default())
    }

    /// With other rules for registries.
    pub fn fresh(fresh: Fresh) -> Result<Plugins> {
        let engine = engine()?;
        Ok(Plugins { engine, loaded: Mutex::default(), file: Mutex::default(), fresh })
    }

    /// From now on they are those of this file, with its pins.
    pub fn of_file(&self, pipeline: &Path) -> Result<()> {
        *self.file() = PipelineFile { folder: pipeline.parent().unwrap_or(Path::new("")).into(), pins: Some(Pins::of(pipeline)?) };
        Ok(())
    }

    /// The plugins of a checked graph, in the order of its providers. What was resolved is pinned from now on.
    pub fn of(&self, graph: &Graph) -> Result<Vec<Arc<Plugin>>> {
        pelton_server::versions::Plugins::of(self, graph).map_err(anyhow::Error::msg)
    }

    /// Forgets the pins of what a graph does not name, writes them and gives them.
    pub fn pin(&self, graph: &Graph) -> Result<Option<Pins>> {
        if let Some(pins) = &mut self.file().pins {
            pins.retain(|reference| graph.providers.iter().any(|provider| provider.plugin == reference));
        }
        self.of(graph)?;
        Ok(self.file().pins.clone())
    }

    /// Texts of the keys that a graph's policy names by their files, by the paths that are meant.
    pub fn keys(&self, graph: &Graph) -> Result<BTreeMap<String, String>> {
        let folder = self.file().folder.clone();
        let keys = RefCell::new(BTreeMap::new());
        for policy in graph.providers.iter().filter_map(|provider| provider.trust.as_ref()) {
            let read = |path: &str| {
                let path = folder.join(path);
                let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
                keys.borrow_mut().insert(path.to_string_lossy().into_owned(), text.clone());
                Ok(text)
            };
            trust::with_keys(policy, read).map_err(anyhow::Error::msg)?;
        }
        Ok(keys.into_inner())
    }

    fn file(&self) -> MutexGuard<'_, PipelineFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<Asked, Result<Arc<Plugin>, String>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, provider: &Provider) -> Result<Arc<Plugin>, String> {
        let asked = (provider.path.clone(), provider.grants.kinds());
        if let Some(known) = self.loaded().get(&asked) {
            return known.clone();
        }
        let result = self.load_anew(provider);
        self.loaded().insert(asked, result.clone());
        result
    }

    fn load_anew(&self, provider: &Provider) -> Result<Arc<Plugin>, String> {
        let policy = provider.trust.as_ref().map(|policy| trust::with_keys_in(policy, &self.file().folder)).transpose()?;
        if Reference::is_one(&provider.plugin) {
            return self.load_from_registry(provider, policy.as_ref());
        }
        if provider.path.is_dir() {
            let options = build::Options::default();
            let (built, _) = build::build_if_stale(&provider.path, &options).map_err(|error| format!("{error:#}"))?;
            return self.load_file(&built.component, provider, policy.as_ref());
        }
        if !provider.path.exists() {
            return Err(format!(
                "there is no plugin at {}; name a crate's folder or a .wasm file, relative to the pipeline file",
                provider.path.display()
            ));
        }
        self.load_file(&provider.path, provider, policy.as_ref())
    }

    fn load_file(&self, path: &Path, provider: &Provider, policy: Option<&Policy>) -> Result<Arc<Plugin>, String> {
        let Some(policy) = policy else { return self.engine.load(path).map_err(|error| error.to_string()) };
        // The bytes that were judged are those that are loaded.
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let digest = pelton_registry::digest_of(&bytes);
        let signatures = signatures_of(path, &digest)?;
        self.judged((&path.display().to_string(), &bytes), provider, &signatures, Some(policy))
    }

    fn load_from_registry(&self, provider: &Provider, policy: Option<&Policy>) -> Result<Arc<Plugin>, String> {
        let told = |error: pelton_registry::RegistryError| error.to_string();
        let reference = Reference::parse(&provider.path.to_string_lossy(), Path::new("")).map_err(told)?;
        let plugins = pelton_registry::Plugins::new(store::store(None).map_err(|error| format!("{error:#}"))?);
        let pin = self.file().pins.as_ref().and_then(|pins| pins.get(&provider.plugin).cloned()).filter(|_| !self.fresh.update);
        let found: Found = match &pin {
            Some(pin) => plugins.pinned(&reference, pin),
            None => plugins.resolve(&reference, self.fresh.older),
        }
        .map_err(told)?;
        let plugin = self.judged((&provider.plugin, &found.bytes), provider, &found.signatures, policy)?;
        plugins.confirm(&reference, &found, &plugin.descriptor().name, &plugin.descriptor().version).map_err(told)?;
        if let Some(pins) = &mut self.file().pins {
            pins.set(&provider.plugin, found.pin());
        }
        Ok(plugin)
    }

    /// Nothing of a plugin is compiled before its signatures are judged.
    fn judged(
        &self,
        (name, bytes): (&str, &[u8]),
        provider: &Provider,
        signatures: &SignatureFile,
        policy: Option<&Policy>,
    ) -> Result<Arc<Plugin>, String> {
        if let Some(policy) = policy {
            trust::judge(policy, trust::OF_PIPELINE, name, signatures, &provider.grants.kinds())?;
        }
        let plugin = self.engine.load_bytes(name, bytes).map_err(|error| error.to_string())?;
        if policy.is_some() {
            trust::same_name(signatures, &plugin.descriptor().name, &plugin.descriptor().version)?;
        }
        Ok(plugin)
    }
}

/// The signatures beside a component, else those of the store: it may be from a registry, or out of a checkpoint.
pub fn signatures_of(path: &Path, digest: &str) -> Result<SignatureFile, String> {
    let beside = trust::signatures_beside(path, digest)?;
    if !beside.signatures.is_empty() {
        return Ok(beside);
    }
    let known = store::store(None).ok().and_then(|store| store.get(digest).ok()?);
    Ok(known.map_or(beside, |(_, known)| known))
}

/// The engine of this program: compiled code is kept, and made in another process.
pub fn engine() -> Result<Engine> {
    let compiler = commands::compile_plugin::compiler()?;
    Engine::new(EngineOptions { cache_dir: cache_dir(), compiler }).context("cannot start the WebAssembly engine")
}

impl pelton_server::versions::Plugins for Plugins {
    fn of(&self, graph: &Graph) -> Result<Vec<Arc<Plugin>>, String> {
        let plugins = graph.providers.iter().map(|provider| self.load(provider)).collect::<Result<_, _>>()?;
        if let Some(pins) = &mut self.file().pins {
            pins.save().map_err(|error| error.to_string())?;
        }
        Ok(plugins)
    }

    fn bytes_of(&self, digest: &str) -> Option<bytes::Bytes> {
        let loaded = self.loaded();
        let plugin = loaded.values().flatten().find(|plugin| plugin.digest() == digest)?;
        let from_file = std::fs::read(plugin.name()).ok().filter(|bytes| Plugin::digest_of(bytes) == digest);
        let from_store = || Some(store::store(None).ok()?.get(digest).ok()??.0);
        Some(from_file.or_else(from_store)?.into())
    }
}

impl PluginInfo for Plugins {
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String> {
        let plugin = self.load(provider)?;
        plugin.check_grants(&provider.grants).map_err(|error| error.to_string())?;
        Ok(offered(&plugin))
    }
}

/// `$XDG_CACHE_HOME/pelton/aot`, or the same under the home directory; none without either.
fn cache_dir() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("pelton").join("aot"))
}
