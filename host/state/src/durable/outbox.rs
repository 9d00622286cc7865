//! Outbox files: what a sink that follows a decision has still to deliver, kept until it is delivered.
//!
//! A file holds a piece of the sink's own bytes as they are; their length and hash stand in the manifest.

use super::StoreError;
use super::checkpoints::Checkpoints;
use super::manifest::OutboxEntry;
use super::storage::Created;
use bytes::Bytes;
use pelton_core::{Epoch, failpoint};
use xxhash_rust::xxh3::xxh3_64;

impl Checkpoints {
    /// Keeps a piece of what a shard of a sink has to deliver of an epoch. The entry belongs into the epoch's manifest.
    pub async fn write_outbox(
        &self,
        epoch: Epoch,
        sink: &str,
        (shard, piece): (u32, u32),
        bytes: Bytes,
    ) -> Result<OutboxEntry, StoreError> {
        failpoint::hit("outbox.before");
        let generation = self.current().generation;
        // A uid may hold what a file name may not.
        let name = format!("outbox/{epoch:012}-{generation}-{:016x}-{shard}.{piece}", xxh3_64(sink.as_bytes()));
        let entry = OutboxEntry { name, shard, bytes: bytes.len() as u64, hash: xxh3_64(&bytes) };
        if self.storage.put_new(&entry.name, bytes).await? == Created::Exists {
            return Err(StoreError::internal(format!("{} was written before", self.storage.describe(&entry.name))));
        }
        failpoint::hit("outbox.after");
        Ok(entry)
    }

    /// What was kept.
    pub async fn read_outbox(&self, entry: &OutboxEntry) -> Result<Bytes, StoreError> {
        let damaged = |what: &str| StoreError::damaged(self.storage.describe(&entry.name), what);
        let bytes = self.storage.get(&entry.name).await?.ok_or_else(|| damaged("it does not exist"))?;
        if bytes.len() as u64 != entry.bytes || xxh3_64(&bytes) != entry.hash { Err(damaged("its checksum is wrong")) } else { Ok(bytes) }
    }
}
