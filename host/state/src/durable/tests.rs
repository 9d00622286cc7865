//! Tests of the whole store against a model: plain maps.

mod crash;
mod faults;
mod golden;

use super::storage::{LocalFolder, RemoteStore};
use super::*;
use crate::rows::put_cell;
use crate::{Change, Row, Rows};
use pelton_core::checkpoint::Take;
use pelton_core::{Instant, Window};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs to the end what waits for storage.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime starts").block_on(work)
}

pub fn memory() -> Arc<dyn Storage> {
    Arc::new(RemoteStore::new(Arc::new(object_store::memory::InMemory::new()), "pipelines/p".into(), "memory://pipelines/p"))
}

fn identity(pipeline: &str) -> Identity {
    Identity { pipeline: pipeline.into(), version: "0.1.0".into() }
}

/// Opens a store and takes it.
async fn start(storage: &Arc<dyn Storage>) -> (Checkpoints, Stored) {
    let checkpoints = Checkpoints::open(storage.clone(), identity("p")).await.expect("opens");
    checkpoints.take_generation(Take::Above(0), TakeOver::No).await.expect("is free");
    let found = checkpoints.stored().await.expect("lists");
    (checkpoints, found)
}

/// One operator with a keyed state and one by partition.
fn contents() -> Contents {
    let keyed = StateEntry { name: "cells".into(), ..StateEntry::default() };
    let unkeyed = StateEntry { name: "watermark".into(), unkeyed: true, ..StateEntry::default() };
    let operator =
        OperatorEntry { uid: "count".into(), kind: "Combine".into(), parallelism: 2, plugin: None, states: vec![keyed, unkeyed] };
    Contents { key_groups: 256, operators: vec![operator], ..Contents::default() }
}

pub fn address(key: u32) -> Vec<u8> {
    let mut address = Vec::new();
    put_cell(&key.to_be_bytes(), Window { start: Instant::MIN, end: Instant::MAX }, &mut address);
    address.push(0);
    address
}

/// Puts and removals of keys.
fn changes(changes: &[(u32, Option<u64>)]) -> Rows {
    let mut rows = Rows::default();
    for (key, value) in changes {
        let bytes = value.map(u64::to_be_bytes);
        let change = bytes.as_ref().map_or(Change::Remove, |bytes| Change::Put(bytes));
        rows.push(Row { address: &address(*key), key_len: 4, change });
    }
    rows.sorted()
}

/// What has changed, of the operator of [`contents`].
fn state(rows: Vec<Rows>, watermark: u64) -> EpochState {
    let parts = vec![("0".to_string(), watermark.to_be_bytes().to_vec())];
    EpochState {
        rows: vec![StateRows { uid: "count".into(), name: "cells".into(), rows }],
        parts: vec![StateParts { uid: "count".into(), name: "watermark".into(), parts }],
    }
}

/// The rows of a snapshot.
async fn read(snapshot: &Snapshot, groups: std::ops::Range<u16>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    try_read(snapshot, groups).await.expect("reads")
}

async fn try_read(snapshot: &Snapshot, groups: std::ops::Range<u16>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut merge = snapshot.rows("count", "cells", groups).await?;
    let mut found = BTreeMap::new();
    while let Some(rows) = merge.next().await? {
        for row in rows.iter() {
            let Change::Put(value) = row.change else { panic!("a restore sees no removals") };
            assert!(found.last_key_value().is_none_or(|(last, _): (&Vec<u8>, _)| last.as_slice() < row.address));
            found.insert(row.address.to_vec(), value.to_vec());
        }
    }
    Ok(found)
}

/// Epochs with random changes, each decided, committed, collected and compacted, with restarts in between.
async fn a_life(storage: Arc<dyn Storage>, seed: u64) {
    let mut random = seed;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let (mut checkpoints, _) = start(&storage).await;
    for epoch in 1..=60 {
        let mut pieces = Vec::new();
        for _ in 0..next() % 3 {
            let piece: Vec<(u32, Option<u64>)> =
                (0..next() % 50).map(|_| ((next() % 200) as u32, (next() % 3 > 0).then(&mut next))).collect();
            for (key, value) in &piece {
                match value {
                    Some(value) => model.insert(address(*key), value.to_be_bytes().to_vec()),
                    None => model.remove(&address(*key)),
                };
            }
            pieces.push(changes(&piece));
        }
        let prepared = checkpoints.write_epoch(epoch, contents(), state(pieces, epoch)).await.expect("prepares");
        let decision = checkpoints.decide_local(&prepared).await.expect("decides");
        checkpoints.record_commit(&decision).await.expect("commits");
        checkpoints.collect((epoch + 1).saturating_sub(3)).await.expect("collects");
        if next() % 3 > 0 {
            checkpoints.compact(&prepared).await.expect("merges");
        }
        if next() % 8 == 0 {
            drop(checkpoints);
            let (again, found) = start(&storage).await;
            let decision = found.progress.decided.clone().expect("epochs were decided");
            let from = found.decided(&decision).expect("the decided epoch is there").clone();
            assert_eq!((decision.epoch, from.id.epoch, found.epochs.len()), (epoch, epoch, (epoch as usize).min(3)));
            again.resume(&found, Some(&from)).await.expect("resumes");
            let snapshot = again.snapshot(&from);
            assert_eq!(read(&snapshot, 0..256).await, model, "epoch {epoch}");
            let from_group = (next() % 200) as u16;
            let part: BTreeMap<_, _> = model
                .iter()
                .filter(|(address, _)| (from_group..from_group + 40).contains(&u16::from_be_bytes([address[0], address[1]])))
                .collect();
            let found_part = read(&snapshot, from_group..from_group + 40).await;
            assert!(found_part.iter().eq(part), "key groups from {from_group}");
            assert_eq!(snapshot.parts("count", "watermark").await, Ok(vec![("0".into(), epoch.to_be_bytes().to_vec())]));
            snapshot.verify().await.expect("is whole");
            checkpoints = again;
        }
        let segments = storage.list("segments").await.expect("lists").len();
        assert!(segments < 32, "{segments} segments");
        assert!(storage.list("progress").await.expect("lists").len() < 32);
    }
}

#[test]
fn a_store_in_a_folder_gives_back_what_it_got() {
    let folder = tempfile::tempdir().expect("a folder");
    wait(a_life(Arc::new(LocalFolder::new(folder.path())), 1));
}

#[test]
fn an_object_store_gives_back_what_it_got() {
    wait(a_life(memory(), 2));
}

#[test]
fn a_folder_belongs_to_one_pipeline() {
    let storage = memory();
    wait(async {
        Checkpoints::open(storage.clone(), identity("p")).await.expect("is free");
        let error = Checkpoints::open(storage.clone(), identity("q")).await.err().expect("is another's");
        assert_eq!(error.to_string(), "memory://pipelines/p/ holds the checkpoints of the pipeline `p`, and this one is `q`");
        assert!(look(&*storage).await.expect("is a store").epochs.is_empty());
    });
}

/// One epoch after the other, each decided and committed.
async fn epochs(checkpoints: &Checkpoints, from: u64, to: u64) -> StoredEpoch {
    let mut last = None;
    for epoch in from..=to {
        let written = checkpoints
            .write_epoch(epoch, contents(), state(vec![changes(&[(epoch as u32, Some(epoch))])], epoch))
            .await
            .expect("prepares");
        let decision = checkpoints.decide_local(&written).await.expect("decides");
        checkpoints.record_commit(&decision).await.expect("commits");
        last = Some(written);
    }
    last.expect("there was an epoch")
}

#[test]
fn an_overtaken_owner_is_fenced_in_all_that_counts() {
    let storage = memory();
    wait(async {
        let (old, _) = start(&storage).await;
        let decided = epochs(&old, 1, 2).await;
        let undecided = old.write_epoch(3, contents(), state(vec![], 3)).await.expect("prepares");

        let (new, stored) = start(&storage).await;
        assert_eq!(stored.progress.decided.as_ref().map(|decision| decision.epoch), Some(2));
        assert_eq!(stored.epochs.iter().map(|stored| stored.id.epoch).collect::<Vec<_>>(), [3, 2, 1]);
        new.resume(&stored, Some(&decided)).await.expect("resumes");

        let fenced = |result: Result<(), StoreError>| {
            let error = result.expect_err("is fenced");
            assert_eq!(error.to_string(), "fenced: generation 2 has taken over memory://pipelines/p/");
        };
        fenced(old.decide_local(&undecided).await.map(|_| ()));
        fenced(old.record_commit(&old.decision(&decided)).await);
        fenced(old.record_end().await);
        fenced(old.collect(3).await.map(|_| ()));
        fenced(old.check_owner().await);
        // It may still write a manifest. Nobody reads it: its own epoch was discarded, and the new one's is another.
        old.write_epoch(4, contents(), state(vec![changes(&[(9, Some(9))])], 4)).await.expect("nobody stops it");
        epochs(&new, 3, 4).await;
        drop((old, new));
        let (third, stored) = start(&storage).await;
        let decision = stored.progress.decided.clone().expect("was decided");
        let from = stored.decided(&decision).expect("is there");
        assert_eq!((from.id.epoch, from.id.generation), (4, 2));
        third.resume(&stored, Some(from)).await.expect("resumes");
        assert!(third.stored().await.expect("lists").epochs.iter().all(|stored| stored.id.generation == 2 || stored.id.epoch <= 2));
        assert!(!read(&third.snapshot(from), 0..256).await.contains_key(&address(9)));
    });
}

#[test]
fn what_a_process_took_without_being_told_overtakes_it_not() {
    let storage = memory();
    wait(async {
        let first = Checkpoints::open(storage.clone(), identity("p")).await.expect("opens");
        assert_eq!(first.take_generation(Take::Above(0), TakeOver::No).await, Ok(Taken::Ours(1)));
        // Of this the process never hears: it restarts as generation 1.
        assert_eq!(first.take_generation(Take::After(1), TakeOver::No).await, Ok(Taken::Ours(2)));
        let again = Checkpoints::open_as(storage.clone(), identity("p"), first.writer()).await.expect("opens");
        assert_eq!(again.take_generation(Take::After(1), TakeOver::No).await, Ok(Taken::Ours(3)));
        let other = Checkpoints::open(storage.clone(), identity("p")).await.expect("opens");
        assert_eq!(other.take_generation(Take::After(1), TakeOver::No).await, Ok(Taken::Overtaken(3)));
    });
}

#[test]
fn a_process_that_restarts_itself_gives_way() {
    let storage = memory();
    wait(async {
        let (first, _) = start(&storage).await;
        let again = Checkpoints::open(storage.clone(), identity("p")).await.expect("opens");
        assert_eq!(again.take_generation(Take::After(1), TakeOver::No).await, Ok(Taken::Ours(2)));
        assert_eq!(first.take_generation(Take::After(1), TakeOver::No).await, Ok(Taken::Overtaken(2)));
        assert_eq!(first.take_generation(Take::Above(7), TakeOver::No).await, Ok(Taken::Ours(8)));
        assert!(matches!(again.check_owner().await, Err(StoreError::Fenced { .. })));
    });
}

#[test]
fn a_torn_manifest_was_never_prepared_and_a_lost_segment_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage: Arc<dyn Storage> = Arc::new(LocalFolder::new(folder.path()));
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        let last = epochs(&checkpoints, 1, 3).await;
        drop(checkpoints);
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("manifests/000000000004-1"), "{\"format\": 1").expect("writes");
        std::fs::remove_file(path(&last.manifest.segments[1].name)).expect("is there");
        let stored = look(&*storage).await.expect("lists");
        assert_eq!(stored.epochs.iter().map(|stored| stored.id.epoch).collect::<Vec<_>>(), [1]);
        let messages: Vec<String> =
            stored.unreadable.iter().map(|unreadable| unreadable.message.replace(&folder.path().display().to_string(), "DIR")).collect();
        let lost = format!("DIR/{}", last.manifest.segments[1].name);
        assert_eq!(
            messages,
            [
                "DIR/manifests/000000000004-1 is damaged: it is too short".to_string(),
                format!("DIR/manifests/000000000003-1 names {lost}, which is missing or cut off"),
                format!("DIR/manifests/000000000002-1 names {lost}, which is missing or cut off"),
            ]
        );
    });
}

#[test]
fn any_flipped_bit_in_a_small_file_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage: Arc<dyn Storage> = Arc::new(LocalFolder::new(folder.path()));
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        epochs(&checkpoints, 1, 1).await;
        drop(checkpoints);
        for name in ["identity", "manifests/000000000001-1", "progress/000000000003"] {
            let path = folder.path().join(name);
            let good = std::fs::read(&path).expect("is there");
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                for bytes in [&bad, &good[..at]] {
                    std::fs::write(&path, bytes).expect("writes");
                    let found = look(&*storage).await;
                    let message = match &found {
                        Ok(stored) => stored.unreadable.first().map(|unreadable| unreadable.message.clone()),
                        Err(error) => Some(error.to_string()),
                    };
                    assert!(message.is_some_and(|message| message.contains(path.to_str().expect("UTF-8"))), "{name}, byte {at}");
                }
            }
            std::fs::write(&path, good).expect("writes");
        }
        assert_eq!(look(&*storage).await.expect("is whole").epochs.len(), 1);
    });
}

#[test]
fn what_is_kept_and_what_is_read_is_not_collected() {
    let storage = memory();
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        let first = epochs(&checkpoints, 1, 1).await;
        let snapshot = checkpoints.snapshot(&first);
        let fourth = epochs(&checkpoints, 2, 4).await;
        let compacted = checkpoints.compact(&fourth).await.expect("merges").expect("four segments are due");
        assert_eq!(compacted.segments, 4);
        // Not yet named by any manifest, and not garbage.
        checkpoints.collect(4).await.expect("collects");
        assert_eq!(storage.list("segments").await.expect("lists").len(), 5);
        epochs(&checkpoints, 5, 5).await;
        assert_eq!(checkpoints.collect(9).await, Ok(Collected { manifests: 1, files: 3 }));
        // The first manifest is read, so what it names is there.
        assert_eq!(read(&snapshot, 0..256).await.len(), 1);
        drop(snapshot);
        assert_eq!(checkpoints.collect(9).await, Ok(Collected { manifests: 1, files: 1 }));
        let names: Vec<String> = storage.list("segments").await.expect("lists").into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["segments/000000000001-000000000004-1-5", "segments/000000000005-000000000005-1-6"]);
    });
}

#[test]
fn a_state_that_is_dropped_does_not_come_back_with_its_name() {
    let storage = memory();
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        epochs(&checkpoints, 1, 2).await;
        let without = Contents { operators: vec![], ..contents() };
        checkpoints.write_epoch(3, without, EpochState::default()).await.expect("prepares");
        let again = checkpoints.write_epoch(4, contents(), state(vec![changes(&[(7, Some(7))])], 4)).await.expect("prepares");
        assert_eq!(again.manifest.state("count", "cells").map(|state| state.since), Some(4));
        assert_eq!(read(&checkpoints.snapshot(&again), 0..256).await.into_keys().collect::<Vec<_>>(), [address(7)]);
        let unlisted = Contents { operators: vec![], ..contents() };
        let error = checkpoints.write_epoch(5, unlisted, state(vec![changes(&[(7, Some(7))])], 5)).await.expect_err("is refused");
        assert!(error.to_string().ends_with("`cells` of `count` is written but is not in the manifest"), "{error}");
    });
}

/// A file of the store, as a later version would write it.
fn later(path: &std::path::Path) {
    let bytes = std::fs::read(path).expect("is there");
    let (mut file, _): (serde_json::Value, _) = super::sealed::read(&bytes).expect("is whole");
    (file["format"], file["version"]) = (2.into(), "7.1.0".into());
    // Whatever that version has made of it.
    file.as_object_mut().expect("is an object").remove("pipeline");
    std::fs::write(path, super::sealed::write(&file).expect("is JSON").0).expect("writes");
}

#[test]
fn what_a_later_version_has_written_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let storage: Arc<dyn Storage> = Arc::new(LocalFolder::new(path("store")));
    let refused = |error: Option<StoreError>, name: &str| {
        let error = error.expect("is refused");
        assert_eq!(error.to_string(), format!("{} has format 2, and this pelton reads formats up to 1", path(name).display()));
        assert_eq!(error.help(), Some("use pelton 7.1.0, which has written it, or a later one"));
    };
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        let last = epochs(&checkpoints, 1, 2).await;
        let target: Arc<dyn Storage> = Arc::new(LocalFolder::new(path("savepoint")));
        checkpoints.snapshot(&last).copy_to(&*target).await.expect("copies");
        later(&path("savepoint/savepoint"));
        refused(savepoint::open(target).await.err(), "savepoint/savepoint");
        drop(checkpoints);

        let newest = "store/manifests/000000000002-1";
        later(&path(newest));
        let again = Checkpoints::open(storage.clone(), identity("p")).await.expect("opens");
        refused(again.stored().await.err(), newest);
        refused(look(&*storage).await.err(), newest);
        assert!(path(newest).exists());
        later(&path("store/identity"));
        refused(Checkpoints::open(storage.clone(), identity("p")).await.err(), "store/identity");
        refused(look(&*storage).await.err(), "store/identity");
    });
}

#[test]
fn a_savepoint_is_the_beginning_of_another_pipeline() {
    let (storage, target, other) = (memory(), memory(), memory());
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        let last = epochs(&checkpoints, 1, 5).await;
        let snapshot = checkpoints.snapshot(&last);
        snapshot.copy_to(&*target).await.expect("copies");
        let twice = snapshot.copy_to(&*target).await.expect_err("is taken");
        assert_eq!(twice.help(), Some("name a new folder for each savepoint"));
        let want = read(&snapshot, 0..256).await;

        let savepoint = savepoint::open(target.clone()).await.expect("is one");
        assert_eq!(read(&savepoint, 0..256).await, want);
        assert_eq!(savepoint.stored_rows("count", "cells").await, Ok(5));
        assert!(savepoint::open(other.clone()).await.err().is_some_and(|error| error.to_string().ends_with("is no savepoint")));

        // A store of its own goes out from it, and the original does not notice.
        let fork = Checkpoints::open(other.clone(), identity("q")).await.expect("opens");
        fork.take_generation(Take::Above(0), TakeOver::No).await.expect("is free");
        fork.adopt(&savepoint).await.expect("copies");
        let written = fork.write_epoch(1, contents(), state(vec![changes(&[(3, None), (77, Some(77))])], 1)).await.expect("prepares");
        let mut forked = want.clone();
        forked.remove(&address(3));
        forked.insert(address(77), 77u64.to_be_bytes().to_vec());
        assert_eq!(read(&fork.snapshot(&written), 0..256).await, forked);
        assert_eq!(read(&savepoint, 0..256).await, want);
        assert_ne!(fork.incarnation(), checkpoints.incarnation());
    });
}

/// What merging writes is proportional to what changes, not to what there is.
#[test]
fn merging_costs_little() {
    let storage = memory();
    wait(async {
        let (checkpoints, _) = start(&storage).await;
        let key = |number: u64| (number.wrapping_mul(2_654_435_761) % 20_000) as u32;
        let (mut epochs, mut merged, mut opened) = (0, 0, 0);
        for epoch in 1..=300u64 {
            // A state of 20,000 keys, then 1 % of it in each epoch.
            let keys = if epoch == 1 { 0..20_000 } else { epoch * 200..epoch * 200 + 200 };
            let rows: Vec<_> = keys.map(|number| (if epoch == 1 { number as u32 } else { key(number) }, Some(number))).collect();
            let written = checkpoints.write_epoch(epoch, contents(), state(vec![changes(&rows)], epoch)).await.expect("prepares");
            epochs += if epoch == 1 { 0 } else { written.manifest.segments.last().map_or(0, |entry| entry.bytes) };
            opened = opened.max(written.manifest.segments.len());
            let decision = checkpoints.decide_local(&written).await.expect("decides");
            checkpoints.record_commit(&decision).await.expect("commits");
            checkpoints.collect(epoch).await.expect("collects");
            merged += checkpoints.compact(&written).await.expect("merges").map_or(0, |compacted| compacted.written);
        }
        let base = storage.list("segments").await.expect("lists").iter().map(|file| file.bytes).max().expect("there is one");
        println!("epochs {epochs} bytes, merges {merged}, state {base}, at most {opened} segments");
        assert!(opened <= 16, "{opened} segments");
        assert!(merged < 8 * epochs, "{merged} bytes merged for {epochs} bytes changed");
    });
}
