//! What is signed of a plugin, and the signatures that travel with it.
//!
//! ```text
//! pelton plugin signature 1\n
//! NAME\n
//! VERSION\n
//! sha256:DIGEST\n
//! ```
//! is the message. The first line keeps a signature from meaning anything elsewhere; name and version stand in it so that they can be
//! judged before a byte of the component is compiled. Beside a component `x.wasm` its signatures are `x.wasm.sig`, a [`SignatureFile`]
//! in JSON; in a registry they are a layer of the same form.

use crate::error::RegistryError;
use crate::files;
use crate::keys::{PrivateKey, PublicKey};
use openssl::base64;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Signatures of one component at most.
const MAX_SIGNATURES: usize = 32;
/// A file of them is shorter.
pub(crate) const MAX_SIGNATURE_BYTES: u64 = 64 * 1024;

/// What a signer vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Name of the plugin, as its descriptor has it.
    pub name: &'a str,
    /// Version of the plugin, as its descriptor has it.
    pub version: &'a str,
    /// Of the component.
    pub digest: &'a str,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The public key, as a word.
    pub key: String,
    /// 64 bytes in base64.
    pub signature: String,
}

/// All signatures of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureFile {
    /// Name of the plugin.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Of the component.
    pub digest: String,
    /// By anybody.
    pub signatures: Vec<Signature>,
}

/// Whose signatures fit, and whose do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// Words of keys that have signed.
    pub signed: Vec<String>,
    /// Words of keys in whose name there is a signature that they have not made.
    pub forged: Vec<String>,
}

impl Statement<'_> {
    fn message(&self) -> Vec<u8> {
        format!("pelton plugin signature 1\n{}\n{}\n{}\n", self.name, self.version, self.digest).into_bytes()
    }

    /// Signs it.
    pub fn sign(&self, key: &PrivateKey) -> Result<Signature, RegistryError> {
        if [self.name, self.version, self.digest].iter().any(|part| part.contains('\n')) {
            return Err(RegistryError::user(format!("the plugin's name or version has a line break: {:?} {:?}", self.name, self.version)));
        }
        Ok(Signature { key: key.public()?.to_string(), signature: base64::encode_block(&key.sign(&self.message())?) })
    }

    /// Whose signatures these are.
    pub fn signers(&self, signatures: &[Signature]) -> Signers {
        let mut signers = Signers::default();
        for signature in signatures {
            // The word of the key is made anew, so that two spellings of one key are one.
            let Ok(key) = PublicKey::parse(&signature.key) else { continue };
            let fits = base64::decode_block(&signature.signature).is_ok_and(|bytes| key.verifies(&self.message(), &bytes));
            let of = if fits { &mut signers.signed } else { &mut signers.forged };
            of.push(key.to_string());
        }
        signers
    }
}

impl SignatureFile {
    /// With no signature.
    pub fn new(statement: Statement<'_>) -> SignatureFile {
        let Statement { name, version, digest } = statement;
        SignatureFile { name: name.into(), version: version.into(), digest: digest.into(), signatures: vec![] }
    }

    /// What is signed.
    pub fn statement(&self) -> Statement<'_> {
        Statement { name: &self.name, version: &self.version, digest: &self.digest }
    }

    /// Adds a signature; one of the same key is replaced.
    pub fn add(&mut self, signature: Signature) {
        self.signatures.retain(|other| other.key != signature.key);
        self.signatures.push(signature);
    }

    /// The file beside a component.
    pub fn path_of(component: &Path) -> PathBuf {
        let mut path = component.as_os_str().to_owned();
        path.push(".sig");
        path.into()
    }

    /// What lies beside a component; `None`: it is not signed. A file that is left from another component counts for nothing.
    pub fn beside(component: &Path, digest: &str) -> Result<Option<SignatureFile>, RegistryError> {
        let path = SignatureFile::path_of(component);
        let Some(bytes) = files::read(&path, MAX_SIGNATURE_BYTES)? else { return Ok(None) };
        let file = SignatureFile::parse(&bytes)
            .map_err(|why| RegistryError::user(format!("{} is no file of signatures: {why}", path.display())))?;
        Ok(Some(file).filter(|file| file.digest == digest))
    }

    /// Writes it beside a component.
    pub fn write_beside(&self, component: &Path) -> Result<PathBuf, RegistryError> {
        let path = SignatureFile::path_of(component);
        files::write(&path, &self.to_bytes())?;
        Ok(path)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<SignatureFile, String> {
        let file: SignatureFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        file.check()?;
        Ok(file)
    }

    /// Refuses what is too long to be read again.
    pub fn check(&self) -> Result<(), String> {
        if self.signatures.len() > MAX_SIGNATURES {
            return Err(format!("it has {} signatures; {MAX_SIGNATURES} are allowed", self.signatures.len()));
        }
        let bytes = self.to_bytes().len() as u64;
        if bytes > MAX_SIGNATURE_BYTES {
            return Err(format!("its signatures have {bytes} bytes; {MAX_SIGNATURE_BYTES} are allowed"));
        }
        Ok(())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings become JSON");
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_for_one_name_version_and_digest() {
        let (key, other) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
        let statement = Statement { name: "parse-log", version: "1.2.0", digest: "sha256:ab" };
        let word = key.public().expect("a public key").to_string();
        let signature = statement.sign(&key).expect("signs");
        assert_eq!(statement.signers(std::slice::from_ref(&signature)).signed, std::slice::from_ref(&word));
        for changed in [
            Statement { name: "parse-lo", ..statement },
            Statement { version: "1.2.1", ..statement },
            Statement { digest: "sha256:ac", ..statement },
        ] {
            let signers = changed.signers(std::slice::from_ref(&signature));
            assert_eq!((signers.signed.len(), signers.forged), (0, vec![word.clone()]), "{changed:?}");
        }
        let stolen = Signature { key: other.public().expect("a public key").to_string(), ..signature.clone() };
        assert_eq!(statement.signers(&[stolen]).signed, Vec::<String>::new());
        assert_eq!(statement.signers(&[Signature { key: "rsa:x".into(), ..signature }]), Signers::default());
        assert!(Statement { name: "a\nb", ..statement }.sign(&key).is_err());
    }

    #[test]
    fn signatures_of_another_component_count_for_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let component = folder.path().join("x.wasm");
        assert_eq!(SignatureFile::beside(&component, "sha256:ab").expect("reads"), None);
        let file = SignatureFile::new(Statement { name: "x", version: "1.0.0", digest: "sha256:ab" });
        file.write_beside(&component).expect("writes");
        assert_eq!(SignatureFile::beside(&component, "sha256:ab").expect("reads"), Some(file));
        assert_eq!(SignatureFile::beside(&component, "sha256:cd").expect("reads"), None);
        std::fs::write(SignatureFile::path_of(&component), "{}").expect("writes");
        assert!(SignatureFile::beside(&component, "sha256:ab").is_err());
    }
}
