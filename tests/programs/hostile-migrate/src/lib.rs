//! A component of one stateful transform and one aggregation, each in many versions, for the tests of what a plugin's `migrate` can do to a host. Written
//! against the raw bindings: it answers what no SDK would.
//!
//! A test writes the name of a version over the dots of [`WAY`] in the component's bytes. `first` is what runs before; the others keep their state under version
//! 2 of its type and do what their name says when they are to bring it over. All of them work alike on rows: `counts` numbers the rows of a key,
//! so that its output shows what became of its state, and keeps a map besides; `sums` adds up numbers.

wit_bindgen::generate!({
    inline: "package tests:both; world both { include pelton:plugin/stateful-transform@0.1.0; include pelton:plugin/combine@0.1.0; }",
    path: "../../../wit",
    generate_all,
});

mod misbehave;
mod stateful;
mod sums;

use exports::pelton::plugin::plugin::{Descriptor, Guest as Plugin};
use misbehave::trap;
use pelton::plugin::bytes::BytesColumn;
use pelton::plugin::spec::{Encoding, Migration, Role, StateKind, StateSpec, TransformSpec};

/// `hostile-migrate:` and a name; dots are none.
static WAY: [u8; 40] = *b"hostile-migrate:........................";

/// The name of this version.
fn way() -> String {
    // SAFETY: a reference to a static; volatile, so that the compiler does not take the bytes for known.
    let bytes = unsafe { std::ptr::read_volatile(&raw const WAY) };
    String::from_utf8_lossy(&bytes[16..]).trim_end_matches('.').to_string()
}

fn is(name: &str) -> bool {
    way() == name
}

/// The version of its state, and the one that it takes over: those named `first` have the first.
fn versions() -> (u32, u32) {
    if way().starts_with("first") { (1, 2) } else { (2, 1) }
}

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> Descriptor {
        if is("describe-traps") {
            trap("describe");
        }
        let (version, other) = versions();
        let state = |name: &str, kind: StateKind| StateSpec {
            name: name.into(),
            kind,
            encoding: Encoding::Opaque,
            value: vec![],
            key: vec![],
            version,
            migrates: vec![Migration { version: other, value: vec![], key: vec![] }],
            defaults: vec![],
            ttl: None,
        };
        let transform = |name: &str, role: Role, states: Vec<StateSpec>| TransformSpec {
            name: name.into(),
            summary: format!("Tests `{}`.", way()),
            role,
            config_schema: "{}".into(),
            reads: vec![],
            outputs: vec!["".into()],
            states,
            timers: vec![],
        };
        let counts = vec![state("count", StateKind::Value), state("seen", StateKind::MapState)];
        let sums = vec![state("sum", StateKind::Value)];
        let transforms = vec![transform("counts", Role::StatefulTransform, counts), transform("sums", Role::Combine, sums)];
        Descriptor { name: "hostile-migrate".into(), version: "0.1.0".into(), transforms }
    }
}

export!(Hostile);

fn u32s(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn read_u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn read_i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// A column without absent entries.
fn column(entries: &[Vec<u8>]) -> BytesColumn {
    let mut end = 0;
    let ends = entries.iter().map(|entry| {
        end += entry.len() as u32;
        end
    });
    let offsets = u32s(std::iter::once(0).chain(ends));
    BytesColumn { validity: vec![], offsets, data: entries.concat() }
}

/// The entries of a column; absent ones have none.
fn entries(column: &BytesColumn) -> Vec<Option<Vec<u8>>> {
    let offsets = read_u32s(&column.offsets);
    let is_present = |entry: usize| column.validity.is_empty() || column.validity[entry / 8] & 1 << (entry % 8) != 0;
    let bytes = |entry: usize| column.data[offsets[entry] as usize..offsets[entry + 1] as usize].to_vec();
    (0..offsets.len() - 1).map(|entry| is_present(entry).then(|| bytes(entry))).collect()
}
