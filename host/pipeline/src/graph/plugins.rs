//! Plugins that a pipeline uses, and what lint needs to know of them.

use super::Place;
use pelton_core::grants::Grants;
use pelton_core::trust::Policy;
use serde_json::Value;
use std::path::PathBuf;

/// A plugin and the names under which its transforms are used.
#[derive(Clone, Debug)]
pub struct Provider {
    /// As written: a crate's folder, a `.wasm` file, or a reference to a registry (`oci://`, `folder:`).
    pub plugin: String,
    /// The same, resolved against the folder of the pipeline file; of `oci://` as it is, of `folder:` with that in front.
    pub path: PathBuf,
    /// (name in the file, name in the plugin)
    pub transforms: Vec<(String, String)>,
    /// `limits` of the provider's config, `Null` without.
    pub limits: Value,
    /// `grants` of the provider's config.
    pub grants: Grants,
    /// `trust` of the file's options.
    pub trust: Option<Policy>,
    /// Where it stands.
    pub place: Place,
}

/// What lint needs to know of plugins; the real one asks `describe`.
pub trait PluginInfo {
    /// The transforms of a provider's plugin. An error is a sentence for the user.
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String>;

    /// Whether plugins can be asked at all; if not, any transform, output and config of theirs is taken to be right.
    fn knows_plugins(&self) -> bool {
        true
    }
}

/// One transform that a plugin offers.
#[derive(Clone, Debug, Default)]
pub struct PluginTransform {
    /// Its name in the plugin.
    pub name: String,
    /// Named outputs besides the main one.
    pub outputs: Vec<String>,
    /// JSON schema of its config; `Null` checks nothing.
    pub config_schema: Value,
    /// How it can be used.
    pub role: PluginRole,
}

/// How a transform of a plugin can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginRole {
    /// As a transform.
    #[default]
    Stateless,
    /// As a transform with a `key`.
    Stateful,
    /// In a Combine.
    Combine,
}

/// Knows no plugin, so that nothing of theirs is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct UncheckedPlugins;

impl PluginInfo for UncheckedPlugins {
    fn transforms(&self, _: &Provider) -> Result<Vec<PluginTransform>, String> {
        Ok(Vec::new())
    }

    fn knows_plugins(&self) -> bool {
        false
    }
}
