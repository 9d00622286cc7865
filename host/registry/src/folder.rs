//! A registry in a folder: an OCI image layout a plugin, which other tools can copy to and from registries.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion":"1.0.0"}
//! index.json              manifests with their tags (org.opencontainers.image.ref.name)
//! blobs/sha256/HEX        manifests, configs, components, signatures
//! lock                    held while the index is changed
//! ```

use crate::artifact::{Descriptor, MAX_MANIFEST_BYTES};
use crate::error::RegistryError;
use crate::remote::Remote;
use crate::{digest_of, files, is_digest};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const TAG: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// See the module.
pub(crate) struct FolderRegistry {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

impl FolderRegistry {
    pub fn new(folder: &Path) -> FolderRegistry {
        FolderRegistry { folder: folder.into() }
    }

    fn index(&self) -> Result<Option<Index>, RegistryError> {
        let path = self.folder.join("index.json");
        let Some(bytes) = files::read(&path, MAX_MANIFEST_BYTES)? else { return Ok(None) };
        let index = serde_json::from_slice(&bytes)
            .map_err(|error| RegistryError::external(format!("{} is no index of an OCI image layout: {error}", path.display())))?;
        Ok(Some(index))
    }

    fn path(&self, digest: &str) -> Result<PathBuf, RegistryError> {
        if !is_digest(digest) {
            return Err(RegistryError::refused(format!("`{digest}` is no SHA-256 digest")));
        }
        Ok(self.folder.join("blobs").join("sha256").join(&digest["sha256:".len()..]))
    }
}

impl Remote for FolderRegistry {
    fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let manifests = self.index()?.map(|index| index.manifests).unwrap_or_default();
        Ok(manifests.into_iter().filter_map(|mut manifest| manifest.annotations.remove(TAG)).collect())
    }

    fn manifest(&self, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let Some(index) = self.index()? else { return Ok(None) };
        let is_it = |manifest: &&Descriptor| manifest.digest == tag || manifest.annotations.get(TAG).is_some_and(|other| other == tag);
        let Some(found) = index.manifests.iter().find(is_it) else { return Ok(None) };
        let bytes = files::read(&self.path(&found.digest)?, MAX_MANIFEST_BYTES)?.filter(|bytes| digest_of(bytes) == found.digest);
        bytes.map(Some).ok_or_else(|| {
            RegistryError::refused(format!(
                "the manifest {} of `{tag}` in {} is missing or was changed; push the plugin again",
                found.digest,
                self.folder.display()
            ))
        })
    }

    fn blob(&self, layer: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let path = self.path(&layer.digest)?;
        files::read(&path, layer.size)?
            .ok_or_else(|| RegistryError::external(format!("{} is missing; push the plugin again", path.display())))
    }

    fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let path = self.path(digest)?;
        if files::read(&path, bytes.len() as u64).is_ok_and(|there| there.is_some_and(|there| there == bytes)) {
            return Ok(());
        }
        files::write(&path, bytes)
    }

    fn put_manifest(&self, tag: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let _lock = files::lock(&self.folder)?;
        files::write(&self.folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        files::write(&self.path(&digest_of(bytes))?, bytes)?;
        let mut index = self.index()?.unwrap_or(Index { schema_version: 2, media_type: Some(INDEX.into()), manifests: vec![] });
        index.manifests.retain(|manifest| manifest.annotations.get(TAG).is_none_or(|other| other != tag));
        index.manifests.push(Descriptor::tagged(bytes, (TAG, tag)));
        let text = serde_json::to_vec_pretty(&index).expect("strings and numbers become JSON");
        files::write(&self.folder.join("index.json"), &text)
    }
}
