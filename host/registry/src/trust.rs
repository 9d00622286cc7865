//! A policy of [`pelton_core::trust`] on real signatures: its keys are read, and a component's signatures are checked against it.

use crate::keys::PublicKey;
use crate::signature::{SignatureFile, Statement};
use pelton_core::grants::Kind;
use pelton_core::trust::{self, Facts, Policy, TrustedKey, Verdict};
use std::path::Path;

/// The policy that stands in a pipeline file, in messages.
pub const OF_PIPELINE: &str = "`options.pelton.trust`";
/// The policy of a host, in messages.
pub const OF_HOST: &str = "the host's trust policy";

/// The policy with its keys read: words stay, what is a path is read by `read`.
pub fn with_keys(policy: &Policy, read: impl Fn(&str) -> Result<String, String>) -> Result<Policy, String> {
    let key = |trusted: &TrustedKey| {
        let written = trusted.key.starts_with("ed25519:") || trusted.key.starts_with("-----");
        let text = if written { Ok(trusted.key.clone()) } else { read(&trusted.key) };
        let text = text.map_err(|why| {
            format!(
                "the key `{}` of the trust policy cannot be read from {}: {why}; write the path of a .pub file, or the key itself as ed25519:…",
                trusted.name, trusted.key
            )
        })?;
        let key = PublicKey::parse(&text).map_err(|why| format!("the key `{}` of the trust policy: {why}", trusted.name))?;
        Ok(TrustedKey { key: key.to_string(), ..trusted.clone() })
    };
    Ok(Policy { required: policy.required, keys: policy.keys.iter().map(key).collect::<Result<_, String>>()? })
}

/// The same, with paths that are relative to a folder.
pub fn with_keys_in(policy: &Policy, folder: &Path) -> Result<Policy, String> {
    with_keys(policy, |path| std::fs::read_to_string(folder.join(path)).map_err(|error| error.to_string()))
}

/// Refuses a plugin, with what it is granted, that a policy, with its keys read, does not let pass. The answer is the key that vouches for it. `whose`: where the policy stands.
pub fn judge(policy: &Policy, whose: &str, plugin: &str, signatures: &SignatureFile, grants: &[Kind]) -> Result<Option<String>, String> {
    let signers = signatures.statement().signers(&signatures.signatures);
    let facts = Facts { name: &signatures.name, signers: &signers.signed, forged: &signers.forged, grants };
    match trust::judge(policy, &facts) {
        Verdict::Trusted(key) => {
            tracing::debug!(plugin, digest = signatures.digest, key, "a signature vouches for the plugin");
            Ok(Some(key))
        }
        Verdict::Doubtful(doubt) => {
            tracing::warn!(plugin, digest = signatures.digest, "{whose} does not trust the plugin: {doubt}");
            Ok(None)
        }
        Verdict::Refused(doubt) => Err(format!("{whose} does not trust it: {doubt} (digest {})", signatures.digest)),
    }
}

/// The signatures beside a component; none make an empty file.
pub fn signatures_beside(component: &Path, digest: &str) -> Result<SignatureFile, String> {
    let beside = SignatureFile::beside(component, digest).map_err(|error| error.to_string())?;
    Ok(beside.unwrap_or_else(|| SignatureFile::new(Statement { name: "", version: "", digest })))
}

/// What was signed is what the plugin calls itself.
pub fn same_name(signatures: &SignatureFile, name: &str, version: &str) -> Result<(), String> {
    if signatures.signatures.is_empty() || (signatures.name.as_str(), signatures.version.as_str()) == (name, version) {
        return Ok(());
    }
    Err(format!(
        "its signatures are for {} {}, but it calls itself {name} {version}: sign it again with `pelton plugin sign`",
        signatures.name, signatures.version
    ))
}
