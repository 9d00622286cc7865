//! A store and a savepoint as the first version wrote them (`host/state/golden`). They are read for ever.

use super::{address, contents, wait};
use crate::durable::storage::LocalFolder;
use crate::durable::{Contents, OutboxEntry, SinkEntry, SourceEntry, StagedEntry, look, savepoint};
use crate::durable::{Snapshot, Storage};
use crate::{Change, Row};
use pelton_core::SplitPosition;
use std::sync::Arc;

fn golden(name: &str) -> Arc<dyn Storage> {
    Arc::new(LocalFolder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden").to_string() + "/" + name))
}

/// What the runtime had to say, with every field.
fn everything() -> Contents {
    let mut all = contents();
    (all.plan, all.decider, all.time_zones, all.hash_version) = ("plan".into(), "local".into(), "2026a".into(), 1);
    all.operators[0].plugin = Some("sha256:ab".into());
    (all.operators[0].states[0].layout, all.operators[0].states[0].schema) = ("i64, bytes; 1 items".into(), vec![0, 255]);
    let position = SplitPosition { split: "topic/0".into(), position: vec![1, 2, 3] };
    all.sources = vec![SourceEntry { uid: "read".into(), plan: vec![9], positions: vec![position] }];
    let outbox = OutboxEntry { name: "outbox/000000000002-1-0000000000000000-0".into(), shard: 0, bytes: 4, hash: u64::MAX };
    let staged = vec![StagedEntry { shard: 1, bytes: vec![0; 4] }];
    all.sinks = vec![SinkEntry { uid: "write".into(), kind: "WriteToJson".into(), staged, outbox: vec![outbox] }];
    all.counters = [("records".to_string(), u64::MAX)].into();
    all
}

/// Every kind of row: the state after both epochs.
async fn check(snapshot: &Snapshot) {
    let mut merge = snapshot.rows("count", "cells", 0..256).await.expect("opens");
    let mut found = Vec::new();
    while let Some(rows) = merge.next().await.expect("reads") {
        for Row { address, key_len, change } in rows.iter() {
            let Change::Put(value) = change else { panic!("no removals") };
            found.push((address.to_vec(), key_len, value.to_vec()));
        }
    }
    let mut want: Vec<_> =
        [0u32, 1, 2, 4, 6, 7, 8].map(|key| (address(key), 4, if key == 1 { vec![1, 1] } else { vec![key as u8; 20] })).into();
    want.push((address(5), 4, b"since".to_vec()));
    want.sort();
    assert_eq!(found, want);
    assert_eq!(snapshot.parts("count", "watermark").await, Ok(vec![("a".into(), vec![2]), ("b".into(), vec![])]));
    snapshot.verify().await.expect("is whole");
}

fn since(mut contents: Contents) -> Contents {
    contents.operators[0].states.iter_mut().for_each(|state| state.since = 1);
    contents
}

#[test]
fn the_first_store_is_read() {
    wait(async {
        let storage = golden("store-1");
        let stored = look(&*storage).await.expect("is a store");
        assert_eq!(
            (stored.progress.generation, stored.progress.committed, stored.progress.ended, stored.unreadable.len()),
            (1, 2, true, 0)
        );
        let decision = stored.progress.decided.clone().expect("was decided");
        let epoch = stored.decided(&decision).expect("is there");
        assert_eq!(epoch.manifest.contents, since(everything()));
        check(&Snapshot::new(storage, epoch.manifest.clone(), Arc::new(()))).await;
    });
}

#[test]
fn the_first_savepoint_is_read() {
    wait(async {
        let savepoint = savepoint::open(golden("savepoint-1")).await.expect("is one");
        assert_eq!(savepoint.manifest().contents, since(everything()));
        check(&savepoint).await;
    });
}
