//! Makes a plugin crate from a template: a transform, its unit test, and nothing else to understand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::sdk;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
}

/// The template's files: path and text, in which `@NAME@`, `@FUNCTION@` and `@SDK@` stand for the plugin's.
const RUST: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    ("README.md", include_str!("template/README.md.txt")),
    (".gitignore", "/target\n"),
];

/// Makes the crate and says what to do next.
pub fn create(name: &str, language: Language, dir: Option<&Path>) -> Result<()> {
    check_name(name)?;
    let dir = dir.map_or_else(|| PathBuf::from(name), Path::to_path_buf);
    match language {
        Language::Rust => write_rust(name, &dir, &sdk::folder()?)?,
    }
    println!("made {}\nnext:\n  cd {}\n  cargo test\n  pelton plugin build .", dir.display(), dir.display());
    Ok(())
}

fn write_rust(name: &str, dir: &Path, sdk: &Path) -> Result<()> {
    if dir.exists() && dir.read_dir().with_context(|| format!("reading {}", dir.display()))?.next().is_some() {
        bail!("{} exists and is not empty; choose another folder with --dir", dir.display());
    }
    for (path, text) in RUST {
        let text = text.replace("@NAME@", name).replace("@FUNCTION@", &name.replace('-', "_")).replace("@SDK@", &sdk.display().to_string());
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
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
        write_rust("keep-errors", folder.path(), Path::new("/sdk")).expect("writes");
        for (path, _) in RUST {
            let text = std::fs::read_to_string(folder.path().join(path)).expect("is there");
            assert!(!text.contains('@') || path.ends_with(".rs"), "{path}: {text}");
        }
        assert!(write_rust("keep-errors", folder.path(), Path::new("/sdk")).is_err());
    }
}
