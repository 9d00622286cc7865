//! `options.pelton.trust`: whose plugins the pipeline takes; and the same in a file of its own, for a host.

use std::path::Path;

use pelton_core::grants::Kind;
use pelton_core::trust::{Policy, TrustedKey};

use crate::diagnostic::Diagnostic;
use crate::fields::{Fields, text, texts};
use crate::report::{Report, suggestion};
use crate::source::{Mark, Source};
use crate::yaml::{self, Content, Entry, Yaml};

/// Reads `trust`. Keys stand as they are written: words, or paths of files relative to the pipeline file.
pub(super) fn trust(entry: &Entry, report: &mut Report<'_>) -> Policy {
    policy(&entry.value, entry.mark, "`trust`", report)
}

/// Reads the trust policy of a host, a file of what stands below `trust` in a pipeline. Paths of keys are relative to it.
pub fn trust_file(path: &Path, text: &str) -> Result<Policy, Vec<Diagnostic>> {
    let source = Source::of_text(path.into(), text);
    let mut report = Report::new(&source);
    let policy = yaml::parse(text, 0, &mut report).map(|yaml| policy(&yaml, yaml.mark, "the trust policy", &mut report));
    match policy {
        Some(policy) if !report.has_errors() => Ok(policy),
        _ => Err(report.finish()),
    }
}

fn policy(yaml: &Yaml, mark: Mark, owner: &str, report: &mut Report<'_>) -> Policy {
    let mut fields = Fields::of(Some(yaml), mark, owner, report);
    let mut policy = Policy { required: fields.boolean("required", report).unwrap_or(true), keys: Vec::new() };
    if let Some(keys) = fields.require("keys", report) {
        for entry in Fields::of(Some(&keys.value), keys.mark, "`keys`", report).into_entries() {
            policy.keys.extend(key(entry, report));
        }
    }
    fields.finish(report);
    policy
}

fn key(entry: &Entry, report: &mut Report<'_>) -> Option<TrustedKey> {
    let every = || vec!["*".to_string()];
    if let Content::Text(key) = &entry.value.content {
        return Some(TrustedKey { name: entry.key.clone(), key: key.clone(), plugins: every(), grants: None });
    }
    let mut fields = Fields::of(Some(&entry.value), entry.mark, format!("the key `{}`", entry.key), report);
    let key = fields.require("key", report).and_then(|entry| text(&entry.value, "`key`", report));
    let plugins = match fields.get("plugins") {
        Some(entry) => texts(&entry.value, "`plugins`", report).into_iter().map(|(name, _)| name.to_string()).collect(),
        None => every(),
    };
    let grants = fields.get("grants").map(|entry| {
        let named = texts(&entry.value, "`grants`", report);
        named.into_iter().filter_map(|(name, mark)| kind(name, mark, report)).collect()
    });
    fields.finish(report);
    Some(TrustedKey { name: entry.key.clone(), key: key?.to_string(), plugins, grants })
}

fn kind(name: &str, mark: Mark, report: &mut Report<'_>) -> Option<Kind> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    if found.is_none() {
        let help = suggestion(name, Kind::ALL.map(Kind::name));
        report.error_with_help(mark, format!("there is no grant `{name}`"), help);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_a_file_of_its_own() {
        let read = |text: &str| trust_file(Path::new("trust.yaml"), text);
        let policy = read("keys:\n  ours: ed25519:x\n  team: {key: team.pub, plugins: [parse-*, geo]}\n").expect("a policy");
        let key = |name: &str, key: &str, plugins: &[&str]| TrustedKey {
            name: name.into(),
            key: key.into(),
            plugins: plugins.iter().map(|name| name.to_string()).collect(),
            grants: None,
        };
        let keys = vec![key("ours", "ed25519:x", &["*"]), key("team", "team.pub", &["parse-*", "geo"])];
        assert_eq!(policy, Policy { required: true, keys });
        for (text, words) in
            [("", "keys"), ("required: true", "keys"), ("keys: 3", "mapping"), ("key: {}\nkeys: {}", "key"), ("{", "trust.yaml")]
        {
            let said = crate::render(&read(text).expect_err("it is refused"));
            assert!(said.contains("trust.yaml:") && said.contains(words), "{text}: {said}");
        }
    }
}
