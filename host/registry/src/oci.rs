//! A registry that speaks the OCI distribution protocol.
//!
//! TLS always, but for this machine's own addresses. Who logs in is read from where `docker login`, `podman login` and `oras login` write it
//! (`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`); helpers that keep passwords elsewhere are not asked. Authorities are those of
//! the machine, or of the file that `SSL_CERT_FILE` names; proxies are those of `HTTPS_PROXY` and `NO_PROXY`.

use crate::artifact::{Descriptor, MANIFEST, MAX_MANIFEST_BYTES};
use crate::error::RegistryError;
use crate::files;
use crate::remote::Remote;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::runtime::Runtime;

/// A connection that takes longer will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that is silent for longer has forgotten us.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Tags of one answer, and answers of one list.
const TAGS_A_PAGE: usize = 1000;
const MAX_PAGES: usize = 100;

/// One repository.
pub(crate) struct OciRegistry {
    client: Client,
    auth: RegistryAuth,
    registry: String,
    repository: String,
    io: Runtime,
}

impl OciRegistry {
    pub fn new(registry: &str, repository: &str) -> Result<OciRegistry, RegistryError> {
        let protocol = if is_this_machine(registry) { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("pelton/", env!("CARGO_PKG_VERSION")),
            // A plugin is no image of one of several platforms.
            platform_resolver: None,
            ..ClientConfig::default()
        };
        let client =
            Client::try_from(config).map_err(|error| RegistryError::external(format!("cannot start the client of registries: {error}")))?;
        let io = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| RegistryError::external(format!("cannot start the client of registries: {error}")))?;
        Ok(OciRegistry { client, auth: login(registry)?, registry: registry.into(), repository: repository.into(), io })
    }

    fn reference(&self, tag: &str) -> Reference {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        if tag.starts_with("sha256:") {
            Reference::with_digest(registry, repository, tag.into())
        } else {
            Reference::with_tag(registry, repository, tag.into())
        }
    }

    fn failed(&self, doing: &str, error: OciDistributionError) -> RegistryError {
        let why = chain(&error);
        let next = match &error {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                format!("; log in first, for example with `docker login {}`", self.registry)
            }
            OciDistributionError::RequestError(_) if why.contains("certificate") => {
                "; the certificate must be for that name, and of an authority that this machine trusts: SSL_CERT_FILE names a file of others".into()
            }
            OciDistributionError::RequestError(error) if error.is_connect() => "; is the registry running, and is its name right?".into(),
            _ => String::new(),
        };
        RegistryError::external(format!("cannot {doing} oci://{}/{}: {why}{next}", self.registry, self.repository))
    }

    async fn list(&self) -> Result<Vec<String>, OciDistributionError> {
        let reference = self.reference("latest");
        let mut tags: Vec<String> = vec![];
        for _ in 0..MAX_PAGES {
            let page = self.client.list_tags(&reference, &self.auth, Some(TAGS_A_PAGE), tags.last().map(String::as_str)).await;
            let page = match page {
                Ok(page) => page.tags,
                Err(error) if is_absent(&error) => break,
                Err(error) => return Err(error),
            };
            // Some servers know no pages and answer with all of them each time.
            let new: Vec<_> = page.into_iter().filter(|tag| !tags.contains(tag)).collect();
            let full = new.len() >= TAGS_A_PAGE;
            tags.extend(new);
            if !full {
                break;
            }
        }
        Ok(tags)
    }

    async fn push_blob(&self, digest: &str, bytes: &[u8]) -> Result<(), OciDistributionError> {
        let reference = self.reference("latest");
        self.client.store_auth_if_needed(&self.registry, &self.auth).await;
        if self.client.blob_exists(&reference, digest).await.unwrap_or(false) {
            return Ok(());
        }
        self.client.auth(&reference, &self.auth, RegistryOperation::Push).await?;
        self.client.push_blob(&reference, bytes.to_vec(), digest).await.map(drop)
    }
}

impl Remote for OciRegistry {
    fn tags(&self) -> Result<Vec<String>, RegistryError> {
        self.io.block_on(self.list()).map_err(|error| self.failed("list the versions of", error))
    }

    fn manifest(&self, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let reference = self.reference(tag);
        match self.io.block_on(self.client.pull_manifest_raw(&reference, &self.auth, &[MANIFEST])) {
            Ok((bytes, _)) if bytes.len() as u64 > MAX_MANIFEST_BYTES => {
                Err(RegistryError::refused(format!("the manifest of {reference} is too large")))
            }
            Ok((bytes, _)) => Ok(Some(bytes.to_vec())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn blob(&self, layer: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let wanted = OciDescriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: i64::try_from(layer.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let mut bytes = Bounded { bytes: vec![], most: layer.size };
        self.io.block_on(self.client.pull_blob(&self.reference("latest"), &wanted, &mut bytes)).map_err(|error| match error {
            OciDistributionError::DigestError(error) => RegistryError::refused(format!(
                "oci://{}/{} gives other bytes than those of {}: {error}. Nothing of them was kept; push the plugin again",
                self.registry, self.repository, layer.digest
            )),
            error => self.failed("read", error),
        })?;
        Ok(bytes.bytes)
    }

    fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        self.io.block_on(self.push_blob(digest, bytes)).map_err(|error| self.failed("write to", error))
    }

    fn put_manifest(&self, tag: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let reference = self.reference(tag);
        let pushed = self.io.block_on(async {
            self.client.auth(&reference, &self.auth, RegistryOperation::Push).await?;
            self.client.push_manifest_raw(&reference, bytes.to_vec(), MANIFEST.parse().expect("a media type is a header's value")).await
        });
        pushed.map(drop).map_err(|error| self.failed("write to", error))
    }
}

/// Takes no more bytes than there should be.
struct Bounded {
    bytes: Vec<u8>,
    most: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        if self.bytes.len() as u64 + bytes.len() as u64 > self.most {
            return std::task::Poll::Ready(Err(std::io::Error::other("it has more bytes than its manifest says")));
        }
        self.bytes.extend_from_slice(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

fn is_absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound)),
        OciDistributionError::ServerError { code, .. } => *code == 404,
        _ => false,
    }
}

/// An error with its causes: those of requests name none in their own words.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

fn is_this_machine(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Who logs in to a registry.
fn login(registry: &str) -> Result<RegistryAuth, RegistryError> {
    let folder = match std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(".docker"),
            None => return Ok(RegistryAuth::Anonymous),
        },
    };
    let path = folder.join("config.json");
    let Some(bytes) = files::read(&path, MAX_MANIFEST_BYTES)? else { return Ok(RegistryAuth::Anonymous) };
    Ok(login_of(&bytes, registry).unwrap_or(RegistryAuth::Anonymous))
}

fn login_of(config: &[u8], registry: &str) -> Option<RegistryAuth> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let auths = config["auths"].as_object()?;
    let entry =
        [registry.to_string(), format!("https://{registry}"), format!("https://{registry}/")].iter().find_map(|key| auths.get(key))?;
    let decoded = openssl::base64::decode_block(entry["auth"].as_str()?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(RegistryAuth::Basic(user.into(), password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (registry, here) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org:5000", false),
            ("192.168.0.1:5000", false),
            ("[2001:db8::1]:5000", false),
            ("ghcr.io", false),
        ] {
            assert_eq!(is_this_machine(registry), here, "{registry}");
        }
    }

    #[test]
    fn logins_are_those_of_the_registry() {
        let config =
            br#"{"auths": {"a.example": {"auth": "dXNlcjpwYXNzOndvcmQ="}, "https://b.example": {"auth": "eDp5"}, "c.example": {}}}"#;
        assert_eq!(login_of(config, "a.example"), Some(RegistryAuth::Basic("user".into(), "pass:word".into())));
        assert_eq!(login_of(config, "b.example"), Some(RegistryAuth::Basic("x".into(), "y".into())));
        assert_eq!(login_of(config, "c.example"), None);
        assert_eq!(login_of(config, "d.example"), None);
        assert_eq!(login_of(b"{", "a.example"), None);
    }
}
