//! Where the Rust SDK's sources are: in the checkout that this binary was built from, else unpacked from the binary into the cache.
//!
//! A user who has only the binary can so write plugins without a registry. The unpacked folder is named by the digest of its files; it
//! is never changed after it has appeared.
//!
//! A crate names the SDK by its version, as for a registry, so that it is the same on every machine. Where this machine has the sources stands
//! in a configuration of cargo beside the crate, which is not kept with it ([`patch`]).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::toolchain;

macro_rules! embedded {
    ($($path:literal),+ $(,)?) => {
        [$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/rust/", $path)))),+]
    };
}

/// Every file of `sdk/rust`; a test compares the list with the folder.
const FILES: &[(&str, &str)] = &embedded![
    "Cargo.toml",
    "macros/Cargo.toml",
    "macros/src/combine.rs",
    "macros/src/config.rs",
    "macros/src/lib.rs",
    "macros/src/outputs.rs",
    "macros/src/row.rs",
    "macros/src/state.rs",
    "macros/src/stateful.rs",
    "macros/src/timer.rs",
    "macros/src/transform.rs",
    "macros/src/value.rs",
    "src/answer.rs",
    "src/clock.rs",
    "src/columns.rs",
    "src/combine.rs",
    "src/component.rs",
    "src/component/capabilities.rs",
    "src/component/combine.rs",
    "src/component/stateful.rs",
    "src/config.rs",
    "src/context.rs",
    "src/env.rs",
    "src/fuzz.rs",
    "src/http.rs",
    "src/json.rs",
    "src/keyed.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/metrics.rs",
    "src/random.rs",
    "src/read.rs",
    "src/row.rs",
    "src/schema.rs",
    "src/state/aggregate.rs",
    "src/state/encode.rs",
    "src/state/list.rs",
    "src/state/map.rs",
    "src/state/migrate.rs",
    "src/state/mod.rs",
    "src/state/value.rs",
    "src/stateful.rs",
    "src/testing.rs",
    "src/testing/fakes.rs",
    "src/testing/keyed.rs",
    "src/timers.rs",
    "src/transform.rs",
    "src/values.rs",
    "src/wire.rs",
    "src/write.rs",
    "wit/batch.wit",
    "wit/bytes.wit",
    "wit/combine-fn.wit",
    "wit/data.wit",
    "wit/do-fn.wit",
    "wit/env.wit",
    "wit/http.wit",
    "wit/log.wit",
    "wit/monotonic-clock.wit",
    "wit/outputs.wit",
    "wit/plugin.wit",
    "wit/random.wit",
    "wit/spec.wit",
    "wit/state.wit",
    "wit/stateful-do-fn.wit",
    "wit/wall-clock.wit",
    "wit/world.wit",
];

/// The folder of the `pelton-sdk` crate.
pub fn folder() -> Result<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/rust");
    match checkout.canonicalize() {
        Ok(checkout) if checkout.join("Cargo.toml").exists() => Ok(checkout),
        _ => unpack(&toolchain::cache_folder()?),
    }
}

/// The first line of a configuration that is ours.
const OURS: &str = "# By `pelton plugin`, for this machine only: where the SDK's sources are.";

/// Tells cargo where the SDK of the crate in `dir` is, if its manifest names it by its version. A configuration that somebody else has written stays
/// as it is.
pub fn patch(dir: &Path, manifest: &str) -> Result<()> {
    let path = configuration(dir);
    let is_ours = std::fs::read_to_string(&path).map_or(!path.exists(), |text| text.starts_with(OURS));
    if !is_ours || !names_version(manifest) {
        return Ok(());
    }
    let wanted = format!("{OURS}\n[patch.crates-io]\npelton-sdk = {{ path = {:?} }}\n", folder()?.display().to_string());
    if std::fs::read_to_string(&path).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        std::fs::write(&path, &wanted)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// What [`patch`] has written for a crate; else nothing.
pub fn patched(dir: &Path) -> String {
    std::fs::read_to_string(configuration(dir)).ok().filter(|text| text.starts_with(OURS)).unwrap_or_default()
}

fn configuration(dir: &Path) -> PathBuf {
    dir.join(".cargo/config.toml")
}

/// Whether a manifest has the SDK from a registry, and not from a place of its own.
fn names_version(manifest: &str) -> bool {
    let told = manifest.lines().filter_map(|line| line.trim().strip_prefix("pelton-sdk")?.trim_start().strip_prefix('='));
    told.into_iter().any(|told| !["path", "git", "registry", "workspace"].iter().any(|place| told.contains(place)))
}

fn unpack(cache: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for (path, text) in FILES {
        hash.update(path);
        hash.update(text);
    }
    let digest = hash.finalize().iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let folder = cache.join(format!("sdk-rust-{digest}"));
    if folder.exists() {
        return Ok(folder);
    }
    let making = cache.join(format!("sdk-rust-{digest}.making-{}", std::process::id()));
    for (path, text) in FILES {
        let path = making.join(path);
        std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if std::fs::rename(&making, &folder).is_err() && !folder.exists() {
        anyhow::bail!("cannot move the SDK's sources to {}", folder.display());
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(folder: &Path, under: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("the SDK's folder").flatten() {
            let name = format!("{under}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true if name == "target" || name == "tests" => {}
                true => list(&entry.path(), &format!("{name}/"), found),
                false if name.ends_with(".lock") => {}
                false => found.push(name),
            }
        }
    }

    #[test]
    fn every_file_of_the_sdk_is_embedded() {
        let mut found = vec![];
        list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/rust"), "", &mut found);
        found.sort();
        let mut embedded: Vec<_> = FILES.iter().map(|(path, _)| path.to_string()).collect();
        embedded.sort();
        assert_eq!(embedded, found);
    }

    #[test]
    fn only_a_crate_that_names_a_version_is_told_where_the_sdk_is() {
        for (line, told) in [
            ("pelton-sdk = \"0.1.0\"", true),
            ("pelton-sdk={ version = \"0.1.0\", features = [\"x\"] }", true),
            ("pelton-sdk = { path = \"../sdk\" }", false),
            ("pelton-sdk.workspace = true", false),
            ("pelton-sdk-macros = \"0.1.0\"", false),
        ] {
            let dir = tempfile::tempdir().expect("a temporary folder");
            patch(dir.path(), &format!("[dependencies]\n{line}\n")).expect("writes");
            assert_eq!(patched(dir.path()).contains("[patch.crates-io]"), told, "{line}");
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join(".cargo")).expect("a folder");
        std::fs::write(configuration(dir.path()), "[build]\n").expect("writes");
        patch(dir.path(), "pelton-sdk = \"0.1.0\"").expect("leaves it");
        assert_eq!(std::fs::read_to_string(configuration(dir.path())).expect("is there"), "[build]\n");
    }

    #[test]
    fn unpacking_twice_gives_one_folder() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let first = unpack(cache.path()).expect("unpacks");
        assert!(first.join("macros/src/lib.rs").exists());
        assert_eq!(unpack(cache.path()).expect("finds it again"), first);
    }
}
