//! The plain encoding of state values and of map keys, version 1 (`encoding` in `wit/spec.wit`).
//!
//! Values: fixed-width types little-endian; a bool one byte; texts and bytes a u32 length, then the bytes; an `Option` a byte 0 or 1, then
//! the value if 1; a list a u32 count, then its items; a map a u32 count, then keys and values; a struct its fields in order. Keys
//! sort as bytes do: integers and times big-endian with the sign flipped, texts and bytes as they are.
//!
//! The type travels in the descriptor, not in each value: the host keeps it with the state, and brings values that were written as another type
//! to today's before the plugin sees them, by its rules or by the plugin's migration ([`super::migrate`]).

use std::collections::BTreeMap;

use crate::values::{Date, Decimal, Timestamp};
use crate::wire::Field;

/// A type that state can hold. `#[derive(StateValue)]` makes a struct of such types one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in state",
    note = "state holds a bool, a number, `String`, `Vec<u8>`, `Timestamp`, `Date`, `Decimal<P, S>`, a struct with `#[derive(StateValue)]`, or an \
            `Option`, `Vec`, `BTreeMap` or pair of these; nothing that borrows from a row"
)]
pub trait StateValue: Sized {
    /// Appends the type's field and those below it.
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>);
    fn encode(&self, out: &mut Vec<u8>);
    /// Takes a value from the front; nothing when the bytes are not of this type.
    fn decode(from: &mut &[u8]) -> Option<Self>;
}

/// A type that can be the key of a map in state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a map in state",
    note = "a key is a bool, an integer, `String`, `Vec<u8>`, `Timestamp` or `Date`"
)]
pub trait StateKey: StateValue {
    /// Bytes that sort as the keys do.
    fn encode_key(&self) -> Vec<u8>;
    fn decode_key(bytes: &[u8]) -> Option<Self>;
}

/// Reads a whole value. Bytes that are not of its type come from another version of the plugin, which is a fault that no row has.
pub(crate) fn decode_all<T: StateValue>(name: &str, mut bytes: &[u8]) -> T {
    match T::decode(&mut bytes) {
        Some(value) if bytes.is_empty() => value,
        _ => panic!("the state `{name}` holds bytes that are not of its type: it was written by another version of the plugin"),
    }
}

fn leaf(name: &str, format: &str, nullable: bool, children: u32, out: &mut Vec<Field>) {
    out.push(Field { name: name.to_owned(), format: format.to_owned(), nullable, children, default: None });
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

fn take_bytes<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = u32::from_le_bytes(take(from)?) as usize;
    let (head, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(head)
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("a state value is smaller than 4 GiB");
    out.extend_from_slice(&count.to_le_bytes());
}

macro_rules! number {
    ($($type:ty, $format:literal;)+) => {$(
        impl StateValue for $type {
            fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) { leaf(name, $format, nullable, 0, out); }
            fn encode(&self, out: &mut Vec<u8>) { out.extend_from_slice(&self.to_le_bytes()); }
            fn decode(from: &mut &[u8]) -> Option<$type> { take(from).map(<$type>::from_le_bytes) }
        }
    )+};
}
number! { i64, "l"; i32, "i"; i16, "s"; i8, "c"; u64, "L"; u32, "I"; u16, "S"; u8, "C"; f64, "g"; f32, "f"; }

macro_rules! integer_key {
    ($($type:ty, $flip:expr;)+) => {$(
        impl StateKey for $type {
            fn encode_key(&self) -> Vec<u8> { (*self ^ $flip).to_be_bytes().to_vec() }
            fn decode_key(bytes: &[u8]) -> Option<$type> { Some(<$type>::from_be_bytes(bytes.try_into().ok()?) ^ $flip) }
        }
    )+};
}
integer_key! { i64, i64::MIN; i32, i32::MIN; i16, i16::MIN; i8, i8::MIN; u64, 0; u32, 0; u16, 0; u8, 0; }

macro_rules! wrapped {
    ([$($generics:tt)*] $type:ty, $inner:ty, $format:expr) => {
        impl<$($generics)*> StateValue for $type {
            fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) { leaf(name, &$format, nullable, 0, out); }
            fn encode(&self, out: &mut Vec<u8>) { out.extend_from_slice(&self.0.to_le_bytes()); }
            fn decode(from: &mut &[u8]) -> Option<Self> { take(from).map(|bytes| Self(<$inner>::from_le_bytes(bytes))) }
        }
    };
}
wrapped!([] Timestamp, i64, "tsu:UTC");
wrapped!([] Date, i32, "tdD");
wrapped!([const P: u8, const S: i8] Decimal<P, S>, i128, format!("d:{P},{S}"));

impl StateKey for Timestamp {
    fn encode_key(&self) -> Vec<u8> {
        self.0.encode_key()
    }
    fn decode_key(bytes: &[u8]) -> Option<Timestamp> {
        i64::decode_key(bytes).map(Timestamp)
    }
}

impl StateKey for Date {
    fn encode_key(&self) -> Vec<u8> {
        self.0.encode_key()
    }
    fn decode_key(bytes: &[u8]) -> Option<Date> {
        i32::decode_key(bytes).map(Date)
    }
}

impl StateValue for bool {
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        leaf(name, "b", nullable, 0, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(from: &mut &[u8]) -> Option<bool> {
        match take(from)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl StateKey for bool {
    fn encode_key(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }
    fn decode_key(mut bytes: &[u8]) -> Option<bool> {
        bool::decode(&mut bytes)
    }
}

impl StateValue for String {
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        leaf(name, "u", nullable, 0, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(from: &mut &[u8]) -> Option<String> {
        String::from_utf8(take_bytes(from)?.to_vec()).ok()
    }
}

impl StateKey for String {
    fn encode_key(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn decode_key(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// Everything but `u8`, because a `Vec<u8>` is bytes.
pub trait StateItem: StateValue {}
macro_rules! items { ($([$($generics:tt)*] $type:ty),+ $(,)?) => { $(impl<$($generics)*> StateItem for $type {})+ } }
items!(
    [] i64, [] i32, [] i16, [] i8, [] u64, [] u32, [] u16, [] f64, [] f32, [] bool, [] Timestamp, [] Date, [] String, [] Vec<u8>,
    [const P: u8, const S: i8] Decimal<P, S>, [T: StateItem] Vec<T>, [T: StateValue] Option<T>, [A: StateValue, B: StateValue] (A, B),
    [K: StateValue + Ord, V: StateValue] BTreeMap<K, V>,
);

impl StateValue for Vec<u8> {
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        leaf(name, "z", nullable, 0, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self);
    }
    fn decode(from: &mut &[u8]) -> Option<Vec<u8>> {
        take_bytes(from).map(<[u8]>::to_vec)
    }
}

impl StateKey for Vec<u8> {
    fn encode_key(&self) -> Vec<u8> {
        self.clone()
    }
    fn decode_key(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

impl<T: StateItem> StateValue for Vec<T> {
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        leaf(name, "+l", nullable, 1, out);
        T::fields("item", false, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        self.iter().for_each(|item| item.encode(out));
    }
    fn decode(from: &mut &[u8]) -> Option<Vec<T>> {
        (0..u32::from_le_bytes(take(from)?)).map(|_| T::decode(from)).collect()
    }
}

impl<T: StateValue> StateValue for Option<T> {
    fn fields(name: &str, _: bool, out: &mut Vec<Field>) {
        T::fields(name, true, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(out);
        }
    }
    fn decode(from: &mut &[u8]) -> Option<Option<T>> {
        match take(from)? {
            [0] => Some(None),
            [1] => T::decode(from).map(Some),
            _ => None,
        }
    }
}

impl<A: StateValue, B: StateValue> StateValue for (A, B) {
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        leaf(name, "+s", nullable, 2, out);
        A::fields("0", false, out);
        B::fields("1", false, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
    fn decode(from: &mut &[u8]) -> Option<(A, B)> {
        Some((A::decode(from)?, B::decode(from)?))
    }
}

impl<K: StateValue + Ord, V: StateValue> StateValue for BTreeMap<K, V> {
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        leaf(name, "+m", nullable, 1, out);
        leaf("entries", "+s", false, 2, out);
        K::fields("key", false, out);
        V::fields("value", false, out);
    }
    fn encode(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }
    fn decode(from: &mut &[u8]) -> Option<BTreeMap<K, V>> {
        (0..u32::from_le_bytes(take(from)?)).map(|_| Some((K::decode(from)?, V::decode(from)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: StateValue + PartialEq + std::fmt::Debug>(value: T, bytes: &[u8], formats: &[&str]) {
        let mut encoded = vec![];
        value.encode(&mut encoded);
        assert_eq!(encoded, bytes, "{value:?}");
        assert_eq!(T::decode(&mut &*encoded).as_ref(), Some(&value));
        (0..encoded.len()).for_each(|cut| assert_eq!(T::decode(&mut &encoded[..cut]), None, "{value:?} cut at {cut}"));
        let mut fields = vec![];
        T::fields("x", false, &mut fields);
        assert_eq!(fields.iter().map(|field| field.format.as_str()).collect::<Vec<_>>(), formats);
    }

    /// Golden bytes: a change of any of them is a new version of the encoding.
    #[test]
    fn values_have_the_documented_bytes() {
        check(-2_i64, &[0xfe, 255, 255, 255, 255, 255, 255, 255], &["l"]);
        check(true, &[1], &["b"]);
        check("hé".to_owned(), &[3, 0, 0, 0, b'h', 0xc3, 0xa9], &["u"]);
        check(vec![7_u8, 8], &[2, 0, 0, 0, 7, 8], &["z"]);
        check(vec![1_i16, -1], &[2, 0, 0, 0, 1, 0, 255, 255], &["+l", "s"]);
        check(Some(3_u16), &[1, 3, 0], &["S"]);
        check(None::<u16>, &[0], &["S"]);
        check((Timestamp(1), 2_u8), &[1, 0, 0, 0, 0, 0, 0, 0, 2], &["+s", "tsu:UTC", "C"]);
        check(BTreeMap::from([(1_u8, false)]), &[1, 0, 0, 0, 1, 0], &["+m", "+s", "C", "b"]);
        check(Decimal::<4, 2>(5), &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &["d:4,2"]);
    }

    #[test]
    fn keys_sort_as_their_bytes() {
        fn check<K: StateKey + Ord + Clone + std::fmt::Debug>(keys: &[K]) {
            let mut encoded: Vec<_> = keys.iter().map(K::encode_key).collect();
            encoded.sort();
            let mut sorted = keys.to_vec();
            sorted.sort();
            assert_eq!(encoded.iter().map(|key| K::decode_key(key).unwrap()).collect::<Vec<_>>(), sorted);
        }
        check(&[0_i64, -1, 1, i64::MIN, i64::MAX, 256, -256]);
        check(&[0_u32, 1, 255, 256, u32::MAX]);
        check(&["b".to_owned(), String::new(), "a".into(), "ab".into(), "é".into()]);
        check(&[Timestamp(-5), Timestamp(5), Timestamp(0)]);
        check(&[true, false]);
    }
}
