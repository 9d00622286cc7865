//! Plugins of a registry from push to run: pinned, signed, trusted, and never older by themselves.

use pelton_tests::components::parse_log;
use pelton_tests::pelton::{Said, json_rows, pelton, root};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A machine with a store of its own, and a registry in a folder.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Said {
        let mut command = pelton(arguments);
        command.env("PELTON_STORE", self.path("store")).current_dir(self.folder.path());
        command.output().unwrap().into()
    }

    fn well(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let said = self.run(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        words.iter().for_each(|word| assert!(said.err.contains(word), "`{word}` is not in\n{}", said.err));
        assert!(!said.err.contains("panicked"), "{}", said.err);
    }

    /// The plugin `parse-log` as if its crate had this version.
    fn component(&self, version: &str) -> String {
        let name = format!("parse-log-{version}.wasm");
        std::fs::write(self.path(&name), parse_log(version)).unwrap();
        name
    }

    fn push(&self, component: &str) {
        let out = self.well(&["plugin", "push", component, "folder:registry/parse-log"]);
        assert!(out.contains("pushed") || out.contains("there already"), "{out}");
    }

    /// A pipeline whose one row shows that the plugin was there.
    fn pipeline(&self, plugin: &str, trust: &str) {
        let text = format!(
            "pipeline:\n  transforms:\n    - {{type: Create, name: C, config: {{elements: [{{line: 'not json'}}]}}}}\n    - {{type: P, name: P, input: C, config: {{error_handling: {{output: bad}}}}}}\n    - {{type: WriteToJson, name: Good, input: P, config: {{path: {dir}/good}}}}\n    - {{type: WriteToJson, name: Bad, input: P.bad, config: {{path: {dir}/bad}}}}\nproviders:\n  - {{type: wasm, config: {{plugin: '{plugin}'}}, transforms: {{P: parse-log}}}}\noptions:\n  pelton:\n    name: x\n{trust}",
            dir = self.folder.path().display()
        );
        std::fs::write(self.path("pipeline.yaml"), text).unwrap();
    }

    /// The digest by which the dead letter names the plugin that ran.
    fn ran(&self) -> String {
        self.well(&["run", "pipeline.yaml", "--quiet"]);
        let bad = json_rows(&self.path("bad"));
        assert_eq!(bad.len(), 1);
        bad[0]["plugin"].as_str().unwrap().to_string()
    }

    fn lock(&self) -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(self.path("pipeline.yaml.lock")).unwrap()).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn a_version_is_resolved_once_and_stays_pinned() {
    let machine = Machine::new();
    machine.push(&machine.component("0.1.1"));
    machine.pipeline("folder:registry/parse-log:0.1", "");
    let first = machine.ran();
    let pin = &machine.lock()["plugins"]["folder:registry/parse-log:0.1"];
    assert_eq!((&pin["version"], &pin["digest"]), (&"0.1.1".into(), &first.as_str().into()));
    machine.push(&machine.component("0.1.2"));
    assert_eq!(machine.ran(), first, "a newer version does not come by itself");
    machine.refused(&["plugin", "push", "parse-log-0.1.1.wasm", "folder:registry/other"], &["last part of the path"]);

    let out = machine.well(&["plugin", "pin", "pipeline.yaml", "--update"]);
    assert!(out.contains("-> 0.1.2 (sha256:"), "{out}");
    let second = machine.ran();
    assert_ne!(second, first);
    assert_eq!(machine.lock()["plugins"]["folder:registry/parse-log:0.1"]["version"], "0.1.2");

    // Another pipeline on this machine asks for the older one.
    machine.pipeline("folder:registry/parse-log:0.1.1", "");
    machine.refused(&["run", "pipeline.yaml", "--quiet"], &["0.1.2", "--allow-downgrade", "pipeline.yaml:"]);
    machine.well(&["plugin", "pin", "pipeline.yaml", "--allow-downgrade"]);
    assert_eq!(machine.ran(), first);
    machine.refused(&["plugin", "pull", &format!("folder:registry/parse-log@{first}")], &["--allow-downgrade"]);
    machine.well(&["plugin", "pull", &format!("folder:registry/parse-log@{first}"), "--allow-downgrade", "--to", "old.wasm"]);
    let listed = machine.well(&["plugin", "list"]);
    assert!(listed.contains(&first) && listed.contains(&second), "{listed}");
}

#[test]
fn what_a_registry_or_a_store_has_changed_is_not_run() {
    let machine = Machine::new();
    machine.push(&machine.component("0.1.1"));
    machine.pipeline("folder:registry/parse-log:0.1", "");
    let digest = machine.ran();
    let name = digest.replace(':', "-");
    let other = std::fs::read(root().join("tests/.cache/components/stateful.wasm")).unwrap();
    std::fs::write(machine.path(&format!("store/components/{name}.wasm")), &other).unwrap();
    assert_eq!(machine.ran(), digest, "the store is mended from the registry");
    std::fs::write(machine.path(&format!("registry/parse-log/blobs/sha256/{}", &digest[7..])), &other).unwrap();
    assert_eq!(machine.ran(), digest, "the store has it");
    std::fs::remove_dir_all(machine.path("store")).unwrap();
    machine.refused(&["run", "pipeline.yaml", "--quiet"], &["folder:registry/parse-log:0.1"]);
}

#[test]
fn only_trusted_keys_vouch_for_a_plugin() {
    let machine = Machine::new();
    let component = machine.component("0.1.1");
    let key = machine.well(&["plugin", "keygen", "release"]).lines().next().unwrap().to_string();
    machine.well(&["plugin", "keygen", "stranger"]);
    machine.refused(&["plugin", "keygen", "release"], &["never overwritten"]);
    let trust = |key: &str, rest: &str| format!("    trust:\n      keys:\n        ours: {{key: '{key}'{rest}}}\n");
    let plugins = [component.as_str(), "folder:registry/parse-log:0.1"];
    machine.push(&component);
    for plugin in plugins {
        machine.pipeline(plugin, &trust("release.pub", ""));
        machine.refused(&["run", "pipeline.yaml", "--quiet"], &["not signed", "pelton plugin sign"]);
        machine.pipeline(plugin, &trust("release.pub", "").replace("trust:\n", "trust:\n      required: false\n"));
        machine.ran();
    }
    machine.well(&["plugin", "sign", &component, "--key", "stranger.pem"]);
    machine.push(&component);
    machine.well(&["plugin", "pull", "folder:registry/parse-log"]);
    for plugin in plugins {
        machine.pipeline(plugin, &trust(&key, ""));
        machine.refused(&["run", "pipeline.yaml", "--quiet"], &["do not name"]);
    }
    machine.well(&["plugin", "sign", &component, "--key", "release.pem"]);
    machine.push(&component);
    machine.well(&["plugin", "pull", "folder:registry/parse-log"]);
    for plugin in plugins {
        for trusted in [trust(&key, ""), trust("release.pub", ", plugins: [geo, parse-*]")] {
            machine.pipeline(plugin, &trusted);
            machine.ran();
        }
        machine.pipeline(plugin, &trust(&key, ", plugins: [geo]"));
        machine.refused(&["run", "pipeline.yaml", "--quiet"], &["may sign `geo` and not `parse-log`"]);
    }
    for plugin in [component.as_str(), "folder:registry/parse-log"] {
        machine.well(&["plugin", "verify", plugin, "--key", "release.pub"]);
    }
    let inspected = machine.well(&["plugin", "inspect", "folder:registry/parse-log"]);
    assert!(inspected.contains(&key), "{inspected}");

    // The signature of one version beside another, and one that was changed.
    let newer = machine.component("0.1.2");
    std::fs::copy(machine.path(&format!("{component}.sig")), machine.path(&format!("{newer}.sig"))).unwrap();
    machine.pipeline(&newer, &trust(&key, ""));
    machine.refused(&["run", "pipeline.yaml", "--quiet"], &["not signed"]);
    let sig = std::fs::read_to_string(machine.path(&format!("{newer}.sig"))).unwrap();
    let digest = sig.split('"').find(|part| part.starts_with("sha256:")).unwrap().to_string();
    let inspected = machine.run(&["plugin", "inspect", &newer, "--output", "json"]).out;
    let own = serde_json::from_str::<serde_json::Value>(&inspected).unwrap()["digest"].as_str().unwrap().to_string();
    for forged in [sig.replace(&digest, &own), sig.replace(&digest, &own).replace("0.1.1", "0.1.2")] {
        std::fs::write(machine.path(&format!("{newer}.sig")), forged).unwrap();
        machine.refused(&["run", "pipeline.yaml", "--quiet"], &["does not fit"]);
    }
}

#[test]
fn a_copy_of_the_registry_from_before_is_not_believed() {
    let machine = Machine::new();
    machine.push(&machine.component("0.1.1"));
    copy(&machine.path("registry"), &machine.path("old"));
    machine.push(&machine.component("0.1.2"));
    machine.pipeline("folder:registry/parse-log", "");
    machine.ran();
    std::fs::remove_dir_all(machine.path("registry")).unwrap();
    copy(&machine.path("old"), &machine.path("registry"));
    machine.ran();
    machine.refused(&["plugin", "pin", "pipeline.yaml", "--update"], &["0.1.1", "0.1.2", "--allow-downgrade"]);
    assert_eq!(machine.lock()["plugins"]["folder:registry/parse-log"]["version"], "0.1.2", "a refusal changes no pin");
}

#[test]
fn a_component_says_what_it_was_made_from() {
    let machine = Machine::new();
    let source = root().join("examples/minute-traffic/plugins/parse-log");
    machine.well(&["plugin", "build", source.to_str().unwrap()]);
    let component = source.join("target/parse-log.wasm");
    let component = component.to_str().unwrap();
    let told: serde_json::Value = serde_json::from_str(&machine.well(&["plugin", "inspect", component, "--output", "json"])).unwrap();
    assert!(told["provenance"]["source"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{told}");
    assert!(told["provenance"]["rustc"].as_str().is_some_and(|rustc| rustc.starts_with("rustc ")), "{told}");
    let sbom: serde_json::Value = serde_json::from_str(&machine.well(&["plugin", "inspect", component, "--sbom"])).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"], &told["sbom"]), (&"CycloneDX".into(), &"1.5".into(), &sbom));
    let components = sbom["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    let parser = named("serde_json").expect("the parser is linked in");
    assert!(
        parser["licenses"][0]["expression"].is_string() && parser["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64)
    );
    assert!(named("pelton-sdk").is_some() && named("pelton-sdk-macros").is_none(), "macros run on the machine that builds");
    let text = machine.well(&["plugin", "inspect", component]);
    assert!(text.contains("packages (--sbom lists them)") && text.contains("by nobody"), "{text}");
}
