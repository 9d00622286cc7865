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
    ["core", "expr", "pipeline", "state", "fetch", "plugin", "registry", "connect", "runtime", "server", "cli"]
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
        ("fetch", &["core"]),
        ("plugin", &["core", "fetch"]),
        ("registry", &["core"]),
        ("connect", &["core"]),
        ("runtime", &["core", "expr", "pipeline", "state", "plugin", "connect"]),
        ("server", &["core", "pipeline", "plugin", "registry", "connect", "runtime"]),
        ("cli", &["core", "expr", "pipeline", "state", "plugin", "registry", "connect", "runtime", "server"]),
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
        ("tokio-postgres", "connect"),
        ("parquet", "connect"),
        ("csv", "connect"),
        ("lsm-tree", "state"),
        ("fjall", "state"),
        ("clap", "cli"),
        ("httparse", "server, fetch"),
        ("oci-", "registry"),
    ];
    for (name, dependencies) in crates() {
        for (thing, owner) in owners {
            let knows = dependencies.iter().any(|dependency| dependency.starts_with(thing));
            assert!(!knows || owner.split(", ").any(|owner| name == owner), "only host/{owner} may know {thing}, but host/{name} does");
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

/// Names of failpoints are texts; a test that asks for one must come to it.
#[test]
fn every_failpoint_has_one_place() {
    let root = root();
    let list = std::fs::read_to_string(root.join("host/core/src/failpoint.rs")).expect("failpoint.rs");
    let (_, list) = list.split_once("pub const NAMES").expect("the list of names");
    let (list, _) = list.split_once("];").expect("the end of the list");
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(names.len() > 20, "{names:?}");
    let mut text = String::new();
    let mut found = Vec::new();
    sources(&root.join("host"), &mut found);
    for path in found.iter().filter(|path| !path.ends_with("failpoint.rs")) {
        text.push_str(&std::fs::read_to_string(path).expect("a source file"));
    }
    for name in &names {
        let quoted = format!("\"{name}\"");
        assert!(text.contains(&quoted), "the failpoint {name} has no place");
    }
    for at in text.match_indices("failpoint::hit(\"") {
        let name = text[at.0 + at.1.len()..].split('"').next().unwrap_or_default();
        assert!(names.contains(&name), "the failpoint {name} is not in the list");
    }
}

/// Calls of the system with numbers of our own: nothing from outside comes to them, so there is nothing to fuzz.
const WITHOUT_INPUT: [&str; 2] = ["host/cli/src/allocator.rs", "host/server/src/weight.rs"];

#[test]
fn unsafe_code_is_fuzzed_or_has_no_input() {
    let block = concat!("unsafe", " {");
    let (mut fuzzed, mut places) = (BTreeMap::<String, bool>::new(), Vec::new());
    let mut found = Vec::new();
    for folder in ["host", "sdk/rust"] {
        sources(&root().join(folder), &mut found);
    }
    for path in &found {
        let text = std::fs::read_to_string(path).expect("a source file");
        let name = path.strip_prefix(root()).expect("it lies in the repository").to_string_lossy().into_owned();
        let of = name.split('/').take(2).collect::<Vec<_>>().join("/");
        *fuzzed.entry(of.clone()).or_default() |= text.contains(concat!("fn ", "fuzz_"));
        if text.contains(block) {
            places.push((of, name, text));
        }
    }
    assert!(places.len() > 5, "{} places", places.len());
    for (of, name, text) in &places {
        let without = text.lines().filter(|line| line.contains(block) && !line.contains("libc::"));
        match WITHOUT_INPUT.contains(&name.as_str()) {
            true => assert_eq!(without.count(), 0, "{name} does more than it is excused for"),
            false => assert!(fuzzed[of], "{name} has unsafe code, and {of} has no fuzz target"),
        }
    }
    for name in WITHOUT_INPUT {
        assert!(places.iter().any(|(_, place, _)| place == name), "{name} has no unsafe code any more");
    }
}
