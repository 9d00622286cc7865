//! Fuzz targets of this crate's unsafe code: columns as bytes, and compiled code out of the cache. Under `cargo test` they explore for a
//! moment; `cargo bolero test` explores on.

use crate::engine::{Engine, EngineOptions};
use crate::flatten::{bytes_of, flatten};
use crate::unflatten::unflatten;
use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Time of a target under plain `cargo test`.
const TEST_TIME: Duration = Duration::from_millis(400);
/// Rows of a random column before it is sliced.
const MAX_ROWS: usize = 40;

/// Random bytes as a row of small decisions; zeros when they are used up, so that everything ends.
struct Decisions<'a>(std::slice::Iter<'a, u8>);

impl Decisions<'_> {
    fn one_of(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % count
    }

    fn value<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.0.next().copied().unwrap_or_default())
    }

    fn nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        (self.one_of(3) > 0).then(|| (0..rows).map(|_| self.one_of(4) > 0).collect())
    }

    /// Offsets of `rows` lists, not always from 0, since Arrow allows that, and the length that their child needs at least.
    fn offsets(&mut self, rows: usize) -> (OffsetBuffer<i32>, usize) {
        let mut end = self.one_of(3) as i32;
        let mut offsets = vec![end];
        for _ in 0..rows {
            end += self.one_of(4) as i32;
            offsets.push(end);
        }
        (OffsetBuffer::new(offsets.into()), end as usize + self.one_of(2))
    }

    fn array(&mut self, rows: usize, depth: usize) -> ArrayRef {
        let kind = self.one_of(if depth == 0 { 18 } else { 22 });
        let nulls = self.nulls(rows);
        macro_rules! values {
            ($array:ident, $native:ty) => {
                Arc::new($array::new((0..rows).map(|_| <$native>::from_le_bytes(self.value())).collect(), nulls))
            };
        }
        match kind {
            0 => Arc::new(NullArray::new(rows)),
            1 => Arc::new(BooleanArray::new((0..rows).map(|_| self.one_of(2) == 0).collect(), nulls)),
            2 => values!(Int8Array, i8),
            3 => values!(Int16Array, i16),
            4 => values!(Int32Array, i32),
            5 => values!(Int64Array, i64),
            6 => values!(UInt8Array, u8),
            7 => values!(UInt16Array, u16),
            8 => values!(UInt32Array, u32),
            9 => values!(UInt64Array, u64),
            10 => values!(Float32Array, f32),
            11 => values!(Float64Array, f64),
            12 => values!(Date32Array, i32),
            13 => values!(TimestampMicrosecondArray, i64),
            14 => {
                let values = (0..rows).map(|_| i128::from(i64::from_le_bytes(self.value()))).collect();
                Arc::new(Decimal128Array::new(values, nulls).with_data_type(DataType::Decimal128(38, 4)))
            }
            15 => Arc::new(FixedSizeBinaryArray::new(3, (0..3 * rows).map(|_| self.one_of(256) as u8).collect::<Vec<_>>().into(), nulls)),
            16 => {
                let (offsets, length) = self.offsets(rows);
                // Characters of two bytes at even offsets, so that each offset may be doubled and still falls between two.
                let doubled = OffsetBuffer::new(offsets.iter().map(|offset| 2 * offset).collect());
                Arc::new(StringArray::new(doubled, "é".repeat(length).into_bytes().into(), nulls))
            }
            17 => {
                let (offsets, length) = self.offsets(rows);
                Arc::new(BinaryArray::new(offsets, (0..length).map(|_| self.one_of(256) as u8).collect::<Vec<_>>().into(), nulls))
            }
            18 => {
                let (offsets, length) = self.offsets(rows);
                let child = self.array(length, depth - 1);
                Arc::new(ListArray::new(item(&child), offsets, child, nulls))
            }
            19 => {
                let child = self.array(2 * rows, depth - 1);
                Arc::new(FixedSizeListArray::new(item(&child), 2, child, nulls))
            }
            20 => {
                let children = [self.array(rows, depth - 1), self.array(rows, depth - 1)];
                let fields = children.iter().zip(["a", "b"]).map(|(child, name)| Field::new(name, child.data_type().clone(), true));
                Arc::new(StructArray::new(fields.collect(), children.to_vec(), nulls))
            }
            _ => {
                let (offsets, length) = self.offsets(rows);
                let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..length).map(|key| key.to_string())));
                let values = self.array(length, depth - 1);
                let pair =
                    Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", values.data_type().clone(), true)]);
                let entries = StructArray::new(pair.clone(), vec![keys, values], None);
                Arc::new(MapArray::new(Arc::new(Field::new("entries", DataType::Struct(pair), false)), offsets, entries, nulls, false))
            }
        }
    }

    /// A part of a random column.
    fn slice(&mut self) -> ArrayRef {
        let rows = self.one_of(MAX_ROWS);
        let array = self.array(rows, 2);
        let from = self.one_of(rows + 1);
        array.slice(from, self.one_of(rows - from + 1))
    }
}

fn item(child: &ArrayRef) -> FieldRef {
    Arc::new(Field::new("item", child.data_type().clone(), true))
}

/// Plain values are their little-endian bytes, one after the other.
#[test]
fn fuzz_bytes_of_values() {
    bolero::check!().with_test_time(TEST_TIME).for_each(|bytes: &[u8]| {
        macro_rules! check {
            ($($native:ty),+) => {$(
                let values: Vec<$native> =
                    bytes.chunks_exact(size_of::<$native>()).map(|part| <$native>::from_le_bytes(part.try_into().unwrap())).collect();
                assert_eq!(bytes_of(&values), &bytes[..values.len() * size_of::<$native>()]);
            )+};
        }
        check!(i8, i16, i32, i64, i128, u8, u16, u32, u64, f32, f64);
    });
}

/// Any column, sliced anywhere, crosses and comes back equal, by Arrow's own comparison and validation.
#[test]
fn fuzz_flat_columns_come_back() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(1_024).for_each(|bytes: &[u8]| {
        let sent = Decisions(bytes.iter()).slice();
        let field = Arc::new(Field::new("c", sent.data_type().clone(), true));
        let flat = flatten(std::iter::once(&sent as &dyn Array));
        let buffers = flat.buffers.iter().map(|buffer| buffer.to_vec()).collect();
        let back = unflatten(&vec![field].into(), sent.len(), &flat.nodes, buffers, 1 << 16).expect("what is sent is valid").remove(0);
        back.to_data().validate_full().expect("valid");
        assert_eq!(&sent, &back);
    });
}

/// Whatever stands in nodes and buffers: an error, or an array that Arrow finds valid in every respect.
#[test]
fn fuzz_flat_columns_of_a_hostile_guest() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(1_024).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let sent = decisions.slice();
        let field = Arc::new(Field::new("c", sent.data_type().clone(), true));
        let flat = flatten(std::iter::once(&sent as &dyn Array));
        let (mut nodes, mut buffers) = (flat.nodes, flat.buffers.iter().map(|buffer| buffer.to_vec()).collect::<Vec<_>>());
        for _ in 0..1 + decisions.one_of(4) {
            let which = decisions.one_of(buffers.len() + 1);
            let buffer = if which == buffers.len() { &mut nodes } else { &mut buffers[which] };
            let place = usize::from(u16::from_le_bytes(decisions.value())) % (buffer.len() + 1);
            match decisions.one_of(4) {
                0 => buffer.truncate(place),
                1 => buffer.insert(place, decisions.one_of(256) as u8),
                _ => buffer.iter_mut().skip(place).take(1).for_each(|byte| *byte = decisions.one_of(256) as u8),
            }
        }
        if let Ok(arrays) = unflatten(&vec![field].into(), sent.len(), &nodes, buffers, 1 << 16) {
            arrays[0].to_data().validate_full().expect("only valid arrays come out");
            let _ = format!("{:?}", arrays[0]);
        }
    });
}

/// The smallest component, a preamble, and one with the smallest core module in it.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const OTHER_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0";

/// Compiled code that anybody has touched is never run: it is compiled anew, and the genuine entry is there again afterwards.
#[test]
fn fuzz_damaged_code_in_the_cache_is_never_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::new(EngineOptions { cache_dir: Some(folder.path().into()) }).expect("an engine");
    // A panic ends the test, so nobody sees the engine after one.
    let compile = AssertUnwindSafe(|component: &[u8], digest: &str| {
        engine.compile("tiny", component, digest).map(|_| ()).expect("compiles whatever is in the cache");
    });
    compile(EMPTY_COMPONENT, "one");
    let path = entry(folder.path(), &[]);
    compile(OTHER_COMPONENT, "two");
    let other = std::fs::read(entry(folder.path(), &[&path])).expect("reads");
    let genuine = std::fs::read(&path).expect("reads");
    assert!(genuine[32..] != other[32..], "two components have two codes");
    bolero::check!().with_test_time(TEST_TIME).with_max_len(64).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let damaged = damaged(&mut decisions, &genuine, &other);
        std::fs::write(&path, &damaged).expect("writes");
        compile(EMPTY_COMPONENT, "one");
        // Code that was accepted would not have been written again.
        assert!(std::fs::read(&path).expect("reads") == genuine, "a damaged entry of {} bytes was accepted", damaged.len());
    });
}

/// The one entry of the cache that is not among the known.
fn entry(folder: &Path, known: &[&Path]) -> std::path::PathBuf {
    let entries = std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("an entry").path());
    let is_new = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "aot") && !known.contains(&path.as_path());
    entries.into_iter().find(is_new).expect("the code was kept")
}

/// The entry cut off, changed in some bytes, longer, put together with another's, or the other whole.
fn damaged(decisions: &mut Decisions<'_>, genuine: &[u8], other: &[u8]) -> Vec<u8> {
    let mut entry = genuine.to_vec();
    let place = u32::from_le_bytes(decisions.value()) as usize % genuine.len();
    match decisions.one_of(6) {
        0 => entry.truncate(place),
        1 => entry.extend_from_slice(&decisions.value::<5>()),
        2 => entry = other.to_vec(),
        // The other's code under this one's MAC, and the other way round: MACs have 32 bytes.
        3 => entry = [&genuine[..32], &other[32..]].concat(),
        4 => entry = [&other[..32], &genuine[32..]].concat(),
        _ => {
            for _ in 0..decisions.one_of(8) {
                let place = u32::from_le_bytes(decisions.value()) as usize % genuine.len();
                entry[place] ^= decisions.one_of(256) as u8;
            }
            entry[place] ^= 1 << decisions.one_of(8);
        }
    }
    entry
}
