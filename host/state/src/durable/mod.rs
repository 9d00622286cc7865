//! Durable state: what survives the process.
//!
//! ```text
//! identity                                          whose store this is (`checkpoints.rs`)
//! lock                                              local folders: a second start by mistake (`storage/local.rs`)
//! progress/<slot>                                   the owner, what is decided, what is committed (`progress.rs`)
//! manifests/<epoch>-<generation>                    what an epoch consists of (`manifest.rs`)
//! segments/<first>-<last>-<generation>-<number>     rows of state (`segment.rs`)
//! outbox/<epoch>-<generation>-<sink>-<shard>.<piece> rows that a sink has still to deliver (`outbox.rs`)
//! plugins/…, swaps/…                               components and changes of a running pipeline (`swaps.rs`)
//! ```
//!
//! Numbers in names have leading zeros, so that their order is that of the names. In reading order:
//! - [`storage`]: folders and object stores.
//! - [`segment`], [`merge`]: files of rows; several read as one.
//! - [`manifest`], `sealed`: small files of JSON.
//! - [`progress`]: the register, and who may write it.
//! - [`checkpoints`]: all of it together, with `collect` (garbage), `compact` (merging) and `outbox`.
//! - [`snapshot`], [`savepoint`]: state that is read, and copied.
//! - [`swaps`]: what a running pipeline was changed to.
//!
//! Invariant: a file is written once. Whatever a file names was durable before it. What an owner of an older generation writes, nobody reads.

pub mod checkpoints;
pub mod collect;
pub mod compact;
mod error;
pub mod manifest;
pub mod merge;
mod outbox;
pub mod progress;
pub mod savepoint;
mod sealed;
pub mod segment;
pub mod snapshot;
pub mod storage;
pub mod swaps;

pub use checkpoints::{Checkpoints, EpochState, Identity, StateParts, StateRows, Stored, StoredEpoch, TakeOver, Taken, Unreadable, look};
pub use collect::Collected;
pub use compact::Compacted;
pub use error::StoreError;
pub use manifest::{Contents, Manifest, ManifestId, NOW, OperatorEntry, OutboxEntry, SinkEntry, SourceEntry, StagedEntry, StateEntry};
pub use merge::Merge;
pub use progress::Progress;
pub use snapshot::Snapshot;
pub use storage::Storage;

#[cfg(test)]
mod tests;

/// A number that nobody else has: each state of the standard library's hasher has keys of its own, which is all the randomness that is needed.
fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
}
