//! What lies in a registry for one version of a plugin.
//!
//! An OCI image manifest (`application/vnd.oci.image.manifest.v1+json`) as the CNCF's layout for WebAssembly artifacts has it:
//! ```text
//! config     application/vnd.wasm.config.v0+json                        what kind of component it is
//! layers[0]  application/wasm                                           the component
//! layers[1]  application/vnd.pelton.plugin.signatures.v1+json           its signatures, where there are any
//! annotations  org.opencontainers.image.title, .version                 name and version of the plugin
//! ```
//! under two tags: the version, and `sha256-HEX` by the digest of the component, so that one digest finds it here and everywhere else.
//! The bill of materials and the provenance are in the component itself. Whatever a registry says is checked against digests and signatures.

use crate::signature::SignatureFile;
use crate::{digest_of, is_digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A manifest or an index is much smaller.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const COMPONENT: &str = "application/wasm";
const SIGNATURES: &str = "application/vnd.pelton.plugin.signatures.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";

/// A reference to some bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What a manifest says; none of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub name: String,
    pub version: String,
    pub component: Descriptor,
    pub signatures: Option<Descriptor>,
}

/// Everything to be written for one version.
pub(crate) struct Parts {
    pub manifest: Vec<u8>,
    /// By digest.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor { media_type: media_type.into(), digest: digest_of(bytes), size: bytes.len() as u64, annotations: BTreeMap::new() }
    }

    /// Of a manifest under a tag.
    pub fn tagged(manifest: &[u8], annotation: (&str, &str)) -> Descriptor {
        let annotations = BTreeMap::from([(annotation.0.to_string(), annotation.1.to_string())]);
        Descriptor { annotations, ..Descriptor::of(MANIFEST, manifest) }
    }
}

/// The tag by digest.
pub(crate) fn tag_of(digest: &str) -> String {
    digest.replace(':', "-")
}

impl Artifact {
    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Artifact, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| format!("its manifest is none of an artifact: {error}"))?;
        let mut components = manifest.layers.iter().filter(|layer| layer.media_type == COMPONENT);
        let component = components.next().ok_or_else(|| {
            let found: Vec<_> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
            format!(
                "it holds no component ({COMPONENT}) but {}; push it with `pelton plugin push`",
                if found.is_empty() { "nothing".into() } else { found.join(", ") }
            )
        })?;
        if components.next().is_some() {
            return Err("it holds more than one component".into());
        }
        let signatures = manifest.layers.iter().find(|layer| layer.media_type == SIGNATURES);
        for layer in [Some(component), signatures].into_iter().flatten() {
            if !is_digest(&layer.digest) {
                return Err(format!("its manifest names a layer by `{}`, which is no SHA-256 digest", layer.digest));
            }
        }
        let told = |key: &str| {
            manifest
                .annotations
                .get(key)
                .cloned()
                .ok_or_else(|| format!("its manifest has no annotation {key}; push it with `pelton plugin push`"))
        };
        Ok(Artifact { name: told(TITLE)?, version: told(VERSION)?, component: component.clone(), signatures: signatures.cloned() })
    }

    /// What is written for a component.
    pub fn parts(component: &[u8], imports: &[String], signatures: &SignatureFile) -> Parts {
        let layer = Descriptor::of(COMPONENT, component);
        let config = serde_json::json!({
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer.digest],
            "component": {"imports": imports, "exports": []},
        });
        let config = config.to_string().into_bytes();
        let described = Descriptor::of(CONFIG, &config);
        let mut layers = vec![layer];
        let mut blobs = vec![(layers[0].digest.clone(), component.to_vec()), (described.digest.clone(), config)];
        if !signatures.signatures.is_empty() {
            let bytes = signatures.to_bytes();
            layers.push(Descriptor::of(SIGNATURES, &bytes));
            blobs.push((digest_of(&bytes), bytes));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.into()),
            artifact_type: Some(CONFIG.into()),
            config: described,
            layers,
            annotations: BTreeMap::from([(TITLE.into(), signatures.name.clone()), (VERSION.into(), signatures.version.clone())]),
        };
        Parts { manifest: serde_json::to_vec(&manifest).expect("strings and numbers become JSON"), blobs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Signature, Statement};

    #[test]
    fn a_manifest_comes_back_as_it_was_written() {
        let digest = digest_of(b"component");
        let mut file = SignatureFile::new(Statement { name: "parse-log", version: "1.2.0", digest: &digest });
        for signed in [false, true] {
            if signed {
                file.add(Signature { key: "ed25519:x".into(), signature: "y".into() });
            }
            let parts = Artifact::parts(b"component", &["pelton:plugin/log@0.1.0".into()], &file);
            let artifact = Artifact::parse(&parts.manifest).expect("parses");
            assert_eq!((artifact.name.as_str(), artifact.version.as_str()), ("parse-log", "1.2.0"));
            assert_eq!((artifact.component.digest.as_str(), artifact.component.size), (digest.as_str(), 9));
            assert_eq!(artifact.signatures.is_some(), signed);
            assert!(parts.blobs.iter().all(|(digest, bytes)| *digest == digest_of(bytes)));
        }
    }

    #[test]
    fn what_is_no_plugin_is_refused() {
        let layer = |kind: &str, digest: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1}}"#);
        let manifest = |layers: &str| format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, layer("x", "y"));
        let good = layer(COMPONENT, &digest_of(b""));
        for (text, words) in [
            ("{}".to_string(), "none of an artifact"),
            (manifest(""), "but nothing"),
            (manifest(&layer("application/vnd.oci.image.layer.v1.tar+gzip", "x")), "tar+gzip"),
            (manifest(&layer(COMPONENT, "sha256:../../etc/passwd")), "no SHA-256 digest"),
            (manifest(&format!("{good},{good}")), "more than one"),
            (manifest(&good), "no annotation"),
        ] {
            let error = Artifact::parse(text.as_bytes()).expect_err("it is refused");
            assert!(error.contains(words), "{error}");
        }
    }
}
