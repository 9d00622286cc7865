//! From a reference to a component in the local store, and from a component to a registry.
//!
//! What a registry says is checked in this order, before anybody looks into the component: the digest of what it gives; that a version's tag
//! holds that version; that the plugin has the name under which it is asked for; that no older version comes back. Whether its signatures are
//! enough is for [`pelton_core::trust`], and that the component's own descriptor has the name and version that the registry told is for
//! [`Plugins::confirm`], once it is loaded.

use crate::artifact::{Artifact, tag_of};
use crate::error::RegistryError;
use crate::pins::Pin;
use crate::reference::Reference;
use crate::remote::{self, Remote};
use crate::signature::{MAX_SIGNATURE_BYTES, SignatureFile, Statement};
use crate::store::Store;
use pelton_core::release::{MAX_COMPONENT_BYTES, Version, Wanted};
use std::path::PathBuf;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plugins {
    store: Store,
}

/// A component that a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its bytes, with the digest below.
    pub bytes: Vec<u8>,
    /// Name and version as the registry has them, digest, signatures.
    pub signatures: SignatureFile,
    /// The version.
    pub version: Version,
    /// In the store.
    pub path: PathBuf,
}

/// A component to be pushed.
#[derive(Clone, Debug)]
pub struct Component<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Interfaces that it imports.
    pub imports: &'a [String],
    /// Name, version, digest, signatures.
    pub signatures: SignatureFile,
}

/// What a push has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The full reference of the version.
    pub reference: String,
    /// Of the component.
    pub digest: String,
    /// Signatures that are in the registry now.
    pub signatures: usize,
    /// The version was there before.
    pub again: bool,
}

impl Found {
    /// What a pipeline file is pinned to.
    pub fn pin(&self) -> Pin {
        Pin { version: self.version.to_string(), digest: self.signatures.digest.clone() }
    }
}

impl Plugins {
    /// With the components of a store.
    pub fn new(store: Store) -> Plugins {
        Plugins { store }
    }

    /// The local store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The component that a reference was pinned to: from the store, else from its registry.
    pub fn pinned(&self, reference: &Reference, pin: &Pin) -> Result<Found, RegistryError> {
        if let Some((bytes, signatures)) = self.store.get(&pin.digest)? {
            return self.found(reference, bytes, signatures);
        }
        let remote = remote::open(&reference.place)?;
        let artifact = self.by_digest(&*remote, reference, &pin.digest)?;
        self.take(&*remote, reference, artifact)
    }

    /// The component that a reference stands for now. One that is older than what was seen is refused, unless `older` is allowed.
    pub fn resolve(&self, reference: &Reference, older: bool) -> Result<Found, RegistryError> {
        let remote = remote::open(&reference.place)?;
        let artifact = match &reference.wanted {
            Wanted::Digest(digest) => self.by_digest(&*remote, reference, digest)?,
            wanted => self.by_version(&*remote, reference, wanted)?,
        };
        let version = version_of(&artifact.version, reference)?;
        let seen = self.store.seen(&reference.name())?;
        if let Some(newer) = seen.forbids(&reference.wanted, &version).filter(|_| !older) {
            return Err(RegistryError::refused(format!(
                "`{}` is version {version}, but {newer} of it was used here before: an older version does not come back by itself. Ask for {newer} or a later one, or say --allow-downgrade if you mean {version}",
                reference.text
            )));
        }
        self.take(&*remote, reference, artifact)
    }

    /// The component itself says that it is what its registry says; from now on no older one is taken by itself.
    pub fn confirm(&self, reference: &Reference, found: &Found, name: &str, version: &str) -> Result<(), RegistryError> {
        let claimed = &found.signatures;
        if (claimed.name.as_str(), claimed.version.as_str()) != (name, version) {
            return Err(RegistryError::refused(format!(
                "`{}` is offered as {} {}, but the plugin calls itself {name} {version}: it is passed off as what it is not, or was not pushed by `pelton plugin push`",
                reference.text, claimed.name, claimed.version
            )));
        }
        self.store.note(&reference.name(), &found.version)
    }

    /// Pushes a component as the version that it is. A version that is there already stays what it is; new signatures are added to it.
    pub fn push(&self, reference: &Reference, component: Component<'_>) -> Result<Pushed, RegistryError> {
        let Component { bytes, imports, mut signatures } = component;
        let version = version_of(&signatures.version, reference)?;
        if !version.build.is_empty() {
            return Err(RegistryError::user(format!(
                "version {version} has a part behind `+`, which registries do not take; leave it out of the plugin's version"
            )));
        }
        match &reference.wanted {
            Wanted::Newest => {}
            Wanted::Exact(named) if *named == version => {}
            _ => {
                return Err(RegistryError::user(format!(
                    "`{}`: the plugin has the version {version}; push it to {} without a version, or change the version of its crate",
                    reference.text,
                    reference.name()
                )));
            }
        }
        check_name(reference, &signatures.name)?;
        let remote = remote::open(&reference.place)?;
        let tag = version.to_string();
        let there = remote.manifest(&tag)?.map(|bytes| parse(reference, &bytes)).transpose()?;
        if let Some(there) = &there {
            if there.component.digest != signatures.digest {
                return Err(RegistryError::user(format!(
                    "{}:{version} exists already and is another component ({}): a version never changes. Raise the version of the plugin's crate",
                    reference.name(),
                    there.component.digest
                )));
            }
            for signature in self.signatures(&*remote, reference, there)?.signatures {
                if signatures.signatures.iter().all(|new| new.key != signature.key) {
                    signatures.signatures.push(signature);
                }
            }
        }
        let parts = Artifact::parts(bytes, imports, &signatures);
        for (digest, blob) in &parts.blobs {
            remote.put_blob(digest, blob)?;
        }
        remote.put_manifest(&tag_of(&signatures.digest), &parts.manifest)?;
        // Last, so that whoever finds the version finds all of it.
        remote.put_manifest(&tag, &parts.manifest)?;
        Ok(Pushed {
            reference: format!("{}:{version}", reference.name()),
            digest: signatures.digest,
            signatures: signatures.signatures.len(),
            again: there.is_some(),
        })
    }

    fn by_version(&self, remote: &dyn Remote, reference: &Reference, wanted: &Wanted) -> Result<Artifact, RegistryError> {
        let versions: Vec<Version> = remote.tags()?.iter().filter_map(|tag| Version::parse(tag).ok()).collect();
        let Some(chosen) = wanted.choose(&versions) else {
            let mut releases: Vec<_> = versions.iter().collect();
            releases.sort();
            let found = releases.iter().rev().take(10).map(|version| version.to_string()).collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() {
                "no version of it; is the name right, and was it pushed?".into()
            } else {
                format!("its versions {found}")
            };
            return Err(RegistryError::user(format!("`{}` is not in the registry, which has {found}", reference.text)));
        };
        let tag = chosen.to_string();
        let manifest = remote
            .manifest(&tag)?
            .ok_or_else(|| RegistryError::external(format!("{}:{tag} has just gone from the registry; try again", reference.name())))?;
        let artifact = parse(reference, &manifest)?;
        if artifact.version != tag {
            return Err(RegistryError::refused(format!(
                "{}:{tag} holds version {}: somebody has moved the tag. Push {tag} again, or name the version or digest that you mean",
                reference.name(),
                artifact.version
            )));
        }
        Ok(artifact)
    }

    fn by_digest(&self, remote: &dyn Remote, reference: &Reference, digest: &str) -> Result<Artifact, RegistryError> {
        for tag in [tag_of(digest).as_str(), digest] {
            let Some(manifest) = remote.manifest(tag)? else { continue };
            let artifact = parse(reference, &manifest)?;
            if artifact.component.digest == digest || crate::digest_of(&manifest) == digest {
                return Ok(artifact);
            }
            return Err(RegistryError::refused(format!(
                "{} has another component under the tag of {digest}: somebody has moved it",
                reference.name()
            )));
        }
        Err(RegistryError::user(format!("{digest} is not in {}; was it pushed there with `pelton plugin push`?", reference.name())))
    }

    /// Fetches what is not in the store yet.
    fn take(&self, remote: &dyn Remote, reference: &Reference, artifact: Artifact) -> Result<Found, RegistryError> {
        check_name(reference, &artifact.name)?;
        let signatures = self.signatures(remote, reference, &artifact)?;
        let bytes = match self.store.get(&artifact.component.digest)? {
            Some((bytes, _)) => bytes,
            None => remote::fetch(remote, &artifact.component, MAX_COMPONENT_BYTES)?,
        };
        let signatures = self.store.keep(&bytes, signatures)?;
        self.found(reference, bytes, signatures)
    }

    fn found(&self, reference: &Reference, bytes: Vec<u8>, signatures: SignatureFile) -> Result<Found, RegistryError> {
        let (version, path) = (version_of(&signatures.version, reference)?, self.store.path(&signatures.digest));
        Ok(Found { bytes, version, path, signatures })
    }

    fn signatures(&self, remote: &dyn Remote, reference: &Reference, artifact: &Artifact) -> Result<SignatureFile, RegistryError> {
        let statement = Statement { name: &artifact.name, version: &artifact.version, digest: &artifact.component.digest };
        let Some(layer) = &artifact.signatures else { return Ok(SignatureFile::new(statement)) };
        let bytes = remote::fetch(remote, layer, MAX_SIGNATURE_BYTES)?;
        let file = SignatureFile::parse(&bytes)
            .map_err(|why| RegistryError::refused(format!("the signatures of `{}` cannot be read: {why}", reference.text)))?;
        if file.statement() != statement {
            return Err(RegistryError::refused(format!(
                "the signatures of `{}` are those of {} {} ({}); push the plugin again",
                reference.text, file.name, file.version, file.digest
            )));
        }
        Ok(file)
    }
}

fn parse(reference: &Reference, manifest: &[u8]) -> Result<Artifact, RegistryError> {
    Artifact::parse(manifest).map_err(|why| RegistryError::user(format!("`{}` is no plugin: {why}", reference.text)))
}

fn version_of(text: &str, reference: &Reference) -> Result<Version, RegistryError> {
    Version::parse(text).map_err(|error| RegistryError::user(format!("`{}`: `{text}` is no semantic version: {error}", reference.text)))
}

/// The last part of the path is the plugin's own name, so that no other plugin is passed off as it.
fn check_name(reference: &Reference, plugin: &str) -> Result<(), RegistryError> {
    let name = reference.name();
    if name.rsplit('/').next() == Some(plugin) {
        return Ok(());
    }
    Err(RegistryError::refused(format!(
        "{name} is the place of another plugin than `{plugin}`: the last part of the path must be the plugin's name"
    )))
}
