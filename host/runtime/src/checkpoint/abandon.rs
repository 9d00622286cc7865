//! What is done when a pipeline has failed whose state nobody keeps: it will never go on, so what its sinks have hidden for that is cleared away.

use super::load::staged_of;
use super::outbox;
use super::start::CheckpointOptions;
use crate::failure::Failure;
use pelton_connect::{CommitTarget, Identity, open_committer};
use pelton_pipeline::graph::{Graph, Transform};
use pelton_state::durable::{self, Checkpoints, Progress};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

/// Makes visible what was decided and is not visible yet, and removes hidden files. To be called before the state is removed, and when nothing runs any more.
pub async fn abandon(graph: &Graph, base_dir: PathBuf, options: &CheckpointOptions, io: &tokio::runtime::Handle) -> Result<(), Failure> {
    let storage = durable::storage::open(&options.place()).map_err(Failure::store)?;
    let identity = durable::Identity { pipeline: graph.name.clone(), version: env!("CARGO_PKG_VERSION").into() };
    let store = Checkpoints::open(storage, identity).await.map_err(Failure::store)?;
    let Progress { decided, committed, .. } = store.progress().await;
    let stored = store.stored().await.map_err(Failure::store)?;
    let resumed = decided.as_ref().and_then(|decision| stored.decided(decision));
    let identity = Identity {
        pipeline: store.pipeline(),
        // Whatever lives there were are earlier ones.
        generation: options.generation.load(Relaxed) + 1,
        again: false,
        interval: std::time::Duration::ZERO,
        outbox: options.outbox(),
    };
    if let Some(resumed) = resumed.filter(|resumed| resumed.id.epoch > committed) {
        outbox::bring_back(&store, &identity.outbox, resumed).await?;
    }
    for node in &graph.nodes {
        let Transform::Sink { kind, config } = &node.transform else { continue };
        let failed = |error| Failure::Connect { transform: node.name.clone(), error };
        let uid = graph.options.durable.uids.get(&node.name).unwrap_or(&node.name).clone();
        let staged = resumed.map_or_else(Vec::new, |prepared| staged_of(&prepared.manifest, &uid));
        let (transform, kind, config, base_dir) = (node.name.clone(), kind.clone(), config.clone(), base_dir.clone());
        let target = CommitTarget { uid, transform, kind, config, base_dir };
        let Some(mut committer) = open_committer(target, identity.clone(), io).await.map_err(failed)? else { continue };
        let epoch = resumed.map_or(0, |prepared| prepared.id.epoch);
        committer.commit(epoch, &staged).await.map_err(failed)?;
        // Nothing is open any more.
        committer.recover(epoch, &[]).await.map_err(failed)?;
    }
    Ok(())
}
