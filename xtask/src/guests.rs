//! Builds the guests that tests run: each crate under `plugins/`, `examples/*/plugins/` and `tests/programs/`.
//!
//! They go through the built command line, `pelton plugin build`, as a user's do, and so test it. Components land in
//! `tests/.cache/components/<name>.wasm`; those that are newer than their sources are left.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Builds what is stale and answers where each component is.
pub fn build_test_components() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let cache = root.join("tests/.cache/components");
    std::fs::create_dir_all(&cache)?;
    let pelton = build_pelton(root)?;
    let mut components = vec![];
    for guest in guests(root)? {
        let built = Command::new(&pelton).args(["plugin", "build", "--if-stale"]).arg(&guest).output()?;
        if !built.status.success() {
            bail!("{} does not build:\n{}", guest.display(), String::from_utf8_lossy(&built.stderr));
        }
        components.push(keep(&guest, &cache)?);
    }
    Ok(components)
}

/// Builds the command line.
pub fn build_binary() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    build_pelton(root).map(|_| ())
}

/// Builds the command line and answers its path, as cargo tells it: the target folder may lie anywhere.
fn build_pelton(root: &Path) -> Result<PathBuf> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // With the whole workspace and its tests, so that features of shared dependencies are those of the test runs that follow:
        // anything less would build them once more.
        .args(["build", "--workspace", "--bin", "pelton", "--tests", "--message-format", "json-render-diagnostics"])
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !built.status.success() {
        bail!("pelton-cli does not build");
    }
    let lines = String::from_utf8_lossy(&built.stdout).into_owned();
    let executable = lines.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_binary =
            message["target"]["name"] == "pelton" && message["target"]["kind"][0] == "bin" && message["profile"]["test"] == false;
        message["executable"].as_str().filter(|_| is_binary).map(PathBuf::from)
    });
    executable.context("cargo named no executable of pelton-cli")
}

/// Every crate that makes a component, in the order of their paths. A folder without `Cargo.toml` is of another language.
fn guests(root: &Path) -> Result<Vec<PathBuf>> {
    let mut parents = vec![root.join("plugins"), root.join("tests/programs")];
    parents.extend(folders(&root.join("examples"))?.into_iter().map(|example| example.join("plugins")));
    let mut guests = vec![];
    for parent in parents.iter().filter(|parent| parent.is_dir()) {
        guests.extend(folders(parent)?.into_iter().filter(|guest| guest.join("Cargo.toml").exists()));
    }
    guests.sort();
    Ok(guests)
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(parent).with_context(|| format!("reading {}", parent.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// Copies a guest's components to the cache, when it is not there or older. Answers the path.
fn keep(guest: &Path, cache: &Path) -> Result<PathBuf> {
    let manifest = std::fs::read_to_string(guest.join("Cargo.toml"))?;
    let line = manifest.lines().find(|line| line.starts_with("name"));
    let name = line.and_then(|line| line.split('"').nth(1)).with_context(|| format!("{} names no package", guest.display()))?;
    let component = guest.join(format!("target/{name}.wasm"));
    let kept = cache.join(format!("{name}.wasm"));
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    if modified(&kept).is_err() || modified(&kept)? < modified(&component)? {
        std::fs::copy(&component, &kept).with_context(|| format!("copying {}", component.display()))?;
    }
    Ok(kept)
}
