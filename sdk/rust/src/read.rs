//! From columns to values: [`Read`] is implemented by every type that a row's field may have.
//!
//! A reader holds slices of the batch's buffers and is made once a batch; reading a cell then is an index computation, and a `&str` or
//! `&[u8]` borrows the bytes where they crossed. Buffers have no alignment, so numbers are put together from bytes, which compiles to one
//! load. Widths are checked at open: an integer field reads any narrower integer column, `f64` any number.

use std::collections::BTreeMap;

use crate::row::ReadRow;
use crate::schema::{Mismatch, Want, after, described};
use crate::values::{Date, Decimal, Timestamp};
use crate::wire::{Columns, Field};

/// A null where the row's type has no `Option`; holds the field's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Null(pub String);

impl Null {
    #[cold]
    fn here() -> Null {
        Null(String::new())
    }

    #[cold]
    pub(crate) fn below(self, name: &str) -> Null {
        Null(if self.0.is_empty() { name.to_owned() } else { format!("{name}.{}", self.0) })
    }
}

/// The columns of a call with their schema.
#[derive(Clone, Copy)]
pub struct Flat<'a> {
    pub(crate) fields: &'a [Field],
    pub(crate) columns: &'a Columns,
}

/// Where a subtree starts: its field number, and the number of its first buffer.
#[derive(Clone, Copy)]
pub struct Place {
    field: usize,
    buffer: usize,
}

impl<'a> Flat<'a> {
    pub(crate) const TOP: Place = Place { field: 0, buffer: 0 };

    fn field(&self, place: Place) -> &'a Field {
        &self.fields[place.field]
    }

    fn buffer(&self, place: Place, number: usize) -> &'a [u8] {
        &self.columns.buffers[place.buffer + number]
    }

    fn validity(&self, place: Place) -> Validity<'a> {
        Validity(self.buffer(place, 0))
    }

    fn first_child(&self, place: Place) -> Place {
        Place { field: place.field + 1, buffer: place.buffer + buffers_of(&self.field(place).format) }
    }

    fn next(&self, place: Place) -> Place {
        let end = after(self.fields, place.field);
        let buffers: usize = self.fields[place.field..end].iter().map(|field| buffers_of(&field.format)).sum();
        Place { field: end, buffer: place.buffer + buffers }
    }

    /// The column called `name` from `place` on; `resolve` has found it at open.
    fn named(&self, mut place: Place, name: &str) -> Place {
        while self.field(place).name != name {
            place = self.next(place);
        }
        place
    }
}

impl<'a> Flat<'a> {
    /// The numbers of the buffers of a range of fields.
    pub(crate) fn buffers(&self, fields: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let count = |fields: &[Field]| fields.iter().map(|field| buffers_of(&field.format)).sum::<usize>();
        let start = count(&self.fields[..fields.start]);
        start..start + count(&self.fields[fields])
    }

    /// A top-level column's place and its field number.
    pub(crate) fn numbered(&self, name: &str) -> (Place, usize) {
        let place = self.named(Flat::TOP, name);
        (place, place.field)
    }
}

fn buffers_of(format: &str) -> usize {
    match format.as_bytes() {
        b"n" => 0,
        b"u" | b"z" => 3,
        [b'+', b's', ..] | [b'+', b'w', ..] => 1,
        _ => 2,
    }
}

/// A bitmap of the cells that are not null; empty when none is.
#[derive(Clone, Copy)]
pub struct Validity<'a>(&'a [u8]);

impl Validity<'_> {
    #[inline(always)]
    pub(crate) fn is_null(self, row: usize) -> bool {
        !self.0.is_empty() && !bit(self.0, row)
    }
}

#[inline(always)]
pub(crate) fn bit(bitmap: &[u8], row: usize) -> bool {
    bitmap[row / 8] >> (row % 8) & 1 == 1
}

/// A type that stands in one column and can be read from it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a column",
    note = "a row's field is a bool, a number, `&str`, `String`, `&[u8]`, `Vec<u8>`, `Timestamp`, `Date`, `Decimal<P, S>`, a type with \
            `#[derive(Row)]`, or an `Option`, `Vec` or `BTreeMap` of these"
)]
pub trait Read<'a>: Sized {
    type Reader;
    /// The type in words, for messages.
    fn wanted() -> String;
    /// Arrow formats of the columns it reads; empty when they cannot be listed.
    fn formats() -> Vec<String>;
    fn check(fields: &[Field], at: usize) -> Result<(), Mismatch> {
        let found = &fields[at].format;
        if Self::formats().iter().any(|format| format == found) { Ok(()) } else { Err(mismatch::<Self>(found)) }
    }
    fn reader(flat: Flat<'a>, place: Place) -> Self::Reader;
    fn is_null(reader: &Self::Reader, row: usize) -> bool;
    fn read(reader: &Self::Reader, row: usize) -> Result<Self, Null>;
}

fn mismatch<'a, T: Read<'a>>(found: &str) -> Mismatch {
    Mismatch { path: String::new(), wanted: T::wanted(), found: described(found) }
}

/// A column of a row type; the derive macro lists them.
pub fn want<'a, T: Read<'a>>(name: &'static str) -> Want {
    Want { name, wanted: T::wanted(), formats: T::formats(), check: T::check }
}

/// Makes the reader of a row's field.
pub fn field_reader<'a, T: Read<'a>>(flat: Flat<'a>, first: Place, name: &str) -> T::Reader {
    T::reader(flat, flat.named(first, name))
}

/// Reads a row's field. A null gets the field's name.
#[inline(always)]
pub fn read_field<'a, T: Read<'a>>(reader: &T::Reader, row: usize, name: &'static str) -> Result<T, Null> {
    T::read(reader, row).map_err(|null| null.below(name))
}

/// Fixed-width cells.
pub struct Fixed<'a> {
    validity: Validity<'a>,
    values: &'a [u8],
    /// First byte of the format, which tells the width of a number.
    kind: u8,
}

impl<'a> Fixed<'a> {
    fn new(flat: Flat<'a>, place: Place) -> Fixed<'a> {
        let kind = flat.field(place).format.as_bytes().first().copied().unwrap_or_default();
        Fixed { validity: flat.validity(place), values: flat.buffer(place, 1), kind }
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, row: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.values[row * N..row * N + N]);
        bytes
    }
}

macro_rules! number {
    ($type:ty, $words:literal, $($kind:literal $from:ty),+) => {
        impl<'a> Read<'a> for $type {
            type Reader = Fixed<'a>;
            fn wanted() -> String { $words.to_owned() }
            fn formats() -> Vec<String> { vec![$(($kind as char).to_string()),+] }
            fn reader(flat: Flat<'a>, place: Place) -> Fixed<'a> { Fixed::new(flat, place) }
            #[inline(always)]
            fn is_null(reader: &Fixed<'a>, row: usize) -> bool { reader.validity.is_null(row) }
            #[inline(always)]
            fn read(reader: &Fixed<'a>, row: usize) -> Result<$type, Null> {
                if reader.validity.is_null(row) { return Err(Null::here()); }
                Ok(match reader.kind {
                    $($kind => <$from>::from_le_bytes(reader.bytes(row)) as $type,)+
                    _ => unreachable!("the format was checked at open"),
                })
            }
        }
    };
}

number!(i64, "an integer", b'l' i64, b'i' i32, b's' i16, b'c' i8, b'I' u32, b'S' u16, b'C' u8);
number!(i32, "an integer of up to 32 bits", b'i' i32, b's' i16, b'c' i8, b'S' u16, b'C' u8);
number!(i16, "an integer of up to 16 bits", b's' i16, b'c' i8, b'C' u8);
number!(i8, "int8", b'c' i8);
number!(u64, "an unsigned integer", b'L' u64, b'I' u32, b'S' u16, b'C' u8);
number!(u32, "an unsigned integer of up to 32 bits", b'I' u32, b'S' u16, b'C' u8);
number!(u16, "an unsigned integer of up to 16 bits", b'S' u16, b'C' u8);
number!(u8, "uint8", b'C' u8);
number!(f64, "a number", b'g' f64, b'f' f32, b'l' i64, b'i' i32, b's' i16, b'c' i8, b'L' u64, b'I' u32, b'S' u16, b'C' u8);
number!(f32, "a float or an integer of up to 16 bits", b'f' f32, b's' i16, b'c' i8, b'S' u16, b'C' u8);

macro_rules! fixed {
    ([$($generics:tt)*] $type:ty, $words:expr, $formats:expr, $fits:expr, $value:expr) => {
        impl<'a, $($generics)*> Read<'a> for $type {
            type Reader = Fixed<'a>;
            fn wanted() -> String { $words.to_string() }
            fn formats() -> Vec<String> { $formats.into_iter().map(str::to_owned).collect() }
            fn check(fields: &[Field], at: usize) -> Result<(), Mismatch> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&fields[at].format) { Ok(()) } else { Err(mismatch::<Self>(&fields[at].format)) }
            }
            fn reader(flat: Flat<'a>, place: Place) -> Fixed<'a> { Fixed::new(flat, place) }
            #[inline(always)]
            fn is_null(reader: &Fixed<'a>, row: usize) -> bool { reader.validity.is_null(row) }
            #[inline(always)]
            fn read(reader: &Fixed<'a>, row: usize) -> Result<Self, Null> {
                if reader.validity.is_null(row) { return Err(Null::here()); }
                let value: fn(&Fixed<'a>, usize) -> Self = $value;
                Ok(value(reader, row))
            }
        }
    };
}

fixed!([] bool, "a boolean", ["b"], |format| format == "b", |reader, row| bit(reader.values, row));
// A timestamp has a format for each zone, and a decimal one for each precision: they cannot be listed.
fixed!([] Timestamp, "a timestamp", [], |format| format.starts_with("tsu:"), |reader, row| Timestamp(i64::from_le_bytes(reader.bytes(row))));
fixed!([] Date, "a date", ["tdD"], |format| format == "tdD", |reader, row| Date(i32::from_le_bytes(reader.bytes(row))));
fixed!(
    [const P: u8, const S: i8] Decimal<P, S>,
    format!("a decimal of at most {P} digits, {S} after the point"),
    [],
    |format| {
        let mut parts = format.strip_prefix("d:").unwrap_or_default().split(',');
        let mut number = || parts.next().and_then(|part| part.parse::<i16>().ok());
        number().is_some_and(|precision| precision <= i16::from(P)) && number() == Some(i16::from(S))
    },
    |reader, row| Decimal(i128::from_le_bytes(reader.bytes(row)))
);

/// Cells of varying length: strings and bytes by byte offsets, lists by item offsets.
pub struct Varying<'a, Inner> {
    validity: Validity<'a>,
    offsets: &'a [u8],
    inner: Inner,
}

impl<'a, Inner> Varying<'a, Inner> {
    fn new(flat: Flat<'a>, place: Place, inner: Inner) -> Varying<'a, Inner> {
        Varying { validity: flat.validity(place), offsets: flat.buffer(place, 1), inner }
    }

    /// Start and end, or nothing for a null.
    #[inline(always)]
    fn range(&self, row: usize) -> Result<std::ops::Range<usize>, Null> {
        if self.validity.is_null(row) {
            return Err(Null::here());
        }
        let mut pair = [0; 8];
        pair.copy_from_slice(&self.offsets[row * 4..row * 4 + 8]);
        let pair = u64::from_le_bytes(pair);
        Ok(pair as u32 as usize..(pair >> 32) as usize)
    }
}

macro_rules! varying {
    ($type:ty, $words:literal, [$($format:literal),+], |$bytes:ident| $value:expr) => {
        impl<'a> Read<'a> for $type {
            type Reader = Varying<'a, &'a [u8]>;
            fn wanted() -> String { $words.to_owned() }
            fn formats() -> Vec<String> { vec![$($format.to_owned()),+] }
            fn reader(flat: Flat<'a>, place: Place) -> Self::Reader { Varying::new(flat, place, flat.buffer(place, 2)) }
            #[inline(always)]
            fn is_null(reader: &Self::Reader, row: usize) -> bool { reader.validity.is_null(row) }
            #[inline(always)]
            fn read(reader: &Self::Reader, row: usize) -> Result<Self, Null> {
                let $bytes: &'a [u8] = &reader.inner[reader.range(row)?];
                Ok($value)
            }
        }
    };
}

#[inline(always)]
fn text(bytes: &[u8]) -> &str {
    // SAFETY: the host sends string columns (format `u`) only after it has checked that the data is UTF-8 and that every offset falls
    // between two characters; `check` has seen the format. The host, which owns this memory, is trusted in everything.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

varying!(&'a str, "a string", ["u"], |bytes| text(bytes));
varying!(String, "a string", ["u"], |bytes| text(bytes).to_owned());
varying!(std::borrow::Cow<'a, str>, "a string", ["u"], |bytes| text(bytes).into());
varying!(&'a [u8], "bytes", ["z", "u"], |bytes| bytes);
varying!(Vec<u8>, "bytes", ["z", "u"], |bytes| bytes.to_vec());

impl<'a, T: Read<'a>> Read<'a> for Option<T> {
    type Reader = T::Reader;
    fn wanted() -> String {
        T::wanted()
    }
    fn formats() -> Vec<String> {
        T::formats()
    }
    fn check(fields: &[Field], at: usize) -> Result<(), Mismatch> {
        T::check(fields, at)
    }
    fn reader(flat: Flat<'a>, place: Place) -> T::Reader {
        T::reader(flat, place)
    }
    #[inline(always)]
    fn is_null(_: &T::Reader, _: usize) -> bool {
        false
    }
    #[inline(always)]
    fn read(reader: &T::Reader, row: usize) -> Result<Option<T>, Null> {
        if T::is_null(reader, row) { Ok(None) } else { T::read(reader, row).map(Some) }
    }
}

/// What may be the item of a list: everything readable but `u8`, for a `Vec<u8>` is bytes.
pub trait Item {}
macro_rules! items { ($([$($generics:tt)*] $type:ty),+ $(,)?) => { $(impl<$($generics)*> Item for $type {})+ } }
items!(
    [] i64, [] i32, [] i16, [] i8, [] u64, [] u32, [] u16, [] f64, [] f32, [] bool, [] Timestamp, [] Date, [] String, ['a] &'a str,
    ['a] &'a [u8], [const P: u8, const S: i8] Decimal<P, S>, [T] Vec<T>, [T: Item] Option<T>, [K, V] BTreeMap<K, V>,
    ['a] std::borrow::Cow<'a, str>,
);

impl<'a, T: Read<'a> + Item> Read<'a> for Vec<T> {
    type Reader = Varying<'a, T::Reader>;
    fn wanted() -> String {
        format!("a list whose items are {}", T::wanted())
    }
    fn formats() -> Vec<String> {
        vec!["+l".to_owned()]
    }
    fn check(fields: &[Field], at: usize) -> Result<(), Mismatch> {
        if fields[at].format != "+l" {
            return Err(mismatch::<Self>(&fields[at].format));
        }
        T::check(fields, at + 1).map_err(|mismatch| mismatch.below("item"))
    }
    fn reader(flat: Flat<'a>, place: Place) -> Self::Reader {
        Varying::new(flat, place, T::reader(flat, flat.first_child(place)))
    }
    #[inline(always)]
    fn is_null(reader: &Self::Reader, row: usize) -> bool {
        reader.validity.is_null(row)
    }
    fn read(reader: &Self::Reader, row: usize) -> Result<Vec<T>, Null> {
        reader.range(row)?.map(|item| read_field(&reader.inner, item, "item")).collect()
    }
}

macro_rules! map {
    ($type:ty, [$($bound:tt)*]) => {
        impl<'a, K: Read<'a> $($bound)*, V: Read<'a>> Read<'a> for $type {
            type Reader = Varying<'a, (K::Reader, V::Reader)>;
            fn wanted() -> String { format!("a map from {} to {}", K::wanted(), V::wanted()) }
            fn formats() -> Vec<String> { vec!["+m".to_owned()] }
            fn check(fields: &[Field], at: usize) -> Result<(), Mismatch> {
                if fields[at].format != "+m" { return Err(mismatch::<Self>(&fields[at].format)); }
                K::check(fields, at + 2).map_err(|mismatch| mismatch.below("key"))?;
                V::check(fields, after(fields, at + 2)).map_err(|mismatch| mismatch.below("value"))
            }
            fn reader(flat: Flat<'a>, place: Place) -> Self::Reader {
                let key = flat.first_child(flat.first_child(place));
                Varying::new(flat, place, (K::reader(flat, key), V::reader(flat, flat.next(key))))
            }
            #[inline(always)]
            fn is_null(reader: &Self::Reader, row: usize) -> bool { reader.validity.is_null(row) }
            fn read(reader: &Self::Reader, row: usize) -> Result<Self, Null> {
                let entry = |at| Ok((read_field(&reader.inner.0, at, "key")?, read_field(&reader.inner.1, at, "value")?));
                reader.range(row)?.map(entry).collect()
            }
        }
    };
}
map!(BTreeMap<K, V>, [+ Ord]);
map!(Vec<(K, V)>, []);

/// A row type inside a row is a struct column. (Of a type that is neither, the message of `Read` says more.)
#[diagnostic::do_not_recommend]
impl<'a, T: ReadRow<'a>> Read<'a> for T {
    type Reader = (Validity<'a>, T::Readers);
    fn wanted() -> String {
        let fields: Vec<_> = T::wants().into_iter().map(|want| format!("{}: {}", want.name, want.wanted)).collect();
        format!("a struct {{{}}}", fields.join(", "))
    }
    fn formats() -> Vec<String> {
        vec!["+s".to_owned()]
    }
    fn check(fields: &[Field], at: usize) -> Result<(), Mismatch> {
        if fields[at].format != "+s" {
            return Err(mismatch::<Self>(&fields[at].format));
        }
        let end = after(fields, at);
        for want in T::wants() {
            let mut child = at + 1;
            while child < end && fields[child].name != want.name {
                child = after(fields, child);
            }
            if child == end {
                return Err(Mismatch { path: want.name.to_owned(), wanted: want.wanted, found: "missing".to_owned() });
            }
            (want.check)(fields, child).map_err(|mismatch| mismatch.below(want.name))?;
        }
        Ok(())
    }
    fn reader(flat: Flat<'a>, place: Place) -> Self::Reader {
        (flat.validity(place), T::readers(flat, flat.first_child(place)))
    }
    #[inline(always)]
    fn is_null(reader: &Self::Reader, row: usize) -> bool {
        reader.0.is_null(row)
    }
    fn read(reader: &Self::Reader, row: usize) -> Result<T, Null> {
        if reader.0.is_null(row) {
            return Err(Null::here());
        }
        T::read(&reader.1, row)
    }
}
