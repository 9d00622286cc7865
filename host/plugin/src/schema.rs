//! Schemas as the contract writes them: a flat list of fields with format strings of the Arrow C data interface (`wit/data.wit`).
//!
//! Own code, not Arrow's C structures: what a guest answers is bounded in depth and number before anything is built from it.

use crate::contract::data;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use std::sync::Arc;

/// Nesting of an output column.
const MAX_DEPTH: usize = 16;
/// Fields of a schema, nested ones included.
pub(crate) const MAX_FIELDS: usize = 4_096;
/// Bytes of a field name.
const MAX_NAME_BYTES: usize = 1_024;
/// Stands for a type that cannot cross. The guest may pass such a column, not read it.
const OTHER: &str = "?";

/// One field of a flattened schema, as in `data.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlatField {
    pub(crate) name: String,
    pub(crate) format: String,
    pub(crate) nullable: bool,
    pub(crate) children: u32,
}

impl From<data::FieldResult> for FlatField {
    fn from(told: data::FieldResult) -> FlatField {
        FlatField { name: told.name, format: told.format, nullable: told.nullable, children: told.children }
    }
}

/// The whole schema. A column with a type that cannot cross is one field of the format `?`.
pub(crate) fn flatten_schema(schema: &Schema) -> Vec<FlatField> {
    let mut out = vec![];
    for field in schema.fields() {
        if can_cross(field.data_type()) {
            push(field, &mut out);
        } else {
            out.push(FlatField { name: field.name().clone(), format: OTHER.into(), nullable: field.is_nullable(), children: 0 });
        }
    }
    out
}

/// Whether a column of this type can be sent.
pub(crate) fn can_cross(data_type: &DataType) -> bool {
    format_of(data_type).is_some() && children_of(data_type).iter().all(|child| can_cross(child.data_type()))
}

fn push(field: &Field, out: &mut Vec<FlatField>) {
    let children = children_of(field.data_type());
    let format = format_of(field.data_type()).unwrap_or_else(|| OTHER.into());
    out.push(FlatField { name: field.name().clone(), format, nullable: field.is_nullable(), children: children.len() as u32 });
    children.iter().for_each(|child| push(child, out));
}

fn children_of(data_type: &DataType) -> Vec<&Field> {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| &**field).collect(),
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => vec![item],
        _ => vec![],
    }
}

fn format_of(data_type: &DataType) -> Option<String> {
    let plain = match data_type {
        DataType::Null => "n",
        DataType::Boolean => "b",
        DataType::Int8 => "c",
        DataType::Int16 => "s",
        DataType::Int32 => "i",
        DataType::Int64 => "l",
        DataType::UInt8 => "C",
        DataType::UInt16 => "S",
        DataType::UInt32 => "I",
        DataType::UInt64 => "L",
        DataType::Float32 => "f",
        DataType::Float64 => "g",
        DataType::Utf8 => "u",
        DataType::Binary => "z",
        DataType::Date32 => "tdD",
        DataType::Struct(_) => "+s",
        DataType::List(_) => "+l",
        DataType::Map(_, false) => "+m",
        DataType::FixedSizeBinary(width) => return Some(format!("w:{width}")),
        DataType::FixedSizeList(_, width) => return Some(format!("+w:{width}")),
        DataType::Decimal128(precision, scale) => return Some(format!("d:{precision},{scale}")),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => return Some(format!("tsu:{}", zone.as_deref().unwrap_or(""))),
        _ => return None,
    };
    Some(plain.into())
}

/// The columns that a guest says it makes.
pub(crate) fn unflatten_schema(flat: &[FlatField]) -> Result<Fields, String> {
    if flat.len() > MAX_FIELDS {
        return Err(format!("its schema has {} fields; {MAX_FIELDS} are allowed", flat.len()));
    }
    let (mut rest, mut fields) = (flat, vec![]);
    while !rest.is_empty() {
        fields.push(take(&mut rest, MAX_DEPTH)?);
    }
    Ok(fields.into())
}

fn take(rest: &mut &[FlatField], depth: usize) -> Result<Field, String> {
    let Some((field, after)) = rest.split_first() else { return Err("a schema ends inside a field".into()) };
    *rest = after;
    if depth == 0 {
        return Err(format!("column `{}` is nested more than {MAX_DEPTH} levels deep", field.name));
    }
    if field.name.len() > MAX_NAME_BYTES {
        return Err(format!("a field has a name of {} bytes; {MAX_NAME_BYTES} are allowed", field.name.len()));
    }
    let children = (0..field.children).map(|_| take(rest, depth - 1)).collect::<Result<Vec<_>, _>>()?;
    let data_type =
        type_of(&field.format, children).map_err(|why| format!("field `{}` of the format `{}` {why}", field.name, field.format))?;
    Ok(Field::new(&field.name, data_type, field.nullable))
}

fn type_of(format: &str, mut children: Vec<Field>) -> Result<DataType, String> {
    let expected = match format {
        "+s" => children.len(),
        "+l" | "+m" => 1,
        _ => usize::from(format.starts_with("+w:")),
    };
    if children.len() != expected {
        return Err(format!("has {} children, not {expected}", children.len()));
    }
    let mut item = || children.pop().map(Arc::new).ok_or("has no child");
    let unknown = || "is not a type of the contract".to_string();
    Ok(match format {
        "n" => DataType::Null,
        "b" => DataType::Boolean,
        "c" => DataType::Int8,
        "s" => DataType::Int16,
        "i" => DataType::Int32,
        "l" => DataType::Int64,
        "C" => DataType::UInt8,
        "S" => DataType::UInt16,
        "I" => DataType::UInt32,
        "L" => DataType::UInt64,
        "f" => DataType::Float32,
        "g" => DataType::Float64,
        "u" => DataType::Utf8,
        "z" => DataType::Binary,
        "tdD" => DataType::Date32,
        "+l" => DataType::List(item()?),
        "+s" => DataType::Struct(children.into()),
        "+m" => map_of(item()?)?,
        _ => match format.split_once(':').ok_or_else(unknown)? {
            ("w", width) => DataType::FixedSizeBinary(width_of(width)?),
            ("+w", width) => DataType::FixedSizeList(item()?, width_of(width)?),
            ("tsu", zone) => DataType::Timestamp(TimeUnit::Microsecond, zone_of(zone)?),
            ("d", shape) => decimal_of(shape)?,
            _ => return Err(unknown()),
        },
    })
}

fn map_of(entries: Arc<Field>) -> Result<DataType, String> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 && !fields[0].is_nullable() && !entries.is_nullable() => {
            Ok(DataType::Map(entries, false))
        }
        _ => Err("must have one child that is not nullable, a struct of a key that is not nullable and a value".into()),
    }
}

fn width_of(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|width| (0..=1 << 20).contains(width)).ok_or_else(|| "has no width between 0 and 1,048,576".into())
}

fn zone_of(zone: &str) -> Result<Option<Arc<str>>, String> {
    let named = zone.len() <= 64 && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-:".contains(&byte));
    if named { Ok((!zone.is_empty()).then(|| zone.into())) } else { Err("names no time zone".into()) }
}

fn decimal_of(shape: &str) -> Result<DataType, String> {
    let parsed = shape.split_once(',').and_then(|(precision, scale)| Some((precision.parse::<u8>().ok()?, scale.parse::<i8>().ok()?)));
    match parsed {
        Some((precision @ 1..=38, scale)) if scale.unsigned_abs() <= precision => Ok(DataType::Decimal128(precision, scale)),
        _ => Err("is no decimal128: precision 1 to 38, scale within it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(format: &str, children: u32) -> FlatField {
        FlatField { name: "x".into(), format: format.into(), nullable: true, children }
    }

    fn refused(flat: &[FlatField]) {
        assert!(unflatten_schema(flat).is_err(), "{flat:?}");
    }

    #[test]
    fn what_the_contract_has_no_type_for_is_refused() {
        for format in ["", "U", "vu", "e", "ttu", "tsn:UTC", "tsu", "w:-1", "w:x", "d:99,3", "d:10,11", "d:10,2,256", "tsu:Mars\n"] {
            refused(&[leaf(format, 0)]);
        }
        refused(&[leaf("l", 1), leaf("l", 0)]);
        refused(&[leaf("+l", 0)]);
        refused(&[leaf("+s", 2), leaf("l", 0)]);
        refused(&[leaf("+m", 1), leaf("l", 0)]);
        refused(&[leaf("+s", u32::MAX)]);
        refused(&vec![leaf("+s", 1); 17]);
        refused(&vec![leaf("l", 0); MAX_FIELDS + 1]);
    }

    #[test]
    fn a_column_that_cannot_cross_stays_one_field() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::LargeUtf8, true)));
        let flat = flatten_schema(&Schema::new(vec![Field::new("a", list, true), Field::new("b", DataType::Int8, false)]));
        assert_eq!(flat.iter().map(|field| field.format.as_str()).collect::<Vec<_>>(), ["?", "c"]);
    }
}
