//! What a store keeps of swaps: components, the swap that is armed, and those that were made.
//!
//! ```text
//! plugins/sha256-<hex>                   a component, as it is; its name is checked against its bytes by whoever loads it
//! swaps/armed-<generation>-<number>      sealed JSON: a swap that may not have been made yet
//! swaps/<number, 12 digits>              sealed JSON: a swap that was made
//! ```
//!
//! Whether a swap was made is told by the manifests alone ([`super::Contents::versions`]); these files say what it was.

use super::checkpoints::Checkpoints;
use super::storage::Storage;
use super::{StoreError, sealed};
use bytes::Bytes;
use pelton_core::swap::{Armed, Made};

const PLUGINS: &str = "plugins";
const SWAPS: &str = "swaps";
const ARMED: &str = "swaps/armed-";

fn made(number: u64) -> String {
    format!("{SWAPS}/{number:012}")
}

fn component(digest: &str) -> String {
    format!("{PLUGINS}/{}", digest.replace(':', "-"))
}

impl Checkpoints {
    /// Keeps a component; it is durable on return.
    pub async fn keep_component(&self, digest: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.storage.put_new(&component(digest), bytes).await.map(drop)
    }

    /// Writes down what the next barrier is to change.
    pub async fn arm(&self, armed: &Armed) -> Result<(), StoreError> {
        // Another of this number may be there that was given up.
        self.disarm().await?;
        let name = format!("{ARMED}{}-{}", self.current().generation, armed.number);
        let (bytes, _) = sealed::write(armed)?;
        self.storage.put_new(&name, bytes).await.map(drop)
    }

    /// Nothing is to be changed any more.
    pub async fn disarm(&self) -> Result<(), StoreError> {
        let names: Vec<String> = armed_names(&*self.storage).await?;
        self.storage.delete(&names).await
    }

    /// Writes down that a swap was made; twice is as good as once.
    pub async fn record_swap(&self, swap: &Made) -> Result<(), StoreError> {
        let (bytes, _) = sealed::write(swap)?;
        self.storage.put_new(&made(swap.number), bytes).await?;
        self.disarm().await
    }

    /// The swap that may not have been made.
    pub async fn armed(&self) -> Result<Option<Armed>, StoreError> {
        let names = armed_names(&*self.storage).await?;
        let Some(name) = names.iter().max_by_key(|name| order(name)) else { return Ok(None) };
        read(&*self.storage, name).await
    }

    /// Swaps that were made, from old to new.
    pub async fn swaps(&self) -> Result<Vec<Made>, StoreError> {
        swaps(&*self.storage).await
    }

    /// A component that was kept.
    pub async fn component(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        load_component(&*self.storage, digest).await
    }
}

/// A component that a store keeps, which need not be one's own.
pub async fn load_component(storage: &dyn Storage, digest: &str) -> Result<Option<Bytes>, StoreError> {
    storage.get(&component(digest)).await
}

/// The swaps that were made, of a store that need not be one's own.
pub async fn swaps(storage: &dyn Storage) -> Result<Vec<Made>, StoreError> {
    let mut made = Vec::new();
    for file in storage.list(SWAPS).await?.iter().filter(|file| !file.name.starts_with(ARMED)) {
        made.extend(read::<Made>(storage, &file.name).await?);
    }
    Ok(made)
}

async fn armed_names(storage: &dyn Storage) -> Result<Vec<String>, StoreError> {
    Ok(storage.list(SWAPS).await?.into_iter().map(|file| file.name).filter(|name| name.starts_with(ARMED)).collect())
}

fn order(name: &str) -> Vec<u64> {
    name.trim_start_matches(ARMED).split('-').map(|number| number.parse().unwrap_or_default()).collect()
}

async fn read<T: serde::de::DeserializeOwned>(storage: &dyn Storage, name: &str) -> Result<Option<T>, StoreError> {
    match storage.get(name).await? {
        Some(bytes) => match sealed::read(&bytes) {
            Ok((value, _)) => Ok(Some(value)),
            Err(what) => Err(StoreError::damaged(storage.describe(name), what)),
        },
        None => Ok(None),
    }
}
