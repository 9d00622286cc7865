//! Checkpoints in the runtime: what tasks do at a barrier, and the driver that makes epochs of it.
//!
//! In reading order:
//! - [`start`]: from the state folder to the first epoch, also after a failure; [`load`], [`restored`]: what tasks go on from; [`evolve`]: which
//!   of what is stored that is.
//! - [`seals`]: what a task seals and how it is written down between messages.
//! - [`overlay`]: how much of it may wait to be durable.
//! - [`contents`]: what all tasks have sealed becomes the contents of an epoch.
//! - [`inspect`]: what is in a checkpoint, for people; [`cells`]: its cells; [`copy`]: the last one of a pipeline that does not run, as a savepoint; [`place`]: where they are.
//! - [`crashes`]: barriers and crashes at counts of rows, for tests.
//! - [`wiring`]: ties a laid-out pipeline to all of it.
//! - [`abandon`]: the end of a pipeline that will not go on.
//! - [`driver`]: carries out what the rules of `pelton_core::checkpoint` say; [`keep`]: epochs in the checkpoint store.
//! - [`figures`]: what all of it costs.
//!
//! Invariant: a task never waits for a checkpoint to be written. It waits for a sink that prepares, and for barriers of its other inputs.

pub mod abandon;
pub mod cells;
pub mod contents;
pub mod copy;
pub mod crashes;
pub mod driver;
pub mod evolve;
pub mod figures;
pub mod inspect;
pub mod keep;
pub mod load;
pub mod outbox;
pub mod overlay;
pub mod place;
pub mod restored;
pub mod seals;
pub mod start;
pub mod wiring;

pub use copy::copy_newest;
pub use start::{CheckpointOptions, FromSavepoint, Otherwise, Start, Started};

use crate::Failure;
use crate::message::Barrier;
use pelton_core::Epoch;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Removes a folder's checkpoints, so that the pipeline begins anew; refused while a process uses them.
pub fn forget(checkpoints: &Path) -> Result<(), Failure> {
    pelton_state::durable::storage::LocalFolder::new(checkpoints).clear().map_err(Failure::store)
}

/// What ties a task to the driver.
#[derive(Clone)]
pub struct Links {
    /// The epoch that the pipeline begins with.
    pub epoch: Epoch,
    /// What the task seals.
    pub reports: mpsc::UnboundedSender<seals::TaskReport>,
    /// The barrier that is wanted.
    pub barriers: watch::Receiver<Barrier>,
    /// The last decided epoch.
    pub decided: watch::Receiver<Epoch>,
    /// What is not durable yet.
    pub overlay: Arc<overlay::Overlay>,
    /// In tests.
    pub counter: Option<Arc<crashes::Counter>>,
}
