//! A transform's config: a struct with `#[derive(Config)]`, read from the pipeline's JSON and described as a JSON Schema.
//!
//! A field is required unless it is an `Option` or has `#[config(default = ..)]`. A field that the struct does not have is an error that
//! names it and the known ones.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::nearest;

/// A type that one property of a config may have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a config field",
    note = "a config field is a bool, a number, a `String`, a type with `#[derive(Config)]`, or an `Option`, `Vec` or `BTreeMap<String, _>` of these"
)]
pub trait Config: Sized {
    fn schema() -> Value;
    /// The error's text says what is wrong and starts with the place, such as `.limits[2]`, when that is below this value.
    fn read(value: &Value) -> Result<Self, String>;
    /// The value of a property that is not there; nothing when it is required.
    fn absent() -> Option<Self> {
        None
    }
}

impl Config for () {
    fn schema() -> Value {
        object(vec![])
    }
    fn read(value: &Value) -> Result<(), String> {
        Properties::of(value, &[]).map(|_| ())
    }
}

impl Config for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
    fn read(value: &Value) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| unlike("true or false", value))
    }
}

impl Config for String {
    fn schema() -> Value {
        json!({"type": "string"})
    }
    fn read(value: &Value) -> Result<String, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| unlike("a string", value))
    }
}

impl Config for f64 {
    fn schema() -> Value {
        json!({"type": "number"})
    }
    fn read(value: &Value) -> Result<f64, String> {
        value.as_f64().ok_or_else(|| unlike("a number", value))
    }
}

impl Config for Value {
    fn schema() -> Value {
        json!({})
    }
    fn read(value: &Value) -> Result<Value, String> {
        Ok(value.clone())
    }
}

macro_rules! integer {
    ($($type:ty),+) => {$(
        impl Config for $type {
            fn schema() -> Value {
                // JSON Schema's numbers are doubles to most readers: the ends of 64 bits would be rounded.
                match size_of::<$type>() {
                    8 => json!({"type": "integer"}),
                    _ => json!({"type": "integer", "minimum": <$type>::MIN, "maximum": <$type>::MAX}),
                }
            }
            fn read(value: &Value) -> Result<$type, String> {
                let number = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
                let number = number.and_then(|number| <$type>::try_from(number).ok());
                number.ok_or_else(|| unlike(&format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX), value))
            }
        }
    )+};
}
integer!(i8, i16, i32, i64, u8, u16, u32, u64, usize);

impl<T: Config> Config for Option<T> {
    fn schema() -> Value {
        T::schema()
    }
    fn read(value: &Value) -> Result<Option<T>, String> {
        if value.is_null() { Ok(None) } else { T::read(value).map(Some) }
    }
    fn absent() -> Option<Option<T>> {
        Some(None)
    }
}

impl<T: Config> Config for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }
    fn read(value: &Value) -> Result<Vec<T>, String> {
        let items = value.as_array().ok_or_else(|| unlike("a list", value))?;
        items.iter().enumerate().map(|(at, item)| T::read(item).map_err(|error| below(&format!("[{at}]"), &error))).collect()
    }
}

impl<T: Config> Config for BTreeMap<String, T> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }
    fn read(value: &Value) -> Result<BTreeMap<String, T>, String> {
        let entries = value.as_object().ok_or_else(|| unlike("an object", value))?;
        let entry = |(name, value): (&String, &Value)| match T::read(value) {
            Ok(value) => Ok((name.clone(), value)),
            Err(error) => Err(below(&format!(".{name}"), &error)),
        };
        entries.iter().map(entry).collect()
    }
}

/// A struct's property in its schema; the derive macro lists them.
pub struct Property {
    pub name: &'static str,
    pub about: &'static str,
    pub schema: Value,
    pub required: bool,
    pub default: Option<Value>,
}

/// The JSON Schema of a struct.
pub fn object(properties: Vec<Property>) -> Value {
    let required: Vec<_> = properties.iter().filter(|property| property.required).map(|property| property.name).collect();
    let mut described = Map::new();
    for property in properties {
        let mut schema = property.schema;
        if let Some(schema) = schema.as_object_mut() {
            if !property.about.is_empty() {
                schema.insert("description".into(), property.about.into());
            }
            schema.extend(property.default.map(|default| ("default".into(), default)));
        }
        described.insert(property.name.into(), schema);
    }
    let mut schema = json!({"type": "object", "properties": described, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The JSON Schema of an enum of names.
pub fn names(names: &[&str]) -> Value {
    json!({"type": "string", "enum": names})
}

/// Which of the names a value is.
pub fn read_name(value: &Value, names: &[&str]) -> Result<usize, String> {
    let found = value.as_str().and_then(|text| names.iter().position(|name| *name == text));
    found.ok_or_else(|| unlike(&format!("one of {}", names.join(", ")), value))
}

/// The properties of a config object, known to have no unknown one.
pub struct Properties<'v>(&'v Map<String, Value>);

impl<'v> Properties<'v> {
    pub fn of(value: &'v Value, known: &[&'static str]) -> Result<Properties<'v>, String> {
        let properties = value.as_object().ok_or_else(|| unlike("an object", value))?;
        match properties.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Properties(properties)),
            Some(name) if known.is_empty() => Err(format!("unknown field `{name}`; there are no fields")),
            Some(name) => {
                let near = nearest(name, known.iter().copied());
                Err(format!("unknown field `{name}`, did you mean `{}`? The fields are {}", near[0], known.join(", ")))
            }
        }
    }

    /// Reads one, or takes its default.
    pub fn take<T: Config>(&self, name: &str, default: Option<fn() -> T>) -> Result<T, String> {
        match self.0.get(name) {
            Some(value) => T::read(value).map_err(|error| below(&format!(".{name}"), &error)),
            None => default.map(|default| default()).or_else(T::absent).ok_or_else(|| format!("field `{name}` is missing")),
        }
    }
}

fn unlike(wanted: &str, value: &Value) -> String {
    format!(" must be {wanted}, not {value}")
}

/// Puts a step before an error's place. Errors that say their own place start with no step, space or bracket.
fn below(step: &str, error: &str) -> String {
    match error.starts_with(['.', '[', ' ']) {
        true => format!("{step}{error}"),
        false => format!("{step}: {error}"),
    }
}

/// Reads the whole config of a transform.
pub(crate) fn read<C: Config>(text: &str) -> Result<C, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let value = serde_json::from_str(text).map_err(|error| format!("config is not JSON: {error}"))?;
    C::read(&value).map_err(|error| match error.starts_with(['.', '[', ' ']) {
        true => format!("config{error}"),
        false => format!("config: {error}"),
    })
}
