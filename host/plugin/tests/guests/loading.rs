//! From a file to a plugin: what is refused and in what words; the cache of compiled code.

use crate::*;
use pelton_plugin::Role;
use std::fs;

fn refused(bytes: &[u8]) -> PluginError {
    ENGINE.load_bytes("test.wasm", bytes).err().expect("it is refused")
}

fn not_a_component(bytes: &[u8], words: &str) {
    let error = refused(bytes);
    assert!(matches!(error, PluginError::NotAComponent { .. }), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
}

/// The component with every occurrence of a name replaced by one of the same length.
fn renamed(name: &str, other: &str) -> Vec<u8> {
    assert_eq!(name.len(), other.len());
    let mut bytes = component();
    let places: Vec<_> =
        bytes.windows(name.len()).enumerate().filter(|(_, window)| *window == name.as_bytes()).map(|(place, _)| place).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|place| bytes[place..place + name.len()].copy_from_slice(other.as_bytes()));
    bytes
}

#[test]
fn a_component_is_described() {
    let plugin = &*HOSTILE;
    assert_eq!((plugin.descriptor().name.as_str(), plugin.imports()), ("hostile", &["pelton:plugin/log@0.1.0".to_string()][..]));
    assert!(plugin.digest().starts_with("sha256:") && plugin.digest().len() == 71);
    assert_eq!(plugin.size(), component().len() as u64);
    assert!(plugin.descriptor().transforms.iter().all(|spec| spec.role == Role::Transform && spec.config_schema["type"] == "object"));
    serde_json::to_value(plugin.descriptor()).unwrap();
}

#[test]
fn what_is_no_component_is_told_what_it_is() {
    not_a_component(b"\0asm\x01\0\0\0", "core module");
    not_a_component(b"", "empty");
    not_a_component(b"\0asm\x0d", "cut off");
    not_a_component(b"  (component)", "text");
    not_a_component(b"\x7fELF\x02\x01\x01\0", "compiled code");
    not_a_component(b"hello", "does not start as");
    let bytes = component();
    for length in [9, 100, bytes.len() / 2, bytes.len() - 1] {
        not_a_component(&bytes[..length], "cut off");
    }
}

#[test]
fn damaged_bytes_are_an_error_not_a_panic() {
    let mut bytes = component();
    let middle = bytes.len() / 3;
    bytes[middle..middle + 64].fill(0xff);
    assert!(matches!(refused(&bytes), PluginError::Load { .. } | PluginError::NotAComponent { .. }));
}

#[test]
fn another_world_is_refused_by_its_name() {
    let error = refused(b"\0asm\x0d\0\x01\0");
    assert!(matches!(&error, PluginError::WrongWorld { found, .. } if found == "nothing"), "{error}");
}

#[test]
fn a_plugin_of_a_newer_contract_is_told_the_version_that_it_needs() {
    for (version, next) in [("0.2.0", "run it with a Pelton that has 0.2.0"), ("0.0.9", "build it again")] {
        let error = refused(&renamed("@0.1.0", &format!("@{version}")));
        assert!(matches!(&error, PluginError::OtherContract { needs, has, .. } if needs == version && has == "0.1.0"), "{error}");
        assert!(error.to_string().contains(next), "{error}");
    }
}

#[test]
fn an_import_that_is_not_granted_is_named() {
    let error = refused(&renamed("pelton:plugin/log@0.1.0", "secret:plugin/log@0.1.0"));
    assert!(matches!(&error, PluginError::Import { import, .. } if import == "secret:plugin/log@0.1.0"), "{error}");
    assert!(error.to_string().contains("is granted nothing but `pelton:plugin/log`"), "{error}");
}

#[test]
fn a_misspelt_transform_is_told_the_nearest() {
    let error = bind("fliter", &batch([1]), &Limits::default()).err().unwrap();
    assert!(matches!(&error, PluginError::UnknownTransform { nearest: Some(name), .. } if name == "filter"), "{error}");
    let error = ENGINE.load(Path::new("/nowhere/plugin.wasm")).err().unwrap().to_string();
    assert!(error.contains("/nowhere/plugin.wasm") && error.contains("pelton plugin build"), "{error}");
}

#[test]
fn compiled_code_is_kept_and_never_believed_when_touched() {
    let folder = tempfile::tempdir().unwrap();
    let engine = || Engine::new(EngineOptions { cache_dir: Some(folder.path().into()), ..EngineOptions::default() }).unwrap();
    let entry = || {
        fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "aot"))
            .unwrap()
    };
    let works = |engine: &Engine| {
        let plugin = engine.load_bytes("hostile", &component()).unwrap();
        let input = batch([1, 2]);
        let binding = plugin.bind("filter", &serde_json::json!({}), &input.schema(), &Limits::default()).unwrap();
        assert_eq!(numbers(&block_on(binding.open().unwrap().process(&input)).unwrap(), 0, "number"), [2]);
    };
    works(&engine());
    let kept = fs::read(entry()).unwrap();
    let written = fs::metadata(entry()).unwrap().modified().unwrap();
    works(&engine());
    assert_eq!(fs::metadata(entry()).unwrap().modified().unwrap(), written, "a hit writes nothing");
    let mut touched = kept.clone();
    let middle = touched.len() / 2;
    touched[middle] ^= 1;
    fs::write(entry(), &touched).unwrap();
    works(&engine());
    assert_eq!(fs::read(entry()).unwrap(), kept, "compiled anew and replaced");
}
