//! The front end from the outside: files in, graphs or findings out. One binary, so that there is one to link.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and waits by the clock")]

mod bad;
mod changes;
mod drawings;
mod files;
mod good;
mod grants;
mod mutations;
mod templates;
mod test_blocks;

use pelton_core::catalog::{ConfigFault, ConnectorSpec, KeySpec, Role};
use pelton_pipeline::{Diagnostic, Files, Graph, PluginInfo, PluginRole, PluginTransform, Provider, Settings, load};
use serde_json::{Value, json};

const fn key(name: &'static str, required: bool) -> KeySpec {
    KeySpec { name, required, doc: "a key" }
}

fn nothing_wrong(_: &Value) -> Vec<ConfigFault> {
    Vec::new()
}

fn path_is_text(config: &Value) -> Vec<ConfigFault> {
    match config.get("path") {
        Some(Value::String(_)) | None => Vec::new(),
        Some(_) => vec![ConfigFault::at(&["path"], "path must be a string")],
    }
}

fn roll_is_sane(config: &Value) -> Vec<ConfigFault> {
    match config.get("roll").and_then(|roll| roll.get("size")) {
        Some(Value::Bool(_)) => vec![ConfigFault::at(&["roll", "size"], "roll.size must be a size")],
        _ => path_is_text(config),
    }
}

const CREATE: ConnectorSpec = ConnectorSpec {
    name: "Create",
    role: Role::Source,
    doc: "rows in the file",
    keys: &[key("elements", true), key("reshuffle", false)],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check: nothing_wrong,
};
const READ: ConnectorSpec = ConnectorSpec {
    name: "ReadFromJson",
    role: Role::Source,
    doc: "lines of JSON",
    keys: &[key("path", true)],
    has_errors: true,
    endless: |config| config["path"] == "endless",
    timed: false,
    check: path_is_text,
};
const LISTEN: ConnectorSpec = ConnectorSpec {
    name: "ReadFromKafka",
    role: Role::Source,
    doc: "records with times, for ever",
    keys: &[],
    has_errors: true,
    endless: |_| true,
    timed: true,
    check: nothing_wrong,
};
const WRITE: ConnectorSpec = ConnectorSpec {
    name: "WriteToJson",
    role: Role::Sink,
    doc: "lines of JSON",
    keys: &[key("path", true), key("num_shards", false), key("roll", false)],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check: roll_is_sane,
};

const ASSERT: ConnectorSpec = ConnectorSpec {
    name: "AssertEqual",
    role: Role::Sink,
    doc: "rows that must come",
    keys: &[key("elements", true), key("null_fields", false)],
    has_errors: false,
    endless: |_| false,
    timed: false,
    check: nothing_wrong,
};

const CATALOG: [&ConnectorSpec; 5] = [&CREATE, &READ, &LISTEN, &WRITE, &ASSERT];

/// A plugin with a transform `parse` (outputs: main, `slow`), a stateful `count` and an aggregation `top`, and nothing else that could be found.
struct OnePlugin;

impl PluginInfo for OnePlugin {
    fn transforms(&self, provider: &Provider) -> Result<Vec<PluginTransform>, String> {
        if !provider.plugin.ends_with("parse.wasm") {
            return Err("there is no such file".to_string());
        }
        let config_schema = json!({
            "type": "object",
            "properties": {"limit": {"type": "integer"}, "word": {"type": ["string", "null"]}},
            "required": ["limit"],
            "additionalProperties": false,
        });
        let role = PluginRole::Stateless;
        let stateful = PluginTransform { name: "count".to_string(), role: PluginRole::Stateful, ..PluginTransform::default() };
        let combine = PluginTransform { name: "top".to_string(), role: PluginRole::Combine, ..PluginTransform::default() };
        Ok(vec![PluginTransform { name: "parse".to_string(), outputs: vec!["slow".to_string()], config_schema, role }, stateful, combine])
    }
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Graph, Vec<Diagnostic>> {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), Value::from(*value))).collect();
    load(&settings(text, variables), &CATALOG, &OnePlugin)
}

/// The file `folder/test.yaml`, with some more files beside it.
fn settings(text: &str, variables: Vec<(String, Value)>) -> Settings {
    let files = Files::read_by(|path| match FILES.iter().find(|(name, _)| path == std::path::Path::new("folder").join(name)) {
        Some((_, text)) => Ok(text.to_string()),
        None => Err("there is no such file".to_string()),
    });
    // 2026-03-04T05:06:07Z
    Settings {
        file: "folder/test.yaml".into(),
        text: text.to_string(),
        variables,
        files,
        now: 1_772_600_767_000_000,
        ..Settings::default()
    }
}

const FILES: [(&str, &str); 4] = [
    ("base.yaml", "pipeline:\n  type: chain\n  transforms:\n{% block steps %}{% endblock %}\n"),
    ("macros.yaml", "{% macro keep(what) %}\n    - type: Filter\n      config:\n        keep: {{ what }}\n{% endmacro %}\n"),
    ("step.yaml", "    - type: Filter\n      config: {keap: x}\n"),
    ("lib/providers.yaml", include_str!("providers.yaml")),
];
