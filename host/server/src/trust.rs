//! Which plugins a host takes: those that its trust policy lets pass, and none that is older than what it has had of the same name.
//!
//! A host without a policy takes what admins send. With one, signatures are judged whenever a component is loaded, before it is compiled: at a deployment, a
//! swap, a rollback and a start. Versions are compared when somebody deploys or swaps; what a pipeline runs already, and what a rollback names, may stay old.
//!
//! ```text
//! plugins/sha256-HEX.wasm.sig   name, version and signatures of a component
//! trust/names/…                 the highest versions that were taken of each name
//! ```

use crate::components::Components;
use crate::refusal::{Refusal, Why};
use pelton_core::grants::Kind;
use pelton_core::release::{Version, Wanted};
use pelton_core::trust::Policy;
use pelton_plugin::Plugin;
use pelton_registry::{SignatureFile, Store, trust};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The rules of one host.
pub struct Trust {
    policy: Option<Policy>,
    /// What was had of each name.
    seen: Store,
    /// Held while signatures are added to those of a component.
    signing: Mutex<()>,
}

impl Trust {
    /// With a policy whose keys are read. `folder`: where it remembers.
    pub fn new(policy: Option<Policy>, folder: PathBuf) -> Trust {
        Trust { policy, seen: Store::new(folder), signing: Mutex::default() }
    }

    /// Whether the component at `path` may be loaded, and granted this.
    pub fn judge(&self, name: &str, path: &Path, digest: &str, grants: &[Kind]) -> Result<(), String> {
        let Some(policy) = &self.policy else { return Ok(()) };
        trust::judge(policy, trust::OF_HOST, name, &trust::signatures_beside(path, digest)?, grants).map(drop)
    }

    /// Whether what was signed is what the loaded plugin calls itself.
    pub fn same_name(&self, plugin: &Plugin, path: &Path) -> Result<(), String> {
        if self.policy.is_none() {
            return Ok(());
        }
        let descriptor = plugin.descriptor();
        trust::same_name(&trust::signatures_beside(path, plugin.digest())?, &descriptor.name, &descriptor.version)
    }

    /// Adds signatures to those of the component at `path`; gives how many there are now.
    pub fn sign(&self, path: &Path, mut file: SignatureFile) -> Result<usize, Refusal> {
        let _one = self.signing.lock().expect("no holder of this lock panics");
        let broken = |error: pelton_registry::RegistryError| Refusal::new(Why::Broken, error.to_string());
        // One that cannot be read is replaced.
        let known = SignatureFile::beside(path, &file.digest).ok().flatten().filter(|known| known.statement() == file.statement());
        let new = |known: &pelton_registry::Signature| file.signatures.iter().all(|new| new.key != known.key);
        let known: Vec<_> = known.into_iter().flat_map(|known| known.signatures).filter(new).collect();
        file.signatures.extend(known);
        file.check().map_err(|why| Refusal::new(Why::Invalid, why))?;
        file.write_beside(path).map_err(broken)?;
        Ok(file.signatures.len())
    }

    /// Refuses a plugin that is older than what the host has had. `runs`: digests that may stay what they are.
    pub fn not_older(&self, plugins: &[Arc<Plugin>], runs: &[String]) -> Result<(), Refusal> {
        for (plugin, version) in self.versions(plugins) {
            let name = &plugin.descriptor().name;
            let seen = self.seen.seen(name).map_err(|error| Refusal::new(Why::Broken, error.to_string()))?;
            if runs.iter().any(|digest| digest == plugin.digest()) {
                continue;
            }
            if let Some(newer) = seen.forbids(&Wanted::Exact(version.clone()), &version) {
                let message = format!(
                    "`{name}` is version {version} ({}), but this host has had {newer} of it: an older version does not come back by itself. Send {newer} or a later one, or say --allow-downgrade if you mean {version}",
                    plugin.digest()
                );
                return Err(Refusal::new(Why::Invalid, message));
            }
        }
        Ok(())
    }

    /// These were taken.
    pub fn note(&self, plugins: &[Arc<Plugin>]) -> Result<(), Refusal> {
        for (plugin, version) in self.versions(plugins) {
            self.seen.note(&plugin.descriptor().name, &version).map_err(|error| Refusal::new(Why::Broken, error.to_string()))?;
        }
        Ok(())
    }

    /// Without a policy names mean nothing, and are not compared.
    fn versions<'p>(&self, plugins: &'p [Arc<Plugin>]) -> impl Iterator<Item = (&'p Arc<Plugin>, Version)> {
        let plugins = if self.policy.is_some() { plugins } else { &[] };
        plugins.iter().filter_map(|plugin| Some((plugin, Version::parse(&plugin.descriptor().version).ok()?)))
    }
}

impl Components {
    /// Keeps signatures of a component, which may arrive later. The answer is how many it has.
    pub fn sign(&self, digest: &str, file: SignatureFile) -> Result<usize, Refusal> {
        if file.digest != digest {
            return Err(Refusal::new(Why::Invalid, format!("these signatures are for {}, not {digest}", file.digest)));
        }
        self.trust().sign(&self.path(digest)?, file)
    }
}

/// The policy of a pipeline file, with its keys as they were sent along; `None`: it has none.
pub fn of_pipeline(policy: Option<&Policy>, folder: &Path, sent: impl Fn(&str) -> Option<String>) -> Result<Option<Policy>, String> {
    let read = |path: &str| {
        let text = sent(&folder.join(path).to_string_lossy());
        text.ok_or_else(|| "it was not sent along; `pelton deploy` sends the keys that a pipeline names".into())
    };
    policy.map(|policy| trust::with_keys(policy, read)).transpose()
}
