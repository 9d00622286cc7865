//! What a checkpoint is called, and what both ends of a pipeline have to say about it.

use serde::{Deserialize, Serialize};

/// Number of an epoch: what lies between two barriers. The first is 1; 0 stands for "nothing yet".
pub type Epoch = u64;

/// One life of a pipeline's process. A later one fences the earlier.
pub type Generation = u64;

/// What a decider has written down: this epoch's output counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Name and incarnation of the pipeline.
    pub pipeline: String,
    /// The epoch.
    pub epoch: Epoch,
    /// Who decided.
    pub generation: Generation,
    /// xxh3-64 of the manifest's bytes.
    pub manifest: u64,
}

/// Where reading goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPosition {
    /// What tells a split from the others of its source, also after a restart: a partition, or a file and where its chunk begins.
    pub split: String,
    /// Where its reader goes on, in the connector's own words.
    pub position: Vec<u8>,
}
