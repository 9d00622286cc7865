//! What a sink of files stages at a barrier, and the names of files that nobody is to see yet.
//!
//! ```text
//!  DIR/.<name>.<pipeline>-<sink>.g<generation>.<shard>-<number>.part    a file as it will be seen
//!  DIR/.<name>.<pipeline>-<sink>.g<generation>.<shard>-<number>.rows    the same rows as an Arrow stream, where files cannot be written on
//!  DIR/_pelton/<pipeline>-<sink>/<epoch>-<generation>.json              what has become visible with an epoch
//! ```
//!
//! Invariant: a process writes only to files with its own generation in their names. What an earlier one had begun is read as far as it
//! was committed, so that a process that was taken for dead and goes on writes where nobody looks.

use super::disk::Committed;
use super::publish::Naming;
use crate::ConnectError;
use crate::commit::{Identity, Staged};
use pelton_core::{Epoch, Generation, Instant};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The form of [`ShardStaged`]; another one is refused.
const VERSION: u32 = 1;
/// Of the pipeline's name, in names of files: enough to be recognized. The hash tells pipelines and sinks apart.
const MAX_NAME_BYTES: usize = 40;

/// Names of one sink's hidden files.
#[derive(Clone, Debug)]
pub struct Staging {
    naming: Naming,
    /// Which sink of which pipeline.
    tag: String,
    /// Whose files.
    pub generation: Generation,
    /// The pipeline.
    pub pipeline: String,
}

/// What a shard has made of the epochs up to a barrier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardStaged {
    version: u32,
    /// Who staged it.
    pub pipeline: String,
    /// Its life.
    pub generation: Generation,
    /// At the barrier of this epoch. What a shard staged last holds for every epoch after its end too.
    pub epoch: Epoch,
    /// Number of the next part that is closed.
    pub next: u32,
    /// Files that grow on.
    pub open: Vec<OpenFile>,
    /// Files that become visible with the epoch.
    pub closed: Vec<ClosedFile>,
    /// Hidden files that nobody needs once the epoch counts.
    pub unneeded: Vec<String>,
    /// The name of a bounded run's file was taken by an earlier run, and is written over.
    #[serde(default)]
    pub replaces: bool,
    /// Files of earlier runs, removed when the first of this one are visible.
    pub earlier: Vec<EarlierFile>,
}

/// A file that grows on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenFile {
    /// Start of the window, where windows matter; microseconds.
    pub window: Option<i64>,
    /// When it was begun; microseconds.
    pub begun: i64,
    /// The hidden files that hold its rows, in order: one of each life that wrote to it.
    pub pieces: Vec<Piece>,
    /// Rows in them.
    pub rows: u64,
    /// Their columns.
    pub columns: String,
}

/// What one life has written of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The hidden file.
    pub file: String,
    /// Bytes of it that are committed; what follows them counts for nothing.
    pub length: u64,
    /// xxh3-64 of them; earlier versions did not say.
    #[serde(default)]
    pub hash: Option<u64>,
}

/// A file that becomes visible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedFile {
    /// Its hidden name.
    pub file: String,
    /// The name that it gets.
    pub name: String,
    /// A file of an earlier run has that name and is replaced.
    pub replaces: bool,
    /// Rows in it.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// xxh3-64 of it; earlier versions did not say.
    #[serde(default)]
    pub hash: Option<u64>,
}

/// A file of an earlier run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub length: u64,
    /// When it was last written, nanoseconds: another file of this name is not removed.
    pub modified: u128,
}

impl Staging {
    /// Of the sink with this uid.
    pub fn new(naming: Naming, identity: &Identity, uid: &str) -> Staging {
        let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name: String = identity.pipeline.chars().map(|c| if kept(c) { c } else { '_' }).take(MAX_NAME_BYTES).collect();
        let both = format!("{}\0{uid}", identity.pipeline);
        let tag = format!("{name}-{:016x}", xxhash_rust::xxh3::xxh3_64(both.as_bytes()));
        Staging { naming, tag, generation: identity.generation, pipeline: identity.pipeline.clone() }
    }

    /// Where a name in what is staged stands for.
    pub fn path(&self, file: &str) -> PathBuf {
        self.naming.path.with_file_name(file)
    }

    /// A piece where it lies.
    pub fn committed(&self, piece: &Piece) -> Committed {
        Committed { path: self.path(&piece.file), length: piece.length, hash: piece.hash }
    }

    /// Number `number` of the hidden files of a shard: what is written on, and the rows beside it.
    pub fn hidden(&self, number: u64) -> (String, String) {
        let stem = format!("{}{}.{}-{number}", self.prefix(), self.generation, self.naming.shard);
        (format!("{stem}.part"), format!("{stem}.rows"))
    }

    /// The generation of a hidden file of this sink; `None` if it is none.
    pub fn generation_of(&self, file: &str) -> Option<Generation> {
        let (generation, _) = file.strip_prefix(&self.prefix())?.split_once('.')?;
        generation.parse().ok()
    }

    /// What became visible with an epoch that this generation staged.
    pub fn list(&self, epoch: Epoch, staged_by: Generation) -> PathBuf {
        self.lists().join(format!("{epoch:010}-{staged_by}.json"))
    }

    /// The folder of those lists.
    pub fn lists(&self) -> PathBuf {
        self.naming.directory().join("_pelton").join(&self.tag)
    }

    fn prefix(&self) -> String {
        format!(".{}.{}.g", self.naming.path.file_name().unwrap_or_default().to_string_lossy(), self.tag)
    }
}

impl ShardStaged {
    /// Nothing yet.
    pub fn new(staging: &Staging) -> ShardStaged {
        ShardStaged { version: VERSION, pipeline: staging.pipeline.clone(), generation: staging.generation, ..ShardStaged::default() }
    }

    /// In words that can be kept.
    pub fn to_staged(&self) -> Staged {
        Staged(serde_json::to_vec(self).expect("numbers and text are JSON"))
    }

    /// What `to_staged` made; `None` where a shard had nothing to stage.
    pub fn of(staged: &Staged) -> Result<Option<ShardStaged>, ConnectError> {
        if staged.0.is_empty() {
            return Ok(None);
        }
        let refused =
            |why: String| ConnectError::user(format!("what a file sink staged is not readable: {why}"), "run the version that wrote it");
        let shard: ShardStaged = serde_json::from_slice(&staged.0).map_err(|error| refused(error.to_string()))?;
        match shard.version {
            VERSION => Ok(Some(shard)),
            other => Err(refused(format!("it has version {other}, and this program knows {VERSION}"))),
        }
    }
}

impl OpenFile {
    /// Its window.
    pub fn window(&self) -> Option<Instant> {
        self.window.map(Instant::from_micros_saturating)
    }
}

impl EarlierFile {
    /// A file as it is.
    pub fn of(name: String, metadata: &std::fs::Metadata) -> EarlierFile {
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        EarlierFile { name, length: metadata.len(), modified: modified.map_or(0, |since| since.as_nanos()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_pipelines_sinks_and_generations_apart() {
        let staging = |pipeline: &str, generation, uid| {
            let identity = Identity {
                pipeline: pipeline.into(),
                generation,
                again: false,
                interval: std::time::Duration::ZERO,
                outbox: PathBuf::new(),
            };
            Staging::new(Naming { path: "out/x.json".into(), shard: 2, shards: 3 }, &identity, uid)
        };
        let one = staging("orders-7f3a", 12, "Write");
        let (file, rows) = one.hidden(4);
        assert!(file.starts_with(".x.json.orders-7f3a-") && file.ends_with(".g12.2-4.part"), "{file}");
        assert_eq!(one.path(&rows), std::path::Path::new("out").join(&rows));
        assert_eq!(one.generation_of(&file), Some(12));
        for other in [staging("orders-7f3b", 12, "Write"), staging("orders-7f3a", 12, "Write2")] {
            assert_eq!(other.generation_of(&file), None);
        }
        assert_eq!(staging("orders-7f3a", 13, "Write").generation_of(&file), Some(12));
        assert!(one.list(7, 12).ends_with("0000000007-12.json"));
    }
}
