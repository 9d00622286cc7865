//! `pelton plugin keygen|sign|verify`: who vouches for a component.

use super::named;
use anyhow::{Context, Result, bail};
use pelton_core::trust::{Policy, TrustedKey};
use pelton_registry::{PrivateKey, PublicKey, SignatureFile, trust};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin keygen release\n\nwrites release.pem, the private key, which stays where plugins are released, and release.pub, which goes where they are used. Both are the PEM files that OpenSSL and others read; a release.pem that OpenSSL has made works as well."
)]
pub struct Keygen {
    /// Path of the two files, without their endings.
    name: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  pelton plugin sign plugins/parse-log --key release.pem\n\nThe signature covers the plugin's name, its version and the digest of the component, and is added to COMPONENT.wasm.sig; `pelton plugin push` takes it along."
)]
pub struct Sign {
    /// A crate's folder, which is built if it is stale, or a component's file.
    plugin: PathBuf,
    /// The private key.
    #[arg(long, value_name = "FILE.pem")]
    key: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pelton plugin verify parse-log.wasm --key release.pub\n  pelton plugin verify oci://registry.example.org/team/parse-log:1.2 --key ed25519:…"
)]
pub struct Verify {
    /// A crate's folder, a component's file, or a reference to a registry.
    plugin: String,
    /// A public key: a .pub file, or the key itself; may be given several times, and one of them is enough.
    #[arg(long, value_name = "FILE.pub", required = true)]
    key: Vec<String>,
}

pub fn keygen(command: &Keygen) -> Result<()> {
    let file = |ending: &str| {
        let mut path = command.name.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let (private, public) = (file(".pem"), file(".pub"));
    if public.exists() {
        bail!("{} is there already; a key is never overwritten", public.display());
    }
    let key = PrivateKey::generate()?;
    key.write_new(&private)?;
    let other = key.public()?;
    std::fs::write(&public, other.to_pem()?).with_context(|| format!("cannot write {}", public.display()))?;
    println!("{other}\n  private key  {}\n  public key   {}", private.display(), public.display());
    Ok(())
}

pub fn sign(command: &Sign) -> Result<()> {
    let key = PrivateKey::read(&command.key)?;
    let file = named::component(&command.plugin)?;
    let (_, plugin) = named::load(&file)?;
    let mut signatures = named::signatures(&file, &plugin)?;
    signatures.add(signatures.statement().sign(&key)?);
    let written = signatures.write_beside(&file)?;
    println!("{} {} ({}) signed by {}: {}", signatures.name, signatures.version, signatures.digest, key.public()?, written.display());
    Ok(())
}

pub fn verify(command: &Verify) -> Result<()> {
    let mut keys = vec![];
    for (name, text) in command.key.iter().map(|key| (key.clone(), key)) {
        let text = match text.starts_with("ed25519:") {
            true => text.clone(),
            false => std::fs::read_to_string(text).with_context(|| format!("cannot read the public key {text}"))?,
        };
        keys.push(TrustedKey { name, key: PublicKey::parse(&text)?.to_string(), plugins: vec!["*".into()], grants: None });
    }
    let policy = Policy { required: true, keys };
    let file = named::component_or_reference(&command.plugin)?;
    let digest = pelton_registry::digest_of(&std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
    let signatures: SignatureFile = trust::signatures_beside(&file, &digest).map_err(anyhow::Error::msg)?;
    // First the signatures: nothing of a component is compiled that nobody vouches for.
    let key = trust::judge(&policy, "`--key`", &command.plugin, &signatures, &[]).map_err(anyhow::Error::msg)?;
    let (_, plugin) = named::load(&file)?;
    trust::same_name(&signatures, &plugin.descriptor().name, &plugin.descriptor().version).map_err(anyhow::Error::msg)?;
    println!("{} {} ({digest}) is signed by {}", signatures.name, signatures.version, key.unwrap_or_default());
    Ok(())
}
