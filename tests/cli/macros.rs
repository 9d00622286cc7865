//! Mistakes in a plugin's source are shown at the author's line, in words about plugins, not about macros.

use pelton_tests::pelton::root;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Line, and a fragment of the message or its notes.
type Expected = Vec<(u64, String)>;

#[test]
fn mistakes_in_a_plugin_are_shown_at_their_line() {
    let package = package();
    let mut expected: BTreeMap<String, Expected> = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("tests/cases-macros")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            std::fs::write(package.join("examples").join(&name), &text).unwrap();
            expected.insert(format!("examples/{name}"), marks(&text));
        }
    }
    assert!(expected.len() >= 5 && expected.values().all(|marks| !marks.is_empty()), "{expected:?}");
    let mut found = errors(&package);
    for (file, marks) in &expected {
        let errors = found.remove(file).unwrap_or_default();
        let lines = |places: &[(u64, String)]| places.iter().map(|(line, _)| *line).collect::<Vec<_>>();
        assert_eq!(lines(&errors), lines(marks), "{file}: {errors:#?}");
        for ((line, said), (_, fragment)) in errors.iter().zip(marks) {
            assert!(said.contains(fragment), "{file}:{line}: `{fragment}` is not in `{said}`");
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The lines that end in `//~ fragment`.
fn marks(text: &str) -> Expected {
    let marked = text.lines().zip(1..).filter_map(|(line, number)| line.split_once("//~ ").map(|(_, mark)| (number, mark.trim().into())));
    marked.collect()
}

/// A package whose examples are the cases. It stays, so that its dependencies are built once; they share the folder of the plugins' tests.
fn package() -> PathBuf {
    let package = root().join("target/cases-macros");
    let _ = std::fs::remove_dir_all(package.join("examples"));
    std::fs::create_dir_all(package.join("examples")).unwrap();
    std::fs::create_dir_all(package.join("src")).unwrap();
    std::fs::write(package.join("src/lib.rs"), "").unwrap();
    let manifest = format!(
        "[package]\nname = \"cases-macros\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\npelton-sdk = {{ path = {:?} }}\n[workspace]\n",
        root().join("sdk/rust")
    );
    std::fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // The versions that the tests' plugins have, which are there already.
    std::fs::copy(root().join("tests/programs/sdk/Cargo.lock"), package.join("Cargo.lock")).unwrap();
    package
}

/// What `cargo check` finds in each example: the author's line, and all that is said there.
fn errors(package: &Path) -> BTreeMap<String, Expected> {
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["check", "--examples", "--keep-going", "--message-format", "json", "--quiet"])
        .current_dir(package)
        .env("CARGO_TARGET_DIR", root().join("target/plugins"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let mut found: BTreeMap<String, Expected> = BTreeMap::new();
    for message in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let error = &message["message"];
        if error["level"] == "error" && !error["spans"].as_array().is_none_or(Vec::is_empty) {
            let span = error["spans"].as_array().unwrap().iter().find(|span| span["is_primary"] == true).unwrap();
            let place = author_of(span);
            let entry = (place["line_start"].as_u64().unwrap(), error["rendered"].as_str().unwrap_or_default().to_string());
            found.entry(place["file_name"].as_str().unwrap().into()).or_default().push(entry);
        }
    }
    assert!(!found.is_empty(), "cargo check says nothing:\n{}", String::from_utf8_lossy(&output.stderr));
    for errors in found.values_mut() {
        errors.sort();
        // A type that is wrong is wrong in each trait that needs it: one line is one mistake to its author.
        errors.dedup_by_key(|(line, _)| *line);
    }
    found
}

/// The place in the source, for a span that lies in what a macro made.
fn author_of(span: &Value) -> &Value {
    match &span["expansion"] {
        Value::Null => span,
        expansion => author_of(&expansion["span"]),
    }
}
