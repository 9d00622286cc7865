//! What is in a checkpoint or a savepoint, for people; [`super::cells`] shows the cells themselves.
//!
//! Nothing holds a pipeline that runs: it deletes checkpoints as it goes on. Who reads one that is deleted begins again with the newest, if nothing was shown yet.

use super::place;
use pelton_core::evolution::Book;
use pelton_core::key::KEY_GROUPS;
use pelton_state::Change;
use pelton_state::durable::{self, Snapshot, StoreError};
use pelton_state::layout::era;
use pelton_state::rows::CELL;
use std::collections::BTreeMap;

/// So often a look begins again, because the pipeline has gone on meanwhile.
const LOOKS: u32 = 5;

/// What keeps somebody from seeing something.
pub(super) enum Trouble {
    /// Of the store.
    Store(StoreError),
    /// Anything else.
    Other(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Store(error)
    }
}

impl From<String> for Trouble {
    fn from(message: String) -> Trouble {
        Trouble::Other(message)
    }
}

/// Reads the newest checkpoint at a place, or a savepoint, and says how that came out. `again`: whether `read` may begin anew.
pub(super) async fn look<T>(
    place: &str,
    mut read: impl AsyncFnMut(&Snapshot) -> Result<T, Trouble>,
    again: impl Fn() -> bool,
) -> Result<T, String> {
    for look in 1.. {
        let snapshot = open(place).await.map_err(shown)?;
        match read(&snapshot).await {
            Ok(value) => return Ok(value),
            Err(Trouble::Other(message)) => return Err(message),
            Err(Trouble::Store(error)) if !has_gone_on(place, &snapshot, &error).await => return Err(shown(error)),
            Err(_) if look < LOOKS && again() => {}
            Err(_) => break,
        }
    }
    Err(format!(
        "{place}: the pipeline runs, and has deleted this checkpoint while it was read\n  next: make a savepoint with `pelton savepoint` and look into that"
    ))
}

/// Whether a file is missing because the pipeline has a newer checkpoint now.
async fn has_gone_on(place: &str, snapshot: &Snapshot, error: &StoreError) -> bool {
    let newest = async || open(place).await.is_ok_and(|newest| newest.manifest().id != snapshot.manifest().id);
    matches!(error, StoreError::Damaged { .. }) && newest().await
}

/// Opens what a user names: a savepoint, a checkpoint store, or a state folder with one in it.
pub(crate) async fn open(place: &str) -> Result<Snapshot, StoreError> {
    let storage = durable::storage::open(&place::named(place))?;
    match storage.get("savepoint").await? {
        Some(_) => durable::savepoint::open(storage).await,
        None => Snapshot::newest(storage).await,
    }
}

/// A line for the epoch, and one a state.
pub async fn list(place: &str) -> Result<Vec<String>, String> {
    look(place, lines, || true).await
}

async fn lines(snapshot: &Snapshot) -> Result<Vec<String>, Trouble> {
    let manifest = snapshot.manifest();
    let bytes: u64 = manifest.segments.iter().map(|segment| segment.bytes).sum();
    let mut lines = vec![format!(
        "pipeline {} epoch {} generation {}{}: {} segments, {bytes} bytes",
        manifest.pipeline,
        manifest.id.epoch,
        manifest.id.generation,
        if manifest.contents.ended { " (ended)" } else { "" },
        manifest.segments.len()
    )];
    for operator in &manifest.contents.operators {
        for state in &operator.states {
            let (count, eras) = match state.unkeyed {
                true => (snapshot.parts(&operator.uid, &state.name).await?.len(), BTreeMap::new()),
                false => count(snapshot, &operator.uid, &state.name).await?,
            };
            let what = if state.unkeyed { "partitions" } else { "rows" };
            lines.push(
                format!("{} ({}) {}: {count} {what} {}", operator.uid, operator.kind, state.name, state.layout).trim_end().to_string(),
            );
            // The book stands beside each of an operator's states; cells of an era are in one of them.
            if !eras.is_empty() || state.name == "cells" {
                lines.extend(Book::read(&state.schema)?.iter().flat_map(|book| described(book, &eras)));
            }
        }
    }
    for source in &manifest.contents.sources {
        lines.push(format!("{} (source): {} positions", source.uid, source.positions.len()));
        for position in &source.positions {
            lines.push(format!("  {} at {}", position.split, String::from_utf8_lossy(&position.position)));
        }
    }
    Ok(lines)
}

/// Rows, and cells by era.
async fn count(snapshot: &Snapshot, uid: &str, name: &str) -> Result<(usize, BTreeMap<u32, usize>), StoreError> {
    let (mut rows, mut count) = (snapshot.rows(uid, name, 0..KEY_GROUPS).await?, 0);
    let mut eras = BTreeMap::new();
    while let Some(chunk) = rows.next().await? {
        count += chunk.len();
        for row in chunk.iter().filter(|row| row.part().is_some_and(|(part, _)| part == CELL)) {
            let Change::Put(cell) = row.change else { continue };
            if let Some(era) = era(cell) {
                *eras.entry(era).or_default() += 1;
            }
        }
    }
    Ok((count, eras))
}

/// What a plugin keeps: the types in which it writes, and those of cells that no sweep has reached.
fn described(book: &Book, cells: &BTreeMap<u32, usize>) -> Vec<String> {
    let mut lines = Vec::new();
    let present = book.present().number;
    for era in book.eras.iter().rev() {
        let count = cells.get(&era.number).copied().unwrap_or_default();
        let what = if era.number == present { "written now" } else { "still to be converted" };
        lines.push(format!("  era {} ({what}): {count} cells", era.number));
        for placed in &era.states {
            let pelton_core::evolution::State { name, kind, value, key, version, .. } = &placed.state;
            let key = key.as_ref().map(|key| format!("{key} to ")).unwrap_or_default();
            let value = value.as_ref().map_or_else(|| "what the plugin alone can read".into(), ToString::to_string);
            lines.push(format!("    {name}: {kind} of {key}{value}, version {version}"));
        }
    }
    lines
}

/// A message with its next step.
pub(super) fn shown(error: StoreError) -> String {
    match error.help() {
        Some(help) => format!("{error}\n  next: {help}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_core::checkpoint::Take;
    use pelton_state::durable::{Checkpoints, Contents, EpochState, Identity, TakeOver};

    #[test]
    fn a_look_at_what_the_pipeline_deletes_begins_again_or_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().display().to_string();
        let io = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        io.block_on(async {
            let identity = Identity { pipeline: "p".into(), version: "1".into() };
            let checkpoints = Checkpoints::open(durable::storage::open(&place).expect("opens"), identity).await.expect("opens");
            checkpoints.take_generation(Take::Above(0), TakeOver::No).await.expect("is free");
            let next = async |epoch| {
                let written = checkpoints.write_epoch(epoch, Contents::default(), EpochState::default()).await.expect("prepares");
                checkpoints.record_commit(&checkpoints.decision(&written)).await.expect("records");
            };
            next(1).await;
            let gone = |snapshot: &Snapshot| {
                Trouble::Store(StoreError::damaged(format!("epoch {}", snapshot.manifest().id.epoch), "it does not exist"))
            };
            let again = async |snapshot: &Snapshot| {
                let epoch = snapshot.manifest().id.epoch;
                if epoch < 3 {
                    next(epoch + 1).await;
                    return Err(gone(snapshot));
                }
                Ok(epoch)
            };
            assert_eq!(look(&place, again, || true).await, Ok(3));
            let once = async |snapshot: &Snapshot| {
                next(snapshot.manifest().id.epoch + 1).await;
                Err::<(), _>(gone(snapshot))
            };
            for again in [true, false] {
                let error = look(&place, &once, || again).await.expect_err("it always goes on");
                assert!(error.contains("has deleted this checkpoint while it was read") && error.contains("`pelton savepoint`"), "{error}");
            }
            let damaged = look(&place, async |snapshot: &Snapshot| Err::<(), _>(gone(snapshot)), || true).await.expect_err("is damaged");
            assert!(damaged.contains("is damaged: it does not exist"), "{damaged}");
        });
    }
}
