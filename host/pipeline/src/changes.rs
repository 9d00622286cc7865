//! Changes of single transforms on top of a file: what swaps have made of a running pipeline ([`Change`]).
//!
//! They are applied while the file is read, so that all checks hold for the pipeline as it will be, and so that places still lead to the
//! file; those in a new config lead to its own text. What is inside a transform changes; its name, what it reads and who reads it stay.
//!
//! A plugin's aggregate is changed by itself, whatever else its `Combine` has; it is named `Transform.column`.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::graph::{PluginInfo, PluginTransform, Provider};
use crate::provider::Offered;
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::syntax::Spec;
use crate::transform::BUILT_IN;
use crate::yaml::{self, Content, Yaml};

/// One transform is to be other than the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its full name; of a plugin's aggregate `Transform.column`.
    pub transform: String,
    /// The component in place of its plugin.
    pub plugin: Option<PathBuf>,
    /// The config in place of the one in the file. Of a plugin: its settings; what the file says of `key`, `side_inputs`, `error_handling` and
    /// `output_schema` stays where this says nothing of it. So does the `language` of a built-in transform.
    pub config: Option<Value>,
}

impl Change {
    /// This on top of an earlier change of the same transform.
    pub fn over(self, earlier: Change) -> Change {
        Change { transform: self.transform, plugin: self.plugin.or(earlier.plugin), config: self.config.or(earlier.config) }
    }
}

/// Keys of a config that are not the plugin's own.
const KEPT: [&str; 4] = ["key", "side_inputs", "error_handling", "output_schema"];
/// Of a built-in transform: what its expressions are written in.
const LANGUAGE: &str = "language";

/// The changes of one reading.
pub(crate) struct Changes<'a> {
    changes: &'a [Change],
    /// Those whose transforms were found.
    found: Vec<Cell<bool>>,
    plugins: &'a dyn PluginInfo,
    /// Of the file.
    providers: &'a [Provider],
    /// For transforms that have another plugin.
    added: RefCell<Vec<Provider>>,
}

impl<'a> Changes<'a> {
    pub fn new(changes: &'a [Change], plugins: &'a dyn PluginInfo, providers: &'a [Provider]) -> Changes<'a> {
        Changes { changes, found: changes.iter().map(|_| Cell::new(false)).collect(), plugins, providers, added: RefCell::default() }
    }

    fn of(&self, name: &str) -> Option<&'a Change> {
        let number = self.changes.iter().position(|change| change.transform == name)?;
        self.found[number].set(true);
        Some(&self.changes[number])
    }

    /// The config that a transform has in place of its own.
    pub fn config(&self, name: &str, spec: &Spec<'_>, report: &mut Report<'_>) -> Option<Yaml> {
        let mut given = self.own_config(name, report)?;
        let Content::Mapping(entries) = &mut given.content else { return None };
        let built_in = BUILT_IN.contains(&spec.kind.as_str());
        let stays = |key: &str| KEPT.contains(&key) || (built_in && key == LANGUAGE);
        let written = spec.config.and_then(Yaml::entries).unwrap_or_default();
        for entry in written.iter().filter(|entry| stays(&entry.key)) {
            if !entries.iter().any(|given| given.key == entry.key) {
                entries.push(entry.clone());
            }
        }
        Some(given)
    }

    /// The same of a plugin's aggregate, which has nothing beside its own settings.
    pub fn own_config(&self, name: &str, report: &mut Report<'_>) -> Option<Yaml> {
        let config = self.of(name)?.config.as_ref()?;
        let given = read(name, config, report)?;
        if given.entries().is_none() {
            report.error(given.mark, format!("the new config of `{name}` must be a mapping, not {}", given.kind()));
            return None;
        }
        Some(given)
    }

    /// What a transform's type means where its plugin is another.
    pub fn offered(&self, name: &str, spec: &Spec<'_>, offered: &[Offered], report: &mut Report<'_>) -> Option<Offered> {
        let path = self.of(name)?.plugin.as_ref()?;
        let Some(old) = offered.iter().find(|offered| offered.name == spec.kind) else {
            let help = "only the transform of a plugin has one; give another its new config".to_string();
            report.error_with_help(spec.kind_mark, format!("`{name}` is `{}` and has no plugin", spec.kind), help);
            return None;
        };
        Some(self.replaced(path, old, spec.kind_mark, report))
    }

    /// What the type of a plugin's aggregate means where its plugin is another.
    pub fn aggregate(&self, name: &str, old: &Offered, mark: Mark, report: &mut Report<'_>) -> Option<Offered> {
        let path = self.of(name)?.plugin.as_ref()?;
        Some(self.replaced(path, old, mark, report))
    }

    /// The same from another component.
    fn replaced(&self, path: &Path, old: &Offered, mark: Mark, report: &mut Report<'_>) -> Offered {
        let mut added = self.added.borrow_mut();
        let provider = Provider { plugin: path.display().to_string(), path: path.into(), ..self.providers[old.provider].clone() };
        let known = self.describe(&provider, old, mark, report);
        let number = self.providers.len() + added.len();
        added.push(provider);
        Offered { name: old.name.clone(), provider: number, transform: old.transform.clone(), known }
    }

    fn describe(&self, provider: &Provider, old: &Offered, mark: Mark, report: &mut Report<'_>) -> Option<PluginTransform> {
        if !self.plugins.knows_plugins() {
            return None;
        }
        let transforms = match self.plugins.transforms(provider) {
            Ok(transforms) => transforms,
            Err(message) => {
                report.error(mark, format!("the new plugin `{}`: {message}", provider.plugin));
                return None;
            }
        };
        let found = transforms.iter().find(|transform| transform.name == old.transform);
        if found.is_none() {
            let help = suggestion(&old.transform, transforms.iter().map(|transform| transform.name.as_str()));
            report.error_with_help(mark, format!("the new plugin has no transform `{}`", old.transform), help);
        }
        found.cloned()
    }

    /// All providers; complains about changes of what is not there.
    pub fn finish(self, names: &[&str], mark: Mark, report: &mut Report<'_>) -> Vec<Provider> {
        for (change, found) in self.changes.iter().zip(&self.found) {
            if !found.get() {
                let help = suggestion(&change.transform, names.iter().copied());
                report.error_with_help(mark, format!("there is no transform `{}` to change", change.transform), help);
            }
        }
        self.providers.iter().cloned().chain(self.added.into_inner()).collect()
    }
}

/// Reads a new config as a text of its own, so that findings show it and not the file.
fn read(name: &str, config: &Value, report: &mut Report<'_>) -> Option<Yaml> {
    let text = format!("{config:#}");
    let file = report.source().file(format!("the new config of `{name}`").into(), &text);
    let origin = (0..text.lines().count()).map(|line| (file, line)).collect();
    let number = report.source().text(&text, origin)?;
    yaml::parse(&text, number, report)
}
