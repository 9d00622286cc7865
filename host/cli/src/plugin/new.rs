//! Makes a plugin crate from a template: a transform, its unit test, and nothing else to understand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::sdk;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
}

/// The template's files: path and text, in which `@NAME@`, `@FUNCTION@` and `@TYPE@` stand for the plugin's, `@VERSION@` for the SDK's.
const RUST: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    ("README.md", include_str!("template/README.md.txt")),
    (".gitignore", "/target\n/.cargo/config.toml\n"),
];

/// Of `sdk/rust`; a test compares it.
const SDK_VERSION: &str = "0.1.0";

/// Makes the crate and says what to do next.
pub fn create(name: &str, language: Language, dir: Option<&Path>) -> Result<()> {
    check_name(name)?;
    let dir = dir.map_or_else(|| PathBuf::from(name), Path::to_path_buf);
    match language {
        Language::Rust => write_rust(name, &dir)?,
    }
    println!(
        "made {}\nnext:\n  cd {}\n  cargo test\n  pelton plugin build .\nREADME.md shows a pipeline that uses it",
        dir.display(),
        dir.display()
    );
    Ok(())
}

fn write_rust(name: &str, dir: &Path) -> Result<()> {
    if dir.exists() && dir.read_dir().with_context(|| format!("reading {}", dir.display()))?.next().is_some() {
        bail!("{} exists and is not empty; choose another folder with --dir", dir.display());
    }
    for (path, text) in RUST {
        let text = text.replace("@NAME@", name).replace("@FUNCTION@", &name.replace('-', "_")).replace("@TYPE@", &kind(name));
        let text = text.replace("@VERSION@", SDK_VERSION);
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    sdk::patch(dir, &std::fs::read_to_string(dir.join("Cargo.toml"))?)
}

/// The type by which the README's pipeline uses it: `KeepErrors` of `keep-errors`.
fn kind(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

fn check_name(name: &str) -> Result<()> {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.split('-').all(word) {
        bail!("`{name}` is not a plugin's name: lower-case words joined by hyphens, such as `keep-errors`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_pipeline::{PluginInfo, PluginTransform, Provider, Settings};

    #[test]
    fn names_are_kebab_case() {
        for (name, good) in [
            ("a", true),
            ("keep-errors2", true),
            ("Keep", false),
            ("a--b", false),
            ("-a", false),
            ("a_b", false),
            ("", false),
            ("2a", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn a_new_crate_has_no_holes_and_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_rust("keep-errors", folder.path()).expect("writes");
        for (path, _) in RUST {
            let text = std::fs::read_to_string(folder.path().join(path)).expect("is there");
            assert!(!text.contains('@') || path.ends_with(".rs"), "{path}: {text}");
        }
        assert!(write_rust("keep-errors", folder.path()).is_err());
        let manifest = std::fs::read_to_string(folder.path().join("Cargo.toml")).expect("is there");
        assert!(!manifest.contains("path ="), "a crate is the same on every machine: {manifest}");
        assert!(sdk::patched(folder.path()).contains("[patch.crates-io]\npelton-sdk = { path ="));
        let sdk = std::fs::read_to_string(sdk::folder().expect("the sources").join("Cargo.toml")).expect("is there");
        assert!(sdk.contains(&format!("\nversion = {SDK_VERSION:?}\n")), "{sdk}");
    }

    /// A plugin whose only transform is `keep-errors`.
    struct KeepErrors;

    impl PluginInfo for KeepErrors {
        fn transforms(&self, provider: &Provider) -> std::result::Result<Vec<PluginTransform>, String> {
            assert!(provider.plugin == "target/keep-errors.wasm", "{}", provider.plugin);
            Ok(vec![PluginTransform { name: "keep-errors".into(), ..PluginTransform::default() }])
        }
    }

    #[test]
    fn the_pipeline_of_the_readme_is_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_rust("keep-errors", folder.path()).expect("writes");
        let readme = std::fs::read_to_string(folder.path().join("README.md")).expect("is there");
        let text = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it shows a pipeline");
        let settings = Settings { file: "p.yaml".into(), text: text.into(), ..Settings::default() };
        let findings = match pelton_pipeline::load(&settings, &pelton_connect::catalog(), &KeepErrors) {
            Ok(graph) => graph.warnings,
            Err(findings) => findings,
        };
        assert!(findings.is_empty(), "{}", pelton_pipeline::render(&findings));
    }
}
