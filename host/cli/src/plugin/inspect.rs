//! Prints a component's descriptor: what it is, without running it on any row.

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{named, sections};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

pub fn print(plugin: &str, format: Format) -> Result<()> {
    let file = named::component_or_reference(plugin)?;
    let (bytes, plugin) = named::load(&file)?;
    let signatures = named::signatures(&file, &plugin)?;
    let signers = signatures.statement().signers(&signatures.signatures);
    let section = |name: &str| sections::find(&bytes, name).and_then(|told| serde_json::from_slice::<Value>(told).ok());
    let told = json!({
        "digest": plugin.digest().to_string(),
        "size_bytes": plugin.size(),
        "imports": plugin.imports(),
        "needs": plugin.needs(),
        "signed_by": signers.signed,
        "wrongly_signed_by": signers.forged,
        "descriptor": plugin.descriptor(),
        "provenance": section(sections::PROVENANCE),
        "sbom": section(sections::SBOM),
    });
    match format {
        Format::Json => show(&(serde_json::to_string_pretty(&told)? + "\n")),
        Format::Text => show(&text(&told)),
    }
}

/// The bill of materials as it is in the component.
pub fn print_sbom(plugin: &str) -> Result<()> {
    let file = named::component_or_reference(plugin)?;
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let told = sections::find(&bytes, sections::SBOM)
        .with_context(|| format!("{} has no bill of materials; build it again with `pelton plugin build`", file.display()))?;
    let sbom: Value = serde_json::from_slice(told).context("the bill of materials is no JSON")?;
    show(&(serde_json::to_string_pretty(&sbom)? + "\n"))
}

/// A reader such as `head` that has seen enough is no failure.
fn show(page: &str) -> Result<()> {
    match std::io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The descriptor as a page of text. Config properties come a line each, as a pipeline's author looks for them.
fn text(told: &Value) -> String {
    let descriptor = &told["descriptor"];
    let mut page = format!(
        "{} {}\n  digest   {}\n  size     {} bytes\n  imports  {}\n",
        word(&descriptor["name"]),
        word(&descriptor["version"]),
        word(&told["digest"]),
        told["size_bytes"],
        words(&told["imports"]),
    );
    page += &needs(&told["needs"]);
    page += &origin(told);
    for transform in descriptor["transforms"].as_array().into_iter().flatten() {
        page += &format!("\ntransform {} ({})\n", word(&transform["name"]), word(&transform["role"]));
        if transform["summary"] != "" {
            page += &format!("  {}\n", word(&transform["summary"]));
        }
        page += &columns(&transform["reads"]);
        let tags = transform["outputs"].as_array().into_iter().flatten().map(|tag| if tag == "" { "(main)" } else { word(tag) });
        page += &format!("  outputs  {}\n", tags.collect::<Vec<_>>().join(", "));
        page += &states(&transform["states"]);
        page += &timers(&transform["timers"]);
        page += &config(&transform["config_schema"]);
    }
    page
}

/// What a pipeline has to grant it, as it is written there.
fn needs(needs: &Value) -> String {
    match needs.as_str() {
        Some(yaml) => format!(
            "  needs    in its provider's config:\n{}\n",
            yaml.lines().map(|line| format!("           {line}")).collect::<Vec<_>>().join("\n")
        ),
        None => "  needs    no grants\n".into(),
    }
}

/// Who signed it, and what it was made from.
fn origin(told: &Value) -> String {
    let mut lines = format!("  signed   by {}\n", words(&told["signed_by"])).replace("by none", "by nobody");
    if told["wrongly_signed_by"].as_array().is_some_and(|keys| !keys.is_empty()) {
        lines += &format!("  FORGED   in the name of {}\n", words(&told["wrongly_signed_by"]));
    }
    let provenance = &told["provenance"];
    if provenance.is_object() {
        let commit = provenance["git"]["commit"].as_str().map(|commit| {
            let changed = if provenance["git"]["changed_since"] == true { ", changed since" } else { "" };
            format!(" of commit {commit}{changed}")
        });
        lines += &format!("  source   {}{}\n", word(&provenance["source"]), commit.unwrap_or_default());
        lines += &format!("  built    by pelton {} with {}\n", word(&provenance["pelton"]), word(&provenance["rustc"]));
    }
    if let Some(packages) = told["sbom"]["components"].as_array() {
        lines += &format!("  contains {} packages (--sbom lists them)\n", packages.len());
    }
    lines
}

fn columns(reads: &Value) -> String {
    let columns = reads.as_array().into_iter().flatten();
    let named = columns.map(|column| match words(&column["formats"]).as_str() {
        "none" => word(&column["name"]).to_owned(),
        formats => format!("{} ({formats})", word(&column["name"])),
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() { String::new() } else { format!("  reads    {}\n", named.join(", ")) }
}

fn states(states: &Value) -> String {
    let mut lines = String::new();
    for state in states.as_array().into_iter().flatten() {
        let of = [&state["key"], &state["value"]].into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" to ");
        let of = if of.is_empty() { "bytes of its own".to_owned() } else { of };
        let ttl = match state["ttl"]["micros"].as_i64() {
            Some(micros) => format!(", for {} of {}", pelton_core::Duration::from_micros(micros), clock(&state["ttl"])),
            None => String::new(),
        };
        let from = state["migrates"].as_array().into_iter().flatten().map(Value::to_string).collect::<Vec<_>>().join(", ");
        let from = if from.is_empty() { from } else { format!(", from {from}") };
        lines +=
            &format!("  state    {}: {} of {of}{ttl}, version {}{from}\n", word(&state["name"]), word(&state["kind"]), state["version"]);
    }
    lines
}

fn timers(timers: &Value) -> String {
    let timers = timers.as_array().into_iter().flatten();
    timers.map(|timer| format!("  timer    {}: {}\n", word(&timer["name"]), clock(timer))).collect()
}

fn clock(timed: &Value) -> String {
    word(&timed["domain"]).replace('_', " ")
}

fn config(schema: &Value) -> String {
    // The schema crosses as text; hosts may show it parsed.
    let parsed = schema.as_str().and_then(|text| serde_json::from_str(text).ok());
    let schema: &Value = parsed.as_ref().unwrap_or(schema);
    let mut lines = String::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let required = schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name));
        let kind = property["type"].as_str().map_or_else(|| words(&property["type"]), str::to_owned);
        let rest = match (&property["default"], required) {
            (Value::Null, true) => ", required".to_owned(),
            (Value::Null, false) => String::new(),
            (default, _) => format!(", default {default}"),
        };
        let about = property["description"].as_str().map(|about| format!("  {about}")).unwrap_or_default();
        lines += &format!("  config   {name}: {kind}{rest}{about}\n");
    }
    lines
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn words(value: &Value) -> String {
    let all: Vec<_> = value.as_array().into_iter().flatten().map(word).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_what_a_pipeline_author_needs() {
        let told = json!({
            "digest": "sha256:ab", "size_bytes": 3, "imports": ["pelton:plugin/log", "pelton:plugin/env"], "needs": "grants:\n  env: [NAME]",
            "descriptor": {"name": "p", "version": "1.0.0", "transforms": [{
                "name": "keep", "summary": "Keeps.", "role": "transform", "reads": [{"name": "line", "formats": ["u"]}], "outputs": ["", "bad"],
                "states": [{"name": "seen", "kind": "map", "key": "Int64", "value": "Utf8", "version": 2, "migrates": [1], "ttl": {"micros": 3_600_000_000_i64, "domain": "event_time"}}],
                "timers": [{"name": "gap", "domain": "processing_time"}],
                "config_schema": "{\"properties\":{\"limit\":{\"type\":\"integer\",\"description\":\"How many.\"}},\"required\":[\"limit\"]}",
            }]},
        });
        let page = text(&told);
        for wanted in [
            "p 1.0.0",
            "needs    in its provider's config:\n           grants:\n             env: [NAME]\n",
            "transform keep (transform)",
            "reads    line (u)",
            "(main), bad",
            "limit: integer, required  How many.",
            "state    seen: map of Int64 to Utf8, for 1h of event time, version 2, from 1",
            "timer    gap: processing time",
        ] {
            assert!(page.contains(wanted), "{wanted} is not in:\n{page}");
        }
    }
}
