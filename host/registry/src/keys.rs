//! Ed25519 keys (RFC 8032): in files as OpenSSL and others keep them (PEM: PKCS #8, SubjectPublicKeyInfo), in pipeline files as a word.

use crate::error::RegistryError;
use openssl::base64;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::sign::{Signer, Verifier};
use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a public key begins with as a word.
const PREFIX: &str = "ed25519:";
/// A key file is much shorter.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Who can sign.
pub struct PrivateKey(PKey<Private>);

/// Whose signatures can be checked.
#[derive(Clone)]
pub struct PublicKey(PKey<Public>);

fn internal(error: openssl::error::ErrorStack) -> RegistryError {
    RegistryError::external(format!("OpenSSL fails: {error}"))
}

impl PrivateKey {
    /// A new one.
    pub fn generate() -> Result<PrivateKey, RegistryError> {
        PKey::generate_ed25519().map(PrivateKey).map_err(internal)
    }

    /// From a PEM file.
    pub fn read(path: &Path) -> Result<PrivateKey, RegistryError> {
        let wrong =
            || RegistryError::user(format!("{} holds no private Ed25519 key; make one with `pelton plugin keygen`", path.display()));
        let text = crate::files::read(path, MAX_KEY_FILE)?.ok_or_else(wrong)?;
        // A key with a passphrase would ask for it on the terminal: here it has none.
        let key = PKey::private_key_from_pem_callback(&text, |_| Ok(0)).map_err(|_| wrong())?;
        if key.id() == Id::ED25519 { Ok(PrivateKey(key)) } else { Err(wrong()) }
    }

    /// Writes a PEM file that only its owner may read, where there is none.
    pub fn write_new(&self, path: &Path) -> Result<(), RegistryError> {
        let text = self.0.private_key_to_pem_pkcs8().map_err(internal)?;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(|error| RegistryError::disk("write the private key to", path, &error))
    }

    /// The other half.
    pub fn public(&self) -> Result<PublicKey, RegistryError> {
        let raw = self.0.raw_public_key().map_err(internal)?;
        PKey::public_key_from_raw_bytes(&raw, Id::ED25519).map(PublicKey).map_err(internal)
    }

    /// 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RegistryError> {
        Signer::new_without_digest(&self.0).and_then(|mut signer| signer.sign_oneshot_to_vec(message)).map_err(internal)
    }
}

impl PublicKey {
    /// From the word, or from the text of a PEM file.
    pub fn parse(text: &str) -> Result<PublicKey, RegistryError> {
        let wrong = || {
            RegistryError::user(format!(
                "`{}` is no public key: write ed25519: and 32 bytes in base64, as `pelton plugin keygen` prints it, or the path of its .pub file",
                text.chars().take(80).collect::<String>()
            ))
        };
        let key = match text.trim().strip_prefix(PREFIX) {
            Some(word) => {
                let raw = base64::decode_block(word).map_err(|_| wrong())?;
                PKey::public_key_from_raw_bytes(&raw, Id::ED25519).map_err(|_| wrong())?
            }
            None => PKey::public_key_from_pem(text.as_bytes()).map_err(|_| wrong())?,
        };
        if key.id() == Id::ED25519 { Ok(PublicKey(key)) } else { Err(wrong()) }
    }

    /// The text of a PEM file.
    pub fn to_pem(&self) -> Result<String, RegistryError> {
        let text = self.0.public_key_to_pem().map_err(internal)?;
        String::from_utf8(text).map_err(|_| RegistryError::external("OpenSSL writes PEM that is no text"))
    }

    /// Whether the owner of the other half has signed this message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Verifier::new_without_digest(&self.0).and_then(|mut verifier| verifier.verify_oneshot(signature, message)).unwrap_or(false)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.0.raw_public_key().map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", base64::encode_block(&raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    /// RFC 8032, section 7.1, test 3.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let secret = bytes("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7");
        let key = PrivateKey(PKey::private_key_from_raw_bytes(&secret, Id::ED25519).expect("a key"));
        let signature = key.sign(&[0xaf, 0x82]).expect("signs");
        let expected = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";
        assert_eq!(signature, bytes(expected));
        let public = key.public().expect("a public key");
        assert_eq!(public.0.raw_public_key().expect("raw"), bytes("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"));
        assert!(public.verifies(&[0xaf, 0x82], &signature));
        assert!(!public.verifies(&[0xaf, 0x83], &signature));
        assert!(!public.verifies(&[0xaf, 0x82], &signature[..63]));
        assert!(!public.verifies(&[0xaf, 0x82], &[]));
    }

    #[test]
    fn keys_come_back_from_their_files_and_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = PrivateKey::generate().expect("a key");
        let path = folder.path().join("release.pem");
        key.write_new(&path).expect("writes");
        assert!(key.write_new(&path).is_err(), "a key is never overwritten");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).expect("is there"));
        assert_eq!(mode & 0o777, 0o600);
        let public = PrivateKey::read(&path).expect("reads").public().expect("a public key");
        assert_eq!(public.to_string(), key.public().expect("a public key").to_string());
        for text in [public.to_string(), public.to_pem().expect("PEM")] {
            assert_eq!(PublicKey::parse(&text).expect("parses").to_string(), public.to_string());
        }
        for wrong in ["", "ed25519:", "ed25519:AAAA", "release.pub", "-----BEGIN PUBLIC KEY-----"] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
        let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(1024).expect("a key")).expect("a key");
        std::fs::write(&path, rsa.private_key_to_pem_pkcs8().expect("PEM")).expect("writes");
        assert!(PrivateKey::read(&path).is_err(), "no other kind of key");
    }
}
