//! Manifests: what an epoch consists of.
//!
//! `manifests/<epoch, 12 digits>-<generation>` is a sealed JSON file (`sealed.rs`) that is created only if absent. That it exists makes its epoch *prepared*:
//! everything that it names was durable before. Its hash stands in the decision.

use super::sealed::{base64, hex};
use super::segment::SegmentFile;
use pelton_core::swap::Versions;
use pelton_core::{Epoch, Generation, SplitPosition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format that is written. Every format from 1 is read; fields may be added within one, with a default.
pub const FORMAT: u32 = 1;

/// [`StateEntry::since`] of a state that begins in the epoch at hand although the one before had one of its name.
pub const NOW: Epoch = Epoch::MAX;

/// Which manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ManifestId {
    /// The epoch.
    pub epoch: Epoch,
    /// Who has prepared it.
    pub generation: Generation,
}

impl ManifestId {
    /// The name of the file.
    pub fn file_name(&self) -> String {
        format!("manifests/{:012}-{}", self.epoch, self.generation)
    }

    /// From the name of a file.
    pub fn of_file_name(name: &str) -> Option<ManifestId> {
        let (epoch, generation) = name.strip_prefix("manifests/")?.split_once('-')?;
        let id = ManifestId { epoch: epoch.parse().ok()?, generation: generation.parse().ok()? };
        (id.file_name() == name).then_some(id)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of pelton that has written it.
    pub version: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Which life of that name: a pipeline that begins anew gets another.
    pub incarnation: String,
    /// Which epoch this is, and who has prepared it.
    pub id: ManifestId,
    /// The epoch that it follows.
    pub parent: Option<ManifestId>,
    /// Its state, from old to new.
    pub segments: Vec<SegmentEntry>,
    /// The rest.
    pub contents: Contents,
}

/// What the runtime has to say of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// Hash of the plan.
    pub plan: String,
    /// Who decides: `kafka`, `postgres` or `local`.
    pub decider: String,
    /// The last epoch: all sources have ended.
    pub ended: bool,
    /// Version of the hash that gives keys their groups.
    pub hash_version: u32,
    /// Key groups of the pipeline.
    pub key_groups: u16,
    /// Version of the time zone data that windows were made with.
    pub time_zones: String,
    /// Operators with state, and all the state that counts: what is not listed is dropped.
    pub operators: Vec<OperatorEntry>,
    /// Sources.
    pub sources: Vec<SourceEntry>,
    /// Sinks.
    pub sinks: Vec<SinkEntry>,
    /// What was counted since the pipeline began.
    pub counters: BTreeMap<String, u64>,
    /// By which versions of its transforms the next epoch is processed.
    #[serde(default)]
    pub versions: Versions,
    /// What the present start was told to drop: one that is told the same after it drops nothing that has come since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// An operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorEntry {
    /// What it is matched by after a change of the pipeline.
    pub uid: String,
    /// Its transform type.
    pub kind: String,
    /// Its tasks.
    pub parallelism: u32,
    /// `sha256:…` of its plugin.
    pub plugin: Option<String>,
    /// Its states.
    pub states: Vec<StateEntry>,
}

/// A state of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Its name, unique within the operator.
    pub name: String,
    /// It is kept by partition, not by key.
    pub unkeyed: bool,
    /// What its cells are made of, in the words of [`crate::Layout`]; empty if it is not made of cells.
    pub layout: String,
    /// What a plugin says of its values: version and schema, in its own words.
    #[serde(with = "base64")]
    pub schema: Vec<u8>,
    /// The first epoch that has this state: rows of segments before belong to one of the same name that was dropped. Filled in by the store.
    #[serde(default)]
    pub since: Epoch,
}

/// A source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEntry {
    /// What it is matched by.
    pub uid: String,
    /// What its connector wants to remember of its plan.
    #[serde(with = "base64")]
    pub plan: Vec<u8>,
    /// Where each split goes on.
    #[serde(with = "positions")]
    pub positions: Vec<SplitPosition>,
}

/// A sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkEntry {
    /// What it is matched by.
    pub uid: String,
    /// Its transform type.
    pub kind: String,
    /// What it needs to make the epoch visible, by shard.
    pub staged: Vec<StagedEntry>,
    /// Rows that it has still to deliver.
    pub outbox: Vec<OutboxEntry>,
}

/// What a shard of a sink has staged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedEntry {
    /// The shard.
    pub shard: u32,
    /// In the connector's own words.
    #[serde(with = "base64")]
    pub bytes: Vec<u8>,
}

/// An outbox file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The file.
    pub name: String,
    /// The shard of the sink that it belongs to.
    pub shard: u32,
    /// Length of what is in it.
    pub bytes: u64,
    /// xxh3-64 of what is in it.
    #[serde(with = "hex")]
    pub hash: u64,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// The file.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The hash at its end.
    #[serde(with = "hex")]
    pub hash: u64,
    /// Its rows.
    pub rows: u64,
    /// The first epoch whose changes are in it; 0: it came with a savepoint.
    pub first: Epoch,
    /// The last epoch.
    pub last: Epoch,
}

impl SegmentEntry {
    /// The file, as it is opened.
    pub fn file(&self) -> SegmentFile {
        SegmentFile { name: self.name.clone(), bytes: self.bytes, hash: self.hash, rows: self.rows }
    }
}

impl Manifest {
    /// A state that counts.
    pub fn state(&self, uid: &str, name: &str) -> Option<&StateEntry> {
        self.contents.state(uid, name)
    }

    /// Every file that it names, but for itself.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let outbox = self.contents.sinks.iter().flat_map(|sink| &sink.outbox).map(|entry| entry.name.as_str());
        self.segments.iter().map(|segment| segment.name.as_str()).chain(outbox)
    }
}

impl Contents {
    /// A state that counts.
    pub fn state(&self, uid: &str, name: &str) -> Option<&StateEntry> {
        self.states().find(|(owner, state)| *owner == uid && state.name == name).map(|(_, state)| state)
    }

    /// Every state with the uid of its operator.
    pub fn states(&self) -> impl Iterator<Item = (&str, &StateEntry)> {
        self.operators.iter().flat_map(|operator| operator.states.iter().map(|state| (operator.uid.as_str(), state)))
    }
}

/// Positions, their bytes as base64.
mod positions {
    use super::{SplitPosition, base64};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Entry {
        split: String,
        #[serde(with = "base64")]
        position: Vec<u8>,
    }

    pub fn serialize<S: Serializer>(positions: &[SplitPosition], out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(positions.iter().map(|at| Entry { split: at.split.clone(), position: at.position.clone() }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SplitPosition>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        Ok(entries.into_iter().map(|Entry { split, position }| SplitPosition { split, position }).collect())
    }
}
