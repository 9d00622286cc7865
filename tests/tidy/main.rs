//! The architecture, checked: directions of dependencies, who may know what, documents that must agree with the tree.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod docs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").into()
}

/// Names in the `[dependencies]` section of a manifest.
fn dependencies(manifest: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(manifest).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside
            && let Some((name, _)) = line.split_once(['.', ' ', '='])
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.push(name.to_string());
        }
    }
    names
}

fn crates() -> BTreeMap<String, Vec<String>> {
    ["core", "expr", "pipeline", "state", "plugin", "connect", "runtime", "cli"]
        .into_iter()
        .map(|name| (name.to_string(), dependencies(&root().join("host").join(name).join("Cargo.toml"))))
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("core", &[][..]),
        ("expr", &["core"]),
        ("pipeline", &["core", "expr"]),
        ("state", &["core"]),
        ("plugin", &["core"]),
        ("connect", &["core"]),
        ("runtime", &["core", "expr", "pipeline", "state", "plugin", "connect"]),
        ("cli", &["core", "expr", "pipeline", "state", "plugin", "connect", "runtime"]),
    ]);
    for (name, dependencies) in crates() {
        for dependency in dependencies.iter().filter_map(|dependency| dependency.strip_prefix("pelton-")) {
            assert!(allowed[name.as_str()].contains(&dependency), "host/{name} must not depend on host/{dependency}");
        }
    }
}

#[test]
fn each_heavy_thing_is_known_to_one_crate() {
    let owners = [
        ("wasmtime", "plugin"),
        ("datafusion", "expr"),
        ("saphyr", "pipeline"),
        ("minijinja", "pipeline"),
        ("rdkafka", "connect"),
        ("parquet", "connect"),
        ("csv", "connect"),
        ("clap", "cli"),
    ];
    for (name, dependencies) in crates() {
        for (thing, owner) in owners {
            let knows = dependencies.iter().any(|dependency| dependency.starts_with(thing));
            assert!(!knows || name == owner, "only host/{owner} may know {thing}, but host/{name} does");
        }
    }
}

#[test]
fn the_sdk_knows_nothing_of_the_host() {
    for manifest in ["sdk/rust/Cargo.toml", "sdk/rust/macros/Cargo.toml"] {
        for dependency in dependencies(&root().join(manifest)) {
            assert!(!dependency.starts_with("pelton-") || dependency == "pelton-sdk-macros", "{manifest} depends on {dependency}");
        }
    }
}

#[test]
fn the_architecture_names_every_crate() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for name in crates().keys() {
        assert!(text.contains(&format!("| `host/{name}` |")), "ARCHITECTURE.md says nothing of host/{name}");
    }
    // Files that the life of a record names exist.
    for part in text.split('`').filter(|part| part.starts_with("host/") && part.ends_with(".rs")) {
        assert!(root().join(part).is_file(), "ARCHITECTURE.md names {part}, which does not exist");
    }
}

/// Every `.rs` file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn core_is_pure() {
    let mut found = Vec::new();
    sources(&root().join("host/core/src"), &mut found);
    assert!(found.len() > 5, "host/core was not found");
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a source file");
        for banned in ["std::fs", "std::net", "std::thread", "SystemTime", "std::time::Instant", "tokio", "rand::"] {
            assert!(!text.contains(banned), "{} uses {banned}: host/core is pure", path.display());
        }
    }
}

#[test]
fn no_test_is_switched_off() {
    let mut found = Vec::new();
    for folder in ["host", "sdk", "tests", "xtask"] {
        sources(&root().join(folder), &mut found);
    }
    let marker = concat!("#[", "ignore");
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a source file");
        assert!(!text.contains(marker), "{} switches a test off", path.display());
    }
}

#[test]
fn every_guest_program_has_a_test() {
    let mut tests = String::new();
    let mut found = Vec::new();
    for folder in ["tests", "host/plugin/tests", "host/cli"] {
        sources(&root().join(folder), &mut found);
    }
    for path in found.iter().filter(|path| !path.components().any(|part| part.as_os_str() == "programs")) {
        tests.push_str(&std::fs::read_to_string(path).expect("a source file"));
    }
    for entry in std::fs::read_dir(root().join("tests/programs")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("Cargo.toml").exists() {
            assert!(tests.contains(&name), "no test names the guest program tests/programs/{name}");
        }
    }
}
