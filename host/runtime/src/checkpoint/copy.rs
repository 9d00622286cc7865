//! A savepoint of a pipeline that does not run: its last checkpoint, copied.
//!
//! Invariant: no older epoch than the last one that counts is copied. Where a sink decides and the process has died, the store may know of one less; then
//! nothing is copied.

use super::inspect::shown;
use pelton_core::Epoch;
use pelton_state::durable::{Snapshot, StoreError, Stored, look, storage};

/// Copies the last decided epoch of a store that nobody uses to another place, as a savepoint; gives its number.
pub async fn copy_newest(store: &str, place: &str) -> Result<Epoch, String> {
    copy(store, place).await.map_err(shown)
}

async fn copy(store: &str, place: &str) -> Result<Epoch, StoreError> {
    let storage = storage::open(store)?;
    let stored = look(&*storage).await?;
    if let Some((epoch, decider)) = perhaps_decided(&stored) {
        return Err(StoreError::user(
            format!(
                "whether checkpoint {epoch} counts was decided by {decider}, and it is not recorded here what it said: the pipeline did not come to its end"
            ),
            "run the pipeline, and take the savepoint while it runs or with `pelton stop STATE --savepoint PLACE`",
        ));
    }
    let snapshot = Snapshot::newest_of(storage, &stored)?;
    let target = storage::open(place)?;
    snapshot.copy_to(&*target).await?;
    Ok(snapshot.manifest().id.epoch)
}

/// The newest epoch that something else than the store may have decided without its being recorded, and who decides it.
fn perhaps_decided(stored: &Stored) -> Option<(Epoch, &str)> {
    let recorded = stored.progress.decided.as_ref().map_or(0, |decision| decision.epoch);
    let later = stored.epochs.iter().filter(|epoch| epoch.id.epoch > recorded);
    later.map(|epoch| (epoch.id.epoch, epoch.manifest.contents.decider.as_str())).find(|(_, decider)| *decider != LOCAL)
}

/// What manifests say where the store itself decides.
const LOCAL: &str = "local";

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_core::checkpoint::Take;
    use pelton_state::durable::{Checkpoints, Contents, EpochState, Identity, TakeOver};

    /// One epoch decided and recorded, another prepared.
    async fn died(store: &str, decider: &str) {
        let identity = Identity { pipeline: "p".into(), version: "1".into() };
        let checkpoints = Checkpoints::open(storage::open(store).expect("opens"), identity).await.expect("opens");
        checkpoints.take_generation(Take::Above(0), TakeOver::No).await.expect("is free");
        let contents = Contents { decider: decider.into(), ..Contents::default() };
        let first = checkpoints.write_epoch(1, contents.clone(), EpochState::default()).await.expect("prepares");
        checkpoints.record_commit(&checkpoints.decision(&first)).await.expect("records");
        checkpoints.write_epoch(2, contents, EpochState::default()).await.expect("prepares");
    }

    #[test]
    fn what_a_sink_may_have_decided_is_not_left_out_of_a_savepoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let io = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        io.block_on(async {
            died(&at("ours"), LOCAL).await;
            assert_eq!(copy_newest(&at("ours"), &at("one")).await, Ok(1), "the store knows what it has decided");
            died(&at("theirs"), "Kafka at h:1").await;
            let refused = copy_newest(&at("theirs"), &at("two")).await.expect_err("may be one behind");
            assert!(refused.contains("checkpoint 2 counts was decided by Kafka at h:1") && refused.contains("next: run"), "{refused}");
            assert!(!folder.path().join("two").exists());
        });
    }
}
