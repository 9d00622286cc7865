//! Where the command line has the local store of plugins from registries.

use anyhow::Result;
use pelton_registry::Store;
use std::path::{Path, PathBuf};

/// The store: `PELTON_STORE`, else `$XDG_DATA_HOME/pelton/plugins`, else `~/.local/share/pelton/plugins`.
pub fn store(named: Option<&Path>) -> Result<Store> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = match (named, set("PELTON_STORE"), set("XDG_DATA_HOME"), set("HOME")) {
        (Some(folder), ..) => folder.into(),
        (None, Some(folder), ..) => folder,
        (None, None, Some(data), _) => data.join("pelton/plugins"),
        (None, None, None, Some(home)) => home.join(".local/share/pelton/plugins"),
        (None, None, None, None) => {
            anyhow::bail!("there is no folder for plugins of registries: set PELTON_STORE or HOME, or name it with --store")
        }
    };
    Ok(Store::new(folder))
}
