//! The plugins of this machine that came from registries: components by digest, and what was seen of each name.
//!
//! ```text
//! components/sha256-HEX.wasm          a component
//! components/sha256-HEX.wasm.sig      its name, version and signatures
//! names/HEX.json                      {"name": "oci://host/name", "seen": ["1.2.5", "1.3.0"]}, HEX = sha256 of the name
//! ```
//! Invariant: bytes are given out only if they have the digest of their file's name.

use crate::error::RegistryError;
use crate::signature::SignatureFile;
use crate::{digest_of, files, is_digest};
use pelton_core::release::{MAX_COMPONENT_BYTES, Seen, Version};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A record of a name is a short list.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    seen: Vec<Version>,
}

impl Store {
    /// In a folder, which is made when something is kept.
    pub fn new(folder: impl Into<PathBuf>) -> Store {
        Store { folder: folder.into() }
    }

    /// Where a component is, or would be.
    pub fn path(&self, digest: &str) -> PathBuf {
        self.folder.join("components").join(format!("{}.wasm", digest.replace(':', "-")))
    }

    /// The component with this digest, and its signatures.
    pub fn get(&self, digest: &str) -> Result<Option<(Vec<u8>, SignatureFile)>, RegistryError> {
        if !is_digest(digest) {
            return Err(RegistryError::user(format!("`{digest}` is no digest: write sha256: and 64 hexadecimal digits in lower case")));
        }
        let path = self.path(digest);
        let Some(bytes) = files::read(&path, MAX_COMPONENT_BYTES)? else { return Ok(None) };
        if digest_of(&bytes) != digest {
            tracing::warn!(path = %path.display(), "a plugin in the store was damaged or changed; it is fetched again");
            return Ok(None);
        }
        Ok(SignatureFile::beside(&path, digest)?.map(|file| (bytes, file)))
    }

    /// Keeps a component. Signatures that it has already are kept too.
    pub fn keep(&self, bytes: &[u8], mut signatures: SignatureFile) -> Result<SignatureFile, RegistryError> {
        let path = self.path(&signatures.digest);
        let _lock = files::lock(&self.folder)?;
        match self.get(&signatures.digest)? {
            Some((_, known)) => {
                let new: Vec<_> =
                    known.signatures.into_iter().filter(|known| signatures.signatures.iter().all(|new| new.key != known.key)).collect();
                signatures.signatures.extend(new);
            }
            None => files::write(&path, bytes)?,
        }
        signatures.write_beside(&path)?;
        Ok(signatures)
    }

    /// Every component: digest, name, version, bytes.
    pub fn list(&self) -> Result<Vec<(SignatureFile, u64)>, RegistryError> {
        let folder = self.folder.join("components");
        let mut found = vec![];
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(hex) = name.strip_prefix("sha256-").and_then(|name| name.strip_suffix(".wasm")) else { continue };
            let size = entry.metadata().map_err(|error| RegistryError::disk("look at", &entry.path(), &error))?.len();
            found.extend(SignatureFile::beside(&entry.path(), &format!("sha256:{hex}"))?.map(|file| (file, size)));
        }
        found.sort_by(|(left, _), (right, _)| (&left.name, &left.version).cmp(&(&right.name, &right.version)));
        Ok(found)
    }

    /// The highest versions seen of a name.
    pub fn seen(&self, name: &str) -> Result<Seen, RegistryError> {
        let path = self.record(name);
        let Some(bytes) = files::read(&path, MAX_RECORD_BYTES)? else { return Ok(Seen::default()) };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, &error.to_string()))?;
        if record.name != name {
            return Err(damaged(&path, "it is of another name"));
        }
        Ok(Seen::of(record.seen))
    }

    /// A version of a name was taken.
    pub fn note(&self, name: &str, version: &Version) -> Result<(), RegistryError> {
        let _lock = files::lock(&self.folder)?;
        let seen = self.seen(name)?;
        let mut noted = seen.clone();
        noted.note(version);
        if noted == seen {
            return Ok(());
        }
        let record = Record { name: name.into(), seen: noted.versions().cloned().collect() };
        files::write(&self.record(name), &serde_json::to_vec_pretty(&record).expect("strings become JSON"))
    }

    fn record(&self, name: &str) -> PathBuf {
        let digest = digest_of(name.as_bytes());
        self.folder.join("names").join(format!("{}.json", &digest["sha256:".len()..]))
    }
}

fn damaged(path: &Path, why: &str) -> RegistryError {
    RegistryError::external(format!(
        "{} says which versions of a plugin were seen and cannot be read: {why}. Remove it if you are sure that no older version is passed off as a newer one",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Signature, Statement};

    #[test]
    fn what_was_changed_is_not_given_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        let digest = digest_of(b"component");
        let signed = |key: &str| {
            let mut file = SignatureFile::new(Statement { name: "x", version: "1.0.0", digest: &digest });
            file.add(Signature { key: key.into(), signature: String::new() });
            file
        };
        assert!(store.get(&digest).expect("looks").is_none());
        store.keep(b"component", signed("a")).expect("keeps");
        store.keep(b"component", signed("b")).expect("keeps");
        let (bytes, file) = store.get(&digest).expect("looks").expect("is there");
        assert_eq!((bytes.as_slice(), file.signatures.len()), (&b"component"[..], 2));
        assert_eq!(store.list().expect("lists").len(), 1);
        std::fs::write(store.path(&digest), b"complement").expect("writes");
        assert!(store.get(&digest).expect("looks").is_none());
        store.keep(b"component", signed("a")).expect("keeps");
        assert!(store.get(&digest).expect("looks").is_some(), "it is written anew");
        assert!(store.get("sha256:../../x").is_err());
    }

    #[test]
    fn versions_are_remembered_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        store.note("oci://host/a", &Version::new(1, 2, 0)).expect("notes");
        store.note("oci://host/a", &Version::new(1, 1, 0)).expect("notes");
        store.note("oci://host/a", &Version::new(1, 1, 5)).expect("notes");
        let seen = store.seen("oci://host/a").expect("reads");
        assert_eq!(seen.versions().map(Version::to_string).collect::<Vec<_>>(), ["1.1.5", "1.2.0"]);
        assert_eq!(store.seen("oci://host/b").expect("reads"), Seen::default());
        std::fs::write(store.record("oci://host/a"), "{}").expect("writes");
        assert!(store.seen("oci://host/a").is_err(), "a record that cannot be read forbids nothing only by hand");
    }
}
