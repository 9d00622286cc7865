//! Fuzz targets: columns as bytes, what a guest answers besides columns, and compiled code out of the cache. Under `cargo test` they
//! explore for a moment; `cargo xtask fuzz` explores on.

use crate::bytes::Bytes;
use crate::contract::batch::RowErrors;
use crate::contract::bytes::BytesColumnResult;
use crate::contract::stateful_do_fn::{ListWrites, MapWrites, TimerWrites, ValueWrites};
use crate::descriptor::{StateKind, StateSpec, TimeDomain, TimerSpec, Ttl};
use crate::engine::{Engine, EngineOptions};
use crate::flatten::{bytes_of, flatten};
use crate::outcome;
use crate::schema::{FlatField, unflatten_schema};
use crate::sizes::bytes_of_rows;
use crate::stateful::{CellRef, KeyedState, StateWrite, Stored, Writes};
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

impl Decisions<'_> {
    /// Bytes that are mostly a list of small numbers.
    fn numbers(&mut self, count: usize, below: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count).flat_map(|_| (self.one_of(below) as u32).to_le_bytes()).collect();
        match self.one_of(12) {
            0 => bytes.truncate(self.one_of(bytes.len() + 1)),
            1 => bytes.push(1),
            2 if !bytes.is_empty() => {
                let place = self.one_of(bytes.len());
                bytes[place] = self.one_of(256) as u8;
            }
            _ => {}
        }
        bytes
    }

    /// Times, from both ends of what an i64 can be as well.
    fn times(&mut self, count: usize) -> Vec<u8> {
        let times = (0..count + usize::from(self.one_of(9) == 0)).map(|_| match self.one_of(4) {
            0 => i64::MAX,
            1 => i64::MIN,
            _ => i64::from_le_bytes(self.value()),
        });
        times.flat_map(i64::to_le_bytes).collect()
    }

    /// A column of byte strings, mostly sound.
    fn strings(&mut self, entries: usize) -> BytesColumnResult {
        let (mut offsets, mut data) = (vec![0u32], vec![]);
        for _ in 0..entries {
            data.extend(std::iter::repeat_n(7, self.one_of(4)));
            offsets.push(data.len() as u32);
        }
        let mut offsets: Vec<u8> = offsets.into_iter().flat_map(u32::to_le_bytes).collect();
        let mut validity = if self.one_of(2) == 0 { vec![] } else { (0..entries.div_ceil(8)).map(|_| self.one_of(256) as u8).collect() };
        match self.one_of(10) {
            0 => validity.push(255),
            1 => data.push(7),
            2 => offsets.truncate(self.one_of(offsets.len() + 1)),
            3 => {
                let place = self.one_of(offsets.len());
                offsets[place] = self.one_of(256) as u8;
            }
            _ => {}
        }
        BytesColumnResult { validity, offsets, data }
    }
}

/// Origins, event times and row errors: refused, or each within what it may name.
#[test]
fn fuzz_origins_times_and_errors_of_a_hostile_guest() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let (rows, input) = (decisions.one_of(12), decisions.one_of(9));
        let told = (decisions.one_of(4) > 0).then(|| decisions.numbers(rows, 12));
        match outcome::origin(told, rows, input) {
            Ok(Some(origin)) => assert!(origin.len() == rows && origin.iter().all(|row| (*row as usize) < input)),
            Ok(None) => assert_eq!(rows, input),
            Err(_) => {}
        }
        if let Ok(times) = outcome::event_times(&decisions.times(rows), rows) {
            assert!(times.len() == rows && times.iter().all(|time| pelton_core::Instant::from_micros(*time).is_ok()));
        }
        let errors = decisions.one_of(4);
        let told = RowErrors {
            rows: decisions.numbers(errors, 9),
            offsets: decisions.numbers(errors + 1, 6),
            messages: decisions.strings(errors).data,
        };
        if let Ok(errors) = outcome::row_errors(&told, input) {
            assert!(errors.windows(2).all(|pair| pair[0].row < pair[1].row) && errors.iter().all(|error| (error.row as usize) < input));
        }
        let told = decisions.strings(rows);
        if let Ok(column) = Bytes::check(told, rows) {
            assert!(
                column.len() == rows && (0..rows).filter_map(|entry| column.get(entry)).map(<[u8]>::len).sum::<usize>() <= column.bytes()
            );
        }
    });
}

/// State that looks at what it is given.
struct Strict {
    cells: u32,
}

impl KeyedState for Strict {
    fn value(&self, _state: usize, _cell: u32) -> Option<Stored<'_>> {
        None
    }

    fn item(&self, _state: usize, _cell: u32, _key: &[u8]) -> Option<Stored<'_>> {
        None
    }

    fn items(&self, _state: usize, _cell: u32, _after: Option<&[u8]>, _each: &mut dyn FnMut(&[u8], Stored<'_>) -> bool) {}

    fn bytes(&self) -> usize {
        0
    }

    fn apply(&mut self, write: StateWrite<'_>) {
        let (number, cell, kinds) = match write {
            StateWrite::Value { state, cell, .. } => (state, cell, 0..2),
            StateWrite::Append { state, cell, .. } => (state, cell, 2..3),
            StateWrite::Put { state, cell, .. } => (state, cell, 3..4),
            StateWrite::Clear { state, cell } => (state, cell, 2..4),
            StateWrite::Timer { timer, cell, .. } => (timer, cell, 0..2),
        };
        // The cells of the call are numbered from 100.
        assert!(kinds.contains(&number) && (100..100 + self.cells).contains(&cell), "{write:?}");
    }
}

/// Writes of state and timers: refused as a whole, or each to a state of its kind and a cell of the call.
#[test]
fn fuzz_state_writes_of_a_hostile_guest() {
    let state = |name: &str, kind, ttl| StateSpec {
        name: name.into(),
        kind,
        value: None,
        key: None,
        plain: false,
        version: 1,
        migrates: vec![],
        migrations: vec![],
        ttl,
        value_type: None,
        key_type: None,
    };
    let ttl = Ttl { micros: 60, domain: TimeDomain::EventTime };
    let states = [
        state("value", StateKind::Value, None),
        state("minute", StateKind::Value, Some(ttl)),
        state("list", StateKind::List, None),
        state("map", StateKind::Map, None),
    ];
    let timers = [TimeDomain::EventTime, TimeDomain::ProcessingTime].map(|domain| TimerSpec { name: "timer".into(), domain });
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let cells = decisions.one_of(6);
        let entries = decisions.one_of(5);
        let some = |decisions: &mut Decisions<'_>| decisions.one_of(3);
        let expires = |decisions: &mut Decisions<'_>, state| if state == 1 { decisions.times(entries) } else { vec![] };
        let values = (0..some(&mut decisions)).map(|_| {
            let state = decisions.one_of(5) as u32;
            let (groups, values) = (decisions.numbers(entries, 6), decisions.strings(entries));
            ValueWrites { state, groups, values, expires: expires(&mut decisions, state) }
        });
        let values = values.collect();
        let lists = (0..some(&mut decisions)).map(|_| {
            let (state, cleared) = (2 + u32::from(decisions.one_of(5) == 0), decisions.one_of(3));
            let (cleared, groups) = (decisions.numbers(cleared, 6), decisions.numbers(entries, 6));
            ListWrites { state, cleared, groups, items: decisions.strings(entries), expires: vec![] }
        });
        let lists = lists.collect();
        let maps = (0..some(&mut decisions)).map(|_| {
            let (cleared, groups) = (decisions.numbers(1, 6), decisions.numbers(entries, 6));
            MapWrites { state: 3, cleared, groups, keys: decisions.strings(entries), values: decisions.strings(entries), expires: vec![] }
        });
        let maps = maps.collect();
        let timer_writes = (0..some(&mut decisions)).map(|_| {
            let (timer, groups) = (decisions.one_of(3) as u32, decisions.numbers(entries, 6));
            TimerWrites { timer, groups, times: decisions.times(entries), output_times: decisions.times(entries) }
        });
        let timer_writes = timer_writes.collect();
        if let Ok(writes) = Writes::check(&states, &timers, cells, values, lists, maps, timer_writes) {
            let window = pelton_core::Window { start: pelton_core::Instant::MIN, end: pelton_core::Instant::MAX };
            let refs: Vec<CellRef> = (0..cells as u32).map(|cell| CellRef { id: 100 + cell, window }).collect();
            writes.apply(&refs, &mut Strict { cells: cells as u32 });
            let _ = (writes.bytes(), writes.larger_than(2));
        }
    });
}

/// Schemas as guests tell them: refused, or of as many fields as were told.
#[test]
fn fuzz_schemas_of_a_hostile_guest() {
    const FORMATS: [&str; 20] = [
        "n", "b", "l", "u", "z", "g", "+s", "+l", "+m", "+w:2", "+w:-1", "+w:", "d:10,2", "d:99,3", "d:,", "tsu:", "tsu:UTC", "vu", "w:3",
        "é",
    ];
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let mut decisions = Decisions(bytes.iter());
        let field = |decisions: &mut Decisions<'_>| FlatField {
            name: decisions.one_of(9).to_string(),
            format: FORMATS[decisions.one_of(FORMATS.len())].into(),
            nullable: decisions.one_of(2) == 0,
            children: if decisions.one_of(20) == 0 { u32::MAX } else { decisions.one_of(3) as u32 },
        };
        let flat: Vec<FlatField> = (0..decisions.one_of(40)).map(|_| field(&mut decisions)).collect();
        if let Ok(fields) = unflatten_schema(&flat) {
            fn count(fields: &Fields) -> usize {
                let below = |field: &FieldRef| match field.data_type() {
                    DataType::Struct(fields) => count(fields),
                    DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => count(&vec![item.clone()].into()),
                    _ => 0,
                };
                fields.iter().map(|field| 1 + below(field)).sum()
            }
            assert_eq!(count(&fields), flat.len());
        }
    });
}

/// The sizes of rows add up to that of all of them, however a column is sliced.
#[test]
fn fuzz_sizes_of_rows() {
    bolero::check!().with_test_time(TEST_TIME).with_max_len(512).for_each(|bytes: &[u8]| {
        let column = Decisions(bytes.iter()).slice();
        let each: usize = (0..column.len()).map(|row| bytes_of_rows(&column, row..row + 1)).sum();
        assert_eq!(each, bytes_of_rows(&column, 0..column.len()));
    });
}

/// The smallest component, a preamble, and one with the smallest core module in it.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const OTHER_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0";

/// Compiled code that anybody has touched is never run: it is compiled anew, and the genuine entry is there again afterwards.
#[test]
fn fuzz_damaged_code_in_the_cache_is_never_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::new(EngineOptions { cache_dir: Some(folder.path().into()), ..EngineOptions::default() }).expect("an engine");
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
