//! The rules of storage, kept by every kind of it.

use super::{Created, LocalFolder, Storage};
use crate::durable::tests::{memory, wait};
use bytes::Bytes;
use std::sync::Arc;

/// Names and lengths in a folder.
async fn listed(storage: &dyn Storage, folder: &str) -> Vec<(String, u64)> {
    storage.list(folder).await.expect("lists").into_iter().map(|file| (file.name, file.bytes)).collect()
}

async fn keeps_the_rules(storage: Arc<dyn Storage>) {
    assert_eq!(storage.list("a").await, Ok(vec![]));
    assert_eq!(storage.get("a/1").await, Ok(None));
    assert_eq!(storage.put_new("a/1", "one".into()).await, Ok(Created::Yes));
    // The same bytes may be an earlier try.
    assert_eq!(storage.put_new("a/1", "one".into()).await, Ok(Created::Yes));
    assert_eq!(storage.put_new("a/1", "other".into()).await, Ok(Created::Exists));
    assert_eq!(storage.get("a/1").await, Ok(Some("one".into())));

    // A large file is there when it is finished, and only then.
    let mut file = storage.create("a/2").await.expect("begins");
    let piece = Bytes::from(vec![7; 3 << 20]);
    for _ in 0..4 {
        file.write(piece.clone()).await.expect("writes");
    }
    assert_eq!(storage.get("a/2").await, Ok(None));
    assert_eq!(listed(&*storage, "a").await, [("a/1".into(), 3)]);
    assert_eq!(file.finish().await, Ok(Created::Yes));
    assert_eq!(listed(&*storage, "a").await, [("a/1".into(), 3), ("a/2".into(), 12 << 20)]);
    let mut second = storage.create("a/2").await.expect("begins");
    for _ in 0..4 {
        second.write(Bytes::from(vec![8; 3 << 20])).await.expect("writes");
    }
    assert_eq!(second.finish().await, Ok(Created::Exists));
    drop(storage.create("a/3").await.expect("begins"));

    // Parts of a file, also beyond its end.
    assert_eq!(storage.get_range("a/2", (3 << 20) - 1..(3 << 20) + 1).await, Ok(Bytes::from_static(&[7, 7])));
    assert_eq!(storage.get_range("a/1", 1..9).await, Ok("ne".into()));
    assert_eq!(storage.get_range("a/1", 9..12).await, Ok(Bytes::new()));
    let missing = storage.get_range("a/9", 0..1).await.expect_err("is missing");
    assert_eq!(missing.to_string(), format!("{} is damaged: it does not exist", storage.describe("a/9")));

    storage.put_new("a/b/1", "deeper".into()).await.expect("writes");
    storage.delete(&["a/1".into(), "a/9".into()]).await.expect("deletes what there is");
    assert_eq!(listed(&*storage, "a").await, [("a/2".into(), 12 << 20)]);
    assert_eq!(listed(&*storage, "a/b").await, [("a/b/1".into(), 6)]);
}

/// Many create one name at once.
async fn one_wins(storage: Arc<dyn Storage>) {
    for round in 0..20 {
        let name = format!("race/{round}");
        let tries: Vec<_> = (0..8u8)
            .map(|number| {
                let (storage, name) = (storage.clone(), name.clone());
                tokio::spawn(async move { (number, storage.put_new(&name, vec![number; 100].into()).await.expect("is tried")) })
            })
            .collect();
        let mut winners = Vec::new();
        for tried in tries {
            let (number, created) = tried.await.expect("does not panic");
            winners.extend((created == Created::Yes).then_some(number));
        }
        let [winner] = winners[..] else { panic!("winners: {winners:?}") };
        assert_eq!(storage.get(&name).await, Ok(Some(vec![winner; 100].into())));
    }
}

#[test]
fn a_local_folder_keeps_the_rules() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Arc::new(LocalFolder::new(folder.path().join("not/there/yet")));
    wait(keeps_the_rules(storage.clone()));
    wait(one_wins(storage));
}

#[test]
fn an_object_store_keeps_the_rules() {
    wait(keeps_the_rules(memory()));
    wait(one_wins(memory()));
}

/// A real object store, in builds with `--features cloud`: `PELTON_TEST_STORAGE` is the URL of an empty folder in it.
#[test]
fn the_storage_of_the_environment_keeps_the_rules() {
    let Ok(url) = std::env::var("PELTON_TEST_STORAGE") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let storage = super::open(&url).expect("is a storage");
    runtime.block_on(keeps_the_rules(storage.clone()));
    runtime.block_on(one_wins(storage));
}

#[test]
fn unfinished_files_of_dead_processes_are_swept() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = LocalFolder::new(folder.path());
    wait(async {
        storage.put_new("segments/1", "one".into()).await.expect("writes");
        std::fs::write(folder.path().join("segments/.2.tmp-0123456789abcdef-7"), "half").expect("writes");
        let ours = storage.create("segments/3").await.expect("begins");
        storage.sweep().await.expect("sweeps");
        let names = || std::fs::read_dir(folder.path().join("segments")).expect("is there").count();
        assert_eq!(names(), 2);
        assert_eq!(ours.finish().await, Ok(Created::Yes));
        assert_eq!(names(), 2);
    });
}

#[test]
fn a_lock_is_for_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = (LocalFolder::new(folder.path()), LocalFolder::new(folder.path()));
    // Another process is whoever has opened the file by itself.
    let path = folder.path().join("lock");
    std::fs::write(&path, "4711").expect("writes");
    let theirs = std::fs::File::open(&path).expect("is there");
    theirs.try_lock().expect("is free");
    let error = one.lock().expect_err("is held");
    assert_eq!(error.to_string(), format!("{} is in use by process 4711", folder.path().display()));
    assert!(error.help().is_some_and(|help| help.contains("--take-over")));
    drop(theirs);
    // Within a process it is shared, and free when all have dropped it.
    let lock = one.lock().expect("is free").expect("is a lock");
    let again = other.lock().expect("is ours").expect("is a lock");
    drop(lock);
    let theirs = std::fs::File::open(&path).expect("is there");
    assert!(theirs.try_lock().is_err());
    drop(again);
    theirs.try_lock().expect("is free");
}

#[test]
fn places_are_named_by_path_or_url() {
    assert_eq!(super::open("some/folder").expect("is a path").describe("a"), "some/folder/a");
    assert_eq!(super::open("file:///some/folder").expect("is a path").describe("a"), "/some/folder/a");
    let error = super::open("ftp://host/folder").err().expect("is no storage");
    assert!(error.to_string().starts_with("ftp://host/folder: "), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("s3://BUCKET/PATH")));
}
