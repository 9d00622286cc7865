//! The types of a row, as a pipeline writes them, and as Arrow has them.
//!
//! Two forms are understood. A JSON schema, as Beam's Kafka connector takes it:
//! `{type: object, properties: {id: {type: integer}, at: {type: string, format: date-time}}, required: [id]}`;
//! and the short one: `{id: integer, at: timestamp}`. In both, a type may be a name, or a JSON schema of its own.
//!
//! Every column of a batch is nullable. A field that the schema requires is `nullable: false` only in the schema that decoders
//! are made from: they refuse a row without it.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use pelton_core::catalog::ConfigFault;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Names of types, in the order of the message that lists them.
const TYPES: &str =
    "boolean, int8, int16, int32, int64 (integer), float, double (number), string, bytes, timestamp, date, decimal(PRECISION,SCALE)";
/// Schemas nested deeper than JSON itself may be are refused.
const MAX_DEPTH: usize = 64;

/// The type of an instant: microseconds, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Reads either form; every fault with its path.
pub fn parse(value: &Value) -> Result<Schema, Vec<ConfigFault>> {
    let mut faults = Vec::new();
    let fields = match value {
        Value::Object(entries) if is_json_schema(entries) => properties(entries, &mut Vec::new(), &mut faults),
        Value::Object(entries) => {
            let mut path = Vec::new();
            entries.iter().map(|(name, value)| named(name, value, true, &mut path, &mut faults)).collect()
        }
        _ => {
            faults.push(ConfigFault::at(&[], "a schema must be a mapping").help("write {name: type, …} or a JSON schema of type object"));
            Vec::new()
        }
    };
    if faults.is_empty() && fields.is_empty() {
        faults.push(ConfigFault::at(&[], "a schema must have at least one field"));
    }
    if faults.is_empty() { Ok(Schema::new(fields)) } else { Err(faults) }
}

/// The same columns, all of them nullable at every depth: what batches have.
pub fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(nullable_field).collect::<Fields>()))
}

fn nullable_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), nullable_type(field.data_type()), true))
}

/// A type whose insides are nullable, but for the keys of maps.
pub fn nullable_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::List(nullable_field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(nullable_field).collect()),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) => map_of(nullable_type(pair[1].data_type()), *sorted),
            _ => data_type.clone(),
        },
        other => other.clone(),
    }
}

/// A map from strings.
pub fn map_of(value: DataType, sorted: bool) -> DataType {
    let pair = Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), sorted)
}

/// A list with Arrow's usual name for its items.
pub fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// A type in the words of a message.
pub fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "null".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(item) => format!("list of {}", name(item.data_type())),
        DataType::Struct(_) => "row".into(),
        DataType::Map(..) => "map".into(),
        other => format!("{other}").to_lowercase(),
    }
}

/// The columns and their types as one text, nested ones too: equal for equal columns.
pub fn describe(schema: &Schema) -> String {
    fields(schema.fields())
}

fn fields(fields: &Fields) -> String {
    let one = |field: &FieldRef| format!("{}: {}", field.name(), whole_name(field.data_type()));
    format!("{{{}}}", fields.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn whole_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) => format!("list of {}", whole_name(item.data_type())),
        DataType::Struct(inner) => fields(inner),
        other => name(other),
    }
}

fn is_json_schema(entries: &Map<String, Value>) -> bool {
    entries.get("properties").is_some_and(Value::is_object) || entries.get("type").and_then(Value::as_str) == Some("object")
}

fn properties(schema: &Map<String, Value>, path: &mut Vec<String>, faults: &mut Vec<ConfigFault>) -> Vec<Field> {
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(Value::Object(entries)) = schema.get("properties") else {
        faults.push(fault(path, "a schema of type object needs `properties`"));
        return Vec::new();
    };
    for name in required.iter().filter(|name| !entries.contains_key(**name)) {
        faults.push(fault(path, format!("`required` names `{name}`, which is no property")));
    }
    path.push("properties".into());
    let fields = entries.iter().map(|(name, value)| named(name, value, !required.contains(&name.as_str()), path, faults)).collect();
    path.pop();
    fields
}

fn named(name: &str, value: &Value, nullable: bool, path: &mut Vec<String>, faults: &mut Vec<ConfigFault>) -> Field {
    path.push(name.into());
    let data_type = type_of(value, path, faults);
    path.pop();
    Field::new(name, data_type, nullable)
}

fn type_of(value: &Value, path: &mut Vec<String>, faults: &mut Vec<ConfigFault>) -> DataType {
    if path.len() > MAX_DEPTH {
        faults.push(fault(path, "the schema is nested too deeply"));
        return DataType::Null;
    }
    match value {
        Value::String(name) => named_type(name, None).unwrap_or_else(|| unknown(name, path, faults)),
        Value::Object(schema) => json_schema_type(schema, path, faults),
        _ => {
            faults.push(fault(path, "a type must be a name or a JSON schema").help(format!("types: {TYPES}")));
            DataType::Null
        }
    }
}

fn json_schema_type(schema: &Map<String, Value>, path: &mut Vec<String>, faults: &mut Vec<ConfigFault>) -> DataType {
    // `type: [string, "null"]` is how JSON schema says nullable, which every column is.
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ if schema.contains_key("properties") => vec!["object"],
        _ => Vec::new(),
    };
    let [name] = names[..] else {
        faults.push(fault(path, "a JSON schema needs one `type`, and may add \"null\"").help(format!("types: object, array, {TYPES}")));
        return DataType::Null;
    };
    match name {
        "array" => {
            path.push("items".into());
            let item = match schema.get("items") {
                Some(items) => type_of(items, path, faults),
                None => {
                    faults.push(fault(path, "an array needs `items`"));
                    DataType::Null
                }
            };
            path.pop();
            list_of(item)
        }
        "object" => match (schema.get("properties"), schema.get("additionalProperties")) {
            (None, Some(value @ (Value::Object(_) | Value::String(_)))) => {
                path.push("additionalProperties".into());
                let value = type_of(value, path, faults);
                path.pop();
                map_of(value, false)
            }
            _ => DataType::Struct(properties(schema, path, faults).into()),
        },
        name => {
            let format = schema.get("format").and_then(Value::as_str);
            named_type(name, format).unwrap_or_else(|| unknown(name, path, faults))
        }
    }
}

fn named_type(name: &str, format: Option<&str>) -> Option<DataType> {
    Some(match (name, format) {
        ("string", Some("date-time")) | ("timestamp", _) => timestamp(),
        ("string", Some("date")) | ("date", _) => DataType::Date32,
        ("string", _) => DataType::Utf8,
        ("boolean" | "bool", _) => DataType::Boolean,
        ("int8" | "byte", _) => DataType::Int8,
        ("int16", _) => DataType::Int16,
        ("int32", _) => DataType::Int32,
        ("int64" | "integer", _) => DataType::Int64,
        ("float" | "float32", _) => DataType::Float32,
        ("double" | "number" | "float64", _) => DataType::Float64,
        ("bytes", _) => DataType::Binary,
        ("null", _) => DataType::Null,
        _ => return decimal(name),
    })
}

fn decimal(name: &str) -> Option<DataType> {
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<i8>().ok()?);
    ((1..=38).contains(&precision) && (0..=precision as i8).contains(&scale)).then_some(DataType::Decimal128(precision, scale))
}

fn unknown(name: &str, path: &[String], faults: &mut Vec<ConfigFault>) -> DataType {
    faults.push(fault(path, format!("unknown type `{name}`")).help(format!("types: {TYPES}")));
    DataType::Null
}

fn fault(path: &[String], message: impl Into<String>) -> ConfigFault {
    ConfigFault { path: path.to_vec(), message: message.into(), help: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms_say_the_same() {
        let short = parse(&json!({"id": "integer", "at": "timestamp", "price": "decimal(10,2)"})).unwrap();
        let long = parse(&json!({"type": "object", "properties": {
            "id": {"type": ["integer", "null"]}, "at": {"type": "string", "format": "date-time"}, "price": "decimal(10,2)"}}))
        .unwrap();
        assert_eq!(short, long);
        assert_eq!(short.field(1).data_type(), &timestamp());
        assert_eq!(short.field(2).data_type(), &DataType::Decimal128(10, 2));
    }

    #[test]
    fn nested_types() {
        let schema = parse(&json!({"type": "object", "required": ["tags"], "properties": {
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {"type": "object", "properties": {"lat": {"type": "number"}}},
            "counts": {"type": "object", "additionalProperties": {"type": "integer"}}}}))
        .unwrap();
        assert_eq!(schema.field(0).data_type(), &list_of(DataType::Utf8));
        assert!(!schema.field(0).is_nullable());
        assert!(nullable(&schema).field(0).is_nullable());
        assert_eq!(schema.field(2).data_type(), &map_of(DataType::Int64, false));
    }

    #[test]
    fn every_fault_has_its_path() {
        let faults = parse(&json!({"a": "strng", "b": {"type": "array"}, "c": 3, "d": "decimal(40,2)"})).unwrap_err();
        let paths: Vec<String> = faults.iter().map(|fault| fault.path.join(".")).collect();
        assert_eq!(paths, ["a", "b.items", "c", "d"]);
        assert!(parse(&json!(3)).is_err());
        assert!(parse(&json!({})).is_err());
    }
}
