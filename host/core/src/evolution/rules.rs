//! From the type of stored values to another: which pairs the host converts, and how.
//!
//! As Avro resolves a writer's schema to a reader's, but only where every value has a counterpart: an integer becomes a wider one, or a float
//! that has room for all of its digits; float becomes double; text becomes bytes; what was always there may become absent; fields of a struct are matched by
//! name, new ones need a default or may be absent, others are dropped; a decimal gets more digits. The rest is for the plugin's `migrate`.

use super::types::{Field, decimal};
use std::fmt;

/// How one value becomes one of another type.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// It has the same bytes.
    Same(Field),
    /// Another number.
    Number(Number, Number),
    /// It was always there, and may be absent now.
    Present(Box<Conversion>),
    /// It may be absent, then as now.
    Optional(Box<Conversion>),
    /// Each item.
    List(Box<Conversion>),
    /// Each key and each value.
    Map(Box<Conversion>, Box<Conversion>),
    /// Its fields.
    Struct {
        /// Of each stored field: how it is converted, or which type it has if nobody wants it.
        read: Vec<Result<Conversion, Field>>,
        /// What is written, in order.
        write: Vec<Part>,
    },
}

/// A field of a converted struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The stored field of this number.
    Stored(usize),
    /// The same for every value.
    Fixed(Vec<u8>),
}

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// An integer of so many bytes.
    Int { bytes: u8, signed: bool },
    /// A float of 4 or 8 bytes.
    Float { bytes: u8 },
}

/// Why a type does not become another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where: names of fields with dots between them; empty: the value itself.
    pub path: String,
    /// What is there and what is wanted.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => write!(f, "its value {}", self.what),
            false => write!(f, "field `{}` {}", self.path, self.what),
        }
    }
}

impl Conversion {
    /// Whether every value keeps its bytes.
    pub fn is_same(&self) -> bool {
        matches!(self, Conversion::Same(_))
    }
}

/// How stored values become those that are wanted.
pub fn resolve(stored: &Field, wanted: &Field) -> Result<Conversion, Mismatch> {
    at("", stored, wanted)
}

fn at(path: &str, stored: &Field, wanted: &Field) -> Result<Conversion, Mismatch> {
    if stored.is_like(wanted) {
        return Ok(Conversion::Same(stored.clone()));
    }
    let differ = |why: &str| Mismatch { path: path.into(), what: format!("was {stored} and is {wanted} now{why}") };
    if stored.nullable && !wanted.nullable {
        return Err(differ(": one that is absent would have no value"));
    }
    let inner = present(path, stored, wanted, &differ)?;
    Ok(match (stored.nullable, wanted.nullable) {
        (true, true) if inner.is_same() => Conversion::Same(stored.clone()),
        (true, true) => Conversion::Optional(Box::new(inner)),
        (false, true) => Conversion::Present(Box::new(inner)),
        _ => inner,
    })
}

/// Of values that are there.
fn present(path: &str, stored: &Field, wanted: &Field, differ: &dyn Fn(&str) -> Mismatch) -> Result<Conversion, Mismatch> {
    let bare = |field: &Field| Field { nullable: false, ..field.clone() };
    let same = || Conversion::Same(bare(stored));
    if bare(stored).is_like(&bare(wanted)) {
        return Ok(same());
    }
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match (stored.format.as_str(), wanted.format.as_str(), &stored.children[..], &wanted.children[..]) {
        ("u", "z", ..) => Ok(same()),
        ("+l", "+l", [from], [to]) => Ok(Conversion::List(Box::new(at(&below("item"), from, to)?))),
        ("+m", "+m", [from], [to]) => match (&from.children[..], &to.children[..]) {
            ([key, value], [wanted_key, wanted_value]) => {
                let keys = at(&below("key"), key, wanted_key)?;
                // Two keys must not become one.
                if matches!(keys, Conversion::Struct { .. } | Conversion::Map(..)) {
                    return Err(differ(": keys change in their number only"));
                }
                Ok(Conversion::Map(Box::new(keys), Box::new(at(&below("value"), value, wanted_value)?)))
            }
            _ => Err(differ("")),
        },
        ("+s", "+s", from, to) => fields(&below, from, to),
        (from, to, ..) => match (Number::of(from), Number::of(to), decimal(from), decimal(to)) {
            (Some(a), Some(b), ..) if a.fits(b) => Ok(Conversion::Number(a, b)),
            (Some(a), Some(b), ..) if a.nearly_fits(b) => Err(differ(": large ones would be rounded")),
            (Some(_), Some(_), ..) => Err(differ(": some would not fit")),
            (.., Some((precision, scale)), Some((wanted_precision, wanted_scale)))
                if scale == wanted_scale && precision <= wanted_precision =>
            {
                Ok(same())
            }
            _ => Err(differ("")),
        },
    }
}

fn fields(below: &dyn Fn(&str) -> String, stored: &[Field], wanted: &[Field]) -> Result<Conversion, Mismatch> {
    if let Some(field) = stored.iter().find(|field| !field.is_known()) {
        return Err(Mismatch { path: below(&field.name), what: format!("is of the type {field}, around which the host changes nothing") });
    }
    let mut read: Vec<Result<Conversion, Field>> = stored.iter().map(|field| Err(field.clone())).collect();
    let mut write = Vec::new();
    for field in wanted {
        let path = below(&field.name);
        match stored.iter().position(|stored| stored.name == field.name) {
            Some(number) => {
                read[number] = Ok(at(&path, &stored[number], field)?);
                write.push(Part::Stored(number));
            }
            None => match (&field.default, field.nullable) {
                (Some(default), _) => write.push(Part::Fixed(default.clone())),
                (None, true) => write.push(Part::Fixed(vec![0])),
                (None, false) => {
                    let what = format!("is new and of type {field}: stored values have none, and it has no default and cannot be absent");
                    return Err(Mismatch { path, what });
                }
            },
        }
    }
    Ok(Conversion::Struct { read, write })
}

impl Number {
    fn of(format: &str) -> Option<Number> {
        let int = |bytes, signed| Number::Int { bytes, signed };
        Some(match format {
            "c" => int(1, true),
            "s" => int(2, true),
            "i" => int(4, true),
            "l" => int(8, true),
            "C" => int(1, false),
            "S" => int(2, false),
            "I" => int(4, false),
            "L" => int(8, false),
            "f" => Number::Float { bytes: 4 },
            "g" => Number::Float { bytes: 8 },
            _ => return None,
        })
    }

    /// Whether each number of this type is one of the other.
    fn fits(self, other: Number) -> bool {
        match (self, other) {
            (Number::Int { bytes, signed: a }, Number::Int { bytes: wider, signed: b }) => bytes < wider && (b || !a),
            // 24 and 53 binary digits.
            (Number::Int { bytes, .. }, Number::Float { bytes: float }) => bytes < float,
            (Number::Float { bytes }, Number::Float { bytes: wider }) => bytes < wider,
            (Number::Float { .. }, Number::Int { .. }) => false,
        }
    }

    /// Whether only digits would be lost.
    fn nearly_fits(self, other: Number) -> bool {
        matches!((self, other), (Number::Int { .. }, Number::Float { .. }))
    }
}
