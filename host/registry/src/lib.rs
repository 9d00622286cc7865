//! Where plugins come from, and why they are believed.
//!
//! In reading order:
//! - [`mod@reference`]: `oci://host/name:1.2` and `folder:path/name:1.2`, as a pipeline file names a plugin.
//! - [`plugins`]: from a reference to a component in the local store; and back, to a registry.
//! - [`store`]: the local store, by digest, and the versions that were seen.
//! - [`pins`]: which digest a reference was resolved to, beside the pipeline file.
//! - [`artifact`]: what lies in a registry for one version; [`remote`]: the two kinds of registry, `oci` and [`folder`].
//! - [`keys`], [`signature`]: Ed25519 over name, version and digest; [`trust`]: whose signatures are enough.
//! - [`files`]: files that appear whole or not at all.
//!
//! Invariants: the only crate that knows OCI. Nothing here runs or compiles a component: what comes out are bytes with the digest that was
//! asked for, and who signed them.

mod artifact;
mod error;
mod files;
mod folder;
mod keys;
mod oci;
mod pins;
mod plugins;
mod reference;
mod remote;
mod signature;
mod store;
pub mod trust;

pub use error::RegistryError;
pub use keys::{PrivateKey, PublicKey};
pub use pins::{Pin, Pins};
pub use plugins::{Component, Found, Plugins, Pushed};
pub use reference::Reference;
pub use signature::{Signature, SignatureFile, Signers, Statement};
pub use store::Store;

use sha2::{Digest, Sha256};

/// `sha256:` and the hex digest of some bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::from("sha256:"), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether a text is a digest as [`digest_of`] writes it.
pub fn is_digest(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
}
