//! State out of the checkpoint store, or out of a savepoint, for the pipeline as it is now.
//!
//! State is matched by uid, and a plugin's own states by name ([`super::evolve`]). What has no match is refused unless it is dropped by name: it would be
//! lost without anybody having said so.

use super::evolve::{Outcome, compare};
use super::keep::{COUNTED, HASH_VERSION, NodeEntry, UNKEYED};
use super::restored::{RestoredOperator, groups_of};
use crate::counts::Counts;
use crate::failure::Failure;
use pelton_connect::Staged;
use pelton_core::calendar::TIME_ZONES_VERSION;
use pelton_core::failpoint;
use pelton_core::key::KEY_GROUPS;
use pelton_state::Rows;
use pelton_state::durable::{Contents, Manifest, OperatorEntry, Snapshot};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Whether the sinks are those that have staged something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The pipeline goes on.
    Same,
    /// It is a new one, with the state of another: that one's output is its own business.
    New,
}

/// When rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Into memory, before anything starts.
    Now,
    /// By each task as it needs them: they may be more than fit into memory.
    Later,
}

/// The rows of a state that belong to a task, a portion at a time; read where `io` is.
pub fn portions(
    snapshot: Arc<Snapshot>,
    (uid, name): (String, String),
    (task, tasks): (usize, usize),
    io: &tokio::runtime::Handle,
) -> mpsc::Receiver<Result<Rows, Failure>> {
    let (sender, receiver) = mpsc::channel(PORTIONS);
    let handle = io.clone();
    // Merging rows is work.
    io.spawn_blocking(move || {
        let read = async {
            let mut merge = snapshot.rows(&uid, &name, groups_of(task, tasks)).await?;
            while let Some(portion) = merge.next().await? {
                // A task that is gone needs no more.
                if sender.send(Ok(portion)).await.is_err() {
                    break;
                }
                failpoint::hit("run.portion");
            }
            Ok(())
        };
        if let Err(error) = handle.block_on(read) {
            let _ = sender.blocking_send(Err(Failure::store(error)));
        }
    });
    receiver
}

/// Portions that wait for their task: each is some hundred KiB.
const PORTIONS: usize = 2;

/// What a sink has staged in an epoch, by shard.
pub fn staged_of(manifest: &Manifest, uid: &str) -> Vec<Staged> {
    let sink = manifest.contents.sinks.iter().find(|sink| sink.uid == uid);
    sink.map_or_else(Vec::new, |sink| sink.staged.iter().map(|staged| Staged(staged.bytes.clone())).collect())
}

/// What a start goes on from.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By node.
    pub restored: HashMap<usize, RestoredOperator>,
    /// Uids whose stored state was dropped although there is a transform for it.
    pub anew: HashSet<String>,
}

/// Reads it, once it is known that all of it fits.
pub async fn load(
    snapshot: &Snapshot,
    nodes: &[NodeEntry],
    drop_state: &[String],
    ends: Ends,
    reading: Reading,
) -> Result<Loaded, Failure> {
    let manifest = snapshot.manifest();
    check_keys(manifest)?;
    let Outcome { mut evolved, anew } = compare(manifest, nodes, drop_state)?;
    let mut restored: HashMap<usize, RestoredOperator> = HashMap::new();
    for (node, entry) in nodes.iter().enumerate() {
        let mut operator = RestoredOperator { evolved: evolved.remove(&entry.uid), ..RestoredOperator::default() };
        let stored = manifest.contents.operators.iter().find(|operator| operator.uid == entry.uid);
        if let Some(stored) = stored.filter(|stored| !anew.contains(&stored.uid)) {
            fill(&mut operator, snapshot, stored, entry.tasks.max(1), reading).await?;
        }
        if let Some(source) = manifest.contents.sources.iter().find(|source| source.uid == entry.uid) {
            operator.read = Some((source.plan.clone(), source.positions.clone()));
        }
        if ends == Ends::Same {
            operator.staged = staged_of(manifest, &entry.uid);
        }
        restored.insert(node, operator);
    }
    Ok(Loaded { restored, anew })
}

/// Whether keys have the groups and windows the calendar that they have here: else rows would be looked for where they are not.
fn check_keys(manifest: &Manifest) -> Result<(), Failure> {
    let Contents { hash_version, key_groups, time_zones, .. } = &manifest.contents;
    if (*hash_version, *key_groups) != (HASH_VERSION, KEY_GROUPS) {
        let message = format!(
            "checkpoint {} divides keys into {key_groups} groups by version {hash_version} of the hash, and this pelton into {KEY_GROUPS} by version \
             {HASH_VERSION}\n  next: go on with pelton {}, which has written it",
            manifest.id.epoch, manifest.version
        );
        return Err(Failure::Checkpoint { message, refused: true });
    }
    if time_zones != TIME_ZONES_VERSION {
        tracing::warn!(
            then = time_zones,
            now = TIME_ZONES_VERSION,
            "time zone data has changed since the checkpoint: windows by the calendar that are open keep the ends that they were given"
        );
    }
    Ok(())
}

async fn fill(
    into: &mut RestoredOperator,
    snapshot: &Snapshot,
    stored: &OperatorEntry,
    tasks: usize,
    reading: Reading,
) -> Result<(), Failure> {
    into.later = (reading == Reading::Later).then(|| (stored.uid.clone(), tasks));
    for state in stored.states.iter().filter(|state| !state.unkeyed) {
        into.layouts.insert(state.name.clone(), state.layout.clone());
        if reading == Reading::Later {
            continue;
        }
        into.cells.resize_with(tasks, HashMap::new);
        for task in 0..tasks {
            let mut merge = snapshot.rows(&stored.uid, &state.name, groups_of(task, tasks)).await.map_err(Failure::store)?;
            let rows = into.cells[task].entry(state.name.clone()).or_default();
            while let Some(chunk) = merge.next().await.map_err(Failure::store)? {
                rows.push(chunk);
            }
        }
    }
    let unkeyed = snapshot.parts(&stored.uid, UNKEYED).await.map_err(Failure::store)?;
    into.unkeyed = RestoredOperator::unkeyed_from(unkeyed);
    let counts = snapshot.parts(&stored.uid, COUNTED).await.map_err(Failure::store)?;
    into.counts = Counts::of_all(&RestoredOperator::unkeyed_from(counts));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_state::durable::ManifestId;

    #[test]
    fn keys_that_were_divided_otherwise_are_refused() {
        let check = |hash_version, key_groups, time_zones: &str| {
            let contents = Contents { hash_version, key_groups, time_zones: time_zones.into(), ..Contents::default() };
            let manifest = Manifest {
                format: 1,
                version: "7.1.0".into(),
                pipeline: "p".into(),
                incarnation: "i".into(),
                id: ManifestId { epoch: 12, generation: 1 },
                parent: None,
                segments: Vec::new(),
                contents,
            };
            check_keys(&manifest).map_err(|failure| failure.to_string())
        };
        assert_eq!(check(HASH_VERSION, KEY_GROUPS, TIME_ZONES_VERSION), Ok(()));
        assert_eq!(check(HASH_VERSION, KEY_GROUPS, "1970a"), Ok(()), "that is only said");
        for refused in [check(HASH_VERSION + 1, KEY_GROUPS, ""), check(HASH_VERSION, 1_024, "")] {
            let message = refused.expect_err("is refused");
            assert!(message.contains("checkpoint 12 divides keys into") && message.contains("next: go on with pelton 7.1.0"), "{message}");
        }
    }
}
