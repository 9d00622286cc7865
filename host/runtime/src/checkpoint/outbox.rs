//! Rows that followers have staged in the state folder, kept with the checkpoints as well where these are elsewhere: then a pipeline goes on
//! on another machine, or without its folder, and delivers what was decided.
//!
//! Files go into the store before the manifest that names them, in pieces; they come back only when their epoch is decided and not yet committed.
//! Invariant: a file that is brought back has the bytes that were staged; the sink checks its checksum when it reads it.

use crate::failure::Failure;
use bytes::Bytes;
use pelton_connect::{Staged, StagedFile, staged_files};
use pelton_core::Epoch;
use pelton_state::durable::{Checkpoints, OutboxEntry, SinkEntry, StoredEpoch};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path};

/// Of a file, in the store: what is held in memory.
const PIECE_BYTES: usize = 8 << 20;

/// Keeps what the sinks of an epoch have staged in a folder.
pub async fn keep(store: &Checkpoints, folder: &Path, epoch: Epoch, sinks: &mut [SinkEntry]) -> Result<(), Failure> {
    for sink in sinks {
        for staged in &sink.staged {
            let mut number = 0;
            for file in files_of(&sink.uid, &sink.kind, &staged.bytes, epoch)? {
                let path = folder.join(&file.name);
                let unreadable = |error: std::io::Error| internal(&sink.uid, &format!("cannot read {}: {error}", path.display()));
                let mut opened = File::open(&path).map_err(unreadable)?;
                let mut left = file.bytes;
                while left > 0 {
                    let mut piece = vec![0; left.min(PIECE_BYTES as u64) as usize];
                    tokio::task::block_in_place(|| opened.read_exact(&mut piece)).map_err(unreadable)?;
                    left -= piece.len() as u64;
                    let kept = store.write_outbox(epoch, &sink.uid, (staged.shard, number), Bytes::from(piece)).await;
                    sink.outbox.push(kept.map_err(Failure::store)?);
                    number += 1;
                }
            }
        }
    }
    Ok(())
}

/// Brings back what a decided epoch has still to deliver and is no longer in the folder.
pub async fn bring_back(store: &Checkpoints, folder: &Path, stored: &StoredEpoch) -> Result<(), Failure> {
    for sink in &stored.manifest.contents.sinks {
        for staged in &sink.staged {
            let mut pieces = sink.outbox.iter().filter(|entry| entry.shard == staged.shard);
            for file in files_of(&sink.uid, &sink.kind, &staged.bytes, stored.id.epoch)? {
                let mine = take(&mut pieces, file.bytes);
                if !folder.join(&file.name).exists() && !mine.is_empty() {
                    restore(store, folder, &sink.uid, &file, &mine).await?;
                }
            }
        }
    }
    Ok(())
}

/// The pieces that a file of so many bytes is made of.
fn take<'a>(pieces: &mut impl Iterator<Item = &'a OutboxEntry>, bytes: u64) -> Vec<&'a OutboxEntry> {
    let (mut taken, mut found) = (Vec::new(), 0);
    while found < bytes {
        let Some(piece) = pieces.next() else { break };
        found += piece.bytes;
        taken.push(piece);
    }
    taken
}

async fn restore(store: &Checkpoints, folder: &Path, uid: &str, file: &StagedFile, pieces: &[&OutboxEntry]) -> Result<(), Failure> {
    let path = folder.join(&file.name);
    let failed = |error: std::io::Error| internal(uid, &format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Under its name it is whole. Should the machine crash it is brought back again.
    let partial = path.with_extension("partial");
    let mut written = File::create(&partial).map_err(failed)?;
    for piece in pieces {
        let bytes = store.read_outbox(piece).await.map_err(Failure::store)?;
        written.write_all(&bytes).map_err(failed)?;
    }
    written.sync_all().and_then(|()| std::fs::rename(&partial, &path)).map_err(failed)?;
    tracing::info!(sink = uid, file = file.name, "rows that are still to be delivered were brought back from the checkpoints");
    Ok(())
}

/// What a shard has staged of an epoch. Those of epochs before are delivered when this is asked.
fn files_of(uid: &str, kind: &str, staged: &[u8], epoch: Epoch) -> Result<Vec<StagedFile>, Failure> {
    let files = staged_files(kind, &Staged(staged.to_vec()));
    let mut files = files.map_err(|error| Failure::Connect { transform: uid.into(), error })?;
    files.retain(|file| file.epoch == epoch);
    // A manifest comes from a store that others may write.
    let plain = |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(only)] if only == name);
    match files.iter().find(|file| !plain(&file.name)) {
        Some(file) => Err(Failure::Checkpoint {
            message: format!("checkpoint {epoch} names the file {:?} of the outbox, which lies outside of it", file.name),
            refused: true,
        }),
        None => Ok(files),
    }
}

fn internal(uid: &str, message: &str) -> Failure {
    Failure::Checkpoint { message: format!("transform `{uid}`: {message}"), refused: false }
}
