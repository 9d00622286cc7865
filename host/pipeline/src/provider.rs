//! `providers:`: which plugins there are and under which names their transforms are used.

use std::path::{Path, PathBuf};

use pelton_core::catalog::nearest;
use pelton_core::grants::Grants;
use pelton_core::trust::Policy;
use serde_json::Value;

use crate::fields::{Fields, text};
use crate::graph::{PluginInfo, PluginTransform, Provider};
use crate::report::{Report, suggestion};
use crate::source::Mark;
use crate::yaml::{Content, Entry, Yaml};

/// A name that may stand as a `type:`, and what the plugin says of it; `None` where nothing is known.
pub(crate) struct Offered {
    pub name: String,
    pub provider: usize,
    pub transform: String,
    pub known: Option<PluginTransform>,
}

/// Reads the providers and asks the plugins.
pub(crate) fn providers(
    yaml: Option<&Yaml>,
    trust: Option<&Policy>,
    built_in: &[&str],
    plugins: &dyn PluginInfo,
    report: &mut Report<'_>,
) -> (Vec<Provider>, Vec<Offered>) {
    let (mut providers, mut offered) = (Vec::new(), Vec::new());
    let list = match yaml.map(|yaml| &yaml.content) {
        None => return (providers, offered),
        Some(Content::List(list)) => list,
        Some(_) => {
            if let Some(yaml) = yaml {
                report.error(yaml.mark, format!("`providers` must be a list, not {}", yaml.kind()));
            }
            return (providers, offered);
        }
    };
    for yaml in list {
        let Some((provider, names)) = provider(yaml, trust, report) else { continue };
        let described = describe(&provider, yaml, plugins, report);
        for ((name, transform), mark) in provider.transforms.iter().zip(names) {
            if built_in.contains(&name.as_str()) || offered.iter().any(|other: &Offered| other.name == *name) {
                report.error(mark, format!("there is already a transform type `{name}`"));
                continue;
            }
            let known = described.as_deref().and_then(|transforms| find(transforms, transform, mark, report));
            offered.push(Offered { name: name.clone(), provider: providers.len(), transform: transform.clone(), known });
        }
        providers.push(provider);
    }
    (providers, offered)
}

fn provider(yaml: &Yaml, trust: Option<&Policy>, report: &mut Report<'_>) -> Option<(Provider, Vec<Mark>)> {
    let mut fields = Fields::of(Some(yaml), yaml.mark, "a provider", report);
    yaml.entries()?;
    let kind = fields.require("type", report)?;
    match text(&kind.value, "`type`", report)? {
        "wasm" => {}
        other => {
            let help = "there are `wasm` for plugins, `yaml` and `renaming`".to_string();
            report.error_with_help(kind.value.mark, format!("unknown provider type `{other}`"), Some(help));
            return None;
        }
    }
    let config = fields.require("config", report);
    let transforms = fields.require("transforms", report);
    fields.finish(report);
    let folder = report.source().path(yaml.mark);
    let folder = folder.parent().unwrap_or(Path::new(""));
    let (plugin, limits, grants) = config.and_then(|entry| self::config(entry, folder, report))?;
    let mut names = Vec::new();
    let mut marks = Vec::new();
    let transforms = transforms?;
    for entry in Fields::of(Some(&transforms.value), transforms.mark, "`transforms`", report).into_entries() {
        if let Some(transform) = text(&entry.value, "the name of a transform in a plugin", report) {
            names.push((entry.key.clone(), transform.to_string()));
            marks.push(entry.value.mark);
        }
    }
    let path = resolved(&plugin, folder);
    Some((Provider { plugin, path, transforms: names, limits, grants, trust: trust.cloned(), place: report.place(yaml.mark) }, marks))
}

/// What a file in a folder means by a plugin: paths are relative to the folder.
fn resolved(plugin: &str, folder: &Path) -> PathBuf {
    match plugin.strip_prefix("folder:") {
        Some(path) => format!("folder:{}", folder.join(path).display()).into(),
        None if plugin.starts_with("oci://") => plugin.into(),
        None => folder.join(plugin),
    }
}

fn config(entry: &Entry, folder: &Path, report: &mut Report<'_>) -> Option<(String, Value, Grants)> {
    let mut fields = Fields::of(Some(&entry.value), entry.mark, "the provider's config", report);
    let plugin = fields.require("plugin", report).and_then(|entry| text(&entry.value, "`plugin`", report));
    let limits = fields.get("limits");
    if let Some(limits) = limits {
        Fields::of(Some(&limits.value), limits.mark, "`limits`", report);
    }
    let grants = fields.get("grants").map(|entry| crate::grants::grants(entry, folder, report)).unwrap_or_default();
    fields.finish(report);
    Some((plugin?.to_string(), limits.map_or(Value::Null, |limits| limits.value.to_json()), grants))
}

fn describe(provider: &Provider, yaml: &Yaml, plugins: &dyn PluginInfo, report: &mut Report<'_>) -> Option<Vec<PluginTransform>> {
    if !plugins.knows_plugins() {
        return None;
    }
    match plugins.transforms(provider) {
        Ok(transforms) => Some(transforms),
        Err(message) => {
            let path = ["config".to_string(), "plugin".to_string()];
            report.error(yaml.mark_at(&path).unwrap_or(yaml.mark), format!("the plugin `{}`: {message}", provider.plugin));
            None
        }
    }
}

fn find(transforms: &[PluginTransform], name: &str, mark: Mark, report: &mut Report<'_>) -> Option<PluginTransform> {
    let found = transforms.iter().find(|transform| transform.name == name);
    if found.is_none() {
        let help = suggestion(name, transforms.iter().map(|transform| transform.name.as_str()));
        report.error_with_help(mark, format!("the plugin has no transform `{name}`"), help);
    }
    found.cloned()
}

/// Checks a config against the part of JSON Schema that `describe` gives: `properties`, `required`, `type`, closed objects. Entries that are
/// `own`, Pelton's, are none of the plugin's.
pub(crate) fn check_config(config: Option<&Yaml>, mark: Mark, schema: &Value, own: &dyn Fn(&str) -> bool, report: &mut Report<'_>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let entries = config.and_then(Yaml::entries).unwrap_or_default();
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for entry in entries.iter().filter(|entry| !own(&entry.key)) {
        match properties.get(&entry.key) {
            Some(property) => check_type(&entry.value, &entry.key, property, report),
            None if closed => {
                let help = suggestion(&entry.key, properties.keys().map(String::as_str));
                report.error_with_help(entry.mark, format!("the plugin's config has no key `{}`", entry.key), help);
            }
            None => {}
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let slips = |name: &str| {
        let unknown = entries.iter().filter(|entry| closed && !own(&entry.key) && !properties.contains_key(&entry.key));
        let mut meant = unknown.filter_map(|entry| nearest(&entry.key, properties.keys().map(String::as_str)));
        meant.any(|meant| meant == name)
    };
    // A slip in its name has been told.
    for name in required.filter(|name| !entries.iter().any(|entry| entry.key == *name) && !slips(name)) {
        report.error(mark, format!("the plugin's config needs `{name}`"));
    }
}

fn check_type(value: &Yaml, key: &str, property: &Value, report: &mut Report<'_>) {
    let types: Vec<&str> = match property.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let fits = types.iter().any(|kind| match (*kind, &value.content) {
        ("null", Content::Null) | ("boolean", Content::Bool(_)) | ("number", Content::Number(_)) => true,
        ("integer", Content::Number(number)) => !number.is_f64(),
        ("string", Content::Text(_)) | ("array", Content::List(_)) | ("object", Content::Mapping(_)) => true,
        _ => false,
    });
    if !fits {
        report.error(value.mark, format!("`{key}` must be of type {}, not {}", types.join(" or "), value.kind()));
    }
}
