//! JSON Schema: the part of draft 2020-12 that says something about rows.
//!
//! Own code and not a crate, because those that there are bring the whole of the draft (references over the network, formats,
//! big numbers) for what comes down to types, ranges and required fields here. A keyword that is not understood is refused when
//! the schema is read: it must never look as if it had been checked.
//!
//! Invariant: a schema has no references, so checking a value ends, and its cost is bounded by the schema times the value.

mod read;

use arrow::datatypes::{DataType, Fields, Schema};
use regex::Regex;
use serde_json::{Map, Value};

/// A schema, ready to check values.
#[derive(Clone, Debug, Default)]
pub struct JsonSchema {
    /// `false` as a schema: nothing passes.
    never: bool,
    types: Option<Vec<Kind>>,
    /// `enum` and `const`.
    one_of_values: Option<Vec<Value>>,
    numbers: Numbers,
    strings: Strings,
    lists: Lists,
    objects: Objects,
    all_of: Vec<JsonSchema>,
    any_of: Vec<JsonSchema>,
    one_of: Vec<JsonSchema>,
    not: Option<Box<JsonSchema>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

#[derive(Clone, Debug, Default)]
struct Numbers {
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: Option<f64>,
    exclusive_maximum: Option<f64>,
    multiple_of: Option<f64>,
}

#[derive(Clone, Debug, Default)]
struct Strings {
    min_length: Option<u64>,
    max_length: Option<u64>,
    pattern: Option<Regex>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    items: Option<Box<JsonSchema>>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    unique: bool,
}

#[derive(Clone, Debug, Default)]
struct Objects {
    properties: Vec<(String, JsonSchema)>,
    required: Vec<String>,
    /// Of properties that are not named.
    additional: Option<Box<JsonSchema>>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
}

/// What is wrong with a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// From the schema down to the value at fault.
    pub path: Vec<String>,
    /// One sentence.
    pub message: String,
}

const KINDS: [(&str, Kind); 7] = [
    ("null", Kind::Null),
    ("boolean", Kind::Boolean),
    ("integer", Kind::Integer),
    ("number", Kind::Number),
    ("string", Kind::String),
    ("array", Kind::Array),
    ("object", Kind::Object),
];

impl JsonSchema {
    /// Reads a schema.
    pub fn read(schema: &Value) -> Result<JsonSchema, SchemaFault> {
        read::Reader { path: Vec::new() }.schema(schema)
    }

    /// Why a value does not pass; `None`: it does.
    pub fn fault(&self, value: &Value) -> Option<String> {
        self.fault_at(value, &mut Vec::new())
    }

    /// Why no row with these columns can pass, as far as the columns tell; `None`: some can.
    pub fn fault_of_columns(&self, columns: &Schema) -> Option<String> {
        self.fault_of_fields(columns.fields(), "")
    }

    fn fault_at(&self, value: &Value, path: &mut Vec<String>) -> Option<String> {
        self.fault_here(value, path)
            .or_else(|| match value {
                Value::Number(number) => self.numbers.fault(number.as_f64().unwrap_or(f64::NAN)).map(|fault| said(path, fault)),
                Value::String(text) => self.strings.fault(text).map(|fault| said(path, fault)),
                Value::Array(items) => self.lists.fault(items, path),
                Value::Object(entries) => self.objects.fault(entries, path),
                _ => None,
            })
            .or_else(|| self.fault_of_combinations(value, path))
    }

    fn fault_here(&self, value: &Value, path: &[String]) -> Option<String> {
        if self.never {
            return Some(said(path, "is not allowed"));
        }
        if let Some(types) = self.types.as_ref().filter(|types| !types.iter().any(|kind| kind.fits(value))) {
            let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            return Some(said(path, format!("must be of type {}, and is {}", names.join(" or "), shown(value))));
        }
        let values = self.one_of_values.as_ref().filter(|values| !values.iter().any(|allowed| same(allowed, value)))?;
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        Some(said(path, format!("must be one of {}, and is {}", values.join(", "), shown(value))))
    }

    fn fault_of_combinations(&self, value: &Value, path: &mut Vec<String>) -> Option<String> {
        if let Some(fault) = self.all_of.iter().find_map(|schema| schema.fault_at(value, path)) {
            return Some(fault);
        }
        let passes = |schema: &JsonSchema| schema.fault(value).is_none();
        if !self.any_of.is_empty() && !self.any_of.iter().any(passes) {
            return Some(said(path, "fits none of the schemas of `anyOf`"));
        }
        let fitting = self.one_of.iter().filter(|schema| passes(schema)).count();
        if !self.one_of.is_empty() && fitting != 1 {
            return Some(said(path, format!("fits {fitting} of the schemas of `oneOf`, not one")));
        }
        self.not.as_ref().filter(|schema| passes(schema)).map(|_| said(path, "fits the schema of `not`"))
    }

    fn fault_of_fields(&self, fields: &Fields, prefix: &str) -> Option<String> {
        let name = |field: &str| format!("{prefix}{field}");
        let known = |wanted: &String| fields.iter().any(|field| field.name() == wanted);
        if let Some(missing) = self.objects.required.iter().find(|wanted| !known(wanted)) {
            return Some(format!("the schema requires `{}`, which is no column", name(missing)));
        }
        for field in fields {
            let property = self.objects.properties.iter().find(|(property, _)| property == field.name());
            let fault = match (property, &self.objects.additional) {
                (Some((_, schema)), _) => schema.fault_of_column(field.data_type(), &name(field.name())),
                (None, Some(schema)) if schema.never => Some(format!("the schema does not allow the column `{}`", name(field.name()))),
                (None, Some(schema)) => schema.fault_of_column(field.data_type(), &name(field.name())),
                (None, None) => None,
            };
            if fault.is_some() {
                return fault;
            }
        }
        None
    }

    fn fault_of_column(&self, column: &DataType, name: &str) -> Option<String> {
        let kind = Kind::of_column(column)?;
        let fits = |wanted: &Kind| *wanted == kind || (*wanted == Kind::Number && kind == Kind::Integer);
        if let Some(types) = self.types.as_ref().filter(|types| !types.iter().any(fits)) {
            let types: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            return Some(format!("the schema wants `{name}` to be of type {}, but the column is {column}", types.join(" or ")));
        }
        match column {
            DataType::Struct(fields) => self.fault_of_fields(fields, &format!("{name}.")),
            DataType::List(item) | DataType::LargeList(item) => {
                self.lists.items.as_ref().and_then(|items| items.fault_of_column(item.data_type(), &format!("{name}[]")))
            }
            _ => None,
        }
    }
}

/// A fault with the place of the value in front.
fn said(path: &[String], fault: impl AsRef<str>) -> String {
    match path {
        [] => format!("the row {}", fault.as_ref()),
        path => format!("`{}` {}", path.join("."), fault.as_ref()),
    }
}

/// A value in a message, cut where it is long.
fn shown(value: &Value) -> String {
    const MAX_SHOWN: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// JSON Schema compares numbers by value: 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

impl Kind {
    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Kind::Null, Value::Null)
            | (Kind::Boolean, Value::Bool(_))
            | (Kind::Number, Value::Number(_))
            | (Kind::String, Value::String(_))
            | (Kind::Array, Value::Array(_))
            | (Kind::Object, Value::Object(_)) => true,
            // A number without a fraction is an integer, however it is written.
            (Kind::Integer, Value::Number(number)) => !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0),
            _ => false,
        }
    }

    /// `None`: anything could be in it.
    fn of_column(column: &DataType) -> Option<Kind> {
        Some(match column {
            DataType::Boolean => Kind::Boolean,
            column if column.is_integer() => Kind::Integer,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Number,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Timestamp(..) => Kind::String,
            DataType::List(_) | DataType::LargeList(_) => Kind::Array,
            DataType::Struct(_) => Kind::Object,
            _ => return None,
        })
    }
}

impl Numbers {
    fn fault(&self, number: f64) -> Option<String> {
        let bound = |limit: Option<f64>, holds: fn(f64, f64) -> bool, words: &str| {
            limit.filter(|limit| !holds(number, *limit)).map(|limit| format!("must be {words} {limit}, and is {number}"))
        };
        bound(self.minimum, |number, limit| number >= limit, "at least")
            .or_else(|| bound(self.maximum, |number, limit| number <= limit, "at most"))
            .or_else(|| bound(self.exclusive_minimum, |number, limit| number > limit, "more than"))
            .or_else(|| bound(self.exclusive_maximum, |number, limit| number < limit, "less than"))
            .or_else(|| bound(self.multiple_of, |number, of| (number / of).fract() == 0.0, "a multiple of"))
    }
}

impl Strings {
    fn fault(&self, text: &str) -> Option<String> {
        let length = text.chars().count() as u64;
        if let Some(least) = self.min_length.filter(|least| length < *least) {
            return Some(format!("must have at least {least} characters, and has {length}"));
        }
        if let Some(most) = self.max_length.filter(|most| length > *most) {
            return Some(format!("must have at most {most} characters, and has {length}"));
        }
        let pattern = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text))?;
        Some(format!("must match the pattern {pattern}, and is {}", shown(&Value::from(text))))
    }
}

impl Lists {
    fn fault(&self, items: &[Value], path: &mut Vec<String>) -> Option<String> {
        let length = items.len() as u64;
        if let Some(least) = self.min_items.filter(|least| length < *least) {
            return Some(said(path, format!("must have at least {least} items, and has {length}")));
        }
        if let Some(most) = self.max_items.filter(|most| length > *most) {
            return Some(said(path, format!("must have at most {most} items, and has {length}")));
        }
        if self.unique && items.iter().enumerate().any(|(number, item)| items[..number].iter().any(|other| same(other, item))) {
            return Some(said(path, "must not have an item twice"));
        }
        let schema = self.items.as_ref()?;
        items.iter().enumerate().find_map(|(number, item)| below(path, number.to_string(), |path| schema.fault_at(item, path)))
    }
}

impl Objects {
    fn fault(&self, entries: &Map<String, Value>, path: &mut Vec<String>) -> Option<String> {
        if let Some(missing) = self.required.iter().find(|name| !entries.contains_key(*name)) {
            return Some(said(path, format!("has no `{missing}`, which is required")));
        }
        let count = entries.len() as u64;
        if let Some(least) = self.min_properties.filter(|least| count < *least) {
            return Some(said(path, format!("must have at least {least} fields, and has {count}")));
        }
        if let Some(most) = self.max_properties.filter(|most| count > *most) {
            return Some(said(path, format!("must have at most {most} fields, and has {count}")));
        }
        entries.iter().find_map(|(name, value)| {
            let property = self.properties.iter().find(|(property, _)| property == name).map(|(_, schema)| schema);
            let schema = property.or(self.additional.as_deref())?;
            below(path, name.clone(), |path| schema.fault_at(value, path))
        })
    }
}

fn below<T>(path: &mut Vec<String>, part: String, look: impl FnOnce(&mut Vec<String>) -> T) -> T {
    path.push(part);
    let found = look(path);
    path.pop();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use serde_json::json;

    fn check(schema: Value, value: Value, expected: &str) {
        let schema = JsonSchema::read(&schema).unwrap();
        assert_eq!(schema.fault(&value).unwrap_or_default(), expected, "{value}");
    }

    #[test]
    fn values_pass_or_are_told_why_not() {
        let person = json!({"type": "object", "properties": {"name": {"type": "string", "minLength": 2}, "age": {"type": "integer",
            "minimum": 0}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": true}}, "required": ["name"]});
        check(person.clone(), json!({"name": "Ann", "age": 3.0, "tags": ["a"]}), "");
        check(person.clone(), json!({"age": 3}), "the row has no `name`, which is required");
        check(person.clone(), json!({"name": 3}), "`name` must be of type string, and is 3");
        check(person.clone(), json!({"name": "A"}), "`name` must have at least 2 characters, and has 1");
        check(person.clone(), json!({"name": "Ann", "age": -1}), "`age` must be at least 0, and is -1");
        check(person.clone(), json!({"name": "Ann", "tags": ["a", "c"]}), "`tags.1` must be one of \"a\", \"b\", and is \"c\"");
        check(person, json!({"name": "Ann", "tags": ["a", "a"]}), "`tags` must not have an item twice");
        check(json!({"additionalProperties": false, "properties": {"a": true}}), json!({"a": 1, "b": 2}), "`b` is not allowed");
        check(json!({"pattern": "^x+$"}), json!("xy"), "the row must match the pattern ^x+$, and is \"xy\"");
        check(json!({"anyOf": [{"type": "null"}, {"multipleOf": 0.5}]}), json!(1.25), "the row fits none of the schemas of `anyOf`");
        check(json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]}), json!(3), "the row fits 2 of the schemas of `oneOf`, not one");
        check(json!({"not": {"const": 1}}), json!(1.0), "the row fits the schema of `not`");
        check(json!({"type": ["null", "string"]}), json!(null), "");
    }

    #[test]
    fn schemas_that_are_not_understood_are_refused() {
        for (schema, path, part) in [
            (json!({"properties": {"a": {"type": "int"}}}), "properties.a.type", "`int` is no type"),
            (json!({"$ref": "#/definitions/a"}), "$ref", "not available"),
            (json!({"items": {"minLength": -1}}), "items.minLength", "at least 0"),
            (json!({"pattern": "("}), "pattern", "no regular expression"),
            (json!({"anyOf": []}), "anyOf", "at least one"),
            (json!([]), "", "not a list"),
        ] {
            let fault = JsonSchema::read(&schema).unwrap_err();
            assert_eq!(fault.path.join("."), path);
            assert!(fault.message.contains(part), "{}", fault.message);
        }
    }

    #[test]
    fn columns_that_can_never_pass_are_told_before_rows_come() {
        let columns = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
        for (schema, expected) in [
            (json!({"properties": {"a": {"type": "number"}}}), ""),
            (json!({"required": ["c"]}), "the schema requires `c`, which is no column"),
            (json!({"properties": {"b": {"type": "integer"}}}), "the schema wants `b` to be of type integer, but the column is Utf8"),
            (json!({"properties": {"a": {}}, "additionalProperties": false}), "the schema does not allow the column `b`"),
        ] {
            assert_eq!(JsonSchema::read(&schema).unwrap().fault_of_columns(&columns).unwrap_or_default(), expected);
        }
    }
}
