//! Compiles a plugin crate to a WebAssembly component: `cargo build` for the core module, then `wit-component` in this process.
//!
//! All guests share one cargo target folder (`~/.cache/pelton/guest-target`, or `PELTON_GUEST_TARGET`), because most of a first build is
//! the SDK and its macros. The profile is ours, given by environment variables, so that a plugin's `Cargo.toml` needs none: optimised across
//! crates, aborting on panic, without debug information but with function names, which stack traces of a failed call show. With
//! [`Lines::Keep`] they show the lines too.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::toolchain::{self, TARGET};
use super::{origin, sdk, sections};

const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

/// Where the messages of the build go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Messages {
    /// To standard error, as they come.
    #[default]
    Show,
    /// Into the error when the build fails, else nowhere.
    Keep,
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub messages: Messages,
    /// Cargo features of the plugin's crate.
    pub features: Vec<String>,
    pub lines: Lines,
}

/// Whether the component knows which line of the source each instruction is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lines {
    /// It does not, and is a few times smaller.
    #[default]
    Drop,
    /// Stack traces show `crate::function at src/lib.rs:LINE`.
    Keep,
}

impl Lines {
    fn profile(self) -> [(&'static str, &'static str); 2] {
        match self {
            Lines::Drop => [("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")],
            Lines::Keep => [("CARGO_PROFILE_RELEASE_STRIP", "none"), ("CARGO_PROFILE_RELEASE_DEBUG", "1")],
        }
    }
}

/// A component on disk.
#[derive(Debug, Clone)]
pub struct Built {
    /// `<dir>/target/<package name>.wasm`, or `.debug.wasm` with lines.
    pub component: PathBuf,
    pub size: u64,
    /// `sha256:` and the hex digest of the component's bytes.
    pub digest: String,
}

/// Builds the plugin crate in `dir` and writes its component.
///
/// Errors of the user's code are cargo's own words; see [`Messages`] for where they go.
pub fn build(dir: &Path, options: &Options) -> Result<Built> {
    let package = find_package(dir)?;
    sdk::patch(dir, &read_manifest(dir)?)?;
    let say = |line: &str| {
        if options.messages == Messages::Show {
            eprintln!("pelton: {line}");
        }
    };
    let toolchain = toolchain::find(&say)?;
    let module = compile(&package, &toolchain, options)?;
    let core = std::fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
    let mut component = componentise(&core)
        .with_context(|| format!("{} is not a plugin: does its code call `pelton_sdk::plugin!(..)` with its transforms?", package.name))?;
    let path = component_path(dir, &package.name, options.lines);
    tell_origin(&mut component, &package, &toolchain, options, &say);
    write_whole(&path, &component)?;
    Ok(Built { digest: digest(&component), size: component.len() as u64, component: path })
}

/// Adds what it was made from. A plugin works without, so that what cannot be found out is only said.
fn tell_origin(component: &mut Vec<u8>, package: &Package, toolchain: &toolchain::Toolchain, options: &Options, say: &dyn Fn(&str)) {
    let (manifest, features) = (&package.manifest, &options.features);
    for (section, told) in [
        (sections::SBOM, origin::bill_of_materials(manifest, toolchain, features)),
        (sections::PROVENANCE, origin::provenance(manifest, toolchain, features)),
    ] {
        match told {
            Ok(told) => sections::append(component, section, told.to_string().as_bytes()),
            Err(error) => say(&format!("the component has no section {section}: {error:#}")),
        }
    }
}

/// As [`build`], unless the component is newer than everything that it is made from; one with lines is always built. The answer's bool says whether it was built.
pub fn build_if_stale(dir: &Path, options: &Options) -> Result<(Built, bool)> {
    let manifest = read_manifest(dir)?;
    let name = package_name(&manifest).with_context(|| format!("{}/Cargo.toml names no package", dir.display()))?;
    let path = component_path(dir, &name, options.lines);
    sdk::patch(dir, &manifest)?;
    if options.lines == Lines::Drop
        && let Ok(modified) = std::fs::metadata(&path).and_then(|metadata| metadata.modified())
        && newest_source(dir, &manifest) < modified
    {
        let component = std::fs::read(&path)?;
        let built = Built { digest: digest(&component), size: component.len() as u64, component: path };
        return Ok((built, false));
    }
    Ok((build(dir, options)?, true))
}

/// When the newest of what a crate in `dir` is made from has changed.
pub fn changed(dir: &Path) -> Result<SystemTime> {
    Ok(newest_source(dir, &read_manifest(dir)?))
}

/// Wraps a core module, which carries its WIT world in a custom section, into a component.
pub fn componentise(module: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default().module(module)?.validate(true).encode()
}

/// Whether a folder holds a plugin's crate, as far as can be seen without compiling it.
pub fn check(dir: &Path) -> Result<()> {
    find_package(dir).map(drop)
}

struct Package {
    name: String,
    manifest: PathBuf,
}

fn find_package(dir: &Path) -> Result<Package> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.exists() {
        bail!("{} has no Cargo.toml. `pelton plugin new NAME --lang rust` makes a plugin crate", dir.display());
    }
    let manifest = manifest.canonicalize()?;
    let text = read_manifest(dir)?;
    let name = package_name(&text).with_context(|| format!("{} names no package", manifest.display()))?;
    if !text.contains("cdylib") {
        bail!("{} does not make a WebAssembly module. Add:\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]", manifest.display());
    }
    Ok(Package { name, manifest })
}

/// Runs cargo and answers the core module's path.
fn compile(package: &Package, toolchain: &toolchain::Toolchain, options: &Options) -> Result<PathBuf> {
    let mut command = Command::new(&toolchain.cargo);
    command
        .args(["build", "--release", "--lib", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(&package.manifest)
        .arg("--target-dir")
        .arg(target_folder()?)
        .current_dir(package.manifest.parent().context("a manifest lies in a folder")?)
        .envs(PROFILE)
        .envs(options.lines.profile())
        .envs(toolchain.environment.iter().map(|(name, value)| (name, value)))
        // Left by an outer `cargo run` or a flag meant for another build.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .stdout(Stdio::piped());
    if !options.features.is_empty() {
        command.arg("--features").arg(options.features.join(","));
    }
    if options.messages == Messages::Keep {
        command.arg("--color=never").stderr(Stdio::piped());
    }
    let mut child = command.spawn().with_context(|| format!("starting {}", toolchain.cargo.display()))?;
    let stderr = child.stderr.take();
    #[allow(clippy::disallowed_methods, reason = "the build waits for its compiler; nothing of a pipeline runs here")]
    let listener = std::thread::spawn(move || {
        let mut log = String::new();
        for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
            log.push_str(&line);
            log.push('\n');
        }
        log
    });
    let mut module = None;
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        module = module_of(&line?, &package.manifest).or(module);
    }
    let status = child.wait()?;
    let log = listener.join().unwrap_or_default();
    if !status.success() {
        let told = if log.is_empty() { String::new() } else { format!(":\n{log}") };
        bail!("{} does not compile with {}{told}", package.name, toolchain.described);
    }
    module.with_context(|| format!("cargo made no WebAssembly module for {}", package.name))
}

/// The module that a line of cargo's JSON messages names, when it is of the wanted package.
fn module_of(line: &str, manifest: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || Path::new(message["manifest_path"].as_str()?) != manifest {
        return None;
    }
    let files = message["filenames"].as_array()?;
    files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

/// Where guests are compiled.
pub fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("PELTON_GUEST_TARGET").filter(|value| !value.is_empty()) {
        Some(folder) => Ok(folder.into()),
        None => Ok(toolchain::cache_folder()?.join("guest-target")),
    }
}

/// One with lines lies beside the other, so that no pipeline takes it for it.
fn component_path(dir: &Path, name: &str, lines: Lines) -> PathBuf {
    let ending = match lines {
        Lines::Drop => "wasm",
        Lines::Keep => "debug.wasm",
    };
    dir.join("target").join(format!("{name}.{ending}"))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a component lies in a folder")?;
    std::fs::create_dir_all(folder)?;
    let making = path.with_extension(format!("making-{}", std::process::id()));
    std::fs::write(&making, bytes).with_context(|| format!("writing {}", making.display()))?;
    std::fs::rename(&making, path).with_context(|| format!("writing {}", path.display()))
}

fn digest(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

/// As digests are written everywhere.
pub fn digest_text(hash: &[u8]) -> String {
    hash.iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

fn read_manifest(dir: &Path) -> Result<String> {
    let path = dir.join("Cargo.toml");
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The first `name` of a manifest, which by custom is the package's. Cargo itself checks the manifest when it builds.
fn package_name(manifest: &str) -> Option<String> {
    let package = &manifest[manifest.find("[package]")?..];
    let line = package.lines().find(|line| line.trim_start().starts_with("name"))?;
    line.split('"').nth(1).map(str::to_owned)
}

/// When the newest file changed of the crate and of the crates that it has by path, as the SDK.
fn newest_source(dir: &Path, manifest: &str) -> SystemTime {
    let named = manifest.to_owned() + &sdk::patched(dir);
    let named = named.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next()).map(|path| dir.join(path));
    named.filter(|path| path.is_dir()).chain([dir.to_path_buf()]).map(|folder| newest_in(&folder)).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn newest_in(folder: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    let Ok(entries) = std::fs::read_dir(folder) else { return newest };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        // Follows links: the SDK's `wit` is one in a checkout.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        let changed = if metadata.is_dir() { newest_in(&entry.path()) } else { metadata.modified().unwrap_or(newest) };
        newest = newest.max(changed);
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_named_by_its_own_section() {
        let manifest = "[workspace]\n[package]\nversion = \"1\"\nname = \"parse-log\"\n[lib]\nname = \"other\"\n";
        assert_eq!(package_name(manifest).as_deref(), Some("parse-log"));
        assert_eq!(package_name("[workspace]\n"), None);
    }

    #[test]
    fn a_folder_without_a_crate_is_told_how_to_make_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = build(folder.path(), &Options::default()).expect_err("there is nothing to build").to_string();
        assert!(error.contains("pelton plugin new"), "{error}");
    }

    #[test]
    fn cargo_names_the_module_of_the_package_alone() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/a.rlib","/t/a.wasm"]}"#;
        assert_eq!(module_of(line, Path::new("/a/Cargo.toml")), Some(PathBuf::from("/t/a.wasm")));
        assert_eq!(module_of(line, Path::new("/b/Cargo.toml")), None);
        assert_eq!(module_of("not json", Path::new("/a/Cargo.toml")), None);
    }
}
