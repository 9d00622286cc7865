//! What is written is read, and nothing else is.

use super::index::{Footer, Index};
use super::{BLOCK_BYTES, FOOTER_BYTES, Segment, SegmentFile, SegmentWriter};
use crate::durable::segment::SectionKind;
use crate::durable::storage::{LocalFolder, Storage};
use crate::durable::tests::{address, memory, wait};
use crate::durable::{Merge, StoreError};
use crate::{Change, Row, Rows};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Address, key length, and a value or what kind of removal.
type Given = (Vec<u8>, u32, Result<Vec<u8>, bool>);

fn change(change: &Result<Vec<u8>, bool>) -> Change<'_> {
    match change {
        Ok(value) => Change::Put(value),
        Err(true) => Change::RemoveAll,
        Err(false) => Change::Remove,
    }
}

/// Sorted rows of given ones, with key groups from 0 to 3 in front.
fn rows(given: &[Given]) -> Rows {
    let mut rows = Rows::default();
    for (address, key_len, value) in given {
        let mut grouped = vec![0, address.first().copied().unwrap_or(0) % 4];
        grouped.extend_from_slice(address);
        rows.push(Row { address: &grouped, key_len: *key_len, change: change(value) });
    }
    rows.sorted()
}

fn given() -> impl Strategy<Value = Given> {
    let address = prop_oneof![proptest::collection::vec(0u8..4, 0..6), proptest::collection::vec(any::<u8>(), 0..60)];
    let value = prop_oneof![4 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Ok), 1 => any::<bool>().prop_map(Err)];
    (address, 0u32..60, value)
}

/// What rows make of older ones.
fn applied(mut older: BTreeMap<Vec<u8>, Vec<u8>>, rows: &Rows) -> BTreeMap<Vec<u8>, Vec<u8>> {
    for row in rows.iter() {
        match row.change {
            Change::Put(value) => {
                older.insert(row.address.to_vec(), value.to_vec());
            }
            Change::Remove => {
                older.remove(row.address);
            }
            Change::RemoveAll => older.retain(|address, _| !address.starts_with(row.address)),
        }
    }
    older
}

async fn write(storage: &dyn Storage, block_bytes: usize, sections: &[(&str, &Rows)]) -> Result<SegmentFile, StoreError> {
    let mut writer = SegmentWriter::create(storage, "segments/s".into()).await?.with_block_bytes(block_bytes);
    for (uid, rows) in sections {
        writer.section(uid, "cells", SectionKind::Keyed);
        rows.iter().for_each(|row| writer.push(row));
        writer.drain().await?;
    }
    writer.section("zz", "parts", SectionKind::Unkeyed);
    writer.push(Row { address: b"topic/0", key_len: 0, change: Change::Put(b"position") });
    writer.finish().await
}

/// Everything in a segment, sections after each other.
async fn read_all(storage: &Arc<dyn Storage>, file: &SegmentFile) -> Result<Vec<(String, Vec<Given>)>, StoreError> {
    let segment = Segment::open(storage.clone(), file).await?;
    let mut sections = Vec::new();
    for (uid, name, ..) in segment.sections() {
        let mut rows = Vec::new();
        let mut cursor = segment.rows(uid, name, 0..u16::MAX).expect("the section exists");
        while cursor.fill().await? {
            let row = cursor.row().expect("it is filled");
            let value = match row.change {
                Change::Put(value) => Ok(value.to_vec()),
                other => Err(other == Change::RemoveAll),
            };
            rows.push((row.address.to_vec(), row.key_len, value));
            cursor.advance()?;
        }
        sections.push((uid.to_string(), rows));
    }
    Ok(sections)
}

fn plain(rows: &Rows) -> Vec<Given> {
    let value = |change: Change<'_>| match change {
        Change::Put(value) => Ok(value.to_vec()),
        other => Err(other == Change::RemoveAll),
    };
    rows.iter().map(|row| (row.address.to_vec(), row.key_len, value(row.change))).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        a in proptest::collection::vec(given(), 0..60),
        b in proptest::collection::vec(given(), 0..60),
        block_bytes in 1usize..300,
        groups in (0u16..5, 0u16..5),
    ) {
        let (a, b) = (rows(&a), rows(&b));
        let storage = memory();
        wait(async {
            let file = write(&*storage, block_bytes, &[("a", &a), ("b", &b)]).await.expect("writes");
            let parts = ("zz".to_string(), vec![(b"topic/0".to_vec(), 0, Ok(b"position".to_vec()))]);
            let want = vec![("a".to_string(), plain(&a)), ("b".to_string(), plain(&b)), parts];
            assert_eq!(read_all(&storage, &file).await.expect("reads"), want);

            // A range of key groups, without the rest.
            let segment = Segment::open(storage.clone(), &file).await.expect("opens");
            let range = groups.0.min(groups.1)..groups.0.max(groups.1);
            let mut cursor = segment.rows("b", "cells", range.clone()).expect("is there");
            let mut found = Vec::new();
            while cursor.fill().await.expect("reads") {
                found.push(cursor.row().expect("is filled").address.to_vec());
                cursor.advance().expect("is whole");
            }
            let want: Vec<_> = b.iter().filter(|row| range.contains(&row.group())).map(|row| row.address.to_vec()).collect();
            assert_eq!(found, want);
        });
    }

    /// Rows cut into segments at random and merged, against all of them in one list.
    #[test]
    fn a_merge_gives_the_newest(given in proptest::collection::vec(given(), 0..120), cuts in proptest::collection::vec(0usize..120, 0..4)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(given.len())).chain([0, given.len()]).collect();
        cuts.sort_unstable();
        wait(async {
            let mut cursors = Vec::new();
            for piece in cuts.windows(2) {
                let storage = memory();
                let file = write(&*storage, 50, &[("a", &rows(&given[piece[0]..piece[1]]))]).await.expect("writes");
                let segment = Segment::open(storage, &file).await.expect("opens");
                cursors.extend(segment.rows("a", "cells", 0..256));
            }
            let mut merge = Merge::new(cursors, crate::durable::merge::Removals::Keep);
            let mut merged = Rows::default();
            while merge.chunk(|row| merged.push(row)).await.expect("reads") {}
            // The lists may differ in removals of what is removed already: what counts is what they do to older rows.
            let older: BTreeMap<Vec<u8>, Vec<u8>> = rows(&given).iter().map(|row| (row.address.to_vec(), b"older".to_vec())).collect();
            assert_eq!(applied(older.clone(), &merged), applied(older, &rows(&given)));
        });
    }
}

/// A segment with every kind of row, in several blocks.
fn sample() -> Rows {
    let mut rows = Rows::default();
    for key in 0..8 {
        rows.push(Row { address: &address(key), key_len: 4, change: Change::Put(&[key as u8; 20]) });
    }
    rows.push(Row { address: &address(3), key_len: 4, change: Change::Remove });
    rows.push(Row { address: &address(5)[..22], key_len: 4, change: Change::RemoveAll });
    rows.push(Row { address: &address(5), key_len: 4, change: Change::Put(b"since") });
    rows.sorted()
}

#[test]
fn any_flipped_bit_and_any_missing_byte_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage: Arc<dyn Storage> = Arc::new(LocalFolder::new(folder.path()));
    wait(async {
        let file = write(&*storage, 100, &[("a", &sample()), ("b", &sample())]).await.expect("writes");
        let path = folder.path().join(&file.name);
        let good = std::fs::read(&path).expect("is there");
        assert!(good.len() > 500, "{} bytes", good.len());
        let check = async |bytes: &[u8], what: String| {
            std::fs::write(&path, bytes).expect("writes");
            let error = read_all(&storage, &file).await.err().unwrap_or_else(|| panic!("{what} is not found"));
            assert!(matches!(&error, StoreError::Damaged { file, .. } if file == path.to_str().expect("UTF-8")), "{error}");
            assert!(error.help().is_some_and(|help| help.contains("--from")));
        };
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                check(&bad, format!("bit {bit} of byte {at}")).await;
            }
            check(&good[..at], format!("the loss of what follows byte {at}")).await;
        }
        std::fs::write(&path, &good).expect("writes");
        read_all(&storage, &file).await.expect("is whole again");
        std::fs::remove_file(&path).expect("is there");
        assert!(read_all(&storage, &file).await.is_err_and(|error| error.to_string().ends_with("it does not exist")));
    });
}

#[test]
fn rows_out_of_order_are_not_written() {
    let one = |address: &'static [u8]| {
        let mut rows = Rows::default();
        rows.push(Row { address, key_len: 0, change: Change::Remove });
        rows
    };
    let check = |addresses: &[&'static [u8]], want: &str| {
        let mut rows = Rows::default();
        addresses.iter().for_each(|address| one(address).iter().for_each(|row| rows.push(row)));
        let error = wait(write(&*memory(), BLOCK_BYTES, &[("a", &rows)])).expect_err("is refused").to_string();
        assert!(error.ends_with(want), "{error}");
    };
    check(&[b"bbb", b"aaa"], "rows are not in order");
    check(&[b"bbb", b"bbb"], "rows are not in order");
    check(&[b"b"], "a row has no key group");
    let twice = wait(write(&*memory(), BLOCK_BYTES, &[("b", &one(b"bb")), ("a", &one(b"bb"))]));
    assert!(twice.is_err_and(|error| error.to_string().ends_with("sections are not in order")));
}

/// Hostile bytes are an error and nothing else, also where their checksums are right.
#[test]
fn fuzz_segment() {
    bolero::check!().with_test_time(Duration::from_millis(400)).with_max_len(512).for_each(|bytes: &[u8]| {
        let _ = Footer::read(bytes);
        let _ = Index::read(Bytes::copy_from_slice(bytes), bytes.len() as u64);
        let mut rows = super::block::BlockRows::new(Bytes::copy_from_slice(bytes));
        while let Ok(true) = rows.advance() {
            let row = rows.row();
            assert!(row.address.len() <= bytes.len());
            let _ = (row.group(), row.key(), row.window(), row.part());
        }
        // The same bytes as the blocks and the index of a file whose checksums are right.
        let cut = bytes.first().map_or(0, |first| usize::from(*first).min(bytes.len()));
        let (blocks, index) = bytes.split_at(cut);
        let mut file = blocks.to_vec();
        file.extend_from_slice(index);
        let footer = file.len();
        for number in [index.len() as u64, 7, xxhash_rust::xxh3::xxh3_64(index)] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        file.extend_from_slice(&super::VERSION.to_le_bytes());
        file.extend_from_slice(&super::MAGIC);
        let hash = xxhash_rust::xxh3::xxh3_64(&file[footer..]);
        file.extend_from_slice(&hash.to_le_bytes());
        assert_eq!(file.len() - footer, FOOTER_BYTES);
        wait(async {
            let (storage, name) = (memory(), "fuzzed".to_string());
            let described = SegmentFile { name: name.clone(), bytes: file.len() as u64, hash, rows: 7 };
            storage.put_new(&name, file.into()).await.expect("writes");
            let _ = read_all(&storage, &described).await;
        });
    });
}
