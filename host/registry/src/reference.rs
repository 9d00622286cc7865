//! How a plugin of a registry is named.
//!
//! ```text
//! oci://HOST[:PORT]/PATH[:VERSION | @sha256:DIGEST]       a registry that speaks the OCI distribution protocol
//! folder:PATH/NAME[:VERSION | @sha256:DIGEST]             a folder of OCI image layouts, one a plugin
//! ```
//! VERSION is `1`, `1.2`, `1.2.3` or `latest`, which is also meant where none is given. DIGEST is that of the component, the same that
//! checkpoints and dead letters have; that of the registry's manifest is taken as well.

use crate::error::RegistryError;
use crate::is_digest;
use pelton_core::release::Wanted;
use std::path::{Path, PathBuf};

/// Longest reference.
const MAX_REFERENCE: usize = 1024;

/// A plugin in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// As written.
    pub text: String,
    /// Where it is.
    pub place: Place,
    /// Which of its versions.
    pub wanted: Wanted,
}

/// Where all versions of a plugin are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Host with its port, and the repository there.
    Oci { registry: String, repository: String },
    /// A folder of this plugin alone.
    Folder(PathBuf),
}

impl Reference {
    /// Whether a text names a plugin of a registry, well or badly, and no file.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("oci://") || text.starts_with("folder:")
    }

    /// Reads a reference; the path of a folder is relative to `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Reference, RegistryError> {
        let wrong = |why: &str| {
            RegistryError::user(format!(
                "`{text}` is no reference to a plugin: {why}. Write oci://HOST/NAME:1.2, folder:PATH/NAME:1.2, or @sha256:… in place of the version"
            ))
        };
        if text.len() > MAX_REFERENCE {
            return Err(wrong("it is too long"));
        }
        let (is_oci, rest) = match (text.strip_prefix("oci://"), text.strip_prefix("folder:")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong("it begins neither with oci:// nor with folder:")),
        };
        let (path, wanted) = match rest.rsplit_once('@') {
            Some((path, digest)) if is_digest(digest) => (path, Wanted::Digest(digest.into())),
            Some(_) => return Err(wrong("a digest is sha256: and 64 hexadecimal digits in lower case")),
            None => {
                // The colon of a port stands before the path.
                let (folder, name) = rest.rsplit_once('/').ok_or_else(|| wrong("it has no name"))?;
                match name.split_once(':') {
                    Some((name, version)) => (&rest[..folder.len() + 1 + name.len()], Wanted::parse(version).map_err(|why| wrong(&why))?),
                    None => (rest, Wanted::Newest),
                }
            }
        };
        let place = if is_oci { oci(path).map_err(wrong)? } else { folder(path, base).map_err(wrong)? };
        Ok(Reference { text: text.into(), place, wanted })
    }

    /// What all versions of the plugin have in common.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Oci { registry, repository } => format!("oci://{registry}/{repository}"),
            Place::Folder(folder) => format!("folder:{}", folder.display()),
        }
    }
}

fn oci(path: &str) -> Result<Place, &'static str> {
    let (registry, repository) = path.split_once('/').ok_or("it has no path behind the host")?;
    let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if registry.is_empty() || !registry.chars().all(host) {
        return Err("its host is none");
    }
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        !part.is_empty() && part.chars().all(allowed) && part.starts_with(ends) && part.ends_with(ends)
    };
    if !repository.split('/').all(part) {
        return Err("a path in a registry has lower-case letters, digits, `.`, `_` and `-`");
    }
    Ok(Place::Oci { registry: registry.into(), repository: repository.into() })
}

fn folder(path: &str, base: &Path) -> Result<Place, &'static str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || !name.chars().all(allowed) || name.starts_with('.') {
        return Err("the name of a plugin has letters, digits, `.`, `_` and `-`");
    }
    // The same name wherever a command runs from.
    std::path::absolute(base.join(path)).map(Place::Folder).map_err(|_| "the current folder is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, wanted: &str) {
        let reference = Reference::parse(text, Path::new("/base")).expect("a reference");
        assert_eq!((reference.name().as_str(), reference.wanted.to_string().as_str()), (name, wanted), "{text}");
    }

    #[test]
    fn references_name_a_place_and_a_version() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        check("oci://example.org/team/parse-log:1.2", "oci://example.org/team/parse-log", "1.2");
        check("oci://localhost:5000/parse-log", "oci://localhost:5000/parse-log", "latest");
        check("oci://[::1]:5000/parse-log:1", "oci://[::1]:5000/parse-log", "1");
        check(&format!("oci://localhost:5000/parse-log@{digest}"), "oci://localhost:5000/parse-log", &digest);
        check("folder:../registry/parse-log:1.2.3", "folder:/base/../registry/parse-log", "1.2.3");
        check("folder:/srv/plugins/geo", "folder:/srv/plugins/geo", "latest");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for wrong in [
            "oci://",
            "oci://host",
            "oci://host/",
            "oci:///name",
            "oci://host/Name",
            "oci://host/a/../b",
            "oci://host/name:v1",
            "oci://host/name:",
            "oci://host/name@sha256:12",
            "oci://user@host/name",
            "folder:name",
            "folder:a/..",
            "folder:a/.hidden:1",
            "http://host/name",
        ] {
            assert!(Reference::parse(wrong, Path::new("/base")).is_err(), "{wrong}");
        }
    }
}
