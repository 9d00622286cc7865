//! The plugins of a host: components in a folder, each under its digest, and those that are loaded.
//!
//! Invariant: a file in the folder has the digest that its name says, or is not used.

use crate::access::hex;
use crate::refusal::{Refusal, Why};
use crate::trust::{Trust, of_pipeline};
use crate::versions::Plugins;
use crate::{durable, names};
use bytes::Bytes;
use pelton_core::grants::Kind;
use pelton_core::release::MAX_COMPONENT_BYTES;
use pelton_pipeline::{Graph, PluginInfo, PluginTransform, Provider};
use pelton_plugin::{Engine, Plugin};
use pelton_registry::{SignatureFile, trust};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

/// See the module.
#[derive(Clone)]
pub struct Components(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    engine: Engine,
    trust: Trust,
    loaded: Mutex<HashMap<String, Weak<Plugin>>>,
}

impl Components {
    /// Of a folder, which exists.
    pub fn new(folder: PathBuf, engine: Engine, trust: Trust) -> Components {
        Components(Arc::new(Inner { folder, engine, trust, loaded: Mutex::default() }))
    }

    /// Which of them may be loaded.
    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// Where a component is, or would be.
    pub fn path(&self, digest: &str) -> Result<PathBuf, Refusal> {
        Ok(self.0.folder.join(format!("sha256-{}.wasm", names::digest(digest)?)))
    }

    /// Whether it is there.
    pub fn has(&self, digest: &str) -> bool {
        self.path(digest).is_ok_and(|path| path.exists())
    }

    /// All that are there: digest and bytes.
    pub fn all(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(&self.0.folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let hex = name.strip_prefix("sha256-")?.strip_suffix(".wasm")?;
                Some((format!("sha256:{hex}"), entry.metadata().ok()?.len()))
            })
            .collect();
        found.sort();
        found
    }

    /// Begins to take a component in.
    pub fn receive(&self, digest: &str) -> Result<Incoming, Refusal> {
        let path = self.path(digest)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Refusal::new(Why::Broken, format!("the system gives no random bytes: {error}")))?;
        let temporary = self.0.folder.join(format!("{}.part", hex(&random)));
        let file = File::create(&temporary).map_err(|error| Refusal::disk("write", &temporary, &error))?;
        Ok(Incoming { wanted: digest.into(), path, temporary, file, hash: Sha256::new(), bytes: 0 })
    }

    /// Who has signed a component.
    fn signatures(&self, digest: &str) -> Result<SignatureFile, String> {
        trust::signatures_beside(&self.path(digest).map_err(|refusal| refusal.message)?, digest)
    }

    /// The component with this digest in a file, ready for use. Its signatures are those that the host knows.
    fn load(&self, name: &str, digest: &str, path: &Path, grants: &[Kind]) -> Result<Arc<Plugin>, String> {
        let signed = self.path(digest).map_err(|refusal| refusal.message)?;
        // Nothing is compiled before its signatures are judged.
        self.0.trust.judge(name, &signed, digest, grants)?;
        let known = self.0.loaded.lock().expect("no holder of this lock panics").get(digest).and_then(Weak::upgrade);
        let plugin = match known {
            Some(plugin) => plugin,
            None => self.compile(name, digest, path)?,
        };
        self.0.trust.same_name(&plugin, &signed)?;
        Ok(plugin)
    }

    fn compile(&self, name: &str, digest: &str, path: &Path) -> Result<Arc<Plugin>, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("the host has no plugin {digest}: {error}"))?;
        if Plugin::digest_of(&bytes) != digest {
            return Err(format!("{} does not have the digest of its name: it was damaged; deploy the pipeline again", path.display()));
        }
        let plugin = self.0.engine.load_bytes(name, &bytes).map_err(|error| error.to_string())?;
        let mut loaded = self.0.loaded.lock().expect("no holder of this lock panics");
        loaded.retain(|_, plugin| plugin.strong_count() > 0);
        loaded.insert(digest.into(), Arc::downgrade(&plugin));
        Ok(plugin)
    }
}

/// A component on its way in; what is not kept is removed.
pub struct Incoming {
    wanted: String,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Incoming {
    /// The next bytes of it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_COMPONENT_BYTES {
            return Err(Refusal::new(Why::TooLarge, format!("a plugin may have {MAX_COMPONENT_BYTES} bytes at most")));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|error| Refusal::disk("write", &self.temporary, &error))
    }

    /// It is whole.
    pub fn keep(self) -> Result<u64, Refusal> {
        let digest = format!("sha256:{}", hex(&self.hash.clone().finalize()));
        if digest != self.wanted {
            return Err(Refusal::new(Why::Invalid, format!("what was sent has the digest {digest}, not {}", self.wanted)));
        }
        let kept = self.file.sync_all().and_then(|()| durable::publish(&self.temporary, &self.path));
        kept.map_err(|error| Refusal::disk("keep", &self.path, &error))?;
        Ok(self.bytes)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Gone already if it was kept.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// The plugins of one version of a pipeline: what its file names, and what that was when it was deployed.
pub struct Pinned {
    /// Where they are.
    pub components: Components,
    /// By the path as it is meant in the file.
    pub digests: BTreeMap<String, String>,
    /// Where swaps put components, under their digests.
    pub swapped: PathBuf,
    /// The folder of the file, as it is named.
    pub folder: PathBuf,
    /// Texts that were sent along, keys among them, by the path as it is meant in the file.
    pub includes: BTreeMap<String, String>,
}

impl Pinned {
    /// Digest and file of the component that a path in the file means.
    fn find(&self, path: &Path) -> Result<(String, PathBuf), String> {
        let own = |digest: &str| self.components.path(digest).map_err(|refusal| refusal.message);
        if let Some(digest) = self.digests.get(&*path.to_string_lossy()) {
            return Ok((digest.clone(), own(digest)?));
        }
        let hex = path.file_name().and_then(|name| name.to_str()?.strip_prefix("sha256-")?.strip_suffix(".wasm"));
        match hex.map(|hex| format!("sha256:{hex}")) {
            Some(digest) if path.parent() == Some(&self.swapped) => Ok((digest, path.into())),
            Some(digest) if path.parent() == Some(&self.components.0.folder) => Ok((digest.clone(), own(&digest)?)),
            _ => Err("it was not sent along; `pelton deploy` sends the plugins that a file names".into()),
        }
    }

    fn load(&self, provider: &Provider) -> Result<Arc<Plugin>, String> {
        let name = provider.path.to_string_lossy();
        let (digest, path) = self.find(&provider.path)?;
        let grants = provider.grants.kinds();
        if let Some(policy) = of_pipeline(provider.trust.as_ref(), &self.folder, |path| self.includes.get(path).cloned())? {
            trust::judge(&policy, trust::OF_PIPELINE, &name, &self.components.signatures(&digest)?, &grants)?;
        }
        self.components.load(&name, &digest, &path, &grants)
    }
}

impl PluginInfo for Pinned {
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String> {
        let plugin = self.load(provider)?;
        plugin.check_grants(&provider.grants).map_err(|error| error.to_string())?;
        Ok(offered(&plugin))
    }
}

impl Plugins for Pinned {
    fn of(&self, graph: &Graph) -> Result<Vec<Arc<Plugin>>, String> {
        graph.providers.iter().map(|provider| self.load(provider)).collect()
    }

    fn bytes_of(&self, digest: &str) -> Option<Bytes> {
        let bytes = std::fs::read(self.components.path(digest).ok()?).ok()?;
        (Plugin::digest_of(&bytes) == digest).then(|| bytes.into())
    }
}

/// What lint needs to know of a plugin.
pub fn offered(plugin: &Plugin) -> Vec<PluginTransform> {
    use pelton_pipeline::PluginRole;
    use pelton_plugin::Role;
    let transforms = plugin.descriptor().transforms.iter();
    let offered = transforms.map(|transform| PluginTransform {
        name: transform.name.clone(),
        outputs: transform.outputs.iter().filter(|output| !output.is_empty()).cloned().collect(),
        config_schema: transform.config_schema.clone(),
        role: match transform.role {
            Role::Transform => PluginRole::Stateless,
            Role::StatefulTransform => PluginRole::Stateful,
            Role::Combine => PluginRole::Combine,
        },
    });
    offered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_plugin::EngineOptions;

    #[test]
    fn only_whole_components_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let components = Components::new(folder.path().into(), engine, Trust::new(None, folder.path().join("trust")));
        let digest = format!("sha256:{}", hex(&Sha256::digest(b"abc")));
        let mut cut = components.receive(&digest).unwrap();
        cut.write(b"ab").unwrap();
        assert_eq!(cut.keep().map_err(|refusal| refusal.why).err(), Some(Why::Invalid));
        assert!(!components.has(&digest));
        let mut whole = components.receive(&digest).unwrap();
        whole.write(b"ab").unwrap();
        whole.write(b"c").unwrap();
        assert_eq!(whole.keep().ok(), Some(3));
        assert_eq!(components.all(), [(digest.clone(), 3)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        assert!(components.receive("sha256:../../x").is_err());
        let path = folder.path().join(format!("sha256-{}.wasm", &digest[7..]));
        std::fs::write(&path, b"abd").unwrap();
        assert!(components.load("x", &digest, &path, &[]).err().unwrap().contains("damaged"));
    }
}
