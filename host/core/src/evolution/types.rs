//! Types of stored values.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A type with a name, as Arrow's: a format string (`wit/data.wit` lists them) and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The field of a struct is known by it.
    pub name: String,
    /// Arrow's C data format.
    pub format: String,
    /// A byte 0 or 1 comes before the value.
    pub nullable: bool,
    /// Items, entries or fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Field>,
    /// The value of this field, encoded, where stored values have none.
    #[serde(skip)]
    pub default: Option<Vec<u8>>,
}

/// How many bytes a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Always so many.
    Fixed(usize),
    /// A u32 says it.
    Counted,
    /// What is below says it.
    Nested,
}

impl Field {
    /// A type without anything below it.
    pub fn leaf(name: &str, format: &str) -> Field {
        Field { name: name.into(), format: format.into(), ..Field::default() }
    }

    /// A type with others below it.
    pub fn of(name: &str, format: &str, children: Vec<Field>) -> Field {
        Field { children, ..Field::leaf(name, format) }
    }

    /// The same, but a value may be absent.
    pub fn or_null(self) -> Field {
        Field { nullable: true, ..self }
    }

    /// Whether values of both have the same bytes and the same meaning. A name says something only in a struct.
    pub fn is_like(&self, other: &Field) -> bool {
        let named = |a: &Field, b: &Field| self.format != "+s" || a.name == b.name;
        let children = || self.children.iter().zip(&other.children).all(|(a, b)| named(a, b) && a.is_like(b));
        self.format == other.format && self.nullable == other.nullable && self.children.len() == other.children.len() && children()
    }

    /// Whether the host knows how long values of the type are, all the way down.
    pub(super) fn is_known(&self) -> bool {
        self.width().is_some() && self.children.iter().all(Field::is_known)
    }

    /// How long its values are, apart from the byte of a nullable one; `None`: the format is not known here.
    pub(super) fn width(&self) -> Option<Width> {
        Some(match self.format.as_str() {
            "b" | "c" | "C" => Width::Fixed(1),
            "s" | "S" | "e" => Width::Fixed(2),
            "i" | "I" | "f" | "tdD" | "tts" | "ttm" => Width::Fixed(4),
            "l" | "L" | "g" | "tdm" | "ttu" | "ttn" => Width::Fixed(8),
            "u" | "z" => Width::Counted,
            "+l" if self.children.len() == 1 => Width::Nested,
            "+m" if matches!(&self.children[..], [entry] if entry.children.len() == 2) => Width::Nested,
            "+s" => Width::Nested,
            other if other.starts_with("ts") || other.starts_with("tD") => Width::Fixed(8),
            other if decimal(other).is_some() => Width::Fixed(16),
            other => Width::Fixed(other.strip_prefix("w:")?.parse().ok()?),
        })
    }
}

/// Precision and scale of a decimal of 128 bits.
pub(super) fn decimal(format: &str) -> Option<(u8, i8)> {
    let (precision, scale) = format.strip_prefix("d:")?.split_once(',')?;
    Some((precision.parse().ok()?, scale.parse().ok()?))
}

/// The type in words, without its name.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.format.as_str(), &self.children[..]) {
            ("b", _) => f.write_str("boolean"),
            ("c", _) => f.write_str("int8"),
            ("s", _) => f.write_str("int16"),
            ("i", _) => f.write_str("int32"),
            ("l", _) => f.write_str("int64"),
            ("C", _) => f.write_str("uint8"),
            ("S", _) => f.write_str("uint16"),
            ("I", _) => f.write_str("uint32"),
            ("L", _) => f.write_str("uint64"),
            ("f", _) => f.write_str("float"),
            ("g", _) => f.write_str("double"),
            ("u", _) => f.write_str("text"),
            ("z", _) => f.write_str("bytes"),
            ("tdD", _) => f.write_str("date"),
            ("tsu:UTC", _) => f.write_str("timestamp"),
            ("+l", [item]) => write!(f, "list of {item}"),
            ("+m", [entry]) if entry.children.len() == 2 => write!(f, "map of {} to {}", entry.children[0], entry.children[1]),
            ("+s", fields) => {
                f.write_str("{")?;
                for (number, field) in fields.iter().enumerate() {
                    write!(f, "{}{}: {field}", if number == 0 { "" } else { ", " }, field.name)?;
                }
                f.write_str("}")
            }
            (other, _) => match decimal(other) {
                Some((precision, scale)) => write!(f, "decimal({precision}, {scale})"),
                None => f.write_str(other),
            },
        }?;
        if self.nullable { f.write_str(" or none") } else { Ok(()) }
    }
}
