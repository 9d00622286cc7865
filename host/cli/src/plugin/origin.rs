//! What a component was made from and by what: the bill of materials and the provenance that `pelton plugin build` puts into it.
//!
//! Both say the same for the same sources and tools: there is no time and no machine in them, so that a component can be built again and compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::toolchain::{TARGET, Toolchain};

/// Name and version of a package, which together are unique enough for a bill.
type Id = String;

/// CycloneDX 1.5: the packages that are linked into the component of a crate, each with its licence and checksum.
pub fn bill_of_materials(manifest: &Path, toolchain: &Toolchain, features: &[String]) -> Result<Value> {
    let metadata = metadata(manifest, toolchain, features)?;
    let root: Id = metadata["resolve"]["root"].as_str().context("cargo metadata names no root package")?.into();
    let packages: HashMap<&str, &Value> =
        list(&metadata["packages"]).filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes: HashMap<&str, &Value> = list(&metadata["resolve"]["nodes"]).filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let lock = metadata["workspace_root"].as_str().map(|folder| Path::new(folder).join("Cargo.lock"));
    let checksums = lock.and_then(|path| std::fs::read_to_string(path).ok()).map(|text| checksums(&text)).unwrap_or_default();

    let mut edges: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(id) = open.pop() {
        if edges.contains_key(&id) {
            continue;
        }
        let linked: BTreeSet<Id> = list(&nodes.get(id.as_str()).context("cargo metadata has no node of a package")?["deps"])
            .filter(|dependency| list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null()))
            .filter_map(|dependency| dependency["pkg"].as_str())
            .filter(|id| packages.get(id).is_some_and(|package| !is_macro(package)))
            .map(str::to_owned)
            .collect();
        open.extend(linked.iter().cloned());
        edges.insert(id, linked);
    }
    let url = |id: &Id| packages.get(id.as_str()).map(|package| purl(package)).unwrap_or_default();
    let component = |id: &Id| packages.get(id.as_str()).map(|package| described(package, &checksums)).unwrap_or_default();
    let mut components: Vec<Value> = edges.keys().filter(|id| **id != root).map(component).collect();
    components.sort_by_key(|component| component["purl"].to_string());
    let mut dependencies: Vec<Value> = edges
        .iter()
        .map(|(id, linked)| {
            let on: BTreeSet<String> = linked.iter().map(url).collect();
            json!({"ref": url(id), "dependsOn": on})
        })
        .collect();
    dependencies.sort_by_key(|dependency| dependency["ref"].to_string());
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "pelton", "version": env!("CARGO_PKG_VERSION")}]},
            "component": component(&root),
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// From which sources, and by which tools.
pub fn provenance(manifest: &Path, toolchain: &Toolchain, features: &[String]) -> Result<Value> {
    let folder = manifest.parent().context("a manifest lies in a folder")?;
    let commit = git(folder, &["log", "-1", "--format=%H", "--", "."]).filter(|commit| !commit.is_empty());
    let git = commit.map(|commit| {
        let changed = git(folder, &["status", "--porcelain", "--", "."]).is_none_or(|changes| !changes.is_empty());
        json!({"commit": commit, "changed_since": changed})
    });
    Ok(json!({
        "source": source_digest(folder)?,
        "git": git,
        "rustc": toolchain.described,
        "target": TARGET,
        "features": features,
        "pelton": env!("CARGO_PKG_VERSION"),
    }))
}

/// SHA-256 over path and bytes of every file of a crate, in the order of their paths; built and hidden files are left out.
fn source_digest(folder: &Path) -> Result<String> {
    let mut files = BTreeMap::new();
    gather(folder, "", &mut files)?;
    let mut hash = Sha256::new();
    for (name, path) in files {
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        // Lengths stand before what they measure, so that no two lists of files look alike.
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    Ok(super::build::digest_text(&hash.finalize()))
}

fn gather(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        if path.is_dir() {
            gather(&path, &format!("{name}/"), files)?;
        } else {
            files.insert(name, path);
        }
    }
    Ok(())
}

fn metadata(manifest: &Path, toolchain: &Toolchain, features: &[String]) -> Result<Value> {
    let mut command = Command::new(&toolchain.cargo);
    command
        .args(["metadata", "--format-version", "1", "--filter-platform", TARGET, "--manifest-path"])
        .arg(manifest)
        // Where cargo's configuration of the crate is.
        .current_dir(manifest.parent().context("a manifest lies in a folder")?)
        .envs(toolchain.environment.iter().map(|(name, value)| (name, value)))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if !features.is_empty() {
        command.arg("--features").arg(features.join(","));
    }
    let output = command.output().with_context(|| format!("starting {}", toolchain.cargo.display()))?;
    if !output.status.success() {
        bail!("cargo metadata fails: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is_macro(package: &Value) -> bool {
    list(&package["targets"]).any(|target| list(&target["kind"]).any(|kind| kind == "proc-macro"))
}

fn purl(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

fn described(package: &Value, checksums: &HashMap<(String, String), String>) -> Value {
    let (name, version) = (package["name"].as_str().unwrap_or_default(), package["version"].as_str().unwrap_or_default());
    let mut told = json!({"type": "library", "bom-ref": purl(package), "name": name, "version": version, "purl": purl(package)});
    if let Some(licence) = package["license"].as_str() {
        // Old manifests write a slash for `OR`.
        told["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksums.get(&(name.into(), version.into())) {
        told["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    told
}

/// By name and version, from a `Cargo.lock`.
fn checksums(lock: &str) -> HashMap<(String, String), String> {
    let value = |block: &str, key: &str| -> Option<String> {
        block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned))
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks.filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?))).collect()
}

/// The trimmed answer of git, if there is one.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_sources_is_of_names_and_bytes_alone() {
        let (left, right) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        for folder in [&left, &right] {
            std::fs::create_dir_all(folder.path().join("src")).expect("makes");
            std::fs::write(folder.path().join("src/lib.rs"), "fn f() {}").expect("writes");
            std::fs::write(folder.path().join("Cargo.toml"), "[package]").expect("writes");
        }
        std::fs::create_dir_all(right.path().join("target")).expect("makes");
        std::fs::write(right.path().join("target/x.wasm"), "x").expect("writes");
        let digest = |folder: &tempfile::TempDir| source_digest(folder.path()).expect("a digest");
        assert_eq!(digest(&left), digest(&right));
        std::fs::write(right.path().join("src/lib.rs"), "fn g() {}").expect("writes");
        assert_ne!(digest(&left), digest(&right));
        std::fs::rename(left.path().join("src/lib.rs"), left.path().join("src/main.rs")).expect("moves");
        assert_ne!(digest(&left), digest(&right));
    }

    #[test]
    fn checksums_are_those_of_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        let found = checksums(lock);
        assert_eq!((found.len(), found.get(&("a".to_string(), "1.0.0".to_string())).map(String::as_str)), (1, Some("ab")));
    }
}
