//! From values to columns: [`Write`] is implemented by every type that a row's field may have.
//!
//! A writer grows the buffers in the layout in which they cross, so finishing a batch moves them and copies nothing. A validity bitmap
//! exists only once a null has been written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::read::Item;
use crate::row::WriteRow;
use crate::values::{Date, Decimal, Timestamp};
use crate::wire::Field;

/// Finished arrays, depth first.
#[derive(Default)]
pub struct Buffers {
    pub(crate) nodes: Vec<u8>,
    pub(crate) buffers: Vec<Vec<u8>>,
}

impl Buffers {
    fn node(&mut self, validity: Validity) {
        self.nodes.extend_from_slice(&(validity.length as u32).to_le_bytes());
        self.nodes.extend_from_slice(&(validity.nulls as u32).to_le_bytes());
        self.buffers.push(validity.bits);
    }
}

/// Which cells are not null.
#[derive(Default)]
pub struct Validity {
    bits: Vec<u8>,
    length: usize,
    nulls: usize,
}

impl Validity {
    #[inline(always)]
    fn valid(&mut self) {
        if self.nulls > 0 {
            push_bit(&mut self.bits, self.length, true);
        }
        self.length += 1;
    }

    fn null(&mut self) {
        if self.nulls == 0 {
            self.bits = vec![0xff; self.length / 8];
            if !self.length.is_multiple_of(8) {
                self.bits.push((1 << (self.length % 8)) - 1);
            }
        }
        push_bit(&mut self.bits, self.length, false);
        self.length += 1;
        self.nulls += 1;
    }
}

#[inline(always)]
fn push_bit(bitmap: &mut Vec<u8>, at: usize, value: bool) {
    match at % 8 {
        0 => bitmap.push(u8::from(value)),
        bit => bitmap[at / 8] |= u8::from(value) << bit,
    }
}

/// A type that stands in one column and can be written to it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written to a column",
    note = "a row's field is a bool, a number, `&str`, `String`, `&[u8]`, `Vec<u8>`, `Timestamp`, `Date`, `Decimal<P, S>`, a type with \
            `#[derive(Row)]`, or an `Option`, `Vec` or `BTreeMap` of these"
)]
pub trait Write: Sized {
    type Writer;
    /// Appends the column's field and those below it.
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>);
    /// `rows` is a guess of how many cells will come.
    fn writer(rows: usize) -> Self::Writer;
    fn write(self, writer: &mut Self::Writer);
    fn write_null(writer: &mut Self::Writer);
    /// A cell that is not null and that nobody sees: it stands below a null struct.
    fn write_filler(writer: &mut Self::Writer);
    fn finish(writer: Self::Writer, out: &mut Buffers);
}

fn flat_field(name: &str, format: &str, nullable: bool, children: u32) -> Field {
    Field { name: name.to_owned(), format: format.to_owned(), nullable, children, default: None }
}

pub struct Fixed {
    validity: Validity,
    values: Vec<u8>,
}

macro_rules! fixed {
    ([$($generics:tt)*] $type:ty, $format:expr, $width:literal, |$value:ident| $bytes:expr) => {
        impl<$($generics)*> Write for $type {
            type Writer = Fixed;
            fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
                let format: &str = &$format;
                out.push(flat_field(name, format, nullable, 0));
            }
            fn writer(rows: usize) -> Fixed { Fixed { validity: Validity::default(), values: Vec::with_capacity(rows * $width) } }
            #[inline(always)]
            fn write(self, writer: &mut Fixed) {
                let $value = self;
                writer.validity.valid();
                writer.values.extend_from_slice(&$bytes);
            }
            fn write_null(writer: &mut Fixed) {
                writer.validity.null();
                writer.values.extend_from_slice(&[0; $width]);
            }
            fn write_filler(writer: &mut Fixed) {
                writer.validity.valid();
                writer.values.extend_from_slice(&[0; $width]);
            }
            fn finish(writer: Fixed, out: &mut Buffers) {
                out.node(writer.validity);
                out.buffers.push(writer.values);
            }
        }
    };
}

fixed!([] i64, "l", 8, |value| value.to_le_bytes());
fixed!([] i32, "i", 4, |value| value.to_le_bytes());
fixed!([] i16, "s", 2, |value| value.to_le_bytes());
fixed!([] i8, "c", 1, |value| value.to_le_bytes());
fixed!([] u64, "L", 8, |value| value.to_le_bytes());
fixed!([] u32, "I", 4, |value| value.to_le_bytes());
fixed!([] u16, "S", 2, |value| value.to_le_bytes());
fixed!([] u8, "C", 1, |value| value.to_le_bytes());
fixed!([] f64, "g", 8, |value| value.to_le_bytes());
fixed!([] f32, "f", 4, |value| value.to_le_bytes());
fixed!([] Timestamp, "tsu:UTC", 8, |value| value.0.to_le_bytes());
fixed!([] Date, "tdD", 4, |value| value.0.to_le_bytes());
fixed!([const P: u8, const S: i8] Decimal<P, S>, format!("d:{P},{S}"), 16, |value| value.0.to_le_bytes());

impl Write for bool {
    type Writer = Fixed;
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        out.push(flat_field(name, "b", nullable, 0));
    }
    fn writer(rows: usize) -> Fixed {
        Fixed { validity: Validity::default(), values: Vec::with_capacity(rows.div_ceil(8)) }
    }
    #[inline(always)]
    fn write(self, writer: &mut Fixed) {
        push_bit(&mut writer.values, writer.validity.length, self);
        writer.validity.valid();
    }
    fn write_null(writer: &mut Fixed) {
        push_bit(&mut writer.values, writer.validity.length, false);
        writer.validity.null();
    }
    fn write_filler(writer: &mut Fixed) {
        false.write(writer);
    }
    fn finish(writer: Fixed, out: &mut Buffers) {
        out.node(writer.validity);
        out.buffers.push(writer.values);
    }
}

/// Cells of varying length.
pub struct Varying<Inner> {
    validity: Validity,
    offsets: Vec<u8>,
    inner: Inner,
}

impl<Inner> Varying<Inner> {
    fn new(rows: usize, inner: Inner) -> Varying<Inner> {
        let mut offsets = Vec::with_capacity(4 * (rows + 1));
        offsets.extend_from_slice(&[0; 4]);
        Varying { validity: Validity::default(), offsets, inner }
    }

    #[inline(always)]
    fn end_cell(&mut self, end: usize) {
        // Offsets of 32 bits are the contract's; a batch is bounded far below by the host.
        let end = i32::try_from(end).expect("one output column of a batch is larger than 2 GiB");
        self.offsets.extend_from_slice(&end.to_le_bytes());
    }

    fn repeat_end(&mut self) {
        let last = self.offsets.len() - 4;
        self.offsets.extend_from_within(last..);
    }
}

macro_rules! varying {
    ($($type:ty, $format:literal, |$value:ident| $bytes:expr;)+) => {$(
        impl Write for $type {
            type Writer = Varying<Vec<u8>>;
            fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) { out.push(flat_field(name, $format, nullable, 0)); }
            fn writer(rows: usize) -> Self::Writer { Varying::new(rows, Vec::new()) }
            #[inline(always)]
            fn write(self, writer: &mut Self::Writer) {
                let $value = &self;
                writer.inner.extend_from_slice($bytes);
                writer.validity.valid();
                writer.end_cell(writer.inner.len());
            }
            fn write_null(writer: &mut Self::Writer) {
                writer.validity.null();
                writer.repeat_end();
            }
            fn write_filler(writer: &mut Self::Writer) {
                writer.validity.valid();
                writer.repeat_end();
            }
            fn finish(writer: Self::Writer, out: &mut Buffers) {
                out.node(writer.validity);
                out.buffers.push(writer.offsets);
                out.buffers.push(writer.inner);
            }
        }
    )+};
}

varying! {
    &str, "u", |value| value.as_bytes();
    String, "u", |value| value.as_bytes();
    Cow<'_, str>, "u", |value| value.as_bytes();
    &[u8], "z", |value| value;
    Vec<u8>, "z", |value| value;
}

impl<T: Write> Write for Option<T> {
    type Writer = T::Writer;
    fn fields(name: &str, _: bool, out: &mut Vec<Field>) {
        T::fields(name, true, out);
    }
    fn writer(rows: usize) -> T::Writer {
        T::writer(rows)
    }
    #[inline(always)]
    fn write(self, writer: &mut T::Writer) {
        match self {
            Some(value) => value.write(writer),
            None => T::write_null(writer),
        }
    }
    fn write_null(writer: &mut T::Writer) {
        T::write_null(writer);
    }
    fn write_filler(writer: &mut T::Writer) {
        T::write_filler(writer);
    }
    fn finish(writer: T::Writer, out: &mut Buffers) {
        T::finish(writer, out);
    }
}

macro_rules! nested_cells {
    () => {
        fn write_null(writer: &mut Self::Writer) {
            writer.validity.null();
            writer.repeat_end();
        }
        fn write_filler(writer: &mut Self::Writer) {
            writer.validity.valid();
            writer.repeat_end();
        }
    };
}

impl<T: Write + Item> Write for Vec<T> {
    /// The items' writer and their number.
    type Writer = Varying<(T::Writer, usize)>;
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        out.push(flat_field(name, "+l", nullable, 1));
        T::fields("item", false, out);
    }
    fn writer(rows: usize) -> Self::Writer {
        Varying::new(rows, (T::writer(rows), 0))
    }
    fn write(self, writer: &mut Self::Writer) {
        writer.inner.1 += self.len();
        for item in self {
            item.write(&mut writer.inner.0);
        }
        writer.validity.valid();
        writer.end_cell(writer.inner.1);
    }
    nested_cells!();
    fn finish(writer: Self::Writer, out: &mut Buffers) {
        out.node(writer.validity);
        out.buffers.push(writer.offsets);
        T::finish(writer.inner.0, out);
    }
}

macro_rules! map {
    ($type:ty) => {
        impl<K: Write, V: Write> Write for $type {
            /// The writers of keys and values, and the number of entries.
            type Writer = Varying<(K::Writer, V::Writer, usize)>;
            fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
                out.push(flat_field(name, "+m", nullable, 1));
                out.push(flat_field("entries", "+s", false, 2));
                K::fields("key", false, out);
                V::fields("value", false, out);
            }
            fn writer(rows: usize) -> Self::Writer {
                Varying::new(rows, (K::writer(rows), V::writer(rows), 0))
            }
            fn write(self, writer: &mut Self::Writer) {
                writer.inner.2 += self.len();
                for (key, value) in self {
                    key.write(&mut writer.inner.0);
                    value.write(&mut writer.inner.1);
                }
                writer.validity.valid();
                writer.end_cell(writer.inner.2);
            }
            nested_cells!();
            fn finish(writer: Self::Writer, out: &mut Buffers) {
                let (keys, values, entries) = writer.inner;
                out.node(writer.validity);
                out.buffers.push(writer.offsets);
                out.node(Validity { length: entries, ..Validity::default() });
                K::finish(keys, out);
                V::finish(values, out);
            }
        }
    };
}
map!(BTreeMap<K, V>);
map!(Vec<(K, V)>);

/// A row type inside a row is a struct column. (Of a type that is neither, the message of `Write` says more.)
#[diagnostic::do_not_recommend]
impl<T: WriteRow> Write for T {
    type Writer = (Validity, T::Writers);
    fn fields(name: &str, nullable: bool, out: &mut Vec<Field>) {
        let at = out.len();
        out.push(flat_field(name, "+s", nullable, 0));
        T::fields(out);
        out[at].children = crate::schema::roots(&out[at + 1..]).len() as u32;
    }
    fn writer(rows: usize) -> Self::Writer {
        (Validity::default(), T::writers(rows))
    }
    fn write(self, writer: &mut Self::Writer) {
        writer.0.valid();
        WriteRow::write(self, &mut writer.1);
    }
    fn write_null(writer: &mut Self::Writer) {
        writer.0.null();
        T::write_filler(&mut writer.1);
    }
    fn write_filler(writer: &mut Self::Writer) {
        writer.0.valid();
        T::write_filler(&mut writer.1);
    }
    fn finish(writer: Self::Writer, out: &mut Buffers) {
        out.node(writer.0);
        T::finish(writer.1, out);
    }
}
