//! Which digest each reference of a pipeline file was resolved to.
//!
//! `traffic.yaml.lock` lies beside `traffic.yaml` and belongs into version control with it, as a lock file of a package manager does: whoever runs the file
//! runs the same components, whatever the registry offers by then. `@sha256:` references are in it as well, with the version that they are.

use crate::error::RegistryError;
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file of pins is a short list.
const MAX_BYTES: u64 = 1 << 20;

/// What a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Version of the plugin.
    pub version: String,
    /// Of the component.
    pub digest: String,
}

/// The pins of one pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    path: PathBuf,
    pins: BTreeMap<String, Pin>,
    changed: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    plugins: BTreeMap<String, Pin>,
}

impl Pins {
    /// Of a pipeline file.
    pub fn of(pipeline: &Path) -> Result<Pins, RegistryError> {
        let mut path = pipeline.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let pins = match files::read(&path, MAX_BYTES)? {
            None => BTreeMap::new(),
            Some(bytes) => {
                let file: File = serde_json::from_slice(&bytes).map_err(|error| {
                    RegistryError::user(format!("{} is no file of pins: {error}. Remove it to resolve all plugins anew", path.display()))
                })?;
                file.plugins
            }
        };
        Ok(Pins { path, pins, changed: false })
    }

    /// What a reference was resolved to.
    pub fn get(&self, reference: &str) -> Option<&Pin> {
        self.pins.get(reference)
    }

    /// A reference was resolved.
    pub fn set(&mut self, reference: &str, pin: Pin) {
        if self.pins.get(reference) != Some(&pin) {
            self.pins.insert(reference.into(), pin);
            self.changed = true;
        }
    }

    /// Forgets those that the file does not name any more.
    pub fn retain(&mut self, named: impl Fn(&str) -> bool) {
        let before = self.pins.len();
        self.pins.retain(|reference, _| named(reference));
        self.changed |= self.pins.len() != before;
    }

    /// Writes them beside the pipeline file, if they have changed.
    pub fn save(&mut self) -> Result<(), RegistryError> {
        if !self.changed {
            return Ok(());
        }
        let file = File { plugins: self.pins.clone() };
        let mut text = serde_json::to_vec_pretty(&file).expect("strings become JSON");
        text.push(b'\n');
        files::write(&self.path, &text).map_err(|error| {
            RegistryError::external(format!(
                "{error}. Which plugins a pipeline uses must not change by itself: run `pelton plugin pin` where the file can be written, and deliver {} with it",
                self.path.display()
            ))
        })?;
        self.changed = false;
        Ok(())
    }

    /// Each reference with its pin.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Pin)> {
        self.pins.iter().map(|(reference, pin)| (reference.as_str(), pin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_come_back_and_are_written_only_when_they_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipeline = folder.path().join("traffic.yaml");
        let mut pins = Pins::of(&pipeline).expect("reads");
        pins.save().expect("saves");
        let path = folder.path().join("traffic.yaml.lock");
        assert!(!path.exists());
        let pin = Pin { version: "1.2.0".into(), digest: "sha256:ab".into() };
        pins.set("oci://host/a:1", pin.clone());
        pins.set("oci://host/b:1", pin.clone());
        pins.save().expect("saves");
        let mut pins = Pins::of(&pipeline).expect("reads");
        assert_eq!(pins.get("oci://host/a:1"), Some(&pin));
        pins.retain(|reference| reference == "oci://host/b:1");
        pins.save().expect("saves");
        assert_eq!(Pins::of(&pipeline).expect("reads").all().count(), 1);
        std::fs::write(&path, "[]").expect("writes");
        assert!(Pins::of(&pipeline).is_err());
    }
}
