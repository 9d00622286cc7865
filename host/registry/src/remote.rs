//! The versions of one plugin in a registry, whichever kind it is.

use crate::artifact::Descriptor;
use crate::digest_of;
use crate::error::RegistryError;
use crate::folder::FolderRegistry;
use crate::oci::OciRegistry;
use crate::reference::Place;
use pelton_core::release::MAX_COMPONENT_BYTES;

/// A registry, for one plugin.
pub(crate) trait Remote {
    /// All tags; none where there is no such plugin.
    fn tags(&self) -> Result<Vec<String>, RegistryError>;
    /// The manifest under a tag or a digest.
    fn manifest(&self, tag: &str) -> Result<Option<Vec<u8>>, RegistryError>;
    /// Bytes of a layer, not checked, and not many more than it is said to have.
    fn blob(&self, layer: &Descriptor) -> Result<Vec<u8>, RegistryError>;
    /// Writes bytes under their digest.
    fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<(), RegistryError>;
    /// Writes a manifest under a tag, in place of what was there.
    fn put_manifest(&self, tag: &str, bytes: &[u8]) -> Result<(), RegistryError>;
}

pub(crate) fn open(place: &Place) -> Result<Box<dyn Remote>, RegistryError> {
    Ok(match place {
        Place::Oci { registry, repository } => Box::new(OciRegistry::new(registry, repository)?),
        Place::Folder(folder) => Box::new(FolderRegistry::new(folder)),
    })
}

/// The bytes of a layer, which have its digest.
pub(crate) fn fetch(remote: &dyn Remote, layer: &Descriptor, most: u64) -> Result<Vec<u8>, RegistryError> {
    if layer.size > most.min(MAX_COMPONENT_BYTES) {
        return Err(RegistryError::refused(format!("{} has {} bytes; {most} are allowed", layer.digest, layer.size)));
    }
    let bytes = remote.blob(layer)?;
    let found = digest_of(&bytes);
    if found != layer.digest {
        return Err(RegistryError::refused(format!(
            "the registry gives {} bytes with the digest {found} for {}: they were damaged or changed. Nothing of them was kept; push the plugin again",
            bytes.len(),
            layer.digest
        )));
    }
    Ok(bytes)
}
