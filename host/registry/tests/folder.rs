//! Plugins in a folder registry: what comes back, what is refused, and in which words.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use pelton_registry::{Component, Pin, Plugins, PrivateKey, Reference, RegistryError, SignatureFile, Statement, Store, digest_of};
use tempfile::TempDir;

struct Registry {
    folder: TempDir,
    plugins: Plugins,
}

impl Registry {
    fn new() -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let plugins = Plugins::new(Store::new(folder.path().join("store")));
        Registry { plugins, folder }
    }

    /// The same registry seen from a machine that has nothing of it.
    fn elsewhere(&self) -> Plugins {
        Plugins::new(Store::new(self.folder.path().join("elsewhere")))
    }

    fn reference(&self, of: &str) -> Reference {
        Reference::parse(&format!("folder:registry/{of}"), self.folder.path()).unwrap()
    }

    fn push_signed(&self, of: &str, name: &str, version: &str, bytes: &[u8], key: Option<&PrivateKey>) -> Result<String, RegistryError> {
        let digest = digest_of(bytes);
        let statement = Statement { name, version, digest: &digest };
        let mut signatures = SignatureFile::new(statement);
        if let Some(key) = key {
            signatures.add(statement.sign(key).unwrap());
        }
        self.plugins.push(&self.reference(of), Component { bytes, imports: &[], signatures }).map(|pushed| pushed.digest)
    }

    fn push(&self, version: &str, bytes: &[u8]) -> String {
        self.push_signed("geo", "geo", version, bytes, None).unwrap()
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("registry/geo").join(path)
    }
}

fn words<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> String {
    result.expect_err("it is refused").to_string()
}

fn take(plugins: &Plugins, reference: &Reference) -> String {
    let found = plugins.resolve(reference, false).unwrap();
    plugins.confirm(reference, &found, "geo", &found.version.to_string()).unwrap();
    String::from_utf8(found.bytes).unwrap()
}

#[test]
fn versions_resolve_to_what_was_pushed_and_stay_pinned() {
    let registry = Registry::new();
    for version in ["1.2.0", "1.2.3", "1.3.0", "2.0.0-rc.1"] {
        registry.push(version, version.as_bytes());
    }
    let plugins = registry.elsewhere();
    for (wanted, taken) in [("geo:1.2", "1.2.3"), ("geo:1", "1.3.0"), ("geo", "1.3.0"), ("geo:2.0.0-rc.1", "2.0.0-rc.1")] {
        assert_eq!(take(&plugins, &registry.reference(wanted)), taken, "{wanted}");
    }
    let reference = registry.reference("geo:1.2");
    let pin = plugins.resolve(&reference, true).unwrap().pin();
    registry.push("1.2.4", b"1.2.4");
    for machine in [&plugins, &Plugins::new(Store::new(registry.folder.path().join("third")))] {
        assert_eq!(machine.pinned(&reference, &pin).unwrap().bytes, b"1.2.3", "a pin stays what it is");
    }
    let message = words(plugins.resolve(&registry.reference("geo:3"), false));
    assert!(message.contains("its versions 2.0.0-rc.1, 1.3.0"), "{message}");
    assert!(words(plugins.resolve(&registry.reference("other"), false)).contains("no version of it"));
}

#[test]
fn a_version_never_becomes_another_component() {
    let registry = Registry::new();
    registry.push("1.0.0", b"one");
    registry.push("1.0.0", b"one");
    let message = words(registry.push_signed("geo", "geo", "1.0.0", b"two", None));
    assert!(message.contains("Raise the version"), "{message}");
    assert!(words(registry.push_signed("geo", "other", "1.0.0", b"x", None)).contains("last part of the path"));
    assert!(words(registry.push_signed("geo:2", "geo", "1.1.0", b"x", None)).contains("without a version"));
    assert!(words(registry.push_signed("geo", "geo", "1.1.0+x", b"x", None)).contains("`+`"));
    assert!(words(registry.push_signed("geo", "geo", "one", b"x", None)).contains("no semantic version"));
}

#[test]
fn signatures_are_added_to_a_version_that_is_there() {
    let registry = Registry::new();
    let keys = [PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap()];
    registry.push("1.0.0", b"one");
    let plugins = registry.elsewhere();
    let reference = registry.reference("geo:1");
    assert_eq!(plugins.resolve(&reference, false).unwrap().signatures.signatures.len(), 0);
    for key in &keys {
        registry.push_signed("geo", "geo", "1.0.0", b"one", Some(key)).unwrap();
    }
    let found = plugins.resolve(&reference, false).unwrap();
    let signers = found.signatures.statement().signers(&found.signatures.signatures);
    let mut expected = keys.map(|key| key.public().unwrap().to_string()).to_vec();
    let mut signed = signers.signed;
    expected.sort();
    signed.sort();
    assert_eq!((signed, signers.forged), (expected, vec![]));
}

#[test]
fn older_versions_do_not_come_back_by_themselves() {
    let registry = Registry::new();
    let old = registry.push("1.1.0", b"old");
    registry.push("1.2.0", b"new");
    let plugins = registry.elsewhere();
    assert_eq!(take(&plugins, &registry.reference("geo")), "new");
    for wanted in ["geo:1.1.0".to_string(), format!("geo@{old}")] {
        let reference = registry.reference(&wanted);
        let message = words(plugins.resolve(&reference, false));
        assert!(message.contains("--allow-downgrade") && message.contains("1.2.0"), "{message}");
        assert_eq!(plugins.resolve(&reference, true).unwrap().bytes, b"old");
    }
    // The registry forgets the newer one, or a copy of it from before is put in its place.
    let index = std::fs::read_to_string(registry.path("index.json")).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&index).unwrap();
    parsed["manifests"].as_array_mut().unwrap().retain(|manifest| manifest["annotations"]["org.opencontainers.image.ref.name"] != "1.2.0");
    std::fs::write(registry.path("index.json"), parsed.to_string()).unwrap();
    assert!(words(plugins.resolve(&registry.reference("geo"), false)).contains("--allow-downgrade"));
    // The tag of the newer one is moved to the older one.
    let moved = index.replace("\"1.1.0\"", "\"9.0.0\"");
    std::fs::write(registry.path("index.json"), moved).unwrap();
    assert!(words(plugins.resolve(&registry.reference("geo"), false)).contains("moved the tag"));
}

#[test]
fn what_a_registry_changes_is_refused() {
    let registry = Registry::new();
    let digest = registry.push("1.0.0", b"component");
    let blob = registry.path(&format!("blobs/sha256/{}", &digest[7..]));
    for damage in [&b"tampered!"[..], b"longer than it was", b"short"] {
        std::fs::write(&blob, damage).unwrap();
        let plugins = registry.elsewhere();
        words(plugins.resolve(&registry.reference("geo:1"), false));
        assert!(plugins.store().list().unwrap().is_empty(), "nothing of it was kept");
    }
    std::fs::write(&blob, b"component").unwrap();
    let reference = registry.reference("geo:1");
    let plugins = registry.elsewhere();
    let found = plugins.resolve(&reference, false).unwrap();
    let message = words(plugins.confirm(&reference, &found, "geo", "0.9.0"));
    assert!(message.contains("passed off"), "{message}");
    let pin = Pin { version: "1.0.0".into(), digest: digest_of(b"never pushed") };
    assert!(words(plugins.pinned(&reference, &pin)).contains("is not in"));
    for file in std::fs::read_dir(registry.path("blobs/sha256")).unwrap() {
        let path = file.unwrap().path();
        if path != blob {
            std::fs::write(&path, "{}").unwrap();
        }
    }
    assert!(words(plugins.resolve(&reference, false)).contains("was changed"));
}
