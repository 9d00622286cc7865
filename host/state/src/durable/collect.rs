//! Garbage: what no manifest that is kept names.
//!
//! Manifests are removed before the files that they name, so that a manifest that is there names only files that are there. Of files that no manifest names only those
//! of older generations are removed: this one's may be on their way into a manifest.

use super::StoreError;
use super::checkpoints::Checkpoints;
use super::manifest::Manifest;
use pelton_core::{Epoch, Generation, failpoint};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests.
    pub manifests: usize,
    /// Segments and outbox files.
    pub files: usize,
}

/// What is to be removed.
#[derive(Default)]
struct Garbage {
    manifests: Vec<Arc<Manifest>>,
    files: BTreeSet<String>,
    delivered: Epoch,
}

impl Checkpoints {
    /// Removes epochs before `keep_from`, but never the last that is committed, and what sinks have delivered. What is being read stays.
    pub async fn collect(&self, keep_from: Epoch) -> Result<Collected, StoreError> {
        self.check_owner().await?;
        let committed = self.progress().await.committed;
        let garbage = self.garbage(keep_from.min(committed), committed);
        let names: Vec<String> = garbage.manifests.iter().map(|manifest| manifest.id.file_name()).collect();
        self.storage.delete(&names).await?;
        failpoint::hit("collect.manifests");
        let files: Vec<String> = garbage.files.into_iter().collect();
        self.storage.delete(&files).await?;
        failpoint::hit("collect.after");
        let mut current = self.current();
        current.lineage.retain(|manifest| !garbage.manifests.iter().any(|gone| gone.id == manifest.id));
        current.delivered = garbage.delivered;
        Ok(Collected { manifests: names.len(), files: files.len() })
    }

    fn garbage(&self, keep_from: Epoch, committed: Epoch) -> Garbage {
        let mut current = self.current();
        current.pins.retain(|(pin, _)| pin.strong_count() > 0);
        let old = current.lineage.iter().take_while(|manifest| manifest.id.epoch < keep_from).count();
        let pinned = current.pins.iter().map(|(_, manifest)| manifest);
        let (gone, kept) = current.lineage.split_at(old);
        // A manifest that is read stays as well: it is what tells which files are needed.
        let gone: Vec<_> = gone.iter().filter(|manifest| !pinned.clone().any(|pinned| pinned.id == manifest.id)).cloned().collect();
        let mut needed: BTreeSet<&str> = kept.iter().chain(pinned).flat_map(|manifest| manifest.files()).collect();
        if let Some(replacement) = &current.replacement {
            needed.insert(&replacement.with.name);
        }
        let mut files: BTreeSet<String> =
            gone.iter().flat_map(|manifest| manifest.files()).filter(|name| !needed.contains(name)).map(str::to_string).collect();
        for manifest in current.lineage.iter().filter(|manifest| (current.delivered + 1..=committed).contains(&manifest.id.epoch)) {
            files.extend(manifest.contents.sinks.iter().flat_map(|sink| &sink.outbox).map(|entry| entry.name.clone()));
        }
        Garbage { manifests: gone, files, delivered: committed.max(current.delivered) }
    }

    /// Removes what dead generations have left.
    pub(super) async fn sweep(&self) -> Result<(), StoreError> {
        self.check_owner().await?;
        let mut orphans = Vec::new();
        for folder in ["segments", "outbox"] {
            // Listed before the manifests that count are looked at.
            let listed = self.storage.list(folder).await?;
            let current = self.current();
            let manifests = current.lineage.iter().chain(&current.adopted);
            let needed: BTreeSet<&str> = manifests.flat_map(|manifest| manifest.files()).collect();
            let dead = |name: &str| generation_of(name).is_some_and(|generation| generation < current.generation);
            orphans.extend(listed.into_iter().map(|file| file.name).filter(|name| dead(name) && !needed.contains(name.as_str())));
        }
        failpoint::hit("sweep.half");
        self.storage.delete(&orphans).await?;
        self.storage.sweep().await
    }
}

/// The generation in the name of a segment or an outbox file.
fn generation_of(name: &str) -> Option<Generation> {
    let (folder, name) = name.split_once('/')?;
    let parts: Vec<&str> = name.split('-').collect();
    match (folder, parts[..].len()) {
        ("segments", 4) => parts[2].parse().ok(),
        ("outbox", 4) => parts[1].parse().ok(),
        _ => None,
    }
}
